"""The arguments of the solvers of Riccati equations, and the problem that they state.

The quadratic term is given by b and r, with a cross term s or without, or by its matrix g alone; x0 is an estimate of the
solution, on which the solution does not depend.

    dg enters as the Hermitian part of dg, dx0 not at all.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import hermitian

# The reasons of the problem with b and r, in the words of the one with g.
_REASONS = {
    Failure.NOT_STABILISABLE: Failure.NOT_STABILISABLE_BY_G,
    Failure.NOT_ANTI_STABILISABLE: Failure.NOT_ANTI_STABILISABLE_BY_G,
    Failure.NOT_STABILISING: Failure.NOT_STABILISING_WITH_G,
    Failure.NOT_ANTI_STABILISING: Failure.NOT_ANTI_STABILISING_WITH_G,
    Failure.HARDLY_STABILISABLE: Failure.HARDLY_STABILISABLE_BY_G,
    Failure.HARDLY_ANTI_STABILISABLE: Failure.HARDLY_ANTI_STABILISABLE_BY_G,
    Failure.SINGULAR_R: Failure.SINGULAR_WITH_G,
    Failure.ZERO_LOOP: Failure.ZERO_LOOP_WITH_G,
}


class Arguments(NamedTuple):
    """The arrays of a call, None for those that are not given."""

    a: Array
    b: Array | None
    q: Array
    r: Array | None
    e: Array | None
    s: Array | None
    g: Array | None = None
    x0: Array | None = None

    def problem(self) -> RiccatiProblem:
        """The problem, or for tangents its change."""
        if self.g is None:
            return RiccatiProblem(self.a, self.b, self.q, self.r, self.e, self.s)
        return RiccatiProblem(self.a, hermitian(self.g), self.q, None, self.e, None)

    def cotangents(self, backend: Backend, bar: RiccatiProblem) -> Arrays:
        """The adjoint of `problem` for tangents."""
        x0 = () if self.x0 is None else (backend.xp.zeros_like(self.x0),)
        if self.g is None:
            return (*bar, None, *x0)
        return (bar.a, None, bar.q, None, bar.e, None, hermitian(bar.b), *x0)

    def in_own_words(self, backend: Backend, result: Solution) -> Solution:
        """The result with its failures in the words of these arguments."""
        if self.g is None or (not backend.is_traced(result.failure) and not backend.any_true(result.failure)):
            return result
        failure = result.failure
        for reason, own in _REASONS.items():
            failure = own.where(backend, failure == int(reason), failure)
        return result._replace(failure=failure)


def check_forms(given: frozenset[str]) -> str | None:
    """What is wrong with the arrays that are given, if anything."""
    if "g" not in given:
        missing = [name for name in "br" if name not in given]
        return f"{' and '.join(missing)} must be given, or g in place of b and r" if missing else None
    extra = [name for name in "brs" if name in given]
    if not extra:
        return None
    reason = "the cross term s needs b and r" if extra == ["s"] else "g takes the place of b and r"
    return f"g is given together with {' and '.join(extra)}; {reason}: leave one of the two out"
