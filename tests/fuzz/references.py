"""Answers in many digits for hostile inputs, or the word that there is none, or that it is not for a reference to say.

The inputs are floating-point numbers and so exact rationals: ranks are decided in rational arithmetic.
"""

from fractions import Fraction

import mpmath as mp
import numpy as np
import scipy.linalg as sl

import truth


class NoAnswerError(Exception):
    """There is no answer: an error is the right one."""


class UnknownError(Exception):
    """What is zero is a matter of rounding here, or the digits do not suffice."""


DIGITS = 80
NEGLIGIBLE = mp.mpf(10) ** -30


def _size(x):
    return truth.size(x)


def _checked(residual, scale):
    if not residual <= NEGLIGIBLE * scale:
        raise UnknownError("the reference has lost its digits")


def gap(x, rtol=None, rows=None):
    """Whether rtol leaves open what is zero in float arithmetic: the singular values after balancing, beside the largest."""
    kind = np.result_type(x.dtype, np.float64)
    eps = float(np.finfo(x.dtype).eps)
    x = x.astype(kind)
    scale = np.abs(x).max(initial=0)
    if not scale:
        return []
    x = x / scale
    found = []
    for y in [x, sl.matrix_balance(x)[0]] if x.shape[0] == x.shape[1] else [x]:
        s = np.linalg.svd(y, compute_uv=False)
        cut = max(x.shape) * eps if rtol is None else rtol
        found.append((s / s[0], cut))
    return found


def clear(x, rtol=None):
    """Every singular value is far above what counts as zero."""
    return all((s > 1e3 * cut).all() and (s > 0).all() for s, cut in gap(x, rtol))


