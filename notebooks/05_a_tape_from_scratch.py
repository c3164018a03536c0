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
# # 5. A tape from scratch
#
# **Claim.** *To differentiate through a projection, a framework needs one function, `hsref.vjp`:
# the projection, and how to pull a cotangent back through it. The rest is plumbing, and sixty lines
# of it are enough to train a network.*

# %%
import importlib.util

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from matplotlib.patches import FancyBboxPatch, Polygon

import hsref
from hsref import optim

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "legend.frameon": False})
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## See it
#
# A **cotangent** $g$ says how the loss answers to a move of $y$. Pulling it back gives $Vg$: how
# the loss answers to a move of $x$. Since $V$ projects onto the directions of the face that holds
# $y$, pulling back *removes the part of $g$ that points off the face*. Here $g$ is the same
# everywhere, the loss falls towards the lower left.

# %% tags=["thumbnail"]
angle = np.deg2rad([15.0, 80.0, 150.0, 215.0, 295.0])
A = np.column_stack([np.cos(angle), np.sin(angle)])
a = np.array([1.1, 0.9, 1.0, 1.1, 0.9])
P = hsref.Polyhedron(A_ub=A, b_ub=a)
CORNERS = np.array([np.linalg.solve(A[[k, (k + 1) % 5]], a[[k, (k + 1) % 5]]) for k in range(5)])

x = np.array([[0.2, 0.1], [1.7, 0.2], [0.1, 1.6], [-1.5, 0.9], [-1.3, -1.2], [0.9, -1.6],
              [1.7, 1.5], [-2.2, 0.1]])  # fmt: skip
g = np.broadcast_to([0.55, -0.07], x.shape).copy()
y, pull = hsref.vjp(x, P)
pulled = pull(g)

fig, ax = plt.subplots(figsize=(6.2, 4.8))
ax.add_patch(Polygon(CORNERS, fc="#f2f2f2", ec="black", lw=1.2, zorder=0))
for here, there, up, down in zip(x, y, g, pulled):
    ax.plot(*np.transpose([here, there]), color=GREY, lw=0.7, ls=":")
    ax.annotate("", there - up, there, arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 1.8})
    if np.linalg.norm(down) > 1e-9:
        ax.annotate(
            "", here - down, here, arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.8}
        )
    else:
        ax.plot(*here, "x", color=RED, ms=9, mew=2)
ax.plot(*x.T, "o", color="black", ms=4)
ax.plot(*y.T, "o", color="black", ms=5, mfc="white")
for colour, mark, label in ((ORANGE, ">-", "$-g$ at $y$"), (BLUE, ">-", "$-Vg$ at $x$"),
                            (RED, "x", "$Vg=0$: a corner")):  # fmt: skip
    ax.plot([], [], mark, color=colour, label=label)
ax.set(xlim=(-2.9, 2.3), ylim=(-2.1, 2.0), aspect="equal", xticks=[], yticks=[])
ax.spines[:].set_visible(False)
ax.legend(loc="center left", bbox_to_anchor=(0.98, 0.5))
ax.set_title("Pulling back keeps what points along the face")
plt.show()

# %% [markdown]
# ## State it
#
# Reverse mode walks the chain $\theta\to x\to y=\Pi(x)\to\ell(y)$ backwards, one **pull** at a
# time: $\bar y=\nabla\ell(y)$, $\bar x=V^T\bar y$, $\bar\theta=(\partial x/\partial\theta)^T\bar
# x$. For a projection:
#
# * $V^T=V$: the same product serves forward and reverse mode.
# * $V$ is read off the record of the forward pass. Nothing is solved again.
# * $V$ is an element of the HS-Jacobian, so what comes out is an element of a conservative field of
#   the loss (notebook 3), at kinks too.
#
# A **tape** is a list of what was computed, each entry with its parents and its pulls. Here is one,
# whole.


# %%
class Node:
    """A value on the tape: where it came from, and how to pull cotangents back to there."""

    def __init__(self, value, name="", parents=()):
        self.value, self.name = np.asarray(value, dtype=float), name
        self.parents = parents  # (node, pull) pairs
        self.gradient = None

    def __add__(self, other):
        other = other if isinstance(other, Node) else Node(other, "constant")
        return Node(self.value + other.value, "add", (
            (self, lambda g: fold(g, self.value.shape)),
            (other, lambda g: fold(g, other.value.shape)),
        ))  # fmt: skip

    def __matmul__(self, other):
        return Node(self.value @ other.value, "matmul", (
            (self, lambda g: g @ other.value.T),
            (other, lambda g: self.value.T @ g),
        ))  # fmt: skip


