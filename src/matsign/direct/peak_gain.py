"""The largest gain of stable models over all frequencies, by level sets (Boyd & Balakrishnan 1990, Bruinsma & Steinbuch 1990).

The gain at ω is the largest singular value of G(s) = c (s e - a)⁻¹ b + d, at s = iω or s = exp(iω). With e = I it equals g at ω
if and only if iω is an eigenvalue of a Hamiltonian matrix that depends on g, for g above the largest singular value of d:

    [[a + b δᴴ r c / g, b r' bᴴ / g], [-cᴴ r c / g, -(a + b δᴴ r c / g)ᴴ]],  δ = d/g,  r = (I - δ δᴴ)⁻¹,  r' = (I - δᴴ δ)⁻¹.

From a gain that is attained, each step computes the imaginary eigenvalues for a level above its rounding errors. Between
neighbouring ones the gain is above the level or below it: the largest gain at the midpoints is the next attained one. Without
any, the level is an upper bound. An attained gain is first raised to its local maximum by Newton's method, so that a second step
is rarely needed. Whether an eigenvalue is imaginary up to rounding is never decided: the gain is computed at all that may be.

In discrete time the bilinear map of a point of the unit circle to infinity gives the model of the Hamiltonian matrix, with an e
in continuous time the map of a point of the axis, so that e needs no inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from matsign._typing import NDArray as Array
from matsign.backends import numpy as backend
from matsign.core.failures import Failure
from matsign.direct.gains import Model, derivatives, gains
from matsign.linalg.separation import ROUNDINGS

_LIMIT = 30  # steps; a second one is rare
_ALL_POLES, _FEW_POLES = 32, 12  # up to this size all poles are tried first, above it the least damped ones
_NEWTON_STEPS = 20
_NOISE = 8  # rounding errors of gains are below this times their estimate


def relative_gap(eps: float) -> float:
    """The relative distance of the upper bound from the norm."""
    return float(max(eps, 2.0**-52) ** 0.6)


class Peak(NamedTuple):
    """A gain attained at a frequency, and the rounding errors in it."""

    gain: Array
    frequency: Array
    noise: Array


def peak_gain(
    a: Array, b: Array, c: Array, d: Array, e: Array | None = None, *, discrete: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """(norm, frequency, failure, detail, steps) of each model; real models get frequencies of at least 0."""
    m = _in_double(a, b, c, d, e, discrete)
    eps = float(np.finfo(a.dtype).eps)
    poles, independence = _poles(m), _independence_of_e(m)
    failure = _stability(m, poles, eps)
    singular = ~(independence > ROUNDINGS * eps / a.shape[-1] ** 0.5)
    failure = np.where(singular, int(Failure.SINGULAR_E), failure).astype(np.int32)
    stable = np.flatnonzero(failure == 0)
    gain, frequency, steps = np.full(len(a), np.nan), np.full(len(a), np.nan), np.zeros(len(a), np.int32)
    if len(stable):
        part = m.take(stable)
        peak, count, converged = _search(part, poles[stable])
        gain[stable], frequency[stable], steps[stable] = peak.gain, peak.frequency, count
        failure[stable] = np.where(converged, 0, int(Failure.NOT_CONVERGED))
    real = a.real.dtype
    return gain.astype(real), frequency.astype(real), failure, independence.astype(real), steps


def _in_double(a: Array, b: Array, c: Array, d: Array, e: Array | None, discrete: bool) -> Model:
    dtype = np.result_type(a.dtype, np.float64)
    e = None if e is None else e.astype(dtype)
    return Model(a.astype(dtype), b.astype(dtype), c.astype(dtype), d.astype(dtype), e, discrete)


def _poles(m: Model) -> Array:
    """The eigenvalues of a - λ e, by QZ if there is an e."""
    if m.e is None:
        return np.linalg.eigvals(m.a)
    with np.errstate(all="ignore"):
        return np.stack([scipy.linalg.eigvals(a, e) for a, e in zip(m.a, m.e, strict=True)])


def _independence_of_e(m: Model) -> Array:
    """The reciprocal condition numbers of e, 0 where it has no inverse."""
    if m.e is None:
        return np.ones(len(m.a))
    with np.errstate(all="ignore"):
        inverse = 1 / (np.linalg.norm(m.e, axis=(1, 2)) * np.linalg.norm(backend.inv(m.e), axis=(1, 2)))
    return np.where(np.isfinite(inverse), inverse, 0.0)


def measure(
    norm: Array, frequency: Array, a: Array, b: Array, c: Array, d: Array, e: Array | None = None, *, discrete: bool
) -> tuple[Array, Array, Array, Array]:
    """Of a norm that is claimed to be the gain at the frequency, for each model four numbers.

    The distance from that gain, how much larger another gain is that is found near the upper bound (0 if there is none), the norm
    of the terms of the gain, and the Newton step to the maximum (0 at infinity).
    """
    like, m = norm.dtype, _in_double(a, b, c, d, e, discrete)
    every, norm, frequency = np.arange(len(a)), norm.astype(float), frequency.astype(float)
    gain, noise = gains(m, every, frequency)
    some, above = np.flatnonzero(norm + noise > 0), np.zeros(len(a))
    for gap in (relative_gap(float(np.finfo(like).eps)), 0.0) if len(some) else ():
        model, level = m.take(some), norm[some] * (1 + gap) + _NOISE * noise[some]
        found = _highest_inside(model, _without_infinity(model, _poles(model)), level)
        above[some] = np.maximum(above[some], found.gain - norm[some] - _NOISE * found.noise)
    slope, curvature = derivatives(m, np.where(np.isfinite(frequency), frequency, 0))
    moves = np.isfinite(frequency) & (curvature < 0)
    step = np.where(moves, slope / np.where(moves, curvature, 1), 0)
    size = noise / np.finfo(float).eps
    return tuple(x.astype(like) for x in (np.abs(gain - norm), above, size, step))  # type: ignore[return-value]


def _stability(m: Model, poles: Array, eps: float) -> Array:
    """INFINITE_NORM or BARELY_STABLE, by the distance of a from a matrix with an eigenvalue on the boundary."""
    inside = 1 - np.abs(poles) if m.discrete else -poles.real
    size = _size_at(m, poles)
    every, suspect = np.arange(len(poles)), np.argmin(inside / size, axis=1)
    least, size = inside[every, suspect], size[every, suspect]
    failure = np.where(least > 0, 0, int(Failure.INFINITE_NORM)).astype(np.int32)
    near = np.flatnonzero((least > 0) & (least < 1e-3 * size) | ~np.isfinite(least))
    if len(near):
        pole = poles[near, suspect[near]]
        point = pole / np.abs(pole) if m.discrete else 1j * pole.imag
        shifted = m.take(near).pencil(np.where(np.isfinite(point), point, 0))
        distance = backend.svd(shifted)[1][:, -1]
        lost = ~(distance > ROUNDINGS * eps * size[near])
        failure[near] = np.where(lost, int(Failure.BARELY_STABLE), failure[near])
    return failure


def _size_at(m: Model, poles: Array) -> Array:
    """How large s e - a may be near each pole; without an e, s does not count in continuous time."""
    size, like = np.linalg.norm(m.a, axis=(1, 2))[:, None], np.ones(poles.shape)
    if m.e is None:
        return (size + m.discrete) * like
    return size + np.linalg.norm(m.e, axis=(1, 2))[:, None] * (like if m.discrete else np.abs(poles))


def _search(m: Model, poles: Array) -> tuple[Peak, Array, Array]:
    """(peak, steps, whether no gain is above the upper bound)."""
    image = _without_infinity(m, poles)
    members, frequencies = _first_frequencies(m, image, poles)
    peak = _climb(m, _highest(m, members, frequencies))
    largest_d = backend.svd(image.d)[1][:, 0]
    steps, converged = np.zeros(len(m.a), np.int32), np.ones(len(m.a), bool)
    # For a level near a singular value of d the matrix is known to few digits: there, a higher one comes first.
    for gap, some in ((relative_gap(0), peak.gain < largest_d * (1 + 1e-6)), (0.0, peak.gain + peak.noise > 0)):
        left = _raise(m, image, peak, np.flatnonzero(some & (peak.gain + peak.noise > 0)), gap, steps)
        converged[left] = False
    return peak, steps, converged


def _raise(m: Model, image: _Image, peak: Peak, active: Array, gap: float, steps: Array) -> Array:
    """Raise the attained gains, in place, until none is found above the level; returns the members for which one still is."""
    for _ in range(_LIMIT):
        if not len(active):
            break
        part = Peak(*(x[active] for x in peak))
        model, level = m.take(active), part.gain * (1 + gap) + _NOISE * part.noise
        found = _highest_inside(model, _Image(*(x[active] for x in image)), level)
        steps[active] += 1
        higher = np.flatnonzero(found.gain > part.gain)  # also another peak between the attained gain and the level
        if len(higher):
            better = _climb(model.take(higher), Peak(*(x[higher] for x in found)))
            for x, y in zip(peak, better, strict=True):
                x[active[higher]] = y
        active = active[found.gain > level]
    return active


def _first_frequencies(m: Model, image: _Image, poles: Array) -> tuple[Array, Array]:
    """(members, frequencies): 0, the frequency that corresponds to infinity, those of the poles, and between their moduli."""
    n, rows = poles.shape[-1], np.arange(len(poles))
    if m.discrete:
        resonances, damping = np.angle(poles), 1 - np.abs(poles)
    else:
        resonances, damping = (
            poles.imag,
            -poles.real * np.abs(poles) / np.where(poles.imag == 0, 1e-300, np.abs(poles.imag)),
        )
    if n > _ALL_POLES:
        resonances = np.take_along_axis(resonances, np.argsort(damping, axis=1)[:, :_FEW_POLES], axis=1)
    elif not m.discrete:
        moduli = np.sort(np.abs(poles), axis=1)
        between = np.sqrt(moduli[:, 1:]) * np.sqrt(moduli[:, :-1])
        resonances = np.concatenate([resonances, moduli, between], axis=1)
    edges = [0 * image.turn, image.at_infinity, *([] if m.discrete or m.e is None else [image.turn + np.inf])]
    every = np.concatenate([np.stack(edges, axis=1), resonances], axis=1)
    return np.repeat(rows, every.shape[1]), _principal_frequency(m, every.ravel())


def _principal_frequency(m: Model, frequency: Array) -> Array:
    """The same point of the axis: in (-π, π] for a circle, and at least 0 for real models."""
    if m.discrete:
        frequency = np.pi - np.mod(np.pi - frequency, 2 * np.pi)
    return np.abs(frequency) if not np.iscomplexobj(m.a) else frequency


def _highest(m: Model, members: Array, frequencies: Array) -> Peak:
    """For each member the highest gain at its frequencies, of equal ones the nearest to 0; -1 for members without any."""
    gain, noise = gains(m, members, frequencies)
    order = np.lexsort((-np.abs(frequencies), gain, members))
    last = np.append(members[order][1:] != members[order][:-1], True) if len(order) else np.zeros(0, bool)
    best = order[last]
    result = Peak(*(np.full(len(m.a), x) for x in (-1.0, 0.0, 0.0)))
    for x, y in zip(result, (gain, frequencies, noise), strict=True):
        x[members[best]] = y[best]
    return result


def _climb(m: Model, peak: Peak) -> Peak:
    """The local maximum near each peak, by Newton's method for the slope; a step that lowers the gain is not taken."""
    gain, frequency, noise = (x.copy() for x in peak)
    active = np.flatnonzero(np.isfinite(frequency))
    for _ in range(_NEWTON_STEPS):
        if not len(active):
            break
        with np.errstate(all="ignore"):
            slope, curvature = derivatives(m.take(active), frequency[active])
        step = slope / np.abs(curvature)  # upwards, also where the gain is convex
        moved = frequency[active] + np.where(np.isfinite(step), step, 0)
        new_gain, new_noise = gains(m, active, moved)
        accepted = (new_gain >= gain[active] - _NOISE * noise[active]) & (moved != frequency[active])
        chosen = active[accepted]
        gain[chosen], frequency[chosen], noise[chosen] = new_gain[accepted], moved[accepted], new_noise[accepted]
        small = np.abs(step) <= 4 * np.finfo(float).eps * np.abs(moved)
        active = active[accepted & ~small]
    return Peak(gain, _principal_frequency(m, frequency), noise)


