"""PyTorch tensors on a CUDA device: views for Numba, launches on PyTorch's current stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import hsref
from hsref._cuda.compat import external_stream, on_device, view_of

from ._shared import Plan, pull_arrays

_STREAMS: dict[tuple[int, int], Any] = {}
"""Numba's handle of every PyTorch stream seen, so that its scratch is found again."""


@contextmanager
def _device(x: Tensor) -> Iterator[Any]:
    """Make the device of x current in both libraries; yields Numba's name of the stream."""
    index = x.device.index or 0
    with torch.cuda.device(x.device), on_device(index):
        pointer = torch.cuda.current_stream(x.device).cuda_stream
        key = (index, pointer)
        if key not in _STREAMS:
            _STREAMS[key] = external_stream(pointer)
        yield _STREAMS[key]


def _view(x: Tensor, stream: Any) -> Any:
    # PyTorch's interface names no stream. What is queued on the current one comes before our launch
    # only because we launch there too.
    return view_of(x.detach().resolve_neg().contiguous(), stream)


def _tensor(array: Any, x: Tensor) -> Tensor:
    """Return a tensor over the memory of one of Numba's device arrays, on the device of x."""
    return torch.as_tensor(array, device=x.device)


def solve(x: Tensor, C: Any, keywords: dict[str, Any]) -> tuple[Tensor, Any]:
    """Return the projection and V, both on the device."""
    with _device(x) as stream:
        record = hsref.projection(_view(x, stream), C, **keywords)
        # The record reads its y again in every product, and the caller may write into ours.
        return _tensor(record.y, x).clone(), record.jacobian()


def value(x: Tensor, C: Any, keywords: dict[str, Any]) -> Tensor:
    """Return the projection alone."""
    with _device(x) as stream:
        return _tensor(hsref.project(_view(x, stream), C, **keywords), x)


def pull(J: Any, g: Tensor, plan: Plan) -> tuple[Tensor, ...]:
    """Return V' g on the device and cotangents of parameters on the host, where those live."""
    with _device(g) as stream:
        out = [_tensor(J.T @ _view(g, stream), g)] if plan.x else []
    if plan.names:
        parts = pull_arrays(_on_host(J), g.detach().cpu().numpy(), replace(plan, x=False))
        out += [torch.from_numpy(part) for part in parts]
    return tuple(out)


def push(J: Any, tangents: tuple[Tensor, ...], plan: Plan) -> Tensor:
    """Return V dx on the device."""
    if plan.names:
        raise NotImplementedError(
            f"forward mode (and second derivatives) in {plan.names[0]} is not available where x "
            "lives on a CUDA device: move x to the host."
        )
    with _device(tangents[0]) as stream:
        return _tensor(J @ _view(tangents[0], stream), tangents[0])


def _on_host(J: Any) -> Any:
    """Return V over a host copy of its record, for parameters, which live on the host."""
    record = J.record.to_host()
    return hsref.HSJacobian(record, J.selection)