def fold(g, shape):
    """Sum over the axes along which an array of this shape was broadcast."""
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


def tanh(node):
    out = np.tanh(node.value)
    return Node(out, "tanh", ((node, lambda g: g * (1 - out**2)),))


def mean_square(node):
    size = node.value.size
    return Node(np.sum(node.value**2) / size, "mean square",
                ((node, lambda g: g * 2 * node.value / size),))  # fmt: skip


def project(node, C):
    y, pull = hsref.vjp(node.value, C)  # <- all of the projection there is
    return Node(y, "project", ((node, pull),))


def tape_of(output):
    """Return all nodes that `output` depends on, parents first."""
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent, _ in node.parents:
                visit(parent)
            order.append(node)

    visit(output)
    return order


def backward(output):
    """Fill in the gradients of everything that `output` depends on."""
    order = tape_of(output)
    for node in order:
        node.gradient = np.zeros_like(node.value)
    output.gradient = np.ones_like(output.value)
    for node in reversed(order):
        for parent, pull in node.parents:
            parent.gradient = parent.gradient + pull(node.gradient)


# %% [markdown]
# A network with a projection at its end, its tape drawn as it was recorded: values flow to the
# right, cotangents back to the left.

# %%
rng = np.random.default_rng(0)
inputs, wanted = rng.normal(size=(32, 3)), rng.dirichlet(np.ones(4), 32)
C = hsref.Simplex(4)


def initial(seed):
    draw = np.random.default_rng(seed)
    return {
        "W1": draw.normal(size=(3, 8)) / np.sqrt(3), "b1": np.zeros(8),
        "W2": 0.1 * draw.normal(size=(8, 4)), "b2": np.full(4, 0.25),
    }  # fmt: skip


def record_loss(params):
    """Return the loss as the end of a tape, and the parameters as its leaves."""
    leaves = {name: Node(value, name) for name, value in params.items()}
    hidden = tanh(Node(inputs, "inputs") @ leaves["W1"] + leaves["b1"])
    out = project(hidden @ leaves["W2"] + leaves["b2"], C)
    return mean_square(out + Node(-wanted, "-wanted")), leaves


loss, leaves = record_loss(initial(0))
backward(loss)
nodes = tape_of(loss)
depth = {}
for node in nodes:
    depth[id(node)] = 1 + max((depth[id(p)] for p, _ in node.parents), default=-1)
spine = [n for n in nodes if n.parents]
place = {id(node): (depth[id(node)], 0.0) for node in spine}
for node in spine:
    for other, _ in node.parents:
        if id(other) not in place:
            place[id(other)] = (depth[id(node)] - 0.5, 1.0 if other.name in leaves else -1.0)

fig, ax = plt.subplots(figsize=(12, 3.2), layout="constrained")
for node in nodes:
    at = place[id(node)]
    colour = {"project": GREEN}.get(node.name, BLUE if node.name in leaves else "#dddddd")
    ax.add_patch(FancyBboxPatch((at[0] - 0.36, at[1] - 0.2), 0.72, 0.4, fc=colour, alpha=0.35,
                                ec="none", boxstyle="round,pad=0.03"))  # fmt: skip
    shape = "×".join(map(str, node.value.shape)) or "number"
    ax.text(*at, f"{node.name}\n{shape}", ha="center", va="center", fontsize=9)
    for parent, _ in node.parents:
        start = np.array(place[id(parent)])
        end = np.array(at)
        gap = (end - start) / np.linalg.norm(end - start)
        room = np.array([0.4, 0.26])
        tip, tail = end - gap * room, start + gap * room
        wanted_here = parent.name not in ("inputs", "-wanted")
        ax.annotate("", tip, tail, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 1})
        if wanted_here:
            shift = np.array([0.0, -0.09]) if end[1] == start[1] else np.array([0.06, 0.0])
            arrow = {"arrowstyle": "->", "color": ORANGE, "lw": 1.8}
            ax.annotate("", tail + shift, tip + shift, arrowprops=arrow)
ax.set(xlim=(0, depth[id(loss)] + 0.5), ylim=(-1.4, 1.4))
ax.axis("off")
ax.set_title("The tape: values to the right (grey), cotangents to the left (orange)")
plt.show()
assert [n.name for n in spine].count("project") == 1

