"""Matrices that strangers have: graded, badly scaled, non-normal, defective, clustered, singular, of every size and scale.

Every maker takes a generator and sizes and returns float64 or complex128; `cast` rounds to the dtype of the case.
"""

import numpy as np

SIZES = (1, 2, 2, 3, 3, 3, 4, 5)
SCALES = (2.0**-1000, 1e-300, 1e-155, 1e-100, 1e-30, 1e-6, 1e6, 1e30, 1e100, 1e155, 1e300)


def gaussian(rng, n, m=None):
    return rng.standard_normal((n, n if m is None else m))


def integers(rng, n, m=None):
    return rng.integers(-9, 10, (n, n if m is None else m)).astype(float)


def signs(rng, n, m=None):
    return rng.choice([-1.0, 1.0], (n, n if m is None else m))


def ones(rng, n, m=None):
    return np.ones((n, n if m is None else m))


def zeros(rng, n, m=None):
    return np.zeros((n, n if m is None else m))


def sparse(rng, n, m=None):
    x = integers(rng, n, m)
    return x * (rng.random(x.shape) < 0.4)


def graded_entries(rng, n, m=None):
    x = gaussian(rng, n, m)
    return x * 10.0 ** rng.uniform(-8, 8, x.shape)


def low_rank(rng, n, m=None):
    m = n if m is None else m
    k = max(min(n, m) - int(rng.integers(1, 3)), 0)
    make = integers if rng.random() < 0.5 else gaussian
    return make(rng, n, k) @ make(rng, k, m)


def given_singular_values(rng, n, m=None):
    m = n if m is None else m
    k = min(n, m)
    values = 10.0 ** -rng.uniform(0, rng.choice([1, 8, 16, 30]), k)
    return orthogonal(rng, n)[:, :k] * values @ orthogonal(rng, m)[:k]


RECTANGULAR = (
    gaussian, gaussian, gaussian, integers, integers, signs, ones, zeros, sparse, graded_entries, low_rank,
    given_singular_values, given_singular_values,
)  # fmt: skip


def orthogonal(rng, n):
    return np.linalg.qr(gaussian(rng, n))[0] if n else np.zeros((0, 0))


def similar(rng, core):
    """V core V⁻¹ with V orthogonal, integer unimodular (exact), diagonal (badly scaled) or ill conditioned."""
    n, way = len(core), rng.integers(0, 5)
    if way == 0:
        q = orthogonal(rng, n)
        return q @ core @ q.T
    if way == 1:
        lower, upper = (np.tril(rng.integers(-1, 2, (n, n)), -1) + np.eye(n) for _ in range(2))
        p = lower @ upper.T
        return p @ core @ np.linalg.inv(p).round()
    if way == 2:
        d = 10.0 ** rng.uniform(-10, 10, n)
        return d[:, None] * core / d
    if way == 3:
        p = rng.permutation(n)
        return core[p][:, p]
    v = orthogonal(rng, n) * 10.0 ** rng.uniform(0, rng.choice([1, 3, 6]), n)
    return v @ core @ np.linalg.inv(v)


def spectrum(rng, n):
    """A block diagonal matrix with eigenvalues that repeat, cluster, differ in size, or come near the axis."""
    way = rng.integers(0, 6)
    if way == 0:
        values = rng.choice([-2.0, -1.0, 1.0, 2.0], n)
    elif way == 1:
        values = rng.choice([-1.0, 1.0]) + 10.0 ** -rng.uniform(2, 15) * rng.standard_normal(n)
    elif way == 2:
        values = rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-8, 8, n)
    elif way == 3:
        values = rng.choice([-1.0, 1.0], n) * np.where(rng.random(n) < 0.3, 0.0, 1 + rng.random(n))
    else:
        values = rng.standard_normal(n)
    core = np.diag(values)
    if way == 5:
        for k in range(0, n - 1, 2):
            real = rng.choice([-1.0, 1.0]) * 10.0 ** -rng.uniform(0, 17)
            core[k : k + 2, k : k + 2] = [[real, -1.0], [1.0, real]]
    return core


def from_spectrum(rng, n):
    return similar(rng, spectrum(rng, n))


def jordan(rng, n):
    core = np.eye(n) * rng.choice([-1.0, 0.0, 1.0, 2.0, 0.5])
    for k in range(n - 1):
        core[k, k + 1] = rng.random() < 0.7
    return similar(rng, core)


def non_normal(rng, n):
    x = np.triu(gaussian(rng, n), 1) * 10.0 ** rng.uniform(0, 9)
    return x + np.diag(rng.choice([-1.0, 1.0], n) * (0.5 + rng.random(n)))


