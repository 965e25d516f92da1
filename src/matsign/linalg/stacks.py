"""Linear algebra on stacks: matrices are ``(B, n, m)``, scalars one per member ``(B,)``."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.shapes import ShapeArray


def adjoint(x: Array) -> Array:
    """Conjugate transpose."""
    return x.mT.conj()


def hermitian(x: Array) -> Array:
    """Hermitian part, (x + xᴴ)/2."""
    return (x + adjoint(x)) * 0.5


def broadcast_scalar(s: Array) -> Array:
    """One number per member, shaped to multiply matrices."""
    return s[:, None, None] if s.ndim else s


def broadcast_to_rank(s: Array, x: Array) -> Array:
    """One number per member, shaped to multiply `x`, a stack of matrices or of vectors."""
    return s.reshape((len(s),) + (1,) * (x.ndim - 1)) if s.ndim else s


def all_false(backend: Backend, x: Array) -> Array:
    """A mask (B,) of False for the stack x."""
    return backend.ones(x) < 0


def eye(backend: Backend, x: Array) -> Array:
    """The identity with as many columns as `x`, ``(1, m, m)``, in its dtype and on its device; ``(m, m)`` for one matrix."""
    one = backend.eye(x.shape[-1], x)
    return one[None] if x.ndim > 2 else one


def plus_identity(backend: Backend, alpha: Any, x: Array) -> Array:
    """alpha I + x."""
    one = eye(backend, x)
    return x + (one if isinstance(alpha, float) and alpha == 1 else alpha * one)


def inner(backend: Backend, x: Array, y: Array) -> Array:
    """Re tr(xᴴ y)."""
    if backend.products_only(x):
        return backend.inner(x, y)
    return backend.inner(x.reshape((*x.shape[:-2], -1)), y.reshape((*y.shape[:-2], -1)))


def norm(backend: Backend, x: Array) -> Array:
    """Frobenius norm."""
    return backend.norm(x)


def trace(backend: Backend, x: Array) -> Array:
    """tr x, complex for complex x."""
    return backend.trace(x)


def largest(backend: Backend, x: Array) -> Array:
    """The largest |entry|, for complex entries the largest |re| or |im|; unlike `norm` it squares nothing that may overflow."""
    xp = backend.xp
    if backend.is_complex(x):
        return xp.maximum(largest(backend, x.real), largest(backend, x.imag))
    return backend.largest(x)


def scale_to_unit(backend: Backend, *matrices: Array) -> tuple[Any, ...]:
    """``(*scaled, e)``: the matrices times 2^-e, with their largest entry in [1/2, 1).

    Scaling by a power of two causes no rounding, so an answer computed from the scaled matrices scales exactly.
    """
    e = common_exponent(backend, *matrices)
    return (*(backend.exact_ldexp(x, broadcast_scalar(-e)) for x in matrices), e)


def common_exponent(backend: Backend, *matrices: Array) -> Array:
    """e for which the largest entry of all is in [2^(e-1), 2^e); 0 for zeros."""
    top = functools.reduce(backend.xp.maximum, [largest(backend, x) for x in matrices])
    return backend.exponent(top)  # not the largest exponent of all entries: the exponent of 0 is 0


# The exponent of a zero entry: below all others.
EXPONENT_OF_ZERO = -(1 << 20)


def entry_exponents(backend: Backend, x: Array) -> Array:
    """The exponents of the entries, of the larger ones of real and imaginary parts; `EXPONENT_OF_ZERO` for zeros."""
    if backend.is_complex(x):
        return backend.xp.maximum(entry_exponents(backend, x.real), entry_exponents(backend, x.imag))
    e = backend.exponent(x)
    return backend.xp.where(x != 0, e, EXPONENT_OF_ZERO + 0 * e)


def far_exponent(backend: Backend, x: Array) -> int:
    """An exponent k for which (2^k)² and (2^-k)² are in range, and 1 + 2^-k rounds to 1."""
    return 256 if backend.eps(x) < 1e-10 else 64


_WIDE = {"float32": "float64", "complex64": "complex128"}


def can_widen(backend: Backend, x: Array) -> bool:
    """Whether x is in double precision or can be converted to it: JAX may have 64-bit types disabled."""
    return backend.dtype_name(x) not in _WIDE or backend.name != "jax" or backend.default_float() == "float64"


def to_double(backend: Backend, x: Array) -> Array:
    """x in double precision if `can_widen`, else x."""
    return (
        backend.astype(x, _WIDE[backend.dtype_name(x)])
        if backend.dtype_name(x) in _WIDE and can_widen(backend, x)
        else x
    )


def rectangular_eye(backend: Backend, x: Array) -> Array:
    """Ones on the diagonal, ``(1, n, m)``, for `x` of shape (B, n, m)."""
    n, m = x.shape[-2:]
    return backend.eye(max(n, m), x)[None, :n, :m]


def scaled_norm(backend: Backend, x: Array) -> tuple[Array, Array]:
    """(s, e) with s 2^e the Frobenius norm, also if the squares of the entries overflow or underflow."""
    scaled, e = scale_to_unit(backend, x)
    return backend.norm(scaled), e


def relative_norm(backend: Backend, x: Array, y: Array, instead: Array | None = None) -> Array:
    """‖x‖ / ‖y‖ in the Frobenius norm, without overflow; if y is 0 divide by ‖instead‖, and if that is 0 or None by 1."""
    (above, e), (below, f) = scaled_norm(backend, x), scaled_norm(backend, y)
    if instead is not None:
        other, g = scaled_norm(backend, instead)
        below, f = backend.xp.where(below > 0, below, other), backend.xp.where(below > 0, f, g)
    return backend.ldexp(above / safe_divisor(backend, below), e - f)


def safe_divisor(backend: Backend, x: Array) -> Array:
    """Nonnegative x with 1 in place of 0, to divide by."""
    return backend.xp.where(x > 0, x, 1.0)


def is_hermitian(x: Array) -> Array:
    """Which members equal their conjugate transpose, to the last bit."""
    return (x == adjoint(x)).all((-1, -2))


def is_nearly_hermitian(backend: Backend, x: Array) -> Array:
    """Which members equal their conjugate transpose up to rounding."""
    x, _ = scale_to_unit(backend, x)
    return ~(backend.norm(x - adjoint(x)) > 100 * backend.eps(x) * backend.norm(x))


@functools.lru_cache(maxsize=32)
def probe_numbers(n: int, m: int) -> Any:
    """The numbers of `random_probe` as a NumPy matrix; the seed is unusual so that no user's example has the same matrix."""
    return np.random.default_rng((0x6D617473, n, m)).standard_normal((n, m))


