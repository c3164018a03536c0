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
# # 8. Portfolio
#
# **Claim.** *A network that ends in a projection holds its portfolio constraints to rounding, on
# days it has never seen. That alone does not make its returns the best: feasibility is a theorem,
# performance a measurement.*
#
# The story behind `hsref train portfolio`, with a smaller run. It needs the extra `apps`, which
# brings real prices: 20 stocks of the S&P 500, 1990–2022, inside the package skfolio.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon

import hsref
from hsref.applications import portfolio

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# A portfolio of three stocks is a point of a triangle. The mandate: no short sales, everything
# invested, **at least half in a preferred group** $S$, here stocks 1 and 2. It cuts the triangle
# (grey). Wherever the network points, the projection answers with the nearest allowed portfolio.

# %% tags=["thumbnail"]
E = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]])


def flat(w):
    """Return coordinates in the plane where the entries sum to 1."""
    return (np.asarray(w) - 1.0 / 3.0) @ E.T


small = hsref.GroupBudget(3, [0, 0, -1], lower=[0.5], upper=[np.inf])
rng = np.random.default_rng(3)
wishes = 1.0 / 3.0 + rng.uniform([-1.2, -0.9], [1.2, 1.3], size=(50, 2)) @ E
record = hsref.projection(wishes, small)

fig, ax = plt.subplots(figsize=(6.4, 5.2))
ax.add_patch(Polygon(flat(np.eye(3)), fc="none", ec=GREY, ls="--"))
allowed = [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]
ax.add_patch(Polygon(flat(allowed), fc="#e3e3e3", ec="black", lw=1.5))
for rank, colour, label in ((2, BLUE, "inside: moves freely"), (1, ORANGE, "on a side"),
                            (0, RED, "in a corner: no gradient")):  # fmt: skip
    chosen = record.rank == rank
    for here, there in zip(flat(wishes[chosen]), flat(record.y[chosen])):
        ax.plot(*np.transpose([here, there]), color=colour, lw=0.8)
    ax.plot(*flat(record.y[chosen]).T, "o", color=colour, ms=6, label=label)
for k, shift in enumerate(((14, -12), (-14, -12), (0, 6))):
    name = f"all in stock {k + 1}" + (" (S)" if k < 2 else "")
    ax.annotate(
        name, flat(np.eye(3)[k]), shift, textcoords="offset points", ha="center", fontsize=9
    )
ax.set(xlim=(-1.6, 1.6), ylim=(-1.3, 1.4), aspect="equal", xticks=[], yticks=[])
ax.spines[:].set_visible(False)
ax.legend(loc="upper right", bbox_to_anchor=(1.25, 1.0))
ax.set_title("The nearest portfolio that the mandate allows")
plt.show()
assert (record.y[:, :2].sum(axis=1) >= 0.5 - 1e-15).all()

# %% [markdown]
# The prices. Three technology stocks play the preferred group. A network reads 120 days and returns
# the weights for the next 120; days up to 2014 are for training, the rest is looked at once.

# %%
prices = portfolio.load_prices()
days = np.array(prices.dates, dtype="datetime64[D]")
group = ("AAPL", "AMD", "MSFT")

fig, ax = plt.subplots(figsize=(8, 3.4))
growth = prices.values / prices.values[0]
for k, ticker in enumerate(prices.tickers):
    colour = dict(zip(group, (BLUE, ORANGE, GREEN))).get(ticker)
    if colour is None:
        ax.semilogy(days, growth[:, k], color="#bbbbbb", lw=0.6, zorder=1)
    else:
        ax.semilogy(days, growth[:, k], color=colour, lw=1.4, zorder=2, label=ticker)
ax.axvspan(np.datetime64("2014-09-29"), days[-1], color=SKY, alpha=0.15)
ax.text(np.datetime64("2018-08-01"), 0.32, "test days", ha="center")
ax.set(
    ylabel="price, 1990 = 1", title="Twenty stocks that lasted: a flattering choice, for all arms"
)
ax.legend(loc="upper left", ncol=3)
plt.show()

