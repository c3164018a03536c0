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
# # 4. Inside the solver
#
# **Claim.** *A dual active-set method projects onto a polyhedron in finitely many steps, because
# every row that it adds has raised a lower bound on the distance. It needs no assumption on the
# rows, and where the set is empty it ends with a proof of that.*
#
# The method is that of Goldfarb and Idnani (1983), specialised to projections. The library's
# version of it works on the Gram matrix of the rows with an updated factor; here it is written to
# be read.

# %%
from io import BytesIO
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.patches import Polygon
from PIL import Image as Picture

import hsref
from hsref import theory

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# Start at $x$ itself: the nearest point if there were no rows. While some row $p$ is violated,
# raise its multiplier from 0 until $p$ holds, and let the point slide so that the rows in the
# **working set** $K$ keep holding. Should a multiplier of $K$ reach zero on the way, that row has
# nothing to push against any more and is dropped; then go on.


# %%
def dual_active_set(A, a, x):
    """Project x onto {A y <= a}, rows of norm 1; return the steps, the last one with the answer."""
    y, K, lam = x.copy(), [], np.zeros(0)
    steps = []

    def note(kind, row, p=None, u=0.0):
        steps.append({"kind": kind, "row": row, "y": y, "K": tuple(K), "lam": lam, "p": p, "u": u})

    note("start", None)
    while True:
        slack = A @ y - a
        p = int(np.argmax(slack))
        if slack[p] <= 1e-9:  # crude; the library ends at rounding
            return steps
        u = 0.0  # the multiplier of p
        while True:
            M = A[K]
            r = np.linalg.lstsq(M.T, A[p], rcond=None)[0]  # A[p] = M' r + z, z in the kernel of M
            z = A[p] - r @ M
            blocking = [m / q if q > 1e-12 else np.inf for m, q in zip(lam, r)]
            j = int(np.argmin(blocking)) if K else None
            partial = blocking[j] if K else np.inf
            full = (A[p] @ y - a[p]) / (z @ z) if z @ z > 1e-12 else np.inf
            t = min(partial, full)
            if t == np.inf:  # A[p] = M' r with r <= 0: Farkas
                K, lam = [*K, p], np.append(-r, 1.0)
                note("empty", p)
                return steps
            y, lam, u = y - t * z, lam - t * r, u + t
            if full <= partial:
                K, lam = [*K, p], np.append(lam, u)
                note("add", p)
                break
            gone = K[j]
            K, lam = K[:j] + K[j + 1 :], np.delete(lam, j)
            note("drop", gone, p, u)


angle = np.deg2rad([135.0, 190.0, 220.0, 260.0, 350.0])
A = np.column_stack([np.cos(angle), np.sin(angle)])
a = np.array([0.8, 0.6, 0.4, 0.2, 0.3])
x = np.array([-1.6, -2.6])
steps = dual_active_set(A, a, x)
for k, step in enumerate(steps):
    rows = ", ".join(str(i + 1) for i in step["K"]) or "none"
    what = step["kind"] + ("" if step["row"] is None else f" row {step['row'] + 1}")
    print(f"step {k}: {what:10s}  working set: {rows}")
assert [s["kind"] for s in steps] == ["start", "add", "add", "drop", "add"]

# %% [markdown]
# The same, drawn. Each line is a row, the grey polygon is the set. Blue are the rows of the working
# set, on which the point stays; where a row was dropped, red is the row that is being enforced.

# %%
CORNERS = np.array([np.linalg.solve(A[[k, (k + 1) % 5]], a[[k, (k + 1) % 5]]) for k in range(5)])


