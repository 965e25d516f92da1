"""A batch over the processes of a cluster, one of which is killed in the middle."""

import os
import signal

import numpy as np
import pytest

import matrices
import matsign

distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

pytestmark = pytest.mark.slow

COUNT, CHUNK = 2400, 40
CONFIG = {
    "distributed.nanny.pre-spawn-environ.OPENBLAS_NUM_THREADS": 1,
    "distributed.diagnostics.nvml": False,
}


@pytest.fixture
def client():
    import dask

    with dask.config.set(CONFIG):
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


def plants(rng, count, n=4, m=2):
    a, b = rng.standard_normal((count, n, n)), rng.standard_normal((count, n, m))
    return a, b, np.broadcast_to(np.eye(n), (count, n, n)).copy(), np.eye(m)


def test_processes_that_fail(client, rng):
    """One is killed, then one raises an error, in the same cluster."""
    assert_a_killed_process_loses_no_member(client, rng)
    assert_an_error_in_another_process(client, rng)


def assert_a_killed_process_loses_no_member(client, rng):
    a, b, q, r = plants(rng, COUNT)
    pid = next(iter(client.run(os.getpid).values()))
    lazy = (da.from_array(x, chunks=(CHUNK, -1, -1)) for x in (a, b, q))
    x = matsign.solve_continuous_are(*lazy, r).persist()
    futures = distributed.futures_of(x)
    next(distributed.as_completed(futures, timeout=300))
    unfinished = sum(not f.done() for f in futures)
    os.kill(pid, signal.SIGKILL)
    result = client.compute(x).result(timeout=300)
    assert unfinished > 3
    np.testing.assert_array_equal(result, matsign.solve_continuous_are(a, b, q, r))


def assert_an_error_in_another_process(client, rng):
    m = np.stack([matrices.splitting(rng, 3, "float64") for _ in range(8)])
    m[6] = np.zeros((3, 3))
    m[6, :2, :2] = [[0, 1], [-1, 0]]
    with pytest.raises(matsign.SpectrumError, match="mcsgn: batch members 6: an eigenvalue") as caught:
        client.compute(matsign.mcsgn(da.from_array(m, chunks=(3, 3, 3)))).result(timeout=300)
    assert caught.value.members == [(6,)]
    assert np.isfinite(caught.value.value[1]).all()
