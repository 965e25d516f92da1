"""Large stacks are solved in chunks, by several threads if members are small."""

import threading
import warnings

import numpy as np
import pytest

import matsign
from matrices import gaussian
from matsign.backends import lapack, load


@pytest.fixture
def three_workers(monkeypatch):
    seen = set()

    def workers(x):
        seen.add(threading.get_ident())
        return 3

    monkeypatch.setattr(load("numpy"), "workers", workers)
    return seen


@pytest.mark.parametrize("size", [2, 20])
def test_pieces_have_the_bits_of_members(size, three_workers, rng):
    count = 3 * (1 << 15) // size**2 + 5
    a = gaussian(rng, count, size, size)
    a[::7] += 9 * np.eye(size)
    a[count // 2] = 0
    for f in (matsign.msign, lambda x, **k: matsign.solve_sylvester(x, x + 3 * np.eye(size), x, **k)):
        found = f(a, errors="nan")
        for k in (0, 1, count // 2, count - 1):
            np.testing.assert_array_equal(found[k], f(a[k], errors="nan"))


@pytest.mark.slow
def test_an_error_names_the_member_of_the_whole_stack(three_workers, rng):
    a = gaussian(rng, 30_000, 2, 2)
    a[29_500] = np.nan
    with pytest.raises(matsign.SpectrumError, match="29500"):
        matsign.mcsgn(a @ a.mT + np.eye(2))


def test_threads_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters)

    def turn():
        for _ in range(200):
            with lapack.quiet():
                pass

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
