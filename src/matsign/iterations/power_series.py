"""Powers and logarithms of matrices whose eigenvalues lie in a disc that is clear of zero, by products alone.

With a centre c of the disc and X = I - A/c, and b_0 = 1, b_k = b_{k-1} (k - 1 - t)/k,

    A^t = c^t Σ b_k Xᵏ,    log A = log c I - Σ Xᵏ/k.

The series is summed in blocks of 8 terms by Horner's rule in X⁸ (Paterson & Stockmeyer 1973). Its length is found from the norms
of X, X², X⁴, … X³²: for |t| < 1 the sum of the terms from Xᵈ on is about |b_d| αᵈ/(1 - α) times the square of the largest
‖Xʲ‖/αʲ, α being the least ‖Xʲ‖^{1/j} of these.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import constant_when_compiled
from matsign.linalg.scalar_powers import Exponent, scalar_function
from matsign.linalg.stacks import broadcast_scalar, eye, trace

# Terms of a block, and the most blocks: with more, square roots and a quadrature take less time.
_BLOCK, _MOST_BLOCKS = 8, 40
# The norms of the powers Xʲ may be at most this times √n: for larger ones products lose digits.
_LARGEST = 16
_LEAST = 2.0**-4
# The second centre relative to the point farthest to the right of a disc around the mean of the eigenvalues.
_MIDDLE = 0.55


class Centred(NamedTuple):
    """The centre c, the powers X, X², X⁴, X⁸, and the number of blocks of the series, 0 where it would be too long."""

    c: Array
    x: Array
    x2: Array
    x4: Array
    x8: Array
    blocks: Array


def centre(backend: Backend, a: Array, power: Exponent, eps: float) -> Centred:
    """How the series of a^t, |t| < 1, or log a is summed: around the mean of the eigenvalues, or farther to the right."""

    def farther(a: Array, alpha: Array, *first: Array) -> Centred:
        c = first[0]
        return _powers(backend, a, _MIDDLE * (c + abs(c) * alpha), power, eps)[0]

    first, alpha = _powers(backend, a, trace(backend, a) / a.shape[-1], power, eps)
    far = (first.blocks == 0) & (alpha > 0.5) & (alpha < 10)
    return backend.masked_cond(far, farther, lambda a, alpha, *first: Centred(*first), a, alpha, *first)


def _powers(backend: Backend, a: Array, c: Array, power: Exponent, eps: float) -> tuple[Centred, Array]:
    """The powers for the centre c, and α."""
    xp = backend.xp
    right = c.real > eps**0.25
    c = xp.where(right, c, xp.ones_like(c))
    x = [eye(backend, a) - a / broadcast_scalar(c)]
    for _ in range(5):
        x.append(x[-1] @ x[-1])
    norms = [backend.norm(y) for y in x]
    alpha, most = norms[0], norms[0]
    for k, size in enumerate(norms):
        alpha, most = xp.minimum(alpha, size ** (0.5**k)), xp.maximum(most, size)
    # Of a nilpotent X some powers vanish, and others do not.
    alpha = xp.maximum(alpha, _LEAST * xp.ones_like(alpha))
    growth = xp.ones_like(alpha)
    for k, size in enumerate(norms):
        growth = xp.maximum(growth, size / alpha ** float(2**k))
    small = (eps / 4 * a.shape[-1] ** 0.5) / growth**2
    blocks = _fewest_blocks(backend, alpha, small, power)
    near = right & (most <= _LARGEST * a.shape[-1] ** 0.5)
    return Centred(c, x[0], x[1], x[2], x[3], xp.where(near, blocks, xp.zeros_like(blocks))), alpha


def _fewest_blocks(backend: Backend, alpha: Array, small: Array, power: Exponent) -> Array:
    """As many blocks as bring the rest of the series below `small`, at least 2, or 0."""
    xp, q = backend.xp, np.arange(2, _MOST_BLOCKS)
    firsts = abs(np.array(_coefficients(power))[2:, 0])
    firsts, terms, q = (backend.asarray(x.astype(float), alpha) for x in (firsts, _BLOCK * q, q))
    rests = firsts * alpha[:, None] ** terms
    enough = (rests <= (small * (1 - alpha))[:, None]) & (alpha < 1)[:, None]
    least = xp.min(xp.where(enough, q + 0 * rests, _MOST_BLOCKS + 0 * rests), axis=-1)
    return xp.where(least < _MOST_BLOCKS, least, xp.zeros_like(least))


@constant_when_compiled
@functools.lru_cache(maxsize=1024)
def _coefficients(power: Exponent) -> tuple[tuple[float, ...], ...]:
    """The coefficients, a row for each block."""
    k = np.arange(1, _BLOCK * _MOST_BLOCKS)
    rest = -1.0 / k if power.is_logarithm else np.cumprod((k - 1 - power.value) / k)
    first = 0.0 if power.is_logarithm else 1.0
    return tuple(map(tuple, np.concatenate([[first], rest]).reshape(_MOST_BLOCKS, _BLOCK).tolist()))


def series(backend: Backend, centred: Centred, power: Exponent) -> Array:
    """a^t or log a, for members with at least one block."""
    c, x, x2, x4, x8, left = centred
    xp, n, x3 = backend.xp, x.shape[-1], x2 @ x
    powers = xp.stack([x, x2, x3, x4, x4 @ x, x4 @ x2, x4 @ x3], axis=1)
    table = xp.astype(backend.asarray(np.array(_coefficients(power)), x.real), x.dtype)

    def block(powers: Array, left: Array) -> Array:
        row = xp.take(table, xp.astype(left, xp.int32) - 1, axis=0)
        terms = row[:, None, 1:] @ powers.reshape((len(powers), _BLOCK - 1, n * n))
        return backend.add_diagonal(terms.reshape((len(powers), n, n)), row[:, 0])

    def step(state: Any) -> Any:
        y, x8, powers, left = state
        return (y @ x8 + block(powers, left), x8, powers, left - 1), left > 1.5

    total = backend.loop(step, (block(powers, left), x8, powers, left - 1), _MOST_BLOCKS)[0]
    value = broadcast_scalar(scalar_function(backend, xp.log(c), power))
    return total + value * eye(backend, total) if power.is_logarithm else total * value
