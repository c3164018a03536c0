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
# # 11. From one source to CPU and GPU
#
# **Claim.** *A new set is one file: two functions of one point and a class. Written once as plain
# Python, it is compiled for the processor and for CUDA, projected, differentiated, verified and
# listed, and nothing else has to be told.*

# %%
import importlib
import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from matplotlib.patches import FancyBboxPatch

import hsref
from hsref import optim, theory
from hsref.cli import main as hsref_command

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# The set of this lesson is a **slab**, $\{y:\ low\le c^Ty\le high\}$, which the library does not
# have. What the file must hold is on the left; what comes of it, on the right.

# %% tags=["thumbnail"]
fig, ax = plt.subplots(figsize=(9.6, 4.0), layout="constrained")


def box(x, y, text, colour, width=2.3, height=0.72):
    ax.add_patch(FancyBboxPatch((x, y - height / 2), width, height, fc=colour, alpha=0.3, ec="none",
                                boxstyle="round,pad=0.04"))  # fmt: skip
    ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=10)


def arrow(start, end):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.2})


box(0.0, 3.2, "slab_project\none point", GREEN)
box(0.0, 2.1, "slab_hs\none product $Vg$", GREEN)
box(0.0, 1.0, "class Slab\nrows, parameters", GREEN)
readings = ("compiled for the CPU", "compiled for CUDA", "as it is, in Python")
for y, text in zip((3.2, 2.1, 1.0), readings):
    box(4.0, y, text, BLUE)
    for source in (3.2, 2.1):
        arrow((2.4, source), (3.9, y))
right = ("project, projection, warmup", "gradients in every framework", "C1 & C2, Scaled, Product",
         "hsref verify, hsref info --sets", "one value of low, high a sample")  # fmt: skip
for y, text in zip(np.linspace(3.5, 0.7, 5), right):
    box(8.0, y, text, ORANGE, width=3.4, height=0.5)
    for source in (3.2, 2.1):
        arrow((6.4, source), (7.9, y))
ax.set(xlim=(-0.2, 11.6), ylim=(0.3, 4.3))
ax.axis("off")
for x, text in ((1.15, "one file"), (5.15, "three readings"), (9.7, "what comes of it")):
    ax.text(x, 4.05, text, ha="center", weight="bold")
plt.show()

# %% [markdown]
# ## State it
#
# With $\ell=c^Tx$ and the nearest allowed level $t=\min(\max(\ell,low),high)$,
#
# $$ \Pi(x)=x-c\,\frac{\ell-t}{c^Tc},\qquad
#    V=\begin{cases}I-cc^T/c^Tc&\text{a side is active}\\ I&\text{else.}\end{cases} $$
#
# A *device function* works on one point, in memory that the caller owns: no allocation, no
# exception, loops over scalars. It writes the point, one code a row (active? working? with a
# multiplier?), the multipliers, a few integers and the margins, and returns a status.

