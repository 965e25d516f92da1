"""What ``jax.jit`` costs on a CPU: compiling beside a root by ``eigh``, and running beside the NumPy call.

    python benchmarks/jit.py [OUT.json] [--quick]

The first call is timed from tracing to the result, the best of three new functions, after one of the same kind has run. Times
of finished programs are the median of pairs taken in turn: the NumPy call, then the jitted one.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arguments import json_file, parser

import matsign

jax.config.update("jax_enable_x64", True)
Function = Callable[..., Any]
Arrays = tuple[np.ndarray, ...]

_RNG = np.random.default_rng(0)


def gaussian(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape)


def eigh_root(a: Any) -> Any:
    """The square root that one writes by hand."""
    values, vectors = jnp.linalg.eigh(a)
    return (vectors * jnp.sqrt(values)[..., None, :]) @ vectors.mT


def problems(n: int, *batch: int) -> dict[str, tuple[Function, Arrays]]:
    """Every public function of arrays and what it is called on."""
    g, h = gaussian(*batch, n, n), gaussian(*batch, n, n)
    one = np.broadcast_to(np.eye(n), g.shape)
    spd, other = g @ g.mT / n + one, h @ h.mT / n + one
    unit = g / np.linalg.norm(g, 2, axis=(-2, -1), keepdims=True)  # so that no member is near the boundary
    stable, inside, coupling = unit - 1.5 * one, unit / 1.5, unit.mT / 4
    b, c = h[..., : max(n // 2, 1)], np.ascontiguousarray(h.mT[..., : max(n // 2, 1), :])
    r = np.broadcast_to(np.eye(b.shape[-1]), (*batch, b.shape[-1], b.shape[-1]))
    right = -stable
    return {
        "mcsgn": (matsign.mcsgn, (g,)),
        "spectral_projector": (matsign.spectral_projector, (g,)),
        "matrix_abs": (matsign.matrix_abs, (g,)),
        "msign": (matsign.msign, (g,)),
        "polar": (matsign.polar, (g,)),
        "sqrtm": (matsign.sqrtm, (spd,)),
        "invsqrtm": (matsign.invsqrtm, (spd,)),
        "sqrtm_pair": (matsign.sqrtm_pair, (spd,)),
        "geometric_mean": (matsign.geometric_mean, (spd, other)),
        "coupled_root": (matsign.coupled_root, (spd, other)),
        "mclip": (lambda x: matsign.mclip(x, 1.0), (g,)),
        "soft_threshold": (lambda x: matsign.soft_threshold(x, 1.0), (g,)),
        "psd_project": (matsign.psd_project, (g + g.mT,)),
        "solve_sylvester": (matsign.solve_sylvester, (right, right, h)),
        "solve_continuous_lyapunov": (matsign.solve_continuous_lyapunov, (stable, spd)),
        "solve_discrete_lyapunov": (matsign.solve_discrete_lyapunov, (inside, spd)),
        "lyapunov_factor": (matsign.lyapunov_factor, (stable, b)),
        "discrete_lyapunov_factor": (matsign.discrete_lyapunov_factor, (inside, b)),
        "hankel_singular_values": (matsign.hankel_singular_values, (stable, b, c)),
        "balanced_truncation": (lambda *x: matsign.balanced_truncation(*x, order=max(n // 2, 1)), (stable, b, c)),
        "solve_riccati": (matsign.solve_riccati, (stable, right, coupling, coupling @ unit)),
        "solve_continuous_are": (matsign.solve_continuous_are, (g, b, spd, r)),
        "solve_discrete_are": (matsign.solve_discrete_are, (g / np.sqrt(n), b, spd, r)),
        "lqr": (matsign.lqr, (g, b, spd, r)),
        "dlqr": (matsign.dlqr, (g / np.sqrt(n), b, spd, r)),
    }


def total(f: Function) -> Function:
    """The sum of squares of all that f returns, and its gradient in the first argument."""
    return jax.grad(lambda *x: sum(jnp.sum(jnp.abs(part) ** 2) for part in jax.tree.leaves(f(*x))))


def seconds(f: Function, arrays: Arrays) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(*arrays))
    return time.perf_counter() - start


def first_call(f: Function, arrays: Arrays) -> float:
    """Seconds to trace, lower, compile and run; a new function each time, so that nothing of it is kept."""
    times = []
    for _ in range(4):
        times.append(seconds(jax.jit(lambda *x: f(*x)), arrays))
    return min(times[1:])


def compiling(rows: list[dict[str, Any]]) -> None:
    n = 6
    spd = problems(n)["sqrtm"][1]
    roots = first_call(eigh_root, spd), first_call(total(eigh_root), spd)
    print(f"a root by eigh: {roots[0]:.3f} s, its gradient {roots[1]:.3f} s\n")
    print(f"{'first call, n = 6':28} {'value':>9} {'ratio':>6} {'gradient':>9} {'ratio':>6}")
    for name, (f, arrays) in problems(n).items():
        value, gradient = first_call(f, arrays), first_call(total(f), arrays)
        rows.append(
            {"function": name, "value": value, "gradient": gradient, "eigh": roots[0], "eigh gradient": roots[1]}
        )
        print(
            f"{name:28} {value:7.3f} s {value / roots[0]:6.2f} {gradient:7.3f} s {gradient / roots[1]:6.2f}", flush=True
        )


def in_turn(ours: Function, jitted: Function, arrays: Arrays, budget: float) -> tuple[float, float]:
    """Median seconds of the NumPy call and of the jitted one."""
    seconds(ours, arrays), seconds(jitted, arrays)
    pairs, end = [], time.perf_counter() + budget
    while len(pairs) < 3 or time.perf_counter() < end:
        pairs.append((seconds(ours, arrays), seconds(jitted, arrays)))
    return median(x for x, _ in pairs), median(x for _, x in pairs)


def running(rows: list[dict[str, Any]], n: int, *batch: int) -> None:
    size = " x ".join(map(str, (*batch, n)))
    found = problems(n, *batch)
    print(f"\n{'finished, ' + size:28} {'NumPy':>12} {'jitted':>12} {'ratio':>6}")
    for name, (f, arrays) in found.items():
        plain, jitted = in_turn(f, jax.jit(f), arrays, budget=1.0)
        rows.append({"function": name, "size": size, "numpy": plain, "jitted": jitted})
        print(f"{name:28} {plain * 1e3:9.2f} ms {jitted * 1e3:9.2f} ms {jitted / plain:6.2f}", flush=True)
    spd = tuple(jnp.asarray(x) for x in found["sqrtm"][1])
    root, ours = in_turn(jax.jit(eigh_root), jax.jit(matsign.sqrtm), spd, budget=1.0)
    rows.append({"function": "sqrtm beside eigh", "size": size, "numpy": root, "jitted": ours})
    print(f"{'sqrtm beside jitted eigh':28} {root * 1e3:9.2f} ms {ours * 1e3:9.2f} ms {ours / root:6.2f}", flush=True)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--quick", action="store_true", help="small sizes")
    chosen = options.parse_args()
    compiled: list[dict[str, Any]] = []
    finished: list[dict[str, Any]] = []
    compiling(compiled)
    for size in ((8, 100),) if chosen.quick else ((256,), (8, 10_000), (3, 100_000)):
        running(finished, *size)
    if chosen.out:
        machine = {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        }
        machine["threads"] = os.environ.get("OPENBLAS_NUM_THREADS", "all")
        chosen.out.write_text(json.dumps({"machine": machine, "first call": compiled, "finished": finished}, indent=1))


if __name__ == "__main__":
    main()