# %% [markdown]
# ## Check it
#
# Against autograd (HIPS), for which the library brings a primitive, so that `hsref.project` simply
# works inside `grad`; and against central differences along a random direction, at a point where
# the loss is differentiable.


# %%
def loss_autograd(params):
    hidden = anp.tanh(inputs @ params["W1"] + params["b1"])
    out = hsref.project(hidden @ params["W2"] + params["b2"], C)
    return anp.mean((out - wanted) ** 2)


params = initial(0)
reference = grad(loss_autograd)(params)
for name, leaf in leaves.items():
    assert np.allclose(leaf.gradient, reference[name], rtol=1e-12, atol=1e-15)

direction = {name: rng.normal(size=value.shape) for name, value in params.items()}
slope = sum(np.sum(leaves[name].gradient * d) for name, d in direction.items())
steps = np.geomspace(1e-9, 1e-1, 33)
errors = []
for h in steps:
    ends = [
        record_loss({k: v + s * h * direction[k] for k, v in params.items()})[0].value
        for s in (1, -1)
    ]
    errors.append(abs((ends[0] - ends[1]) / (2 * h) - slope))

fig, ax = plt.subplots(figsize=(5.6, 3.3))
ax.loglog(steps, errors, "o-", color=BLUE, ms=4)
ax.set(xlabel="step $h$ of the difference", ylabel="|difference − tape|")
ax.set_title("Differences approach the tape until rounding wins")
plt.show()
assert min(errors) < 1e-8

# %% [markdown]
# ### The same in PyTorch
#
# PyTorch's hook is `torch.autograd.Function`: a forward that keeps the pull, a backward that calls
# it. That is the home-made way, to see how little it takes. The library's own is `hsref.project` of
# a tensor; both must agree.

# %%
if importlib.util.find_spec("torch") is None:
    print("PyTorch is not installed: this cell did nothing. Install hsref[torch] to see it.")
else:
    import torch

    class Project(torch.autograd.Function):
        """y = Π(x), with the element of the HS-Jacobian as its backward."""

        @staticmethod
        def forward(ctx, x, C):
            y, ctx.pull = hsref.vjp(x.detach().numpy(), C)
            return torch.from_numpy(y)

        @staticmethod
        def backward(ctx, g):
            return torch.from_numpy(ctx.pull(g.numpy())), None

    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    hidden = torch.tanh(torch.tensor(inputs) @ tensors["W1"] + tensors["b1"])
    out = Project.apply(hidden @ tensors["W2"] + tensors["b2"], C)
    ((out - torch.tensor(wanted)) ** 2).mean().backward()
    for name, tensor in tensors.items():
        assert np.allclose(tensor.grad.numpy(), reference[name], rtol=1e-12, atol=1e-15)

    built_in = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    hidden = torch.tanh(torch.tensor(inputs) @ built_in["W1"] + built_in["b1"])
    out = hsref.project(hidden @ built_in["W2"] + built_in["b2"], C)
    ((out - torch.tensor(wanted)) ** 2).mean().backward()
    for name, tensor in built_in.items():
        assert np.allclose(tensor.grad.numpy(), reference[name], rtol=1e-12, atol=1e-15)
    print("PyTorch: the gradients of all parameters agree with the tape.")

# %% [markdown]
# ### The same in JAX
#
# JAX traces, so the solver is reached through a callback, and the hook is `jax.custom_vjp`. It then
# works under `jit` like any other function. This short version solves again in the backward pass;
# the library's own, `hsref.project` of a JAX array, is asked last.

# %%
if importlib.util.find_spec("jax") is None:
    print("JAX is not installed: this cell did nothing. Install hsref[jax] to see it.")
else:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def call(function, like, *arguments):
        return jax.pure_callback(function, jax.ShapeDtypeStruct(like.shape, like.dtype), *arguments)

    @jax.custom_vjp
    def project_jax(x):
        return call(lambda v: hsref.project(np.asarray(v), C), x, x)

    def pull_jax(x, g):
        def pull(x, g):
            return hsref.vjp(np.asarray(x), C)[1](np.asarray(g))

        return (call(pull, x, x, g),)

    project_jax.defvjp(lambda x: (project_jax(x), x), pull_jax)

    @jax.jit
    def loss_jax(params):
        hidden = jnp.tanh(inputs @ params["W1"] + params["b1"])
        return jnp.mean((project_jax(hidden @ params["W2"] + params["b2"]) - wanted) ** 2)

    found = jax.grad(loss_jax)({k: jnp.asarray(v) for k, v in params.items()})
    for name, value in found.items():
        assert np.allclose(value, reference[name], rtol=1e-10, atol=1e-13)

    @jax.jit
    def loss_built_in(params):
        hidden = jnp.tanh(inputs @ params["W1"] + params["b1"])
        return jnp.mean((hsref.project(hidden @ params["W2"] + params["b2"], C) - wanted) ** 2)

    found = jax.grad(loss_built_in)({k: jnp.asarray(v) for k, v in params.items()})
    for name, value in found.items():
        assert np.allclose(value, reference[name], rtol=1e-10, atol=1e-13)
    print("JAX: the gradients of all parameters agree with the tape.")

