"""Adapters of quadratic programming solvers without a batch: Python loops over the samples.

Each solver is set up once for the set and given a new linear term for every point, which is how a
careful user would call it.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .peers import Failed, Peer, register
from .workloads import Problem


def independent(matrix: np.ndarray) -> np.ndarray:
    """Return the indices of a largest independent set of rows."""
    _, R, order = scipy.linalg.qr(matrix.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(R))
    return np.sort(order[: int((size > 1e-10 * size.max(initial=0.0)).sum())])


def one_sided(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return (G, h) with G y <= h: the inequalities and the finite bounds."""
    G = [problem.dense("A_ub")] if problem.A_ub is not None else []
    h = [problem.b_ub] if problem.A_ub is not None else []
    for bound, sign in ((problem.lower, -1.0), (problem.upper, 1.0)):
        if bound is not None:
            finite = np.flatnonzero(np.isfinite(bound))
            G.append(sign * np.eye(problem.n)[finite])
            h.append(sign * bound[finite])
    return (np.vstack(G), np.concatenate(h)) if G else (np.zeros((0, problem.n)), np.zeros(0))


@register
class DaqpPeer(Peer):
    """DAQP in a loop, and the Jacobian of its working set: the fair bar for small problems."""

    name = "daqp"
    package = "daqp"
    loop = True
    note = "Python loop; VJP of the working set in batched NumPy"
    tol = 1e-11

    def setup(self):
        import daqp

        q = self.problem
        if q.rows * q.n > 1.0e6 or q.n > 2000:
            raise Failed("dense rows and an n x n Hessian would not fit")
        self.m = 0 if q.A_ub is None else q.A_ub.shape[0]
        blocks = [] if q.A_ub is None else [q.dense("A_ub")]
        self.kept = np.zeros(0, dtype=int)
        if q.A_eq is not None:
            A_eq = q.dense("A_eq")
            # Redundant equalities (Birkhoff has one) are taken out for it beforehand.
            self.kept = independent(A_eq)
            blocks.append(A_eq[self.kept])
        self.C = np.ascontiguousarray(np.vstack(blocks))
        b_eq = np.zeros(0) if q.b_eq is None else q.b_eq[self.kept]
        b_ub = np.zeros(0) if q.b_ub is None else q.b_ub
        bounds = q.lower is not None or q.upper is not None
        self.nb = q.n if bounds else 0
        wide = np.full(self.nb, 1e30)
        lower = wide * -1 if q.lower is None else np.maximum(q.lower, -1e30)
        upper = wide if q.upper is None else np.minimum(q.upper, 1e30)
        high = np.concatenate([upper[: self.nb], b_ub, b_eq])
        low = np.concatenate([lower[: self.nb], np.full(self.m, -1e30), b_eq])
        sense = np.zeros(len(high), dtype=np.int32)
        sense[self.nb + self.m :] = 5
        self.model = daqp.Model()
        flag = self.model.setup(np.eye(q.n), -q.x[0], self.C, high, low, sense)[0]
        if flag < 0:
            raise Failed(f"set-up ended with flag {flag}")
        self.model.settings = {"primal_tol": self.tol, "dual_tol": 1e-12}
        self.gram = self.C @ self.C.T

    def load(self, problem):
        super().load(problem)
        self.lam = np.zeros((len(self.x), self.nb + len(self.C)))
        self.flags = np.zeros(len(self.x), dtype=int)

    def forward(self):
        update, solve = self.model.update, self.model.solve
        for i in range(len(self.x)):
            update(f=-self.x[i])
            self.y[i], _, self.flags[i], info = solve()
            self.lam[i] = info["lam"]
        self.y[self.flags <= 0] = np.nan

    def backward(self):
        rows = self.lam[:, self.nb :] != 0
        rows[:, self.m :] = True
        free = self.lam[:, : self.nb] == 0
        step = 10_000 if self.C.shape[0] <= 130 else 1
        for i in range(0, len(self.x), step):
            part = slice(i, i + step)
            if step == 1:
                self.g[i] = self._one(rows[i], free[i] if self.nb else None, self.v[i])
            else:
                self.g[part] = self._many(rows[part], free[part], self.v[part])

    def _many(self, rows, free, v):
        """Pad the working rows with identity rows so that one batched solve does."""
        C = self.C
        if self.nb:
            v = np.where(free, v, 0.0)
            gram = (C[None] * free[:, None, :]) @ C.T
        else:
            gram = np.broadcast_to(self.gram, (len(v), *self.gram.shape))
        gram = np.where(rows[:, :, None] & rows[:, None, :], gram, 0.0)
        index = np.arange(len(C))
        gram[:, index, index] += ~rows
        w = np.linalg.solve(gram, np.where(rows, v @ C.T, 0.0)[..., None])[..., 0]
        out = v - np.where(rows, w, 0.0) @ C
        return np.where(free, out, 0.0) if self.nb else out

    def _one(self, rows, free, v):
        C = self.C[rows]
        if free is not None:
            C = C * free
            v = np.where(free, v, 0.0)
        gram = C @ C.T if free is not None else self.gram[np.ix_(rows, rows)]
        w = scipy.linalg.solve(gram, C @ v, assume_a="pos")
        return v - C.T @ w


