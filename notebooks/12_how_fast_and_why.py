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
# # 12. How fast, and why
#
# **Claim.** *A projection is fast when its steps are few, its step is cheap, and its backward reads
# what the forward has found. Step counts are facts that anyone can reproduce; times are
# measurements, worth something only beside the accuracy that they bought.*
#
# The comparisons below come from the committed benchmark run (`python -m benchmarks.run`), in which
# every competitor gets the same data in the same process. Here nothing is timed for longer than a
# few seconds.

# %%
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import hsref

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# One workload, all solvers: dense general polyhedra, a batch of points. To the left is fast, to the
# bottom is accurate. Solvers that iterate trade one for the other; a finite method ends at rounding
# and has no such knob. Open marks are answers further than $10^{-6}$ from the projection: they
# bought less.

# %% tags=["thumbnail"]
rows = json.loads(Path("../benchmarks/results/benchmarks.json").read_text())
row = rows.get("W1-t2") or next(iter(rows.values()))


def seconds(result, part="forward"):
    """Return seconds a batch, or None; of hsref the plain `project`, as for the others."""
    best = (part == "forward" and result.get("forward_only")) or result.get(part)
    return best["seconds"] if best else None


timed = [r for r in row["results"] if seconds(r)]
fig, ax = plt.subplots(figsize=(7.6, 4.4))
for k, r in enumerate(timed):
    # hsref supplies the reference: its error is that of the residuals
    error = max(r["error"], r["infeasibility"], 1e-16)
    exact = error <= 1e-6
    colour = BLUE if r["package"] == "hsref" else ORANGE
    ax.plot(
        1e3 * seconds(r), error, "o", color=colour, mfc=colour if exact else "none", ms=9, mew=1.8
    )
    place = (1e3 * seconds(r), error)
    ax.annotate(r["peer"], place, (7, (5, -11)[k % 2]), textcoords="offset points", fontsize=9)
ax.axhline(1e-6, color=GREY, lw=0.8, ls="--")
ax.set(xscale="log", yscale="log", ylim=(2e-17, 1e-1), xlabel="forward, ms for the batch")
ax.set_xlim(right=ax.get_xlim()[1] * 3)
ax.set(ylabel="error of the answer", title=f"{row['title']}\n({row['machine']['cpu']}, "
       f"{row['threads']} threads)")  # fmt: skip
plt.show()
ours = next(r for r in timed if r["peer"] == "hsref")
assert max(ours["error"], ours["infeasibility"]) < 1e-12

# %% [markdown]
# ## State it
#
# Four things make the difference, and none of them is a faster loop.
#
# * **Finite.** One-row sets are a root of a convex piecewise linear function (Newton's method ends
#   on a piece); general sets are a dual active-set method (notebook 4). No tolerance to buy.
# * **Few steps.** About $\log n$ passes for a simplex; about one step for each active row else.
# * **The batch shares what it can.** Rows are normalised, the Gram matrix is formed, equalities are
#   factored once a set. A step works on $k$ working rows, not on $n$ variables.
# * **The backward reads.** Which rows are active, and their factor, is in the record:
#
# | set | forward | backward $Vg$ | kept for it |
# |---|---|---|---|
# | box, half-space | $n$ | $n$ | a byte an entry |
# | simplex, knapsack, $\ell_1$ ball | $n$ times few passes | $2n$ | a byte an entry |
# | isotonic cone | $n$ | $n$ | the blocks |
# | general, $m$ rows, $k$ active | $mn+\text{steps}\cdot k(m+k)$ | $k(2n+k)$ | factor, $k^2$ |
#
# Unrolling an iteration would keep every iterate; differentiating optimality conditions by a new
# factorisation costs $(n+m)^3$.
#
# **Floors.** No method can be faster than reading the points and writing the answers at memory
# speed, nor than looking at each row once at the speed of a matrix product. Both are measured in
# the benchmark process.

