"""Projections in DataLoader workers (fork and spawn) and in two DDP ranks; a script of its own.

Processes are started from a fresh interpreter, whose threads are only those of PyTorch and hsref.
"""

from __future__ import annotations

import os
import sys
import tempfile

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import hsref
from hsref.interop.torch import Projection

N = 512
"""Large enough that a batch is spread over threads."""


class Projected(Dataset):
    """Points projected by whoever reads them, with their gradients."""

    def __init__(self) -> None:
        self.x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 64, N)))
        self.C = hsref.Simplex(N)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x[k].clone().requires_grad_()
        y = hsref.project(x, self.C, n_threads=2)
        (g,) = torch.autograd.grad((y**2).sum(), x)
        return y.detach(), g


def check_workers(method: str) -> None:
    data = Projected()
    wanted = [data[k] for k in range(len(data))]
    loader = DataLoader(
        data, batch_size=None, num_workers=1, multiprocessing_context=method, timeout=120
    )
    for got, (y, g) in zip(loader, wanted):
        assert torch.equal(got[0], y)
        assert torch.equal(got[1], g)
    print(f"{method} workers agree")


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), Projection(hsref.Simplex(4))).double()


def gradients(network: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.arange(4.0, dtype=torch.float64)
    (network(x) * weights).sum(dim=-1).mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def rank(k: int, store: str, x: torch.Tensor) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=k, world_size=2)
    try:
        network = DistributedDataParallel(model())
        found = gradients(network, x[k::2])
        alone = gradients(model(), x)
        for a, b in zip(found, alone):
            assert (a - b).abs().max() <= 1e-13, (a, b)
            assert b.abs().max() > 1e-3
    finally:
        dist.destroy_process_group()


def check_ranks() -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(16, 6)))
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(rank, (os.path.join(folder, "store"), x), nprocs=2)
    print("two ranks agree")


def main() -> int:
    check_workers("fork")
    check_workers("spawn")
    check_ranks()
    return 0


if __name__ == "__main__":
    sys.exit(main())