# %% [markdown]
# ## State it
#
# The set is $C=\{w\ge0,\ \mathbf 1^Tw=1,\ \mathbf 1_S^Tw\ge p\}$. **The projection decouples**: let
# $y=\Pi_\Delta(x)$ be the projection onto the simplex. If $\mathbf 1_S^Ty\ge p$ it is the answer.
# Otherwise the mandate is active, and
#
# $$ w_S=\Pi_{p\Delta}(x_S),\qquad w_{S^c}=\Pi_{(1-p)\Delta}(x_{S^c}). $$
#
# *Proof of the second case.* The mandate holds with equality at the answer (else the answer would
# be $\Pi_\Delta(x)$, which violates it); with both sums fixed, objective and constraints separate.
# $\square$ The element $V_0$ subtracts means over the positive entries: within $S$ and within $S^c$
# if the mandate is active, over all of them if not. Forward and backward cost $O(n)$, a softmax not
# much less.

# %%
n, p = 20, 0.5
mask = np.isin(prices.tickers, group)
C = hsref.GroupBudget(n, np.where(mask, 0, -1), lower=[p], upper=[np.inf])
x = rng.normal(size=(500, n)) / 5
w = hsref.project(x, C)

simple = hsref.project(x, hsref.Simplex(n))
halves = np.empty_like(x)
halves[:, mask] = hsref.project(x[:, mask], hsref.Simplex(mask.sum(), p))
halves[:, ~mask] = hsref.project(x[:, ~mask], hsref.Simplex((~mask).sum(), 1 - p))
short = simple[:, mask].sum(axis=1) < p
assert 0 < short.sum() < 500
assert np.abs(w - np.where(short[:, None], halves, simple)).max() < 1e-14
print(f"the mandate is active for {short.mean():.0%} of random scores")

# %% [markdown]
# ## Check it
#
# The same set as plain rows, through the general solver: same point, same element.

# %%
general = hsref.projection(x[:50], C.to_polyhedron())
special = hsref.projection(x[:50], C)
assert np.abs(general.y - special.y).max() < 1e-13
assert np.abs(general.jacobian().toarray() - special.jacobian().toarray()).max() < 1e-12

# %% [markdown]
# Now train, a small run: one seed, every tenth window, one learning rate. Five arms share network,
# seed and grid: **projection** trained end to end; **softmax**, which ignores the mandate;
# **softmax + penalty**, which pays for a shortfall while it trains; a **LinSAT-style layer**,
# Sinkhorn's iterations extended to the mandate; and **softmax, projected when used**. (The full run
# has ten seeds and tunes each arm; we look at its report below.)

# %%
config = portfolio.PortfolioConfig(
    seeds=(0,),
    tuning_seeds=(1000,),
    learning_rates=(3e-3,),
    penalties=(10.0,),
    stride=10,
    epochs=25,
)
result = portfolio.train(config, prices)
history = {arm: result.seeds[arm][0].history for arm in portfolio.TRAINED}
NAMES = {
    "projection": ("projection", BLUE),
    "softmax": ("softmax", GREY),
    "softmax_penalty": ("softmax + penalty", ORANGE),
    "linsat": ("LinSAT-style layer", RED),
    "train_then_project": ("softmax, projected when used", GREEN),
    "equal_weight": ("equal weight", PURPLE),
    "mean_variance": ("mean–variance", SKY),
}

fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), layout="constrained")
for arm in portfolio.TRAINED:
    name, colour = NAMES[arm]
    epochs = [h["epoch"] for h in history[arm]]
    axes[0].plot(epochs, [h["train_sharpe"] for h in history[arm]], color=colour, lw=2, label=name)
    floor = [max(h["test_violation"], 1e-17) for h in history[arm]]
    axes[1].semilogy(epochs, floor, color=colour, lw=2)
