"""Kernels of composite sets: the templates of :mod:`hsref.sets.compose` bound to those inside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._batch import Kernel, RawRecord
from .._codes import INFO_SIZE, INFO_TAPE_FLOATS, INFO_TAPE_INTS
from .._jit import DeviceFunction, specialise
from .compose import (
    pair_hs,
    pair_project,
    power_hs,
    power_project,
    scaled_hs,
    scaled_project,
    shifted_hs,
    shifted_project,
)


@functools.cache
def _bind(template: Callable[..., Any], owner: str, **bindings: Any) -> DeviceFunction:
    # Cached, so that sets made of the same kinds of sets share one compiled routine.
    return specialise(template, owner, **bindings)


def image_kernel(inner: Kernel, kind: str) -> Kernel:
    """Return the kernel of a ``"Scaled"`` or ``"Shifted"`` set around `inner`."""
    project, hs = (scaled_project, scaled_hs) if kind == "Scaled" else (shifted_project, shifted_hs)
    name = f"{kind}_{inner.name}"
    n = inner.size
    return Kernel(
        name, _bind(project, name, inner_project=inner.project_point),
        _bind(hs, name, inner_hs=inner.hs_point), size=n, code_size=inner.code_size,
        dual_size=inner.dual_size, work_size=inner.work_size + n, iwork_size=inner.iwork_size,
        hs_work_size=inner.hs_work_size + n, hs_iwork_size=inner.hs_iwork_size,
        shared=inner.shared, methods=inner.methods, tape_floats=inner.tape_floats,
        tape_ints=inner.tape_ints, cost=inner.cost + 6.0 * n, hs_cost=inner.hs_cost + 2.0 * n,
    )  # fmt: skip


class Node(NamedTuple):
    """A kernel, the length of its data row, and the nodes it was made of (none for a block)."""

    kernel: Kernel
    data_size: int
    parts: tuple[Node, ...] = ()


def product_node(blocks: list[tuple[Kernel, int]]) -> Node:
    """Combine blocks, each given with the length of its data row."""
    runs: list[list[Node]] = []
    for kernel, data_size in blocks:
        one = Node(kernel, data_size)
        if runs and _same(runs[-1][0].kernel, kernel) and runs[-1][0].data_size == data_size:
            runs[-1].append(one)
        else:
            runs.append([one])
    nodes = [_power(run) if len(run) > 1 else run[0] for run in runs]
    node = nodes.pop()
    while nodes:
        node = _pair(nodes.pop(), node)
    return node


def split_record(record: RawRecord, node: Node) -> list[RawRecord]:
    """Return the records of the blocks, in order, as each block alone would have made them."""
    if not node.parts:
        return [record]
    kernels = [part.kernel for part in node.parts]
    places = {
        name: np.cumsum([0, *(getattr(k, size) for k in kernels)])
        for name, size in (("y", "size"), ("code", "code_size"), ("dual", "dual_size"))
    }
    batch = len(record.status)
    first = record.at_i[:-1]
    # Samples that were not solved have no tape, and no header either.
    has = np.diff(record.at_i) >= 2 * len(kernels)
    start_f, start_i = record.at_f[:-1].copy(), first + 2 * len(kernels)
    out = []
    for b, part in enumerate(node.parts):
        sizes = np.zeros((2, batch), np.int64)
        sizes[:, has] = record.tape_i[first[has] + 2 * b], record.tape_i[first[has] + 2 * b + 1]
        info = np.zeros_like(record.info)
        info[:, INFO_TAPE_FLOATS], info[:, INFO_TAPE_INTS] = sizes
        cut = {name: slice(at[b], at[b + 1]) for name, at in places.items()}
        alone = RawRecord(
            record.y[:, cut["y"]], record.status, record.code[:, cut["code"]],
            record.dual[:, cut["dual"]], info, record.margin,
            record.tape_f[ranges(start_f, sizes[0])], record.tape_i[ranges(start_i, sizes[1])],
            np.concatenate(([0], np.cumsum(sizes[0]))), np.concatenate(([0], np.cumsum(sizes[1]))),
        )  # fmt: skip
        out += split_record(alone, part)
        start_f += sizes[0]
        start_i += sizes[1]
    return out


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the indices start..start+count-1 of all samples, one after another."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())


def _same(first: Kernel, second: Kernel) -> bool:
    """Return whether two blocks run the same code on the same shared arrays."""
    return (
        first.project_point is second.project_point
        and first.hs_point is second.hs_point
        and (first.size, first.code_size, first.dual_size)
        == (second.size, second.code_size, second.dual_size)
        and len(first.shared) == len(second.shared)
        and all(
            a.dtype == b.dtype and np.array_equal(a, b)
            for a, b in zip(first.shared, second.shared, strict=True)
        )
    )


def _power(run: list[Node]) -> Node:
    k, data_size, count = run[0].kernel, run[0].data_size, len(run)
    taped = k.tape_floats + k.tape_ints > 0
    floats = count * k.tape_floats
    ints = 2 * count + count * k.tape_ints if taped else 0
    layout = np.array(
        [count, k.size, data_size, k.code_size, k.dual_size, k.tape_floats, k.tape_ints]
    )
    name = f"Power_{k.name}"
    made = Kernel(
        name, _bind(power_project, name, inner_project=k.project_point),
        _bind(power_hs, name, inner_hs=k.hs_point), size=count * k.size,
        code_size=count * k.code_size, dual_size=count * k.dual_size,
        work_size=floats + 2 + k.work_size, iwork_size=ints + INFO_SIZE + max(k.iwork_size, 1),
        hs_work_size=k.hs_work_size, hs_iwork_size=k.hs_iwork_size, shared=(layout, *k.shared),
        methods=("block by block",), tape_floats=floats, tape_ints=ints,
        cost=count * (k.cost + 20.0), hs_cost=count * (k.hs_cost + 5.0),
    )  # fmt: skip
    return Node(made, count * data_size, tuple(run))


def _pair(first: Node, rest: Node) -> Node:
    a, b, p = first.kernel, rest.kernel, first.data_size
    floats = a.tape_floats + b.tape_floats
    ints = a.tape_ints + b.tape_ints
    ints = ints + 4 if floats + ints > 0 else 0
    layout = np.array([1, a.size, p, a.code_size, a.dual_size, floats, ints])
    name = f"Pair_{a.name}_{b.name}"
    head = 1 + len(a.shared)
    made = Kernel(
        name,
        _bind(
            pair_project, name, inner_project=a.project_point, tail_project=b.project_point,
            HEAD_SHARED=head,
        ),
        _bind(pair_hs, name, inner_hs=a.hs_point, tail_hs=b.hs_point, HEAD_SHARED=head),
        size=a.size + b.size, code_size=a.code_size + b.code_size,
        dual_size=a.dual_size + b.dual_size,
        work_size=floats + 2 + max(a.work_size, b.work_size),
        iwork_size=ints + INFO_SIZE + max(a.iwork_size, b.iwork_size, 1),
        hs_work_size=max(a.hs_work_size, b.hs_work_size),
        hs_iwork_size=max(a.hs_iwork_size, b.hs_iwork_size),
        shared=(layout, *a.shared, *b.shared), methods=("block by block",), tape_floats=floats,
        tape_ints=ints, cost=a.cost + b.cost + 20.0, hs_cost=a.hs_cost + b.hs_cost + 5.0,
    )  # fmt: skip
    return Node(made, p + rest.data_size, (first, rest))
