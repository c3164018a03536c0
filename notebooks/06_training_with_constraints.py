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
# # 6. Training with constraints
#
# **Claim.** *Adam with decaying steps and bounded iterates converges to critical points of the
# conservative field. A flat face of the projection is made of such points, whatever the loss. So
# the theorem does not replace a start in the interior.*

# %%
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from matplotlib.patches import Polygon

import hsref
from hsref import nn, optim, theory
from hsref.theory.problems import nearest_on_faces, p1

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# The simplest training problem: move $\theta$ until its projection onto the simplex of three
# entries is a target $t$, $\varphi(\theta)=\tfrac12\|\Pi_\Delta(\theta)-t\|^2$. Adding a constant
# to all entries of $\theta$ changes nothing, so the plane $\sum\theta=1$ shows everything. The
# loss has its minimum at $t$, and around it a landscape that is **flat in three cones**: every
# $\theta$ in such a cone projects to the same vertex, $V=0$, and no loss has a gradient there.

# %% tags=["thumbnail"]
target = np.array([0.55, 0.3, 0.15])
simplex = hsref.Simplex(3)
E = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]])  # axes of the plane


def in_space(points):
    return points @ E + 1.0 / 3.0


def in_plane(theta):
    return (theta - 1.0 / 3.0) @ E.T


problem = p1(target)
ticks = np.linspace(-2.0, 2.0, 241)
U, W = np.meshgrid(ticks, ticks)
grid = in_space(np.stack([U, W], -1).reshape(-1, 2))
record = hsref.projection(grid, simplex)
height = problem.value(grid).reshape(U.shape)
flat = (record.rank == 0).reshape(U.shape)

rng = np.random.default_rng(4)
starts = rng.uniform(-1.8, 1.8, size=(34, 2))
theta = in_space(starts)
path, step = [theta], optim.power_decay(1.0, k0=2.0, q=0.6)
for k in range(600):
    theta = theta - step(k) * problem.gradient(theta)
    path.append(theta)
path = in_plane(np.array(path))
ends = hsref.projection(theta, simplex)

fig, ax = plt.subplots(figsize=(6.6, 5.6))
ax.contourf(U, W, height, levels=20, cmap="Greys_r", alpha=0.55)
hatch = ax.contourf(U, W, flat, levels=[0.5, 1.5], colors="none", hatches=["///"])
hatch.set_edgecolor(RED)
ax.add_patch(Polygon(in_plane(np.eye(3)), fc="none", ec="black", lw=1.5))
for i, rank in enumerate(ends.rank):
    colour = (RED, ORANGE, BLUE)[rank]
    ax.plot(*path[:, i].T, color=colour, lw=1.4)
    ax.plot(*starts[i], "o", color=colour, ms=4)
ax.plot(*in_plane(target), "*", color="black", ms=15, zorder=5)
for colour, label in ((BLUE, "inside the triangle"), (ORANGE, "on a side"), (RED, "in a vertex")):
    ax.plot([], [], "o-", color=colour, label=label)
