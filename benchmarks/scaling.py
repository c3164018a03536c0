"""Time against n and against batch for every set, with fitted exponents and pictures.

``python -m benchmarks.scaling`` times the forward (``projection``) and the backward (``J @ v``) of
each registered set on one thread, at sizes that double until a call takes the budget, and fits
``seconds = c * n**e`` to the upper half of the points: the lower half is overhead. One file a set
in ``RESULTS/rows``, measured again only with ``--again``; then ``scaling.md`` and two PNG files.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import measure
from .workloads import CASES

RESULTS = Path(__file__).parent / "results"
ENTRIES = 200_000
"""Entries of a batch in the runs against n: large enough that overhead does not show."""
BATCHES = (1, 10, 100, 1000, 10_000, 100_000)


def _dense(n: int, rng: np.random.Generator) -> Any:
    import hsref

    z = rng.standard_normal(n)
    A, E = rng.standard_normal((n, n)), rng.standard_normal((max(1, n // 10), n))
    return hsref.Polyhedron(
        A_ub=A, b_ub=A @ z + 0.5 * np.sqrt(n) * rng.random(n), A_eq=E, b_eq=E @ z
    )


def _few_rows(n: int, rng: np.random.Generator) -> Any:
    """Return a portfolio as plain rows: few coupling rows, bounds on every entry."""
    problem = CASES["W8"]
    from .workloads import _build

    sizes = {"n": n, "sectors": min(11, max(2, n // 8)), "cap": min(1.0, 25.0 / n)}
    return _build("scaling", problem.family, sizes, 1, int(rng.integers(1 << 30))).plain_set()


def _table() -> dict[str, tuple[str, Callable[[Any, int, np.random.Generator], Any], int]]:
    """Return, by label: the class, how to make it at size n, and n in the runs against batch.

    n is the length of a point, or the side of a square matrix for the matrix sets.
    """
    return {
        "Box": ("Box", lambda s, n, r: s(-0.5, 0.5, n=n), 32),
        "Hyperplane": ("Hyperplane", lambda s, n, r: s(r.standard_normal(n), 1.0), 32),
        "Halfspace": ("Halfspace", lambda s, n, r: s(r.standard_normal(n), -1.0), 32),
        "AffineSubspace": (
            "AffineSubspace",
            lambda s, n, r: s(r.standard_normal((max(1, n // 10), n)), np.ones(max(1, n // 10))),
            32,
        ),
        "Simplex": ("Simplex", lambda s, n, r: s(n), 32),
        "CappedSimplex": ("CappedSimplex", lambda s, n, r: s(n, n / 4), 32),
        "Knapsack": ("Knapsack", lambda s, n, r: s(0.5 + r.random(n), n / 4, 0.0, 1.0), 32),
        "L1Ball": ("L1Ball", lambda s, n, r: s(n, math.sqrt(n)), 32),
        "GroupBudget": (
            "GroupBudget",
            lambda s, n, r: s(
                n, np.arange(n) % 4, np.zeros(4), np.array([0.2, 0.3, 0.4, 0.5]),
                total=1.0, cap=min(1.0, 8.0 / n),
            ),
            32,
        ),
        "IsotonicCone": ("IsotonicCone", lambda s, n, r: s(n), 32),
        "Permutahedron": ("Permutahedron", lambda s, n, r: s(np.arange(n, 0, -1.0) / n), 32),
        "Turnover": ("Turnover", lambda s, n, r: s(np.full(n, 1.0 / n), 0.5), 32),
        "Birkhoff": ("Birkhoff", lambda s, n, r: s(n), 4),
        "Transport": (
            "Transport", lambda s, n, r: s(np.full(n, 1.0), n * (w := 1 + r.random(n)) / w.sum()), 6
        ),
        "Substochastic": ("Substochastic", lambda s, n, r: s(n, n), 6),
        "PartialMatching": ("PartialMatching", lambda s, n, r: s(n, n, 0.75 * n), 6),
        "Polyhedron, n dense rows": ("Polyhedron", lambda s, n, r: _dense(n, r), 16),
        "Polyhedron, few rows and bounds": ("Polyhedron", lambda s, n, r: _few_rows(n, r), 32),
    }  # fmt: skip


def labels() -> list[str]:
    """Return the labels of the sets that are there, registered sets without an entry included."""
    import hsref

    table = _table()
    there = [key for key, (name, _, _) in table.items() if name in hsref.sets.REGISTRY]
    covered = {name for name, _, _ in table.values()}
    return there + [name for name in hsref.sets.REGISTRY if name not in covered]


def make(label: str, n: int | None, rng: np.random.Generator) -> Any:
    """Return the set at size n; at its batch size for None."""
    import hsref

    entry = _table().get(label)
    if entry is None:
        # A set this table does not know: its first example, which has a size of its own.
        return next(iter(hsref.sets.REGISTRY[label].examples()))
    name, build, usual = entry
    return build(getattr(hsref, name), usual if n is None else n, rng)


def time_set(C: Any, batch: int, rng: np.random.Generator, budget: float) -> tuple[float, float]:
    """Return seconds of one forward and one backward of a batch."""
    import hsref

    spread = 0.1 if type(C).__name__ in ("GroupBudget", "Turnover") else 1.0
    x = spread * rng.standard_normal((batch, *C.shape))
    forward = measure.median_time(lambda: hsref.projection(x, C, n_threads=1), budget)
    J = hsref.HSJacobian(hsref.projection(x, C, n_threads=1), "active", 1)
    backward = measure.median_time(lambda: J @ x, budget)
    return forward["seconds"], backward["seconds"]


def fit(sizes: list[float], seconds: list[float]) -> float | None:
    """Return the exponent of a power law through the upper half of the points."""
    count = max(3, (len(sizes) + 1) // 2)
    if len(sizes) < 3:
        return None
    return float(np.polyfit(np.log(sizes[-count:]), np.log(seconds[-count:]), 1)[0])


def run_set(label: str, seed: int, budget: float, most: int = 1 << 17) -> dict[str, Any]:
    """Time one set against n and against batch."""
    rng = np.random.default_rng(seed)
    table = _table()
    against_n: list[dict[str, float]] = []
    if label in table:
        n = 4
        while n <= most:
            try:
                C = make(label, n, rng)
                batch = max(1, min(1024, ENTRIES // math.prod(C.shape)))
                forward, backward = time_set(C, batch, rng, budget / 8)
            except (ValueError, MemoryError) as problem:
                against_n.append({"n": n, "stopped": str(problem)[:120]})
                break
            against_n.append(
                {"n": n, "batch": batch, "forward": forward / batch, "backward": backward / batch}
            )
            if forward + backward > budget:
                break
            n *= 2
    C = make(label, None, rng)
    against_batch = []
    for batch in BATCHES:
        forward, backward = time_set(C, batch, rng, budget / 8)
        against_batch.append({"batch": batch, "forward": forward, "backward": backward})
        if forward + backward > budget:
            break
    good = [p for p in against_n if "forward" in p]
    content: dict[str, Any] = {
        "set": label, "seed": seed, "against_n": against_n, "against_batch": against_batch,
        "shape": list(C.shape), "machine": measure.machine(),
    }  # fmt: skip
    for part in ("forward", "backward"):
        content[f"exponent_n_{part}"] = fit([p["n"] for p in good], [p[part] for p in good])
        content[f"exponent_batch_{part}"] = fit(
            [p["batch"] for p in against_batch], [p[part] for p in against_batch]
        )
    return content


def write_report(folder: Path) -> None:
    """Write the table and the pictures from the files of the sets."""
    rows = [json.loads(p.read_text()) for p in sorted((folder / "rows").glob("scaling-*.json"))]
    if not rows:
        return
    order = {key: i for i, key in enumerate(_table())}
    rows.sort(key=lambda r: order.get(r["set"], 99))
    box = rows[0]["machine"]
    lines = [
        "# Cost as work grows", "",
        f"{box['cpu']}, one thread, {box['when']} UTC. n is the length of a point (the side of the "
        "matrix for matrix sets, whose points have n² entries). Exponents are fitted to the upper "
        "half of the sizes; an answer of half a megabyte or more may be written into fresh pages, "
        "which cost more than the cheapest kernels (the bend of Box's backward). Regenerate: "
        "`python -m benchmarks.scaling --again`.", "",
        "| set | forward ∝ | backward ∝ | largest n | forward µs | backward µs | "
        "batch: forward ∝ | one sample µs | 10 000 samples, µs each |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        good = [p for p in r["against_n"] if "forward" in p]
        cells = ["", "", "–", "–", "–"]
        if good:
            cells = [_power("n", r["exponent_n_forward"]), _power("n", r["exponent_n_backward"]),
                     str(good[-1]["n"]), f"{1e6 * good[-1]['forward']:.3g}",
                     f"{1e6 * good[-1]['backward']:.3g}"]  # fmt: skip
        large = [p for p in r["against_batch"] if p["batch"] == 10_000]
        cells += [
            _power("B", r["exponent_batch_forward"]),
            f"{1e6 * r['against_batch'][0]['forward']:.3g}",
            f"{1e6 * large[0]['forward'] / 10_000:.3g}" if large else "–",
        ]
        lines.append(f"| {r['set']} | " + " | ".join(cells) + " |")
    measure.write_atomically(folder / "scaling.md", "\n".join(lines) + "\n")
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    _plot(rows, "against_n", "n", "µs a sample", folder / "scaling-n.png")
    _plot(rows, "against_batch", "batch", "ms a batch", folder / "scaling-batch.png")


def _power(name: str, exponent: float | None) -> str:
    return "–" if exponent is None else f"{name}^{exponent:.2f}"


def _plot(rows: list[dict[str, Any]], key: str, variable: str, label: str, path: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    rows = [r for r in rows if any("forward" in p for p in r[key])]
    columns = 4
    deep = -(-len(rows) // columns)
    figure, axes = plt.subplots(
        deep, columns, figsize=(3.2 * columns, 2.5 * deep), squeeze=False, layout="constrained"
    )
    unit = 1e6 if key == "against_n" else 1e3
    kind = "n" if key == "against_n" else "batch"
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, r in zip(axes.flat, rows, strict=False):
        points = [p for p in r[key] if "forward" in p]
        where = [p[variable] for p in points]
        for part, colour in (("forward", "C0"), ("backward", "C1")):
            exponent = _power(variable[0].upper() if kind == "batch" else "n",
                              r[f"exponent_{kind}_{part}"])  # fmt: skip
            axis.loglog(where, [unit * p[part] for p in points], "o-", color=colour,
                        markersize=3, label=f"{part} ∝ {exponent}")  # fmt: skip
        axis.set_title(r["set"], fontsize=9)
        axis.grid(True, alpha=0.2)
        axis.legend(fontsize=6)
        axis.set_xlabel(variable, fontsize=7)
        axis.set_ylabel(label, fontsize=7)
        axis.tick_params(labelsize=6)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Time the sets asked for and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("sets", nargs="*", help="labels; all by default")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.4, help="seconds at which sizes stop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="time sets whose file is there too")
    parser.add_argument("--report", action="store_true", help="rewrite the report and stop")
    parser.add_argument("--list", action="store_true", help="print the labels and stop")
    options = parser.parse_args(arguments)
    known = labels()
    unknown = [s for s in options.sets if s not in known]
    if unknown:
        raise SystemExit(f"no set {unknown[0]!r}; there are: {', '.join(known)}")
    if options.list:
        print("\n".join(known))
        return 0
    if not options.report:
        measure.keep_to(1)
    for label in [] if options.report else options.sets or known:
        target = options.out / "rows" / f"scaling-{label.replace(' ', '_').replace(',', '')}.json"
        if target.exists() and not options.again:
            continue
        content = run_set(label, options.seed, options.budget)
        measure.write_json(target, content)
        print(f"{label}: forward {_power('n', content['exponent_n_forward'])}, backward "
              f"{_power('n', content['exponent_n_backward'])}", flush=True)  # fmt: skip
    write_report(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
