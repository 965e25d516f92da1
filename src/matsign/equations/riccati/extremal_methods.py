"""Both extremal solutions of an algebraic Riccati equation: their first values from one iteration, derivatives and errors.

In standard form, [I; x₊] spans the stable subspace of a matrix or pencil of size 2n, and [I; x₋] the unstable one.

    continuous   Let W be the sign of h = [[a, -g], [-q, -aᴴ]] (Roberts 1980). The two are the null spaces of W + I and W - I.
    discrete     Doubling of the pencil [[a, 0], [-h, I]] - λ [[I, g], [0, aᴴ]] converges to h = x₊ and g = -x₋⁻¹: with time
                 reversed, g and h exchange their roles (Anderson 1978).

Newton's method corrects both, x₋ as the negative stabilising solution of the problem with time reversed (`time_reversal`).

Differential: that of the equation at each of the two (`equations.riccati.derivatives`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.public import Residual
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.derivatives import add_present, close, solution_jvp, solution_vjp
from matsign.equations.riccati.forms import Arguments
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.nonsymmetric_methods import graph_of_sign
from matsign.equations.riccati.problem import RiccatiProblem, with_shift
from matsign.equations.riccati.solver import in_good_units
from matsign.iterations.block_structures import Riccati
from matsign.iterations.newton import newton
from matsign.iterations.structured_doubling import Symplectic, double
from matsign.linalg.stacks import hermitian


class BothSides(NamedTuple):
    """The equations and the solvers of the stabilising and of the anti-stabilising solution, in this order.

    first_values(backend, equation, plant) : (x₊, x₋, steps), not yet corrected
    """

    equations: tuple[Equation, Equation]
    solvers: tuple[Callable[..., Solution], Callable[..., Solution]]
    first_values: Callable[..., tuple[Array, Array, Array]]


def by_one_sign(backend: Backend, equation: Equation, p: RiccatiProblem) -> tuple[Array, Array, Array]:
    """(x₊, x₋, steps) of a continuous equation."""
    problem = in_good_units(backend, equation, p, True)
    h11, h12, h21, h22 = equation.hamiltonian(backend, problem.simple)
    # -h with its rows and columns exchanged: [x; I] of its right half plane is [I; x] of the left one of h.
    sign = newton(backend, Riccati(-h22, -h21, -h12, -h11))
    first, second = (hermitian(graph_of_sign(backend, sign.value, side)[0]) for side in (1.0, -1.0))
    return problem.units.restore(backend, first), problem.units.restore(backend, second), sign.steps


def by_one_doubling(backend: Backend, equation: Equation, p: RiccatiProblem) -> tuple[Array, Array, Array]:
    """(x₊, x₋, steps) of a discrete equation."""
    problem = in_good_units(backend, equation, p, True)
    simple = problem.simple
    (_, g, h), steps = double(backend, simple.a, lambda: Symplectic(simple.a, simple.g, simple.q))
    first, second = (with_shift(backend, simple, y) for y in (h, -hermitian(backend.inv(g))))
    return problem.units.restore(backend, first), problem.units.restore(backend, second), steps


def solver_of_both(sides: BothSides) -> Callable[..., Solution]:
    def solve(backend: Backend, *arrays: Array) -> Solution:
        given = Arguments(*arrays)
        p = given.problem().hermitian_parts()
        *starts, steps = sides.first_values(backend, sides.equations[0], p)
        one, other = (
            solver(backend, p, method="auto", start=start) for solver, start in zip(sides.solvers, starts, strict=True)
        )
        failed = one.failure > 0
        both = Solution(
            one.value + other.value,
            backend.xp.where(failed, one.failure, other.failure),
            backend.astype(steps, "int32") + one.iterations + other.iterations,
            backend.xp.where(failed[..., None], one.detail, other.detail),
        )
        return given.in_own_words(backend, both)

    return solve


def residual_of_both(sides: BothSides) -> Callable[..., Residual]:
    def residual(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
        xp, p = backend.xp, Arguments(*arrays).problem()
        one, other = (error_estimate(backend, eq, x, p) for eq, x in zip(sides.equations, value, strict=True))
        assert one.boundary is not None
        return Residual(
            xp.maximum(one.backward, other.backward),
            one.correction + other.correction,
            xp.minimum(one.separation, other.separation),
            one.boundary | other.boundary,
        )

    return residual


def tangent_of_both(sides: BothSides) -> Callable[..., Arrays]:
    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        p, d = Arguments(*arrays).problem(), Arguments(*tangents).problem()
        return tuple(
            solution_jvp(backend, close(backend, eq, p, x), d) for eq, x in zip(sides.equations, value, strict=True)
        )

    return tangent


def cotangent_of_both(sides: BothSides) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        arguments = Arguments(*arrays)
        p = arguments.problem()
        each = (
            solution_vjp(backend, close(backend, eq, p, x), bar)
            for eq, x, bar in zip(sides.equations, value, cotangents, strict=True)
        )
        return arguments.cotangents(backend, add_present(*each))

    return cotangent
