"""Optimisers that step any array kind: Adam, SGD, and an Adam whose convergence is proved.

Everything here is written with arithmetic operators and ``** 0.5`` alone, so the same code steps
NumPy arrays, PyTorch tensors, JAX arrays (under ``jax.jit`` too) and Python floats, held in any
nesting of lists, tuples, named tuples and dicts.  Nothing is imported beyond the standard library.

The contract is the same for every optimiser::

    init, update = adam(1e-3)
    state = init(params)
    params, state = update(params, grads, state)      # returns the new pair

``update`` is a pure function: it writes into none of its arguments, and states are immutable
named tuples.  The dtype of the parameters is kept; gradients must have the same dtype.

Under PyTorch call ``update`` inside ``torch.no_grad()``: it is ordinary arithmetic, so a parameter
that requires a gradient would otherwise record its own optimisation.

Examples
--------
>>> from hsref import optim
>>> init, update = optim.sgd(0.5)
>>> params = {"w": 2.0, "b": (1.0, -1.0)}
>>> params, state = update(params, {"w": 1.0, "b": (0.0, 1.0)}, init(params))
>>> params
{'w': 1.5, 'b': (1.0, -1.5)}
"""

from ._conditions import Condition, ConditionReport, check_conditions
from ._convergent import ConvergentAdamState, convergent_adam, lyapunov
from ._schedules import ConstantSchedule, CosineSchedule, PowerDecay, constant, cosine, power_decay
from ._steps import AdamState, Optimizer, SGDState, adam, sgd
from ._trees import clip_by_global_norm, global_norm, tree_leaves, tree_map

__all__ = [
    "AdamState",
    "Condition",
    "ConditionReport",
    "ConstantSchedule",
    "ConvergentAdamState",
    "CosineSchedule",
    "Optimizer",
    "PowerDecay",
    "SGDState",
    "adam",
    "check_conditions",
    "clip_by_global_norm",
    "constant",
    "convergent_adam",
    "cosine",
    "global_norm",
    "lyapunov",
    "power_decay",
    "sgd",
    "tree_leaves",
    "tree_map",
]