axes[0].set(xlabel="epoch", title="Sharpe ratio on training days")
axes[0].legend()
axes[1].set(xlabel="epoch", ylim=(1e-18, 3), title="largest violation on the test days")
plt.show()
assert all(h["test_violation"] <= 1e-12 for h in history["projection"])
assert all(h["test_violation"] > 1e-3 for h in history["softmax"])

# %% [markdown]
# The penalty starts inside the mandate and leaves it as soon as it learns: a price is not a
# constraint. The projection holds it before anything was learnt and at every epoch after. Is it
# alive? The rank of $V$ counts the directions in which an output can still learn (19 inside; 0 in a
# corner).

# %%
fig, ax = plt.subplots(figsize=(6, 3.2))
epochs = [h["epoch"] for h in history["projection"]]
ax.plot(epochs, [h["train_mean_rank"] for h in history["projection"]], color=BLUE, lw=2)
ax.axhline(result.problem.constraints().dim, color=GREY, lw=1, ls="--")
ax.text(0.5, 19.2, "dimension of the set", color=GREY)
ax.set(xlabel="epoch", ylim=(0, 21.5), title="Mean rank of V: portfolios get sparser, none is dead")
plt.show()
dead = [h["train_dead_fraction"] for h in history["projection"]]
assert max(dead) < 0.05

# %% [markdown]
# What it holds, day by day. The group never falls below its half.

# %%
weights = result.seeds["projection"][0].weights
first = np.array(result.problem.dates, dtype="datetime64[D]")[result.problem.split.right]
share = weights[:, mask].sum(axis=1)
order = np.r_[np.flatnonzero(mask), np.flatnonzero(~mask)]

fig, ax = plt.subplots(figsize=(8.4, 3.4))
shades = [*plt.cm.Blues([0.9, 0.7, 0.5]), *plt.cm.Oranges(np.linspace(0.15, 0.6, 17))]
ax.stackplot(first, weights[:, order].T, colors=shades, lw=0)
ax.axhline(0.5, color="black", lw=1.2, ls="--")
ax.set(ylim=(0, 1), ylabel="weight", xlim=(first[0], first[-1]))
ax.set_title("Weights on the test days: blue is the preferred group, dashed its half")
plt.show()
assert share.min() >= 0.5 - 1e-12
assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12

# %% [markdown]
# ## Use it
#
# `hsref train portfolio` is the full protocol: learning rates tuned for each arm on the same grid,
# a price for the penalty too, references that learn nothing, standard errors. The numbers of ten
# seeds lie beside this notebook; read them before you believe a picture. A dot is a seed.

# %%
report = json.loads(Path("../benchmarks/results/portfolio/results.json").read_text())
arms = report["arms"]

fig, axes = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained", sharey=True)
labels = []
reported = {arm: NAMES[arm] for arm in NAMES if arm in arms}
for row, (arm, (name, colour)) in enumerate(reversed(reported.items())):
    test = arms[arm]["test"]
    axes[0].plot(test["sharpe"], row, "D", color=colour, ms=8)
    for seed in arms[arm]["seeds"]:
        axes[0].plot(seed["test"]["sharpe"], row, "o", color=colour, ms=4, alpha=0.5)
    axes[1].plot(max(test["violation"], 1e-17), row, "D", color=colour, ms=8)
    labels.append(name)
    print(f"{name:30s} Sharpe {test['sharpe']:.3f}   largest violation {test['violation']:.1e}")
axes[0].set_yticks(range(len(labels)), labels)
axes[0].set(xlabel="Sharpe ratio on the test days", title="Performance: a measurement")
axes[1].set(xlabel="largest violation on the test days", xscale="log", xlim=(1e-17, 3))
axes[1].set_title("Feasibility: a theorem")
for ax in axes:
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
plt.show()
exact = ("projection", "train_then_project")
assert all(arms[arm]["test"]["violation"] <= 1e-12 for arm in exact)
assert arms["softmax"]["test"]["violation"] > 0.01
best = max(reported, key=lambda arm: arms[arm]["test"]["sharpe"])
print(f"\nhighest test Sharpe ratio: {NAMES[best][0]}")

