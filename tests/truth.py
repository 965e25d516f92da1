"""Answers in 80 digits for the exact values of floating-point inputs: for small matrices, by the definitions.

Answers are cached in a process, because the tests need the same ones for every method and library.
Arrays hold numbers of mpmath. FLINT computes inverses, linear systems and iterations in the same number of digits.
"""

import functools

import flint
import mpmath as mp
import numpy as np

mp.mp.dps = 80
TINY = 1e-45


def exact(x):
    """An object array of mpf or mpc with exactly the values of `x`; of such an array itself."""
    x = np.asarray(x)
    if x.dtype == object:
        return x
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
    return mp.sqrt(sum((abs(v) ** 2 for v in np.ravel(x)), mp.mpf(0)))


def _to_flint(*arrays):
    """Matrices of FLINT with exactly these values, all real or all complex; sets its precision to that of mpmath."""
    flint.ctx.prec = mp.mp.prec
    is_complex = any(isinstance(v, mp.mpc) for x in arrays for v in x.ravel())
    make = flint.acb_mat if is_complex else flint.arb_mat
    return tuple(make(*x.shape, x.ravel().tolist()) for x in arrays)


def _from_flint(x):
    """The midpoints, as an object array."""
    number = (lambda v: mp.mpc(mp.mpf(v.real), mp.mpf(v.imag))) if isinstance(x, flint.acb_mat) else mp.mpf
    out = np.empty(x.nrows() * x.ncols(), object)
    out[:] = [number(v) for v in x.mid().entries()]
    return out.reshape(x.nrows(), x.ncols())


def _norm(x):
    """Frobenius norm of a matrix of FLINT."""
    return sum((abs(v) ** 2 for v in x.entries()), flint.arb()).mid().sqrt()


def inverse(a):
    """Raises ZeroDivisionError if the matrix is singular in this number of digits."""
    return _from_flint(_to_flint(a)[0].inv()) if len(a) else a


@remembered
def sign(m):
    """mcsgn of a nonsingular matrix, by Newton's iteration."""
    m = exact(m) if np.asarray(m).dtype != object else m
    if not len(m):
        return m
    (x,) = _to_flint(m)
    for _ in range(200):
        y = x.inv().mid()
        moved = float(_norm(x - y) / _norm(x))
        mu = (_norm(y) / _norm(x)).sqrt() if moved > 0.1 else flint.arb(1)
        x = ((x * mu + y / mu) / 2).mid()
        if moved < TINY:
            return _from_flint(x)
    raise ArithmeticError("no sign in 200 steps")


@remembered
def root_pair(a):
    """(A^{1/2}, A^{-1/2}) by the product of the eigenvalues' roots: the coupled iteration of Denman and Beavers."""
    a = exact(a) if np.asarray(a).dtype != object else a
    if not len(a):
        return a, a.copy()
    y, z = _to_flint(a, eye(len(a)))
    for _ in range(200):
        p, q = z.inv().mid(), y.inv().mid()
        moved = float(_norm(y - p) / _norm(y))
        mu = (_norm(p) * _norm(q) / (_norm(y) * _norm(z))).root(4) if moved > 0.1 else flint.arb(1)
        y, z = ((y * mu + p / mu) / 2).mid(), ((z * mu + q / mu) / 2).mid()
        if moved < TINY:
            return _from_flint(y), _from_flint(z)
    raise ArithmeticError("no root in 200 steps")


@remembered
def logarithm(a):
    """log A, to about 70 digits, by square roots until the series of log(I - X) converges fast."""
    root = exact(a) if np.asarray(a).dtype != object else a
    if not len(root):
        return root
    roots = 16
    for _ in range(roots):
        root = root_pair(root)[0]
    (x,) = _to_flint(eye(len(root)) - root)
    term, total, k = x, x, 1
    while float(_norm(term)) > TINY**2:
        k += 1
        term = (term * x).mid()
        total = (total + term / k).mid()
    return _from_flint(total * -(2**roots))


def power(a, t, order=1):
    """A^{t/order} for exactly this number t, as the exponential of a multiple of the logarithm."""
    (x,) = _to_flint(logarithm(a)) if len(a) else (None,)
    return _from_flint((x * (flint.arb(t) / order)).exp()) if len(a) else exact(a)


@remembered
def msign(m):
    """M (MᴴM)^{-1/2} for full rank; 80 digits leave plenty after squaring."""
    m = m if np.asarray(m).dtype == object else exact(m)
    if m.shape[0] < m.shape[1]:
        return adjoint(msign_exact(adjoint(m)))
    return msign_exact(m)


