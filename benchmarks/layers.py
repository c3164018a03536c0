"""Adapters of the layers of PyTorch and JAX.

Arrays are handed over in the framework's own kind before the clock starts, results stay there until
it has stopped; JAX answers are waited for. Layers that need a tolerance get one at which their
answer is worth comparing (the note of each says which); their gradients are what they return.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from .peers import Failed, Peer, register
from .solvers import one_sided
from .workloads import Problem

# -- PyTorch --------------------------------------------------------------------------------------


class TorchPeer(Peer):
    """A function of torch tensors, differentiated by torch."""

    package = "torch"
    threaded = True
    shaped = False
    device = "cpu"

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.kind = torch.float32 if self.dtype is np.float32 else torch.float64
        super().__init__(problem, threads)

    def load(self, problem):
        shape = (-1, *problem.shape) if self.shaped else problem.x.shape
        where = {"dtype": self.kind, "device": self.device}
        self.xt = self.torch.tensor(problem.x.reshape(shape), requires_grad=True, **where)
        self.vt = self.torch.tensor(problem.v.reshape(shape), **where)
        self.flat = problem.x.shape

    def call(self, x: Any) -> Any:
        """Return the projections of a tensor."""
        raise NotImplementedError

    def forward(self):
        self.yt = self.call(self.xt)

    def backward(self):
        (self.gt,) = self.torch.autograd.grad(self.yt, self.xt, self.vt, retain_graph=True)

    def answer(self):
        # The first of them, where a batch repeats a block on a device.
        return self.yt.detach()[: self.flat[0]].cpu().numpy().reshape(self.flat)

    def gradient(self):
        return self.gt.detach()[: self.flat[0]].cpu().numpy().reshape(self.flat)


@register
class TorchSortPeer(TorchPeer):
    name = "torch_sort"
    families = ("simplex",)

    def setup(self):
        torch = self.torch

        class Sort(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                u = torch.sort(x, dim=-1, descending=True).values
                ranks = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
                shift = (u.cumsum(-1) - 1.0) / ranks
                last = (u > shift).sum(-1, keepdim=True) - 1
                y = (x - shift.gather(-1, last)).clamp(min=0.0)
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, g):
                (y,) = ctx.saved_tensors
                support = y > 0
                mean = (g * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
                return (g - mean) * support

        self.call = Sort.apply


@register
class EntmaxPeer(TorchPeer):
    name = "entmax"
    package = "entmax"
    families = ("simplex",)
    note = "sparsemax"

    def call(self, x):
        from entmax import sparsemax

        return sparsemax(x, dim=-1)


class Sinkhorn(TorchPeer):
    """Twenty Sinkhorn iterations on exp(x): what hyper-connections use today; another map."""

    promise = "surrogate"
    families = ("birkhoff",)
    shaped = True
    note = "20 iterations on exp(x): another map, truncated"

    def call(self, x):
        p = (x - x.amax((-1, -2), keepdim=True)).exp()
        for _ in range(20):
            p = p / p.sum(-1, keepdim=True)
            p = p / p.sum(-2, keepdim=True)
        return p


@register
class Sinkhorn32(Sinkhorn):
    name = "sinkhorn20_f32"
    dtype = np.float32


@register
class Sinkhorn64(Sinkhorn):
    name = "sinkhorn20_f64"


@register
class LinsatPeer(TorchPeer):
    name = "linsat"
    package = "LinSATNet"
    promise = "surrogate"
    families = ("birkhoff", "portfolio", "matching")
    note = "entropic, tau 0.1, 100 iterations: another map"

    def setup(self):
        from LinSATNet import init_constraints

        q = self.problem
        rows, rhs = [], []
        if q.A_ub is not None:
            rows, rhs = [q.dense("A_ub")], [q.b_ub]
        if q.upper is not None:
            rows.append(np.eye(q.n))
            rhs.append(q.upper)
        given: dict[str, Any] = {}
        if rows:
            given["A"] = self.torch.tensor(np.vstack(rows), dtype=self.kind)
            given["b"] = self.torch.tensor(np.concatenate(rhs), dtype=self.kind)
        given["E"] = self.torch.tensor(q.dense("A_eq"), dtype=self.kind)
        given["f"] = self.torch.tensor(q.b_eq, dtype=self.kind)
        # The layer builds its dummies in torch's default dtype.
        before = self.torch.get_default_dtype()
        self.torch.set_default_dtype(self.kind)
        try:
            self.constraints = init_constraints(q.n, **given)
        finally:
            self.torch.set_default_dtype(before)

    def call(self, x):
        from LinSATNet import linsat_layer

        before = self.torch.get_default_dtype()
        self.torch.set_default_dtype(self.kind)
        try:
            return linsat_layer(
                x, constr_dict=self.constraints, tau=0.1, max_iter=100, no_warning=True
            )
        finally:
            self.torch.set_default_dtype(before)


@register
class QpthPeer(TorchPeer):
    name = "qpth"
    package = "qpth"
    promise = "iterative"
    note = "default settings; bounds as rows"

    def setup(self):
        from qpth.qp import QPFunction

        q = self.problem
        if q.n > 400:
            raise Failed("more than a minute a call at this size")
        G, h = one_sided(q)
        where = {"dtype": self.kind, "device": self.device}
        empty = self.torch.zeros(0, **where)

        def tensor(a):
            return empty if a is None else self.torch.tensor(a, **where)

        self.data = (
            tensor(np.eye(q.n)), tensor(G), tensor(h),
            tensor(None if q.A_eq is None else q.dense("A_eq")), tensor(q.b_eq),
        )  # fmt: skip
        self.function = QPFunction(verbose=-1, check_Q_spd=False)

    def call(self, x):
        Q, G, h, A, b = self.data
        return self.function(Q, -x, G, h, A, b)


@register
class CvxpylayersPeer(TorchPeer):
    name = "cvxpylayers"
    package = "cvxpylayers"
    promise = "iterative"
    note = "Clarabel inside diffcp, default derivative (lsqr)"
    mode = "lsqr"

    def setup(self):
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        q = self.problem
        y, x = cp.Variable(q.n), cp.Parameter(q.n)
        rules = []
        if q.A_ub is not None:
            rules.append(q.A_ub @ y <= q.b_ub)
        if q.A_eq is not None:
            rules.append(q.A_eq @ y == q.b_eq)
        if q.lower is not None:
            rules.append(y >= q.lower)
        if q.upper is not None:
            rules.append(y <= q.upper)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(y - x)), rules)
        arguments = {
            "solve_method": "Clarabel", "mode": self.mode,
            "n_jobs_forward": self.threads, "n_jobs_backward": self.threads,
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.layer = CvxpyLayer(problem, parameters=[x], variables=[y], solver_args=arguments)

    def call(self, x):
        return self.layer(x)[0]


@register
class CvxpylayersDensePeer(CvxpylayersPeer):
    name = "cvxpylayers_dense"
    note = "Clarabel inside diffcp, derivative mode dense"
    mode = "dense"


# -- JAX ------------------------------------------------------------------------------------------


class JaxPeer(Peer):
    """A function of JAX arrays, compiled together with its pullback."""

    package = "jaxopt"
    promise = "iterative"
    threaded = True
    shaped = False

    def __init__(self, problem: Problem, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax
        super().__init__(problem, threads)
        self.pull = jax.jit(lambda x: jax.vjp(self.call, x))
        self.push = jax.jit(lambda back, v: back(v)[0])

    def call(self, x: Any) -> Any:
        """Return the projections of a batch."""
        raise NotImplementedError

    def load(self, problem):
        shape = (-1, *problem.shape) if self.shaped else problem.x.shape
        self.xj = self.jax.numpy.asarray(problem.x.reshape(shape), self.dtype)
        self.vj = self.jax.numpy.asarray(problem.v.reshape(shape), self.dtype)
        self.flat = problem.x.shape

    def forward(self):
        self.yj, self.back = self.pull(self.xj)
        self.jax.block_until_ready((self.yj, self.back))

    def backward(self):
        self.gj = self.jax.block_until_ready(self.push(self.back, self.vj))

    def answer(self):
        return np.asarray(self.yj[: self.flat[0]]).reshape(self.flat)

    def gradient(self):
        return np.asarray(self.gj[: self.flat[0]]).reshape(self.flat)


@register
class JaxoptSimplexPeer(JaxPeer):
    name = "jaxopt_simplex"
    promise = "exact"
    families = ("simplex",)

    def setup(self):
        from jaxopt.projection import projection_simplex

        self.call = self.jax.vmap(projection_simplex)


@register
class JaxoptBirkhoffPeer(JaxPeer):
    name = "jaxopt_birkhoff"
    families = ("birkhoff",)
    shaped = True
    note = "dual, LBFGS to 1e-9, vmap"

    def setup(self):
        from jaxopt import LBFGS
        from jaxopt.projection import projection_birkhoff

        def solver(fun):
            return LBFGS(fun=fun, tol=1e-9, maxiter=500, linesearch="zoom")

        def one(x):
            return projection_birkhoff(x, make_solver=solver, use_semi_dual=False)

        self.call = self.jax.vmap(one)


@register
class JaxoptOsqpPeer(JaxPeer):
    name = "jaxopt_osqp"
    note = "projection_polyhedron (its OSQP, default tol 1e-3), vmap"

    def setup(self):
        from jaxopt.projection import projection_polyhedron

        q = self.problem
        G, h = (self.jax.numpy.asarray(a) for a in one_sided(q))
        A, b = self.jax.numpy.asarray(q.dense("A_eq")), self.jax.numpy.asarray(q.b_eq)

        def one(x):
            return projection_polyhedron(x, (A, b, G, h), check_feasible=False)

        self.call = self.jax.vmap(one)


@register
class PinetPeer(JaxPeer):
    """Douglas-Rachford; iterations are doubled at set-up until the answer stops changing."""

    name = "pinet"
    package = "pinet-hcnn"
    note = "iterations doubled until the answer moves less than 1e-7 (at most 3200); 50 backward"

    def setup(self):
        jnp = self.jax.numpy
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pinet
        q = self.problem
        parts: dict[str, Any] = {}
        if q.A_eq is not None:
            parts["eq_constraint"] = pinet.EqualityConstraint(
                jnp.asarray(q.dense("A_eq"))[None], jnp.asarray(q.b_eq)[None, :, None]
            )
        if q.A_ub is not None:
            parts["ineq_constraint"] = pinet.AffineInequalityConstraint(
                c_mat=jnp.asarray(q.dense("A_ub"))[None],
                lb=jnp.full((1, len(q.b_ub), 1), -jnp.inf), ub=jnp.asarray(q.b_ub)[None, :, None],
            )  # fmt: skip
        if q.lower is not None or q.upper is not None:
            low = np.full(q.n, -np.inf) if q.lower is None else q.lower
            high = np.full(q.n, np.inf) if q.upper is None else q.upper
            parts["box_constraint"] = pinet.BoxConstraint(
                pinet.BoxConstraintSpecification(
                    lb=jnp.asarray(low)[None, :, None], ub=jnp.asarray(high)[None, :, None]
                )
            )
        layer = pinet.Project(**parts)
        some = jnp.asarray(q.x[:16])[:, :, None]
        count, before = 100, np.inf
        while count < 3200:
            y = layer.call(y_raw=pinet.ProjectionInstance(x=some), n_iter=count, n_iter_bwd=50)[0]
            if np.abs(np.asarray(y.x) - before).max() < 1e-7:
                break
            before = np.asarray(y.x)
            count *= 2
        self.iterations = count

        def call(x):
            instance = pinet.ProjectionInstance(x=x[:, :, None])
            y = layer.call(y_raw=instance, n_iter=count, n_iter_bwd=50)[0]
            return y.x[:, :, 0]

        self.call = call
