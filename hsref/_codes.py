"""Integer codes shared by the compiled routines and the Python rooms above them.

They are plain module-level integers because device functions freeze them as constants.

Constraint codes
    Every constraint of a set carries one ``int8`` of bit flags, written once in the forward pass
    and read ever after. *Lower* bits belong to constraints that bound from below, *upper* bits to
    constraints that bound from above (rows ``A_ub y <= b_ub`` count as upper). A selection of the
    HS-Jacobian is a bit mask: constraint ``i`` belongs to ``K`` when ``code[i] & mask`` is not 0.
"""

from __future__ import annotations

from enum import IntEnum

SOLVED = 0
MAX_STEPS = 1
PRIMAL_INFEASIBLE = 2
SINGULAR = 3
NONFINITE = -1
"""Internal: a sample of ``x`` or its data holds NaN or infinity; never reaches a user's record."""
UNSETTLED = -2
"""Internal: an attempt leaves a sample to the general routine."""

ACTIVE_LOWER = 1
ACTIVE_UPPER = 2
WORKING_LOWER = 4
WORKING_UPPER = 8
SUPPORT_LOWER = 16
SUPPORT_UPPER = 32

MASK_ACTIVE = ACTIVE_LOWER | ACTIVE_UPPER
MASK_WORKING = WORKING_LOWER | WORKING_UPPER
MASK_SUPPORT = SUPPORT_LOWER | SUPPORT_UPPER
MASK_LOWER = ACTIVE_LOWER | WORKING_LOWER | SUPPORT_LOWER
MASK_UPPER = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER

SELECTION_MASK = {"active": MASK_ACTIVE, "working": MASK_WORKING, "support": MASK_SUPPORT}

INFO_STEPS = 0
INFO_RANK_ACTIVE = 1
INFO_RANK_WORKING = 2
INFO_RANK_SUPPORT = 3
INFO_TAPE_FLOATS = 4
INFO_TAPE_INTS = 5
INFO_WEAK = 6
INFO_METHOD = 7
INFO_SKIP_RECORD = 8
"""On entry: 1 where only y and its status are wanted, so that a routine may write nothing else."""
INFO_SIZE = 9

SELECTION_RANK = {
    "active": INFO_RANK_ACTIVE,
    "working": INFO_RANK_WORKING,
    "support": INFO_RANK_SUPPORT,
}


class Status(IntEnum):
    """How the solve of one sample ended.

    ``SOLVED`` is the only status with a usable ``y``; for every other one ``y`` is NaN.
    """

    SOLVED = SOLVED
    MAX_STEPS = MAX_STEPS
    PRIMAL_INFEASIBLE = PRIMAL_INFEASIBLE
    SINGULAR = SINGULAR
