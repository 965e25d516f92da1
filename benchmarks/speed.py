"""Time beside SciPy on the CPU, as ratios within one run.

    python benchmarks/speed.py [OUT.json] [--quick]

Each pair is measured one after the other, and the ratio is of the best times: above 1 matsign is faster. Not in turn: NumPy
and SciPy each bring a BLAS whose threads go on spinning after a call and would get in the other's way. A batch is compared
with a loop over SciPy (or SciPy's own batch, where it has one).
"""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.linalg as sl
from arguments import json_file, parser

import matsign
from matsign.backends import load
from matsign.iterations.block_structures import Dense, Riccati
from matsign.iterations.newton import newton

Thunk = Callable[[], Any]


def ours_and_theirs(ours: Thunk, theirs: Thunk, budget: float = 2.0) -> tuple[float, float]:
    """Best times in seconds of the two."""
    return best_time(ours, budget / 2), best_time(theirs, budget / 2)


def best_time(f: Thunk, budget: float) -> float:
    f()
    best, spent = np.inf, 0.0
    while spent < budget:
        start = time.perf_counter()
        f()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


_RNG = np.random.default_rng(0)


def gaussian(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape)


def single(n: int) -> dict[str, tuple[Thunk, Thunk]]:
    """Pairs for one matrix of size n."""
    g, h, q = gaussian(n, n), gaussian(n, n), gaussian(n, n)
    right, other = g / np.sqrt(n) + 2.5 * np.eye(n), h / np.sqrt(n) + 2.5 * np.eye(n)
    spd = g @ g.T + np.eye(n)
    spd = (spd + spd.T) / 2
    return {
        "mcsgn": (lambda: matsign.mcsgn(g), lambda: sl.signm(g)),
        "polar": (lambda: matsign.polar(g), lambda: sl.polar(g)),
        "polar, 2n x n": (lambda: matsign.polar(np.vstack([g, q])), lambda: sl.polar(np.vstack([g, q]))),
        "sqrtm, SPD": (lambda: matsign.sqrtm(spd), lambda: sl.sqrtm(spd)),
        "sqrtm, general": (lambda: matsign.sqrtm(right), lambda: sl.sqrtm(right)),
        "solve_sylvester, separable": (
            lambda: matsign.solve_sylvester(right, other, q),
            lambda: sl.solve_sylvester(right, other, q),
        ),
        "solve_sylvester, mixed": (lambda: matsign.solve_sylvester(g, q, h), lambda: sl.solve_sylvester(g, q, h)),
    }


def batch(n: int, count: int) -> dict[str, tuple[Thunk, Thunk]]:
    """Pairs for a batch; the loop over SciPy runs a part of it and its time is scaled by the caller."""
    g, h, q = gaussian(count, n, n), gaussian(count, n, n), gaussian(count, n, n)
    eye = np.eye(n)
    right, other = g / np.sqrt(n) + 2.5 * eye, h / np.sqrt(n) + 2.5 * eye
    far = right + 2 * eye
    spd = g @ g.mT + eye
    spd = (spd + spd.mT) / 2
    part = range(min(count, 200))

    def loop(f: Callable[..., Any], *stacks: np.ndarray) -> Thunk:
        return lambda: [f(*(x[i] for x in stacks)) for i in part]

    return {
        "mcsgn": (lambda: matsign.mcsgn(g), loop(sl.signm, g)),
        "polar": (lambda: matsign.polar(g), loop(sl.polar, g)),
        "sqrtm, SPD": (lambda: matsign.sqrtm(spd), lambda: sl.sqrtm(spd[: len(part)])),
        "sqrtm, general": (lambda: matsign.sqrtm(far), lambda: sl.sqrtm(far[: len(part)])),
        "solve_sylvester, separable": (
            lambda: matsign.solve_sylvester(right, other, q),
            loop(sl.solve_sylvester, right, other, q),
        ),
        "solve_sylvester, mixed": (lambda: matsign.solve_sylvester(g, q, h), loop(sl.solve_sylvester, g, q, h)),
    }


def riccati(n: int) -> tuple[Thunk, Thunk]:
    """Our solver, and Newton's iteration on the dense matrix of twice the size alone."""
    a, b = gaussian(n, n) / np.sqrt(n) - 3 * np.eye(n), gaussian(n, n) / np.sqrt(n) + 3 * np.eye(n)
    c, d = gaussian(n, n), gaussian(n, n) / n
    backend = load("numpy")
    dense = Dense(Riccati(*(x[None] for x in (a, c, d, b))).dense(backend))
    return lambda: matsign.solve_riccati(a, b, c, d), lambda: newton(backend, dense)


def report(rows: list[dict[str, Any]], name: str, size: str, times: tuple[float, float], scale: float = 1.0) -> None:
    ours, theirs = times[0], times[1] * scale
    rows.append({"function": name, "size": size, "ours": ours, "scipy": theirs, "ratio": theirs / ours})
    print(f"{name:28} {size:>12} {ours * 1e3:12.3f} ms {theirs * 1e3:12.3f} ms {theirs / ours:8.2f}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--quick", action="store_true", help="small sizes")
    chosen = options.parse_args()
    quick = chosen.quick
    rows: list[dict[str, Any]] = []
    print(f"{'function':28} {'size':>12} {'matsign':>15} {'SciPy':>15} {'ratio':>8}")
    for n in (4, 16, 64) if quick else (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048):
        for name, pair in single(n).items():
            # SciPy needs minutes here for what we take seconds.
            if n < 2048 or name.startswith(("polar", "sqrtm, SPD")):
                if n == 1024 and name == "mcsgn":
                    continue
                report(rows, name, str(n), ours_and_theirs(*pair, budget=2.0))
    for n, count in ((8, 1000),) if quick else ((4, 10_000), (8, 10_000), (16, 2000), (32, 500), (64, 64), (128, 16)):
        for name, pair in batch(n, count).items():
            report(rows, name, f"{count} x {n}", ours_and_theirs(*pair), count / min(count, 200))
    for n in (16,) if quick else (64, 256, 512):
        report(rows, "solve_riccati / dense sign", str(n), ours_and_theirs(*riccati(n)))
    if chosen.out:
        machine = {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        }
        chosen.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
