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
# # 1. Projecting onto a polyhedron
#
# **Claim.** *A point $y$ of a polyhedron is the nearest one to $x$ exactly when $x-y$ is a
# non-negative combination of the rows that are active at $y$ (plus any combination of the
# equality rows). Whoever holds these coefficients, the multipliers, holds a proof.*
#
# A network whose last layer projects onto a polyhedron obeys its linear constraints exactly. Before
# we differentiate that layer (notebook 2) we look at what it computes, and at how an answer proves
# itself.

# %%
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.patches import Polygon
from PIL import Image as Picture
from scipy.optimize import minimize

import hsref
from hsref import theory

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
ROWS = (BLUE, ORANGE, GREEN, RED, PURPLE)  # one colour a row, safe for colour-blind readers
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# Our polyhedron is a pentagon $P=\{y : Ay\le a\}$. Its five rows have norm 1 and are sorted by
# angle, so corner $k$ is where rows $k$ and $k+1$ meet.

# %%
angle = np.deg2rad([15.0, 80.0, 150.0, 215.0, 295.0])
A = np.column_stack([np.cos(angle), np.sin(angle)])
a = np.array([1.1, 0.9, 1.0, 1.1, 0.9])
P = hsref.Polyhedron(A_ub=A, b_ub=a)
CORNERS = np.array([np.linalg.solve(A[[k, (k + 1) % 5]], a[[k, (k + 1) % 5]]) for k in range(5)])


def plane(ax, cells=False, reach=3.0):
    """Draw the pentagon, coloured sides, and on request the cells outside of it."""
    for k in range(5):
        before, after = CORNERS[k - 1], CORNERS[k]
        if cells:
            far = [after + reach * A[k], before + reach * A[k]]
            ax.add_patch(Polygon([before, after, *far], fc=ROWS[k], alpha=0.16, ec="none"))
            for end in (before, after):
                ax.plot(*np.transpose([end, end + reach * A[k]]), color=GREY, lw=0.7)
        ax.plot(*np.transpose([before, after]), color=ROWS[k], lw=3, solid_capstyle="round")
    ax.add_patch(Polygon(CORNERS, fc="#f2f2f2", ec="none", zorder=0))
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.3, 2.3), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


rng = np.random.default_rng(1)
x = rng.uniform(-2.2, 2.2, size=(60, 2))
p = hsref.projection(x, P)

fig, ax = plt.subplots(figsize=(6, 5))
plane(ax)
marks = (("o", GREY, "inside: 0 active rows"), ("s", SKY, "side: 1"), ("^", "black", "corner: 2"))
for many, (mark, colour, label) in enumerate(marks):
    chosen = p.active.ub.sum(axis=1) == many
    for here, there in zip(x[chosen], p.y[chosen]):
        ax.plot(*np.transpose([here, there]), color=colour, lw=0.8, alpha=0.7)
    ax.scatter(*x[chosen].T, marker=mark, color=colour, s=26, label=label, zorder=3)
ax.set_title("Every point goes to the nearest point of the pentagon")
ax.legend(loc="upper left", bbox_to_anchor=(0.98, 1.0))
plt.show()

# %% [markdown]
# Points inside stay, points beside a side slide straight onto it, and whole wedges of the plane end
# in one corner. Collecting the points by *where they land* cuts the plane into **cells**: one for
# the inside, one for each side, one for each corner. The white wedge at a corner is the corner
# itself plus its **normal cone**, the set of directions whose projection ends there.

# %% tags=["thumbnail"]
fig, ax = plt.subplots(figsize=(6, 5))
plane(ax, cells=True)
for k in range(5):
    middle = 0.5 * (CORNERS[k - 1] + CORNERS[k])
    arrow = {"arrowstyle": "-|>", "color": ROWS[k], "lw": 1.6}
    ax.annotate("", middle + 0.5 * A[k], middle, arrowprops=arrow)
    ax.text(*(middle + 0.66 * A[k]), f"$A_{k + 1}$", color=ROWS[k], ha="center", va="center")
    both = A[k] + A[(k + 1) % 5]
    cone = CORNERS[k] + 0.85 * both / np.linalg.norm(both)
    ax.text(*cone, f"{{{k + 1}, {(k + 1) % 5 + 1}}}", ha="center", va="center", fontsize=9)
ax.text(0, 0, "inside", ha="center", va="center", color=GREY)
ax.set_title("Cells of the plane: coloured strips end on a side,\nwhite wedges end in a corner")
plt.show()