class _Image(NamedTuple):
    """Models in continuous time, without e, that have the same gains at other frequencies.

    Their frequency η is 2 arctan η + turn on the circle, at_infinity - 1/η of a model with e, and else the same; at_infinity is
    the frequency that corresponds to infinity.
    """

    a: Array
    b: Array
    c: Array
    d: Array
    turn: Array
    at_infinity: Array

    def frequency(self, m: Model, eta: Array) -> Array:
        """The frequencies of the models for (B, k) frequencies of their images."""
        if m.discrete:
            return np.where(np.isfinite(eta), 2 * np.arctan(eta) + self.turn[:, None], np.inf)
        if m.e is None:
            return eta
        with np.errstate(divide="ignore"):
            return np.where(np.isfinite(eta), self.at_infinity[:, None] - 1 / eta, np.inf)


def _without_infinity(m: Model, poles: Array) -> _Image:
    none = np.zeros(len(m.a))
    if m.discrete:
        return _from_circle(m)
    return _Image(*m[:4], none, none + np.inf) if m.e is None else _from_axis(m, poles)


def _from_circle(m: Model) -> _Image:
    """The point ±1 farther from the poles becomes infinity."""
    one = np.eye(m.a.shape[-1]) if m.e is None else m.e
    inverses = [backend.inv(s * m.a + one) for s in (1, -1)]
    sizes = [np.linalg.norm(x, axis=(1, 2)) for x in inverses]
    plus = ~(sizes[1] < sizes[0])
    sign = np.where(plus, 1.0, -1.0)[:, None, None]
    a, c, inverse = sign * m.a, sign * m.c, np.where(plus[:, None, None], *inverses)
    root, turn, outputs = np.sqrt(2), np.where(plus, 0.0, np.pi), c @ inverse
    moved = outputs if m.e is None else outputs @ m.e
    return _Image(inverse @ (a - one), root * (inverse @ m.b), root * moved, m.d - outputs @ m.b, turn, np.pi - turn)


