"""``matsign plan``: what a function or an optimiser will cost on a mesh of devices, as a report or as JSON."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from matsign.cli.commands import functions
from matsign.core.options import short_repr
from matsign.planning.functions import plan_function
from matsign.planning.plans import Plan


class Dtype(StrEnum):
    """The dtypes that a plan may be for."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"
    complex64 = "complex64"
    complex128 = "complex128"


def command(
    what: Annotated[str, typer.Argument(metavar="NAME", help="a function")],
    size: Annotated[
        list[str] | None,
        typer.Argument(metavar="SIZE", help="of each array of a function, as 4096x1024; leading sizes count matrices"),
    ] = None,
    mesh: Annotated[str, typer.Option(help="devices, as 64, or axes by name, as dp=64,tp=8")] = "1",
    memory: Annotated[str | None, typer.Option(help="of a device, as 80GB", show_default=False)] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="of the arrays: float32 for a function, bfloat16 for an optimiser", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="an option, as steps=4", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, with all numbers in bytes")] = False,
) -> None:
    """What a function or an optimiser will cost on a mesh of devices: nothing is computed, and no memory is taken.

    It prints the way that the work is divided, products and other factorisations, operations, bytes moved and memory a device.

    matsign plan mcsgn 200000x200000 --mesh x=8,y=8 --memory 80GB
    """
    found = plan_function(
        named(what),
        *map(parse_sizes, size or []),
        mesh=parse_mesh(mesh),
        memory=None if memory is None else parse_memory(memory),
        dtype=dtype.value if dtype else "float32",
        **parse_options(set_ or []),
    )
    _show(found, as_json)


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_sizes(text: str) -> tuple[int, ...]:
    """ "64x4096x1024" as a shape."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) < 2 or not all(re.fullmatch("[0-9]{1,18}", part) and int(part) for part in parts):
        raise ValueError(f"{text!r} is no size; sizes are positive whole numbers joined by x, as 4096x1024")
    return tuple(map(int, parts))


def parse_mesh(text: str) -> int | dict[str, int]:
    """ "64", or "dp=64,tp=8"."""
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = part.strip().rpartition("=")
        if not re.fullmatch("[0-9]{1,9}", size) or not int(size) or (bool(equals) != bool(name)):
            raise ValueError(f"--mesh {text}: {part!r} is no axis; a mesh is 64, or dp=64,tp=8 with positive sizes")
        if name in axes:
            raise ValueError(f"--mesh {text}: the axis {name or 'without a name'} occurs twice")
        axes[name] = int(size)
    return axes[""] if list(axes) == [""] else axes


def parse_memory(text: str) -> float:
    """ "80GB" or "64 GiB" as bytes."""
    match = _MEMORY.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise ValueError(f"--memory {text}: wanted a positive number of bytes with a unit, as 80GB or 64GiB")
    unit = match[2].lower()
    factor = 1024 ** " kmgt".index(unit or " ") if match[3] else _UNITS[unit]
    return float(match[1]) * factor


def parse_options(texts: list[str]) -> dict[str, Any]:
    """Options, each "name=value"."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or name in found:
            raise ValueError(f"--set {text}: options are name=value, each name once, as steps=4")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def named(name: str) -> Callable[..., Any]:
    """The public function of this name; a ValueError with the nearest name if there is none."""
    known = {f.__name__: f for f in functions()}
    wanted = name.replace("-", "_")
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, 1)
        hint = f"did you mean {close[0]}?" if close else "see matsign --help for the functions"
        raise ValueError(f"there is no function {short_repr(name)}; {hint}")
    return known[wanted]


def _show(plan: Plan, as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        print(json.dumps(plan.as_dict(), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(plan.subject)}[/]")
    rows = plan.rows()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        line = f"  {name:{width}}  {escape(text)}"
        console.print(f"[bold]{line}[/]" if name == "way" else line)