# %%
SOURCE = '''
"""The slab {y : low <= c'y <= high}."""

import numpy as np

from hsref._batch import Kernel
from hsref._codes import (
    ACTIVE_UPPER, INFO_RANK_ACTIVE, INFO_RANK_SUPPORT, INFO_RANK_WORKING, INFO_WEAK,
    PRIMAL_INFEASIBLE, SOLVED, SUPPORT_UPPER, WORKING_UPPER,
)
from hsref._jit import device_function
from hsref.sets import REGISTRY
from hsref.sets.base import DataField, PolyhedralSet, as_parameter
from hsref.sets.polyhedron import Polyhedron

BINDS = ACTIVE_UPPER | WORKING_UPPER | SUPPORT_UPPER
EPS = 2.0**-52


@device_function
def slab_project(x, data, shared, active_tol, y, code, dual, info, margin, work, iwork):
    """y = x - c (c'x - t)/(c'c), t the nearest level in [low, high] = data; shared = (c,)."""
    c = shared[0]
    n = x.shape[0]
    low = data[0]
    high = data[1]
    if low > high:
        return PRIMAL_INFEASIBLE
    square = 0.0
    size = max(abs(low), abs(high))
    reach = 0.0
    for j in range(n):
        y[j] = x[j]
        square += c[j] * c[j]
        size = max(size, abs(c[j] * x[j]))
        reach = max(reach, abs(x[j]))
    moved = 0.0
    level = 0.0
    for _ in range(2):  # the second pass removes the rounding of a far-away x
        level = 0.0
        for j in range(n):
            level += c[j] * y[j]
        step = (level - min(max(level, low), high)) / square
        for j in range(n):
            y[j] -= step * c[j]
        moved += step
        level -= step * square
    near = active_tol * max(abs(low), abs(high)) + 64.0 * EPS * n * size
    code[0] = ACTIVE_UPPER if high - level <= near else 0
    code[1] = ACTIVE_UPPER if level - low <= near else 0
    if moved > 0.0:
        code[0] = BINDS
    elif moved < 0.0:
        code[1] = BINDS
    dual[0] = max(moved, 0.0)
    dual[1] = max(-moved, 0.0)
    rows = (1 if code[0] != 0 else 0) + (1 if code[1] != 0 else 0)
    held = 1 if moved != 0.0 else 0
    info[INFO_RANK_ACTIVE] = n - min(rows, 1)
    info[INFO_RANK_WORKING] = n - held
    info[INFO_RANK_SUPPORT] = n - held
    info[INFO_WEAK] = rows - held
    slack = np.inf
    if code[0] == 0:
        slack = min(slack, high - level)
    if code[1] == 0:
        slack = min(slack, level - low)
    margin[0] = slack / size if size > 0.0 else np.inf
    margin[1] = abs(moved) / reach if held == 1 and reach > 0.0 else np.inf
    return SOLVED


@device_function
def slab_hs(g, y, code, tape_f, tape_i, data, shared, mask, out, work, iwork):
    """out = g - c (c'g)/(c'c) where a side is selected, else g."""
    c = shared[0]
    n = g.shape[0]
    along = 0.0
    square = 0.0
    for j in range(n):
        along += c[j] * g[j]
        square += c[j] * c[j]
    for j in range(n):
        out[j] = g[j]
        if ((code[0] | code[1]) & mask) != 0:
            out[j] = g[j] - c[j] * along / square


class Slab(PolyhedralSet):
    """The points whose inner product with a vector lies between two numbers."""

    forward_cost = "O(n)"
    backward_cost = "O(n)"

    def __init__(self, normal, low, high):
        self.normal = np.array(normal, dtype=float)
        self._freeze(shape=self.normal.shape, fields=(
            DataField("low", (), as_parameter(low, "low", ())),
            DataField("high", (), as_parameter(high, "high", ())),
        ))

    @classmethod
    def examples(cls):
        return cls([1.0, -2.0, 0.5], -1.0, 0.5), cls([3.0, 4.0], 5.0, 5.0)

    def _make_kernel(self):
        return Kernel(
            "Slab", slab_project, slab_hs, size=self.size, code_size=2 + self.size, dual_size=2,
            work_size=0, iwork_size=1, hs_work_size=0, hs_iwork_size=0,
            shared=(np.array(self.normal),),
        )

    def to_polyhedron(self):
        return self._with_data({})

    def _with_data(self, data):
        low, high = (float(data.get(f.name, f.value)) for f in self._fields)
        return Polyhedron(np.vstack([self.normal, -self.normal]), [high, -low])


REGISTRY["Slab"] = Slab
'''
folder = tempfile.TemporaryDirectory()
sys.path.insert(0, folder.name)


def written(name, text):
    """Write a file and import it, as a user's editor and program would."""
    (Path(folder.name) / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


slab = written("slab", SOURCE)
print(len(SOURCE.splitlines()), "lines")

# %% [markdown]
# That was all. The set is there: `project`, gradients, every element at a kink, intersections,
# parameters that differ from sample to sample, and its line in `hsref info --sets`.

# %%
C = hsref.Slab([0.6, 0.8], -0.5, 0.7)
rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, size=(70, 2))
record = hsref.projection(x, C)

fig, ax = plt.subplots(figsize=(5.4, 4.6))
tangent = np.array([-0.8, 0.6])
for level in (-0.5, 0.7):
    ax.plot(*(level * C.normal + np.array([[-4.0], [4.0]]) * tangent).T, color="black", lw=1.5)
for here, there, rank in zip(x, record.y, record.rank):
    colour = BLUE if rank == 2 else ORANGE
    ax.plot(*np.transpose([here, there]), color=colour, lw=1)
    ax.plot(*there, "o", color=colour, ms=4)
ax.plot([], [], "o", color=BLUE, label="inside: $V=I$")
ax.plot([], [], "o-", color=ORANGE, label="on a side: $V=I-cc^T$")
ax.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])
ax.legend(loc="lower left", frameon=True, framealpha=0.9)
ax.set_title("A set that the library had never heard of")
plt.show()

