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
# # 3. Conservative mappings
#
# **Claim.** *Along every path, what the projection gains is the integral of $V\gamma'$, whichever
# element $V$ of the HS-Jacobian is taken at each moment. Being right almost everywhere is not
# enough for that.*

# %%
import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from autograd.misc import flatten
from matplotlib.patches import Polygon

import hsref
from hsref import nn, theory

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

angle = np.deg2rad([15.0, 80.0, 150.0, 215.0, 295.0])
A = np.column_stack([np.cos(angle), np.sin(angle)])
a = np.array([1.1, 0.9, 1.0, 1.1, 0.9])
P = hsref.Polyhedron(A_ub=A, b_ub=a)
CORNERS = np.array([np.linalg.solve(A[[k, (k + 1) % 5]], a[[k, (k + 1) % 5]]) for k in range(5)])


def plane(ax):
    """Draw the pentagon and the rays where cells meet."""
    ax.add_patch(Polygon(CORNERS, fc="#f2f2f2", ec="black", lw=1, zorder=0))
    for k in range(5):
        for row in (A[k], A[(k + 1) % 5]):
            ax.plot(*np.transpose([CORNERS[k], CORNERS[k] + 4 * row]), color=GREY, lw=0.5, zorder=0)
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.3, 2.3), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


# %% [markdown]
# ## See it
#
# Walk along a segment $\gamma$ through several cells. At each moment ask the layer for its $V$ and
# apply it to the velocity $\gamma'$. The result jumps at the kinks, but its integral is exactly the
# path of the projected point.

# %%
x0, x1 = np.array([-2.3, 1.4]), np.array([2.2, -1.6])
t = (np.arange(4000) + 0.5) / 4000
gamma = x0 + t[:, None] * (x1 - x0)
record = hsref.projection(gamma, P)
speed = record.jacobian() @ np.broadcast_to(x1 - x0, gamma.shape).copy()
gained = hsref.project(x0, P) + np.cumsum(speed, axis=0) / 4000

fig, axes = plt.subplots(1, 3, figsize=(12, 3.5), width_ratios=(1.15, 1, 1), layout="constrained")
plane(axes[0])
axes[0].plot(*gamma.T, color="black", lw=1.2)
axes[0].plot(*record.y.T, color=GREEN, lw=4, alpha=0.6)
axes[0].set_title("$\\gamma$ (black) and $\\Pi(\\gamma)$ (green)")
for k, colour in ((0, BLUE), (1, ORANGE)):
    axes[1].plot(t, speed[:, k], color=colour, lw=2, label=f"component {k + 1}")
    axes[2].plot(t, record.y[:, k], color=colour, lw=5, alpha=0.35)
    axes[2].plot(t, gained[:, k], color=colour, lw=1.2)
axes[1].set(title="$V\\gamma'$ jumps at kinks", xlabel="$t$")
axes[1].legend(loc="upper right", bbox_to_anchor=(1.05, 1.0))
axes[2].set(title="its integral (thin) is $\\Pi(\\gamma)$ (thick)", xlabel="$t$")
plt.show()
assert np.abs(gained - record.y).max() < 2e-3  # a sum of 4000 terms; exact below

# %% [markdown]
# Now walk in a circle. The gains must cancel, $\oint V\gamma'\,dt=0$, or $V$ could not be the
# derivative of anything. Replace the orthogonal projector by an *oblique* one onto the same
# directions, a plausible slip in a derivation: the curve of the gains does not close.

# %% tags=["thumbnail"]
turn = (np.arange(6000) + 0.5) / 6000 * 2 * np.pi
circle = np.column_stack([1.0 + 0.95 * np.cos(turn), 0.75 + 0.95 * np.sin(turn)])
velocity = 0.95 * np.column_stack([-np.sin(turn), np.cos(turn)])
start = hsref.project([[1.95, 0.75]], P)[0]
oblique = theory.NON_CONSERVATIVE["oblique"].field

fig, axes = plt.subplots(1, 2, figsize=(9.4, 4.1), layout="constrained")
loops = {}
for ax, name, field, colour in (
    (axes[0], "an element of the HS-Jacobian", theory.layer("active"), GREEN),
    (axes[1], "an oblique projector", oblique, RED),
):
    moved = np.einsum("kij,kj->ki", field(circle, P), velocity) * (2 * np.pi / 6000)
    curve = start + np.cumsum(moved, axis=0)
    loops[name] = np.linalg.norm(curve[-1] - start)
    plane(ax)
    ax.plot(*circle.T, color="black", lw=1.2)
    ax.plot(*curve.T, color=colour, lw=3)
    ax.plot(*start, "o", color="black", ms=7)
    ax.plot(*curve[-1], "D", color=colour, ms=7, mfc="white", mew=2)
    ax.set(xlim=(-1.7, 2.2), ylim=(-0.9, 1.9))
    closes = "closes" if loops[name] < 5e-3 else f"misses its start by {loops[name]:.2f}"
    ax.set_title(f"{name}:\nthe curve of gains {closes}")