def corner(rng, n):
    """A large entry beside a small one across the diagonal: benign once it is balanced."""
    x = rng.choice([-1.0, 1.0], n) * rng.integers(1, 5, n)
    x = np.diag(x.astype(float))
    if n > 1:
        size = 10.0 ** rng.uniform(0, 12)
        x[0, -1] = size
        x[-1, 0] = rng.choice([0.0, 1.0, -2.0]) / size
    return x


def badly_scaled(rng, n):
    d = 10.0 ** rng.uniform(-12, 12, n)
    return d[:, None] * gaussian(rng, n) / d


def nearly_singular(rng, n):
    x = low_rank(rng, n)
    return x + 10.0 ** -rng.uniform(2, 18) * gaussian(rng, n)


def definite(rng, n, condition=None):
    condition = 10.0 ** rng.uniform(0, rng.choice([1, 8, 15])) if condition is None else condition
    q = orthogonal(rng, n)
    x = (q * condition ** -rng.random(n)) @ q.T
    return (x + x.T) / 2


def semidefinite(rng, n):
    k = int(rng.integers(0, n + 1))
    x = integers(rng, n, k) if rng.random() < 0.5 else gaussian(rng, n, k)
    return x @ x.T


def symmetric(rng, n):
    x = integers(rng, n) if rng.random() < 0.5 else gaussian(rng, n)
    return x + x.T


def graded_definite(rng, n):
    d = 10.0 ** rng.uniform(-6, 6, n)
    x = d[:, None] * definite(rng, n, 10.0) * d
    return (x + x.T) / 2


SQUARE = (
    gaussian, gaussian, integers, signs, ones, zeros, sparse, graded_entries, low_rank, from_spectrum, from_spectrum,
    from_spectrum, jordan, jordan, non_normal, corner, badly_scaled, nearly_singular, definite, semidefinite, symmetric,
    graded_definite, orthogonal,
)  # fmt: skip
HERMITIAN = (definite, definite, semidefinite, symmetric, graded_definite)


def pick(rng, makers, *sizes):
    return makers[rng.integers(len(makers))](rng, *sizes)


def square(rng, n):
    return pick(rng, SQUARE, n)


def rectangular(rng, n, m):
    return pick(rng, RECTANGULAR, n, m)


def mild(rng, n):
    """What a textbook would ask: nothing is hidden in it."""
    return gaussian(rng, n) if rng.random() < 0.5 else integers(rng, n)


def positive_stable(rng, n):
    """A hostile matrix moved until its spectrum lies to the right of the imaginary axis, mostly."""
    x = square(rng, n)
    if rng.random() < 0.15 or n == 0:
        return x
    with np.errstate(all="ignore"):
        lowest = np.linalg.eigvals(x).real.min()
    margin = 10.0 ** -rng.uniform(0, rng.choice([1, 6, 12])) * max(np.abs(x).max(), 1e-3)
    return x + (max(-lowest, 0.0) + margin) * np.eye(n)


def contraction(rng, n):
    """A hostile matrix with its spectrum inside the unit circle, mostly."""
    x = square(rng, n)
    if rng.random() < 0.15 or n == 0:
        return x
    with np.errstate(all="ignore"):
        radius = np.abs(np.linalg.eigvals(x)).max()
    return x / max(radius, 1e-30) * (1 - 10.0 ** -rng.uniform(0, rng.choice([1, 6, 12])))


def rotated(rng, x, kind):
    """Complex when asked for: a diagonal unitary similarity, the same for every array of a case, by its sizes."""
    if kind != "c":
        return x
    if x.ndim == 1:
        return x * np.exp(1j * np.arange(1, len(x) + 1))
    if x.ndim == 3:
        return np.stack([rotated(rng, part, kind) for part in x])
    d = [np.exp(1j * np.arange(1, n + 1)) for n in x.shape]
    y = d[0][:, None] * x * d[1].conj()
    return (y + y.conj().T) / 2 if x.shape[0] == x.shape[1] and np.array_equal(x, x.T) else y


def cast(x, dtype):
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
    return x


BAD = (np.nan, np.inf, -np.inf)


def spoiled(rng, x):
    """A member that has no answer, or hardly one, for a batch of good ones."""
    x = x.copy()
    way = rng.integers(0, 5)
    if not x.size:
        return x
    if way < 2:
        x[tuple(rng.integers(0, k) for k in x.shape)] = rng.choice(BAD)
    elif way == 2:
        x[...] = 0
    elif way == 3:
        x[...] = 1
    else:
        with np.errstate(all="ignore"):
            x *= x.dtype.type(rng.choice([1e300, 1e-300, 1e-37, 1e37]))
    return x