assert len(hsref.hs_jacobian_set(0.7 * C.normal, C)) == 2  # on the side: I and the projector
assert np.allclose(grad(lambda z: hsref.project(z, C)[0])(np.array([2.0, 2.0])), [0.64, -0.48])
assert hsref.project(np.ones((2, 2)), C, high=[0.2, 0.4]).shape == (2, 2)
assert isinstance(C & hsref.Box(0.0, 1.0, n=2), hsref.Polyhedron)
listing = io.StringIO()
with redirect_stdout(listing):
    hsref_command(["info", "--sets"])
print(*(line for line in listing.getvalue().splitlines() if "Slab" in line), sep="\n")
assert "Slab" in listing.getvalue()

# %% [markdown]
# ## Check it
#
# **Three readings of one source.** The compiled CPU code is what ran above. The same function is
# also plain Python, reached as `.py_func`. And `numba.cuda` compiles it as a device function; here,
# where a GPU cannot be taken for granted, Numba's *simulator* of CUDA runs it, in a process of its
# own because it must be chosen before Numba is loaded. (With a GPU the call is the same:
# `hsref.project(x, C, device="cuda")`.)

# %%
points = rng.normal(size=(200, 3)) * np.geomspace(0.01, 100, 200)[:, None]
S = hsref.Slab([1.0, -2.0, 0.5], -1.0, 0.5)
on_cpu = hsref.project(points, S)

in_python = np.empty_like(points)
for i, point in enumerate(points):
    code, info = np.zeros(5, np.int64), np.zeros(16, np.int64)
    slab.slab_project.py_func(
        point, np.array([-1.0, 0.5]), (S.normal,), 1e-9, in_python[i], code, np.zeros(2), info,
        np.zeros(2), np.zeros(1), np.zeros(1, np.int64),
    )  # fmt: skip

np.save(Path(folder.name) / "points.npy", points)
SIMULATED = """
import numpy as np, slab, hsref
x = np.load("points.npy")
p = hsref.projection(x, hsref.Slab([1.0, -2.0, 0.5], -1.0, 0.5), device="cuda")
np.save("simulated.npy", p.y)
"""
path = os.pathsep.join([folder.name, *(p for p in sys.path if p)])
done = subprocess.run(
    [sys.executable, "-c", SIMULATED], cwd=folder.name, capture_output=True, text=True,
    env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path},
)  # fmt: skip
assert done.returncode == 0, done.stderr
simulated = np.load(Path(folder.name) / "simulated.npy")

unit = np.spacing(np.abs(points).max(axis=1, keepdims=True))  # rounding of the largest entry
apart = {
    "Python and CPU": np.abs(in_python - on_cpu) / unit,
    "simulated CUDA and CPU": np.abs(simulated - on_cpu) / unit,
}
fig, ax = plt.subplots(figsize=(6.2, 3.2))
bins = np.arange(-0.25, 4.3, 0.5)
ax.hist([d.ravel() for d in apart.values()], bins=bins, color=[BLUE, ORANGE], label=list(apart))
ax.set(xlabel="difference, in units of the last place of the input", ylabel="entries of 600")
ax.set_title("Three readings agree to rounding")
ax.legend()
plt.show()
assert max(d.max() for d in apart.values()) <= 4

# %% [markdown]
# Equal to the last bit they need not be: the compilers may add in another order. On *one* machine
# the promise is stronger: sample $i$ has the same bits alone, in any batch, on any number of
# threads.

# %%
alone = np.stack([hsref.project(point, S) for point in points])
assert np.array_equal(alone, on_cpu)
assert np.array_equal(hsref.project(points, S, n_threads=1), on_cpu)

# %% [markdown]
# **Verification comes with it.** Every statement of the theory that speaks about sets is checked on
# the new set, at constructed kinks, against the general solver and brute force. To see that the
# checks can fail, plant a bug that is easy to make: forget to divide by $c^Tc$ in the derivative.

# %%
broken_source = SOURCE.replace("c[j] * along / square", "c[j] * along")
broken = written("broken_slab", broken_source.replace("Slab", "BrokenSlab"))

STATEMENTS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11")
worst = {}
for name, kind in (("Slab", slab.Slab), ("BrokenSlab", broken.BrokenSlab)):
    outcome = theory.verify.run(
        sets={name: kind.examples()}, statements=STATEMENTS, points=40,
        out=Path(folder.name) / f"verify-{name}",
    )  # fmt: skip
    worst[name] = {
        s: max((r.residual / r.tolerance for r in outcome.rows if r.statement == s), default=0.0)
        for s in STATEMENTS
    }
    print(f"{name:11s} {'all statements hold' if outcome else 'FAILS'}")

