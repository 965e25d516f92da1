"""Whether an iterate of a Riccati equation is the stabilising solution or a limit of such solutions, or why there is none."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.direct import qz
from matsign.equations.riccati.decimal_fallback import (
    affordable,
    outside_cone,
    positive,
    replace_by_decimals,
    solve_in_decimals,
)
from matsign.equations.riccati.newton_kleinman import Candidate, Equation, polish
from matsign.equations.riccati.problem import RiccatiProblem, unpack
from matsign.linalg.stacks import all_false, broadcast_scalar, safe_divisor

# r counts as positive definite if its least eigenvalue exceeds this many roundings of its norm.
_REGULAR_ROUNDINGS = 16


class Verdict(NamedTuple):
    """x with its failure (0 for a solution), the number of steps, and whether x comes from decimal arithmetic (`known`)."""

    x: Array
    failure: Array
    steps: Array
    known: Array


def classify(backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate) -> Verdict:
    """A stable solution passes unchanged. For other members, x is the limit of stable solutions, or there is a reason why not."""
    if backend.is_traced(c.x):
        return _classify_in_program(backend, p, c)
    if (p.s is not None or equation.discrete) and affordable(backend, c.x):
        # If r (or r + bᴴ x b) is singular to working precision, the term of the equation with its inverse is inaccurate, too.
        c = c._replace(sure=c.sure & ~is_singular(backend, equation, p, c.x))
    suspicious = c.stable & (~c.sure | outside_cone(backend, p, c.x))
    verify = functools.partial(_verify_in_decimals, backend, equation)
    c, wrong, known = backend.masked_cond(suspicious, verify, _accept, p, c)
    limit_or_reason = functools.partial(_limit_or_reason, backend, equation)
    keep = functools.partial(_keep_solution, backend)
    return Verdict(*backend.masked_cond(~_is_usable(backend, c) | wrong, limit_or_reason, keep, p, c, wrong, known))


def _is_usable(backend: Backend, c: Candidate) -> Array:
    # If the Newton step is as large as x, a small residual proves nothing: parts of x differ too much in size for one norm.
    return c.stable & (c.residual < backend.eps(c.x) ** 0.5) & (c.move < 1)


def _classify_in_program(backend: Backend, p: RiccatiProblem, c: Candidate) -> Verdict:
    """In a compiled program a candidate is a solution or not, without a reason."""
    usable = _is_usable(backend, c) & ~outside_cone(backend, p, c.x)
    failure = backend.xp.where(usable, int(Failure.NONE), int(Failure.NOT_CONVERGED))
    return Verdict(c.x, backend.xp.astype(failure, backend.xp.int32), c.steps, all_false(backend, c.x))


def _accept(p: RiccatiProblem, c: Candidate) -> tuple[Candidate, Array, Array]:
    no_member = c.stable & ~c.stable
    return c, no_member, no_member


def _keep_solution(backend: Backend, p: RiccatiProblem, c: Candidate, wrong: Array, known: Array) -> Verdict:
    return Verdict(c.x, backend.int_zeros(c.x), c.steps, known)


def _verify_in_decimals(
    backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate
) -> tuple[Candidate, Array, Array]:
    """For candidates that look stable but are not proven or not positive semidefinite: (candidate, wrong, known)."""
    unproven, was_sure = outside_cone(backend, p, c.x), c.sure
    if affordable(backend, c.x):
        closed = equation.gap(backend, p, c.x).closed
        reason = diagnose(backend, equation, p, closed, all_false(backend, closed))
        may_be_solvable = _may_have_a_solution(reason)
        replace = functools.partial(replace_by_decimals, backend, equation)
        c = backend.masked_cond(may_be_solvable, replace, lambda p, c: c, p, c)
        # If a reason against a solution was found, a candidate with a Newton step above eps^(1/4) is not accepted.
        excluded = ~may_be_solvable & (reason != int(Failure.NONE)) & ~(c.move < backend.eps(c.x) ** 0.25)
        unproven, was_sure = unproven | may_be_solvable | excluded, was_sure & ~may_be_solvable
    return c, unproven & ~c.sure, c.sure & ~was_sure


def _limit_or_reason(
    backend: Backend, equation: Equation, p: RiccatiProblem, c: Candidate, wrong: Array, known: Array
) -> Verdict:
    limit = polish(backend, equation, p, c.x, c.steps)
    near = (limit.residual < _limit_tolerance(backend, c.x)) & _holds_in_every_state(backend, equation, p, limit.x)
    failure = diagnose(backend, equation, p, equation.gap(backend, p, limit.x).closed, near & ~wrong)
    verdict = Verdict(limit.x, failure, limit.steps, known)
    if not affordable(backend, c.x):
        return verdict
    retry = functools.partial(_retry_in_decimals, backend, equation)
    return Verdict(*backend.masked_cond(_may_have_a_solution(failure), retry, lambda p, verdict: verdict, p, verdict))


def _limit_tolerance(backend: Backend, x: Array) -> float:
    # A limit of stable solutions, with half of the digits, has a residual near eps. Where eigenvalues of the pencil lie on the
    # boundary and there is no limit, iterates come as near as the distance of these eigenvalues squared.
    return float(backend.eps(x) ** 0.75)


def _retry_in_decimals(backend: Backend, equation: Equation, p: RiccatiProblem, verdict: Verdict) -> Verdict:
    xp, (x, failure, steps, known) = backend.xp, verdict
    decimals = solve_in_decimals(backend, equation, p)
    at = equation.exact_gap(backend, p, decimals.x)
    # A stabilising solution needs no residual test: rounded, it may have a large residual.
    near = decimals.stable | (backend.norm(at.gap) < _limit_tolerance(backend, x) * at.terms)
    near = decimals.found & near
    reason = diagnose(backend, equation, p, decimals.closed, near)
    reason = xp.where(near & decimals.stable, backend.int_zeros(x), reason)
    return Verdict(
        xp.where(broadcast_scalar(near), decimals.x, x), xp.where(near, reason, failure), steps + 1, known | near
    )


def _may_have_a_solution(failure: Array) -> Array:
    """Whether the failure is one that decimal arithmetic may remove."""
    result = failure != failure
    for reason in (Failure.NONE, Failure.NOT_CONVERGED, Failure.NOT_DETECTABLE, Failure.NOT_STABILISING):
        result = result | (failure == int(reason))
    return result


def diagnose(backend: Backend, equation: Equation, p: RiccatiProblem, closed: Array, near: Array) -> Array:
    """Why there is no stabilising solution, as a `Failure`; 0 where a solution (`near`) is stabilising or a limit of those."""
    result: Array = backend.host_callback(
        functools.partial(_host_diagnose, equation.discrete, p.layout()),
        backend.int_zeros(p.a),
        *p.present(),
        zero_nonfinite_entries(backend, closed),
        near,
    )
    return result


def _host_diagnose(discrete: bool, layout: tuple[bool, ...], *arrays: Any) -> Any:
    return qz.diagnose(discrete, *unpack(layout, arrays))


def _holds_in_every_state(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether each diagonal entry of the residual is small relative to its own terms, a ratio that no scaling of states changes.

    In a norm of the whole residual, errors in the equations of slow modes would be hidden by the terms of fast ones.
    """
    xp, at = backend.xp, equation.gap(backend, p, x)
    a, b, size = (xp.abs(m) for m in (p.a, p.b, x))
    e, s = (None if m is None else xp.abs(m) for m in (p.e, p.s))
    xe = size if e is None else size @ e
    xa_or_xe = size @ a if equation.discrete else xe
    inner = b.mT @ xa_or_xe if s is None else b.mT @ xa_or_xe + s.mT
    linear_terms = (xe if e is None else e.mT @ xe) + a.mT @ xa_or_xe if equation.discrete else 2 * (a.mT @ xa_or_xe)
    terms = linear_terms + xp.abs(p.q) + xp.abs(at.gain).mT @ inner
    left, terms = (xp.linalg.diagonal(m) for m in (xp.abs(at.gap), terms))
    return (left <= backend.eps(x) ** 0.5 * terms).all(-1)


