# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Kinks
#
# **Claim.** *At a kink the projection has no derivative but finitely many candidates. The default
# here, $V_0$, the projector onto the smallest face, is always one of the limits of true Jacobians,
# and it does not depend on how the set is written. The HS-Jacobian contains all those limits; it
# contains more only where active rows are dependent.*

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse, Polygon

import hsref
from hsref import theory
from hsref.theory.fields import clamped

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
RANK = (RED, ORANGE, BLUE)  # the colour of a rank: 0, 1, 2
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# On a cell of the plane (notebook 1) the projection is an affine map. Its linear part is the
# projector onto the directions of the face where the points land: all directions inside, one along
# a side, none in a corner. Draw what it does to a small circle of tangent vectors: the circle
# stays a circle, becomes a segment, or collapses to a dot.

# %% tags=["thumbnail"]
angle = np.deg2rad([15.0, 80.0, 150.0, 215.0, 295.0])
A = np.column_stack([np.cos(angle), np.sin(angle)])
a = np.array([1.1, 0.9, 1.0, 1.1, 0.9])
P = hsref.Polyhedron(A_ub=A, b_ub=a)
CORNERS = np.array([np.linalg.solve(A[[k, (k + 1) % 5]], a[[k, (k + 1) % 5]]) for k in range(5)])


def plane(ax):
    """Draw the pentagon and the kinks: its sides, and the rays where cells meet."""
    ax.add_patch(Polygon(CORNERS, fc="#f2f2f2", ec="black", lw=1.2, zorder=0))
    for k in range(5):
        for row in (A[k], A[(k + 1) % 5]):
            ax.plot(*np.transpose([CORNERS[k], CORNERS[k] + 4 * row]), color=GREY, lw=0.7, zorder=0)
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.3, 2.3), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def glyph(ax, at, V, size=0.16):
    """Draw the image of a circle of tangent vectors under V."""
    values, vectors = np.linalg.eigh(V)
    rank = round(values.sum())
    if rank == 0:
        ax.plot(*at, ".", color=RANK[0], ms=7)
    elif rank == 1:
        along = size * vectors[:, 1]
        ax.plot(*np.transpose([at - along, at + along]), color=RANK[1], lw=2.5)
    else:
        ax.add_patch(Ellipse(at, 2 * size, 2 * size, fc="none", ec=RANK[2], lw=1.8))


fig, ax = plt.subplots(figsize=(6.4, 5.2))
plane(ax)
grid = np.stack(np.meshgrid(np.linspace(-2.4, 2.4, 13), np.linspace(-2.1, 2.1, 11)), -1)
points = grid.reshape(-1, 2)
for at, V in zip(points, hsref.projection(points, P).jacobian().toarray()):
    glyph(ax, at, V)
for rank, label in ((2, "circle: rank 2, inside"), (1, "segment: rank 1"), (0, "dot: rank 0")):
    ax.plot([], [], "o" if rank != 1 else "-", color=RANK[rank], label=label,
            mfc="none" if rank == 2 else RANK[rank])  # fmt: skip
ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncol=3)
ax.set_title("What the projection does to a circle of directions")
plt.show()

# %% [markdown]
# The grey lines are the **kinks**. They have measure zero, so random points do not lie on them, but
# training does get there: a bias of zero, a ReLU in front of the layer, a projected point that is
# projected again. Drag $x$ along a path and watch $V$ jump each time the path crosses one.

# %%
path = np.linspace([-2.4, 0.1], [2.4, 0.95], 481)
record = hsref.projection(path, P)
rank = record.rank
jump = np.flatnonzero(np.any(record.active.ub[1:] != record.active.ub[:-1], axis=1))

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1, 1.25))
plane(left)
left.plot(*path.T, color="black", lw=1.2)
left.plot(*record.y.T, color=GREEN, lw=4, alpha=0.5)
for k in range(0, len(path), 40):
    glyph(left, path[k], record.jacobian().toarray()[k], 0.13)