plt.show()
assert loops["an element of the HS-Jacobian"] < 5e-3
assert loops["an oblique projector"] > 0.1

# %% [markdown]
# ## State it
#
# A set-valued mapping $D$ with closed graph and nonempty, bounded values is a **conservative
# mapping** for $F$ if for every absolutely continuous path $\gamma$ and almost every $t$
#
# $$ (F\circ\gamma)'(t)=V\gamma'(t)\qquad\text{for \emph{all} } V\in D(\gamma(t)). $$
#
# (Bolte and Pauwels, 2021.) **$HS$, and its convex hull, are conservative mappings for the
# projection.** *Proof.* Fix a set of rows $K$. The points at which $K$ is admissible form a closed
# polyhedron $C_K$, on which $\Pi(x)=V_Kx+\text{const}$. Along $\gamma$ the times spent in $C_K$ are
# a closed set, and almost every such time is an accumulation point of others at which both sides
# are differentiable; difference quotients along these give $(\Pi\circ\gamma)'=V_K\gamma'$. There
# are finitely many $K$. Closed graph: only finitely many closed pieces. Bounded: $\|V\|\le1$.
# $\square$
#
# What it buys:
#
# * **Calculus.** Sums, products, compositions of conservative mappings are conservative. What
#   automatic differentiation multiplies out, with an element of $HS$ at the layer, is an element of
#   a conservative field $D_\varphi$ of the loss.
# * **Right almost everywhere.** $D_\varphi=\{\nabla\varphi\}$ outside of a set of measure zero.
# * **Convergence.** Methods such as Adam with decaying steps and bounded iterates converge to
#   critical points of that field, $0\in D_\varphi$ (notebook 6 says under which conditions). Not to
#   minimisers, not at a rate, and a critical point of the field can be spurious, as we shall see.

# %% [markdown]
# ## Check it
#
# On a segment the projection is piecewise affine, its breakpoints are found in closed form, and the
# chain rule is an identity between finitely many numbers, good to rounding. Eight plausible fields
# that are *not* conservative go through the same three checks: an ordinary segment, a closed
# polygon, and a path that runs **inside a kink**.

# %%
rng = np.random.default_rng(0)
segments = rng.uniform(-2.5, 2.5, size=(6, 2, 2))
polygons = rng.uniform(-2.5, 2.5, size=(6, 4, 2))
middles = 0.5 * (CORNERS + np.roll(CORNERS, 1, axis=0))  # on the boundary: active, no multiplier

fields = {f'HS, selection="{s}"': theory.layer(s) for s in ("active", "working", "support")}
fields |= {name: impostor.field for name, impostor in theory.NON_CONSERVATIVE.items()}
table = {}
for name, field in fields.items():
    table[name] = [
        max(theory.check_chain_rule(*s, P, field).residual for s in segments),
        max(theory.check_circulation(c, P, field).residual for c in polygons),
        max(theory.check_degenerate_path(m, P, field).residual for m in middles),
    ]
worst = np.array(list(table.values()))

fig, ax = plt.subplots(figsize=(6.4, 4.6))
shade = np.clip(np.log10(worst + 1e-17), -16, 0)
ax.imshow(shade, cmap="cividis", aspect="auto", vmin=-16, vmax=0)
for (row, column), value in np.ndenumerate(worst):
    colour = "black" if shade[row, column] > -7 else "white"
    ax.text(column, row, f"{value:.0e}" if value else "0", ha="center", va="center", color=colour)
ax.set_xticks(range(3), ["segments", "closed polygons", "paths in a kink"])
ax.set_yticks(range(len(table)), table)
ax.xaxis.tick_top()
ax.axhline(2.5, color="white", lw=3)
ax.tick_params(length=0)
ax.spines[:].set_visible(False)
ax.set_title("Error of the chain rule: dark is rounding, light is a wrong field", pad=12)
plt.show()
assert (worst[:3] < 1e-12).all()
assert (worst[3:].max(axis=1) > 1e-3).all()  # each impostor is found out by at least one check

# %% [markdown]
# Three lessons of the table. The identity (*straight-through*) passes every loop: it is
# conservative, but for the identity, not for $\Pi$; only increments tell. The *oblique* fields fail
# already on ordinary segments. And the last two rows are right almost everywhere, so that **no
# random test ever notices them**: they are wrong only on a path that stays inside a kink. Look at
# one: $\gamma$ runs along a side of the pentagon, so every moment is a kink.

