"""Results and certificates on the terminal, in few lines, or as JSON."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

import matsign
from matsign._typing import NDArray as Array

Results = Mapping[str, Array]


def show(results: Results) -> None:
    """Print matrices, of large ones the corners."""
    shortened = False
    for name, value in results.items():
        print(f"{name} ({describe(value)})")
        print(textwrap.indent(_format(value), "  "))
        shortened |= value.size > _MOST_ENTRIES
    if shortened:
        print("... stands for entries that are not shown; -o FILE writes all of them, --json prints them")


def describe(x: Array) -> str:
    """The shape and the dtype."""
    return f"{'×'.join(map(str, x.shape)) or 'a number'}, {x.dtype}"


_MOST_ENTRIES = 100


def _format(x: Array) -> str:
    """An array in six digits; zero stands for entries that vanish beside the largest one."""
    finite = np.abs(x[np.isfinite(x)])
    largest = float(finite.max()) if finite.size else 0.0
    edge = {0: 3, 1: 3, 2: 3, 3: 2}.get(x.ndim, 1)
    fixed = 1e-3 <= largest < 1e6
    if not fixed and not np.iscomplexobj(x):
        return np.array2string(
            x, threshold=_MOST_ENTRIES, edgeitems=edge, formatter={"float_kind": lambda v: f"{v: .5e}"}
        )
    return np.array2string(x, threshold=_MOST_ENTRIES, edgeitems=edge, precision=6, suppress_small=fixed)


def summary(certificate: matsign.Certificate) -> str:
    """The certificate on one line; for a batch, its worst member."""
    backward, forward, iterations, converged, separation, boundary = (np.ravel(x) for x in certificate[:-1])
    single = "yes" if converged.all() else "no"
    answered = single if converged.size == 1 else f"{np.count_nonzero(converged)} of {converged.size}"
    worst = [f"{np.max(x[converged]):.1e}" if converged.any() else "nan" for x in (backward, forward)]
    text = f"backward error [bold]{worst[0]}[/]  forward error [bold]{worst[1]}[/]"
    if not np.isnan(separation[converged]).all():
        text += f"  separation {np.nanmin(separation[converged]):.1e}"
    for name, x in certificate.measures.items():
        if converged.any():
            text += f"  {name.replace('_', ' ')} {np.max(np.ravel(x)[converged]):.1e}"
    text += f"  iterations {np.max(iterations, initial=0)}  converged {answered}"
    if boundary.any():
        text += "  [bold]on the boundary of stability[/]"
    return text


def print_summary(certificate: matsign.Certificate, *, stderr: bool) -> None:
    """Print the certificate, on stderr where the result goes to stdout."""
    Console(highlight=False, soft_wrap=True, stderr=stderr).print(summary(certificate))


def print_json(function: str, results: Results, targets: list[str], certificate: matsign.Certificate) -> None:
    """Print a result and its certificate as one object; the entries of matrices only if they are not written to files."""
    described = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)} | ({} if targets else {"values": as_json(x)})
        for name, x in results.items()
    }
    known = certificate._asdict()
    measures = known.pop("measures")
    content = {
        "function": function,
        "results": described,
        "files": targets,
        "certificate": {name: as_json(x) for name, x in (known | measures).items()},
    }
    print_object(content)


def print_object(content: Mapping[str, Any]) -> None:
    json.dump(content, sys.stdout, indent=None, allow_nan=False, ensure_ascii=False)
    print()


def as_json(x: Any) -> Any:
    """An array as nested lists: complex numbers are [re, im], NaN is null, infinities are "inf" and "-inf"."""
    x = np.asarray(x)
    if np.iscomplexobj(x):
        x = np.stack([x.real, x.imag], axis=-1)
    values = x.tolist()
    return values if x.dtype.kind not in "fc" or np.isfinite(x).all() else _without_special_numbers(values)


def _without_special_numbers(values: Any) -> Any:
    if isinstance(values, list):
        return [_without_special_numbers(v) for v in values]
    return values if math.isfinite(values) else None if math.isnan(values) else str(values)
