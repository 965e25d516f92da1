"""Derivative and errors of the weighted geometric mean G = A #_t B = A (A⁻¹B)^t for t other than 1/2.

With A = F₁ F₂ and Y = F₁⁻¹ B F₂⁻¹ it is F₁ Y^t F₂ for every such factorisation. For definite pairs F₁ = F₂ = A^{1/2}, which keeps
Y Hermitian; for others F₁ = A, F₂ = I. The factors of A + dA can be taken as F₁ (I + E/2) and (I + E/2) F₂ with
E = F₁⁻¹ dA F₂⁻¹, so that with the Fréchet derivative L of the power at Y

    dG = F₁ (L(dY) + (E Y^t + Y^t E)/2) F₂,      dY = F₁⁻¹ dB F₂⁻¹ - (E Y + Y E)/2.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.functions.means.geometric_mean_methods import better_first, scale_mean
from matsign.functions.means.graded_pairs import in_units_of_definite, rounding_of_powers
from matsign.functions.means.semidefinite_mean import factor_on_range
from matsign.functions.powers.coupled_root import both_probes, normalise_pair
from matsign.functions.powers.power_certificates import power_residual
from matsign.functions.powers.power_derivatives import frechet_derivative, power_inside, solve_frechet
from matsign.functions.powers.square_roots import SQRTM_PAIR
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.equilibration import rescale
from matsign.linalg.scalar_powers import exponent
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian, is_hermitian, is_nearly_hermitian


class _Factors(NamedTuple):
    """F₁, F₂ and their inverses, and Y."""

    left: Array
    right: Array
    left_inverse: Array
    right_inverse: Array
    y: Array

    def inward(self, x: Array) -> Array:
        return self.left_inverse @ x @ self.right_inverse

    def outward(self, x: Array) -> Array:
        return self.left @ x @ self.right


def _symmetric(x: Array, y: Array) -> Array:
    return (x @ y + y @ x) / 2


def _factors(backend: Backend, a: Array, b: Array) -> _Factors:
    """For derivative rules: without a branch on values, and differentiable."""
    xp, one = backend.xp, eye(backend, a) + 0 * a
    pair = broadcast_scalar(is_hermitian(a) & is_hermitian(b))
    root, inverse_root = apply(backend, SQRTM_PAIR.operation, xp.where(pair, a, one), rtol=None, method="auto")
    pair = pair & broadcast_scalar(xp.isfinite(backend.norm(root)))  # not where A is indefinite
    left_inverse = xp.where(pair, inverse_root, inverse(backend, xp.where(pair, one, a)))
    right_inverse = xp.where(pair, inverse_root, one)
    y = left_inverse @ b @ right_inverse
    # The value of an exactly Hermitian matrix, and the derivative of the product.
    fixed = backend.stop_gradient(y)
    y = xp.where(pair, hermitian(fixed) + (y - fixed), y)
    return _Factors(xp.where(pair, root, a), xp.where(pair, root, one), left_inverse, right_inverse, y)


def weighted_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, t: float, rtol: float | None
) -> Arrays:
    f, (da, db), power = _factors(backend, *arrays), tangents, exponent(t)
    e, x = f.inward(da), power_inside(backend, f.y, power=power, rtol=rtol)
    dy = f.inward(db) - _symmetric(e, f.y)
    return (f.outward(frechet_derivative(backend, f.y, dy, power=power, rtol=rtol) + _symmetric(e, x)),)


def weighted_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, t: float, rtol: float | None
) -> Arrays:
    f, power = _factors(backend, *arrays), exponent(t)
    x = power_inside(backend, f.y, power=power, rtol=rtol)
    bar = adjoint(f.left) @ cotangents[0] @ adjoint(f.right)
    bar_y = frechet_derivative(backend, adjoint(f.y), bar, power=power, rtol=rtol)
    bar_e = _symmetric(bar, adjoint(x)) - _symmetric(bar_y, adjoint(f.y))
    return tuple(adjoint(f.left_inverse) @ z @ adjoint(f.right_inverse) for z in (bar_e, bar_y))


def weighted_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, *, t: float, rtol: float | None
) -> Residual:
    """The residual of the power, Y^t = F₁⁻¹ G F₂⁻¹, for the better conditioned of A and B in the place of A."""
    zero = rank_tolerance(backend, a, rtol)
    a, b, ea, eb = normalise_pair(backend, a, b)
    a, b, u, factors = in_units_of_definite(backend, a, b, rtol)
    g = rescale(backend, scale_mean(backend, value[0], ea, eb, t, -1), u, u)

    def measure(base: Array, other: Array, g: Array, t: Fraction) -> tuple[Array, Array]:
        return _of_power(backend, base, other, g, t, zero)

    weight = Fraction(t)
    backward, steps = backend.masked_cond(
        better_first(backend, a, b),
        lambda a, b, g: measure(a, b, g, weight),
        lambda a, b, g: measure(b, a, g, 1 - weight),
        *(a, b, g),
    )
    rounding = rounding_of_powers(backend, factors, t, zero)[:, None]
    steps = backend.xp.concat([steps, rounding + 0 * steps[:, :1]], axis=1)
    steps = rescale(backend, steps, -u[:, None], -u[:, None])
    outward = [scale_mean(backend, steps[:, k], ea, eb, t)[:, None] for k in range(steps.shape[1])]
    return Residual(backward, (backend.xp.concat(outward, axis=1),))


def _of_power(backend: Backend, base: Array, other: Array, g: Array, t: Fraction, rtol: float) -> tuple[Array, Array]:
    """The backward error, and the changes of G for the residual of the power and for rounding of both matrices."""
    f = _factors_on_range(backend, base, other, rtol)
    pair = broadcast_scalar(is_hermitian(f.y))
    x = f.inward(g)
    x = backend.xp.where(pair, hermitian(x), x)
    of_power = power_residual(backend, x, f.y, t=t, rtol=rtol)
    d_base, d_other = both_probes(backend, base, other)
    steps = [f.outward(of_power.correction[0][:, k]) for k in range(of_power.correction[0].shape[1])]
    for k in range(d_base.shape[1]):
        e = f.inward(d_base[:, k] + 0 * base)
        dy = f.inward(d_other[:, k]) - _symmetric(e, f.y)
        change = solve_frechet(backend, f.y, dy, power=exponent(t), rtol=rtol).value[0] + _symmetric(e, x)
        steps.append(f.outward(change))
    return of_power.backward, backend.xp.concat([s[:, None] for s in steps], axis=1)


def _factors_on_range(backend: Backend, base: Array, other: Array, rtol: float) -> _Factors:
    """Factors of the base, of a Hermitian one on its range."""
    xp, one = backend.xp, eye(backend, base) + 0 * base
    pair = broadcast_scalar(is_nearly_hermitian(backend, base) & is_nearly_hermitian(backend, other))
    factor = factor_on_range(backend, hermitian(xp.where(pair, base, one)), rtol)
    pair = pair & broadcast_scalar(factor.semidefinite)
    left_inverse = xp.where(pair, factor.inverse, backend.inv(base))
    right_inverse = xp.where(pair, adjoint(factor.inverse), one)
    y = left_inverse @ other @ right_inverse
    return _Factors(
        xp.where(pair, factor.factor, base),
        xp.where(pair, adjoint(factor.factor), one),
        left_inverse,
        right_inverse,
        xp.where(pair, hermitian(y), y),
    )
