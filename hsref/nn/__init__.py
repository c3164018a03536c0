"""A minimal multilayer perceptron whose outputs lie in a polyhedron, with losses and diagnostics.

Plain functions over plain containers: parameters are a list of dicts of arrays, a network is a pair
``(init, apply)``, and everything that is differentiated is written with ``autograd.numpy``.

A projection passes no gradient where its HS-Jacobian is 0, which is the case at every vertex of the
set, *whatever the loss*: a network that starts with its outputs at vertices never learns. Hence the
start in the relative interior (`mlp`) and the dead fraction (`diagnostics`).

Examples
--------
Train a network whose outputs are probability vectors:

>>> import numpy as np
>>> from autograd import grad
>>> import hsref
>>> rng = np.random.default_rng(0)
>>> x = rng.standard_normal((32, 3))
>>> target = hsref.project(x @ rng.standard_normal((3, 4)), hsref.Simplex(4))
>>> network = mlp([3, 16, 4], output=hsref.Simplex(4))
>>> loss = lambda params: mse(network.apply(params, x), target)
>>> params = network.init(0)
>>> before = loss(params)
>>> init, update = hsref.optim.adam(0.01)
>>> state = init(params)
>>> for _ in range(100):
...     params, state = update(params, grad(loss)(params), state)
>>> bool(loss(params) < 0.2 * before)
True
"""

from ._diagnostics import Diagnostics, diagnostics
from ._losses import mse, smoothed_bce
from ._mlp import Network, mlp

__all__ = ["Diagnostics", "Network", "diagnostics", "mlp", "mse", "smoothed_bce"]