def zero_nonfinite_entries(backend: Backend, x: Array) -> Array:
    """Replace non-finite entries by 0 before calling LAPACK."""
    return backend.xp.where(backend.xp.isfinite(x), x, backend.xp.zeros_like(x))


def is_singular(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """Whether r (r + bᴴ x b, I + x g), its rows scaled, is singular to within rounding: then no digit of the gain is reliable."""
    weight = p.weight(backend, x, discrete=equation.discrete)
    if weight is None:
        return all_false(backend, x)
    longest = backend.xp.max(backend.xp.abs(weight), axis=-1)
    weight = weight / safe_divisor(backend, longest)[..., :, None]
    return ~(backend.norm(weight) * backend.norm(backend.inv(weight)) * (4 * weight.shape[-1] * backend.eps(x)) < 1)


def weight_is_singular(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Array:
    """`is_singular`, but not where r ≻ 0 (or g ⪰ 0) and x ⪰ 0: r + bᴴ x b is then only ill-conditioned by the size of x, and
    decimal arithmetic gives the gain.
    """
    singular = is_singular(backend, equation, p, x)
    if not (equation.discrete and affordable(backend, x, 2)):
        return singular
    check = functools.partial(_singular_because_of_r, backend)
    result: Array = backend.masked_cond(singular, check, lambda p, x, singular: singular, p, x, singular)
    return result


def _singular_because_of_r(backend: Backend, p: RiccatiProblem, x: Array, singular: Array) -> Array:
    regular = positive(backend, p.b, 1) if p.r is None else positive(backend, p.r, -_REGULAR_ROUNDINGS)
    return singular & ~(positive(backend, x, 1) & regular)
