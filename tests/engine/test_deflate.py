"""The generalised null space: exact singular matrices under exact similarities."""

import numpy as np
import pytest

from matrices import block_diagonal, exactly_similar, jordan, rotation
from matsign import backends
from matsign.engine.deflate import deflate

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
def test_projector_on_the_generalised_null_space(name, on, rng):
    core, multiplicity, defective = CORES[name]
    m, transform = exactly_similar(rng, core)
    n = len(m)
    zero = deflate(backends.load(on.name), on.array(m[None]), n * 2.2e-16)
    expected = transform(np.diag((np.arange(n) >= n - multiplicity).astype(float)))
    projector = np.asarray(zero.projector)[0]
    np.testing.assert_allclose(projector, expected, atol=1e-12 * max(1, np.linalg.norm(expected)))
    assert bool(zero.sound[0])
    assert bool(zero.defective[0]) == defective
    # The eigenvalues that are not zero stay, zero goes to the shift.
    moved = np.linalg.eigvals(np.asarray(zero.matrix)[0])
    kept = np.linalg.eigvals(core[: n - multiplicity, : n - multiplicity])
    expected = np.concatenate([kept, np.full(multiplicity, float(zero.shift[0]))])
    for value in expected:
        assert np.abs(moved - value).min() < 1e-5 * np.abs(expected).max()


def test_members_of_different_rank_in_one_stack(on, rng):
    cores = [CORES[k][0] for k in ("none", "simple", "semisimple", "defective")]
    pairs = [exactly_similar(rng, core) for core in cores]
    zero = deflate(backends.load(on.name), on.array(np.stack([m for m, _ in pairs])), 1e-14)
    ranks = np.trace(np.asarray(zero.projector), axis1=1, axis2=2)
    np.testing.assert_allclose(ranks, [0, 1, 2, 2], atol=1e-10)