# %% [markdown]
# ## State it
#
# Let $P=\{y: A y\le a,\ By=b\}$. Write $I=\{i: A_iy=a_i\}$ for the rows that are **active** at $y$.
# Then
#
# $$ y=\Pi(x)=\arg\min_{w\in P}\tfrac12\|w-x\|^2 \quad\Longleftrightarrow\quad
#    y\in P,\quad x-y=\sum_{i\in I}\lambda_iA_i^T+B^T\mu,\quad \lambda\ge 0. $$
#
# *Why the right side is a proof.* Take any other point $w$ of $P$. Since $A_iw\le a_i=A_iy$ on $I$
# and $B(w-y)=0$,
# $$ \langle x-y,\,w-y\rangle=\sum_{i\in I}\lambda_i\,A_i(w-y)\le 0,\qquad
#    \|x-w\|^2=\|x-y\|^2-2\langle x-y,w-y\rangle+\|w-y\|^2\ \ge\ \|x-y\|^2 . $$
# The point is optimal, and unique because of the last term. $\square$ (That multipliers always
# *exist* is Farkas' lemma; notebook 4 constructs them.)
#
# In a corner the statement is a parallelogram: the arrow from $y$ to $x$ is the sum of two arrows
# along the normals, and their lengths are the multipliers.

# %%
corner = CORNERS[0]
planted = np.array([0.9, 0.5])  # the multipliers we want
x0 = corner + planted @ A[[0, 1]]
p0 = hsref.projection(x0, P)
assert np.allclose(p0.y, corner) and np.allclose(p0.multipliers.ub[:2], planted)

fig, ax = plt.subplots(figsize=(5.6, 4.2))
plane(ax, cells=True)
for k in range(2):
    step = planted[k] * A[k]
    arrow = {"arrowstyle": "-|>", "color": ROWS[k], "lw": 2}
    ax.annotate("", corner + step, corner, arrowprops=arrow)
    ax.plot(*np.transpose([corner + step, x0]), color=ROWS[k], lw=1, ls=":")
    label = f"$\\lambda_{k + 1}={p0.multipliers.ub[k]:.1f}$"
    ax.annotate(label, corner + step, (8, -12) if k == 0 else (-50, 2), textcoords="offset points",
                color=ROWS[k])  # fmt: skip
ax.annotate("", x0, corner, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 2})
ax.plot(*x0, "ko")
ax.text(*(x0 + [0.06, 0.04]), "$x$")
ax.text(*(corner - [0.25, 0.12]), "$y$")
ax.set(xlim=(0.0, 2.6), ylim=(-0.2, 1.9))
ax.set_title("$x-y=\\lambda_1A_1+\\lambda_2A_2$, and both are at least 0")
plt.show()

# %% [markdown]
# The variational inequality $\langle x-y,w-y\rangle\le0$ is a picture too: seen from $y$, the whole
# set lies behind the line through $y$ perpendicular to $x-y$. A point with that property is the
# nearest one; a point without it is not, and the part of $P$ that sticks out says where to look.

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 4))
right = hsref.project(x0, P)
wrong = 0.55 * CORNERS[0] + 0.45 * CORNERS[4]
for ax, y, title in zip(axes, (right, wrong), ("nearest: all of $P$ is behind", "not nearest")):
    plane(ax)
    along = np.array([-(x0 - y)[1], (x0 - y)[0]]) / np.linalg.norm(x0 - y)
    ax.plot(*np.transpose([y - 4 * along, y + 4 * along]), color="black", lw=1, ls="--")
    ax.annotate("", x0, y, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 2})
    beyond = (CORNERS - y) @ (x0 - y) > 1e-9
    ax.plot(*CORNERS[beyond].T, "o", color=RED, ms=9, mfc="none", mew=2)
    report = theory.check_variational_inequality(x0, y, P, CORNERS)
    ax.set_title(f"{title}\ncheck says: {'holds' if report else 'fails'}")
    ax.text(*(x0 + [0.06, 0.04]), "$x$")
    ax.text(*(y - [0.3, 0.12]), "$y$")
    assert bool(report) == (not beyond.any())
plt.show()

# %% [markdown]
# ## Check it
#
# `projection` returns the whole record. Residuals are recomputed from the rows of the set, not
# taken over from the solver, and `theory.kkt_certificate` trusts neither: it recomputes everything
# from $A,a,x,y$.

# %%
x = rng.normal(size=(2000, 2)) * 2
p = hsref.projection(x, P)
lam = p.multipliers.ub

