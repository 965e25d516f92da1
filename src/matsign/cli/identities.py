"""Every identity of the article as a row of the tour: what is computed, what must hold, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg

import matsign
from matsign._typing import NDArray as Array
from matsign.cli import references as by
from matsign.cli.inputs import Input, Inputs

Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Row:
    """One identity on one input.

    `reference(*arrays)` is what `then(values, arrays)` should be, by another method; `residual(values, *arrays)` is the residual
    of the equation of the values, relative to its terms; `peer(*arrays)` is SciPy's computation, to compare times.
    """

    place: str
    identity: str
    source: Input
    f: Callable[..., Any]
    reference: Callable[..., Arrays]
    residual: Callable[..., float]
    peer: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    then: Callable[[Arrays, Arrays], Arrays] = lambda values, arrays: values


def rows(inputs: Inputs) -> list[Row]:
    """All rows in the order of the article."""
    signs = (_msign, _mcsgn, _abs_and_projector, _invariance)
    examples = (_first_example, _second_example, _mean, _third_example, _polar)
    sections = (*signs, _blocks, *examples)
    return [row for section in sections for row in section(inputs)]


def relative(gap: Array, *sizes: Any) -> float:
    """‖gap‖ over the sum of the other arguments, numbers or norms of matrices."""
    return float(np.linalg.norm(gap) / (sum(np.linalg.norm(s) for s in sizes) or 1.0))


def _equal(x: Array, y: Array) -> float:
    return relative(x - y, y)


def _isometry(values: Arrays, m: Array) -> float:
    """M = U H and U UᴴU = U."""
    u = values[0]
    h = u.conj().T @ m
    return max(_equal(u @ (h + h.conj().T) / 2, m), _equal(u @ u.conj().T @ u, u))


def _commutes(values: Arrays, m: Array) -> float:
    """S M = M S and S³ = S, relative to the norms of the factors."""
    (s,) = values
    size = np.linalg.norm(s)
    return max(relative(s @ m - m @ s, 2 * size * np.linalg.norm(m)), relative(s @ s @ s - s, size**3))


def _msign(i: Inputs) -> Iterator[Row]:
    def reference(m: Array) -> Arrays:
        return by.by_singular_vectors(m)[:1]

    place, peer = "Two Signs (1)", scipy.linalg.polar
    yield Row(place, "msign(M) = U Vᵀ", i.corners[1], matsign.msign, reference, _isometry, peer)
    polynomial = {"method": "polynomial"}
    yield Row(
        place, "zero singular values stay zero", i.gradient, matsign.msign, reference, _isometry, peer, polynomial
    )


def _mcsgn(i: Inputs) -> Iterator[Row]:
    def reference(m: Array) -> Arrays:
        return (by.by_eigenvectors(m),)

    def reference_singular(m: Array) -> Arrays:
        right, left = i.core
        return (right @ by.by_eigenvectors(left @ m @ right) @ left,)

    def both_signs(values: Arrays, m: Array) -> float:
        return _equal(values[0], np.asarray(matsign.msign(m)))

    place, f, peer = "Two Signs (2)", matsign.mcsgn, scipy.linalg.signm
    polynomial = {"method": "polynomial"}
    yield Row(place, "mcsgn(M) = P sign(Λ) P⁻¹", i.general, f, reference, _commutes, peer)
    yield Row(place, "zero eigenvalues stay zero", i.singular, f, reference_singular, _commutes, peer)
    yield Row(place, "mcsgn = msign on symmetric M", i.symmetric, f, reference, both_signs, peer)
    place, identity = "Two Signs (3)", "X₀ = M/√tr M², odd quintics"
    yield Row(place, identity, i.real, f, reference, _commutes, peer, polynomial)


def _abs_and_projector(i: Inputs) -> Iterator[Row]:
    def absolute(m: Array) -> Arrays:
        return (m @ by.by_eigenvectors(m),)

    def absolute_gap(values: Arrays, m: Array) -> float:
        (n,) = values
        return relative(n @ n - m @ m, np.linalg.norm(n) ** 2, np.linalg.norm(m) ** 2)

    def root_of_square(m: Array) -> Any:
        return scipy.linalg.sqrtm(m @ m)

    def projector(m: Array) -> Arrays:
        return ((np.eye(len(m)) + by.by_eigenvectors(m)) / 2,)

    def projector_gap(values: Arrays, m: Array) -> float:
        (p,) = values
        size = np.linalg.norm(p)
        return max(relative(p @ m - m @ p, 2 * size * np.linalg.norm(m)), relative(p @ p - p, size**2))

    place, identity = "Two Signs (2)", "|M| = M mcsgn(M)"
    yield Row(place, identity, i.general, matsign.matrix_abs, absolute, absolute_gap, root_of_square)
    identity, peer = "(I + mcsgn)/2: the unstable modes", scipy.linalg.signm
    yield Row(place, identity, i.unstable, matsign.spectral_projector, projector, projector_gap, peer)


def _invariance(i: Inputs) -> Iterator[Row]:
    (m,), (general,) = i.gradient.arrays, i.general.arrays
    q, r = (scipy.fft.dct(np.eye(n), axis=0, norm="ortho") for n in m.shape)
    p = np.tril(np.ones(general.shape))  # cumulative sums of the states
    p_inverse = np.eye(len(p)) - np.eye(len(p), k=-1)

    def rotate(x: Array) -> Arrays:
        return (q @ by.by_singular_vectors(q.T @ x @ r)[0] @ r.T,)

    def similar(x: Array) -> Arrays:
        return (p @ by.by_eigenvectors(p_inverse @ x @ p) @ p_inverse,)

    source = Input(f"{i.gradient.text}, cosine basis", (q @ m @ r.T,))
    identity = "msign(Q M R) = Q msign(M) R"
    yield Row("Two Signs", identity, source, matsign.msign, rotate, _isometry, scipy.linalg.polar)
    source = Input(f"{i.general.text}, summed states", (p @ general @ p_inverse,))
    identity = "mcsgn(P M P⁻¹) = P mcsgn(M) P⁻¹"
    yield Row("Two Signs", identity, source, matsign.mcsgn, similar, _commutes, scipy.linalg.signm)


def _blocks(i: Inputs) -> Iterator[Row]:
    def factor(values: Arrays, a: Array, b: Array, c: Array, d: Array) -> float:
        """M V = V [[B + DX, -D], [0, A - XD]]."""
        (x,) = values
        m, v = by.block(a, c, d, b), _v(x)
        middle = by.block(b + d @ x, -d, np.zeros_like(c), a - x @ d)
        return relative(m @ v - v @ middle, 2 * np.linalg.norm(m) * np.linalg.norm(v))

    def sign(values: Arrays, arrays: Arrays) -> Arrays:
        """V [[I, Y], [0, -I]] V⁻¹, where Y solves (B + DX) Y - Y (A - XD) = -2D."""
        (x,), (a, b, _, d) = values, arrays
        y = np.asarray(matsign.solve_sylvester(b + d @ x, x @ d - a, -2 * d))
        return (_v(x) @ by.block(np.eye(len(b)), y, np.zeros_like(x), -np.eye(len(a))) @ _v_inverse(x),)

    def dense_sign(a: Array, b: Array, c: Array, d: Array) -> Arrays:
        return (by.by_eigenvectors(by.block(a, c, d, b)),)

    def reference(*arrays: Array) -> Arrays:
        return (by.riccati(*arrays),)

    f, (source, b) = matsign.solve_riccati, i.plants[0]
    identity = "M = V [[B+DX, -D], [0, A-XD]] V⁻¹"
    yield Row("Block Identities (6)", identity, source, f, reference, factor, _care(b))
    identity = "mcsgn(M) = V [[I, Y], [0, -I]] V⁻¹"
    yield Row("Block Identities (7)", identity, source, f, dense_sign, factor, _dense_signm, then=sign)
    for source, b in i.plants:
        identity = "X D X + X B - A X - C = 0"
        yield Row("Block Identities (5)", identity, source, f, reference, _riccati_gap, _care(b))


def _v(x: Array) -> Array:
    """[[X, -I], [I, 0]]."""
    n, m = x.shape
    return by.block(x, -np.eye(n), np.eye(m), np.zeros((m, n)))


def _v_inverse(x: Array) -> Array:
    """[[0, I], [-I, X]]."""
    n, m = x.shape
    return by.block(np.zeros((m, n)), np.eye(m), -np.eye(n), x)


def _riccati_gap(values: Arrays, a: Array, b: Array, c: Array, d: Array) -> float:
    (x,) = values
    na, nb, nc, nd, nx = (np.linalg.norm(y) for y in (a, b, c, d, x))
    return relative(x @ d @ x + x @ b - a @ x - c, nx * nd * nx, nx * nb, na * nx, nc)


def _care(factor: Array) -> Callable[..., Any]:
    def peer(a: Array, b: Array, c: Array, d: Array) -> Any:
        return scipy.linalg.solve_continuous_are(-b, factor, c, np.eye(factor.shape[1]))

    return peer


def _dense_signm(a: Array, b: Array, c: Array, d: Array) -> Any:
    return scipy.linalg.signm(by.block(a, c, d, b))


def _first_example(i: Inputs) -> Iterator[Row]:
    """With SciPy's letters a x + x b = q the article's A, B, C are -a, b, q."""
    a, b, q = i.triangular.arrays
    n = len(a)
    source = Input(i.triangular.text, (by.block(-a, q, np.zeros((len(b), n)), b),))

    def sign(m: Array) -> Arrays:
        x = scipy.linalg.solve_sylvester(-m[:n, :n], m[n:, n:], m[:n, n:])
        return (by.block(-np.eye(n), 2 * x, np.zeros(x.T.shape), np.eye(len(b))),)

    def solution(a: Array, b: Array, q: Array) -> Arrays:
        return (scipy.linalg.solve_sylvester(a, b, q),)

    def gap(values: Arrays, a: Array, b: Array, q: Array) -> float:
        (x,) = values
        na, nb, nq, nx = (np.linalg.norm(y) for y in (a, b, q, x))
        return relative(a @ x + x @ b - q, na * nx, nb * nx, nq)

    place, identity = "First Example (8)", "mcsgn [[A, C], [0, B]] = [[-I, 2X], [0, I]]"
    yield Row(place, identity, source, matsign.mcsgn, sign, _commutes, scipy.linalg.signm)
    peer = scipy.linalg.solve_sylvester
    yield Row(place, "X B - A X = C", i.sylvester, matsign.solve_sylvester, solution, gap, peer)


def _second_example(i: Inputs) -> Iterator[Row]:
    (c,) = i.covariance.arrays
    n = len(c)

    def sign(m: Array) -> Arrays:
        return (by.antidiagonal(by.power(m[:n, n:], 0.5), by.power(m[:n, n:], -0.5)),)

    def roots(a: Array) -> Arrays:
        return by.power(a, 0.5), by.power(a, -0.5)

    def root_gap(values: Arrays, a: Array) -> float:
        """X² = A, and Y X + I = 0 for Y = -A^{-1/2}."""
        x, z = values
        nx, nz = np.linalg.norm(x), np.linalg.norm(z)
        return max(relative(x @ x - a, nx * nx), relative(np.eye(len(x)) - z @ x, nz * nx))

    def coupled_roots(a: Array, b: Array) -> Arrays:
        c = by.coupled_root(a, b)
        return c, np.linalg.inv(c)

    def coupled_gap(values: Arrays, a: Array, b: Array) -> float:
        x, z = values
        nx, nz, nb = (np.linalg.norm(y) for y in (x, z, b))
        return max(relative(x @ b @ x - a, nx * nb * nx), relative(np.eye(len(x)) - z @ x, nz * nx))

    def invert(root: Any) -> Any:
        return root, scipy.linalg.inv(root)

    source = Input(i.covariance.text, (by.antidiagonal(c, np.eye(n)),))
    identity = "mcsgn [[0, C], [I, 0]] = [[0, C^½], [C^-½, 0]]"
    yield Row("Second Example (10)", identity, source, matsign.mcsgn, sign, _commutes, scipy.linalg.signm)
    identity = "C^½ and Y = -C^-½ together: Y X + I = 0"
    f, peer = matsign.sqrtm_pair, lambda a: invert(scipy.linalg.sqrtm(a))
    yield Row("Second Example (9)", identity, i.root, f, roots, root_gap, peer)
    place, identity = "Second Example (11)", "C = A (BA)^-½ with C⁻¹"
    yield Row(place, identity, i.coupled, matsign.coupled_root, coupled_roots, coupled_gap, _coupled_reference)


def _coupled_reference(a: Array, b: Array) -> Any:
    c = a @ scipy.linalg.inv(scipy.linalg.sqrtm(b @ a))
    return c, scipy.linalg.inv(c)


def _mean(i: Inputs) -> Iterator[Row]:
    def mean(a: Array, b: Array) -> Arrays:
        return (by.geometric_mean(a, b),)

    def gap(values: Arrays, a: Array, b: Array) -> float:
        (g,) = values
        half = np.linalg.solve(b, g)
        return relative(g @ half - a, np.linalg.norm(g) * np.linalg.norm(half))

    def peer(a: Array, b: Array) -> Any:
        return a @ scipy.linalg.sqrtm(scipy.linalg.solve(a, b))

    place, identity = "Second Example (11)", "A # B = A (A⁻¹B)^½, from A and B⁻¹"
    yield Row(place, identity, i.pair, matsign.geometric_mean, mean, gap, peer)


def _third_example(i: Inputs) -> Iterator[Row]:
    for corner in i.corners:
        (c,) = corner.arrays
        source = Input(corner.text, (by.antidiagonal(c, c.T),))
        reference, then = _dilation(len(c))
        identity, f, peer = "mcsgn [[0, C], [Cᵀ, 0]] holds X = msign(C), Y = −Xᵀ", matsign.mcsgn, scipy.linalg.signm
        yield Row("Third Example (13)", identity, source, f, reference, _commutes, peer, then=then)


def _dilation(n: int) -> tuple[Callable[..., Arrays], Callable[[Arrays, Arrays], Arrays]]:
    """(reference, then) for the sign of a dilation whose corner C has n rows, V [[XᵀX, Y], [0, -XXᵀ]] V⁻¹ and X CᵀX.

    With Y = -Xᵀ the second is the sign, and the third is C: XᵀX and -XXᵀ are the signs of B + DX = CᵀX and of
    A - XD = -XCᵀ, ±I for nonsingular C and ± projectors in general.
    """

    def reference(m: Array) -> Arrays:
        x = by.by_singular_vectors(m[:n, n:])[0]
        sign = by.antidiagonal(x, x.T)
        return sign, sign, m[:n, n:]

    def then(values: Arrays, arrays: Arrays) -> Arrays:
        (s,), (m,) = values, arrays
        x, c = s[:n, n:], m[:n, n:]
        middle = by.block(x.T @ x, -x.T, np.zeros_like(x), -x @ x.T)
        return s, _v(x) @ middle @ _v_inverse(x), x @ c.T @ x

    return reference, then


def _polar(i: Inputs) -> Iterator[Row]:
    def factors(m: Array) -> Arrays:
        return by.by_singular_vectors(m)[:2]

    def gap(values: Arrays, m: Array) -> float:
        u, h = values
        return max(_equal(u @ h, m), _isometry((u,), m))

    identity, peer = "M = U H, H = (MᵀM)^½", scipy.linalg.polar
    yield Row("Third Example", identity, i.root, matsign.polar, factors, gap, peer)
