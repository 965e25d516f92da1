"""Measure matsign on this machine beside SciPy, PyTorch, JAX and SLICOT, and write JSON and a page.

Every case is computed by matsign and by another library. The two answers must agree before their times are compared. Times are
taken in turn, several rounds; the page shows the median and the quartiles of the ratio matsign / other. Run it on a machine
without other load. A stopped run continues where it stopped: give the same command again.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
from pathlib import Path

from arguments import json_file, parser

from bench.groups import GROUPS, SECONDS

FOLDER = Path(__file__).parents[1]
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NPROC")


def main(words: list[str] | None = None) -> int:
    options = parse(words)
    options.processors = len(processors())
    if options.threads:
        limit_threads(options.threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        from bench.run import run  # imports NumPy, which reads the number of threads once

        return run(options)
    except KeyboardInterrupt:  # before the first case, or twice
        return 130


def parse(words: list[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.prog = "python -m bench"
    options.add_argument("--groups", nargs="+", metavar="GROUP", help=", ".join(GROUPS) + "; default all")
    extent = options.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_const", dest="extent", const="quick", help="about a minute")
    extent.add_argument("--long", action="store_const", dest="extent", const="long", help="large matrices too: an hour")
    options.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help=f"for each case; default {SECONDS['usual']:g}, quick {SECONDS['quick']:g}",
    )
    options.add_argument("--threads", type=count, metavar="N", help="processors to use; default all")
    earlier = options.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="continue the file of figures; this is the default")
    earlier.add_argument("--fresh", action="store_true", help="measure all again; earlier figures move to OUT.json.old")
    options.add_argument("--disturbed", action="store_true", help="measure again what other programs disturbed")
    options.add_argument("--about", metavar="TEXT", help="a description of the machine, for the page")
    options.add_argument("--list", action="store_true", help="print what would be measured")
    options.add_argument(
        "--out",
        type=json_file,
        metavar="OUT.json",
        help="figures; the page is beside them; default benchmarks/out/bench.json",
    )
    options.set_defaults(extent="usual")
    chosen = options.parse_args(words)
    chosen.seconds = chosen.seconds or SECONDS[chosen.extent]
    for name in chosen.groups or ():
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, 1, 0.0)[0]
            options.exit(2, f"bench: error: there is no group {name!r}; the nearest name is {near!r}\n")
    chosen.groups = [name for name in GROUPS if name in (chosen.groups or GROUPS)]
    if chosen.out is None:
        chosen.out = FOLDER / "out" / "bench.json"
    return chosen


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def count(text: str) -> int:
    value, usable = int(text), len(processors())
    if not 1 <= value <= usable:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {usable}, the number of usable processors")
    return value


def processors() -> list[int]:
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def limit_threads(number: int) -> None:
    """For all libraries alike: each reads one of the variables when it is loaded, and the processors of the process."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(number)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors()[:number])


if __name__ == "__main__":
    sys.exit(main())