@functools.lru_cache(maxsize=32)
def _probe_norm(n: int, m: int) -> float:
    return float(np.linalg.norm(probe_numbers(n, m)))


def random_probe(backend: Backend, n: int, m: int, like: Array) -> Array:
    """Fixed random numbers ``(1, n, m)``, or ``(n, m)`` for one matrix, in the dtype of `like`.

    A start for power iterations that is unlikely to be orthogonal to the wanted vector.
    """
    if isinstance(like, ShapeArray):
        return like.new((1, n, m))  # a count of the work needs no numbers, and may be for sizes that fit on no machine
    probe = backend.astype(backend.asarray(probe_numbers(n, m), like), backend.dtype_name(like))
    return probe[None] if like.ndim > 2 else probe


def rounding_probe(backend: Backend, x: Array, size: Array) -> Array:
    """A fixed random matrix shaped like `x` of Frobenius norm eps·`size` in each member.

    Added to a residual whose terms have the norm `size`, it models their rounding errors, so that a correction step is never
    smaller than the effect of that rounding on the solution.
    """
    n, m = x.shape[-2:]
    length = 1.0 if isinstance(x, ShapeArray) else _probe_norm(n, m)
    unit = random_probe(backend, n, m, x) * (backend.eps(x) / length)
    return unit * broadcast_scalar(size)


def assemble(backend: Backend, a: Array, c: Array, d: Array, b: Array) -> Array:
    """[[a, c], [d, b]]."""
    xp = backend.xp
    return xp.concat([xp.concat([a, c], axis=-1), xp.concat([d, b], axis=-1)], axis=-2)
