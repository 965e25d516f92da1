"""Answers in 80 digits for the exact values of floating-point inputs: slow, for small matrices, by the definitions.

Answers are cached in a process, because the tests need the same ones for every method and library.
"""

import functools

import mpmath as mp
import numpy as np

mp.mp.dps = 80
TINY = mp.mpf(10) ** -45


def exact(x):
    """An object array of mpf or mpc with exactly the values of `x`."""
    x = np.asarray(x)
    make = mp.mpc if x.dtype.kind == "c" else mp.mpf
    out = np.empty(x.shape, object)
    for k, value in np.ndenumerate(x):
        out[k] = make(value.item())
    return out


def remembered(f):
    """`f` with a cache of its answers to floating-point arrays, as read-only arrays."""
    answers = {}

    @functools.wraps(f)
    def call(*arguments):
        arrays = [np.asarray(x) for x in arguments]
        if any(x.dtype == object for x in arrays):
            return f(*arguments)
        key = (mp.mp.dps, *((x.dtype.str, x.shape, x.tobytes()) for x in arrays))
        if key not in answers:
            answers[key] = f(*arguments)
            for x in answers[key] if isinstance(answers[key], tuple) else (answers[key],):
                x.flags.writeable = False
        return answers[key]

    return call


def eye(n):
    return exact(np.eye(n))


def adjoint(x):
    return np.vectorize(mp.conj, otypes=[object])(x.T) if x.size else x.T


def size(x):
    """Frobenius norm."""
    return mp.sqrt(sum((abs(v) ** 2 for v in x.ravel()), mp.mpf(0)))


def inverse(a):
    """Gauss-Jordan elimination with pivoting."""
    n = len(a)
    t = np.concatenate([a, eye(n)], axis=1)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(t[i, k]))
        t[[k, pivot]] = t[[pivot, k]]
        t[k] = t[k] / t[k, k]
        for i in range(n):
            if i != k:
                t[i] = t[i] - t[i, k] * t[k]
    return t[:, n:]


@remembered
def sign(m):
    """mcsgn of a nonsingular matrix, by Newton's iteration."""
    x = exact(m) if np.asarray(m).dtype != object else m
    for _ in range(200):
        y = inverse(x)
        mu = mp.sqrt(size(y) / size(x))
        moved = size(x - y) / size(x)
        mu = mu if moved > 0.1 else mp.mpf(1)
        x = (mu * x + y / mu) / 2
        if moved < TINY:
            return x
    raise ArithmeticError("no sign in 200 steps")


@remembered
def root_pair(a):
    """(A^{1/2}, A^{-1/2}) by the product of the eigenvalues' roots: the coupled iteration of Denman and Beavers."""
    y = exact(a) if np.asarray(a).dtype != object else a
    z = eye(len(y))
    for _ in range(200):
        p, q = inverse(z), inverse(y)
        mu = mp.sqrt(mp.sqrt(size(p) * size(q) / (size(y) * size(z))))
        moved = size(y - p) / size(y)
        mu = mu if moved > 0.1 else mp.mpf(1)
        y, z = (mu * y + p / mu) / 2, (mu * z + q / mu) / 2
        if moved < TINY:
            return y, z
    raise ArithmeticError("no root in 200 steps")


@remembered
def msign(m):
    """M (MᴴM)^{-1/2} for full rank; 80 digits leave plenty after squaring."""
    m = m if np.asarray(m).dtype == object else exact(m)
    if m.shape[0] < m.shape[1]:
        return adjoint(msign_exact(adjoint(m)))
    return msign_exact(m)


def msign_exact(m):
    return m @ root_pair(adjoint(m) @ m)[1]


def _kept(m, t):
    """O R and H for the projector R on the singular values above t, none of which is t; n ≥ m, full rank."""
    o = msign_exact(m)
    h = adjoint(o) @ m
    one = eye(len(h))
    return o @ (one + sign(h - t * one)) / 2, h - t * one


@remembered
def soft_threshold(m, t):
    m = m if np.asarray(m).dtype == object else exact(m)
    if m.shape[0] < m.shape[1]:
        return adjoint(soft_threshold(adjoint(m), t))
    o, gap = _kept(m, mp.mpf(t))
    return o @ gap


@remembered
def mclip(m, lower, upper):
    m = exact(m)
    base = mp.mpf(lower) * msign(m) + soft_threshold(m, lower) if lower else m
    return base - soft_threshold(m, upper)


@remembered
def psd_project(a):
    h = exact(a)
    h = (h + adjoint(h)) / 2
    return (h + h @ sign(h)) / 2


@remembered
def coupled_root(a, b):
    """A (BA)^{-1/2} and its inverse (BA)^{-1/2} B."""
    a, b = exact(a), exact(b)
    z = root_pair(b @ a)[1]
    return a @ z, z @ b


@remembered
def geometric_mean(a, b):
    """A (A⁻¹B)^{1/2}."""
    a, b = exact(a), exact(b)
    return a @ root_pair(inverse(a) @ b)[0]


@remembered
def sylvester(a, b, q):
    """a x + x b = q as one linear system, by Kronecker products."""
    a, b, q = (x if np.asarray(x).dtype == object else exact(x) for x in (a, b, q))
    n, m = q.shape
    k = np.kron(a, eye(m)) + np.kron(eye(n), b.T)
    return _solve(k, q, lambda x: q - a @ x - x @ b)