def _from_axis(m: Model, poles: Array) -> _Image:
    """A point p = iω far from the poles becomes infinity, s = p + 1/w: -P⁻¹ e, P⁻¹ b, -c P⁻¹ e and G(p), with P = p e - a."""
    with np.errstate(all="ignore"):
        mean = np.exp(np.log(np.abs(poles)).mean(axis=1))
        tried = np.where(np.isfinite(mean) & (mean > 0), mean, 1.0)[:, None] * _TRIED_POINTS
        distance = np.abs(1j * tried[:, :, None] - poles[:, None, :]).min(axis=2)
    point = tried[np.arange(len(tried)), distance.argmax(axis=1)]
    pencil = m.pencil(1j * point)
    moved, inputs = (backend.solve(pencil, x.astype(complex)) for x in (m.times_e(np.eye(m.a.shape[-1])), m.b))
    return _Image(-moved, inputs, -(m.c @ moved), m.d + m.c @ inputs, 0 * point, point)


# In units of the geometric mean of the moduli of the poles.
_TRIED_POINTS = np.array([0.5, 0.7, 1.0, 1.4, 2.0])


def _highest_inside(m: Model, image: _Image, level: Array) -> Peak:
    """The highest gain at the frequencies where it may equal the level, and at the midpoints between them."""
    eigenvalues, size = _eigenvalues(image, level)
    n, rows = m.a.shape[-1], np.arange(len(level))[:, None]
    width = np.finfo(float).eps ** (0.25 if n <= _ALL_POLES else 0.5)
    near = np.abs(eigenvalues.real) <= width * (size[:, None] + np.abs(eigenvalues))  # False for NaN
    frequency = np.sort(image.frequency(m, np.where(near, eigenvalues.imag, np.inf)), axis=1)
    with np.errstate(invalid="ignore"):
        middle = (frequency[:, 1:] + frequency[:, :-1]) / 2
    every = np.concatenate([frequency, middle], axis=1)
    used = np.isfinite(every)
    members = np.broadcast_to(rows, every.shape)[used]
    return _highest(m, members, _principal_frequency(m, every[used]))


def _eigenvalues(image: _Image, level: Array) -> tuple[Array, Array]:
    """(eigenvalues, norm) of the Hamiltonian matrices for these levels."""
    g = level[:, None, None]
    h = [x.conj().mT for x in image[:4]]
    delta, delta_h = image.d / g, h[3] / g
    outputs = backend.inv(np.eye(delta.shape[-2]) - delta @ delta_h)
    inputs = backend.inv(np.eye(delta.shape[-1]) - delta_h @ delta)
    feedback = image.a + image.b @ delta_h @ outputs @ image.c / g
    upper, lower = image.b @ inputs @ h[1] / g, -h[2] @ outputs @ image.c / g
    matrix = np.concatenate(
        [
            np.concatenate([feedback, upper], axis=-1),
            np.concatenate([lower, -feedback.conj().mT], axis=-1),
        ],
        axis=-2,
    )
    finite = np.isfinite(matrix).all((1, 2))
    values = np.linalg.eigvals(np.where(finite[:, None, None], matrix, 0)).astype(complex)
    return np.where(finite[:, None], values, np.nan), _norm(feedback) + np.sqrt(_norm(upper) * _norm(lower))


def _norm(x: Array) -> Array:
    return np.linalg.norm(x, axis=(1, 2))
