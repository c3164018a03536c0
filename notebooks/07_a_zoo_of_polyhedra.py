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
# # 7. A zoo of polyhedra
#
# **Claim.** *$V_0$ is always the projector onto the directions of the smallest face. For the
# polyhedra that the field uses, from the simplex to doubly stochastic matrices, this is a mask, a
# mean, a block average, or one small Laplacian system: products with $V_0$ cost next to nothing.*

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon
from scipy.optimize import linear_sum_assignment
from scipy.spatial import ConvexHull

import hsref
from hsref import theory

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
RANK = (RED, ORANGE, BLUE)
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# Six animals, each with a cloud of points on their way into it. Three of them live in the plane
# $\sum y=\text{const}$ of three dimensions. Colours say the rank of $V$: blue points may still move
# in the plane, orange ones along a side, red ones not at all.

# %% tags=["thumbnail"]
rng = np.random.default_rng(0)
E = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]])
flat_sets = {
    "Simplex(3)": hsref.Simplex(3),
    "CappedSimplex(3, 1, upper=0.6)": hsref.CappedSimplex(3, 1.0, upper=0.6),
    "Permutahedron([1, 0.4, 0])": hsref.Permutahedron([1.0, 0.4, 0.0]),
    "L1Ball(2, 0.7)": hsref.L1Ball(2, 0.7),
    "Knapsack([1, 2], ≤ 1)": hsref.Knapsack([1.0, 2.0], 1.0, 0.0, 0.8, equality=False),
    "IsotonicCone(2)": hsref.IsotonicCone(2),
}

fig, axes = plt.subplots(2, 3, figsize=(10, 6.6), layout="constrained")
for ax, (name, C) in zip(axes.flat, flat_sets.items()):
    centre = C.interior_point() if C.size == 3 else np.array([0.1, 0.2])
    frame = E if C.size == 3 else np.eye(2)
    inside = hsref.project(centre + 9 * rng.normal(size=(4000, 2)) @ frame, C)
    outline = (inside - centre) @ frame.T
    ax.add_patch(Polygon(outline[ConvexHull(outline).vertices], fc="#e8e8e8", ec="black", lw=1.2))
    x = centre + rng.uniform(-1, 1, size=(70, 2)) @ frame
    record = hsref.projection(x, C)
    for here, there, rank in zip(
        (x - centre) @ frame.T, (record.y - centre) @ frame.T, record.rank
    ):
        ax.plot(*np.transpose([here, there]), color=RANK[rank], lw=0.8)
        ax.plot(*there, "o", color=RANK[rank], ms=4)
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(name, fontsize=10)
plt.show()

# %% [markdown]
# In higher dimensions the matrix $V$ itself is the picture. A *mask* keeps or blocks single
# entries, a *mean* is subtracted over the free ones, *blocks* that move together are averaged.