# %%
side = CORNERS[4] + np.linspace(0.1, 0.9, 400)[:, None] * (CORNERS[0] - CORNERS[4])
direction = (side[-1] - side[0]) / 399
truth = np.linalg.norm(hsref.project(side, P) - side[0], axis=1)

fig, ax = plt.subplots(figsize=(6, 3.6))
ax.plot(np.linspace(0, 1, 400), truth, color="black", lw=6, alpha=0.25, label="truth")
styles = {
    'HS, selection="active"': (BLUE, "-"), 'HS, selection="support"': (SKY, "--"),
    "half at kinks": (ORANGE, "-."), "zero at kinks": (RED, ":"),
}  # fmt: skip
ends = {}
for name, (colour, line) in styles.items():
    moved = np.cumsum(fields[name](side, P) @ direction, axis=0)
    ends[name] = np.linalg.norm(moved[-1])
    ax.plot(np.linspace(0, 1, 400), np.linalg.norm(moved, axis=1), color=colour, ls=line, lw=2,
            label=name)  # fmt: skip
ax.set(
    xlabel="position on the side",
    ylabel="length",
    title="On a path inside a kink",
)
ax.legend(loc="upper left")
plt.show()
assert np.isclose(ends['HS, selection="active"'], ends['HS, selection="support"'])
assert ends["zero at kinks"] == 0.0

# %% [markdown]
# Both elements, the projector onto the side and the identity, agree *on vectors along the side*.
# That is the secret of the definition: elements may differ, but not in directions in which a path
# can stay where they differ.
#
# ### Why automatic differentiation is right almost everywhere
#
# Kinks are finitely many pieces of hyperplanes. Random inputs do not meet them; constructed ones
# do, and then $V$ is an element of $HS$, which is not a matter of luck.

# %%
random = hsref.projection(rng.normal(size=(100_000, 4)), hsref.Simplex(4))
lattice = hsref.projection(rng.integers(-2, 3, size=(100_000, 4)) / 2, hsref.Simplex(4))
print("kinks among 100 000 random points: ", int(random.weakly_active.any().sum()))
print("kinks among 100 000 lattice points:", int(lattice.weakly_active.any().sum()))
assert not random.weakly_active.any().any()
assert lattice.weakly_active.any().any()

# %% [markdown]
# ### Spurious critical points
#
# The calculus has a price. $\varphi(t)=\Pi_{\ge0}(t)+\Pi_{\le0}(t)=t$ has slope 1 everywhere. At
# $t=0$ both layers sit at a kink, both default elements are 0, and the sum is 0: the product field
# is $D_\varphi(0)=\{0,1,2\}$. It is conservative, and it holds a critical point that $\varphi$ does
# not have.

# %%
positive, negative = hsref.Box(0.0, np.inf, n=1), hsref.Box(-np.inf, 0.0, n=1)


def phi(t):
    t = anp.reshape(t, (1,))
    return anp.sum(hsref.project(t, positive) + hsref.project(t, negative))


ticks = np.linspace(-1, 1, 41)
slopes = np.array([grad(phi)(float(s)) for s in ticks])
fig, ax = plt.subplots(figsize=(5.4, 3.4))
ax.plot(ticks, [phi(float(s)) for s in ticks], color="black", lw=2, label="$\\varphi(t)=t$")
away = ticks != 0
ax.plot(ticks[away], slopes[away], "o", color=BLUE, ms=4, label="automatic derivative")
ax.plot([0], slopes[~away], "D", color=RED, ms=9, label="the same, at $t=0$ exactly")
ax.set(xlabel="$t$", title="One invented critical point, at a kink of two layers")
ax.legend(loc="lower right")
plt.show()
assert slopes[~away] == 0.0
assert (slopes[away] == 1.0).all()

# %% [markdown]
# It comes from *composition*. For $\ell\circ\Pi$ with $\ell$ smooth and the input of $\Pi$ the free
# variable it cannot happen: $V_0\in\partial_B\Pi$ (notebook 2), so $V_0\nabla\ell$ is a Clarke
# subgradient. And such points are a null set: gradient descent from almost every start never meets
# them. Flat faces are the trap that is met in practice (notebook 6).

# %%
problem = theory.PROBLEMS["P3"]()  # the sum of both projections, plus t²/2: its minimum is at -1
steps = hsref.optim.sgd(hsref.optim.power_decay(0.5, k0=1.0, q=0.6))
run = theory.train(problem, np.array([[0.0], [0.3], [-0.2], [1.7]]), steps, 2000)
print("from 0, 0.3, -0.2, 1.7 to", run.theta.ravel().round(6).tolist())
assert run.theta[0] == 0.0
assert np.allclose(run.theta[1:], -1.0, atol=1e-3)