ax.plot([], [], "*", color="black", ms=12, label="target")
ax.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])
ax.spines[:].set_visible(False)
ax.legend(title="the run ends", loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")
ax.set_title("Hatched: the loss is flat. Runs that start there never move")
plt.show()
assert np.array_equal(path[0, ends.rank == 0], path[-1, ends.rank == 0])

# %% [markdown]
# Runs that start over a side (orange) slide along it to the point of that side nearest to the
# target, and stay: the gradient is always parallel to the face on which the point lies, so a
# coordinate that is zero seldom comes back. Only the blue runs find the target.
#
# ## State it
#
# Write $D_\varphi$ for the conservative field that automatic differentiation draws its gradients
# from, with elements of the HS-Jacobian at the projections (notebook 3). The form of Adam for which
# there is a theorem lets its averaging weights vanish with the step:
#
# $$ m_{k+1}=(1-\tau_1\eta_k)m_k+\tau_1\eta_kg_k,\quad
#    v_{k+1}=(1-\tau_2\eta_k)v_k+\tau_2\eta_kg_k^2,\quad
#    \theta_{k+1}=\theta_k-\eta_k\,\frac{m_{k+1}}{\sqrt{v_{k+1}+\epsilon}} . $$
#
# **Theorem** (Xiao, Hu, Liu and Toh, JMLR 2024, for conservative fields in the sense of Bolte and
# Pauwels). Let the loss be a finite sum of locally Lipschitz functions with definable conservative
# fields, $g_k$ an unbiased sample, **the iterates bounded**, $\sum\eta_k=\infty$,
# $\eta_k\log k\to0$ and $\tau_2\le4\tau_1$. Then almost surely every cluster point is critical,
# $0\in D_\varphi(\theta)$, and the loss values converge.
#
# That is all. No rate, no minimum; nothing for constant steps, for schedules with a finite sum, for
# constant $\beta_1,\beta_2$. `check_conditions` reads a run's schedule and says which hypotheses it
# meets.

# %%
known = {"bounded_iterates": True, "definable": True, "unbiased": True}
reports = {
    "decaying steps, weights that vanish with them": optim.check_conditions(
        optim.power_decay(0.1, k0=100.0, q=0.75), tau1=4.0, tau2=1.0, **known
    ),
    "Adam as usual: constant step and weights": optim.check_conditions(
        optim.constant(1e-3), beta1=0.9, beta2=0.999, **known
    ),
    "cosine steps down to zero": optim.check_conditions(
        optim.cosine(1e-2, steps=1000), tau1=4.0, tau2=1.0, **known
    ),
}
for name, report in reports.items():
    print(f"{name}: {report.verdict}")
    for row in report.broken:
        print(f"    {row.hypothesis:28s} {row.why}")
print()
print(reports["decaying steps, weights that vanish with them"].conclusion)
assert [r.verdict for r in reports.values()] == ["met", "broken", "broken"]

# %% [markdown]
# ## Check it
#
# **The limits.** For this problem the critical points are known: for each face of the triangle the
# point nearest to $t$ on its plane, if it lies inside the face. Seven faces, seven points. Run the
# Adam of the theorem from 300 starts.

# %%
stops = nearest_on_faces(target)
assert len(stops) == 7
starts = in_space(rng.uniform(-1.6, 1.6, size=(300, 2)))
adam = optim.convergent_adam(optim.power_decay(0.3, k0=30.0, q=0.7), tau1=3.0, tau2=1.0, eps=1e-4)
run = theory.train(problem, starts, adam, 3000, every=3000)
landed = hsref.project(run.theta, simplex)

fig, ax = plt.subplots(figsize=(5.6, 4.6))
ax.add_patch(Polygon(in_plane(np.eye(3)), fc="#f2f2f2", ec="black", lw=1))
ax.plot(*in_plane(stops).T, "o", color=ORANGE, ms=17, mfc="none", mew=2.5, label="critical points")
ax.plot(*in_plane(landed).T, ".", color=BLUE, ms=7, label="where 300 runs end")
nearest = np.argmin(np.linalg.norm(landed[:, None] - stops, axis=2), axis=1)
for k, stop in enumerate(stops):
    ax.annotate(f"{np.mean(nearest == k):.0%}", in_plane(stop), (12, 8), textcoords="offset points")
ax.set(xlim=(-0.95, 1.05), ylim=(-0.6, 1.0), aspect="equal", xticks=[], yticks=[])
ax.spines[:].set_visible(False)
ax.legend(loc="upper right", bbox_to_anchor=(1.2, 1.02))
ax.set_title("Every run ends at a critical point;\nthe target is one of seven")
plt.show()
print(f"largest distance from a critical point: {run.gap.max():.0e}")
assert run.gap.max() < 1e-3

# %% [markdown]
# **The energy.** The proof rests on a function that decreases along the method in the limit of
# small steps: the loss plus a kinetic term,
# $h=\varphi+\frac1{2\tau_1}\sum_im_i^2/\sqrt{v_i+\epsilon}$. The loss alone does not decrease: with
# momentum it overshoots. (At a finite step $h$ may rise too, by an amount of second order, or of
# first order in a step that crosses a kink. Here it does not.)

# %%
inside = in_space(rng.uniform(-0.25, 0.25, size=(12, 2)))
tau1, eps = 2.0, 1e-6
adam = optim.convergent_adam(optim.power_decay(0.2, k0=100.0, q=0.7), tau1=tau1, tau2=1.0, eps=eps)
run = theory.train(problem, inside, adam, 1500, every=1, energy=(tau1, eps))
bouncing = int(np.argmax((np.diff(run.values, axis=0) > 0).sum(axis=0)))

fig, ax = plt.subplots(figsize=(6, 3.4))
ax.semilogy(run.values[:, bouncing] + 1e-12, color=ORANGE, lw=1.5, label="loss")
ax.semilogy(run.energy[:, bouncing] + 1e-12, color=BLUE, lw=2, label="energy $h$")
ax.set(xlabel="step", ylim=(1e-8, 1), title="The loss bounces, the energy only falls")
ax.legend()
plt.show()
assert np.diff(run.energy, axis=0).max() <= 1e-12
assert np.diff(run.values, axis=0).max() > 0

# %% [markdown]
# **Where the theorem is silent.** Minimise $\mathbb E\,\tfrac12(\theta-a)^2$ with $a=-1$ nine times
# out of ten and $a=9$ else: the mean is 0, and so is the only critical point. With *constant*
# weights the average of $g/\sqrt v$ is not the average of $g$ over anything, and the limit is
# elsewhere (Dereich and Jentzen, 2025). The shorter the memory, the worse; with the usual
# $(0.9,0.999)$ the error is too small to be seen here, which is not the same as a theorem. All runs
# below use the same samples and the same decaying steps.


# %%
def where_it_goes(optimizer, steps=12_000, runs=100):
    draw = np.random.default_rng(1)
    begin, update = optimizer
    theta = np.ones(runs)
    state, means = begin(theta), []
    for k in range(steps):
        a = np.where(draw.random(runs) < 0.9, -1.0, 9.0)
        theta, state = update(theta, theta - a, state)
        if k % 100 == 0:
            means.append(theta.mean())
    return np.array(means)


eta = optim.power_decay(0.1, k0=10.0, q=0.55)
curves = {
    "constant (0.5, 0.5)": (where_it_goes(optim.adam(eta, 0.5, 0.5)), RED),
    "constant (0, 0.9)": (where_it_goes(optim.adam(eta, 0.0, 0.9)), ORANGE),
    "constant (0.9, 0.999)": (where_it_goes(optim.adam(eta, 0.9, 0.999)), SKY),
    "vanishing with the step": (where_it_goes(optim.convergent_adam(eta, 10.0, 1.0)), BLUE),
}
fig, ax = plt.subplots(figsize=(6.4, 3.6))
ax.axhline(0.0, color="black", lw=1, ls="--")
for name, (curve, colour) in curves.items():
    ax.plot(100 * np.arange(len(curve)), curve, color=colour, lw=2, label=name)
ax.set(xlabel="step", ylabel="$\\theta$, mean of 100 runs")
ax.set_title("Averaging weights of Adam: only the last is proved to end at 0 (dashed)")
ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="averaging weights", alignment="left")
plt.show()
assert abs(curves["vanishing with the step"][0][-1]) < 0.05
assert curves["constant (0.5, 0.5)"][0][-1] < -0.5