# %% [markdown]
# How sure is that? The test windows overlap; only a few of them share no day. The full
# [report](../benchmarks/results/portfolio/report.md) pairs the arms on those, and mostly concludes
# that the years are too few to tell them apart. What projection gives is the right column: **every
# constraint, every day, without tuning a price or a number of iterations for it.** Whether to train
# through it or to project a finished network is a question for the validation days.
#
# ## When projections die
#
# A projection that ends in a corner passes no gradient. Two settings decide how often that happens:
# the temperature $\tau$ in $\Pi(s/\tau)$, and the scale of the last layer's initial weights (at
# scale 1 the network starts inside). The report varied both, three seeds each. A cold projection
# dies even from a good start, and its rank falls long before; a warm one stays alive from any.

# %%
study = json.loads(Path("../benchmarks/results/portfolio/details.json").read_text())["study"]
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.2), layout="constrained")
for scale, colour in ((1.0, BLUE), (10.0, ORANGE), (100.0, RED)):
    cells = [cell for cell in study if cell["scale"] == scale]
    at = [cell["temperature"] for cell in cells]
    for ax, key in zip(axes, ("dead", "rank")):
        values = [np.mean([seed[key] for seed in cell["seeds"]]) for cell in cells]
        ax.semilogx(at, values, "o-", color=colour, label=f"initial scale {scale:g}")
for ax, title in zip(axes, ("Fraction of dead windows", "Mean rank of V (of 19)")):
    ax.set(xlabel="temperature / n", title=f"{title} after training")
axes[0].legend()
plt.show()
# a start inside is alive at every temperature
inside = [cell for cell in study if cell["scale"] == 1.0]
assert all(seed["start_dead"] == 0.0 for cell in inside for seed in cell["seeds"])

# %% [markdown]
# ## Exercises
#
# **1.** Add a cap of 10 % on each stock (`cap=0.1`). Is the set still not empty? From which cap on?
#
# <details><summary>Solution</summary>
#
# Three preferred stocks must hold 50 %, so the cap must be at least $1/6$; and the 17 others must
# be able to hold the rest, which they are. At 10 % the set is empty and says so.
#
# ```python
# groups = np.where(mask, 0, -1)
# try:
#     hsref.project(x[0], hsref.GroupBudget(n, groups, lower=[0.5], upper=[np.inf], cap=0.1))
#     raise RuntimeError("not reached")
# except ValueError as error:
#     assert isinstance(error, hsref.InfeasibleError)
# capped = hsref.GroupBudget(n, groups, lower=[0.5], upper=[np.inf], cap=1 / 6)
# assert np.allclose(hsref.project(x[0], capped)[mask], 1 / 6)
# ```
# </details>
#
# **2.** Trading costs: the new portfolio may differ from the old one by at most 0.2 in total
# (`hsref.Turnover`). Project a wish onto it. How many stocks are not traded at all, and why?
#
# <details><summary>Solution</summary>
#
# The limit on $\|w-w_{old}\|_1$ soft-thresholds the trade: small wishes are not traded at all.
#
# ```python
# old = np.full(n, 1 / n)
# new = hsref.project(x[0], hsref.Turnover(old, 0.2))
# assert np.isclose(np.abs(new - old).sum(), 0.2)
# assert (np.abs(new - old) < 1e-12).sum() > n / 2
# ```
# </details>
#
# **3.** Show that "softmax, projected when used" can be worse than the softmax's own loss suggests:
# give scores whose softmax earns more than their projection.
#
# <details><summary>Solution</summary>
#
# Any scores that put everything on one stock outside of $S$: the projection must move half of it
# into $S$, and spreads that half evenly over the three, whatever they earn.
#
# ```python
# earns = np.where(mask, -1.0, 0.0)
# earns[~mask] = np.linspace(0, 1, 17)
# soft = np.zeros(n)
# soft[np.argmax(earns)] = 1.0
# moved = hsref.project(soft, C)
# assert np.allclose(moved[mask], 1 / 6)
# assert earns @ moved < earns @ soft
# ```
# </details>
