"""Batches sharded over eight emulated devices, in one process of JAX on a CPU.

    python benchmarks/jax_batches.py [--quick]

For each call: the collectives in its program (0 wanted), the time of tracing and compiling, and the time of the program over that
of the NumPy call, the median of pairs taken in turn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import numpy as np
from arguments import parser
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import matsign

COLLECTIVES = re.compile(r"(?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


def seconds(f: Callable[..., Any], *arrays: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(*arrays))
    return time.perf_counter() - start


def measure(name: str, f: Callable[..., Any], kind: AxisType, repeats: int, *arrays: np.ndarray) -> None:
    sharding = NamedSharding(jax.make_mesh((8,), ("x",), axis_types=(kind,)), PartitionSpec("x"))
    sharded = [jax.device_put(x, sharding) for x in arrays]
    start = time.perf_counter()
    program = jax.jit(f).lower(*sharded).compile()
    compiling = time.perf_counter() - start
    collectives = len(COLLECTIVES.findall(program.as_text()))
    pairs = [(seconds(program, *sharded), seconds(f, *arrays)) for _ in range(repeats + 1)][1:]
    ratio = median(ours / by_numpy for ours, by_numpy in pairs)
    print(f"{name:40} {kind.name:9} {collectives:11} {compiling:9.2f} s {ratio:8.2f}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="a tenth of the members")
    count = 800 if arguments.parse_args().quick else 8000
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((count, 8, 8))
    p, r = a @ a.mT + np.eye(8), np.broadcast_to(np.eye(8), a.shape).copy()
    print(f"{f'{count} of 8 × 8, 8 devices':40} {'mesh':9} collectives compiling  over NumPy")
    for kind in (AxisType.Auto, AxisType.Explicit):
        measure("sqrtm", matsign.sqrtm, kind, 5, p)
        measure("solve_continuous_are", matsign.solve_continuous_are, kind, 5, a, r, p, r)
        measure("solve_sylvester", matsign.solve_sylvester, kind, 5, a + 9 * r, p, a)
        measure("msign in four steps", lambda m: matsign.msign(m, steps=4), kind, 5, a)


if __name__ == "__main__":
    main()