# %% [markdown]
# ## Use it
#
# **How many starts are dead?** In four dimensions, $t=(0.4,0.3,0.2,0.1)$, plain gradient descent
# (no noise, decaying steps; the shares depend on such choices, so they are printed):

# %%
table = theory.dead_starts(runs=100, steps=1200)
print(table.protocol)
fig, ax = plt.subplots(figsize=(6, 2.8))
rows = np.arange(3)
stuck = np.array(table.at_vertex)
found = np.array(table.reached)
ax.barh(rows, found, color=BLUE, label="reach the target")
ax.barh(rows, 1 - found - stuck, left=found, color=SKY, label="end on another face")
ax.barh(rows, stuck, left=1 - stuck, color=RED, label="end in a vertex")
ax.set_yticks(rows, [f"{s:g}" for s in table.spread])
ax.set(ylabel="spread of the start", xlabel="share of the runs", xlim=(0, 1))
ax.set_title("Near the interior point all runs succeed; far away hardly any")
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncol=3)
plt.show()
assert table.reached[2] == 1.0
assert table.reached[0] < 0.1
assert table.worst_gap < 1e-9  # and all the same every end is critical

# %% [markdown]
# **Temperature.** Layers are fed $s/\tau$. $\Pi(s/\tau)$ maximises $\langle s,y\rangle-\tfrac\tau2
# \|y\|^2$ over the set, as a softmax maximises $\langle s,y\rangle+\tau\,\text{entropy}$. As
# $\tau\to0$ both go to a vertex. The projection *arrives*, at $\tau=s_1-s_2$, and its derivative is
# then exactly 0; the softmax only comes near, and its derivative fades exponentially. Neither
# learns there; the projection says so.

# %%
s = np.array([1.0, 0.7, 0.2, -0.3])
taus = np.geomspace(0.03, 5, 200)
scaled = s / taus[:, None]
y = hsref.projection(scaled, hsref.Simplex(4))
soft = np.exp(scaled - scaled.max(axis=1, keepdims=True))
soft /= soft.sum(axis=1, keepdims=True)
norm_projection = np.linalg.norm(y.jacobian().toarray(), 2, axis=(1, 2)) / taus
softmax_jacobian = soft[:, :, None] * np.eye(4) - soft[:, :, None] * soft[:, None, :]
norm_softmax = np.linalg.norm(softmax_jacobian, 2, axis=(1, 2)) / taus

fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for i, colour in enumerate((BLUE, ORANGE, GREEN, PURPLE)):
    axes[0].semilogx(taus, y.y[:, i], color=colour, lw=2)
    axes[0].semilogx(taus, soft[:, i], color=colour, lw=1.2, ls="--")