def msign_exact(m):
    return m @ root_pair(adjoint(m) @ m)[1]


@remembered
def procrustes(a, b):
    """msign of AᴴB, of full rank, and the trace of the root of its square."""
    m = adjoint(exact(a)) @ exact(b)
    q = msign(m)
    return q, np.array(mp.re(sum((adjoint(q) @ m).diagonal())), object)


@remembered
def nearest_rotation(m):
    """By singular vectors; the last one is reflected if the determinant is negative. The matrix has full rank."""
    u, _, v = mp.svd_r(mp.matrix(exact(m).tolist()))
    u[:, len(m) - 1] *= mp.sign(mp.det(u * v))
    return np.array((u * v).tolist(), object)


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


@remembered
def discrete_sylvester(a, b, q):
    """a x b - x + q = 0 as one linear system."""
    a, b, q = (exact(x) for x in (a, b, q))
    return _solve(eye(q.size) - np.kron(a, b.T), q, lambda x: q + a @ x @ b - x)


@remembered
def generalized_sylvester(a, b, c, d, q):
    """a x b + c x d = q as one linear system."""
    a, b, c, d, q = (exact(x) for x in (a, b, c, d, q))
    return _solve(np.kron(a, b.T) + np.kron(c, d.T), q, lambda x: q - a @ x @ b - c @ x @ d)


@remembered
def sylvester_pair(a, b, c, d, e, f):
    """a x - y b = c, d x - y e = f as one linear system, (x, y)."""
    a, b, c, d, e, f = (exact(x) for x in (a, b, c, d, e, f))
    n, m = c.shape
    k = np.block([[np.kron(a, eye(m)), -np.kron(eye(n), b.T)], [np.kron(d, eye(m)), -np.kron(eye(n), e.T)]])

    def rest(z):
        x, y = z[:n], z[n:]
        return np.concatenate([c - a @ x + y @ b, f - d @ x + y @ e])

    z = _solve(k, np.concatenate([c, f]), rest)
    return z[:n], z[n:]


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


def fermi(h, kt, mu=None, electrons=None, overlap=None):
    """The density matrix of electrons at a temperature, the chemical potential and the entropy."""
    h = exact(h)
    r = eye(len(h)) if overlap is None else root_pair(overlap)[1]
    values, v = mp.eighe(mp.matrix(((r @ (h + adjoint(h)) @ r) / 2).tolist()))
    levels, v, kt = [mp.re(x) for x in values], r @ np.array(v.tolist(), dtype=object), mp.mpf(float(kt))

    def occupied(mu, sign=1):
        return np.array([1 / (1 + mp.exp(sign * (x - mu) / kt)) for x in levels], dtype=object)

    mu = _potential(levels, kt, mp.mpf(float(electrons)), occupied) if mu is None else mp.mpf(float(mu))
    f = occupied(mu)
    smaller = [min(pair) for pair in zip(f, occupied(mu, -1), strict=True)]
    entropy = -sum(x * mp.log(x) + (1 - x) * mp.log1p(-x) for x in smaller)
    return (v * f) @ adjoint(v), np.array(mu), np.array(entropy)


def _potential(levels, kt, electrons, occupied):
    """By bisection in twice the digits, for the tails of the occupations in a gap."""
    with mp.workdps(2 * mp.mp.dps):
        reach = kt * (mp.log(len(levels) / min(electrons, len(levels) - electrons)) + 1)
        low, high = min(levels) - reach, max(levels) + reach
        for _ in range(400):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(occupied(middle)) < electrons else (low, middle)
        return (low + high) / 2


@remembered
def gramian(a, b):
    b = exact(b)
    return lyapunov(a, -b @ adjoint(b))


@remembered
def discrete_gramian(a, b):
    b = exact(b)
    return stein(a, b @ adjoint(b))


@remembered
def lyapunov_factor(a, b):
    return principal_factor(gramian(a, b))


@remembered
def stein_factor(a, b):
    return principal_factor(discrete_gramian(a, b))


@remembered
def riccati_factor(a, b, c):
    a, b, c = (exact(x) for x in (a, b, c))
    upper, lower = np.concatenate([a, -b @ adjoint(b)], axis=1), np.concatenate([-adjoint(c) @ c, -adjoint(a)], axis=1)
    return principal_factor(_graph(np.concatenate([upper, lower]), len(a), -1))


