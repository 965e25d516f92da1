"""Null spaces counted modulo primes, for matrices with known Jordan chains."""

import numpy as np
import pytest

from matrices import block_diagonal, exactly_similar, jordan
from matsign.linalg import nullity


def chain_counts(lengths, n):
    return [sum(min(j, k) for k in lengths) for j in range(1, n + 1)]


def test_hundreds_of_chains(rng):
    for _ in range(300):
        lengths = rng.integers(1, 5, rng.integers(0, 4))
        core = block_diagonal(*(jordan(0, int(k)) for k in lengths), np.diag(rng.integers(1, 4, 2).astype(float)))
        m, _ = exactly_similar(rng, core)
        units = 2.0 ** rng.integers(-200, 200, len(m))
        m = units[:, None] * m / units * 2.0 ** rng.integers(-300, 300)
        assert nullity.nullities(m[None])[0].tolist() == chain_counts(lengths, len(m))


def test_rounding_is_no_zero():
    m = np.array([[[1.0, 1.0], [1.0, 1 + 2.0**-52]], [[1.0, 1.0], [1.0, 1.0]]])
    assert nullity.nullities(m).tolist() == [[0, 0], [1, 1]]
    assert nullity.nullities(m.astype(np.float32)).tolist() == [[1, 1], [1, 1]]


def test_complex_entries(rng):
    a, b = (rng.integers(-3, 4, (5, 3)) + 1j * rng.integers(-3, 4, (5, 3)) for _ in range(2))
    assert nullity.nullities((a @ b.T)[None])[0, 0] == 2
    assert nullity.nullities(np.array([[[1, 1j], [1j, -1]]])).tolist() == [[1, 2]]


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (40, 31), (64, 64), (65, 65), (150, 97)])
def test_ranks_in_panels_and_together(n, rank, rng):
    a = (rng.integers(-3, 4, (n, rank)) @ rng.integers(-3, 4, (rank, n))).astype(float)
    for p in nullity._PRIMES:
        residues = nullity._residues(a, p)
        assert nullity._rank(residues, p) == nullity._batched_ranks(residues[None], p)[0] == rank


def test_the_primes_are_primes_with_a_root_of_minus_one():
    for p in nullity._PRIMES:
        assert all(p % k for k in range(2, int(p**0.5) + 1))
        assert nullity._root_of_minus_one(p) ** 2 % p == p - 1
        # Sums of products at the largest size stay exact integers in double precision.
        assert nullity._LARGEST * (p - 1) ** 2 < 2**53
