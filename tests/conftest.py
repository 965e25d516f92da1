"""The array libraries as fixtures: `on` is each of them, `everywhere` also ``jax.jit``, `eager` the two that are quick.

JAX compiles for every shape, even eagerly, so its tests have the mark `compiles`; ``make quick`` omits tests with the marks
`compiles` and `slow`.
"""

import ctypes
import gc
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from _pytest.doctest import DoctestModule
from hypothesis import settings

gc.disable()  # until all tests are collected
sys.path.insert(0, str(Path(__file__).parent))  # for the helper modules: matrices, truth, direct, problems

import processor_time  # noqa: E402

settings.register_profile("matsign", max_examples=25, derandomize=True, deadline=None)
settings.load_profile("matsign")

if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read at the first import of Triton


def pytest_configure(config):
    config.pluginmanager.register(processor_time)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Tests hold no doctests: looking for them would turn a test module that cannot be imported into a skipped one."""
    return [collector for collector in (yield) if not isinstance(collector, DoctestModule)]


HAVE = {name: importlib.util.find_spec(name) is not None for name in ("numpy", "torch", "jax")}
if HAVE["jax"]:
    import jax

    jax.config.update("jax_enable_x64", True)


class Library(NamedTuple):
    """Calls a function on arrays of one library: NumPy arrays in, NumPy arrays out."""

    name: str
    jit: bool = False

    def array(self, x):
        if x is None:  # an omitted optional array
            return None
        if self.name == "torch":
            import torch

            return torch.from_numpy(np.array(x))
        if self.name == "jax":
            return jax.numpy.asarray(x)
        return np.asarray(x)

    def __call__(self, f, *arguments, **options):
        arrays = [self.array(x) for x in arguments]
        if self.jit:
            return as_numpy(jax.jit(lambda *xs: f(*xs, **options))(*arrays))
        return as_numpy(f(*arrays, **options))

    def in_one_program(self, f, *arguments):
        """The result of `f`; in JAX compiled as a whole, since eagerly JAX compiles each operation for every shape."""
        arrays = [self.array(x) for x in arguments]
        return (jax.jit(f) if self.name == "jax" else f)(*arrays)


def as_numpy(result):
    """Arrays of any library as NumPy arrays, tuples as tuples."""
    if isinstance(result, tuple):
        parts = [as_numpy(x) for x in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(result, dict):
        return {name: as_numpy(x) for name, x in result.items()}
    return np.asarray(result)


def _library(name):
    library = "jax" if name == "jit" else name
    if not HAVE[library]:
        pytest.skip(f"{library} is not installed")
    return Library(library, jit=name == "jit")


JAX, JIT = (pytest.param(name, marks=pytest.mark.compiles) for name in ("jax", "jit"))


@pytest.fixture(params=["numpy", "torch", JAX])
def on(request):
    return _library(request.param)


@pytest.fixture(params=["numpy", "torch"])
def eager(request):
    """For tests with many cases that run the same lines as on JAX, which compiles for every shape."""
    return _library(request.param)


@pytest.fixture(params=[JAX])
def in_jax(request):
    """JAX, for fewer cases than the same test has on `eager`."""
    return _library(request.param)


@pytest.fixture(params=["numpy", "torch", JAX, JIT])
def everywhere(request):
    return _library(request.param)


LONG = {"distributed", "docs", "test_types.py", "test_recipes.py"}  # folders and files whose tests start processes


def pytest_collection_modifyitems(items):
    """The longest tests come first: at the end one worker would wait for the other."""
    items.sort(key=lambda item: LONG.isdisjoint((item.path.name, item.path.parent.name)))


def pytest_collection_finish():
    """The garbage collector leaves out what has been imported and collected, and runs less often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()  # at the end, what JAX still holds would be reported as lost


PROGRAMS = 1200  # MiB of memory in use (500 for the libraries) above which JAX's compiled programs are discarded
GROWTH = 300  # MiB that must be added before they are discarded again
_limit = PROGRAMS


def pytest_runtest_teardown():
    """JAX keeps every compiled program, of half a megabyte or more; later tests rarely use those of earlier ones."""
    global _limit
    if HAVE["jax"] and _resident() > _limit:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the heap keeps what is freed otherwise
        _limit = max(PROGRAMS, _resident() + GROWTH)


def _resident():
    """MiB of memory in use, on Linux with the GNU C library; 0 elsewhere."""
    if platform.libc_ver()[0] != "glibc":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
def rng():
    return np.random.default_rng(2025)