# %%
n = 12
x = np.sort(rng.normal(size=n))[::-1] * 0.5 + 0.35 * rng.normal(size=n)
shown = {
    "Box: a mask": hsref.Box(-0.4, 0.4, n=n),
    "Simplex: minus a mean": hsref.Simplex(n, 3.0),
    "Knapsack: minus a weighted mean": hsref.Knapsack(np.linspace(0.5, 2, n), 2.0, 0.0, 0.8),
    "L1Ball: minus a signed mean": hsref.L1Ball(n, 1.5),
    "IsotonicCone: block averages": hsref.IsotonicCone(n),
    "Permutahedron: minus block averages": hsref.Permutahedron(np.linspace(1, -1, n)),
}
fig, axes = plt.subplots(2, 3, figsize=(9.6, 6.4), layout="constrained")
for ax, (name, C) in zip(axes.flat, shown.items()):
    p = hsref.projection(x[::-1] if "Isotonic" in name else x, C)
    picture = ax.imshow(p.jacobian().toarray(), cmap="PuOr", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{name}\nrank {p.rank} of {C.dim}", fontsize=9)
fig.colorbar(picture, ax=axes, shrink=0.6, label="entry of V")
plt.show()

# %% [markdown]
# ## State it
#
# $y=\Pi(x)$, $F$ the free entries (strictly between their bounds), $g$ any vector; everything
# outside of $F$ is 0.
#
# | set | $V_0g$ |
# |---|---|
# | box | $g_F$ |
# | simplex, capped simplex | $g_F-\mathrm{mean}(g_F)$ |
# | knapsack, weights $c$, row active | $g_F-c_F\,(c_F^Tg_F)/\Vert c_F\Vert^2$ |
# | $\ell_1$ ball, boundary, $\sigma=\mathrm{sign}(y)$ | $g_F-\sigma_F\,(\sigma_F^Tg_F)/\#F$ |
# | group budget | minus the mean, in each group at a limit, and in the rest |
# | isotonic cone | average of $g$ over each run of *equal outputs* |
# | permutahedron | $g$ minus its average, in each block of the finest tight partition |
# | Birkhoff, transport | $G-u\mathbf 1^T-\mathbf 1v^T$ on the support, see below |
#
# *Proof of all of them.* $V_0=I-M_I^+M_I$ projects onto the kernel of the active rows: vectors that
# vanish where a bound is active and are orthogonal to the active sums. Write down that space for
# each set, and the projector onto it. $\square$ The face counts, not its description: the $\ell_1$
# ball has $2^n$ facets, of which $2^{n-\#F}$ are active at once, and the answer is one mean.
#
# ## Check it
#
# Formulas in one line each against the library, and against the pseudo-inverse of *all* active rows
# of the explicit description, which knows nothing of either. Points are rounded to halves, so that
# ties and boundaries occur.


# %%
def centred(g, free, weights=None):
    c = np.where(free, 1.0 if weights is None else weights, 0.0)
    return np.where(free, g, 0.0) - c * (c @ g) / max(c @ c, 1e-300)


def over_runs(g, y):
    run = np.cumsum(np.r_[0, np.abs(np.diff(y)) > 1e-12])
    return (np.bincount(run, g) / np.bincount(run))[run]


weights = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0])
formulas = {
    "Box": (hsref.Box(-1.0, 1.0, n=6), lambda g, y: g * (np.abs(y) < 1)),
    "Simplex": (hsref.Simplex(6, 2.0), lambda g, y: centred(g, y > 1e-12)),
    "CappedSimplex": (
        hsref.CappedSimplex(6, 2.0),
        lambda g, y: centred(g, (y > 1e-12) & (y < 1 - 1e-12)),
    ),
    "Knapsack": (
        hsref.Knapsack(weights, 3.0, 0.0, 1.0),
        lambda g, y: centred(g, (y > 1e-12) & (y < 1 - 1e-12), weights),
    ),
    "L1Ball": (
        hsref.L1Ball(6, 1.0),
        lambda g, y: g if np.abs(y).sum() < 1 - 1e-9 else centred(g, np.abs(y) > 1e-12, np.sign(y)),
    ),
    "IsotonicCone": (hsref.IsotonicCone(6), over_runs),
}
x = np.round(2 * rng.normal(size=(60, 6))) / 2
g = rng.normal(size=6)
worst = {}
for name, (C, formula) in formulas.items():
    record = hsref.projection(x, C)
    product = record.jacobian() @ np.broadcast_to(g, x.shape).copy()
    by_formula = np.array([formula(g, y) for y in record.y])
    by_rows = np.array([theory.least_element(point, C) @ g for point in x])
    worst[name] = (np.abs(product - by_formula).max(), np.abs(product - by_rows).max())
    assert max(worst[name]) < 1e-10

fig, ax = plt.subplots(figsize=(6.2, 3.2))
at = np.arange(len(worst))
for shift, k, colour, label in ((0.13, 0, BLUE, "formula"), (-0.13, 1, ORANGE, "all active rows")):
    values = np.maximum([w[k] for w in worst.values()], 1e-18)
    ax.plot(values, at + shift, "o", color=colour, ms=8, label=f"library against {label}")
ax.set_yticks(at, worst)
ax.set(xscale="log", xlim=(1e-18, 1), xlabel="largest difference in $V_0g$")
ax.set_title("One line of formula is the whole derivative")
ax.legend(loc="center right")
plt.show()

# %% [markdown]
# ## Use it
#
# ### Doubly stochastic matrices
#
# The Birkhoff polytope is where permutations live when they have to be differentiable. The usual
# way in is Sinkhorn's: exponentials, then rows and columns are normalised in turn. It is the
# projection of another geometry: its matrices are always *dense*, and after a finite number of
# rounds never exact. The Euclidean projection is exact, and *sparse*. Same scores, same
# temperature:

# %%
n = 10
scores = rng.normal(size=(n, n))
temperature = 0.5
exact = hsref.project(scores / temperature, hsref.Birkhoff(n))
sinkhorn = np.exp(scores / temperature)
for _ in range(20):
    sinkhorn /= sinkhorn.sum(axis=1, keepdims=True)
    sinkhorn /= sinkhorn.sum(axis=0, keepdims=True)
