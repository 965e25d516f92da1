"""How Fermi-Dirac occupations are computed: by eigenvectors, or by products (`fermi_doubling`).

f(x) = 1/(1 + eˣ) at x = (ε - μ)/kT for the energies ε, the eigenvalues of K. For a number of electrons, μ solves Σ f = electrons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, overflow_failure, solution
from matsign.functions.projectors.projector_methods import Pencil, mark_overlap, orthonormal_basis, orthonormalise
from matsign.iterations.fermi_doubling import occupation_by_products
from matsign.linalg.conditioning import spectral_norm_bound
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    far_exponent,
    hermitian,
    safe_divisor,
    scale_to_unit,
    trace,
)

METHODS = ("auto", "eigh", "polynomial")

# exp overflows or is zero for larger arguments.
_LARGE = 4096.0
# For a kT of less than this many roundings of K, the errors of doubling grow as large as the occupations.
_COLD = 1024.0
# Bisections, which end earlier at rounding, and Newton steps with products.
_BISECTIONS, _STEPS = 200, 100


def check_filling(*, kT: Any = None, mu: Any = None, electrons: Any = None, **_: Any) -> None:
    """Raise for options that do not fit together."""
    if mu is not None and electrons is not None:
        raise ValueError("fermi_occupation: give either mu or electrons, got both")
    if isinstance(kT, float) and not 0 < kT < float("inf"):
        raise ValueError(
            f"fermi_occupation: kT must be positive and finite, got {kT:g}; spectral_projector is the limit kT = 0"
        )


class Filling(NamedTuple):
    """kT, and μ (0 by default) or the number of electrons, the other one being None; one number for each member."""

    kt: Array
    mu: Array | None
    electrons: Array | None

    @classmethod
    def of(cls, backend: Backend, like: Array, kt: Any, mu: Any, electrons: Any) -> Filling:
        one = backend.ones(like)
        mu = 0.0 if mu is None and electrons is None else mu
        return cls(kt * one, *(None if x is None else x * one for x in (mu, electrons)))


def solve_fermi(
    backend: Backend,
    h: Array,
    overlap: Array | None,
    *,
    method: str,
    kT: Any,
    mu: Any = None,
    electrons: Any = None,
) -> Solution:
    filling, wrong = _valid(backend, h, Filling.of(backend, h, kT, mu, electrons))
    h = hermitian(h)
    if overlap is None:
        result = _occupy(backend, h, filling, method, backend.int_zeros(h))
    else:
        pencil = Pencil.of(backend, h, hermitian(overlap), None)
        t, indefinite = orthonormal_basis(backend, pencil.overlap)
        result = _occupy(backend, orthonormalise(backend, t, pencil.m), filling, method, pencil.k)
        density = pencil.outward(backend, hermitian(adjoint(t) @ result.value[0] @ t))
        result = result._replace(
            value=(density, *result.value[1:]), failure=overflow_failure(backend, density, result.failure)
        )
        result = mark_overlap(backend, result, pencil.overlap, indefinite)
    return _mark(backend, result, wrong, kT, 0.0 if mu is None else mu, electrons)


def _valid(backend: Backend, h: Array, filling: Filling) -> tuple[Filling, dict[str, Array]]:
    """The filling with harmless numbers for members where one is out of range, and the masks of these."""
    xp, n = backend.xp, h.shape[-1]
    wrong = {"kT": ~((filling.kt > 0) & xp.isfinite(filling.kt))}
    kt, mu, electrons = filling
    kt = xp.where(wrong["kT"], xp.ones_like(kt), kt)
    if mu is not None:
        wrong["mu"] = ~xp.isfinite(mu)
        mu = xp.where(wrong["mu"], xp.zeros_like(mu), mu)
    if electrons is not None:
        wrong["electrons"] = ~((electrons > 0) & (electrons < n))
        electrons = xp.where(wrong["electrons"], n / 2 + xp.zeros_like(electrons), electrons)
    return Filling(kt, mu, electrons), wrong


_FAILURES = {"kT": Failure.TEMPERATURE, "mu": Failure.POTENTIAL, "electrons": Failure.ELECTRONS}


def _mark(backend: Backend, result: Solution, wrong: dict[str, Array], *given: Any) -> Solution:
    numbers = dict(zip(_FAILURES, given, strict=True))
    for name, mask in wrong.items():
        number = as_details(backend, result.value[0], numbers[name] * backend.ones(result.value[0]))
        result = result._replace(
            failure=_FAILURES[name].where(backend, mask, result.failure),
            detail=backend.xp.where(mask[:, None], number, result.detail),
        )
    return result


def _occupy(backend: Backend, k: Array, filling: Filling, method: str, e: Array) -> Solution:
    """f((2^e K - μ)/kT), μ and the entropy, in an orthonormal basis."""
    k, e, filling = _in_units(backend, k, e, filling)
    if uses_eigenvectors(backend, k, method):
        result = occupy_by_eigenvectors(backend, k, filling)
    else:
        cold = filling.kt < _COLD * backend.eps(k)
        result = backend.rare_cond(cold, *_ways(backend, filling), k, *(x for x in filling if x is not None))
    density, mu, entropy = result.value
    return result._replace(value=(density, backend.ldexp(mu, e), entropy))


def _in_units(backend: Backend, k: Array, e: Array, filling: Filling) -> tuple[Array, Array, Filling]:
    """K, kT and μ in units in which the largest of them is near 1, and the exponent of these units."""
    xp = backend.xp
    k, size = scale_to_unit(backend, k)
    units = xp.maximum(size + e, backend.exponent(filling.kt))
    if filling.mu is not None:
        units = xp.maximum(units, backend.exponent(xp.abs(filling.mu)))
    least = 2.0 ** -far_exponent(backend, k)
    kt = xp.maximum(backend.ldexp(filling.kt, -units), least + 0 * filling.kt)
    mu = None if filling.mu is None else backend.ldexp(filling.mu, -units)
    return backend.ldexp(k, broadcast_scalar(size + e - units)), units, Filling(kt, mu, filling.electrons)


def _ways(backend: Backend, filling: Filling) -> list[Callable[..., Solution]]:
    """Both ways as functions of K and of the numbers that are given."""

    def way(occupy: Callable[..., Solution]) -> Callable[..., Solution]:
        def of_numbers(k: Array, kt: Array, number: Array) -> Solution:
            both = (None, number) if filling.mu is None else (number, None)
            return occupy(backend, k, Filling(kt, *both))

        return of_numbers

    return [way(occupy_by_eigenvectors), way(_by_products)]


def uses_eigenvectors(backend: Backend, k: Array, method: str) -> bool:
    return method == "eigh" or (method == "auto" and backend.fast_eigh(k))


def fermi(backend: Backend, x: Array) -> Array:
    return 1 / (1 + backend.xp.exp(clip(backend, x)))


def clip(backend: Backend, x: Array) -> Array:
    """x without numbers so large that f and 1 - f are zero in every dtype."""
    xp = backend.xp
    return xp.minimum(xp.maximum(x, -_LARGE + 0 * x), _LARGE + 0 * x)


def log_fermi(backend: Backend, x: Array) -> Array:
    """log f(x), which does not underflow."""
    xp = backend.xp
    return -(xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x))))


def occupy_by_eigenvectors(backend: Backend, k: Array, filling: Filling) -> Solution:
    values, vectors = backend.eigh(k)
    mu = filling.mu
    if mu is None:
        mu = _chemical_potential(backend, values, filling.kt, filling.electrons)
    x = clip(backend, (values - mu[:, None]) / filling.kt[:, None])
    density = hermitian((vectors * fermi(backend, x)[:, None, :]) @ adjoint(vectors))
    size = backend.xp.abs(x)
    entropy = backend.xp.sum(backend.xp.log1p(backend.xp.exp(-size)) + size * fermi(backend, size), axis=-1)
    return solution(backend, (density, mu, entropy))


def _surplus(backend: Backend, x: Array, electrons: Array) -> Array:
    """A number with the sign of Σ f(x) - electrons for ascending x.

    Around a whole number k of electrons it compares the electrons above the lowest k states with the holes below, by logarithms:
    in a gap both are tiny.
    """
    xp = backend.xp
    whole = xp.round(electrons)
    place = xp.cumulative_sum(xp.ones_like(x), axis=-1)
    below = place <= whole[:, None]
    electron, hole = (_log_sum(backend, log_fermi(backend, s * x), mask) for s, mask in ((1, ~below), (-1, below)))
    f = xp.exp(log_fermi(backend, xp.where(below, -x, x)))
    total = xp.sum(xp.where(below, -f, f), axis=-1) - (electrons - whole)
    compared = xp.where(electron > hole, 1.0, xp.where(electron < hole, -1.0, 0 * electron))
    return xp.where(electrons == whole, compared, total)


def _log_sum(backend: Backend, logarithms: Array, mask: Array) -> Array:
    """log Σ exp of those in the mask, of which there is at least one; otherwise any number."""
    xp = backend.xp
    least = xp.min(logarithms, axis=-1, keepdims=True)
    top = xp.max(xp.where(mask, logarithms, least), axis=-1, keepdims=True)
    terms = xp.where(mask, xp.exp(logarithms - xp.where(xp.isfinite(top), top, 0 * top)), xp.zeros_like(logarithms))
    return top[:, 0] + xp.log(xp.sum(terms, axis=-1))


def _margin(backend: Backend, n: int, kt: Array, electrons: Array) -> Array:
    """How far beyond the energies μ may lie."""
    fewer = backend.xp.minimum(electrons, n - electrons)
    return kt * (backend.xp.log(n / fewer) + 1)


def _chemical_potential(backend: Backend, values: Array, kt: Array, electrons: Array) -> Array:
    """μ for ascending energies, by bisection to the rounding of the energies."""
    xp = backend.xp
    margin = _margin(backend, values.shape[-1], kt, electrons)
    low, high = values[:, 0] - margin, values[:, -1] + margin
    fine = backend.eps(values) * (xp.maximum(xp.abs(low), xp.abs(high)))

    def step(state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        low, high, values, kt, electrons, fine = state
        middle = low / 2 + high / 2
        surplus = _surplus(backend, (values - middle[:, None]) / kt[:, None], electrons)
        low, high = xp.where(surplus > 0, low, middle), xp.where(surplus < 0, high, middle)
        return (low, high, values, kt, electrons, fine), high - low > fine

    low, high, *_ = backend.loop(step, (low, high, values, kt, electrons, fine), _BISECTIONS)
    return low / 2 + high / 2


def _by_products(backend: Backend, k: Array, filling: Filling) -> Solution:
    if filling.mu is not None:
        density, entropy, steps = occupation_by_products(backend, _arguments(backend, k, filling.mu, filling.kt))
        mu = filling.mu
    else:
        density, entropy, mu, steps = _fill_by_products(backend, k, filling.kt, filling.electrons)
    return solution(
        backend, (density, mu, backend.xp.maximum(entropy, backend.xp.zeros_like(entropy))), iterations=steps
    )


def _arguments(backend: Backend, k: Array, mu: Array, kt: Array) -> Array:
    return (k - broadcast_scalar(mu) * eye(backend, k)) / broadcast_scalar(kt)


def _fill_by_products(backend: Backend, k: Array, kt: Array, electrons: Array) -> tuple[Array, Array, Array, Array]:
    """By Newton's method for μ, and by bisection where a step leaves the bracket, until the number is right to rounding."""
    xp, n = backend.xp, k.shape[-1]
    reach = spectral_norm_bound(backend, k) + _margin(backend, n, kt, electrons)

    def step(state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        _, _, mu, low, high, k, kt, electrons, done = state
        density, entropy, more = occupation_by_products(backend, _arguments(backend, k, mu, kt))
        count = trace(backend, density).real
        surplus, slope = count - electrons, count - backend.norm(density) ** 2
        low, high = xp.where(surplus > 0, low, mu), xp.where(surplus < 0, high, mu)
        new = mu - kt * surplus / safe_divisor(backend, slope)
        new = xp.where((new > low) & (new < high) & (slope > 0), new, low / 2 + high / 2)
        active = (xp.abs(surplus) > 4 * n * backend.eps(k)) & (new != mu)
        kept = xp.where(active, new, mu)
        return (density, entropy, kept, low, high, k, kt, electrons, done + more), active

    start = (k, 0 * kt, 0 * kt, -reach, reach, k, kt, electrons, backend.int_zeros(k))
    density, entropy, mu, *_, steps = backend.loop(step, start, _STEPS)
    return density, entropy, mu, steps