left.set_title("the path of $x$ (black), of $y$ (green)")
V = record.jacobian().toarray()
for entry, colour, label in (((0, 0), BLUE, "$V_{11}$"), ((1, 1), ORANGE, "$V_{22}$"),
                             ((0, 1), GREEN, "$V_{12}$")):  # fmt: skip
    right.plot(np.linspace(0, 1, len(path)), V[:, *entry], color=colour, lw=2, label=label)
for k in jump:
    right.axvline((k + 0.5) / 480, color=GREY, lw=0.7, ls=":", zorder=0)
right.set(xlabel="position on the path", title="$V$ is constant on cells and jumps at kinks")
right.set_ylim(-0.45, 1.08)
right.legend(ncol=3, loc="lower center")
plt.show()
print("ranks along the path:", [int(rank[0]), *(int(rank[k + 1]) for k in jump)])
assert len(jump) >= 3

# %% [markdown]
# What is the derivative *on* a kink? The graph of $\Pi_{[0,\infty)}$ shows the choices: slope 0
# from the left, slope 1 from the right. Every line with a slope in between stays below the graph:
# these slopes together are the Clarke Jacobian. The two ends are the limits of true derivatives.

# %%
ray = hsref.Box(0.0, np.inf, n=1)
t = np.linspace(-1, 1, 201)[:, None]

fig, ax = plt.subplots(figsize=(5.4, 3.4))
for slope in np.linspace(0.1, 0.9, 9):
    ax.plot([-0.5, 0.5], [-0.5 * slope, 0.5 * slope], color=SKY, lw=1)
ax.plot(t, hsref.project(t, ray), color="black", lw=2.5, label="$\\Pi(x)=\\max(x,0)$")
ax.plot([-0.7, 0.7], [0, 0], color=RED, lw=2, ls="--", label="limit of slopes from the left: 0")
ax.plot([-0.6, 0.6], [-0.6, 0.6], color=BLUE, lw=2, ls="--", label="from the right: 1")
ax.plot([], [], color=SKY, label="their convex combinations (Clarke)")
ax.set(xlabel="$x$", ylim=(-0.7, 1.5), title="At the kink $x=0$ there are many slopes")
ax.legend(loc="upper left", fontsize=9)
plt.show()
limits = sorted(float(e.V[0, 0]) for e in theory.b_subdifferential([0.0], ray))
assert limits == [0.0, 1.0]

# %% [markdown]
# ## State it
#
# Write $z=\Pi(x)$, $r=x-z$, $I$ for the active rows at $z$, and $M_K=[A_K;B]$.
#
# | name | what it is |
# |---|---|
# | $\partial_B\Pi(x)$, B-subdifferential | all limits of Jacobians at points near $x$ |
# | $\partial_C\Pi(x)$, Clarke Jacobian | its convex hull |
# | $HS(x)$, HS-Jacobian | $\{V_K : K\subseteq I,\ r\in\mathrm{cone}(A_K)+\mathrm{range}(B^T)\}$ |
# | $V_0(x)$, the default | $V_I=I-M_I^+M_I$, all active rows |
#
# with $V_K=I-M_K^+M_K$, the orthogonal projector onto the kernel of $M_K$. Let $F$ be the smallest
# face that contains $z$ and $F_r$ the face on which $\langle r,\cdot\rangle$ is largest. Then
#
# 1. $V_0(x)$ projects onto the directions of $F$. Rows that are copied, scaled or implied do not
#    change a face, so they do not change $V_0$.
# 2. $\partial_B\Pi(x)$ consists of the projectors onto the directions of the faces between $F$ and
#    $F_r$. *(The projection is affine on each cell $G+N_G$, and $x$ lies in the cell of $G$ exactly
#    if $F\subseteq G\subseteq F_r$.)* Take $G=F$: **$V_0(x)\in\partial_B\Pi(x)$, always.**
# 3. $\partial_B\Pi(x)\subseteq HS(x)$, with equality where the active rows are independent (LICQ).
#
# The HS-Jacobian is a **conservative mapping** for $\Pi$ (notebook 3), which is what the
# convergence theory of gradient methods builds on; fact 2 says that the default element is a good
# one besides.
#
# At the corner of the quadrant, $x=0$, the limits are $\mathrm{diag}(s,t)$ with $s,t\in\{0,1\}$.
# Now write the quadrant with a third row, $-y_1-y_2\le0$, which cuts nothing off. $K=\{3\}$ passes
# the cone test, and $HS$ gains $I-\tfrac12\mathbf 1\mathbf 1^T$: a matrix that no limit, and no
# convex combination of limits, gives.