def nullity(x):
    """The exact dimension of the null space."""
    rows, rank = _rational(x), 0
    height, width = len(rows), len(rows[0]) if rows else 0
    for c in range(width):
        pivot = next((r for r in range(rank, height) if rows[r][c] != 0), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for r in range(rank + 1, height):
            if rows[r][c] != 0:
                f = rows[r][c] / rows[rank][c]
                rows[r] = [a - f * b for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return (width - rank) // (2 if np.iscomplexobj(x) else 1)


def _rational(x):
    """Rows of exact numbers; a complex matrix as the real one of twice its size."""
    if np.iscomplexobj(x):
        x = np.block([[x.real, -x.imag], [x.imag, x.real]])
    return [[Fraction(float(v)) for v in row] for row in x]


def exact_rank_is_full(x):
    return x.shape[0] == x.shape[1] and nullity(x) == 0


def sign(m, rtol=None):
    if not nullity(m):
        # Also for rtol=0: on which side of zero an eigenvalue lies that is as small as rounding is not for a reference to say.
        if not (clear(m, rtol) and clear(m, len(m) * float(np.finfo(m.dtype).eps) / 1e3)):
            raise UnknownError
        return _sign(truth.exact(m))
    return _singular_sign(m, rtol)


def _sign(m):
    try:
        s = truth.sign(m)
    except (ArithmeticError, ZeroDivisionError):
        raise NoAnswerError("an eigenvalue is on the axis, or as good as on it") from None
    _checked(_size(s @ s - truth.eye(len(m))), _size(s) ** 2)
    _checked(_size(s @ m - m @ s), _size(s) * _size(m))
    return s


def _singular_sign(m, rtol):
    """By the projector on the generalised null space, from exact null vectors of the power n."""
    power = [[Fraction(0)] * len(m) for _ in m]
    if np.iscomplexobj(m):
        raise UnknownError
    rows = _rational(m)
    power = rows
    for _ in range(len(m) - 1):
        power = [[sum(a * b for a, b in zip(r, c, strict=True)) for c in zip(*rows, strict=True)] for r in power]
    right = _null_vectors(power)
    left = _null_vectors([list(r) for r in zip(*power, strict=True)])
    v, u = _as_exact(right).T, _as_exact(left).T
    p = v @ truth.inverse(u.T @ v) @ u.T
    exact = truth.exact(m)
    if len(right) == len(m):
        return exact * 0
    one = truth.eye(len(m))
    rest = (one - p) @ exact @ (one - p)
    # Of what is left, the nonzero singular values must be far above what counts as zero.
    for y, cut in gap(m, rtol):
        kept = np.sort(y)[::-1][: len(m) - nullity(m)]
        if not (kept > 1e3 * cut).all():
            raise UnknownError
    return _sign(rest + _size(rest) * p) - p


def _null_vectors(rows):
    """A basis of the null space, in rationals."""
    rows, pivots = [list(r) for r in rows], []
    width = len(rows[0])
    for c in range(width):
        r = len(pivots)
        found = next((k for k in range(r, len(rows)) if rows[k][c] != 0), None)
        if found is None:
            continue
        rows[r], rows[found] = rows[found], rows[r]
        rows[r] = [a / rows[r][c] for a in rows[r]]
        for k in range(len(rows)):
            if k != r and rows[k][c] != 0:
                rows[k] = [a - rows[k][c] * b for a, b in zip(rows[k], rows[r], strict=True)]
        pivots.append(c)
    basis = []
    for free in (c for c in range(width) if c not in pivots):
        vector = [Fraction(0)] * width
        vector[free] = Fraction(1)
        for k, c in enumerate(pivots):
            vector[c] = -rows[k][free]
        basis.append(vector)
    return basis


def _as_exact(rows):
    out = np.empty((len(rows), len(rows[0])), object)
    for k, value in np.ndenumerate(np.array(rows, object)):
        out[k] = mp.mpf(value.numerator) / value.denominator
    return out


def absolute(m, rtol=None):
    return truth.exact(m) @ sign(m, rtol)


def projector(m, overlap=None, at=None, half_plane=None, lowest=None, rtol=None):
    if overlap is None and at is None and lowest is None:
        s = sign(m, rtol)
    else:
        values = np.linalg.eigvals(to_axis(m, overlap, at))
        if lowest is not None:
            at = at_gap(m, values, lowest)
        elif not clear(to_axis(m, overlap, at), rtol):
            raise UnknownError
        one = truth.eye(len(m))
        inverse = one if overlap is None else truth.inverse(truth.exact(overlap))
        s = _sign(inverse @ truth.exact(m) - (0 if at is None else mp.mpf(float(at))) * one)
    right = half_plane == "right" or (half_plane is None and lowest is None)
    p = (s @ s + (s if right else -s)) / 2
    p = p if _size(p) > 0.5 else 0 * p  # a projector has norm one or is zero
    return p if overlap is None else p @ truth.inverse(truth.exact(overlap))


def fermi(h, overlap=None, kT=None, mu=None, electrons=None, method="auto"):
    if overlap is not None:
        to_axis(h, overlap, None)
    if electrons is not None and not electrons < len(h):
        raise NoAnswerError("more electrons than states")
    if np.abs(h).max(initial=0) > 1e5 * kT or (
        overlap is not None and np.abs(h).max() > 1e5 * kT * np.diagonal(overlap).min()
    ):
        raise UnknownError
    levels = sl.eigvalsh(h, overlap)
    if electrons is not None and levels[-1] - levels[0] > 300 * kT:
        raise UnknownError  # tails below the digits of the reference decide about mu
    result = truth.fermi(h, kT, 0.0 if mu is None and electrons is None else mu, electrons, overlap)
    if electrons is not None and abs(result[1]) < 1e-8 * kT:
        raise UnknownError  # mu is known beside kT only
    if method == "polynomial" and min(truth.size(result[0]), result[2]) < 1e-2:
        raise UnknownError  # products have errors relative to full occupations
    return result


def to_axis(m, overlap, at):
    """M - at I in floats, or for a pencil K - at I, the better conditioned half of the pencils."""
    if overlap is not None:
        if not np.isfinite(overlap).all() or not exact_rank_is_full(overlap):
            raise UnknownError
        units = np.sqrt(np.abs(np.diagonal(overlap)))
        scaled = overlap / units / units[:, None]
        values = np.linalg.eigvalsh(scaled)
        if values[0] < -1e-3:
            raise NoAnswerError("the overlap is indefinite")
        if not values[0] > 1e-4:
            raise UnknownError
        low = np.linalg.cholesky(scaled)
        m = np.linalg.solve(low, np.linalg.solve(low, m / units / units[:, None]).T.conj()).T.conj()
    return m if at is None else m - m.dtype.type(at) * np.eye(len(m), dtype=m.dtype)


def at_gap(m, values, lowest):
    """The middle of the gap above the lowest eigenvalues of a Hermitian pencil."""
    if np.abs(m - m.T.conj()).max(initial=0) > 1e-3 * np.abs(m).max(initial=0):
        raise NoAnswerError("not Hermitian")
    if not _is_hermitian(m):
        raise UnknownError
    values = np.sort(values.real)
    inside = np.concatenate([[values[0] - abs(values[0]) - 1], values, [values[-1] + abs(values[-1]) + 1]])
    if lowest > len(m):
        raise NoAnswerError("fewer eigenvalues")
    below, above = inside[lowest], inside[lowest + 1]
    if not above - below > 1e-4 * np.abs(values).max():
        raise UnknownError
    return (below + above) / 2


def svd(m):
    """(u, s, v) with m = u diag(s) v, columns as many as the shorter side."""
    return _svd(truth.exact(m), np.iscomplexobj(m))


def _svd(m, is_complex):
    if m.shape[0] < m.shape[1]:
        u, s, v = _svd(truth.adjoint(m), is_complex)
        return truth.adjoint(v), s, truth.adjoint(u)
    if not m.size:
        return m, [], m
    u, s, v = (mp.svd_c if is_complex else mp.svd_r)(mp.matrix(m.tolist()), full_matrices=False)
    return _array(u), list(s), _array(v)


def _array(x):
    out = np.empty((x.rows, x.cols), object)
    for i in range(x.rows):
        for j in range(x.cols):
            out[i, j] = x[i, j]
    return out


def _kept(s, cut, tiny=1e3):
    """Which singular values are no zeros; those near the cut are nobody's."""
    top = max(s, default=mp.mpf(0))
    if not top:
        return [False] * len(s)
    relative = [x / top for x in s]
    if any(cut / tiny < x < cut * tiny for x in relative) or (cut == 0 and any(0 < x < 1e-60 for x in relative)):
        raise UnknownError
    return [x > cut for x in relative]


def _cut(m, rtol):
    return max(m.shape, default=0) * float(np.finfo(m.dtype).eps) if rtol is None else rtol


def msign(m, rtol=None):
    u, s, v = svd(m)
    kept = np.array([mp.mpf(int(k)) for k in _kept(s, _cut(m, rtol))], object)
    return (u * kept) @ v if len(s) else truth.exact(m)


def nearest_rotation(m, rtol=None):
    u, s, v = svd(m)
    if len(s) < 2:
        return truth.exact(np.eye(len(s)))
    d = mp.sign(mp.det(mp.matrix((u @ v).tolist())))
    if not s[-2] + d * s[-1] > max(_cut(m, rtol), 1e3 * float(np.finfo(m.dtype).eps)) * s[0]:
        raise UnknownError("several rotations are nearest, or almost")
    return (u * np.array([mp.mpf(1)] * (len(s) - 1) + [d], object)) @ v


def _semidefinite_factor(a, rtol):
    """K of A = K Kᴴ; there is none if an eigenvalue is clearly negative, and it is open if one is near zero."""
    n, eps = len(a), float(np.finfo(a.dtype).eps)
    if not n:
        return truth.exact(a)
    values, v = mp.eighe(
        mp.matrix(truth.exact((a + a.conj().T) / 2 if not np.array_equal(a, a.conj().T) else a).tolist())
    )
    values = list(values)
    top = max(map(abs, values))
    cut = max(n * eps, rtol or 0) * 1e3
    if top and min(values) < -cut * top:
        raise NoAnswerError("a negative eigenvalue")
    if top and min(values) < cut * top:
        raise UnknownError("an eigenvalue is near zero")
    return _array(v) * np.array([mp.sqrt(max(x, mp.mpf(0))) for x in values], object)


def _fidelity_root(a, b, rtol):
    m = truth.adjoint(_semidefinite_factor(a, rtol)) @ _semidefinite_factor(b, rtol)
    return sum(_svd(m, np.iscomplexobj(a))[1], mp.mpf(0))


def fidelity(a, b, squared=True, rtol=None):
    root = _fidelity_root(a, b, rtol)
    return np.array(root**2 if squared else root, object)


def bures_distance(a, b, squared=False, rtol=None):
    traces = sum((mp.re(x) for y in (a, b) for x in truth.exact(y).diagonal()), mp.mpf(0))
    value = traces - 2 * _fidelity_root(a, b, rtol)
    value = mp.mpf(0) if value < NEGLIGIBLE**2 * traces else value
    return np.array(value if squared else mp.sqrt(value), object)


def frechet_distance(mu1, a, mu2, b, rtol=None):
    shift = truth.size(truth.exact(mu1) - truth.exact(mu2)) ** 2
    return np.array(shift + bures_distance(a, b, True, rtol).item(), object)


def _root_of_factors(f, g, is_complex):
    return sum(_svd(truth.adjoint(f) @ g, is_complex)[1], mp.mpf(0)) if f.size and g.size else mp.mpf(0)


def fidelity_of_factors(f, g, squared=True):
    root = _root_of_factors(truth.exact(f), truth.exact(g), np.iscomplexobj(f))
    return np.array(root**2 if squared else root, object)


def _squared_distance_of_factors(f, g, is_complex):
    traces = truth.size(f) ** 2 + truth.size(g) ** 2
    value = traces - 2 * _root_of_factors(f, g, is_complex)
    return mp.mpf(0) if value < NEGLIGIBLE**2 * traces else value


def bures_distance_of_factors(f, g, squared=False):
    value = _squared_distance_of_factors(truth.exact(f), truth.exact(g), np.iscomplexobj(f))
    return np.array(value if squared else mp.sqrt(value), object)


def frechet_distance_of_samples(x, y):
    if min(len(x), len(y)) < 2:
        raise NoAnswerError("one sample has no covariance")
    means, factors = [], []
    for z in (truth.exact(x), truth.exact(y)):
        means.append(z.sum(0) / len(z))
        factors.append((z - means[-1]).T / mp.sqrt(len(z) - 1))
    covariances = _squared_distance_of_factors(*factors, np.iscomplexobj(x))
    return np.array(truth.size(means[0] - means[1]) ** 2 + covariances, object)


def riemannian_distance(a, b, squared=False):
    """By the eigenvalues of K⁻¹ B K⁻ᴴ; open where a matrix is near to a singular one in every scaling that makes it even."""
    factors = [_definite_factor(x) for x in (a, b)]
    if not len(a):
        return np.array(mp.mpf(0), object)
    inverse = _array(mp.matrix(factors[0].tolist()) ** -1)
    whitened = inverse @ factors[1]
    value = sum((mp.log(x) ** 2 for x in _svd(whitened, np.iscomplexobj(a))[1]), mp.mpf(0)) * 4
    value = mp.mpf(0) if value < NEGLIGIBLE**2 else value
    return np.array(value if squared else mp.sqrt(value), object)


def _definite_factor(a):
    n, eps = len(a), float(np.finfo(a.dtype).eps)
    values = np.linalg.eigvalsh(a) if n else np.ones(1)
    if values[0] < -1e3 * n * eps * np.abs(values).max():
        raise NoAnswerError("a negative eigenvalue")
    exact = (truth.exact(a) + truth.adjoint(truth.exact(a))) / 2
    diagonal = [mp.re(x) for x in exact.diagonal()]
    if n and min(diagonal) <= 0:
        raise NoAnswerError("a diagonal entry is not positive")
    units = np.array([1 / mp.sqrt(x) for x in diagonal], object)
    even = mp.eighe(mp.matrix((units[:, None] * exact * units).tolist()))[0] if n else [mp.mpf(1)]
    if min(even) < 1e3 * n * eps:
        raise UnknownError("an eigenvalue is near zero")
    return _array(mp.cholesky(mp.matrix(exact.tolist()), tol=0)) if n else exact


def _weights(stack, weights):
    w = truth.exact(np.ones(len(stack)) if weights is None else np.real(weights))
    if not len(w) or min(w) < 0 or not sum(w) or np.any(np.imag(np.zeros(1) if weights is None else weights)):
        raise NoAnswerError("these are no weights")
    return w / sum(w)


def _of_eigenvalues(f, x):
    """f of the eigenvalues of a Hermitian matrix, and f(x)."""
    values, v = mp.eighe(mp.matrix(((x + truth.adjoint(x)) / 2).tolist()))
    v, values = _array(v), [f(t) for t in values]
    return values, (v * np.array(values, object)) @ truth.adjoint(v)


def _unit_diagonal_eigenvalues(a):
    """The smallest eigenvalue in units that make the diagonal 1."""
    d = a.diagonal()
    if not all(mp.re(x) > 0 for x in d):
        return mp.mpf(-1)
    d = np.array([1 / mp.sqrt(mp.re(x)) for x in d], object)
    return min(_of_eigenvalues(lambda t: t, d[:, None] * a * d)[0])


def karcher_mean(stack, weights=None):
    """By the relaxation of Bini & Iannazzo."""
    w, n, eps = _weights(stack, weights), stack.shape[1], float(np.finfo(stack.dtype).eps)
    stack = [truth.exact(a) for a in stack]
    if not n:
        return stack[0]
    least = min(_unit_diagonal_eigenvalues(a) for a in stack)
    doubt = 1e3 * n * eps
    if least < doubt:
        raise (NoAnswerError if least < -doubt else UnknownError)("not definite")
    low = _array(mp.cholesky(mp.matrix(sum(x * a for x, a in zip(w, stack, strict=True)).tolist())))
    for _ in range(150):
        inside = truth.inverse(low)
        pairs = [_of_eigenvalues(mp.log, inside @ a @ truth.adjoint(inside)) for a in stack]
        s = sum(x * logs for x, (_, logs) in zip(w, pairs, strict=True))
        spread = [(max(values) - min(values)) / 2 for values, _ in pairs]
        steep = sum(x * (d * mp.coth(d) if d else 1) for x, d in zip(w, spread, strict=True))
        low = low @ _of_eigenvalues(mp.exp, s / (1 + steep))[1]
        if _size(s) < NEGLIGIBLE:
            return low @ truth.adjoint(low)
    raise UnknownError("too slow")


def bures_mean(stack, weights=None, rtol=None):
    """By the fixed point of Álvarez-Esteban et al."""
    w, n = _weights(stack, weights), stack.shape[1]
    if not n:
        return truth.exact(stack[0])
    kept = [(x, _semidefinite_factor(a, rtol)) for x, a in zip(w, stack, strict=True) if x]
    factors = [(x, k @ truth.adjoint(k)) for x, k in kept]
    mean = sum(x * a for x, a in factors)
    for _ in range(150):
        root = _of_eigenvalues(lambda t: mp.sqrt(max(t, 0)), mean)[1]
        s = sum(x * _of_eigenvalues(lambda t: mp.sqrt(max(t, 0)), root @ a @ root)[1] for x, a in factors)
        if _size(s - mean) < NEGLIGIBLE * _size(mean):
            return mean
        inverse = truth.inverse(root)
        mean = inverse @ s @ s @ inverse
    raise UnknownError("too slow")


def stiefel_step(w, g, gap=None):
    """At a dual minimum of full rank: Newton's steps in doubles, then with the same Jacobian in many digits."""
    if w.shape[0] < w.shape[1]:
        return (truth.adjoint(stiefel_step(np.conj(w.T), np.conj(g.T), gap)[0]),)
    if np.linalg.norm(np.conj(w.T) @ w - np.eye(w.shape[1])) > 5e-3 or np.iscomplexobj(w) or w.shape[1] > 3:
        raise UnknownError("W is off the manifold, or the dual has many unknowns")
    base = truth.msign(w)
    if w.shape[0] == w.shape[1]:
        k = (truth.adjoint(base) @ truth.exact(g) - truth.adjoint(truth.exact(g)) @ base) / 2
        tangent = np.array(k.tolist(), float)
        if (
            gap is not None
            or not clear(tangent)
            or np.linalg.norm(tangent) < 1e3 * np.finfo(g.dtype).eps * np.linalg.norm(g)
        ):
            raise UnknownError("a step to a gap, or several, or a tangent part that is rounding errors")
        return (base @ truth.msign(k),)
    rows, columns = np.triu_indices(w.shape[1])
    units = [np.zeros((w.shape[1],) * 2) for _ in rows]
    for unit, i, j in zip(units, rows, columns, strict=True):
        unit[i, j] = unit[j, i] = 1
    return (_step_at_smooth_minimum([base @ truth.exact(x) for x in units], g, gap),)


def sphere_step(w, g, gap=None):
    if w.shape[0] < w.shape[1]:
        return (truth.adjoint(sphere_step(np.conj(w.T), np.conj(g.T), gap)[0]),)
    u, s, v = _svd(truth.exact(w), np.iscomplexobj(w))
    if not len(s) or not s[0] or (len(s) > 1 and s[1] > s[0] * mp.mpf("0.99")):
        raise UnknownError("W is zero, or has nearly two largest singular values")
    return (_step_at_smooth_minimum([u[:, :1] @ v[:1]], g, gap),)


def _step_at_smooth_minimum(normals, g, gap):
    """The msign of G + Σ xₖ Nₖ where it is orthogonal to all Nₖ."""
    size = np.abs(g).max(initial=0)
    if gap is not None or not size:
        raise UnknownError("a step to a gap, or of no gradient")
    g, places = truth.exact(g / size), [np.array(x.tolist(), complex if np.iscomplexobj(g) else float) for x in normals]

    def slopes(x):
        u, s, v = np.linalg.svd(np.array(g.tolist(), places[0].dtype) + np.tensordot(x, places, 1), full_matrices=False)
        if s[-1] < 1e-3 * s[0]:
            raise UnknownError("a dual minimum at a singular matrix")
        return np.array([np.vdot(n, u @ v).real for n in places])

    def jacobian(x):
        return np.array([(slopes(x + h) - slopes(x - h)) / 2e-6 for h in 1e-6 * np.eye(len(x))]).T

    x = sl.lstsq(np.array([p.ravel() for p in places]).T.real, -np.array(g.tolist(), complex).ravel().real)[0]
    for _ in range(60):
        slope, j = slopes(x), jacobian(x)
        move = np.linalg.lstsq(j, -slope, rcond=None)[0]
        x = x + move / (1 + np.linalg.norm(move))
    if not np.linalg.norm(slope) < 1e-9 or np.linalg.cond(j) > 1e4:
        raise UnknownError("no smooth minimum")
    exact, inverse = truth.exact(x), truth.exact(np.linalg.inv(j))
    for _ in range(20):
        u = truth.msign(g + sum(t * n for t, n in zip(exact, normals, strict=True)))
        slope = np.array([mp.re(sum(np.ravel(np.vectorize(mp.conj, otypes=[object])(n) * u))) for n in normals], object)
        exact = exact - inverse @ slope
    _checked(truth.size(slope), 1)
    return u


def procrustes(a, b, rtol=None):
    m = truth.adjoint(truth.exact(a)) @ truth.exact(b)
    u, s, v = _svd(m, np.iscomplexobj(a))
    size = truth.size(truth.exact(a)) * truth.size(truth.exact(b))
    if not len(s) or not s[-1] > max(_cut(m, rtol), 1e3 * float(np.finfo(a.dtype).eps)) * size:
        raise UnknownError("several matrices are nearest, or almost")
    return u @ v, np.array(sum(s), object)


def kabsch(p, q, weights=None, rtol=None):
    """The rotation alone: translation and rmsd may cancel, and their errors are relative to the sizes of the sets."""
    eps = 1e3 * float(np.finfo(p.dtype).eps)
    w = truth.exact(np.ones(len(p)) if weights is None else weights)
    if not len(w) or min(w) < 0 or not sum(w):
        raise NoAnswerError("these are no weights")
    w = (w / sum(w))[:, None]
    x, y = truth.exact(p), truth.exact(q)
    p0, q0 = (w * x).sum(0), (w * y).sum(0)
    m = (w * (y - q0)).T @ (x - p0)
    size = truth.size(x) * truth.size(y) * max(w.ravel())
    if p.shape[1] < 2:
        return truth.exact(np.eye(p.shape[1]))
    u, s, v = _svd(m, False)
    d = mp.sign(mp.det(mp.matrix((u @ v).tolist())))
    if not s[-2] + d * s[-1] > max(rtol or 0, eps) * size:
        raise UnknownError("several rotations are nearest, or almost")
    return (u * np.array([mp.mpf(1)] * (len(s) - 1) + [d], object)) @ v


def polar(m, rtol=None):
    u = msign(m, rtol)
    h = truth.adjoint(u) @ truth.exact(m)
    return u, (h + truth.adjoint(h)) / 2


def mclip(m, lower=0.0, upper=1.0, rtol=None):
    u, s, v = svd(m)
    if not len(s):
        return truth.exact(m)
    kept = _kept(s, _cut(m, rtol)) if lower > 0 else [True] * len(s)
    new = [min(max(x, mp.mpf(lower)), mp.mpf(upper)) if k else mp.mpf(0) for x, k in zip(s, kept, strict=True)]
    return (u * np.array(new, object)) @ v


def best_approximation(m, state=None, *, k):
    """The k largest singular values, and the nearest matrix of rank k."""
    u, s, v = svd(m)
    if k < len(s) and not s[k - 1] - s[k] > 1e3 * np.finfo(m.dtype).eps * s[0]:
        raise UnknownError("several matrices of rank k are nearest, or almost")
    return np.array(s[:k], object), (u[:, :k] * np.array(s[:k], object)) @ v[:k]


def soft_threshold(m, t):
    u, s, v = svd(m)
    if not len(s):
        return truth.exact(m)
    return (u * np.array([max(x - mp.mpf(t), mp.mpf(0)) for x in s], object)) @ v


def psd_project(a):
    h = truth.exact(a)
    h = (h + truth.adjoint(h)) / 2
    values, v = mp.eighe(mp.matrix(h.tolist()))
    v = _array(v)
    return (v * np.array([max(x, mp.mpf(0)) for x in values], object)) @ truth.adjoint(v)


def _is_hermitian(a):
    return np.array_equal(a, a.conj().T)


def root_pair(a, rtol=None):
    if _is_hermitian(a):
        return _root_of_hermitian(a, rtol)
    if nullity(a) or not clear(a, rtol) or _beside_cut(a):
        raise UnknownError
    return _root_pair(truth.exact(a))


def _beside_cut(a):
    """Whether rounding may put an eigenvalue of a complex matrix on the branch cut, where it counts as above it."""
    if not np.iscomplexobj(a):
        return False
    values = np.linalg.eigvals(a.astype(complex))
    return bool(((values.real < 0) & (np.abs(values.imag) < 1e-3 * np.abs(values))).any())


def _root_pair(a):
    try:
        x, z = truth.root_pair(a)
    except (ArithmeticError, ZeroDivisionError):
        raise NoAnswerError("an eigenvalue on the negative axis, or as good as on it") from None
    _checked(_size(x @ x - a), _size(x) ** 2)
    _checked(_size(x @ z - truth.eye(len(a))), _size(x) * _size(z))
    return x, z


def _root_of_hermitian(a, rtol):
    values, v = mp.eighe(mp.matrix(truth.exact(a).tolist()))
    v = _array(v)
    sizes = [abs(x) for x in values]
    kept = _kept(sizes, _cut(a, rtol))
    if not np.iscomplexobj(a) and any(k and x < 0 for k, x in zip(kept, values, strict=True)):
        raise NoAnswerError("a negative eigenvalue")
    root = np.array([mp.sqrt(x) if k else mp.mpf(0) for k, x in zip(kept, values, strict=True)], object)
    inverse = np.array([1 / mp.sqrt(x) if k else mp.mpf(0) for k, x in zip(kept, values, strict=True)], object)
    return (v * root) @ truth.adjoint(v), (v * inverse) @ truth.adjoint(v)


def power(a, t, order=1, rtol=None):
    """A^{t/order}; for a Hermitian matrix by eigenvectors, of others only with full rank."""
    f = lambda x: mp.exp(mp.mpf(t) / order * mp.log(x))  # noqa: E731
    if float(t) == int(t) and order == 1 and (t >= 0 or not _is_hermitian(a)):
        raise UnknownError
    return _function(a, f, lambda a: truth.power(a, t, order), rtol)


def logarithm(a, rtol=None):
    return _function(a, mp.log, truth.logarithm, rtol, singular=True)


def _function(a, f, of_general, rtol, singular=False):
    if _is_hermitian(a):
        values, v = mp.eighe(mp.matrix(truth.exact(a).tolist()))
        kept = _kept([abs(x) for x in values], _cut(a, rtol))
        if not np.iscomplexobj(a) and any(k and x < 0 for k, x in zip(kept, values, strict=True)):
            raise NoAnswerError("a negative eigenvalue")
        if singular and not all(kept):
            raise NoAnswerError("a singular matrix")
        v = _array(v)
        image = np.array([f(x) if k else mp.mpf(0) for k, x in zip(kept, values, strict=True)], object)
        return (v * image) @ truth.adjoint(v)
    if nullity(a) or not clear(a, rtol) or _beside_cut(a):
        raise UnknownError
    exact = truth.exact(a)
    try:
        value, twice = of_general(exact), _root_pair(exact)[0]
    except NoAnswerError:
        if np.iscomplexobj(a):
            raise UnknownError from None
        raise
    _checked(_size(of_general(twice) - (value / 2 if singular else _root_pair(value)[0])), _size(value))
    return value


def coupled_root(a, b, rtol=None):
    if nullity(a) or nullity(b) or not (clear(a, rtol) and clear(b, rtol)):
        raise UnknownError
    a, b = truth.exact(a), truth.exact(b)
    _, z = _root_pair(b @ a)
    return a @ z, z @ b


def geometric_mean(a, b, rtol=None, t=0.5):
    if t in (0, 1):
        return truth.exact(b if t else a)
    if nullity(a) or nullity(b) or not (clear(a, rtol) and clear(b, rtol)):
        raise UnknownError
    a, b = truth.exact(a), truth.exact(b)
    if t != 0.5:
        quotient = truth.inverse(a) @ b
        _root_pair(quotient)  # raises where there is no mean
        return a @ truth.power(quotient, t)
    return a @ _root_pair(truth.inverse(a) @ b)[0]


def _linear(f, *arguments):
    try:
        return f(*arguments)
    except ZeroDivisionError:
        raise NoAnswerError("a singular equation") from None


def sylvester(a, b, q):
    a, b, q = (truth.exact(x) for x in (a, b, q))
    x = _linear(truth.sylvester, a, b, q)
    _checked(_size(a @ x + x @ b - q), _size(a) * _size(x) + _size(x) * _size(b))
    return x


def lyapunov(a, q, e=None):
    h = truth.adjoint
    return sylvester(a, h(a), q) if e is None else generalized_sylvester(a, h(e), e, h(a), q)


def stein(a, q, e=None):
    if e is not None:
        if nullity(e):
            raise NoAnswerError("e is singular")
        return generalized_sylvester(e, truth.adjoint(e), -a, truth.adjoint(a), q)
    x = _linear(truth.stein, a, q)
    e = truth.exact(a)
    _checked(_size(e @ x @ truth.adjoint(e) - x + truth.exact(q)), _size(e) ** 2 * _size(x) + _size(x))
    return x


def discrete_sylvester(a, b, q):
    x = _linear(truth.discrete_sylvester, a, b, q)
    a, b, q = (truth.exact(x) for x in (a, b, q))
    _checked(_size(a @ x @ b - x + q), _size(a) * _size(x) * _size(b) + _size(x))
    return x


def generalized_sylvester(a, b, c, d, q):
    x = _linear(truth.generalized_sylvester, a, b, c, d, q)
    a, b, c, d, q = (truth.exact(x) for x in (a, b, c, d, q))
    _checked(_size(a @ x @ b + c @ x @ d - q), (_size(a) * _size(b) + _size(c) * _size(d)) * _size(x))
    return x


def sylvester_pair(a, b, c, d, e, f):
    x, y = _linear(truth.sylvester_pair, a, b, c, d, e, f)
    a, b, c, d, e, f = (truth.exact(z) for z in (a, b, c, d, e, f))
    size = (_size(a) + _size(d)) * _size(x) + (_size(b) + _size(e)) * _size(y)
    _checked(max(_size(a @ x - y @ b - c), _size(d @ x - y @ e - f)), size)
    # One of the two may be zero, up to the rounding of the other.
    x = x if (_size(a) + _size(d)) * _size(x) > NEGLIGIBLE * size else 0 * x
    y = y if (_size(b) + _size(e)) * _size(y) > NEGLIGIBLE * size else 0 * y
    return x, y


def gramian(a, b):
    b = truth.exact(b)
    exact = truth.exact(a)
    return _linear(truth.sylvester, exact, truth.adjoint(exact), -b @ truth.adjoint(b))


def stein_gramian(a, b):
    b = truth.exact(b)
    return stein_exact(truth.exact(a), b @ truth.adjoint(b))


def stein_exact(a, q):
    return _linear(truth.stein, a, q)


def _standard_form(e, a, b):
    """e⁻¹ a and e⁻¹ b in many digits; without an e the arrays themselves."""
    if e is None:
        return a, b
    if nullity(e):
        raise NoAnswerError("e is singular")
    inverse = truth.inverse(truth.exact(e))
    return inverse @ truth.exact(a), inverse @ truth.exact(b)


def _stable(a, discrete=False):
    """A `NoAnswerError` unless every eigenvalue is inside."""
    if len(a) == 1:
        values = [truth.exact(a)[0, 0]]
    else:
        values = mp.eig(mp.matrix(truth.exact(a).tolist()), left=False, right=False)
    if max(abs(v) - 1 if discrete else mp.re(v) for v in values) >= 0:
        raise NoAnswerError("not stable")


def hankel(a, b, c, e=None, dt=None, order=None):
    """The Hankel singular values: infinite for poles that are not stable, which `order` must not be less than."""
    near = 4 * float(np.sqrt(np.finfo(c.dtype).eps))
    a, b = _standard_form(e, a, b)
    with np.errstate(all="ignore"):
        double = np.array(a, complex)
    if not np.isfinite(double).all():
        raise UnknownError("poles are beyond doubles")
    poles = np.linalg.eigvals(double)
    outside = np.abs(poles) - 1 if dt is not None else poles.real / max(np.abs(poles).max(), np.finfo(float).tiny)
    if (np.abs(outside) <= near).any():
        raise UnknownError("a pole counts as one on the boundary")
    try:
        _stable(a, dt is not None)
    except NoAnswerError:
        return _hankel_of_stable_part(a, b, c, dt is not None, order)
    of_pair = gramian if dt is None else stein_gramian
    return _hankel_of_gramians(of_pair(a, b), of_pair(truth.adjoint(a), truth.adjoint(c)))


def hankel_of_model(a, b, c, d=None, e=None, **options):
    return hankel(a, b, c, e, **options)


def _hankel_of_stable_part(a, b, c, discrete, order):
    """From eigenvectors; unknown if a pole is near the boundary, or if they are nearly dependent."""
    a, b, c = (truth.exact(x) for x in (a, b, c))
    values, v = mp.eig(mp.matrix(a.tolist())) if len(a) > 1 else ([a[0, 0]], mp.matrix([[1]]))
    size = 1 if discrete else max(abs(x) for x in values)
    outside = [abs(x) - 1 if discrete else mp.re(x) for x in values]
    if min(abs(x) for x in outside) <= size / 500:
        raise UnknownError("a pole is near the boundary")
    try:
        inverse = _array(mp.inverse(v))
    except ZeroDivisionError:
        raise UnknownError from None
    if _size(inverse) * _size(_array(v)) > 1000:
        raise UnknownError("poles are nearly equal")
    stable = [k for k, x in enumerate(outside) if x < 0]
    kept = len(values) - len(stable)
    if order is not None and order < kept:
        raise NoAnswerError("more kept poles than states")
    poles, b, c = np.array(values, object)[stable], (inverse @ b)[stable], (c @ _array(v))[:, stable]
    rest = _hankel_of_gramians(*(_modal_gramian(*x, discrete) for x in ((poles, b), (poles.conj(), truth.adjoint(c)))))
    return np.concatenate([[mp.inf] * kept, rest]) if stable else np.array([mp.inf] * kept, object)


def _modal_gramian(poles, b, discrete):
    products = poles[:, None] * poles.conj() if discrete else poles[:, None] + poles.conj()
    return (b @ truth.adjoint(b)) / (1 - products if discrete else -products)


def _hankel_of_gramians(p, q):
    if not len(p):
        return np.zeros(0, object)
    values, v = mp.eighe(mp.matrix(((p + truth.adjoint(p)) / 2).tolist()))
    v = _array(v)
    r = v * np.array([mp.sqrt(max(x, mp.mpf(0))) for x in values], object)
    inner = truth.adjoint(r) @ q @ r
    inner = (inner + truth.adjoint(inner)) / 2
    values = mp.eighe(mp.matrix(inner.tolist()), eigvals_only=True)
    found = np.array(sorted((mp.sqrt(max(x, mp.mpf(0))) for x in values), reverse=True), object)
    if found[0] ** 2 <= NEGLIGIBLE * _size(p) * _size(q):
        raise UnknownError("no state is both reached and seen")
    return found


def riccati_values(a, b, c, d=None, sigma=1):
    """The roots of the eigenvalues of the product of both solutions."""
    h = truth.adjoint
    a, b, c = (truth.exact(x) for x in (a, b, c))
    d = c @ b * mp.mpf(0) if d is None else truth.exact(d)

    def solve(a, b, c, d):
        x = _are(False, a, b, h(c) @ c, h(d) @ d + sigma * truth.eye(d.shape[1]), truth.eye(len(a)), h(c) @ d)
        return (x + h(x)) / 2

    x, w = solve(h(a), h(c), h(b), h(d)), solve(a, b, c, d)
    squares, v = mp.eighe(mp.matrix(x.tolist()))
    root = _array(v) * np.array([mp.sqrt(max(y, mp.mpf(0))) for y in squares], object)
    inner = h(root) @ w @ root
    squares = mp.eighe(mp.matrix(((inner + h(inner)) / 2).tolist()), eigvals_only=True)
    found = np.array(sorted((mp.sqrt(max(y, mp.mpf(0))) for y in squares), reverse=True), object)
    if found[0] ** 2 <= NEGLIGIBLE * _size(x) * _size(w):
        raise UnknownError("no state is both reached and seen")
    return found


def bounded_real_values(a, b, c, d=None, gamma=1.0):
    """Of a model with H∞ norm below gamma; what a norm near gamma gives is not for a reference to say."""
    _stable(a)
    root = mp.sqrt(mp.mpf(gamma))
    a, b, c = truth.exact(a), truth.exact(b) / root, truth.exact(c) / root
    try:
        found = riccati_values(a, b, c, None if d is None else truth.exact(d) / root**2, -1)
    except NoAnswerError:
        raise UnknownError from None
    if found[0] >= 1:
        raise UnknownError
    return found


def transfer_function(a, b, c, d=None, rtol=None, order=None):
    """c (s I - a)⁻¹ b at an s of twice the norm of a, and d."""
    if rtol or order:
        raise UnknownError
    value = transfer_at(a, a, b, c)
    if _size(value) <= mp.mpf(10) ** -6 * _size(truth.exact(c)) * _size(truth.exact(b)) / (_size(truth.exact(a)) or 1):
        raise UnknownError("the terms cancel")
    return value, np.zeros((len(c), b.shape[1]), object) if d is None else truth.exact(d)


def transfer_at(of, a, b, c):
    """c (s I - a)⁻¹ b at an s of twice the norm of another matrix."""
    of, a, b, c = (truth.exact(x) for x in (of, a, b, c))
    s = 2 * (_size(of) or mp.mpf(1))
    return c @ truth.inverse(s * truth.eye(len(a)) - a) @ b if len(a) else np.zeros((len(c), b.shape[1]), object)


def riccati(a, b, c, d, half_plane="right"):
    m = np.block([[a, c], [d, b]])
    if nullity(m):
        raise UnknownError
    s = _sign(truth.exact(m))
    n, k = len(a), len(b)
    s = s if half_plane == "right" else -s
    p = (s + truth.eye(n + k)) / 2
    dimension = sum(p[i, i] for i in range(n + k))
    if abs(dimension - k) > 0.5:
        raise NoAnswerError("the wrong number of eigenvalues")
    columns = p @ truth.exact(np.random.default_rng(0).standard_normal((n + k, k)))
    x = _linear(lambda: columns[:n] @ truth.inverse(columns[n:]))
    a, b, c, d = (truth.exact(y) for y in (a, b, c, d))
    terms = (x @ d @ x, x @ b, a @ x, c)
    _checked(_size(terms[0] + terms[1] - terms[2] - terms[3]), sum(_size(t) for t in terms))
    return x


def are(discrete, a, b, q, r, e=None, s=None, g=None, x0=None, half_plane="left", circle="inside"):
    """The stabilising solution from the sign of the Hamiltonian (of the Cayley transform of the symplectic pencil).

    The anti-stabilising one from its negative.
    """
    e = np.eye(len(a), dtype=a.dtype) if e is None else e
    side = 1 if half_plane == "right" or circle == "outside" else -1
    if g is not None:
        if nullity(e):
            raise UnknownError
        if circle == "outside" and nullity(a):
            raise NoAnswerError("the closed loop has the eigenvalue 0")
        ei, a, q, g = truth.inverse(truth.exact(e)), truth.exact(a), truth.exact(q), truth.exact(g)
        return _standard_are(discrete, a @ ei, g, truth.adjoint(ei) @ q @ ei, side)
    s = np.zeros(b.shape, a.dtype) if s is None else s
    if nullity(r) or nullity(e):
        raise UnknownError
    if circle == "outside" and nullity(np.block([[a, b], [s.conj().T, r]])):
        raise NoAnswerError("the closed loop has the eigenvalue 0")
    return _are(discrete, *(truth.exact(y) for y in (a, b, q, r, e, s)), side)


def extremal(*arrays):
    """The stabilising and the anti-stabilising solution in continuous time."""
    return tuple(are(False, *arrays, half_plane=side) for side in ("left", "right"))


def discrete_extremal(*arrays):
    return tuple(are(True, *arrays, circle=side) for side in ("inside", "outside"))


def _are(discrete, a, b, q, r, e, s, side=-1):
    ei, ri = truth.inverse(e), truth.inverse(r)
    a, s, q = a @ ei, truth.adjoint(ei) @ s, truth.adjoint(ei) @ q @ ei
    a, g, q = a - b @ ri @ truth.adjoint(s), b @ ri @ truth.adjoint(b), q - s @ ri @ truth.adjoint(s)
    return _standard_are(discrete, a, g, q, side)


def _standard_are(discrete, a, g, q, side):
    n = len(a)
    one, zero = truth.eye(n), truth.eye(n) * mp.mpf(0)
    h = truth.adjoint

    def block(rows):
        return np.concatenate([np.concatenate(row, axis=1) for row in rows])

    if discrete:
        m, k = block([[a, zero], [-q, one]]), block([[one, g], [zero, h(a)]])
        m = _linear(lambda: truth.inverse(m + k) @ (m - k))
    else:
        m = block([[a, -g], [-q, -h(a)]])
    sign_of_m = _sign(m)
    if abs(sum(sign_of_m[i, i] for i in range(2 * n))) > 0.5:
        raise NoAnswerError("the wrong number of stable eigenvalues")
    columns = (truth.eye(2 * n) + sign_of_m * side) @ truth.exact(np.random.default_rng(1).standard_normal((2 * n, n)))
    x = _linear(lambda: columns[n:] @ truth.inverse(columns[:n]))
    _checked(_size(x - h(x)), _size(x))
    paid = h(a) @ x @ truth.inverse(one + g @ x) @ a - x if discrete else h(a) @ x + x @ a - x @ g @ x
    _checked(_size(paid + q), _size(x) * (1 if discrete else _size(a)))
    return x


def _has_negative(x):
    return min(mp.eighe(mp.matrix(((x + truth.adjoint(x)) / 2).tolist()), eigvals_only=True)) < 0


def gain(discrete, x, a, b, q, r, e=None, s=None, g=None, x0=None):
    """k of a solution x, whose closed loop is e⁻¹(a - b k), or e⁻¹(a - g k)."""
    h = truth.adjoint
    if g is not None:
        right = x @ truth.exact(a) if discrete else x if e is None else x @ truth.exact(e)
        return truth.inverse(truth.eye(len(x)) + x @ truth.exact(g)) @ right if discrete else right
    a, b, r = (truth.exact(y) for y in (a, b, r))
    e = truth.eye(len(a)) if e is None else truth.exact(e)
    inner = h(b) @ x @ (a if discrete else e) + (0 if s is None else h(truth.exact(s)))
    return truth.inverse(r + h(b) @ x @ b if discrete else r) @ inner


def closed_loop_poles(discrete, x, a, b, q, r, e=None, s=None, g=None, x0=None):
    """The eigenvalues of e⁻¹(a - b k), or e⁻¹(a - g k), for the gain k of a solution x."""
    loop = truth.exact(a) - truth.exact(b if g is None else g) @ gain(discrete, x, a, b, q, r, e, s, g)
    loop = loop if e is None else truth.inverse(truth.exact(e)) @ loop
    return mp.eig(mp.matrix(loop.tolist()), left=False, right=False)


def regulator(discrete, a, b, q, r, s=None, e=None):
    """The gain and the solution; the poles are the caller's to judge."""
    x, h = are(discrete, a, b, q, r, e, s), truth.adjoint
    wide = [truth.exact(y) for y in (b, r)]
    for weight in (wide[1], wide[1] + h(wide[0]) @ x @ wide[0]) if discrete else (wide[1],):
        if _has_negative(weight):
            raise NoAnswerError("no gain has the least cost")
    return gain(discrete, x, a, b, q, r, e, s), x


# The steps of a horizon that a reference takes at most.
MOST_STEPS = 60


def horizon(a, b, q, r, xf, t=0.0, s=None):
    """x at the time t before the end, by short steps of the exact flow; the sign of I + g x tells whether one escapes."""
    if nullity(r):
        raise NoAnswerError("r is singular")
    h, n = truth.adjoint, len(a)
    a, b, q, r, x = (truth.exact(y) for y in (a, b, q, r, xf))
    if _has_negative(r):
        raise UnknownError
    g = b @ truth.inverse(r) @ h(b)
    m = np.block([[-a, g], [q, h(a)]])
    # In units of the solution in which g and q are alike.
    unit = mp.sqrt(_size(q) / _size(g)) if _size(q) and _size(g) else mp.mpf(1)
    size = 2 * _size(a) + _size(g) * unit + _size(q) / unit
    steps = int(mp.ceil(size * t)) if size * t < MOST_STEPS else MOST_STEPS + 1
    if steps > MOST_STEPS:
        raise UnknownError
    if not steps:
        return x
    e = np.array(mp.expm(mp.matrix(m.tolist()) * mp.mpf(t) / steps, method="taylor").tolist(), dtype=object)
    first = truth.inverse(e[:n, :n])
    for _ in range(steps):
        left = e[:n, :n] + e[:n, n:] @ x
        least = np.linalg.eigvals((first @ left).astype(complex)).real.min()
        if least < -1e-3:
            raise NoAnswerError("the solution escapes")
        if not least > 1e-9:
            raise UnknownError
        x = (e[n:, :n] + e[n:, n:] @ x) @ truth.inverse(left)
        x = (x + h(x)) / 2
    return x


def finite_regulator(a, b, q, r, t=0.0, qf=None):
    """The gain and the solution."""
    if _has_negative(truth.exact(r)):
        raise NoAnswerError("no gain has the least cost")
    x = horizon(a, b, q, r, np.zeros_like(a) if qf is None else qf, t)
    return truth.inverse(truth.exact(r)) @ truth.adjoint(truth.exact(b)) @ x, x


def discrete_horizon(a, b, q, r, qf=None, s=None, steps=0):
    """The gains and the solutions of a recursion whose every r + bᴴ x b is positive definite."""
    qf = np.zeros(a.shape) if qf is None else qf
    s = np.zeros(b.shape) if s is None else s
    return truth.discrete_horizon(*([x] * steps for x in (a, b, q, r)), qf, [s] * steps, _check_definite)


def time_varying(a, b, q, r, qf=None, s=None):
    """The same for other matrices in each step."""
    qf = np.zeros(a.shape[1:]) if qf is None else qf
    return truth.discrete_horizon(a, b, q, r, qf, np.zeros(b.shape) if s is None else s, _check_definite)


def _check_definite(weight):
    """Raise unless a Hermitian matrix, in units in which its diagonal is 1, has eigenvalues that are clearly positive."""
    sizes = [abs(weight[k, k]) for k in range(len(weight))]
    if not min(sizes):
        raise NoAnswerError("no control has the least cost")
    units = np.diag([1 / mp.sqrt(x) for x in sizes])
    least = min(mp.eighe(mp.matrix((units @ weight @ units).tolist()), eigvals_only=True))
    if least < -1e-5:
        raise NoAnswerError("no control has the least cost")
    if least < 1e-11:
        raise UnknownError


def estimator(discrete, a, g, c, qn, rn, nn=None, gain="predictor"):
    """The gain and the solution, from the equation of the dual regulator."""
    if nullity(rn):
        raise UnknownError
    h, rounding = truth.adjoint, 1000 * np.finfo(a.dtype).eps
    nn = np.zeros((g.shape[1], len(c))) if nn is None else nn
    a, g, c, qn, rn, nn = (truth.exact(y) for y in (a, g, c, qn, rn, nn))
    joint = np.block([[qn, nn], [h(nn), rn]])
    if _has_negative(joint):
        if _has_negative(joint + truth.eye(len(joint)) * (rounding * _size(joint))):
            raise NoAnswerError("no covariance")
        raise UnknownError
    x = _are(discrete, h(a), h(c), g @ qn @ h(g), rn, truth.eye(len(a)), g @ nn)
    if gain == "filter":
        return x @ h(c) @ truth.inverse(c @ x @ h(c) + rn), x
    inner = (a if discrete else truth.eye(len(a))) @ x @ h(c) + g @ nn
    return inner @ truth.inverse(rn + c @ x @ h(c) if discrete else rn), x


def stable_gramian(a, b, e=None, discrete=False):
    a, b = _standard_form(e, a, b)
    _stable(a, discrete)
    return (stein_gramian if discrete else gramian)(a, b)


def riccati_factor(a, b, c):
    """The solution of the equation with the weights cᴴ c and I."""
    c = truth.exact(c)
    one, zero = truth.eye(len(a)), truth.exact(0 * b)
    a, b, r = truth.exact(a), truth.exact(b), truth.eye(b.shape[1])
    return _are(False, a, b, truth.adjoint(c) @ c, r, one, zero)


def h2_norm(a, b, c, e=None, d=None, discrete=False):
    """The root of tr c x cᴴ, in exact arithmetic, with that of tr bᴴ w b as a check."""
    a, b = _standard_form(e, a, b)
    _stable(a, discrete)
    equation = stein_gramian if discrete else gramian
    x, w = equation(a, b), equation(truth.adjoint(a), truth.adjoint(c))
    b, c = truth.exact(b), truth.exact(c)
    powers = (np.trace(c @ x @ truth.adjoint(c)), np.trace(truth.adjoint(b) @ w @ b))
    _checked(abs(powers[0] - powers[1]), _size(b) ** 2 * _size(w) + _size(c) ** 2 * _size(x))
    power = mp.re(powers[0])
    if power <= NEGLIGIBLE * _size(c) ** 2 * _size(x):
        power = mp.mpf(0)
    return np.array(mp.sqrt(power + (0 if d is None else _size(truth.exact(d)) ** 2)), object)


def discrete_h2_norm(a, b, c, d=None, e=None):
    return h2_norm(a, b, c, e, d, discrete=True)


def hinf_norm(a, b, c, d=None, e=None, discrete=False):
    """The gain in many digits at the highest point of ever finer grids, if a Hamiltonian matrix sees none above it."""
    exact_a, exact_b = _standard_form(e, a, b)
    _stable(exact_a, discrete)
    d = np.zeros((len(c), b.shape[1]), a.dtype) if d is None else d
    exact_arrays = tuple(truth.exact(x) for x in (exact_a, exact_b, c, d))
    a, b = (np.array(x.tolist(), np.result_type(a.dtype, np.float64)) for x in exact_arrays[:2])
    if not (_size(exact_arrays[1]) and _size(exact_arrays[2])):
        return np.array(_largest_singular(exact_arrays[3]), object)
    if discrete:
        raise UnknownError
    poles = (
        [complex(v) for v in mp.eig(mp.matrix(exact_arrays[0].tolist()), left=False, right=False)]
        if len(a) > 1
        else [complex(exact_arrays[0][0, 0])]
    )
    moduli = sorted(abs(v) for v in poles)
    if not 0 < moduli[0] <= moduli[-1] < 1e12 * moduli[0]:
        raise UnknownError
    starts = np.concatenate([[0.0], [abs(v.imag) for v in poles], np.geomspace(moduli[0] / 10, 10 * moduli[-1], 400)])
    starts = np.concatenate([starts, -starts]) if np.iscomplexobj(a) else starts
    top = _highest((a, b, c, d), starts)
    spread = max(moduli[0], abs(top) / 10)
    for _ in range(14):
        top = _highest((a, b, c, d), top + spread * np.linspace(-1, 1, 81))
        spread /= 20
    best = _gain(exact_arrays, mp.mpf(top))
    best = max(best, _largest_singular(exact_arrays[3]))
    if _crosses(exact_arrays, best * (1 + mp.mpf(10) ** -14)):
        raise UnknownError("a higher peak")
    return np.array(best, object)


def _largest_singular(g):
    values = mp.eighe(mp.matrix((truth.adjoint(g) @ g).tolist()), eigvals_only=True)
    return mp.sqrt(max(max(values), mp.mpf(0)))


def _highest(arrays, frequencies):
    """In doubles, that of these frequencies with the largest gain."""
    a, b, c, d = arrays
    with np.errstate(all="ignore"):
        x = np.linalg.solve(1j * frequencies[:, None, None] * np.eye(len(a)) - a, b.astype(complex))
        g = c @ x + d
    if not np.isfinite(g).all():
        raise UnknownError
    return frequencies[np.linalg.svd(g, compute_uv=False)[:, 0].argmax()]


def _gain(arrays, frequency):
    a, b, c, d = arrays
    return _largest_singular(c @ truth.inverse(truth.eye(len(a)) * mp.mpc(0, frequency) - a) @ b + d)


def _crosses(arrays, level):
    a, b, c, d = arrays
    inner = truth.inverse(truth.eye(d.shape[1]) * level**2 - truth.adjoint(d) @ d)
    f = a + b @ inner @ truth.adjoint(d) @ c
    outer = truth.eye(len(d)) + d @ inner @ truth.adjoint(d)
    h = np.block([[f, b @ inner @ truth.adjoint(b)], [-truth.adjoint(c) @ outer @ c, -truth.adjoint(f)]])
    with mp.workdps(40):
        values = mp.eig(mp.matrix(h.tolist()), left=False, right=False)
    return min(abs(mp.re(v)) / abs(v) for v in values if v) < mp.mpf(10) ** -10
