"""autograd primitives: ``project`` as a differentiable function of x, any number of times.

The solve runs on plain values. Its record is then attached to the traced input by a primitive whose
derivative is a second primitive, ``hs_product(v, J) = V v``. That one is linear and self-adjoint,
so it is its own derivative in both modes, and V being constant near almost every x, higher
derivatives of the projection are zero, as they should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from autograd.extend import defjvp, defvjp, primitive
from autograd.tracer import getval, isbox

from .jacobian import HSJacobian
from .sets.base import PolyhedralSet
from .solve import solve_record


@primitive
def hs_product(v: Any, J: HSJacobian) -> Any:
    """Return V v; linear in v and self-adjoint.

    Parameters
    ----------
    v : array_like, shape (..., *batch, *C.shape)
        Vectors, shaped like x.
    J : HSJacobian
        The element, held fixed.

    Returns
    -------
    ndarray of the same shape
    """
    return J._apply(v)


@primitive
def attach(x: Any, J: HSJacobian) -> Any:
    """Return the projection of a record as a function of its input x."""
    return np.array(J.record.y)


defvjp(hs_product, lambda ans, v, J: lambda g: hs_product(g, J), argnums=(0,))
defjvp(hs_product, lambda g, ans, v, J: hs_product(g, J), argnums=(0,))
defvjp(attach, lambda ans, x, J: lambda g: hs_product(g, J), argnums=(0,))
defjvp(attach, lambda g, ans, x, J: hs_product(g, J), argnums=(0,))


def project_box(
    x: Any, C: PolyhedralSet, options: Mapping[str, Any], data: Mapping[str, Any]
) -> Any:
    """Project a traced array: one solve on its value, then the record attached to the trace."""
    value = x
    while isbox(value):
        value = getval(value)
    traced = [name for name, given in data.items() if isbox(given)]
    if traced:
        raise TypeError(
            f"{traced[0]} carries gradients, and derivatives in the data of a set are not "
            "available: pass its value, or differentiate with respect to x alone."
        )
    _, J = solve_record(value, C, options, data)
    return attach(x, J)