# %% [markdown]
# ## Use it
#
# Train on the home-made tape. The optimisers of `hsref.optim` step any container of any arrays.
# Beside it the same run with autograd: two curves, one line.


# %%
def train(gradient_and_loss, steps=150):
    params = initial(0)
    begin, update = optim.adam(2e-2)
    state, curve = begin(params), []
    for _ in range(steps):
        slopes, value = gradient_and_loss(params)
        curve.append(float(value))
        params, state = update(params, slopes, state)
    return params, np.array(curve)


def with_the_tape(params):
    loss, leaves = record_loss(params)
    backward(loss)
    return {name: leaf.gradient for name, leaf in leaves.items()}, loss.value


slope = grad(loss_autograd)
trained, ours = train(with_the_tape)
_, theirs = train(lambda p: (slope(p), loss_autograd(p)))

fig, ax = plt.subplots(figsize=(5.6, 3.3))
ax.semilogy(theirs, color=ORANGE, lw=6, alpha=0.5, label="autograd")
ax.semilogy(ours, color=BLUE, lw=1.5, label="sixty lines")
ax.set(xlabel="step of Adam", ylabel="loss", title="A home-made tape trains the same network")
ax.legend()
plt.show()
assert np.allclose(ours, theirs, rtol=1e-6)
assert ours[-1] < 0.3 * ours[0]
out = hsref.project(
    np.tanh(inputs @ trained["W1"] + trained["b1"]) @ trained["W2"] + trained["b2"], C
)
assert np.abs(out.sum(axis=1) - 1).max() < 1e-12
assert (out >= 0).all()

# %% [markdown]
# ## Exercises
#
# **1.** Give the tape a `relu`. Which value at 0 corresponds to `selection="active"`? Note that a
# ReLU *is* a projection.
#
# <details><summary>Solution</summary>
#
# $\max(x,0)=\Pi_{[0,\infty)}(x)$, and the default element at 0 is 0, as in the usual convention.
#
# ```python
# ray = hsref.Box(0.0, np.inf, n=3)
# y, pull = hsref.vjp(np.array([-1.0, 0.0, 2.0]), ray)
# assert pull(np.ones(3)).tolist() == [0.0, 0.0, 1.0]
# y, pull = hsref.vjp(np.array([-1.0, 0.0, 2.0]), ray, selection="support")
# assert pull(np.ones(3)).tolist() == [0.0, 1.0, 1.0]
# ```
# </details>
#
# **2.** Forward mode: write a function that pushes a tangent through `project`, and check that
# $\langle g,Vv\rangle=\langle Vg,v\rangle$.
#
# <details><summary>Solution</summary>
#
# $V$ is symmetric, so the push is the pull; the library has it as `hsref.jvp`.
#
# ```python
# x, v, g = rng.normal(size=(3, 6))
# y, push = hsref.jvp(x, v, hsref.Simplex(6))
# assert np.isclose(g @ push, hsref.vjp(x, hsref.Simplex(6))[1](g) @ v)
# ```
# </details>
#
# **3.** Second derivatives: what should the Hessian of $\theta\mapsto\langle c,\Pi(\theta)\rangle$
# be, and what does autograd return?
#
# <details><summary>Solution</summary>
#
# $V$ is constant near almost every point, so 0; autograd says as much, with a warning that the
# gradient does not depend on the input. For $\tfrac12\|\Pi(\theta)\|^2$ the Hessian is $V$.
#
# ```python
# from autograd import hessian
#
# theta = np.array([0.9, 0.3, 0.2, -2.0])
# H = hessian(lambda t: 0.5 * anp.sum(hsref.project(t, C) ** 2))(theta)
# assert np.allclose(H, hsref.projection(theta, C).jacobian().toarray())
# ```
# </details>
