r"""Certificates and verdicts: the theory of the HS-Jacobian as things one can check.

Every function returns a frozen report with its residual, tolerance, verdict and the data that
reproduces it, or plain sets of matrices; nothing asserts. All of it works on the rows of
``C.to_polyhedron()`` and is independent of the solver's own numbers.

==================================  ================================================================
certificates                        :func:`kkt_certificate`, :func:`check_farkas`,
                                    :func:`check_variational_inequality`
the HS-Jacobian as a set            :func:`hs_elements`, :func:`is_hs_element`,
                                    :func:`is_admissible`, :func:`least_element`
limits of Jacobians                 :func:`b_subdifferential`, :func:`licq`
near a point                        :func:`neighbourhood`, :func:`check_exactness`,
                                    :func:`check_outer_semicontinuity`,
                                    :func:`directional_derivative`
along paths                         :func:`check_chain_rule`, :func:`check_circulation`,
                                    :func:`check_degenerate_path`, :data:`NON_CONSERVATIVE`
criticality                         :func:`check_criticality`, :func:`distance_to_critical`,
                                    :func:`near_elements`, :func:`dead_starts`
where statements fail               :func:`redundant_row`, :func:`pyramid_apex`,
                                    :func:`pinv_in_right_hand_side`, :func:`spurious_zero`
all of it                           :data:`STATEMENTS`, :func:`describe`; ``hsref verify``
==================================  ================================================================

Examples
--------
>>> import numpy as np
>>> from hsref import Simplex, project, theory
>>> x, C = np.array([0.9, 0.6, -1.0]), Simplex(3)
>>> print(theory.kkt_certificate(x, project(x, C), C).verdict)
True
>>> len(theory.hs_elements([0.5, 0.5, 0.0], C))
2
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Report": "reports",
    "kkt_certificate": "certificates",
    "check_farkas": "certificates",
    "check_variational_inequality": "certificates",
    "hs_elements": "hs_set",
    "is_hs_element": "hs_set",
    "is_admissible": "hs_set",
    "least_element": "hs_set",
    "EnumerationError": "hs_set",
    "b_subdifferential": "bsub",
    "licq": "bsub",
    "neighbourhood": "exactness",
    "check_exactness": "exactness",
    "check_outer_semicontinuity": "exactness",
    "directional_derivative": "exactness",
    "affine_pieces": "pieces",
    "check_chain_rule": "conservativity",
    "check_circulation": "conservativity",
    "check_degenerate_path": "conservativity",
    "layer": "conservativity",
    "NON_CONSERVATIVE": "fields",
    "check_criticality": "criticality",
    "distance_to_critical": "criticality",
    "near_elements": "criticality",
    "min_norm_point": "linear",
    "PROBLEMS": "problems",
    "dead_starts": "problems",
    "train": "problems",
    "redundant_row": "counterexamples",
    "pyramid_apex": "counterexamples",
    "pinv_in_right_hand_side": "counterexamples",
    "spurious_zero": "counterexamples",
    "STATEMENTS": "statements",
    "describe": "statements",
    "brute_force": "oracle",
}
_MODULES = ("verify", "planted")

__all__ = [
    "Report",
    "kkt_certificate",
    "check_farkas",
    "check_variational_inequality",
    "hs_elements",
    "is_hs_element",
    "is_admissible",
    "least_element",
    "EnumerationError",
    "b_subdifferential",
    "licq",
    "neighbourhood",
    "check_exactness",
    "check_outer_semicontinuity",
    "directional_derivative",
    "affine_pieces",
    "check_chain_rule",
    "check_circulation",
    "check_degenerate_path",
    "layer",
    "NON_CONSERVATIVE",
    "check_criticality",
    "distance_to_critical",
    "near_elements",
    "min_norm_point",
    "PROBLEMS",
    "dead_starts",
    "train",
    "redundant_row",
    "pyramid_apex",
    "pinv_in_right_hand_side",
    "spurious_zero",
    "STATEMENTS",
    "describe",
    "brute_force",
    "verify",
    "planted",
]

if TYPE_CHECKING:
    from . import planted, verify
    from .bsub import b_subdifferential, licq
    from .certificates import check_farkas, check_variational_inequality, kkt_certificate
    from .conservativity import (
        check_chain_rule,
        check_circulation,
        check_degenerate_path,
        layer,
    )
    from .counterexamples import (
        pinv_in_right_hand_side,
        pyramid_apex,
        redundant_row,
        spurious_zero,
    )
    from .criticality import check_criticality, distance_to_critical, near_elements
    from .exactness import (
        check_exactness,
        check_outer_semicontinuity,
        directional_derivative,
        neighbourhood,
    )
    from .fields import NON_CONSERVATIVE
    from .hs_set import (
        EnumerationError,
        hs_elements,
        is_admissible,
        is_hs_element,
        least_element,
    )
    from .linear import min_norm_point
    from .oracle import brute_force
    from .pieces import affine_pieces
    from .problems import PROBLEMS, dead_starts, train
    from .reports import Report
    from .statements import STATEMENTS, describe


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
