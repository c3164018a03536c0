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
# # 10. Hyper-connections
#
# **Claim.** *Products of doubly stochastic matrices are doubly stochastic, so streams mixed by them
# cannot explode, however deep the network. Projection makes that true to rounding; Sinkhorn's
# iteration stops short. The price: at a permutation the gradient is zero.*
#
# The story behind `hsref train hyper-connections`, with a smaller run. It needs the extra `apps`;
# the text it reads is Python's own help.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from matplotlib.patches import Polygon
from scipy.sparse.csgraph import connected_components

import hsref
from hsref.applications import hyper_connections
from hsref.applications.hyper_connections.mixing import interior_margin, start_matrix
from hsref.applications.hyper_connections.model import Model
from hsref.applications.hyper_connections.sinkhorn import sinkhorn

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# A residual network may carry $n$ streams instead of one; each block mixes them by a matrix $H$
# that depends on the input. Doubly stochastic matrices form a polytope whose vertices are the
# permutations. Its slice by the circulant 3 × 3 matrices $aI+bP+cP^2$ is a triangle: that much of
# it we can draw. What the network asks for is projected.

# %% tags=["thumbnail"]
P = np.roll(np.eye(3), 1, axis=1)
corners = np.array([np.eye(3), P, P @ P])
flat = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, np.sqrt(3.0)]])
rng = np.random.default_rng(1)
wishes = np.full(3, 1 / 3) + rng.normal(size=(60, 3)) * 0.55
wishes += (1 - wishes.sum(axis=1, keepdims=True)) / 3
record = hsref.projection(np.tensordot(wishes, corners, 1), hsref.Birkhoff(3))
answers = record.y[:, 0, [0, 1, 2]]

fig, ax = plt.subplots(figsize=(6.8, 4.8))
ax.add_patch(Polygon(flat, fc="#e3e3e3", ec="black", lw=1.5))
for rank, colour, label in ((4, BLUE, "inside: rank of V is 4"), (1, ORANGE, "on a side: 1"),
                            (0, RED, "a permutation: 0, dead")):  # fmt: skip
    chosen = record.rank == rank
    for here, there in zip(wishes[chosen] @ flat, answers[chosen] @ flat):
        ax.plot(*np.transpose([here, there]), color=colour, lw=0.8)
    ax.plot(*(answers[chosen] @ flat).T, "o", color=colour, ms=6, label=label)
for name, place, shift in zip(("I", "P", "P²"), flat, ((-14, -14), (14, -14), (0, 10))):
    ax.annotate(name, place, shift, textcoords="offset points", ha="center", fontsize=12)
ax.set(xlim=(-2.4, 2.4), ylim=(-1.2, 2.9), aspect="equal", xticks=[], yticks=[])
ax.spines[:].set_visible(False)
ax.legend(loc="upper left")
ax.set_title("A slice of the doubly stochastic 3 × 3 matrices")
plt.show()
assert set(record.rank) == {0, 1, 4}

# %% [markdown]
# Why constrain $H$ at all? Multiply 64 random ones, as 64 blocks do. Gain is the largest row sum of
# the product's absolute values: how much the largest signal may grow.

# %%
depth, n = 64, 4
logits = start_matrix(n, 0.4) + 0.6 * rng.normal(size=(depth, n, n))
mixers = {
    "unconstrained": (logits, RED, ":"),
    "projection": (hsref.project(logits, hsref.Birkhoff(n)), BLUE, "-"),
}
fig, ax = plt.subplots(figsize=(7, 3.4))
for name, (H, colour, line) in mixers.items():
    product, gains = np.eye(n), []
    for one in H:
        product = one @ product
        gains.append(np.abs(product).sum(axis=1).max())
    ax.semilogy(range(1, depth + 1), gains, line, color=colour, lw=2, label=name)
ax.set(xlabel="blocks", ylabel="gain", title="Only one of them can be stacked for ever")
ax.legend()
plt.show()
assert np.abs(np.array(gains) - 1).max() < 1e-12
assert np.abs(product.sum(axis=0) - 1).max() < 1e-12

