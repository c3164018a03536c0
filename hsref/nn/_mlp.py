# autograd.numpy makes its names when imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
"""The multilayer perceptron: activations, initialisation, and the projection as a last layer."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import autograd.numpy as np

if TYPE_CHECKING:
    from ..sets.base import PolyhedralSet

PROBES = 64
"""Random inputs on which the start in the relative interior is checked."""


class Network(NamedTuple):
    """A pair of functions: ``params = init(seed)`` and ``y = apply(params, x)``."""

    init: Callable[..., list[dict[str, Any]]]
    apply: Callable[..., Any]


def _relu(x: Any) -> Any:
    # Not maximum(x, 0), whose derivative at 0 is 1/2 here; and x <= 0 lets a NaN through.
    return np.where(x <= 0.0, 0.0, x)


def _gelu(x: Any) -> Any:
    from autograd.scipy.special import erf

    return x * (0.5 * (1.0 + erf(x * math.sqrt(0.5))))


def _silu(x: Any) -> Any:
    # The logistic function through tanh, which overflows nowhere.
    return x * (0.5 * (1.0 + np.tanh(0.5 * x)))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": _relu,
    "tanh": np.tanh,
    "gelu": _gelu,
    "silu": _silu,
}
# Rectifiers lose half of the second moment, which He's factor 2 restores.
HE = ("relu", "gelu", "silu")


def mlp(
    sizes: Sequence[int],
    activation: str | Callable[[Any], Any] = "relu",
    output: PolyhedralSet | Callable[[Any], Any] | None = None,
    start: str | None = "interior",
    temperature: float = 1.0,
    dtype: Any = np.float64,
) -> Network:
    r"""Multilayer perceptron, with a projection onto a polyhedron as its last layer if wanted.

    .. math::
        h_0 = x, \quad h_{l+1} = \sigma(h_l W_l + b_l), \quad s = h_L W_L + b_L, \quad
        y = \Pi_C(s / \tau)

    Parameters
    ----------
    sizes : sequence of int
        Width of the input, of each hidden layer, and of the output: at least two positive numbers.
    activation : {"relu", "tanh", "gelu", "silu"} or callable
        :math:`\sigma` after every layer but the last; a callable must be written with
        ``autograd.numpy``.
    output : set, callable or None
        C: the output is projected onto it and has the shape of its points (matrix sets reshape the
        last axis, in C order). A callable (a softmax, say) is applied to ``s / temperature``
        instead. None leaves s as it is.
    start : {"interior", None}
        Where a network with a set as output starts; see Notes. No effect without one.
    temperature : float
        :math:`\tau > 0`. The projection of :math:`s/\tau` is the maximiser of
        :math:`\langle s, y \rangle - \tfrac{\tau}{2} \|y\|^2` over C, so :math:`\tau` compares with
        the temperature of a softmax or of Sinkhorn iterations.
    dtype : float64 or float32
        Precision of the parameters; plain input is cast to it.

    Returns
    -------
    Network
        ``init(seed)`` with an integer or a ``numpy.random.Generator`` gives the parameters, a list
        of dicts ``{"W": (n_in, n_out), "b": (n_out,)}``, the same for the same seed.
        ``apply(params, x, *, raw=False, **keywords)`` takes x of shape ``(*batch, sizes[0])``
        to ``(*batch, *C.shape)``; ``raw=True`` returns the projection's input :math:`s/\tau`
        (what `diagnostics` wants); other keywords go to `hsref.project` (``selection``,
        ``n_threads``, data of the set such as ``b_ub``).

    Raises
    ------
    ValueError
        One sentence for sizes that are no positive integers, an unknown activation, start or
        dtype, a temperature that is not positive, a last size that is not the number of entries of
        a point of C, input of another width, and a set too thin to start inside of.

    Notes
    -----
    Weights are normal, with variance 2 / n_in (He) for rectifier-like activations and
    2 / (n_in + n_out) (Glorot) for tanh, callables and the last layer; biases are 0.

    ``start="interior"``: the last bias is :math:`\tau c` with c = ``C.interior_point()``, so that
    y = c plus the projection of :math:`h_L W_L / \tau` onto the directions of C for as long as
    that stays in the relative interior, where the HS-Jacobian has full rank ``C.dim``. How far it
    may go is the margin of c (its distance to the relative boundary: 1/n for the simplex, 1/n for
    doubly stochastic matrices), so :math:`W_L` is multiplied by the largest power of two, at most
    1, for which twice the move, either way, stays inside for each of 64 inputs drawn from N(0, I).
    Outputs for inputs of unit scale therefore use between a quarter and a half of the margin, or
    less where the margin is larger than the weights ask for. Standardise the inputs:
    those of scale 10 start on the boundary, with fewer directions to learn in.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", 2015.
    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from hsref import Simplex
    >>> network = mlp([3, 8, 4], output=Simplex(4))
    >>> params = network.init(0)
    >>> y = network.apply(params, np.ones((5, 3)))
    >>> y.shape, bool((y > 0).all()), bool(np.allclose(y.sum(axis=-1), 1.0))
    ((5, 4), True, True)
    """
    sizes = _checked_sizes(sizes)
    sigma, scheme = _checked_activation(activation)
    dtype = _checked_dtype(dtype)
    if start not in ("interior", None):
        raise ValueError(f"start must be 'interior' or None; got {start!r}.")
    temperature = float(temperature)
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive finite number; got {temperature!r}.")
    C = _checked_output(output, sizes[-1])

    def init(seed: Any) -> list[dict[str, Any]]:
        rng = np.random.default_rng(seed)
        params = []
        for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
            last = layer == len(sizes) - 2
            variance = 2.0 / n_in if scheme == "he" and not last else 2.0 / (n_in + n_out)
            weights = rng.standard_normal((n_in, n_out)) * math.sqrt(variance)
            params.append({"W": weights.astype(dtype), "b": np.zeros(n_out, dtype)})
        if C is not None and start == "interior":
            centre = C.interior_point().reshape(-1)
            hidden = _hidden(params, rng.standard_normal((PROBES, sizes[0])).astype(dtype), sigma)
            moves = hidden @ params[-1]["W"] / temperature
            params[-1]["W"] *= _inside_scale(C, centre, moves)
            params[-1]["b"] = (temperature * centre).astype(dtype)
        return params

    def apply(params: Any, x: Any, *, raw: bool = False, **keywords: Any) -> Any:
        x = _as_input(x, sizes[0], params[0]["W"].dtype)
        last = params[-1]
        s = np.matmul(_hidden(params, x, sigma), last["W"]) + last["b"]
        if temperature != 1.0:
            s = s / temperature
        if C is not None:
            s = np.reshape(s, (*s.shape[:-1], *C.shape))
        if raw or output is None:
            if keywords and not raw:
                raise TypeError(f"this network has no set that {sorted(keywords)[0]} could go to.")
            return s
        if C is None:
            return output(s, **keywords)  # type: ignore[operator]
        from ..solve import project

        return project(s, C, **keywords)

    return Network(init, apply)


def _hidden(params: Any, x: Any, sigma: Callable[[Any], Any]) -> Any:
    for layer in params[:-1]:
        x = sigma(np.matmul(x, layer["W"]) + layer["b"])
    return x


def _inside_scale(C: PolyhedralSet, centre: Any, moves: Any) -> float:
    """Largest power of two, at most 1, with centre + 2 * scale * move in ri C for every move."""
    from ..solve import projection

    def inside(points: Any) -> bool:
        # Full rank of V: no row is active but those that all of C satisfies with equality.
        points = points.astype(moves.dtype).reshape(-1, *C.shape)
        return bool(np.all(projection(points, C).rank == C.dim))

    if not inside(centre[None]):
        raise ValueError(
            f"{C!r} is too thin for start='interior' in {moves.dtype}: its interior point is "
            "within the active tolerance of a constraint; use start=None, or rescale the set."
        )
    # Both signs: the side of a one-sided set may be met by few of the probes.
    both = np.concatenate([moves, -moves])
    scale = 1.0
    while not inside(centre + 2.0 * scale * both):
        scale *= 0.5
    return scale


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        checked = tuple(operator.index(size) for size in sizes)
    except TypeError:
        checked = ()
    if len(checked) < 2 or min(checked) < 1:
        raise ValueError(
            f"sizes must be at least two positive integers (input, hidden…, output); got {sizes!r}."
        )
    return checked


def _checked_activation(activation: Any) -> tuple[Callable[[Any], Any], str]:
    if callable(activation):
        return activation, "glorot"
    if activation not in ACTIVATIONS:
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation must be one of {names}, or a callable; got {activation!r}.")
    return ACTIVATIONS[activation], "he" if activation in HE else "glorot"


def _checked_dtype(dtype: Any) -> Any:
    checked = np.dtype(dtype)
    if checked not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"dtype must be float64 or float32; got {checked}.")
    return checked


def _checked_output(output: Any, width: int) -> Any:
    """Return the set to project onto, or None where the output is no set."""
    if output is None or (callable(output) and not hasattr(output, "interior_point")):
        return None
    if not hasattr(output, "interior_point"):
        raise TypeError(
            f"output must be a set such as hsref.Simplex(3), a callable or None; "
            f"got {type(output).__name__}."
        )
    if output.size != width:
        raise ValueError(
            f"the last of sizes is {width}, but a point of {output!r} has {output.size} entries."
        )
    return output


def _as_input(x: Any, width: int, dtype: Any) -> Any:
    # Nested lists become arrays; an autograd box stays on its trace.
    x = x if hasattr(x, "shape") else np.array(x, dtype=dtype)
    if x.ndim == 0 or x.shape[-1] != width:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (*batch, {width}).")
    return x if x.dtype == dtype else x.astype(dtype)
