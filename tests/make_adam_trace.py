"""Write ``data/adam_trace.json``: trajectories of PyTorch's Adam, AdamW and SGD.

Run it as ``python tests/make_adam_trace.py``; it needs PyTorch, the tests that read the file do
not. Python writes floats with as many digits as it takes to read the same bits back.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

PATH = Path(__file__).parent / "data" / "adam_trace.json"
STEPS = 120
CASES = {
    "adam": ("Adam", {"lr": 0.05}),
    "adam_betas": ("Adam", {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}),
    "adamw": ("AdamW", {"lr": 0.05, "weight_decay": 0.1}),
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd_momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
}


def start() -> np.ndarray:
    return np.array([1.5, -0.7, 0.0, 1e-4, 30.0])


def gradient(x: np.ndarray, k: int) -> np.ndarray:
    """Return a gradient with kinks, noise, exact zeros and widely spread sizes."""
    scale = np.array([1.0, 1e-6, 1.0, 1e3, 0.1])
    noise = np.array([((7 * k + 3 * i) % 11 - 5) / 10 for i in range(5)])
    rough = np.sign(x) + x + noise
    rough[2] = 0.0 if k % 2 else rough[2]
    return scale * rough


def run(case: str) -> np.ndarray:
    """Return PyTorch's trajectory of a case, shape (STEPS + 1, 5)."""
    import torch

    kind, options = CASES[case]
    x = torch.tensor(start(), dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, kind)([x], **options)
    points = [x.detach().numpy().copy()]
    for k in range(STEPS):
        x.grad = torch.tensor(gradient(points[-1], k))
        optimizer.step()
        points.append(x.detach().numpy().copy())
    return np.array(points)


def read() -> dict[str, np.ndarray]:
    """Return the stored trajectories."""
    stored = json.loads(PATH.read_text(encoding="utf-8"))["trajectories"]
    return {name: np.array(rows) for name, rows in stored.items()}


def main() -> None:
    import torch

    parts = []
    for name in CASES:
        rows = ",\n".join(json.dumps(row) for row in run(name).tolist())
        parts.append(f'"{name}": [\n{rows}\n]')
    versions = f'"torch": "{torch.__version__}", "numpy": "{np.__version__}"'
    inside = ",\n".join(parts)  # no backslash may stand in an f-string before Python 3.12
    body = f'{{{versions}, "trajectories": {{\n{inside}\n}}}}\n'
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    main()