# %% [markdown]
# Sinkhorn's iteration divides columns and rows by their sums, in turns, and converges. How fast
# depends on the matrix. For $\begin{pmatrix}1&1\\0&1\end{pmatrix}$, which logits of
# $-800$ make, $k$ rounds leave an error of exactly $1/(2k+1)$: after the customary 20 it is 2.4 %.

# %%
rounds = np.array([1, 2, 5, 10, 20, 50, 100, 200])
hard = np.array([[[0.0, 0.0], [-800.0, 0.0]]])
loud = rng.normal(size=(100, n, n))


def column_error(s, k):
    """Return the largest distance of a column sum from 1 after k rounds."""
    return np.abs(sinkhorn(s, int(k)).sum(axis=1) - 1).max()


fig, ax = plt.subplots(figsize=(7.6, 3.8))
ax.loglog(rounds, [column_error(hard, k) for k in rounds], "o-", color=RED, label="the hard one")
for size, colour, mark in ((1, GREEN, "s"), (4, ORANGE, "^"), (16, PURPLE, "v")):
    found = [max(column_error(size * loud, k), 1e-16) for k in rounds]
    ax.loglog(rounds, found, mark + "-", color=colour, label=f"normal logits, deviation {size}")
exact = hsref.project(16 * loud, hsref.Birkhoff(n))
wrong = np.abs(exact.sum(axis=1) - 1).max()
ax.axhline(max(wrong, 1e-16), color=BLUE, lw=2, ls="--", label="projection, deviation 16")
ax.axvline(20, color=GREY, lw=1, ls=":")
ax.set(xlabel="rounds", ylabel="largest column error", ylim=(1e-17, 20))
ax.set_title("Rows are exact; columns converge, fast or slowly")
ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()
assert np.allclose([column_error(hard, k) for k in rounds], 1 / (2 * rounds + 1), rtol=1e-9)
assert wrong < 1e-13

# %% [markdown]
# ## State it
#
# Let $\mathcal B_n=\{H\ge0,\ H\mathbf 1=\mathbf 1,\ H^T\mathbf 1=\mathbf 1\}$.
#
# **Products stay.** $H_2H_1\ge0$, $H_2H_1\mathbf 1=H_2\mathbf 1=\mathbf 1$, and the same for
# columns. Each is a mean of permutations, so $\|Hx\|\le\|x\|$ in every $\ell_p$ norm; the mean of
# the streams does not change. $\square$
#
# **Rank.** Draw an edge between row $i$ and column $j$ where $H_{ij}>0$. The directions that keep
# zeros and sums are the circulations of that graph, so
#
# $$ \operatorname{rank}V_0=\#\text{edges}-2n+\#\text{components}. $$
#
# Inside that is $(n-1)^2$ and $V_0=C\otimes C$, centring of rows and columns; at a permutation
# $n-2n+n=0$. **The customary start $H=I$ is a permutation**: a projection would stay there for
# ever. The application starts at $(1-\varepsilon)I+\frac\varepsilon n\mathbf 1\mathbf 1^T$.
#
# **First and last are inert.** Streams enter equal, so any $H$ with row sums 1 leaves them alone;
# they leave through their mean, which column sums 1 keep. Only the blocks between mix.

# %%
B = hsref.Birkhoff(n)
record = hsref.projection(
    rng.normal(size=(300, n, n)) * np.geomspace(0.02, 3, 300)[:, None, None], B
)


def circulations(H):
    """Return edges − nodes + components of the graph of positive entries."""
    graph = np.zeros((2 * n, 2 * n))
    graph[:n, n:] = H > 0
    return int((H > 0).sum()) - 2 * n + connected_components(graph, directed=False)[0]


assert [circulations(H) for H in record.y] == list(record.rank)
assert record.rank.max() == (n - 1) ** 2
assert hsref.projection(np.eye(n), B).rank == 0

# %% [markdown]
# ## Check it
#
# The element inside is the double centring; the start lies inside, $\varepsilon/n$ from the
# boundary; the identity lies on it.