# %%
fig, ax = plt.subplots(figsize=(6.6, 0.8 + 0.55 * 2 * min(len(rows), 3)))
labels, height = [], 0
for name, one in list(rows.items())[:3]:
    ours = next(r for r in one["results"] if r["peer"] == "hsref")
    for part in ("forward", "backward"):
        floor, capacity = one["floor"][part], one["capacity"]
        least = max(
            floor["bytes"] / capacity["bytes_per_second"],
            floor["flops"] / capacity["flops_per_second"],
        )
        here = seconds(ours, part)
        ax.plot([1e3 * least, 1e3 * here], [height, height], color=GREY, lw=1.2)
        ax.plot(1e3 * least, height, "|", color="black", ms=16, mew=2.5)
        ax.plot(1e3 * here, height, "o", color=BLUE, ms=9)
        ax.annotate(
            f"×{here / least:.0f}", (1e3 * here, height), (9, -4), textcoords="offset points"
        )
        labels.append(f"{name.split('-')[0]} {part}")
        height += 1
        assert here > least
ax.set_yticks(range(height), labels)
ax.set(xscale="log", xlabel="ms for the batch", ylim=(-0.6, height - 0.4))
ax.set_title("Distance from the floor (bar) to the measured time (dot)")
plt.show()

# %% [markdown]
# The forward is far from its floor because the floor knows the answer: it looks at each row once,
# while the solver has to find out which rows matter. The backward, which knows, is closer.
#
# ## Check it
#
# **Steps are reproducible**, on any machine, under any load. The threshold of the simplex: Newton's
# method from the left, started with all entries. Each pass removes the entries below the current
# threshold; about $\log n$ passes remain to be done, hardly ever more than six.