best = np.zeros((n, n))
best[linear_sum_assignment(-scores)] = 1.0

fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
titles = (
    "scores",
    f"Sinkhorn, 20 rounds\n{np.mean(sinkhorn > 0):.0%} of the entries positive",
    f"Euclidean projection\n{np.mean(exact > 0):.0%} of the entries positive",
    "best permutation\n(temperature 0)",
)
for ax, matrix, title in zip(axes, (scores, sinkhorn, exact, best), titles):
    ax.imshow(matrix, cmap="viridis", vmin=0 if matrix is not scores else None,
              vmax=1 if matrix is not scores else None)  # fmt: skip
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
plt.show()
off = np.abs(exact.sum(axis=1) - 1).max(), np.abs(sinkhorn.sum(axis=1) - 1).max()
print(f"row sums are off by {off[0]:.0e} (projection) and {off[1]:.0e} (Sinkhorn)")
assert off[0] < 1e-14
assert off[0] < off[1]

# %% [markdown]
# ### One Laplacian
#
# For matrices with given row and column sums, let $S$ be the 0/1 mask of the positive entries. Then
#
# $$ V_0G=S\odot(G-u\mathbf 1^T-\mathbf 1v^T),\qquad
# \begin{pmatrix}\mathrm{diag}(S\mathbf 1)&S\\S^T&\mathrm{diag}(S^T\mathbf 1)\end{pmatrix}
# \begin{pmatrix}u\\v\end{pmatrix}=
# \begin{pmatrix}(S\odot G)\mathbf 1\\(S\odot G)^T\mathbf 1\end{pmatrix}. $$
#
# With $v\to-v$ the matrix is the **Laplacian of the bipartite graph** whose nodes are rows and
# columns and whose edges are the positive entries. It is singular, once for each of its $c$
# components, always consistent, and every solution gives the same $V_0G$. So
#
# $$ \mathrm{rank}\,V_0=|E|-(m+n-c), $$
#
# the number of independent *cycles*. A matrix can move only by pushing weight around a cycle. **If
# the graph is a forest, $V_0=0$**: at each permutation, and at each other vertex too.

# %%
r, c = np.array([1.0, 1.0, 1.0, 1.0, 1.0]), np.full(6, 5 / 6)
T = hsref.Transport(r, c)
points = rng.normal(size=(400, 5, 6))


def components(S):
    """Count components of the bipartite graph with edges S."""
    m, n = S.shape
    adjacent = np.block([[np.zeros((m, m)), S], [S.T, np.zeros((n, n))]])
    degree = np.diag(adjacent.sum(axis=1))
    return int(np.sum(np.linalg.eigvalsh(degree - adjacent) < 1e-9))


def laplacian_product(S, G):
    m, n = S.shape
    system = np.block([[np.diag(S.sum(1)), S], [S.T, np.diag(S.sum(0))]])
    right = np.concatenate([(S * G).sum(1), (S * G).sum(0)])
    u, v = np.split(np.linalg.lstsq(system, right, rcond=None)[0], [m])
    return S * (G - u[:, None] - v)


found = {}
for spread in (0.15, 0.6, 10.0):
    record = hsref.projection(spread * points, T)
    G = rng.normal(size=(5, 6))
    product = record.jacobian() @ np.broadcast_to(G, points.shape).copy()
    for k in range(40):
        S = (record.y[k] > 1e-12).astype(float)
        assert record.rank[k] == S.sum() - (11 - components(S))
        assert np.abs(product[k] - laplacian_product(S, G)).max() < 1e-10
    shown = int(np.argmin(record.rank)) if spread == 10.0 else 3
    found[spread] = (record.y[shown], int(record.rank[shown]))
assert found[10.0][1] == 0

fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, (spread, (matrix, rank)) in zip(axes, found.items()):
    left = np.column_stack([np.zeros(5), np.linspace(0.9, 0.1, 5)])
    right = np.column_stack([np.ones(6), np.linspace(1.0, 0.0, 6)])
    for i, j in np.argwhere(matrix > 1e-12):
        colour = RED if rank == 0 else BLUE
        ax.plot(*np.transpose([left[i], right[j]]), color=colour, lw=0.6 + 5 * matrix[i, j])
    for place, word in ((left, "row"), (right, "column")):
        ax.plot(*place.T, "o", color="black", ms=9)
        ax.text(place[0, 0], 1.09, f"{word}s", ha="center")
    S = (matrix > 1e-12).astype(float)
    ax.set(xlim=(-0.15, 1.15), ylim=(-0.1, 1.2), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(
        f"scores of spread {spread:g}:\n{int(S.sum())} edges, {components(S)} component"
        f"{'s' if components(S) > 1 else ''}, rank {rank}", fontsize=10,
    )  # fmt: skip
plt.show()

# %% [markdown]
# How far may scores spread before cycles die out? For random $10\times10$ scores: the number of
# directions left, out of $(n-1)^2=81$, and the share of matrices that are dead. Feed a layer like
# this one with scores of small spread, or raise the temperature, or start in the interior, where
# all entries are $1/n$ (notebook 6).

# %%
spreads = np.geomspace(0.01, 100, 25)
base = rng.normal(size=(60, n, n))
directions, dead = [], []
for spread in spreads:
    rank = hsref.projection(spread * base, hsref.Birkhoff(n)).rank
    directions.append(rank.mean())
    dead.append((rank == 0).mean())

fig, ax = plt.subplots(figsize=(6, 3.4))
ax.semilogx(spreads, np.array(directions) / 81, "o-", color=BLUE, ms=4, label="directions left")
ax.semilogx(spreads, dead, "s-", color=RED, ms=4, label="dead: a forest")
ax.set(xlabel="spread of the scores", ylabel="share", ylim=(-0.03, 1.03))
ax.set_title("Wide scores leave no cycle, hence no gradient")
ax.legend(loc="center left")
plt.show()
assert directions[0] == 81
assert directions[-1] < 2
assert dead[-1] > 0.5

# %% [markdown]
# ## Exercises
#
# **1.** On the permutahedron of $w=(1,1,0)$ at $x=(5,5,-5)$ the two large entries tie. Pool
# adjacent violators would average them, which suggests a rank of 1. What is $V_0$, and why?
#
# <details><summary>Solution</summary>
#
# $y=(1,1,0)$, and the prefix sums 1, 2, 2 of $y$ are *all* tight: $y_1\le1$ holds with equality by
# itself. The finest tight partition has three blocks of one entry, so $V_0=0$; $y$ is a vertex.
#
# ```python
# p = hsref.projection([5.0, 5.0, -5.0], hsref.Permutahedron([1.0, 1.0, 0.0]))
# assert np.allclose(p.y, [1, 1, 0]) and p.rank == 0
# assert np.allclose(theory.least_element([5.0, 5.0, -5.0], p.set), 0)
# ```
# </details>
#
# **2.** At a positive doubly stochastic matrix, what is $V_0G$ in closed form? What is its rank?
#
# <details><summary>Solution</summary>
#
# The graph is complete and connected: rank $n^2-(2n-1)=(n-1)^2$. The projector onto matrices with
# zero row and column sums is the double centring $G-\text{row means}-\text{column
# means}+\text{mean}$.
#
# ```python
# G = rng.normal(size=(n, n))
# J = hsref.projection(np.full((n, n), 1 / n), hsref.Birkhoff(n)).jacobian()
# centred_twice = G - G.mean(1, keepdims=True) - G.mean(0) + G.mean()
# assert np.allclose(J @ G, centred_twice) and J.rank == (n - 1) ** 2
# ```
# </details>
#
# **3.** `CappedSimplex(n, k)` holds vectors in $[0,1]^n$ of sum $k$: a soft top-$k$. Lower the
# temperature until it is a hard one. How does the temperature depend on the gap between the $k$-th
# and the next score?
#
# <details><summary>Solution</summary>
#
# The vertex of the $k$ largest is the projection of $s/\tau$ exactly if a threshold $t$ exists with
# $s_{(k)}/\tau-t\ge1$ and $s_{(k+1)}/\tau-t\le0$: if $\tau\le s_{(k)}-s_{(k+1)}$.
#
# ```python
# s, k = np.array([2.0, 1.7, 1.2, 0.3, -1.0]), 2
# gap = 1.7 - 1.2
# hard = hsref.projection(s / (0.99 * gap), hsref.CappedSimplex(5, k))
# soft = hsref.projection(s / (1.01 * gap), hsref.CappedSimplex(5, k))
# assert np.allclose(hard.y, [1, 1, 0, 0, 0]) and hard.rank == 0 and soft.rank > 0
# ```
# </details>