# %%
C = np.eye(n) - 1 / n
start = start_matrix(n, 0.4)
V = hsref.projection(start, B).jacobian().toarray().reshape(n * n, n * n)
assert np.abs(V - np.kron(C, C)).max() < 1e-14
assert np.isclose(interior_margin(start.reshape(1, -1), n)[0], 0.1)
assert np.isclose(interior_margin(np.eye(n).reshape(1, -1), n)[0], 0.0)

# %% [markdown]
# Now train, a very small run: 4 blocks, one seed, one learning rate. Five arms: projection, weights
# of all $n!$ permutations, Sinkhorn, no constraint, and a plain residual network. First, gradients
# of a fresh network: which blocks' mixing can learn?

# %%
config = hyper_connections.HyperConfig(
    depth=4, depths=(), width=16, hidden=32, steps=100, warmup=10, every=10, batch_size=64,
    scored=512, seeds=(0,), depth_seeds=(0,), learning_rates=(3e-2,),
)  # fmt: skip
result = hyper_connections.train(config)
text = result.problem.text
model = Model(config, "projection", text.size, config.depth)
batch = text.windows("train", text.spread("train", 64))
slope = model.tree(grad(model.loss)(model.init(0), *batch))
moves = [np.abs(block["links"]["b"][2 * n :]).max() for block in slope["blocks"]]

fig, ax = plt.subplots(figsize=(6.4, 3.2))
names = [f"block {k + 1}" for k in range(config.depth)]
bars = ax.bar(names, np.maximum(moves, 1e-21), color=[GREY, BLUE, BLUE, GREY])
ax.bar_label(bars, [f"{value:.0e}" if value else "0" for value in moves])
ax.set(yscale="log", ylim=(1e-22, 1), title="Largest gradient of a mixing bias: the ends are inert")
plt.show()
assert max(moves[0], moves[-1]) < 1e-15 < 1e-6 < min(moves[1:-1])

# %% [markdown]
# What holds at the end, and what is alive.

# %%
NAMES = {
    "projection": ("projection", BLUE, "o"),
    "permutations": ("permutations", GREEN, "s"),
    "sinkhorn": ("Sinkhorn, 20 rounds", ORANGE, "^"),
    "unconstrained": ("unconstrained", RED, "v"),
}
figures = {arm: result.arm(arm)["validation"] for arm in NAMES}
history = result.runs["projection", config.depth][0].history

fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.5), layout="constrained")
for row, (arm, (_, colour, mark)) in enumerate(reversed(NAMES.items())):
    error = max(figures[arm]["row_error"], figures[arm]["column_error"])
    axes[0].semilogx(error, row, mark, color=colour, ms=9)
axes[0].set_yticks(range(4), [name for name, *_ in reversed(NAMES.values())])
axes[0].set(xlim=(1e-17, 100), xlabel="largest error of a sum", title="Doubly stochastic?")
axes[0].grid(axis="y", color="#eeeeee")
ranks = figures["projection"]["rank_by_block"]
axes[1].bar(names, ranks, color=[GREY, BLUE, BLUE, GREY])
axes[1].axhline((n - 1) ** 2, color=GREY, lw=1, ls="--")
axes[1].set(ylim=(0, 10), title="Mean rank of V after training, of 9")
plt.show()
for arm in ("projection", "permutations"):
    assert max(figures[arm]["row_error"], figures[arm]["column_error"]) < 1e-13
assert figures["projection"]["negative"] == 0
assert np.abs(np.array(figures["projection"]["gain_by_block"]) - 1).max() < 1e-12
assert ranks[0] == ranks[-1] == (n - 1) ** 2

# %% [markdown]
# The inert ends stay inside; the blocks between move towards faces, and some towards permutations:
# then the mixing is fixed, and no longer learnt. Whether that is bad the loss must tell.
#
# ## Use it
#
# `hsref train hyper-connections` is the full protocol: rates tuned for each arm on the same grid,
# five seeds, several depths. Its numbers lie beside this notebook; a dot is a seed.

# %%
report = json.loads(Path("../benchmarks/results/hyper_connections/results.json").read_text())
arms = report["arms"]
ALL = {**NAMES, "residual": ("plain residual", GREY, "D")}