# %%
C, x, y = theory.redundant_row()
hs = [e.V for e in theory.hs_elements(x, C, y=y)]
limits = [e.V for e in theory.b_subdifferential(x, C, y=y)]
extra = [V for V in hs if not any(np.allclose(V, W) for W in limits)]
assert (len(hs), len(limits), len(extra)) == (5, 4, 1)
assert np.allclose(extra[0], np.eye(2) - 0.5)

fig = plt.figure(figsize=(5.6, 4.6))
ax = fig.add_subplot(projection="3d")
square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
ax.plot_trisurf(*square[:4].T, triangles=[[0, 1, 2], [0, 2, 3]], color=SKY, alpha=0.35)
ax.plot(*square.T, color=SKY)
for V in limits:
    ax.scatter(V[0, 0], V[1, 1], V[0, 1], color=BLUE, s=50, depthshade=False)
V = extra[0]
ax.plot([V[0, 0]] * 2, [V[1, 1]] * 2, [0, V[0, 1]], color=RED, lw=1, ls=":")
ax.scatter(V[0, 0], V[1, 1], V[0, 1], color=RED, s=60, marker="D", depthshade=False)
ax.text(0.56, 0.5, -0.52, "$I-\\frac{1}{2}11^T$", color=RED)
ax.text(-0.05, -0.12, 0.06, "$V_0=0$", color=BLUE)
ax.set(xlabel="$V_{11}$", ylabel="$V_{22}$", zlabel="$V_{12}$", zlim=(-0.55, 0.08))
ax.set(xticks=[0, 1], yticks=[0, 1], zticks=[-0.5, 0])
ax.set_title("A redundant row adds an element (red) outside\nof the Clarke Jacobian (square)")
ax.view_init(22, -62)
ax.set_box_aspect(None, zoom=0.88)
plt.show()

# %% [markdown]
# With the same three rows at $x=(-1,-1)$ the projection is even *differentiable*, with derivative
# 0, and still $HS$ holds the second element: a conservative mapping equals the derivative almost
# everywhere, not everywhere where there is one. And redundancy is not the only way: a pyramid's
# apex has more rows than dimensions, none of them redundant.

# %%
C, x, y = theory.redundant_row((-1.0, -1.0))
assert len(theory.b_subdifferential(x, C, y=y)) == 1
assert len(theory.hs_elements(x, C, y=y)) == 2

C, x, y = theory.pyramid_apex()
assert len(theory.b_subdifferential(x, C, y=y)) == 1
assert sorted(round(np.trace(e.V)) for e in theory.hs_elements(x, C, y=y)) == [0, 1, 1]
print(
    "the default stays the true derivative:", hsref.projection(x, C).jacobian().toarray().tolist()
)

# %% [markdown]
# ## Check it
#
# $V_0\in\partial_B\Pi\subseteq HS$ at constructed kinks: points on the sides, on the corners, and
# on the rays where cells meet (weights of 0 on purpose), with rows of the pentagon copied and
# summed. An independent check of fact 2: move $x$ a little into its cell by adding active rows,
# and compare $V_0$ with central differences there.

# %%
written = {
    "as it is": P,
    "one row copied": hsref.Polyhedron(np.vstack([A, 3 * A[:1]]), [*a, 3 * a[0]]),
    "a sum of rows added": hsref.Polyhedron(np.vstack([A, A[0] + A[1]]), [*a, a[0] + a[1]]),
}
weights = np.array([[0, 0], [0.7, 0], [0, 0.7], [0.5, 0.4]])
kinks = np.concatenate([CORNERS[k] + weights @ A[[k, (k + 1) % 5]] for k in range(5)])
kinks = np.concatenate([kinks, 0.5 * (CORNERS + np.roll(CORNERS, 1, axis=0))])