# %% [markdown]
# ## Use it
#
# The chain rule tests a whole network, at kinks and all, where finite differences have nothing to
# say: on a segment in *parameter* space the gain of the loss is the integral of
# $\langle\text{gradient},\dot\theta\rangle$. The midpoint rule errs by a constant over $N$ at most,
# one cell for each kink that it hits.

# %%
inputs, wanted = rng.normal(size=(16, 3)), rng.dirichlet(np.ones(4), 16)
network = nn.mlp([3, 8, 4], activation="relu", output=hsref.Simplex(4), start=None)
theta0, unflatten = flatten(network.init(0))
theta1 = flatten(network.init(1))[0]


def loss(theta):
    return nn.mse(network.apply(unflatten(theta), inputs), wanted)


slope = grad(loss)
counts = 2 ** np.arange(3, 10)
errors = []
for N in counts:
    middle = (np.arange(N) + 0.5) / N
    total = np.mean([slope(theta0 + s * (theta1 - theta0)) @ (theta1 - theta0) for s in middle])
    errors.append(abs(total - (loss(theta1) - loss(theta0))))

fig, ax = plt.subplots(figsize=(5.6, 3.4))
ax.loglog(counts, errors, "o-", color=BLUE, label="midpoint rule with automatic gradients")
ax.loglog(counts, 3 * errors[0] * counts[0] / counts, color=GREY, ls="--", label="slope $-1$")
ax.set(xlabel="points $N$ on the segment", ylabel="error of the gain")
ax.set_title("The gradients of a network integrate to its loss")
ax.legend()
plt.show()
assert errors[-1] < 5e-4

# %% [markdown]
# The library checks all of this on every set, constructed kinks included: statements T6 to T9 and
# T12 of `hsref verify`.

# %%
for name in ("T6", "T7", "T8", "T9"):
    print(f"{name}: {theory.STATEMENTS[name].title:32s} {theory.STATEMENTS[name].formula}")

# %% [markdown]
# ## Exercises
#
# **1.** Is the mapping $D(x)=\{\tfrac12\}$ at $x=0$, $\{\Pi'(x)\}$ elsewhere, conservative for
# $\Pi_{[0,\infty)}$ on the line? Is its closure? And the same idea in the half-plane
# $\{y_1\ge0\}$, with $\tfrac12I$ on the line $x_1=0$?
#
# <details><summary>Solution</summary>
#
# On the line every path has $\gamma'=0$ at almost every time at which $\gamma=0$, so any bounded
# values there satisfy the chain rule; but the graph is not closed. Closing it adds 0 and 1: a
# conservative mapping. In the half-plane a path may run along $x_1=0$ with $\gamma'=e_2$, and
# $\tfrac12e_2\neq e_2$: not conservative.
#
# ```python
# half = hsref.Box([0.0, -np.inf], np.inf)
# field = theory.NON_CONSERVATIVE["half at kinks"].field
# assert theory.check_degenerate_path([0.0, 1.0], half)
# assert not theory.check_degenerate_path([0.0, 1.0], half, field)
# ```
# </details>
#
# **2.** Show that $t\mapsto u_1-u_2$ with $u=\Pi_{\mathbb R^2_+}(t,-t)$ is $t$, and that the
# default derivative at $t=0$ is 0. Which other elements of $HS(0)$ give 1?
#
# <details><summary>Solution</summary>
#
# $u=(t_+,(-t)_+)$ and $t_+-(-t)_+=t$. With $V=\mathrm{diag}(s_1,s_2)$ the derivative is
# $s_1\cdot1-s_2\cdot(-1)=s_1+s_2$: 1 for $\mathrm{diag}(1,0)$ and $\mathrm{diag}(0,1)$.
#
# ```python
# C, inner, outer = hsref.Box(0.0, np.inf, n=2), np.array([1.0, -1.0]), np.array([1.0, -1.0])
# values = sorted(float(outer @ e.V @ inner) for e in theory.hs_elements([0.0, 0.0], C))
# assert values == [0.0, 1.0, 1.0, 2.0]
# ```
# </details>
#
# **3.** Why does the chain rule along the circle above prove that the oblique field is the
# derivative of *no* Lipschitz function?
#
# <details><summary>Solution</summary>
#
# If it were one for $F$ along all paths, the integral around a loop would be
# $F(\gamma(1))-F(\gamma(0))=0$ for every component. It is not. One loop is a complete disproof;
# a thousand loops that close prove nothing about the paths inside kinks.
#
# ```python
# assert not theory.check_circulation(circle[::600], P, oblique)
# assert theory.check_circulation(circle[::600], P)
# ```
# </details>
