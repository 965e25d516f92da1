"""The processes that the tests start: results by rank, tracebacks of the one that fails, and no hang."""

import os
import time

import pytest

torch = pytest.importorskip("torch")

from torch import distributed  # noqa: E402

from processes import outcomes, run  # noqa: E402

pytestmark = pytest.mark.slow


def sum_of_ranks(extra):
    x = torch.tensor([float(distributed.get_rank())])
    distributed.all_reduce(x)
    return distributed.get_rank(), x.item() + extra


def failing(rank):
    if distributed.get_rank() == rank:
        raise KeyError("the reason")
    distributed.barrier()


def dying():
    if distributed.get_rank() == 1:
        os._exit(7)
    distributed.barrier()


def waiting():
    time.sleep(60 * distributed.get_rank())


def test_results_are_by_rank():
    assert run(3, sum_of_ranks, 10) == [(0, 13.0), (1, 13.0), (2, 13.0)]


def test_the_traceback_of_the_rank_that_fails():
    with pytest.raises(RuntimeError, match=r"(?s)rank 1 of 2 failed:.*KeyError: 'the reason'"):
        run(2, failing, 1)


def test_a_rank_that_dies_and_one_that_hangs():
    with pytest.raises(RuntimeError, match=r"exit code 7|Connection closed"):
        run(2, dying)
    start = time.monotonic()
    first, second = outcomes(2, waiting, timeout=2)
    assert first.ended_well
    assert "still running" in second.error
    assert time.monotonic() - start < 10
