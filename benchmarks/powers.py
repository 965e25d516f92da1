"""Powers, roots and logarithms beside SciPy, and beside eigenvectors by hand: ratios above 1 mean that matsign is faster.

python benchmarks/powers.py [--threads 1]
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import scipy.linalg as sl
import torch
from arguments import parser

import matsign


def alternately(*calls, repeats=5):
    """The best time of each of these calls, made in turn after one of each."""
    for f in calls:
        f()
    best = [np.inf] * len(calls)
    for _ in range(repeats):
        for k, f in enumerate(calls):
            start = time.perf_counter()
            f()
            best[k] = min(best[k], time.perf_counter() - start)
    return best


def report(name, peer, own):
    print(f"{name:48} peer {peer * 1e3:9.2f} ms   matsign {own * 1e3:9.2f} ms   {peer / own:6.2f}", flush=True)


def general(rng):
    for n in (3, 8, 16, 32, 64, 128, 256, 512):
        a = rng.standard_normal((n, n)) / np.sqrt(n) + 2 * np.eye(n)
        calls = partial(sl.fractional_matrix_power, a, 0.3), partial(matsign.fractional_matrix_power, a, 0.3)
        report(f"fractional_matrix_power, general, n = {n}", *alternately(*calls))
        calls = partial(sl.logm, a), partial(matsign.logm, a)
        report(f"logm, general, n = {n}", *alternately(*calls))


def eigh_loop(stack):
    for a in stack:
        values, v = torch.linalg.eigh(a)
        (v * values**-0.25) @ v.mT


def by_products():
    """Covariances of four samples for each variable: A^{-1/4} to four digits."""
    g = torch.randn(64, 256, 1024, generator=torch.Generator().manual_seed(0))
    a = g @ g.mT / 1024
    a = (a + a.mT) / 2
    for method in ("polynomial", "eigh"):
        own = partial(matsign.invrootm, a, 4, tol=1e-4, method=method)
        report(f"64 of 256 x 256 float32, {method}", *alternately(partial(eigh_loop, a), own, repeats=3))


def small(rng, count=1_000_000):
    a = rng.standard_normal((count, 3, 3))
    a = a @ a.swapaxes(1, 2)

    def by_hand():
        values, v = np.linalg.eigh(a)
        return (v * (values**-0.25)[:, None, :]) @ v.swapaxes(1, 2)

    report(f"{count} of 3 x 3, beside eigh by hand", *alternately(by_hand, lambda: matsign.invrootm(a, 4), repeats=2))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    torch.set_num_threads(options.parse_args().threads)
    rng = np.random.default_rng(0)
    general(rng)
    by_products()
    small(rng)


if __name__ == "__main__":
    main()
