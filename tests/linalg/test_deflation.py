"""The generalised null space of exactly singular matrices under exact similarities."""

import numpy as np
import pytest

from matrices import block_diagonal, exactly_similar, jordan, rotation, unitary
from matsign import backends
from matsign.linalg.deflation import deflate

CORES = {
    "none": (np.diag([1.0, -2, 3, 1]), 0, False),
    "simple": (np.diag([1.0, -2, 3, 0]), 1, False),
    "semisimple": (np.diag([1.0, -2, 0, 0]), 2, False),
    "defective": (block_diagonal([[1.0]], [[-2.0]], jordan(0, 2)), 2, True),
    "long chain": (block_diagonal([[2.0]], jordan(0, 4)), 4, True),
    "two chains": (block_diagonal([[-1.0]], jordan(0, 2), jordan(0, 3)), 5, True),
    "complex beside": (block_diagonal(rotation(1, 2), jordan(0, 2)), 2, True),
    "nilpotent": (jordan(0, 3), 3, True),
    "zero": (np.zeros((3, 3)), 3, False),
}


@pytest.mark.parametrize("name", CORES)
def test_projector_on_the_generalised_null_space(name, eager, rng):
    check_projector(name, eager, rng)


@pytest.mark.parametrize("name", ["none", "semisimple", "defective", "two chains"])
def test_projector_in_jax(name, in_jax, rng):
    check_projector(name, in_jax, rng)


def check_projector(name, on, rng):
    core, multiplicity, defective = CORES[name]
    m, transform = exactly_similar(rng, core)
    n = len(m)
    backend = backends.load(on.name)
    zero = on.in_one_program(lambda m: deflate(backend, m, n * 2.2e-16), m[None])
    expected = transform(np.diag((np.arange(n) >= n - multiplicity).astype(float)))
    projector = np.asarray(zero.projector)[0]
    np.testing.assert_allclose(projector, expected, atol=1e-12 * max(1, np.linalg.norm(expected)))
    assert bool(zero.sound[0])
    assert bool(zero.defective[0]) == defective
    # The nonzero eigenvalues stay, zero eigenvalues become the shift.
    moved = np.linalg.eigvals(np.asarray(zero.matrix)[0])
    kept = np.linalg.eigvals(core[: n - multiplicity, : n - multiplicity])
    expected = np.concatenate([kept, np.full(multiplicity, float(zero.shift[0]))])
    for value in expected:
        assert np.abs(moved - value).min() < 1e-5 * np.abs(expected).max()


def test_members_of_different_rank_in_one_stack(on, rng):
    cores = [CORES[k][0] for k in ("none", "simple", "semisimple", "defective")]
    pairs = [exactly_similar(rng, core) for core in cores]
    backend, stack = backends.load(on.name), np.stack([m for m, _ in pairs])
    zero = on.in_one_program(lambda m: deflate(backend, m, 1e-14), stack)
    ranks = np.trace(np.asarray(zero.projector), axis1=1, axis2=2)
    np.testing.assert_allclose(ranks, [0, 1, 2, 2], atol=1e-10)


STRUCTURES = [
    ((1,), (1, -2)),
    ((1, 1), (3, -1)),
    ((2,), (1, -2)),
    ((3,), (2,)),
    ((4,), (2,)),
    ((3, 2), (-1,)),
    ((2, 2, 1), (1, -1)),
    ((5,), ()),
    ((3, 1), ()),
]


def signed_permutation(rng, n):
    return np.eye(n)[rng.permutation(n)] * rng.choice([-1.0, 1.0], n)


@pytest.mark.parametrize(("lengths", "others"), STRUCTURES)
def test_hundreds_of_similar_matrices(lengths, others, rng):
    """Many draws: a decision that depends on rounding errors would be wrong for some of them."""
    core = block_diagonal(*(np.atleast_2d(float(x)) for x in others), *(jordan(0, k) for k in lengths))
    n, multiplicity = len(core), sum(lengths)
    stack, expected, size = [], [], []
    for _ in range(200):
        q = signed_permutation(rng, n)
        m, transform = exactly_similar(rng, core)
        stack.append(q @ m @ q.T)
        expected.append(q @ transform(np.diag((np.arange(n) >= n - multiplicity).astype(float))) @ q.T)
        size.append(np.linalg.cond(transform(np.diag(np.arange(1.0, n + 1)))))
    zero = deflate(backends.load("numpy"), np.stack(stack), n * 2.2e-16)
    assert zero.exact.all()
    assert zero.sound.all()
    assert (zero.defective == (max(lengths) > 1)).all()
    for p, x, grown in zip(zero.projector, expected, size, strict=True):
        assert np.linalg.norm(p - x) <= 1e-13 * grown * np.linalg.norm(x)


def test_a_chain_that_rounding_moved_is_not_exact(rng):
    for _ in range(100):
        u = unitary(rng, 4)
        m = u @ block_diagonal([[1.0]], jordan(0, 3)) @ u.T
        zero = deflate(backends.load("numpy"), m[None], 1e-14)
        assert not zero.exact[0]
        assert not zero.sound[0] or np.trace(zero.projector[0]).round() == 3


def test_what_rtol_leaves_open_with_a_chain_is_not_sound():
    """Perturbed by 1e-9, a Jordan chain of two has eigenvalues ±3e-5, which are not well separated from 1e-4."""
    m = block_diagonal(jordan(0, 2), [[1e-4]], [[1.0]])
    m[1, 0] = 1e-9  # below rtol, so M is not exactly singular
    backend = backends.load("numpy")
    assert not deflate(backend, m[None], 1e-8).sound[0]
    m[2, 2] = 1e-1
    assert deflate(backend, m[None], 1e-8).sound[0]