def _solve(k, q, rest):
    """x of the shape of q with k x = q, entries ordered by rows, where `rest(x)` is the residual q - k x.

    Solves in doubles, repeated for the exact residual while each step is at most half of the last. By elimination if k is
    singular to double precision, or if the steps stop with less than half of the digits.
    """
    if not q.size:
        return q
    rough, x, last = k.astype(complex), q * 0, mp.inf
    if not np.isfinite(rough).all() or np.linalg.cond(rough) > 1e12:
        return _directly(k, q)
    while True:
        left = rest(x)
        scale = size(left)
        if scale == 0:
            return x
        step = np.linalg.solve(rough, (left / scale).astype(complex).ravel()).reshape(q.shape)
        step = exact(step if any(isinstance(v, mp.mpc) for v in left.ravel()) else step.real) * scale
        length = size(step)
        if not length <= last / 2:
            return _directly(k, q)
        x, last = x + step, length
        if length <= mp.eps ** mp.mpf("0.6") * size(x):
            return x


def _directly(k, q):
    """By elimination in this number of digits; raises ZeroDivisionError if k is singular in it."""
    k, right = _to_flint(k, q.reshape(-1, 1))
    return _from_flint(k.solve(right)).reshape(q.shape)


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
def continuous_are(a, b, q, r, e, s, side=-1):
    """The graph of an invariant subspace of the Hamiltonian matrix (-1: the left one), spanned by the projector's columns."""
    a, g, q = _standard(a, b, q, r, e, s)
    n = len(a)
    m = np.concatenate([np.concatenate([a, -g], axis=1), np.concatenate([-q, -adjoint(a)], axis=1)])
    return _graph(m, n, side)


@remembered
def differential_riccati(a, b, q, r, xf, t, s=None):
    """By the exponential of the Hamiltonian matrix, with as many more digits as it may lose."""
    end, size_of_m = exact(xf), sum(float(size(x)) for x in (exact(a), exact(q), exact(b))) + 1
    with mp.workdps(mp.mp.dps + int(size_of_m * float(t))):
        a, g, q = _standard(a, b, q, r, np.eye(len(a)), np.zeros_like(b) if s is None else s)
        m = np.concatenate([np.concatenate([-a, g], axis=1), np.concatenate([q, adjoint(a)], axis=1)])
        e = np.array(mp.expm(mp.matrix(m.tolist()) * mp.mpf(float(t)), method="taylor").tolist(), dtype=object)
        z = e @ np.concatenate([eye(len(a)), end])
        return z[len(a) :] @ inverse(z[: len(a)])


def discrete_horizon(a, b, q, r, qf, s, check=lambda weight: None):
    """The gains and the solutions by the recursion, for sequences of coefficients; `check` sees each r + bᴴ x b."""
    gains, solutions = [], [exact(qf)]
    for step in reversed(range(len(a))):
        f, g, x = exact(a[step]), exact(b[step]), solutions[0]
        weight = exact(r[step]) + adjoint(g) @ x @ g
        check(weight)
        right = adjoint(g) @ x @ f + adjoint(exact(s[step]))
        gains.insert(0, inverse(weight) @ right)
        x = exact(q[step]) + adjoint(f) @ x @ f - adjoint(right) @ gains[0]
        solutions.insert(0, (x + adjoint(x)) * mp.mpf(0.5))
    return np.array(gains), np.array(solutions)


@remembered
def discrete_are(a, b, q, r, e, s, side=-1):
    """The same for the Cayley transform of the symplectic pencil."""
    a, g, q = _standard(a, b, q, r, e, s)
    n = len(a)
    one, zero = eye(n), eye(n) * mp.mpf(0)
    m = np.concatenate([np.concatenate([a, zero], axis=1), np.concatenate([-q, one], axis=1)])
    k = np.concatenate([np.concatenate([one, g], axis=1), np.concatenate([zero, adjoint(a)], axis=1)])
    return _graph(inverse(m - k) @ (m + k), n, side)


@remembered
def riccati_of_g(discrete, a, q, g, side=-1):
    """The solution of the equation with g in place of b and r."""
    a, q, g, n = exact(a), exact(q), exact(g), len(a)
    one, zero = eye(n), eye(n) * mp.mpf(0)
    if not discrete:
        return _graph(_blocks([[a, -g], [-q, -adjoint(a)]]), n, side)
    m, k = _blocks([[a, zero], [-q, one]]), _blocks([[one, g], [zero, adjoint(a)]])
    return _graph(inverse(m - k) @ (m + k), n, side)


def _blocks(rows):
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _graph(m, n, side):
    columns = (eye(len(m)) + sign(m) * side) @ exact(np.random.default_rng(1).standard_normal((len(m), n)))
    return columns[n:] @ inverse(columns[:n])


def error(value, truth):
    """‖value - truth‖ / ‖truth‖, the difference taken in full precision."""
    return float(size(exact(value) - truth) / size(truth))
