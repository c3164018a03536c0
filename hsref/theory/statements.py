r"""The statements: what is claimed, why it is true, what residual counts as round-off.

Notation: P = {y : Ay ≤ a, By = b} (bounds are rows of A), z = Π(x), r = x - z, I = I(x) the active
rows, M_K = [A_K; B], V_K = I - M_K⁺M_K, V₀ = V_{I(x)}. Residuals are relative to
s = 1 + max|x| + max|right-hand sides|, rows having unit norm, unless they concern matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import Outcome, beyond, data, elements, paths, projection
from .fields import NON_CONSERVATIVE
from .problems import PROBLEMS, SENTENCES


@dataclass(frozen=True)
class Statement:
    """One statement and its check.

    Attributes
    ----------
    id : str
        Its name in reports: T1 to T14 on every set; X1, N1, C1, P1 to P5, L1 on their own.
    title, formula : str
        The claim in words and symbols.
    proof : str
        A proof, or where it stands.
    tolerance : str
        The tolerances of its parts, as reported.
    check : callable or None
        ``(cases, rng) -> Outcome`` for statements about sets, ``(kind, rng) -> Outcome`` for the
        others; None while the statement is pending.
    kinds : tuple of str
        The kinds of a statement that is not about sets.
    pending : str
        Why there is no check yet.
    """

    id: str
    title: str
    formula: str
    proof: str
    tolerance: str
    check: Callable[[Any, np.random.Generator], Outcome] | None
    kinds: tuple[str, ...] = ()
    pending: str = ""


_ALL = (
    Statement(
        "T1",
        "optimality conditions",
        "z ∈ P, r = Aᵀλ + Bᵀμ, λ ≥ 0, λᵢ(Aᵢz - aᵢ) = 0",
        "r ∈ N_P(z) is the first-order condition of the strictly convex problem min ½‖y - x‖² over "
        "P, sufficient by the expansion in hsref.theory.certificates.kkt_certificate. Checked with "
        "the record's multipliers, and without them by the distance of r from the cone of the "
        "active rows.",
        "1e-10 s",
        projection.kkt,
    ),
    Statement(
        "T2",
        "it is the projection",
        "⟨x - z, w - z⟩ ≤ 0 ∀w ∈ P; ‖Π(x) - Π(x′)‖ ≤ ‖x - x′‖; Π∘Π = Π",
        "x := z + A_Iᵀλ + Bᵀμ with λ ≥ 0 projects onto z because r ∈ N_P(z); adding the "
        "variational inequalities of x and x′ gives ‖z - z′‖² ≤ ⟨z - z′, x - x′⟩. Planted "
        "answers, a brute-force projection, the inequality over corners, nonexpansiveness, "
        "idempotence.",
        "1e-9 s",
        projection.nearest,
    ),
    Statement(
        "T3",
        "algebra of V",
        "V = Vᵀ = V², BV = 0, tr V = n - rank M_K, ⟨u, Vw⟩ = ⟨Vu, w⟩",
        "M⁺M is the orthogonal projector onto the row space of M, so V_K is the one onto ker M_K, "
        "which lies in ker B; a projector's trace is its rank.",
        "1e-12",
        elements.algebra,
    ),
    Statement(
        "T4",
        "membership",
        "V ∈ HS(x) ⇔ V = V_K, r ∈ cone(A_K) + range Bᵀ; V₀ ≼ V ∀V ∈ HS(x); ∂_BΠ(x) ⊆ HS(x)",
        "Cone form and K*: hsref.theory.hs_set. V₀ is least: K ⊆ I gives ker M_I ⊆ ker M_K, and "
        "projectors are ordered as their ranges, V₀V_K = V₀. Inclusion, and equality when the "
        "active rows are independent: hsref.theory.bsub.",
        "1e-8",
        elements.membership,
    ),
    Statement(
        "T5",
        "V₀ is a limit of Jacobians",
        "V₀(x) = ∇Π(x + ½ΣᵢA_Iᵀ); V₀(x) = ∇Π(x) where Π is differentiable",
        "Adding ½ΣA_Iᵀ to x raises all multipliers, so r moves into the relative interior of "
        "N_P(z) and x into the interior of the cell F + N_F, F the smallest face containing z; "
        "there Π is affine with linear part Proj_{par F} = V₀. The same holds for any multiple ε "
        "> 0 of the sum, hence V₀ ∈ ∂_BΠ(x), and ∂_BΠ(x) = {∇Π(x)} where Π is differentiable.",
        "1e-7 (central differences)",
        elements.limits,
    ),
    Statement(
        "T6",
        "local exactness",
        "Π(x′) - Π(x) = V(x′ - x) ∀V ∈ HS(x′), x′ near x",
        "hsref.theory.exactness: K ∈ 𝒦(x) ∩ 𝒦(x′) puts both points into C_K, where Π is affine "
        "with linear part V_K; near x, 𝒦(x′) ⊆ 𝒦(x). The radius used is the proved one, points "
        "whose radius is below 1e-6 s are left out.",
        "1e-12 s",
        elements.exact,
    ),
    Statement(
        "T7",
        "outer semicontinuity",
        "𝒦(x′) ⊆ 𝒦(x), hence HS(x′) ⊆ HS(x), x′ near x",
        "hsref.theory.exactness: the finitely many closed C_K that miss x keep away from it.",
        "1e-8",
        elements.semicontinuous,
    ),
    Statement(
        "T8",
        "chain rule on segments and loops",
        "∫V(γ)γ′ dt = Π(γ(1)) - Π(γ(0)); ∮V(γ)γ′ dt = 0",
        "hsref.theory.conservativity; the breakpoints of a segment are computed in closed form, so "
        "that the integral is a finite sum.",
        "1e-9 s",
        paths.segments,
    ),
    Statement(
        "T9",
        "chain rule inside kinks",
        "(Π∘γ)′ = Vγ′ ∀V ∈ HS(γ(t)), γ(t) = z + tu + A_Sᵀ(λ + tδ) + Bᵀ(μ + tν), u ∈ par F",
        "The same proof; directly: an admissible K at almost every t carries A_Sᵀδ in its span, so "
        "V_K kills it, and V_K u = u because par F ⊆ ker M_K. Fields that are right only almost "
        "everywhere fail here.",
        "1e-12 s",
        paths.kinks,
    ),
    Statement(
        "T10",
        "the description does not matter",
        "y and V₀ are unchanged by duplicated, implied, scaled and reordered rows",
        "Π depends on the set P alone, and V₀ = Proj_{par F} with F the smallest face containing "
        "z.",
        "1e-10",
        projection.invariance,
    ),
    Statement(
        "T11",
        "directional derivative",
        "Π′(x; d) = Π_{T ∩ r^⊥}(d), T = {d : A_I d ≤ 0, Bd = 0}",
        "hsref.theory.exactness.directional_derivative. V₀d may differ from it at kinks; the "
        "report counts where.",
        "1e-8",
        elements.directional,
    ),
    Statement(
        "T12",
        "chain rule through a network",
        "φ(γ(1)) - φ(γ(0)) = ∫⟨automatic gradient, γ′⟩ dt, φ = ℓ∘Π∘h₂∘Π∘h₁",
        "Path derivatives multiply: if V is right for a.e. t along h₁∘γ, then (Π∘h₁∘γ)′ = V(h₁∘γ)′ "
        "a.e., and so on through the chain; φ∘γ is absolutely continuous. Paths through kinks, "
        "every second one inside a kink, one path for four points; gradients at generic points "
        "against differences.",
        "1e-6",
        paths.networks,
    ),
    Statement(
        "T13",
        "derivatives in the data",
        "dy = V dx + M⁺(dc - dM y) - V dMᵀν",
        "Differentiate M y = c and x - y = Mᵀν for a fixed independent admissible K. With M fixed, "
        "the (x, c) that K serves form a closed polyhedron on which y = V_K x + M_K⁺c, and the "
        "finitely many of them cover the domain: the argument of T6 and T7 holds in (x, c) too, so "
        "one-sided differences are exact at kinks as well. Matrices only where the active rows are "
        "independent; elsewhere they must be refused.",
        "1e-6",
        data.derivatives,
    ),
    Statement(
        "T14",
        "structured against dense",
        "the set's own V and y = V_I and y from its explicit rows",
        "V depends on the row space of M_I only; each closed form is that projector worked out.",
        "1e-10",
        projection.structured,
    ),
    Statement(
        "X1",
        "counterexamples",
        "∂_BΠ ≠ HS (two ways); M⁺ ∉ ∂_B in the right-hand side; AD finds a spurious zero",
        "hsref.theory.counterexamples, each in its docstring.",
        "exact",
        beyond.counterexample,
        beyond.COUNTEREXAMPLES,
    ),
    Statement(
        "N1",
        "fields that are not conservative are caught",
        "∫F(γ)γ′ dt ≠ Π(γ(1)) - Π(γ(0)) for some path γ",
        "hsref.theory.fields says where each is wrong. Passes when the error found exceeds 1e-2, "
        "while the layer passes the same check.",
        "error above 1e-2",
        beyond.impostor,
        tuple(NON_CONSERVATIVE),
    ),
    Statement(
        "C1",
        "least element of a hull",
        "‖w‖² ≤ ⟨w, g⟩ for every element g of the hull's vectors",
        "That is the variational inequality of the projection of 0 onto the hull.",
        "1e-10",
        beyond.hull,
        ("integer vectors",),
    ),
    *(
        Statement(
            name,
            f"Adam on {SENTENCES[name]}",
            "limits are critical for the conservative field",
            "hsref.theory.problems gives the critical set; convergence is the theorem of Xiao, Hu, "
            "Liu and Toh (2024) for steps that satisfy hsref.optim.check_conditions. The ordinary "
            "constants (0.9, 0.999) run beside it and are not covered by the theorem.",
            "0.02 (0.15 with noise)",
            beyond.P_CHECKS[name],
            beyond.ALGORITHMS,
        )
        for name in PROBLEMS
    ),
    Statement(
        "D1",
        "flat faces",
        "P1 from starts σ·N(0, I): every limit is critical, many are vertices",
        "Where Π(θ) is a vertex V₀ = 0 and every loss is critical; elsewhere the gradient lies in "
        "par F, so a run seldom leaves the face it started on. hsref.theory.problems.dead_starts "
        "states the steps, on which the shares depend.",
        "1e-6",
        beyond.dead_start,
        ("0.05", "0.15", "0.3", "0.6", "1.5", "3"),
    ),
    Statement(
        "L1",
        "Lyapunov function",
        "h = φ + Σm²/(2τ₁√(v+ε)) does not rise, τ₂ ≤ 4τ₁",
        "hsref.optim.lyapunov. In discrete time h may rise by the order of the squared step, and "
        "by the order of the step in the one step that crosses a kink.",
        "rise ≤ 2 × step, total ≤ 0",
        beyond.energy,
        beyond.ENERGIES,
    ),
)

STATEMENTS: dict[str, Statement] = {s.id: s for s in _ALL}
"""Every statement by its id."""


def describe(name: str) -> str:
    """Return a statement with its proof as text.

    Examples
    --------
    >>> print(describe("T7"))
    T7  outer semicontinuity
        𝒦(x′) ⊆ 𝒦(x), hence HS(x′) ⊆ HS(x), x′ near x
        Proof. hsref.theory.exactness: the finitely many closed C_K that miss x keep away from it.
        Tolerance: 1e-8.
    """
    if name not in STATEMENTS:
        raise ValueError(f"there is no statement {name!r}; there are {', '.join(STATEMENTS)}.")
    s = STATEMENTS[name]
    tail = f"Pending: {s.pending}." if s.pending else f"Tolerance: {s.tolerance}."
    return f"{s.id}  {s.title}\n    {s.formula}\n    Proof. {s.proof}\n    {tail}"


__all__ = ["STATEMENTS", "Statement", "describe"]
