"""Real processes for the tests: `run(4, function, ...)` starts four, connected by gloo, and returns what each computed.

They are forked from a server that has imported PyTorch and matsign once, so that a start costs a tenth of a second. A test never
waits longer than its timeout, and leaves no process behind. Timeouts only end what hangs: a busy machine may take ten times
as long as an idle one.

This file is in tests/ and not in tests/distributed/, because ``import distributed`` is dask's package.
"""

import datetime
import importlib.util
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

PRELOADED = [
    "pytest",
    "jax",  # which starts no thread before the first array
    "matsign.backends.jax",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch._dynamo",  # which DTensors and FSDP2 import at their first use
    "matsign.backends.torch_autodiff",
    "matsign.optim.sharded_step",
    "quiet_exit",
]


class Outcome(NamedTuple):
    """How the process of a rank ended: with a value, with the text of an error, or (neither) with this exit code."""

    value: Any = None
    error: str | None = None
    code: int | None = None
    seconds: float = 0.0

    @property
    def ended_well(self):
        return self.error is None and self.code == 0


def run(world, function, *args, timeout=300, join=None):
    """``function(*args)`` in `world` processes; the results by rank.

    `function` is one of a test module. `args` and results are pickled. If one rank fails, the others are ended and its
    traceback is raised. `join(rank, world, folder)` connects a process with the others, by a folder that they share;
    the default is `gloo`.
    """
    results = outcomes(world, function, *args, timeout=timeout, join=join, stop_at_failure=True)
    failed = {rank: outcome for rank, outcome in enumerate(results) if not outcome.ended_well}
    if failed:
        # The first to end is the cause: the others were ended, or lost their connection.
        rank, outcome = min(failed.items(), key=lambda item: item[1].seconds)
        raise RuntimeError(f"rank {rank} of {world} failed:\n{outcome.error or f'exit code {outcome.code}'}")
    return [outcome.value for outcome in results]


def run_checks(checks, join, timeout=300):
    """Functions with arguments, by name, one after the other in one process: the traceback of each that fails, else None."""
    calls = {name: (_address(f), args) for name, (f, *args) in checks.items()}
    return run(1, _tracebacks, calls, timeout=timeout, join=join)[0]


def _tracebacks(calls):
    said = dict.fromkeys(calls)
    for name, (address, args) in calls.items():
        try:
            _found(*address)(*args)
        except Exception:
            said[name] = traceback.format_exc()
    return said


def outcomes(world, function, *args, timeout=300, join=None, stop_at_failure=False):
    """How every rank ended. Those that still run at the timeout, or with `stop_at_failure` after one failed, are killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    task = (_address(join or gloo), _address(function), sys.path, pickle.dumps(args))
    start, ended, pipes = time.monotonic(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        for rank in range(world):
            here, there = context.Pipe(duplex=False)
            workers.append(context.Process(target=_work, args=(rank, world, folder, task, there), daemon=True))
            workers[-1].start()
            there.close()
            pipes[here] = rank
        try:
            while pipes and (left := start + timeout - time.monotonic()) > 0:
                for pipe in connection.wait(list(pipes), left):
                    rank = pipes.pop(pipe)
                    ended[rank] = _received(pipe, workers[rank], time.monotonic() - start)
                if stop_at_failure and not all(outcome.ended_well for outcome in ended.values()):
                    break
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
    late = f"still running after {time.monotonic() - start:.0f} s"
    return [ended.get(rank, Outcome(error=late, seconds=timeout)) for rank in range(world)]


def _received(pipe, worker, seconds):
    try:
        value, error = pipe.recv()
    except EOFError:  # it ended without a word
        worker.join()
        return Outcome(code=worker.exitcode, seconds=seconds)
    return Outcome(value, error, code=0 if error is None else 1, seconds=seconds)


def _address(function):
    """Where a process finds a function: modules of tests cannot be imported by their names."""
    return sys.modules[function.__module__].__file__, function.__module__, function.__qualname__


def _found(file, module, name):
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    found = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _work(rank, world, folder, task, pipe):
    """A process: connect, compute, send the result or the traceback."""
    try:
        *addresses, path, args = task
        sys.path[:] = path
        join, function = (_found(*address) for address in addresses)
        leave = join(rank, world, folder)
        result = (function(*pickle.loads(args)), None)
        if leave is not None:
            leave()
        pipe.send(result)
    except BaseException:
        pipe.send((None, traceback.format_exc()))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.close()
        os._exit(0)  # without waiting for threads of a process group that lost a rank


def gloo(rank, world, folder):
    """Connect PyTorch's processes by gloo, each with one thread."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=120),
    )
    return distributed.destroy_process_group