default = {}
for name, C in written.items():
    counts = []
    default[name] = hsref.projection(kinks, C).jacobian().toarray()
    for x, V in zip(kinks, default[name]):
        hs = [e.V for e in theory.hs_elements(x, C)]
        limits = [e.V for e in theory.b_subdifferential(x, C)]

        def inside(V, matrices):
            return any(np.allclose(V, W) for W in matrices)

        assert inside(V, limits)  # V0 is a limit of Jacobians
        assert all(inside(W, hs) for W in limits)  # limits are elements
        if theory.licq(x, C):
            assert len(hs) == len(limits)  # and with independent rows the only ones
        counts.append(len(hs) - len(limits))
    print(f"{name:20s}: kinks with more elements than limits: {np.count_nonzero(counts)} of 25")
assert np.allclose(default["as it is"], default["one row copied"])
assert np.allclose(default["as it is"], default["a sum of rows added"])

# a little further along the active rows, the projection is differentiable, and V0 its derivative
record = hsref.projection(kinks, P)
inner = kinks + 0.5 * record.active.ub @ A
h = 1e-5
columns = [hsref.project(inner + h * e, P) - hsref.project(inner - h * e, P) for e in np.eye(2)]
numeric = np.stack(columns, axis=-1) / (2 * h)
assert np.abs(numeric - record.jacobian().toarray()).max() < 1e-9

# %% [markdown]
# ### What other software returns there
#
# Software that is handed a kink returns *something*. Three habits, seen on $\Pi_{[0,\infty)}$ at 0:
#
# * **The rule of the active set**: 0, as ReLU has it. Here `selection="active"`, the default.
# * **The rule of the support**: 1, as a clamp has it, and as simplex projections do that
#   differentiate through their threshold. Here `selection="support"`.
# * **The clamped quotient**: layers around an interior-point solver differentiate the optimality
#   conditions with slack $s$ and multiplier $\lambda$ clamped from below by some $\epsilon$ (qpth:
#   $10^{-8}$), so that they may divide: $V=1/(1+\max(\lambda,\epsilon)/\max(s,\epsilon))$. At the
#   kink this is $\tfrac12$.
#
# In one dimension $\tfrac12$ lies between the two limits, so it is in the convex hull of $HS$ and
# does no harm to the chain rule. But it comes from a quotient of two clamps, not from the geometry:
# **copy the row $k$ times and it becomes $1/(1+k)$.**

# %%
copies = np.arange(1, 9)
answers = {"clamped quotient": [], "active": [], "support": []}
for k in copies:
    C = hsref.Polyhedron(A_ub=-np.ones((k, 1)), b_ub=np.zeros(k))
    answers["clamped quotient"].append(clamped(np.zeros((1, 1)), C, floor=1e-8).item())
    for selection in ("active", "support"):
        J = hsref.projection(np.zeros(1), C).jacobian(selection)
        answers[selection].append(J.toarray().item())

fig, ax = plt.subplots(figsize=(6, 3.4))
for (name, values), colour, mark in zip(answers.items(), (RED, BLUE, GREEN), "Dos"):
    ax.plot(copies, values, mark + "-", color=colour, label=name)
ax.set(xlabel="how often the row $-y\\leq 0$ is written", ylabel="derivative at the kink")
ax.set(ylim=(-0.08, 1.12), title="The clamped quotient depends on how often a row is written")
ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.66))
plt.show()
assert np.allclose(answers["clamped quotient"], 1 / (1 + copies), atol=1e-6)
assert set(answers["active"]) == {0.0}
assert set(answers["support"]) == {1.0}

# %% [markdown]
# ## Use it
#
# Three selections, all elements of $HS$. They differ only at kinks, a set of measure zero: where
# the point lies on the boundary with no multiplier, `active` blocks the direction and `support`
# lets it pass. On a grid that hits the kinks of the unit square on purpose:

# %%
square = hsref.Box(0.0, 1.0, n=2)
ticks = np.linspace(-0.5, 1.5, 9)
grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
record = hsref.projection(grid, square)

fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.2))
for ax, selection in zip(axes, ("active", "support")):
    ax.add_patch(Polygon([[0, 0], [1, 0], [1, 1], [0, 1]], fc="#f2f2f2", ec="black", zorder=0))
    for at, V in zip(grid, record.jacobian(selection).toarray()):
        glyph(ax, at, V, 0.09)
    ax.set(xlim=(-0.7, 1.7), ylim=(-0.7, 1.7), aspect="equal", title=f'selection="{selection}"')
    ax.set(xticks=[0, 1], yticks=[0, 1])
plt.show()
differs = np.any(
    record.jacobian("active").toarray() != record.jacobian("support").toarray(), axis=(1, 2)
)
assert (differs == record.weakly_active.any()).all()
for x, V in zip(grid, record.jacobian("support").toarray()):
    assert theory.is_hs_element(V, x, square)

# %% [markdown]
# **In practice.** Leave the default. Look at `weakly_active` and `margin` when a gradient matters:
# they say whether the choice of the element was a close call. Do not average over a kink, and do
# not threshold the output of an inexact solver: that is a derivative at another point.

# %%
x = np.array([[0.3, 0.8, -0.1], [0.5, 0.5, 0.0], [0.5, 0.5 - 1e-6, 1e-6]])
record = hsref.projection(x, hsref.Simplex(3))
print("at a kink:", record.weakly_active.any().tolist())
print("margin:   ", [f"{m:.0e}" for m in record.margin])
print("rank of V:", record.rank.tolist())
assert record.weakly_active.any().tolist() == [False, True, False]

# %% [markdown]
# ## Exercises
#
# **1.** List $HS(x)$ and $\partial_B\Pi(x)$ for the simplex of three entries at $x=(1,0,0)$. How
# many active rows are there, are they independent of the equality, and which element is $V_0$?
#
# <details><summary>Solution</summary>
#
# $\Pi(x)=x$ is a vertex; the bounds $y_2\ge0$ and $y_3\ge0$ are active without multipliers, and
# independent modulo $\mathbf 1$. Every subset is admissible: four elements of rank 2, 1, 1, 0, all
# limits of Jacobians; $V_0=0$ is the last.
#
# ```python
# C, x = hsref.Simplex(3), np.array([1.0, 0.0, 0.0])
# elements = theory.hs_elements(x, C)
# assert [round(np.trace(e.V)) for e in elements] == [2, 1, 1, 0]
# assert len(theory.b_subdifferential(x, C)) == 4
# assert np.allclose(hsref.projection(x, C).jacobian().toarray(), 0)
# ```
# </details>
#
# **2.** $\Pi\circ\Pi=\Pi$. Multiply the default elements along the chain at a point outside of the
# pentagon. Is the product the default element of $\Pi$? What about `support`?
#
# <details><summary>Solution</summary>
#
# The inner projection gives $V_0(x)$; its image $z$ lies on the boundary with residual 0, the same
# rows are active, so $V_0(z)=V_0(x)$, and $V_0V_0=V_0$. With `support` the second factor is $I$,
# and the product is the element of the first: right as well.
#
# ```python
# x = np.array([[2.0, 0.3], [1.6, 1.4]])
# outer = hsref.projection(x, P)
# again = hsref.projection(outer.y, P)
# V, W = outer.jacobian().toarray(), again.jacobian().toarray()
# assert np.allclose(W @ V, V)
# assert np.allclose(again.jacobian("support").toarray(), np.eye(2))
# ```
# </details>
#
# **3.** Show that $V_0$ is the least element: $V-V_0$ is positive semidefinite for every
# $V\in HS(x)$.
#
# <details><summary>Solution</summary>
#
# $K\subseteq I$ gives $\ker M_I\subseteq\ker M_K$, and an orthogonal projector onto a larger space
# is larger: for every $v$, $v^TV_0v=\|V_0v\|^2=\|V_0V_Kv\|^2\le\|V_Kv\|^2=v^TV_Kv$.
#
# ```python
# C, x, y = theory.redundant_row()
# V0 = theory.least_element(x, C, y=y)
# for e in theory.hs_elements(x, C, y=y):
#     assert np.linalg.eigvalsh(e.V - V0).min() > -1e-12
# ```
# </details>
