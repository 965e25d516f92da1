"""One matrix sharded over emulated CPU devices: collectives, temporaries and times of the compiled programs.

    python benchmarks/jax_sharded.py [--n 512] [--devices 8] [--functions msign,mcsgn] [--times]

For each function and number of devices p: the collectives in the program, the temporaries of a device over their limit
6 n²/√p + 10 n²/p, the largest array of a device over n², and with --times the seconds of one call. The devices share the cores of
one machine, so that times show the work and not the speed-up.
"""

from __future__ import annotations

import re
import time
from collections import Counter

import jax
import numpy as np
from arguments import parser
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import matsign

COLLECTIVE = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
ARRAY = re.compile(r"\bf64\[([\d,]+)\]")


def four_steps(m):
    return matsign.msign(m, steps=4)


def problems(n):
    rng = np.random.default_rng(0)
    a, q = rng.standard_normal((2, n, n))
    far = 3 * n**0.5 * np.eye(n)
    return {
        "msign": (matsign.msign, a),
        "msign-tall": (four_steps, rng.standard_normal((4 * n, n))),
        "mcsgn": (matsign.mcsgn, a),
        "mcsgn-hermitian": (matsign.mcsgn, a + a.T),
        "sqrtm_pair": (matsign.sqrtm_pair, a + far),
        "solve_sylvester": (matsign.solve_sylvester, a + far, a.T + far, q),
        "solve_continuous_lyapunov": (matsign.solve_continuous_lyapunov, a - far, q),
    }


def measure(f, arrays, devices, times):
    """One line: what the program of p devices holds and sends."""
    mesh = jax.make_mesh((devices,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    arrays = [jax.device_put(x, NamedSharding(mesh, PartitionSpec("x"))) for x in arrays]
    program = jax.jit(f).lower(*arrays).compile()
    text, entries = program.as_text(), max(x.size for x in arrays)
    numbers = program.memory_analysis().temp_size_in_bytes / 8
    limit = entries * (6 / devices**0.5 + 10 / devices)
    largest = max(np.prod([int(k) for k in shape.split(",")]) for shape in ARRAY.findall(text))
    sends = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(COLLECTIVE.findall(text)).items())) or "none"
    line = f"p={devices}  temporaries {numbers / limit:4.2f} of the limit  largest array {largest / entries:5.3f} n²"
    if times:
        jax.block_until_ready(program(*arrays))
        start = time.perf_counter()
        jax.block_until_ready(program(*arrays))
        line += f"  {time.perf_counter() - start:6.2f} s"
    return f"{line}  {sends}"


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--n", type=int, default=512, help="rows and columns (default 512)")
    arguments.add_argument("--devices", type=int, default=8, choices=(1, 2, 4, 8), help="the most devices (default 8)")
    arguments.add_argument("--functions", help="names as printed, separated by commas (default all)")
    arguments.add_argument("--times", action="store_true", help="call the programs, too")
    given = arguments.parse_args()
    known = problems(8)
    names = list(known) if given.functions is None else given.functions.split(",")
    if given.n < 1 or given.n % given.devices or not set(names) <= set(known):
        arguments.error(f"n must be a multiple of the devices, and functions of {', '.join(known)}")
    jax.config.update("jax_num_cpu_devices", given.devices)
    jax.config.update("jax_enable_x64", True)
    for name in names:
        print(name)
        f, *arrays = problems(given.n)[name]
        for devices in (1, 2, 4, 8):
            if devices <= given.devices:
                print("  " + measure(f, arrays, devices, given.times), flush=True)


if __name__ == "__main__":
    main()