assert np.allclose(x - p.y, lam @ A, atol=1e-12)  # x - y is that combination,
assert (lam >= 0).all() and (p.y @ A.T <= a + 1e-12).all()  # of the right sign, at a point of P,
assert (lam * (a - p.y @ A.T) <= 1e-12).all()  # and only of active rows
print(f"2000 points: primal {p.residuals.primal.max():.0e}, dual {p.residuals.dual.max():.0e}")

print(theory.kkt_certificate(x0, p0.y, P))
print(theory.kkt_certificate(x0, p0.y + [0.0, -1e-6], P))
assert theory.kkt_certificate(x0, p0.y, P)
assert not theory.kkt_certificate(x0, p0.y + [0.0, -1e-6], P)  # a millionth off, and found out

# %% [markdown]
# Now drag $x$ around the pentagon, along an ellipse. On each cell the multipliers are affine in
# $x$, and they are continuous across cells: a row's line leaves zero when $x$ enters the wedge
# before its strip. Never are more than two of them positive at once: two independent rows already
# fix a point of the plane.

# %%
turn = np.linspace(0, 2 * np.pi, 721)
path = np.column_stack([2.0 * np.cos(turn), 1.8 * np.sin(turn)])
along = hsref.projection(path, P)

fig, ax = plt.subplots(figsize=(8, 3))
for k in range(5):
    ax.plot(np.rad2deg(turn), along.multipliers.ub[:, k], color=ROWS[k], lw=2, label=f"row {k + 1}")
ax.set(xlabel="angle of $x$ on its way around (degrees)", ylabel="multiplier", xlim=(0, 360))
ax.set_title("At every moment one or two rows hold the point back")
ax.legend(ncol=5, loc="upper center", bbox_to_anchor=(0.5, -0.25))
plt.show()
assert (along.multipliers.ub > 0).sum(axis=1).max() == 2


# %% [markdown]
# The same as a film (it moves in JupyterLab and in a browser; elsewhere the first picture stands
# for it). Watch the corner: $x$ keeps moving through the wedge while $y$ waits.


# %%
def frame(k):
    fig, ax = plt.subplots(figsize=(4, 3.6), dpi=66)
    plane(ax, cells=True)
    ax.plot(*path.T, color=GREY, lw=0.6, ls=":")
    y, weights = along.y[k], along.multipliers.ub[k]
    ax.annotate("", path[k], y, arrowprops={"arrowstyle": "-", "color": "black", "lw": 1.5})
    for i in np.flatnonzero(along.active.ub[k]):
        ax.plot(*np.transpose([CORNERS[i - 1], CORNERS[i]]), color=ROWS[i], lw=6)
        ax.annotate("", y + weights[i] * A[i], y,
                    arrowprops={"arrowstyle": "-|>", "color": ROWS[i], "lw": 1.5})  # fmt: skip
    ax.plot(*path[k], "ko", ms=6)
    ax.plot(*y, "ko", ms=5, mfc="white")
    ax.set_title(f"active: {', '.join(str(i + 1) for i in np.flatnonzero(along.active.ub[k]))}")
    stream = BytesIO()
    fig.savefig(stream)
    plt.close(fig)
    return Picture.open(stream).convert("RGB").quantize(32)


stream = BytesIO()
first, *rest = (frame(k) for k in range(40, 720, 28))
first.save(stream, "PNG", save_all=True, append_images=rest, duration=140, loop=0)
display(Image(stream.getvalue()))

# %% [markdown]
# ## Use it
#
# **Certify anyone's answer.** Ask a general-purpose optimiser for the same projections. The
# certificate judges each answer without knowing the right one.

# %%
some = x[:40]
theirs = np.array(
    [
        minimize(
            lambda w, target=one: 0.5 * np.sum((w - target) ** 2), np.zeros(2), method="SLSQP",
            constraints={"type": "ineq", "fun": lambda w: a - A @ w}, options={"ftol": 1e-9},
        ).x
        for one in some
    ]
)  # fmt: skip
ours = hsref.project(some, P)
residuals = np.array(
    [
        [max(theory.kkt_certificate(one, y, P).residual, 1e-17) for one, y in zip(some, answers)]
        for answers in (theirs, ours)
    ]
)

fig, ax = plt.subplots(figsize=(7, 2.6))
for row, (name, colour) in enumerate((("SLSQP, ftol 1e-9", ORANGE), ("hsref", BLUE))):
    ax.scatter(residuals[row], np.full(40, row), color=colour, s=22, alpha=0.6)
    ax.text(3e-18, row + 0.2, name, color=colour)