@remembered
def lyapunov(a, q):
    """a x + x aᴴ = q."""
    return sylvester(a, adjoint(exact(a)), q)


@remembered
def stein(a, q):
    """a x aᴴ - x + q = 0 as one linear system."""
    a, q = (x if np.asarray(x).dtype == object else exact(x) for x in (a, q))
    n = len(a)
    k = eye(n * n) - np.kron(a, adjoint(a).T)
    return _solve(k, q, lambda x: q + a @ x @ adjoint(a) - x)


def principal_factor(x):
    """Eigenvectors times roots of the eigenvalues, the longest first, the largest entry of each real and positive."""
    values, v = mp.eighe(mp.matrix(x.tolist()))
    n = len(x)
    out = np.empty((n, n), object)
    for k in range(n):
        column = [v[i, n - 1 - k] for i in range(n)]
        top = max(column, key=abs)
        for i in range(n):
            out[i, k] = column[i] * mp.conj(top) / abs(top) * mp.sqrt(values[n - 1 - k])
    return out


@remembered
def lyapunov_factor(a, b):
    b = exact(b)
    return principal_factor(lyapunov(a, -b @ adjoint(b)))


@remembered
def stein_factor(a, b):
    b = exact(b)
    return principal_factor(stein(a, b @ adjoint(b)))


def _solve(k, q, rest):
    """x of the shape of q with k x = q, entries ordered by rows, where `rest(x)` is the residual q - k x.

    Solves in doubles, repeated for the exact residual while each step is at most half of the last. By elimination if k is
    singular to double precision, or if the steps stop with less than half of the digits.
    """
    if not q.size:
        return q
    rough, x, last = k.astype(complex), q * 0, mp.inf
    if not np.isfinite(rough).all() or np.linalg.cond(rough) > 1e12:
        return _gauss(k, q.reshape(-1, 1)).reshape(q.shape)
    while True:
        left = rest(x)
        scale = size(left)
        if scale == 0:
            return x
        step = np.linalg.solve(rough, (left / scale).astype(complex).ravel()).reshape(q.shape)
        step = exact(step if any(isinstance(v, mp.mpc) for v in left.ravel()) else step.real) * scale
        length = size(step)
        if not length <= last / 2:
            return _gauss(k, q.reshape(-1, 1)).reshape(q.shape)
        x, last = x + step, length
        if length <= mp.eps ** mp.mpf("0.6") * size(x):
            return x


def _gauss(a, b):
    """By elimination with pivoting, one right-hand side or a few."""
    n = len(a)
    t = np.concatenate([a, b], axis=1)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(t[i, k]))
        t[[k, pivot]] = t[[pivot, k]]
        for i in range(k + 1, n):
            if t[i, k] != 0:
                t[i, k:] = t[i, k:] - t[i, k] / t[k, k] * t[k, k:]
    x = t[:, n:]
    for k in reversed(range(n)):
        x[k] = (x[k] - t[k, k + 1 : n] @ x[k + 1 :] if k + 1 < n else x[k]) / t[k, k]
    return x


@remembered
def riccati(a, b, c, d):
    """The graph of the right invariant subspace of [[a, c], [d, b]], spanned by the projector's columns."""
    m = exact(np.block([[a, c], [d, b]]))
    n, k = len(a), len(b)
    projector = (sign(m) + eye(n + k)) / 2
    columns = projector @ exact(np.random.default_rng(1).standard_normal((n + k, k)))
    return columns[:n] @ inverse(columns[n:])


def _standard(a, b, q, r, e, s):
    """(a, g, q) of the Riccati equation without descriptor and cross term."""
    a, b, q, r, s = (exact(x) for x in (a, b, q, r, s))
    e, r = inverse(exact(e)), inverse(r)
    a, s, q = a @ e, adjoint(e) @ s, adjoint(e) @ q @ e
    return a - b @ r @ adjoint(s), b @ r @ adjoint(b), q - s @ r @ adjoint(s)


@remembered
def continuous_are(a, b, q, r, e, s):
    """The graph of the left invariant subspace of the Hamiltonian matrix, spanned by the projector's columns."""
    a, g, q = _standard(a, b, q, r, e, s)
    n = len(a)
    m = np.concatenate([np.concatenate([a, -g], axis=1), np.concatenate([-q, -adjoint(a)], axis=1)])
    return _left_graph(m, n)


@remembered
def discrete_are(a, b, q, r, e, s):
    """The same for the Cayley transform of the symplectic pencil."""
    a, g, q = _standard(a, b, q, r, e, s)
    n = len(a)
    one, zero = eye(n), eye(n) * mp.mpf(0)
    m = np.concatenate([np.concatenate([a, zero], axis=1), np.concatenate([-q, one], axis=1)])
    k = np.concatenate([np.concatenate([one, g], axis=1), np.concatenate([zero, adjoint(a)], axis=1)])
    return _left_graph(inverse(m - k) @ (m + k), n)


def _left_graph(m, n):
    columns = (eye(len(m)) - sign(m)) @ exact(np.random.default_rng(1).standard_normal((len(m), n)))
    return columns[n:] @ inverse(columns[:n])


def error(value, truth):
    """‖value - truth‖ / ‖truth‖, the difference taken in full precision."""
    return float(size(exact(value) - truth) / size(truth))