axes[0].plot([], [], color=GREY, lw=2, label="projection")
axes[0].plot([], [], color=GREY, lw=1.2, ls="--", label="softmax")
axes[0].set(xlabel="temperature $\\tau$", title="The four entries of the output")
axes[0].legend()
axes[1].loglog(taus[norm_projection > 0], norm_projection[norm_projection > 0], color=BLUE, lw=2,
               label="projection")  # fmt: skip
axes[1].loglog(taus, norm_softmax, color=BLUE, lw=1.2, ls="--", label="softmax")
axes[1].axvline(0.3, color=RED, lw=1)
axes[1].annotate("exactly 0\nto the left", (0.29, 2e-3), ha="right", color=RED)
axes[1].set(xlabel="temperature $\\tau$", ylim=(1e-4, 20), title="Norm of the derivative in $s$")
axes[1].legend(loc="lower right")
plt.show()
assert np.array_equal(y.rank == 0, taus <= s[0] - s[1])

# %% [markdown]
# **Start inside.** `nn.mlp(..., start="interior")`, the default, sets the last bias so that outputs
# begin in the relative interior of the set, where $V$ has full rank. Without it, at temperature
# 0.1, most samples of this network start in a vertex and stay there. `nn.diagnostics` shows it
# from the first step.

# %%
inputs, wanted = rng.normal(size=(64, 8)), rng.dirichlet(np.ones(5), 64)
C = hsref.Simplex(5)
history = {}
for start in ("interior", None):
    network = nn.mlp([8, 32, 5], activation="tanh", output=C, start=start, temperature=0.1)
    params = network.init(0)

    def loss(p, network=network):
        return nn.mse(network.apply(p, inputs), wanted)

    begin, update = optim.adam(1e-2)
    state, slope, curve = begin(params), grad(loss), []
    for _ in range(200):
        dead = nn.diagnostics(network.apply(params, inputs, raw=True), C).dead_fraction
        curve.append((loss(params), dead))
        params, state = update(params, slope(params), state)
    history[start] = np.array(curve)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
for start, colour in (("interior", BLUE), (None, RED)):
    axes[0].semilogy(history[start][:, 0], color=colour, lw=2, label=f"start={start!r}")
    axes[1].plot(history[start][:, 1], color=colour, lw=2)
axes[0].set(xlabel="step", title="loss")
axes[0].legend(loc="center right")
axes[1].set(xlabel="step", ylim=(-0.05, 1), title="share of samples without any gradient")
plt.show()
assert history["interior"][0, 1] == 0.0
assert history[None][0, 1] > 0.5
assert history["interior"][-1, 0] < 0.1 * history[None][-1, 0]

# %% [markdown]
# ## Exercises
#
# **1.** For $t=(0.4,0.3,0.2,0.1)$, how many critical points (in the image) has
# $\tfrac12\|\Pi_\Delta(\theta)-t\|^2$? Give a target in the simplex of four entries with fewer.
#
# <details><summary>Solution</summary>
#
# One for each face whose own nearest point to $t$ is inside it: all $2^4-1=15$. Put the target at a
# vertex, $t=e_1$: on a face that contains $e_1$ the nearest point is $e_1$, which is inside only
# of the face $\{e_1\}$; on a face without it, the centre. That is $1+7=8$.
#
# ```python
# assert len(nearest_on_faces(np.array([0.4, 0.3, 0.2, 0.1]))) == 15
# assert len(nearest_on_faces(np.array([1.0, 0.0, 0.0, 0.0]))) == 8
# ```
# </details>
#
# **2.** Add $\tfrac12\rho\|\theta\|^2$ to the loss. Which hypothesis of the theorem does this help
# with, and what happens to the flat cones?
#
# <details><summary>Solution</summary>
#
# Bounded iterates. In a flat cone the gradient is now $\rho\theta\ne0$: the run shrinks towards 0
# and leaves the cone. The limits are critical points of the new loss, biased towards 0.
#
# ```python
# theta, start = in_space(np.array([[1.7, -1.6]])), None
# assert hsref.projection(theta, simplex).rank == 0
# for k in range(2000):
#     theta = theta - step(k) * (problem.gradient(theta) + 0.05 * theta)
# assert hsref.projection(theta, simplex).rank == 2
# ```
# </details>
#
# **3.** Is the run with `optim.adam(eta, 0.9, 0.999)` above covered? Ask `check_conditions`, and
# say what changes if the gradients are exact.
#
# <details><summary>Solution</summary>
#
# No: its weights do not vanish. The theorem does not become true for exact gradients either; the
# bias above is an effect of noise, but the absence of this counterexample is not a proof.
#
# ```python
# report = optim.check_conditions(eta, beta1=0.9, beta2=0.999, **known)
# assert {row.hypothesis for row in report.broken} == {
#     "momentum weight -> 0", "weight of g**2 in v -> 0"}
# ```
# </details>
