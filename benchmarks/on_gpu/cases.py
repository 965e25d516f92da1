"""How the cases of gpu_functions.py are measured and kept: answers first, the file after every case."""

from __future__ import annotations

import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from matsign.backends import torch as torch_backend


class Case(NamedTuple):
    """A call, the error of its result and the error allowed, and what is timed beside it.

    `count` members share a time. A peer with a number is timed on so many members of them.
    """

    call: Callable[[], Any]
    error: Callable[[Any], float]
    allowed: float
    peers: Mapping[str, Callable[[], Any] | tuple[int, Callable[[], Any]]] = MappingProxyType({})
    count: int = 1


class Run:
    """Measures cases one after the other until the time is up."""

    def __init__(self, cpu: bool, out: Path | None, seconds: float, section_seconds: float, each: float) -> None:
        self.cpu, self.device, self.out, self.each = cpu, "cpu" if cpu else "cuda", out, each
        self.end = self.section_end = time.monotonic() + seconds
        self.section_seconds = section_seconds
        name = "cpu" if cpu else torch.cuda.get_device_name()
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        self.figures: dict[str, Any] = {"machine": {"device": name, "threads": torch.get_num_threads(), **versions}}
        self.section = ""

    def start(self, section: str) -> None:
        self.section, self.section_end = section, time.monotonic() + self.section_seconds
        self.figures.setdefault(section, {})
        print(section, flush=True)

    def case(self, name: str, make: Callable[..., Case], *arguments: Any) -> None:
        """Measure one case; an error is its figure, and the next case follows."""
        start, row = time.monotonic(), {}
        try:
            if start < min(self.end, self.section_end):
                self.measure(make(*arguments), row)
            else:
                row["skipped"] = "the time was up"
        except Exception as error:
            row["failure"] = f"{type(error).__name__}: {str(error)[:300]}"
            row["where"] = traceback.format_exc().splitlines()[-8:]
        row["seconds of the case"] = round(time.monotonic() - start, 2)
        self.figures[self.section][name] = row
        shown = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items() if k != "where"}
        print(f"  {name}: {shown}", flush=True)
        self.save()

    def measure(self, case: Case, row: dict[str, Any]) -> None:
        with HostCalls() as calls:
            start = time.perf_counter()
            value = case.call()
            finish(value)
            row["first call ms"] = 1e3 * (time.perf_counter() - start)
        row["host calls"] = calls.names
        row["error"], row["allowed"] = case.error(value), case.allowed
        del value
        if not row["error"] <= case.allowed:
            row["failure"] = "the error is too large"
        unit, scale = ("ms", 1e3) if case.count == 1 else ("µs a member", 1e6)
        slow = row["first call ms"] > 1e3 and row["first call ms"] > 2e3 * self.each
        seconds = row["first call ms"] / 1e3 if slow else self.median(case.call)
        row[unit] = scale * seconds / case.count
        for name, peer in case.peers.items():
            count, call = peer if isinstance(peer, tuple) else (case.count, peer)
            try:
                row[f"{name}, {unit}"] = scale * self.median(call, warm=count == case.count) / count
            except Exception as error:
                row[f"{name}, {unit}"] = f"{type(error).__name__}: {str(error)[:100]}"

    def median(self, call: Callable[[], Any], warm: bool = True, runs: int = 7) -> float:
        """The median time of calls, of fewer than `runs` if they take long."""
        if warm:
            finish(call())
        times: list[float] = []
        while len(times) < runs and (not times or sum(times) < self.each):
            start = time.perf_counter()
            finish(call())
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def save(self) -> None:
        if self.out:
            self.out.write_text(json.dumps(self.figures, indent=1, ensure_ascii=False))


class HostCalls:
    """Counts what a function computes with NumPy and SciPy for tensors on another device."""

    def __enter__(self) -> HostCalls:
        self.names: list[str] = []
        self.original = torch_backend.host_callback

        def counted(f: Any, like: Any, *arrays: Any) -> Any:
            self.names.append(f"{getattr(f, 'func', f).__name__} x {len(arrays[0])}")
            return self.original(f, like, *arrays)

        torch_backend.host_callback = counted
        return self

    def __exit__(self, *_: object) -> None:
        torch_backend.host_callback = self.original


def finish(value: Any) -> None:
    """Wait until a result is there."""
    first = value
    while isinstance(first, (tuple, list)) and first:
        first = first[0]
    if isinstance(first, torch.Tensor):
        if first.is_cuda:
            torch.cuda.synchronize()
    elif hasattr(first, "block_until_ready"):
        first.block_until_ready()


def here(value: Any) -> np.ndarray:
    """A result as an array of doubles on the CPU."""
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.complex128 if value.is_complex() else torch.float64).numpy()
    return np.asarray(value, np.complex128 if np.iscomplexobj(value) else np.float64)


def distance(value: Any, expected: Any) -> float:
    """The largest relative distance of two results or tuples of results."""
    if isinstance(expected, tuple):
        pairs = [(x, y) for x, y in zip(value, expected, strict=True) if y is not None]
        return max(distance(x, y) for x, y in pairs)
    x, y = here(value), here(expected)
    return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-300))
