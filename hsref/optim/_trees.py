"""Parameter trees: nested lists, tuples, named tuples and dicts with arrays or numbers as leaves.

Whatever is not a container is a leaf; ``None`` is an empty place and stays ``None``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ._schedules import plain


def _kind(node: Any) -> str:
    if isinstance(node, dict):
        return "dict"
    if isinstance(node, list | tuple):
        return "sequence"
    return "empty" if node is None else "leaf"


def _describe(node: Any) -> str:
    kind = _kind(node)
    if kind == "dict":
        return f"a dict with keys {sorted(map(str, node))}"
    if kind == "sequence":
        return f"a {type(node).__name__} of length {len(node)}"
    return "nothing (None)" if kind == "empty" else f"a leaf of type {type(node).__name__}"


def _rebuild(like: Any, children: Any) -> Any:
    if isinstance(like, dict):
        container = OrderedDict if isinstance(like, OrderedDict) else dict
        return container(zip(like, children, strict=True))
    if hasattr(like, "_fields"):
        return type(like)(*children)
    return tuple(children) if isinstance(like, tuple) else list(children)


def _walk(function: Callable, path: str, tree: Any, others: tuple) -> Any:
    kind = _kind(tree)
    for other in others:
        same = _kind(other) == kind
        if same and kind == "dict":
            same = tree.keys() == other.keys()
        elif same and kind == "sequence":
            same = len(tree) == len(other)
        if not same:
            raise ValueError(
                f"the trees differ at {path or 'the top'}: "
                f"{_describe(tree)} against {_describe(other)}."
            )
    if kind == "empty":
        return None
    if kind == "leaf":
        return function(path, tree, *others)
    keys = list(tree) if kind == "dict" else range(len(tree))
    return _rebuild(
        tree,
        [
            _walk(function, f"{path}[{key!r}]", tree[key], tuple(other[key] for other in others))
            for key in keys
        ],
    )


def tree_map(function: Callable, tree: Any, *others: Any) -> Any:
    """Apply a function to corresponding leaves and keep the containers of the first tree.

    Parameters
    ----------
    function : callable
        Called as ``function(leaf, *leaves_of_others)``.
    tree, *others : nested lists, tuples, named tuples, dicts
        Trees of one structure.  Lists and tuples may stand for each other (frameworks return
        either); the result has the containers of ``tree``.  Not modified.

    Returns
    -------
    tree
        New containers holding what ``function`` returned; ``None`` stays ``None``.

    Raises
    ------
    ValueError
        ``the trees differ at [0]['W']: a leaf of type float against nothing (None).``

    Examples
    --------
    >>> tree_map(lambda a, b: a + b, {"w": [1, 2], "b": (3,)}, {"w": (10, 20), "b": [30]})
    {'w': [11, 22], 'b': (33,)}
    """
    return _walk(lambda _path, *leaves: function(*leaves), "", tree, others)


def tree_leaves(tree: Any) -> list:
    """List the leaves of a tree from left to right (dicts in their own order).

    Examples
    --------
    >>> tree_leaves({"w": [1, 2], "b": (3, None)})
    [1, 2, 3]
    """
    leaves: list = []
    _walk(lambda _path, leaf: leaves.append(leaf), "", tree, ())
    return leaves


def match(params: Any, grads: Any) -> None:
    """Raise one sentence where gradients do not fit parameters in structure, shape or dtype."""

    def check(path: str, parameter: Any, gradient: Any) -> None:
        place = path or "the top"
        shape, gradient_shape = getattr(parameter, "shape", ()), getattr(gradient, "shape", ())
        if tuple(shape) != tuple(gradient_shape):
            # Broadcasting would carry on and change the parameter's shape without a word.
            raise ValueError(
                f"the gradient at {place} has shape {tuple(gradient_shape)}, "
                f"its parameter {tuple(shape)}."
            )
        dtype, gradient_dtype = getattr(parameter, "dtype", None), getattr(gradient, "dtype", None)
        if dtype is not None and gradient_dtype is not None and dtype != gradient_dtype:
            raise TypeError(
                f"the gradient at {place} has dtype {gradient_dtype}, its parameter {dtype}; "
                "cast one of them."
            )

    _walk(check, "", params, (grads,))


def total(leaf: Any) -> Any:
    """Sum the entries of an array of any kind; a number is its own sum."""
    return leaf.sum() if hasattr(leaf, "sum") else leaf


def global_norm(tree: Any) -> Any:
    r"""Euclidean norm of all leaves taken as one vector.

    .. math:: \|t\| = \Bigl(\sum_\ell \sum_i t_{\ell i}^2\Bigr)^{1/2}

    Squares are summed in the dtype of the leaves, so entries above the square root of its largest
    number give ``inf``.

    Examples
    --------
    >>> global_norm({"w": 3.0, "b": [4.0]})
    5.0
    """
    return sum((total(leaf * leaf) for leaf in tree_leaves(tree)), 0.0) ** 0.5


def clip_by_global_norm(grads: Any, max_norm: float) -> Any:
    r"""Shrink a gradient tree onto the ball of a given radius, keeping its direction.

    .. math:: g \mapsto g \cdot \min(1, c / \|g\|)

    Parameters
    ----------
    grads : tree
        Gradients.  Not modified.
    max_norm : float
        The radius c, positive.

    Returns
    -------
    tree
        The same values bit for bit where the norm is at most ``max_norm``; NaN where the norm is
        not finite (a zero gradient there would hide the overflow).

    Raises
    ------
    ValueError
        ``max_norm must be a positive number; got 0.0.``

    Notes
    -----
    A clipped stochastic gradient is in general no longer an unbiased element of the conservative
    field, so `check_conditions` does not cover it with a fixed ``max_norm``.

    Examples
    --------
    >>> clip_by_global_norm([3.0, 4.0], 2.5)
    [1.5, 2.0]
    >>> clip_by_global_norm([3.0, 4.0], 10.0)
    [3.0, 4.0]
    """
    if not max_norm > 0.0:
        raise ValueError(f"max_norm must be a positive number; got {max_norm!r}.")
    max_norm = float(max_norm)
    norm = global_norm(grads)
    # max(norm - c, 0) without a comparison, so that a traced norm works; exactly 0 below c.
    excess = (abs(norm - max_norm) + (norm - max_norm)) / 2.0
    # norm - norm is 0, or NaN where the norm overflowed.
    scale = plain(1.0 / (1.0 + excess / max_norm) + (norm - norm))
    return tree_map(lambda leaf: leaf * scale, grads)