fig, ax = plt.subplots(figsize=(8, 3.6))
at = np.arange(len(STATEMENTS))
for shift, name, colour, mark in ((-0.12, "Slab", BLUE, "o"), (0.12, "BrokenSlab", RED, "D")):
    values = np.maximum(list(worst[name].values()), 1e-8)
    ax.plot(at + shift, values, mark, color=colour, ms=8, label=name)
ax.axhline(1.0, color="black", lw=1, ls="--")
ax.text(len(STATEMENTS) - 0.4, 1.4, "fails above", ha="right")
ax.set(yscale="log", ylabel="worst residual / tolerance")
ax.set_xticks(at, STATEMENTS)
ax.set_title("The checks accept the set and find the planted bug")
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()
assert max(worst["Slab"].values()) <= 1.0
assert worst["BrokenSlab"]["T3"] > 1.0
for statement in ("T1", "T2"):
    assert worst["BrokenSlab"][statement] <= 1.0  # the forward is right, and is found right

# %% [markdown]
# ## Use it
#
# Fit a constrained parameter with the new set: least squares whose solution must keep its weighted
# sum in a band. One line of the model changes.

# %%
features = rng.normal(size=(80, 3))
truth = np.array([1.0, 0.2, -0.4])
observed = features @ truth + 0.1 * rng.normal(size=80)
band = hsref.Slab([1.0, 1.0, 1.0], 0.0, 0.5)


def loss(theta):
    return anp.mean((features @ hsref.project(theta, band) - observed) ** 2)


theta, slope = band.interior_point(), grad(loss)  # at 0 the side would block the sum
begin, update = optim.adam(0.05)
state, sums = begin(theta), []
for _ in range(150):
    theta, state = update(theta, slope(theta), state)
    sums.append(hsref.project(theta, band).sum())

fig, ax = plt.subplots(figsize=(5.6, 3.2))
ax.axhspan(0.0, 0.5, color=GREEN, alpha=0.15)
ax.axhline(truth.sum(), color=GREY, ls="--", lw=1)
ax.text(150, truth.sum() + 0.02, "sum of the truth", ha="right", color=GREY)
ax.plot(sums, color=BLUE, lw=2)
ax.set(xlabel="step", ylabel="sum of the fitted weights", ylim=(-0.05, 1.0))
ax.set_title("The fit goes to the edge of the band and stays in it")
plt.show()
assert min(sums) >= -1e-12
assert np.isclose(sums[-1], 0.5, atol=1e-12)

# %% [markdown]
# ## Exercises
#
# **1.** What has to change for a *hyperplane*-like slab whose sides coincide, `low == high`? Try
# it, and explain the rank.
#
# <details><summary>Solution</summary>
#
# Nothing. Both rows are active everywhere, they are dependent, and $V=I-cc^T/c^Tc$ has rank $n-1$:
# `min(rows, 1)` in the source counts independent rows.
#
# ```python
# thin = hsref.projection([7.0, -3.0], hsref.Slab([3.0, 4.0], 5.0, 5.0))
# assert thin.rank == 1 and thin.active.ub.all()
# assert np.isclose(thin.y @ [3.0, 4.0], 5.0)
# ```
# </details>
#
# **2.** Which statement would find a forward bug: forgetting the second side (no `max(level,
# low)`)?
#
# <details><summary>Solution</summary>
#
# T1 and T2: the answer violates a row, and is not the planted projection.
#
# ```python
# text = SOURCE.replace("min(max(level, low), high)", "min(level, high)")
# kind = written("one_sided", text.replace("Slab", "OneSided")).OneSided
# try:
#     failed = not theory.verify.run(sets={"OneSided": kind.examples()}, statements=["T1", "T2"],
#                                    points=20, out=Path(folder.name) / "one-sided")
# except hsref.NotSolvedError:
#     failed = True
# assert failed
# ```
# </details>
#
# **3.** Why may a device function not allocate memory or raise an exception?
#
# <details><summary>Solution</summary>
#
# On a GPU thousands of threads run it at once: memory would have to be taken from a heap that is
# slow and small, and there is nobody to catch an exception. It returns a status instead, and the
# host, which has the sentences, explains.
#
# ```python
# p = hsref.projection(np.zeros(2), hsref.Slab([1.0, 1.0], 1.0, 2.0), low=3.0, on_infeasible="nan")
# assert p.status == hsref.Status.PRIMAL_INFEASIBLE and np.isnan(p.y).all()
# ```
# </details>