ax.set(xscale="log", xlim=(2e-18, 1), ylim=(-0.4, 1.6), yticks=[])
ax.set(xlabel="residual of the certificate (points at the left edge: exactly 0)")
ax.set_title("The certificate judges any solver's answers")
plt.show()
assert residuals[1].max() < 1e-14

# %% [markdown]
# **See a close call.** Exactly on the boundary between two cells a row is active with multiplier 0.
# The record says so (`weakly_active`). For all other rows `margin` says how close the call was: the
# smallest slack of a row that is not active, or the smallest positive multiplier.

# %%
on_the_line = CORNERS[0] + 0.7 * A[0]  # between strip 1 and wedge {1, 2}
close = hsref.projection(np.array([on_the_line, on_the_line + [0.0, 1e-4], [0.0, 0.0]]), P)
print("rows active without a multiplier:", close.weakly_active.ub.astype(int).tolist())
print("margin:", [f"{m:.1e}" for m in close.margin])
assert close.weakly_active.any().tolist() == [True, False, False]

# %% [markdown]
# **A set without a point.** There is then no projection, and no number that looks like one: an
# error carries the proof (notebook 4 draws it).

# %%
empty = hsref.Polyhedron(A_ub=np.vstack([A, -A[:1]]), b_ub=[*a, -3.0])
try:
    hsref.project(x0, empty)
except hsref.InfeasibleError as error:
    print(error)
    assert theory.check_farkas(empty, error.certificate)

# %% [markdown]
# ## Exercises
#
# **1.** Append to $P$ the row $A_1+A_2$, with right-hand side $a_1+a_2$. It is active at the first
# corner and cuts nothing off. Are the multipliers at $x_0$ still unique? And $y$? Find two
# different valid sets of multipliers and let `kkt_certificate` accept both.
#
# <details><summary>Solution</summary>
#
# $y$ is a point of a set that did not change, so it is the same. Multipliers are not unique: three
# normals in the plane are dependent, and moving $t$ from rows 1 and 2 to the new row changes
# nothing in the sum.
#
# ```python
# from types import SimpleNamespace
#
# more = hsref.Polyhedron(A_ub=np.vstack([A, A[0] + A[1]]), b_ub=[*a, a[0] + a[1]])
# assert np.allclose(hsref.project(x0, more), p0.y)
# for t in (0.0, 0.5):
#     ub = np.array([0.9 - t, 0.5 - t, 0, 0, 0, t])
#     proof = SimpleNamespace(ub=ub, eq=[], lower=[], upper=[])
#     assert theory.kkt_certificate(x0, p0.y, more, proof)
# ```
# </details>
#
# **2.** On the simplex $\{y\ge0,\ \sum y=1\}$ the condition reads $x-y=\mu\mathbf 1-\lambda$ with
# $\lambda\ge0$ and $\lambda_iy_i=0$. Deduce $y=\max(x-\mu,0)$ and compute $\mu$ for
# $x=(2,\ 1.5,\ -1)$. Compare with `multipliers.eq`.
#
# <details><summary>Solution</summary>
#
# Where $y_i>0$ we have $\lambda_i=0$ and $y_i=x_i-\mu$; where $y_i=0$, $x_i-\mu=-\lambda_i\le0$.
# Both are $\max(x_i-\mu,0)$. With two positive entries $3.5-2\mu=1$, so $\mu=1.25$.
#
# ```python
# q = hsref.projection([2.0, 1.5, -1.0], hsref.Simplex(3))
# assert np.allclose(q.multipliers.eq, 1.25) and np.allclose(q.y, [0.75, 0.25, 0.0])
# ```
# </details>
#
# **3.** Show that $\Pi$ is nonexpansive, $\|\Pi(x)-\Pi(x')\|\le\|x-x'\|$, from two variational
# inequalities. Which pairs of points of the plane above attain equality?
#
# <details><summary>Solution</summary>
#
# Add $\langle x-y,y'-y\rangle\le0$ and $\langle x'-y',y-y'\rangle\le0$:
# $\|y-y'\|^2\le\langle y-y',x-x'\rangle\le\|y-y'\|\,\|x-x'\|$. Equality needs $x-x'=y-y'$: both
# points move by the same vector, for instance two points inside, or two points of one strip at the
# same distance from its side.
#
# ```python
# two = CORNERS[[4, 4]] + 0.8 * A[0] + np.array([[0.1], [0.4]]) * (CORNERS[0] - CORNERS[4])
# y = hsref.project(two, P)
# assert np.isclose(np.linalg.norm(y[1] - y[0]), np.linalg.norm(two[1] - two[0]))
# ```
# </details>