fig, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for row, (arm, (_, colour, mark)) in enumerate(reversed(ALL.items())):
    axes[0].plot(arms[arm]["validation"]["loss"], row, mark, color=colour, ms=9)
    for seed in arms[arm]["seeds"]:
        axes[0].plot(seed["validation"]["loss"], row, ".", color=colour, ms=7, alpha=0.5)
axes[0].set_yticks(range(len(ALL)), [name for name, *_ in reversed(ALL.values())])
axes[0].set(xlabel="nats a character", title="validation loss: a measurement")
axes[0].grid(axis="y", color="#eeeeee")
for arm, (name, colour, mark) in NAMES.items():
    gains = arms[arm]["validation"]["gain_by_block"]
    axes[1].semilogy(
        range(1, len(gains) + 1), gains, mark + "-", color=colour, mfc="none", ms=8, label=name
    )
axes[1].set(xlabel="block", title="gain up to a block: a theorem")
axes[1].legend()
ranks = arms["projection"]["validation"]["rank_by_block"]
inert = [GREY, *[BLUE] * (len(ranks) - 2), GREY]
axes[2].bar(range(1, len(ranks) + 1), ranks, color=inert)
axes[2].set(xlabel="block (grey: inert)", title="mean rank of V, of 9: the price")
plt.show()
for arm in ("projection", "permutations"):
    assert abs(arms[arm]["validation"]["gain_max"] - 1) < 1e-12
best = min(ALL, key=lambda arm: arms[arm]["validation"]["loss"])
print(f"lowest mean validation loss: {ALL[best][0]}")
print(f"projections at a permutation: {arms['projection']['validation']['dead_fraction']:.0%}")
for arm in NAMES:
    print(f"{NAMES[arm][0]:20s} worst gain {arms[arm]['validation']['gain_max']:.4g}")

# %% [markdown]
# Gain counts row sums, which Sinkhorn's last step makes exact; the worst gain, printed, looks at
# columns too, and so at gradients on their way back.
#
# The [report](../benchmarks/results/hyper_connections/report.md) says which differences are clear,
# what a step costs, and what happens at other depths. Note what it does not show: weights of all
# permutations are exact as well, and $n!$ is small for $n=4$. (At $n=8$ it is 40320.)
#
# ## Exercises
#
# **1.** Show that a projection that starts at the identity cannot leave it, and that one that
# starts with $\varepsilon>0$ can.
#
# <details><summary>Solution</summary>
#
# Steps of any size along a gradient that is zero lead nowhere.
#
# ```python
# g = rng.normal(size=(n, n))
# assert np.abs(hsref.vjp(np.eye(n), B)[1](g)).max() < 1e-14
# assert np.allclose(hsref.vjp(start_matrix(n, 1e-6), B)[1](g), C @ g @ C)
# ```
# </details>
#
# **2.** Nothing explodes. Does anything vanish? Look at what 20 blocks leave of the mean of the
# streams, and of their differences.
#
# <details><summary>Solution</summary>
#
# The mean survives exactly; differences shrink, for inside the polytope the second singular value
# is below 1. What the theorem protects is the mean.
#
# ```python
# H = np.linalg.matrix_power(start_matrix(n, 0.4), 20)
# streams = rng.normal(size=(n, 10))
# assert np.allclose((H @ streams).mean(axis=0), streams.mean(axis=0))
# assert np.allclose(np.ptp(H @ streams, axis=0), 0.6**20 * np.ptp(streams, axis=0), rtol=1e-9)
# ```
# </details>
#
# **3.** Birkhoff and von Neumann: write a projection as a mean of at most $(n-1)^2+1$ permutations.
#
# <details><summary>Solution</summary>
#
# Take a permutation within the positive entries, subtract as much of it as there is, repeat: each
# time one more entry is gone.
#
# ```python
# from scipy.optimize import linear_sum_assignment
#
# rest, weights = hsref.project(rng.normal(size=(n, n)), B), []
# while rest.max() > 1e-12:
#     i, j = linear_sum_assignment(rest > 1e-12, maximize=True)
#     weights.append(rest[i, j].min())
#     rest[i, j] -= weights[-1]
# assert np.isclose(sum(weights), 1)
# assert len(weights) <= (n - 1) ** 2 + 1
# ```
# </details>
