"""Matrix pencils on the CPU: QZ for Riccati equations, and why an equation has no solution. NumPy stacks in and out.

The extended pencil of a regulator problem (Van Dooren 1981) needs no inverse of r or e. Where r is None, b is the matrix g of the
term x g x, and the pencil is the Hamiltonian or the symplectic one. Its controllable modes are those of (a, g).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy

from matsign._typing import NDArray as Array
from matsign.backends import lapack
from matsign.core.failures import Failure
from matsign.direct import hautus


def riccati(
    discrete: bool, a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None
) -> tuple[Array, Array]:
    """(x, mask of the solved members), from the stable deflating subspace of the extended pencil by ordered QZ."""
    out, solved = np.full_like(q, np.nan), np.zeros(len(a), bool)
    for k in range(len(a)):
        problem = [None if x is None else x[k] for x in (a, b, q, r, e, s)]
        x = _or_default(None, _stable_graph, *problem, discrete)
        if x is not None and np.isfinite(x).all():
            out[k], solved[k] = (x + x.conj().T) / 2, True
    return out, solved


def _or_default(default: Any, f: Callable[..., Any], *arguments: Any) -> Any:
    """f of the arguments, or `default` if LAPACK raises: ordering or convergence failed, or a basis is singular."""
    try:
        with lapack.quiet(), np.errstate(all="ignore"):
            return f(*arguments)
    except (np.linalg.LinAlgError, ValueError):
        return default


def _stable_graph(
    a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None, discrete: bool
) -> Array:
    return _deflate(*_pencil(a, b, q, r, e, s, discrete), e, discrete).astype(q.dtype)


def _pencil(
    a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None, discrete: bool
) -> tuple[Array, Array]:
    """The extended pencil with the inputs eliminated: (m, l) of size 2n with m v = λ l v."""
    n, m = b.shape
    e = np.eye(n, dtype=a.dtype) if e is None else e
    s = np.zeros((n, m), a.dtype) if s is None else s
    ah, eh, zero = a.conj().T, e.conj().T, np.zeros_like(a)
    if r is None and discrete:
        return np.block([[a, zero], [-q, eh]]), np.block([[e, b], [zero, ah]])
    if r is None:
        return np.block([[a, -b], [-q, -ah]]), np.block([[e, zero], [zero, eh]])
    if discrete:
        left = np.block([[a, zero, b], [-q, eh, -s], [s.conj().T, np.zeros((m, n)), r]])
        right = np.block([[e, zero], [zero, ah], [np.zeros((m, n)), -b.conj().T]])
    else:
        left = np.block([[a, zero, b], [-q, -ah, -s], [s.conj().T, b.conj().T, r]])
        right = np.block([[e, zero], [zero, eh], [np.zeros((m, 2 * n))]])
    basis = np.linalg.qr(left[:, 2 * n :], mode="complete")[0][:, m:].conj().T
    return basis @ left[:, : 2 * n], basis @ right


def _deflate(left: Array, right: Array, e: Array | None, discrete: bool) -> Array:
    n = len(left) // 2
    kind = "complex" if np.iscomplexobj(left) else "real"
    *_, z = scipy.linalg.ordqz(left, right, sort="iuc" if discrete else "lhp", output=kind)
    top, bottom = z[:n, :n], z[n:, :n]
    top = top if e is None else e @ top
    return np.linalg.solve(top.conj().T, bottom.conj().T).conj().T


class _Problem(NamedTuple):
    """One problem in double precision, with e and s, and the eps of its original dtype."""

    a: Array
    b: Array
    q: Array
    r: Array
    e: Array
    s: Array
    discrete: bool
    eps: float

    def excess(self, values: Array, size: float) -> Array:
        """How far eigenvalues lie outside the boundary of stability; negative for stable ones."""
        return np.abs(values) - 1 if self.discrete else np.real(values) / size

    def boundary_point(self, value: complex) -> complex:
        """The nearest point of the boundary of stability."""
        return (value / abs(value) if value else 1.0) if self.discrete else 1j * value.imag

    def weights(self) -> Array:
        """[[q, s], [sᴴ, r]], for g q."""
        return self.q if self.r is None else np.block([[self.q, self.s], [self.s.conj().T, self.r]])


def _problem_of(
    k: int, discrete: bool, a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None
) -> _Problem | None:
    """Problem k of a stack, or None if an entry is not finite."""
    e_k = np.eye(a.shape[-1]) if e is None else e[k]
    s_k = np.zeros(b.shape[1:]) if s is None else s[k]
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    given = (a[k], b[k], q[k], None if r is None else r[k], e_k, s_k)
    arrays = tuple(None if x is None else x.astype(wide) for x in given)
    if not all(x is None or np.isfinite(x).all() for x in arrays):
        return None
    return _Problem._make((*arrays, discrete, float(np.finfo(a.dtype).eps)))


def diagnose(
    discrete: bool,
    a: Array,
    b: Array,
    q: Array,
    r: Array | None,
    e: Array | None,
    s: Array | None,
    closed_loop: Array,
    solves_equation: Array,
) -> Array:
    """Why there is no stabilising solution, as a `Failure`; 0 where x solves the equation (`solves_equation`), and the closed
    loop is stable except for eigenvalues on the boundary.
    """
    out = np.full(len(a), int(Failure.NOT_CONVERGED), np.int32)
    for k in range(len(a)):
        p = _problem_of(k, discrete, a, b, q, r, e, s)
        if p is not None:
            out[k] = _or_default(Failure.NOT_CONVERGED, _diagnose, p, closed_loop[k], bool(solves_equation[k]))
    return out


def _diagnose(p: _Problem, closed_loop: Array, solves_equation: bool) -> Failure:
    if _singular_weight(p) is not None:
        return Failure.SINGULAR_R
    if _singular_descriptor(p) is not None:
        return Failure.SINGULAR_E
    if _unstabilisable(p) is not None:
        return Failure.NOT_STABILISABLE
    if solves_equation and _semi_stable(p, closed_loop):
        return Failure.NONE
    if _undetectable(p) is not None:
        return Failure.NOT_DETECTABLE
    if _eigenvalue_on_boundary(p) is not None:
        return Failure.NOT_STABILISING
    return Failure.NOT_CONVERGED


def explain_failures(
    discrete: bool, a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None, failure: Array
) -> tuple[Array, Array]:
    """(failure, number for the message as real and imaginary part) for each result of `diagnose`; NOT_CONVERGED is replaced by
    the most likely cause.
    """
    out, details = failure.copy(), np.zeros((len(a), 2))
    for k in np.flatnonzero(failure).tolist():
        p, known = _problem_of(k, discrete, a, b, q, r, e, s), Failure(int(failure[k]))
        out[k], detail = (Failure.LOST, 0.0) if p is None else _or_default((known, 0.0), _explain, p, known)
        details[k] = complex(detail).real, complex(detail).imag
    return out, details


def _explain(p: _Problem, failure: Failure) -> tuple[Failure, complex]:
    detail = _DETAILS[failure](p) if failure in _DETAILS else None
    if detail is not None:
        return failure, detail
    if failure != Failure.NOT_CONVERGED:
        return failure, 0.0
    mode = _least_controllable(p)
    if mode is not None and mode.distance < p.eps**0.5:
        return Failure.HARDLY_STABILISABLE, mode.distance
    left, right = _pencil(p.a, p.b, p.q, p.r, p.e, p.s, p.discrete)
    values = _eigenvalues(left, right)
    beyond = np.abs(p.excess(values, _largest_modulus(values)))
    if len(values) and beyond.min() < p.eps**0.25:
        return Failure.HARDLY_STABILISED, complex(values[beyond.argmin()])
    return Failure.LOST, 0.0


def _eigenvalues(a: Array, e: Array) -> Array:
    values = np.linalg.eigvals(a) if (e == np.eye(len(e))).all() else scipy.linalg.eigvals(a, e)
    return values[np.isfinite(values)]


def _largest_modulus(values: Array) -> float:
    return max(float(np.abs(values).max(initial=0)), 1e-300)


def _independence_if_singular(m: Array, eps: float) -> float | None:
    """The independence of the rows of m if they are dependent to working precision, else None."""
    independence = hautus.independence(m)
    return independence if independence <= hautus.limit(m, eps) else None


def _singular_weight(p: _Problem) -> float | None:
    """The independence of r, in discrete time of r + bᴴ x b for all x, if it is singular to working precision, else None."""
    if p.r is None:
        return None
    r_alone = _independence_if_singular(p.r, p.eps)
    if not p.discrete or r_alone is None:
        return r_alone
    independence = _independence_if_singular(np.hstack([p.r.conj().T, p.b.conj().T]), p.eps)
    if independence is not None:
        return independence
    # A pencil that is singular for all λ: an input without cost that affects no state with a cost.
    n, m = p.b.shape
    zero, none = np.zeros((n, n)), np.zeros((m, n))
    left = np.block([[p.a, zero, p.b], [-p.q, p.e.conj().T, -p.s], [p.s.conj().T, none, p.r]])
    right = np.block([[p.e, zero], [zero, p.a.conj().T], [none, -p.b.conj().T]])
    right = np.hstack([right, np.zeros((2 * n + m, m))])
    values = [hautus.independence(left - z * right) for z in np.exp([1j, 2.5j])]
    return max(values) if max(values) <= hautus.limit(left, p.eps) else None


def _singular_descriptor(p: _Problem) -> float | None:
    """The independence of e if it is singular to working precision in all units of the states, else None."""
    if _independence_if_singular(p.e, p.eps) is None:
        return None
    return _independence_if_singular(scipy.linalg.matrix_balance(p.e, permute=False)[0], p.eps)


def _least_controllable(p: _Problem) -> hautus.Mode | None:
    """The unstable mode that is nearest to uncontrollable by b."""
    values = _eigenvalues(p.a, p.e)
    size = _largest_modulus(values)
    # Rounding moves a double eigenvalue by √eps; after the correction its side is known.
    unstable = values[p.excess(values, size) > -(p.eps**0.5)]

    def where(value: complex) -> complex | None:
        return value if p.excess(np.asarray(value), size) > -100 * len(p.a) * p.eps else None

    starts = [x if where(x) is not None else p.boundary_point(complex(x)) for x in unstable]
    return hautus.weakest_mode(p.a, p.e, p.b, starts, where)


def _unstabilisable(p: _Problem) -> complex | None:
    """An unstable eigenvalue of (a, e) that b does not control."""
    mode = _least_controllable(p)
    limit = hautus.limit(np.hstack([p.a, p.b]), p.eps)
    return mode.value if mode is not None and mode.distance <= limit else None


def uncontrolled_modes(a: Array, b: Array) -> tuple[Array, Array]:
    """Whether (a, b) is not stabilisable in continuous time, and an unstable eigenvalue that no input moves, as two numbers."""
    found, values = np.zeros(len(a), bool), np.zeros((len(a), 2), a.real.dtype)
    for k in range(len(a)):
        p = _problem_of(k, False, a, b, 0 * a, np.zeros((len(a), *2 * b.shape[-1:])), None, None)
        value = None if p is None else _or_default(None, _unstabilisable, p)
        if value is not None:
            found[k], values[k] = True, (value.real, value.imag)
    return found, values


def _undetectable(p: _Problem) -> complex | None:
    """An eigenvalue on the boundary that the cost does not detect: [a - λ e, b; q, s; sᴴ, r] has dependent columns."""
    inputs = p.b.conj().T if p.r is not None else np.zeros((0, len(p.a)))
    a, e, weights = np.vstack([p.a.conj().T, inputs]), np.vstack([p.e.conj().T, 0 * inputs]), p.weights()
    values = _eigenvalues(p.a, p.e)
    values = np.concatenate([values, _eigenvalues(*_pencil(p.a, p.b, p.q, p.r, p.e, p.s, p.discrete))])
    edge = values[np.abs(p.excess(values, _largest_modulus(values))) < p.eps**0.25]
    mode = hautus.weakest_mode(a, e, weights, edge.conj(), lambda value: p.boundary_point(complex(value)))
    limit = hautus.limit(np.hstack([a, weights]), p.eps)
    return mode.value.conjugate() if mode is not None and mode.distance <= limit else None


def _eigenvalue_on_boundary(p: _Problem) -> complex | None:
    """An eigenvalue of the pencil on the boundary of stability, so that fewer than n are stable.

    A semidefinite cost has none if all boundary modes are controllable and detectable: a pencil that is singular to working
    precision is then only badly scaled.
    """
    if _is_semidefinite(p.weights(), p.eps) and (p.r is not None or _is_semidefinite(p.b, p.eps)):
        return None
    left, right = _pencil(p.a, p.b, p.q, p.r, p.e, p.s, p.discrete)
    values = _eigenvalues(left, right)
    edge = values[np.abs(p.excess(values, _largest_modulus(values))) < p.eps**0.25]
    mode = hautus.weakest_mode(
        left, right, np.zeros((len(left), 0)), edge, lambda value: p.boundary_point(complex(value))
    )
    return mode.value if mode is not None and mode.distance <= hautus.limit(left, p.eps) else None


def _is_semidefinite(m: Array, eps: float) -> bool:
    """Whether a Hermitian matrix, scaled to a diagonal of ones, is positive semidefinite to working precision."""
    diagonal = np.abs(np.diagonal(m).real)
    units = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 1.0)
    values = np.linalg.eigvalsh(units[:, None] * m * units)
    return bool(values[0] >= -4 * len(m) * eps * np.abs(values).max())


def _semi_stable(p: _Problem, closed_loop: Array) -> bool:
    """Whether no eigenvalue lies outside the boundary by more than the rounding error of a double one, and those outside are on
    the boundary to working precision: the pencil is singular there.
    """
    if not np.isfinite(closed_loop).all():
        return False
    values = _eigenvalues(closed_loop, p.e)
    beyond = p.excess(values, _largest_modulus(values))
    return bool(beyond.max(initial=-1) < 100 * p.eps**0.5) and all(
        _is_on_boundary(p, complex(x)) for x in values[beyond > 0]
    )


def _is_on_boundary(p: _Problem, value: complex) -> bool:
    left, right = _pencil(p.a, p.b, p.q, p.r, p.e, p.s, p.discrete)
    mode = hautus.weakest_mode(left, right, np.zeros((len(left), 0)), [value], lambda x: p.boundary_point(complex(x)))
    return mode is not None and mode.distance <= hautus.limit(left, p.eps)


def on_boundary(
    discrete: bool, a: Array, b: Array, q: Array, r: Array | None, e: Array | None, s: Array | None, closed_loop: Array
) -> Array:
    """Whether rounding of the data may put an eigenvalue of the closed loop on the boundary of stability.

    Such an eigenvalue is double in the pencil of size 2n, so singularity of the pencil is tested, not of the closed loop.
    """
    out = np.zeros(len(a), bool)
    for k in range(len(a)):
        p = _problem_of(k, discrete, a, b, q, r, e, s)
        out[k] = p is None or _or_default(True, _on_boundary, p, closed_loop[k])
    return out


def _on_boundary(p: _Problem, closed_loop: Array) -> bool:
    values = _eigenvalues(closed_loop, p.e)
    beyond = np.abs(p.excess(values, _largest_modulus(values)))
    left, right = _pencil(p.a, p.b, p.q, p.r, p.e, p.s, p.discrete)
    for x in values[np.argsort(beyond)][:3]:
        if abs(p.excess(x, _largest_modulus(values))) < p.eps**0.25:
            singular = np.linalg.svd(left - p.boundary_point(complex(x)) * right, compute_uv=False)
            if singular[-1] <= 4 * len(left) * p.eps * singular[0]:
                return True
    return False


_DETAILS: dict[Failure, Callable[[_Problem], complex | None]] = {
    Failure.SINGULAR_R: _singular_weight,
    Failure.SINGULAR_E: _singular_descriptor,
    Failure.NOT_STABILISABLE: _unstabilisable,
    Failure.NOT_DETECTABLE: _undetectable,
    Failure.NOT_STABILISING: _eigenvalue_on_boundary,
}
