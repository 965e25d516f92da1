"""``matsign plan``: what a function or an optimiser will cost on a mesh of devices, as a report or as JSON."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from matsign.cli.commands import functions
from matsign.cli.files import FileError, nearest
from matsign.core.options import short_repr
from matsign.planning import models
from matsign.planning.functions import plan_function
from matsign.planning.optimisers import OPTIMISERS, plan_optimiser
from matsign.planning.plans import Plan


class Dtype(StrEnum):
    """The dtypes that a plan may be for."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"
    complex64 = "complex64"
    complex128 = "complex128"


EXAMPLE = "matsign plan mcsgn 200000x200000 --mesh x=8,y=8 --memory 80GB"


def _size(help: str) -> Any:
    return Annotated[int | None, typer.Option(help=help, show_default=False, rich_help_panel="Sizes of a transformer")]


def command(
    what: Annotated[str, typer.Argument(metavar="NAME", help="a function, or an optimiser: Muon, scale_by_msign")],
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
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, sizes in bytes")] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="shapes by name: .json, or the header of .safetensors", show_default=False),
    ] = None,
    shard: Annotated[str, typer.Option(help="rows, columns, matrices or none; by axis as dp=rows,tp=columns")] = "rows",
    batch_axes: Annotated[int, typer.Option(help="leading axes that count matrices, in parameters with more")] = 0,
    adamw: Annotated[str, typer.Option(metavar="REGEX", help="names of parameters for AdamW")] = models.OTHERS,
    layers: _size("layers") = None,  # type: ignore[valid-type]
    width: _size("the model's width") = None,  # type: ignore[valid-type]
    heads: _size("attention heads") = None,  # type: ignore[valid-type]
    kv_heads: _size("heads of keys and values, by default as many") = None,  # type: ignore[valid-type]
    mlp: _size("width of the MLP, which is gated") = None,  # type: ignore[valid-type]
    vocab: _size("size of the vocabulary") = None,  # type: ignore[valid-type]
) -> None:
    """What a function or an optimiser will cost on a mesh of devices: nothing is computed, and no memory is taken.

    It prints the way that the work is divided, products and other factorisations, operations, bytes moved and memory a device.

    matsign plan Muon --layers 80 --width 8192 --heads 64 --kv-heads 8 --mlp 28672 --vocab 128256 --mesh dp=64,tp=8 --memory 80GB
    """
    given = {"layers": layers, "width": width, "heads": heads, "kv_heads": kv_heads, "mlp": mlp, "vocab": vocab}
    numbers = {k: x for k, x in given.items() if x is not None}
    where: dict[str, Any] = {"mesh": parse_mesh(mesh), "memory": None if memory is None else parse_memory(memory)}
    chosen = parse_options(set_ or [])
    if what.replace("-", "_") in OPTIMISERS:
        if size:
            raise ValueError("an optimiser has no sizes of arrays: give --model FILE, or --layers, --width and so on")
        shapes = _model(model, numbers)
        kind = dtype.value if dtype else "bfloat16"
        found = plan_optimiser(
            shapes,
            what.replace("-", "_"),
            **where,
            dtype=kind,
            shard=parse_shard(shard),
            batch_axes=batch_axes,
            adamw=adamw,
            **chosen,
        )
    else:
        function = function_named(what, OPTIMISERS)
        if model or numbers:
            raise ValueError(f"{function.__name__} has no model; give the size of each of its arrays, as 4096x1024")
        kind = dtype.value if dtype else "float32"
        found = plan_function(function, *map(parse_sizes, size or []), **where, dtype=kind, **chosen)
    _show(found, as_json)


def _model(path: Path | None, numbers: dict[str, Any]) -> models.Shapes:
    """The shapes of the parameters, from a file or from the sizes of a transformer."""
    if path is not None and numbers:
        raise ValueError(f"give --model or the sizes of a transformer, not both; got {path} and {', '.join(numbers)}")
    if path is not None:
        if not path.exists():
            raise FileError(f"{path}: No such file or directory{nearest(path)}")
        return models.read_shapes(path)
    missing = [k for k in ("layers", "width", "heads", "mlp", "vocab") if k not in numbers]
    if missing:
        raise ValueError(f"a model is --model FILE, or the sizes of a transformer; missing --{', --'.join(missing)}")
    return models.transformer(**numbers)


# Arguments of plans that are options of the command.
_OWN = ("mesh", "memory", "dtype", "shard", "batch_axes", "adamw")
# Arguments of plans that are arguments of the command, too.
_POSITIONAL = ("function", "shapes", "optimiser")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_sizes(text: str) -> tuple[int, ...]:
    """ "64x4096x1024" as a shape."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) < 2 or not all(re.fullmatch("[0-9]{1,18}", part) and int(part) for part in parts):
        raise ValueError(f"{text!r} is not a size; sizes are positive whole numbers joined by x, as 4096x1024")
    return tuple(map(int, parts))


def parse_mesh(text: str) -> int | dict[str, int]:
    """ "64", or "dp=64,tp=8"."""
    axes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = part.strip().rpartition("=")
        if not re.fullmatch("[0-9]{1,9}", size) or not int(size) or (bool(equals) != bool(name)):
            raise ValueError(f"--mesh {text}: {part!r} is not an axis; a mesh is 64, or dp=64,tp=8 with positive sizes")
        if name in axes:
            raise ValueError(f"--mesh {text}: the axis {name or 'without a name'} occurs twice")
        axes[name] = int(size)
    return axes[""] if list(axes) == [""] else axes


def parse_memory(text: str) -> float:
    """ "80GB" or "64 GiB" as bytes."""
    match = _MEMORY.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise ValueError(f"--memory {text}: expected a positive number of bytes with a unit, as 80GB or 64GiB")
    unit = match[2].lower()
    factor = 1024 ** " kmgt".index(unit or " ") if match[3] else _UNITS[unit]
    return float(match[1]) * factor


def parse_options(texts: list[str]) -> dict[str, Any]:
    """Options, each "name=value"."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name in _OWN:
            raise ValueError(f"--set {text}: this is --{name.replace('_', '-')}")
        if name in _POSITIONAL:
            raise ValueError(f"--set {text}: this is not an option; the name and the sizes come before the options")
        if not equals or not name.isidentifier() or name in found:
            raise ValueError(f"--set {text}: options are name=value, each name once, as steps=4")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def parse_shard(text: str) -> str | dict[str, str]:
    """ "rows", or "dp=rows,tp=columns"."""
    if "=" not in text:
        return text
    sides: dict[str, str] = {}
    for part in text.split(","):
        name, _, side = (word.strip() for word in part.partition("="))
        if name in sides:
            raise ValueError(f"--shard {text}: the axis {name} occurs twice")
        sides[name] = side
    return sides


def function_named(name: str, others: tuple[str, ...]) -> Callable[..., Any]:
    """The public function of this name; a ValueError with the nearest name if there is none."""
    known = {f.__name__: f for f in functions()}
    wanted = name.replace("-", "_")
    if wanted not in known:
        close = difflib.get_close_matches(wanted, [*known, *others], 1)
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