def daqp_solve(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return projections and multipliers (A_ub, A_eq) by DAQP; raises Failed if one is unsolved."""
    peer = DaqpPeer(problem, 1)
    peer.load(problem)
    peer.forward()
    if (peer.flags <= 0).any():
        raise Failed(f"{(peer.flags <= 0).sum()} samples unsolved")
    ub = peer.lam[:, peer.nb : peer.nb + peer.m]
    eq = np.zeros((problem.batch, 0 if problem.A_eq is None else problem.A_eq.shape[0]))
    eq[:, peer.kept] = peer.lam[:, peer.nb + peer.m :]
    return peer.y, ub, eq


def quadprog_solve(problem: Problem) -> tuple[np.ndarray]:
    """Return projections by quadprog (GPL-2: an oracle for comparison, never timed)."""
    import quadprog

    G, h = one_sided(problem)
    blocks, rhs = [-G], [-h]
    equalities = 0
    if problem.A_eq is not None:
        A_eq = problem.dense("A_eq")
        kept = independent(A_eq)
        blocks.insert(0, A_eq[kept])
        rhs.insert(0, problem.b_eq[kept])
        equalities = len(kept)
    C, b = np.ascontiguousarray(np.vstack(blocks).T), np.concatenate(rhs)
    eye = np.eye(problem.n)
    try:
        return (np.array([quadprog.solve_qp(eye, x, C, b, equalities)[0] for x in problem.x]),)
    except ValueError as problem_:
        raise Failed(str(problem_)) from problem_


@register
class ProxqpPeer(Peer):
    """ProxQP, one object a sample, and the backward that its QPLayer calls for each sample."""

    name = "proxqp"
    package = "proxsuite"
    promise = "iterative"
    loop = True
    note = "Python loop; eps 1e-9; compute_backward with QPLayer's settings"

    def setup(self):
        import proxsuite

        self.dense = proxsuite.proxqp.dense
        q = self.problem
        if q.n > 1000:
            raise Failed("dense n x n Hessians would not fit")
        G, h = one_sided(q)
        A = None if q.A_eq is None else q.dense("A_eq")
        self.data = (np.eye(q.n), A, q.b_eq, G, np.full(len(h), -1e20), h)

    def load(self, problem):
        super().load(problem)
        H, A, b, G, low, high = self.data
        equalities = 0 if A is None else len(b)
        self.solvers = []
        for x in self.x:
            qp = self.dense.QP(problem.n, equalities, len(G))
            qp.settings.eps_abs = 1e-9
            # The settings of proxsuite's own QPLayer.
            qp.settings.max_iter, qp.settings.max_iter_in = 1000, 100
            qp.settings.default_rho = qp.settings.refactor_rho_threshold = 5e-5
            qp.init(H, -x, A, b, G, low, high, rho=5e-5)
            self.solvers.append(qp)

    def forward(self):
        for i, qp in enumerate(self.solvers):
            qp.update(g=-self.x[i])
            qp.solve()
            self.y[i] = qp.results.x

    def backward(self):
        equalities = 0 if self.data[1] is None else len(self.data[2])
        rhs = np.zeros(self.problem.n + equalities + len(self.data[3]))
        for i, qp in enumerate(self.solvers):
            rhs[: self.problem.n] = self.v[i]
            self.dense.compute_backward(qp, rhs, 1e-4, 1e-6, 1e-6)
            self.g[i] = -qp.model.backward_data.dL_dg


def two_sided(problem: Problem) -> tuple[sp.csc_matrix, np.ndarray, np.ndarray]:
    """Return (A, low, high) with low <= A y <= high, bounds as rows of the identity."""
    blocks, low, high = [], [], []
    if problem.A_ub is not None:
        blocks.append(problem.A_ub)
        low.append(np.full(len(problem.b_ub), -np.inf))
        high.append(problem.b_ub)
    if problem.A_eq is not None:
        blocks.append(problem.A_eq)
        low.append(problem.b_eq)
        high.append(problem.b_eq)
    if problem.lower is not None or problem.upper is not None:
        blocks.append(sp.eye(problem.n))
        low.append(np.full(problem.n, -np.inf) if problem.lower is None else problem.lower)
        high.append(np.full(problem.n, np.inf) if problem.upper is None else problem.upper)
    rows = sp.csc_matrix(sp.vstack([sp.csr_matrix(b) for b in blocks]))
    return rows, np.concatenate(low), np.concatenate(high)


@register
class OsqpPeer(Peer):
    name = "osqp"
    package = "osqp"
    promise = "iterative"
    loop = True
    note = "Python loop; eps 1e-9; adjoint derivative of the KKT system"

    def setup(self):
        import osqp

        q = self.problem
        A, low, high = two_sided(q)
        self.solver = osqp.OSQP()
        self.solver.setup(
            sp.eye(q.n, format="csc"), -q.x[0], A, low, high, verbose=False, eps_abs=1e-9,
            eps_rel=1e-9, max_iter=20000, polishing=False,
        )  # fmt: skip

    def forward(self):
        for i in range(len(self.x)):
            self.solver.update(q=-self.x[i])
            self.y[i] = self.solver.solve(raise_error=False).x

    def backward(self):
        if len(self.x) > 1:
            # The adjoint belongs to the last solve: without a solver a sample it cannot be batched.
            raise Failed("one solver object keeps the derivative of its last sample only")
        self.solver.adjoint_derivative_compute(dx=self.v[0])
        self.g[0] = -self.solver.adjoint_derivative_get_vec()[0]


@register
class ClarabelPeer(Peer):
    name = "clarabel"
    package = "clarabel"
    promise = "iterative"
    loop = True
    differentiable = False
    note = "Python loop; tolerances 1e-9; one solver updated with each point"

    def setup(self):
        import clarabel

        q = self.problem
        G, h = [], []
        if q.A_ub is not None:
            G, h = [sp.csr_matrix(q.A_ub)], [q.b_ub]
        for bound, sign in ((q.lower, -1.0), (q.upper, 1.0)):
            if bound is not None:
                finite = np.flatnonzero(np.isfinite(bound))
                G.append(sign * sp.eye(q.n, format="csr")[finite])
                h.append(sign * bound[finite])
        cones = []
        count = sum(len(b) for b in h)
        if q.A_eq is not None:
            G.insert(0, sp.csr_matrix(q.A_eq))
            h.insert(0, q.b_eq)
            cones.append(clarabel.ZeroConeT(len(q.b_eq)))
        if count:
            cones.append(clarabel.NonnegativeConeT(count))
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = False
        settings.max_threads = 1
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-9
        self.solver = clarabel.DefaultSolver(
            sp.eye(q.n, format="csc"), -q.x[0], sp.csc_matrix(sp.vstack(G)), np.concatenate(h),
            cones, settings,
        )  # fmt: skip

    def forward(self):
        for i in range(len(self.x)):
            self.solver.update(q=-self.x[i])
            self.y[i] = self.solver.solve().x


@register
class PiqpPeer(Peer):
    name = "piqp"
    package = "piqp"
    promise = "iterative"
    loop = True
    differentiable = False
    note = "Python loop; tolerances 1e-10"

    def setup(self):
        import piqp

        q = self.problem
        sparse = q.sparse
        self.solver = piqp.SparseSolver() if sparse else piqp.DenseSolver()
        kind = sp.csc_matrix if sparse else np.asfortranarray
        settings = self.solver.settings
        # Its default duality gap of 1e-8 would let the point be off by 1e-4.
        settings.eps_abs = settings.eps_duality_gap_abs = 1e-10
        settings.eps_rel = settings.eps_duality_gap_rel = 0.0
        self.solver.setup(
            kind(sp.eye(q.n).toarray()), -q.x[0],
            None if q.A_eq is None else kind(q.A_eq), q.b_eq,
            None if q.A_ub is None else kind(q.A_ub), None, q.b_ub, q.lower, q.upper,
        )  # fmt: skip

    def forward(self):
        for i in range(len(self.x)):
            self.solver.update(c=-self.x[i])
            self.solver.solve()
            self.y[i] = self.solver.result.x


@register
class PotPeer(Peer):
    """POT's smooth transport with the quadratic regulariser, which is the Birkhoff projection."""

    name = "pot"
    package = "POT"
    promise = "iterative"
    loop = True
    differentiable = False
    families = ("birkhoff",)
    note = "Python loop; smooth_ot_dual, l2, stopThr 1e-9"

    def forward(self):
        from ot.smooth import smooth_ot_dual

        shape = self.problem.shape
        one, other = np.ones(shape[0]), np.ones(shape[1])
        for i, x in enumerate(self.x):
            plan = smooth_ot_dual(one, other, -x.reshape(shape), 1.0, reg_type="l2")
            self.y[i] = plan.ravel()
