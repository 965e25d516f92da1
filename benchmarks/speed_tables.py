"""The tables of docs/measurements/speed.md, from the figures in benchmarks/results: nothing is measured.

python benchmarks/speed_tables.py [docs/measurements/speed.md]    # writes the page
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arguments import page, parser

RESULTS = Path(__file__).parent / "results"
HEAD = """# Speed, measured

How much faster or slower than SciPy each function is, by size, and what decides it. `python benchmarks/speed_tables.py
docs/measurements/speed.md` writes this page from the figures in `benchmarks/results`;
`benchmarks/README.md` has the details.

```{picture} speed_slopes
Two log-log panels of time against size, for a Sylvester equation and for a square root. SciPy's line is below that of matsign for
sizes up to about 20 and above it for larger ones. The slopes are about 3.
```

## How it was measured

- A cell is a ratio: SciPy's time over that of matsign. **Above 1 matsign is faster.** A – was not measured.
- Both times are from the same run on the same machine, one after the other, each the best of many repetitions in about a second.
- A batch is compared with a loop over SciPy's function, or with SciPy's own batch, where it has one.
- Ratios apply to other machines, too; times do not.

`mcsgn` is compared with `signm`, which is wrong on graded matrices ([Accuracy](accuracy.md)). "Separable" means that a line
separates the spectra of a and −b; "mixed" or "general", that none does. CAREs and DAREs have n/2 inputs. With n/8 inputs more of
them need a step in twice the precision: on one thread the ratio of `solve_continuous_are` is then 4 at n = 64, 13 at n = 128 and
30 at n = 256. The figures of `solve_discrete_are` are from before its answers were refined as often as now.

Where matsign is slower: one matrix of size below about 32, because a call takes 30 to 50 µs for its checks; and general Sylvester
equations of middle size, where both compute the same two Schur forms.
"""
MACHINES = {
    "Two threads": (
        "Intel Xeon (Sapphire Rapids class, AVX-512) with 2 cores, both used; NumPy 2.4.6, SciPy 1.17.1, OpenBLAS.",
        ("cpu", "equations", "lyapunov"),
    ),
    "One thread": (
        "AMD EPYC with AVX2 kernels (OpenBLAS for Haswell), `OPENBLAS_NUM_THREADS=1`, other work on the second core; NumPy 2.4, "
        "SciPy 1.17.",
        ("cpu_one_thread", "equations_one_thread", "lyapunov_one_thread"),
    ),
}
NAMES = {
    "continuous, stable": "solve_continuous_lyapunov, stable",
    "continuous, mixed": "solve_continuous_lyapunov, mixed",
    "discrete, radius 0.9": "solve_discrete_lyapunov",
    "discrete": "solve_discrete_lyapunov",
    "solve_sylvester, general": "solve_sylvester, mixed",
}
FUNCTIONS = ("mcsgn", "polar", "sqrtm", "solve_", "continuous", "discrete")
FORMAT = "matsign bench 1"
GPU = """
## On a GPU

One NVIDIA H200 with 16 CPU cores, PyTorch 2.11, float64, milliseconds for one matrix. SciPy runs on the CPU of that machine, with
four threads.

| function | n = 512 | n = 2048 | SciPy on the CPU, n = 512 |
|---|---|---|---|"""
GRADIENTS = """
## Gradients

The time of the forward and the backward pass over that of the forward pass, PyTorch on the CPU, two threads, float64.
The figures of an unrolled Newton iteration and of an SVD are in `benchmarks/results/derivatives.json`.
"""


def measured(files: Iterable[str]) -> dict[str, dict[str, float]]:
    """Function -> size -> ratio; later files replace earlier ones."""
    table: dict[str, dict[str, float]] = {}
    for name in files:
        content = json.loads((RESULTS / f"{name}.json").read_text())
        for row in content if isinstance(content, list) else content["rows"]:
            size = row["size"]
            if (
                row["function"].startswith(FUNCTIONS)
                and "/" not in row["function"]
                and size.replace(" x ", "").isdigit()
            ):
                table.setdefault(NAMES.get(row["function"], row["function"]), {})[size] = row["ratio"]
    return table


def figure(x: float | None) -> str:
    return "–" if x is None else f"{x:.2g}" if x < 100 else f"{x:.0f}"


def ratios(table: dict[str, dict[str, float]], *, batches: bool) -> str:
    """Functions by sizes: one matrix, or a batch."""
    sizes = {size for row in table.values() for size in row if (" x " in size) == batches}
    columns = sorted(sizes, key=lambda size: [int(x) for x in reversed(size.split(" x "))])
    titles = [size.replace(" x ", " × ") if batches else f"n = {size}" for size in columns]
    lines = ["| function | " + " | ".join(titles) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        if any(size in row for size in columns):
            lines.append(f"| {name} | " + " | ".join(figure(row.get(size)) for size in columns) + " |")
    return "\n".join(lines)


def on_gpu() -> str:
    large = json.loads((RESULTS / "gpu_h200.json").read_text())["large"]
    names = dict.fromkeys(key.split(" f64 ")[0] for key in large if " f64 512" in key and not key.startswith("SciPy"))
    lines = []
    for name in names:
        keys = f"{name} f64 512", f"{name} f64 2048", f"SciPy on the CPU {name} f64 512"
        lines.append(f"| {name} | " + " | ".join(figure(large.get(key)) for key in keys) + " |")
    return GPU + "\n" + "\n".join(lines)


def gradients() -> str:
    rows: list[dict[str, Any]] = json.loads((RESULTS / "derivatives.json").read_text())["rows"]
    table: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.get("forward"):
            table.setdefault(row["function"], {})[row["n"]] = row["with backward"] / row["forward"]
    sizes = sorted({n for row in table.values() for n in row})
    lines = ["| function | " + " | ".join(f"n = {n}" for n in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(figure(row.get(n)) for n in sizes) + " |" for name, row in table.items()]
    return GRADIENTS + "\n" + "\n".join(lines)


def files_of_bench() -> list[dict[str, Any]]:
    """The figures of `make bench` that are kept here."""
    contents = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [x for x in contents if isinstance(x, dict) and x.get("format") == FORMAT]


def measured_by_bench(content: dict[str, Any]) -> str:
    """A machine measured by `make bench`: ratios with their quartiles, turned over as on the rest of the page."""
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"\n## {content['about'] or machine['processor']}\n",
        f"{machine['processor']}, processors: {machine['processors']}.",
    ]
    lines += [
        f"By `make bench`, {content['date']}: the median and the quartiles of the ratios of several rounds. {versions}.\n"
    ]
    lines += ["| case | size | beside | ratio | lower quartile | upper quartile |", "|---" * 6 + "|"]
    for row in content["rows"]:
        if "ratio" in row:
            low, middle, high = (figure(1 / x) for x in row["ratio"][::-1])
            lines.append(f"| {row['name']} | {row['size']} | {row['peer']} | {middle} | {low} | {high} |")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("page", nargs="?", type=page, metavar="PAGE.md", help="the page to write")
    chosen = options.parse_args()
    parts = [HEAD]
    for title, (machine, files) in MACHINES.items():
        table = measured(files)
        parts += [f"## {title}\n\n{machine} float64.\n\nOne matrix of size n:\n", ratios(table, batches=False)]
        parts += ["\nA batch, count × size:\n", ratios(table, batches=True) + "\n"]
    text = "\n".join([*parts, *map(measured_by_bench, files_of_bench()), on_gpu(), gradients()]) + "\n"
    if chosen.page:
        chosen.page.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