def draw(ax, k):
    """Draw step k: where the point was, where it is, and which rows hold it."""
    step, before = steps[k], steps[max(k - 1, 0)]
    ax.add_patch(Polygon(CORNERS, fc="#e3e3e3", ec="none", zorder=0))
    for i in range(5):
        tangent = np.array([-A[i, 1], A[i, 0]])
        ends = a[i] * A[i] + np.array([[-4.0], [4.0]]) * tangent
        colour, width = (GREY, 0.7)
        if i in step["K"]:
            colour, width = BLUE, 2.5
        if i == step["p"] and step["kind"] == "drop":
            colour, width = RED, 2.5
        ax.plot(*ends.T, color=colour, lw=width, zorder=1)
    for earlier, later in pairwise(steps[: k + 1]):
        ax.plot(*np.transpose([earlier["y"], later["y"]]), color="black", lw=1, ls=":")
    if np.any(step["y"] != before["y"]):
        arrow = {"arrowstyle": "-|>", "color": RED, "lw": 2}
        ax.annotate("", step["y"], before["y"], arrowprops=arrow)
    ax.plot(*x, "o", color="black", ms=6)
    ax.plot(*step["y"], "o", color="white", mec="black", ms=7, zorder=5)
    what = "start at $x$" if step["row"] is None else f"{step['kind']} row {step['row'] + 1}"
    ax.set(xlim=(-2.1, 1.2), ylim=(-2.9, 1.5), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(f"{k}: {what}", fontsize=10)


fig, axes = plt.subplots(1, 5, figsize=(12.5, 3.6), layout="constrained")
for k, ax in enumerate(axes):
    draw(ax, k)
fig.suptitle("The point slides (arrow) on the rows of the working set (blue)")
plt.show()


# %% [markdown]
# As a film (it moves in JupyterLab and in a browser):


# %%
def film(k):
    fig, ax = plt.subplots(figsize=(3.2, 4.0), dpi=66, layout="constrained")
    draw(ax, k)
    stream = BytesIO()
    fig.savefig(stream)
    plt.close(fig)
    return Picture.open(stream).convert("RGB").quantize(32)


stream = BytesIO()
first, *rest = (film(k) for k in range(len(steps)))
first.save(stream, "PNG", save_all=True, append_images=rest, duration=1200, loop=0)
display(Image(stream.getvalue()))

# %% [markdown]
# ## State it
#
# At every moment $y=x-M_K^T\lambda$ with $\lambda\ge0$ is the projection of $x$ onto
# $\{w: A_iw\le a_i,\ i\in K\}$, a set that *contains* $P$. So
#
# $$ q(\lambda)=\tfrac12\|x-y\|^2+\sum_{i\in K}\lambda_i(A_iy-a_i)\ \le\ \tfrac12\|x-\Pi(x)\|^2, $$
#
# and on the working rows the sum is zero. Raising the multiplier of a violated row $p$ by $t$ along
# $(1,-r)$, $r=(M_KM_K^T)^{-1}M_KA_p^T$, changes $q$ at the rate of the violation of $p$, which is
# positive until $p$ holds. So between two additions of rows **$q$ strictly increases; no working
# set returns; there are finitely many.** Drops happen at most $|K|$ times in between.
#
# * **No rule against cycling.** Ties, duplicated rows, more rows than dimensions in a corner: $q$
#   does not care.
# * **No assumption of independence.** A row that depends on $K$ has $z=0$. It is not added until
#   some row of $K$ that blocks has been dropped; working sets stay independent.
# * **Infeasible.** If $z=0$ and nothing blocks, then $A_p=\sum_{i\in K}r_iA_i$ with $r\le0$: the
#   weights $(1,-r)\ge0$ combine the rows to $0\cdot y\le(\text{something negative})$. That is
#   Farkas' certificate of an empty set.
# * At the end $K$ is independent and $\lambda\ge0$: an admissible $K$ of the HS-Jacobian
#   (`selection="working"`), at no extra cost.


# %%
def lower_bound(step, A=A, a=a, x=x):
    rows, lam = list(step["K"]), step["lam"]
    u = step["u"]  # a row that is being enforced counts with what it has so far
    y = step["y"]
    total = 0.5 * np.sum((x - y) ** 2) + lam @ (A[rows] @ y - a[rows])
    return total + (u * (A[step["p"]] @ y - a[step["p"]]) if u else 0.0)


bounds = [lower_bound(s) for s in steps]
fig, ax = plt.subplots(figsize=(5.6, 3.2))
ax.axhline(0.5 * np.sum((x - hsref.project(x, hsref.Polyhedron(A, a))) ** 2), color=GREEN, lw=2)
ax.plot(bounds, "o-", color=BLUE)
for k, step in enumerate(steps[1:], 1):
    ax.annotate(f"{step['kind']} {step['row'] + 1}", (k, bounds[k]), (4, -14),
                textcoords="offset points", color=GREY)  # fmt: skip
ax.text(0, bounds[-1] + 0.16, "$\\frac{1}{2}$ squared distance from $x$ to $P$", color=GREEN)
ax.set(xlabel="step", ylabel="lower bound $q$", ylim=(-0.1, bounds[-1] + 0.7))
ax.set_xticks(range(len(steps)))
ax.set_title("The bound only rises, and ends at the truth")
plt.show()
assert np.all(np.diff(bounds) > 0)

# %% [markdown]
# ## Check it
#
# Against the library, on ordinary and on ugly input: rows copied, rows that are sums of others, all
# of them active in one corner. No working set returns, all stay independent, and the answer is the
# library's.

# %%
rng = np.random.default_rng(0)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ugly():
    """A set with copied and dependent rows through one corner, and a point that sees the corner."""
    n = int(rng.integers(2, 5))
    base = unit(rng.normal(size=(n + 2, n)))
    A = unit(np.vstack([base, base[:2], base[0] + base[1]]))
    z = rng.integers(-2, 3, size=n) + 0.0
    a = A @ z + np.where(rng.random(len(A)) < 0.7, 0.0, 1.0)
    return A, a, z + rng.integers(0, 3, size=len(A)) @ A + 0.5 * rng.normal(size=n)


counts, worst = [], 0.0
for _ in range(200):
    C, c, start = ugly()
    trace = dual_active_set(C, c, start)
    answer = trace[-1]["y"]
    sets = [frozenset(s["K"]) for s in trace if s["kind"] == "add"]
    assert trace[-1]["kind"] != "empty"
    assert len(set(sets)) == len(sets)  # no working set twice
    assert all(np.linalg.matrix_rank(C[list(K)]) == len(K) for K in sets if K)
    worst = max(worst, np.abs(answer - hsref.project(start, hsref.Polyhedron(C, c))).max())
    counts.append((len(trace) - 1, len(trace[-1]["K"])))
print(f"200 degenerate problems: largest difference {worst:.0e}, most steps {max(counts)[0]}")
assert worst < 1e-9

# %% [markdown]
# ### What can go wrong without a bound that rises
#
# A popular shortcut updates the whole working set at once: keep the rows with positive multipliers,
# add all violated ones, solve, repeat. It is often very fast (a semismooth Newton method), and it
# can run in circles. Three rows in the plane suffice.

# %%
B = unit(np.array([[3.0, 2.0], [1.0, 1.0], [-1.0, -3.0]]))
b = np.array([1.0, 0.0, 1.0]) / np.linalg.norm([[3.0, 2.0], [1.0, 1.0], [-1.0, -3.0]], axis=1)
x3 = np.array([2.0, 4.0])
working, visited = frozenset(), []
while working not in [K for K, _ in visited]:
    rows = sorted(working)
    lam = np.zeros(3)
    lam[rows] = np.linalg.solve(B[rows] @ B[rows].T, B[rows] @ x3 - b[rows]) if rows else 0.0
    y = x3 - lam @ B
    visited.append((working, y))
    violated = B @ y > b + 1e-9
    working = frozenset(i for i in range(3) if (lam[i] > 1e-9 if i in rows else violated[i]))
assert working == visited[0][0]  # back at the start: it would go on for ever
finite = dual_active_set(B, b, x3)
assert len(finite) == 2  # one step

fig, axes = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
for ax in axes:
    for i in range(3):
        tangent = np.array([-B[i, 1], B[i, 0]])
        ax.plot(*(b[i] * B[i] + np.array([[-20.0], [20.0]]) * tangent).T, color=GREY, lw=0.8)
    grid = np.stack(np.meshgrid(np.linspace(-5, 5, 300), np.linspace(-4, 5, 270)), -1)
    inside = np.all(grid @ B.T <= b, axis=-1)
    ax.contourf(grid[..., 0], grid[..., 1], inside, levels=[0.5, 1.5], colors=["#e3e3e3"])
    ax.plot(*x3, "o", color="black")
    ax.text(2.15, 4.1, "$x$")
    ax.set(xlim=(-3, 3.5), ylim=(-2.2, 4.6), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
loop = [y for _, y in visited] + [visited[0][1]]
for here, there in pairwise(loop):
    axes[0].annotate("", there, here, arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 2})
line = [s["y"] for s in finite]
for here, there in pairwise(line):
    if np.any(here != there):
        axes[1].annotate("", there, here, arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 2})