# %%
rng = np.random.default_rng(0)
sizes = 2 ** np.arange(3, 17, 2)
passes = []
for n in sizes:
    record = hsref.projection(rng.normal(size=(max(4, 65536 // n), n)), hsref.Simplex(n))
    passes.append((record.steps.mean(), record.steps.max()))
passes = np.array(passes)

fig, ax = plt.subplots(figsize=(5.8, 3.3))
ax.semilogx(sizes, passes[:, 0], "o-", color=BLUE, label="mean")
ax.semilogx(sizes, passes[:, 1], "s--", color=SKY, label="largest")
ax.set(xlabel="length $n$ of the point", ylabel="passes over the entries", ylim=(0, None))
ax.set_title("Simplex: passes grow like the logarithm of $n$, slowly")
ax.legend()
plt.show()
assert passes[:, 1].max() <= 10
assert passes[-1, 0] < 4 * passes[0, 0]

# %% [markdown]
# **Bits are reproducible too.** The choice of the algorithm depends on the set and never on the
# batch, and no threaded library stands in the forward path. So a sample has the same bits alone and
# in any batch: caching, sharding and debugging a single sample are safe. That costs some speed (a
# batched matrix product would not keep the order of its sums), and the figures above include it.

# %%
normals, sides = rng.normal(size=(30, 20)), np.abs(rng.normal(size=30)) + 0.2
C = hsref.Polyhedron(normals, sides)
x = 2 * rng.normal(size=(256, 20))
everything = hsref.project(x, C)
for i in (0, 17, 255):
    assert np.array_equal(hsref.project(x[i], C), everything[i])
assert np.array_equal(hsref.project(x[::-1], C)[::-1], everything)
assert np.array_equal(hsref.project(x, C, n_threads=1), everything)

# %% [markdown]
# ## Use it
#
# **Against the length.** A short measurement, best of five, on one thread (absolute figures depend
# on this machine at this moment; the shape does not). Time for each entry of a simplex: a sort, the
# textbook way, grows with $\log n$; Newton stays flat; and the backward costs about as much as
# touching the entries twice.


# %%
def best(function, *arguments, repeats=5, **keywords):
    shortest = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        function(*arguments, **keywords)
        shortest = min(shortest, time.perf_counter() - began)
    return shortest


measured = {"projection": [], "sort (NumPy)": [], "backward": [], "copy": []}
for n in sizes:
    x = rng.normal(size=(max(1, 131072 // n), n))
    C = hsref.Simplex(n)
    J = hsref.HSJacobian(hsref.projection(x, C), "active", 1)
    measured["projection"].append(best(hsref.project, x, C, n_threads=1) / x.size)
    measured["sort (NumPy)"].append(best(np.sort, x, axis=1) / x.size)
    measured["backward"].append(best(J.__matmul__, x) / x.size)
    measured["copy"].append(best(x.copy) / x.size)

fig, ax = plt.subplots(figsize=(6.6, 3.8))
for (name, values), colour, mark in zip(measured.items(), (BLUE, ORANGE, GREEN, GREY), "osD^"):
    ax.loglog(sizes, 1e9 * np.array(values), mark + "-", color=colour, label=name)
ax.set(xlabel="length $n$ of the point", ylabel="nanoseconds an entry")
ax.set_title("Simplex: a few nanoseconds an entry, from a hundred entries on")
ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()
rate = np.array(measured["projection"])
slope = np.polyfit(np.log(sizes[2:]), np.log(rate[2:] * sizes[2:]), 1)[0]
print(f"time ~ n^{slope:.2f}")  # a clock is no proof: nothing is asserted about it

# %% [markdown]
# **Against the batch.** A call from Python costs some microseconds: arguments are checked, a record
# is made, every sample is certified. Hand over batches, not single points, and the overhead is
# shared.

# %%
C = hsref.Polyhedron(normals, sides)
batches = 4 ** np.arange(7)
per_sample = []
for size in batches:
    x = 2 * rng.normal(size=(size, 20))
    per_sample.append(best(hsref.project, x, C, repeats=3, n_threads=1) / size)

fig, ax = plt.subplots(figsize=(5.8, 3.3))
ax.loglog(batches, 1e6 * np.array(per_sample), "o-", color=BLUE)
ax.set(xlabel="samples a call", ylabel="microseconds a sample")
ax.set_title("General polyhedron, n = 20, 30 rows:\none call for many samples")
plt.show()
print(f"{batches[-1]} samples a call: {per_sample[0] / per_sample[-1]:.0f} times cheaper each")

# %% [markdown]
# **Once.** The first call of a set compiles its routine (a general polyhedron: half a minute to a
# minute of one core) and caches it on disk. `hsref warmup` does it ahead, in an image or on a
# login node.
#
# **Choose the set that fits.** The same constraints as a special set and as general rows: same
# point, other cost. The special set makes a few passes over the point; the general method has its
# rows, its factor and its certificate to keep.

# %%
n = 60
special, general = hsref.Simplex(n), hsref.Simplex(n).to_polyhedron()
x = rng.normal(size=(200, n))
a, b = hsref.projection(x, special), hsref.projection(x, general)
assert np.abs(a.y - b.y).max() < 1e-13
times = [best(hsref.project, x, C, n_threads=1) for C in (special, general)]
print(f"{a.method}, {a.steps.mean():.1f} passes; {b.method}, {b.steps.mean():.1f} steps")
print(f"the general set takes {times[1] / times[0]:.1f} times as long")

# %% [markdown]
# ## Exercises
#
# **1.** Compute the memory floor of a simplex projection with $n=1000$, batch 1000, float64, at
# 15 GB/s. With the rate measured above, how far from it is the projection?
#
# <details><summary>Solution</summary>
#
# 8 MB are read and 8 MB written: 1.1 ms. At a few nanoseconds an entry, $10^6$ entries take a few
# milliseconds: a small factor, explained by the passes.
#
# ```python
# floor = 2 * 8e6 / 15e9
# assert 0.001 < floor < 0.0012
# ```
# </details>
#
# **2.** Scale a point *and* the total of its simplex by 1024. What happens to the number of passes,
# and to the bits of the answer?
#
# <details><summary>Solution</summary>
#
# Nothing, and they are those of the old answer times 1024: scaling by a power of two is exact, and
# no tolerance of the method is absolute.
#
# ```python
# x = rng.normal(size=(50, 40))
# once = hsref.projection(x, hsref.Simplex(40))
# scaled = hsref.projection(1024 * x, hsref.Simplex(40, 1024.0))
# assert np.array_equal(once.steps, scaled.steps)
# assert np.array_equal(1024 * once.y, scaled.y)
# ```
# </details>
#
# **3.** Why is the backward of a general polyhedron so much cheaper than its forward?
#
# <details><summary>Solution</summary>
#
# The forward makes about $k$ steps of $k(m+k)$ operations; the backward multiplies once by the $k$
# working rows and twice with their triangular factor. For $m=30$, $k=10$, $n=20$ that is about
# 4000 against 500.
#
# ```python
# m, k, n = 30, 10, 20
# assert k * k * (m + k) > 7 * k * (2 * n + k)
# ```
# </details>