axes[0].set_title("all rows at once: round and round")
axes[1].set_title("one row at a time: done after the first")
plt.show()
assert np.allclose(line[-1], hsref.project(x3, hsref.Polyhedron(B, b)))

# %% [markdown]
# ## Use it
#
# **An empty set proves itself.** Three half-planes, each pair of which meets, have no common point.
# The method stops with weights under which the rows cancel and the right-hand sides do not.

# %% tags=["thumbnail"]
E = np.array([[np.cos(s), np.sin(s)] for s in np.deg2rad([90.0, 210.0, 330.0])])
e = np.array([-0.5, -0.5, -0.5])
ending = dual_active_set(E, e, np.array([0.3, 0.6]))[-1]
weights = np.zeros(3)
weights[list(ending["K"])] = ending["lam"]
assert ending["kind"] == "empty"
assert (weights >= 0).all()
assert np.allclose(weights @ E, 0)  # the rows cancel,
assert weights @ e < 0  # and 0 <= something negative would be left

try:
    hsref.project([0.3, 0.6], hsref.Polyhedron(E, e))
except hsref.InfeasibleError as error:
    proof = error.certificate
print(theory.check_farkas(hsref.Polyhedron(E, e), proof))
assert np.allclose(proof.ub / proof.ub.sum(), weights / weights.sum())

fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), layout="constrained")
for k, colour in enumerate((BLUE, ORANGE, GREEN)):
    tangent = np.array([-E[k, 1], E[k, 0]])
    line = e[k] * E[k] + np.array([[-3.0], [3.0]]) * tangent
    allowed = [*line, line[1] - 3 * E[k], line[0] - 3 * E[k]]
    axes[0].add_patch(Polygon(allowed, fc=colour, alpha=0.22))
    axes[0].plot(*line.T, color=colour, lw=2)
    axes[0].annotate("", e[k] * E[k] + 0.5 * E[k], e[k] * E[k],
                     arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})  # fmt: skip
axes[0].set(xlim=(-2, 2), ylim=(-1.7, 1.9), aspect="equal", xticks=[], yticks=[])
axes[0].set_title("each pair of half-planes meets,\nall three do not")
tip = np.zeros(2)
for k, colour in enumerate((BLUE, ORANGE, GREEN)):
    there = tip + weights[k] * E[k]
    axes[1].annotate("", there, tip, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5})
    tip = there
axes[1].plot(0, 0, "ko")
axes[1].set(xlim=(-0.5, 1.1), ylim=(-0.3, 1.2), aspect="equal", xticks=[], yticks=[])
axes[1].set_title("the weighted rows close to a triangle:\n$\\sum\\lambda_iA_i=0$")
axes[1].set_xlim(-1.1, 0.6)
for ax in axes:
    ax.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# **Count the steps.** Random polyhedra, a thousand points each: the number of steps is close to the
# number of rows that end up active, because few rows are added in vain. A step costs about $k(m+k)$
# operations with $k$ working rows, so this is why the method is fast where few rows are active.

# %%
fig, ax = plt.subplots(figsize=(5.6, 3.6))
for n, colour, mark in ((5, SKY, "o"), (15, ORANGE, "s"), (40, BLUE, "^")):
    rows = rng.normal(size=(2 * n, n))
    C = hsref.Polyhedron(rows, np.abs(rng.normal(size=2 * n)) + 0.5)
    p = hsref.projection(rng.normal(size=(1000, n)) * rng.uniform(0.2, 4, size=(1000, 1)), C)
    active, count = p.active.ub.sum(axis=1), p.steps
    jitter = rng.uniform(-0.3, 0.3, size=(2, 1000))
    ax.scatter(active + jitter[0], count + jitter[1], s=7, color=colour, marker=mark, alpha=0.5,
               label=f"n = {n}, {2 * n} rows")  # fmt: skip
    assert (count >= active).all()
    assert np.mean(count) < 2 * np.mean(active)
top = ax.get_xlim()[1]
ax.plot([0, top], [0, top], color=GREY, lw=1, ls="--")
ax.set(xlabel="rows active at the answer", ylabel="steps of the solver")
ax.set_title("About one step for each row that matters")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## Exercises
#
# **1.** Copy row 4 of the pentagon and run `dual_active_set` again. Which copy enters the working
# set, and why never both?
#
# <details><summary>Solution</summary>
#
# Both are violated equally; `argmax` takes the first. Once it holds, so does its copy, which is
# never the most violated row again. Had it been enforced, $z=0$ and $r=1$: it could only replace
# the first copy, not join it.
#
# ```python
# trace = dual_active_set(np.vstack([A, A[3]]), np.append(a, a[3]), x)
# assert np.allclose(trace[-1]["y"], steps[-1]["y"])
# assert not any({3, 5} <= set(s["K"]) for s in trace)
# ```
# </details>
#
# **2.** Show that $q$ is a lower bound even if $y$ violates rows: weak duality.
#
# <details><summary>Solution</summary>
#
# For $w\in P$ and $\lambda\ge0$:
# $\tfrac12\|x-w\|^2\ge\tfrac12\|x-w\|^2+\sum\lambda_i(A_iw-a_i)\ge\min_v\{\dots\}=q(\lambda)$; the
# minimum over $v$ is attained at $v=x-A^T\lambda$.
#
# ```python
# w = hsref.project(rng.normal(size=(500, 2)) * 3, hsref.Polyhedron(A, a))
# assert (0.5 * np.sum((x - w) ** 2, axis=1) >= max(bounds) - 1e-9).all()
# ```
# </details>
#
# **3.** Move the three half-planes until they just touch in one point. What does the library
# return, and what is $V_0$ there?
#
# <details><summary>Solution</summary>
#
# With $e=0$ the set is the single point 0. All three rows are active, two of them are independent,
# and $V_0=0$ everywhere: nothing can be learnt from a set with one point.
#
# ```python
# p = hsref.projection([0.3, 0.6], hsref.Polyhedron(E, np.zeros(3)))
# assert np.allclose(p.y, 0) and p.active.ub.all() and p.working_set.ub.sum() == 2
# assert p.jacobian().rank == 0
# ```
# </details>
