"""A command for every public function, with arguments, options and help from its parameters and docstring."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

import matsign
from matsign.cli import files
from matsign.cli.text import number
from matsign.core.options import Parameters
from matsign.core.public import spec_of

_OUT = "where to write: .npy, .npz, .mat, .mtx or .csv; several results go to one .npz or .mat, or to one -o each"
_FILE = "a file (FILE:NAME where it holds several matrices) or a number"
_SECTION = re.compile(r"^(\w[\w ]*)\n-+\n", re.MULTILINE)
_PARAMETER = re.compile(r"^(\w+) : .*\n((?:    .*\n|\n)*)", re.MULTILINE)


def functions() -> list[Callable[..., Any]]:
    """The public functions of arrays, by name."""
    public = (getattr(matsign, name) for name in sorted(matsign.__all__))
    return [f for f in public if hasattr(f, "spec")]


def command(f: Callable[..., Any]) -> Callable[..., None]:
    """The function of one command, with the signature that its options are read from."""
    spec = spec_of(f, "command wants a function of matsign")
    parameters = spec.parameters

    def run(out: list[str] | None, **given: Any) -> None:
        for target in out or []:
            files.check_target(target)
        texts = {name: given.pop(name.lower()) for name in parameters.arrays}
        arrays = {name: _argument(text) for name, text in texts.items() if text is not None}
        numbers = {name: _threshold(given.pop(name)) for name in parameters.numbers}
        value, certificate = matsign.certify(f)(**arrays, **numbers, **given)
        results = _name_results(spec.name, value)
        if out:
            files.write(out, results)
        else:
            _show(results)
        _print(certificate)

    run.__doc__ = _help(f)
    run.__signature__ = inspect.Signature(_parameters(f, parameters))  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run


def _parameters(f: Callable[..., Any], parameters: Parameters) -> list[inspect.Parameter]:
    hints, help = get_type_hints(f), _option_help(f)

    def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    def file(name: str) -> Any:
        return Annotated[str, typer.Argument(metavar=name, help=_FILE, show_default=False)]

    def optional_file(name: str) -> Any:
        return Annotated[str | None, typer.Option(f"--{name.lower()}", metavar="FILE", help=_FILE, show_default=False)]

    # In lower case, because some versions of typer convert names.
    arguments = [
        parameter(name.lower(), optional_file(name), None)
        if name in parameters.optional
        else parameter(name.lower(), file(name))
        for name in parameters.arrays
    ]
    hints |= dict.fromkeys(parameters.numbers, str)
    options = [
        parameter(
            name,
            Annotated[_readable(hints[name]), typer.Option(help=help.get(name), show_default=default is not None)],
            str(default) if name in parameters.numbers and default is not inspect.Parameter.empty else default,
        )
        for name, default in (parameters.options | {"errors": "raise"}).items()
    ]
    out = Annotated[list[str] | None, typer.Option("-o", "--out", metavar="OUT", help=_OUT, show_default=False)]
    return [*arguments, parameter("out", out, None), *options]


def _readable(hint: Any) -> Any:
    """The type of an option on the command line: a name, where Python also takes rows of numbers."""
    return str | None if str in get_args(hint) else hint


def _threshold(text: str) -> Any:
    """A number, or a file with a number for each matrix, in a row or in a column."""
    value = _argument(text)
    return value.reshape(-1) if value.ndim == 2 and 1 in value.shape else value


def _argument(text: str) -> Any:
    try:
        return np.asarray(number(text))
    except ValueError:
        return files.read(text)


def _name_results(name: str, value: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The results by name: the fields of a named tuple, else the function's name, numbered where there are several."""
    if not isinstance(value, tuple):
        return {name: value}
    fields = getattr(value, "_fields", [f"{name}_{k}" for k in range(1, len(value) + 1)])
    return dict(zip(fields, value, strict=True))


def _show(results: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, value in results.items():
        print(f"{name} ({'×'.join(map(str, value.shape))}, {value.dtype})")
        print(textwrap.indent(np.array2string(value, precision=6, suppress_small=True), "  "))


def _print(certificate: matsign.Certificate) -> None:
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
    Console(highlight=False, soft_wrap=True).print(text)


def _sections(f: Callable[..., Any]) -> dict[str, str]:
    """The sections of a docstring by name, the summaries under "Summary"."""
    summary, *rest = _SECTION.split((inspect.getdoc(f) or "") + "\n")
    return {"Summary": summary, **dict(zip(rest[::2], rest[1::2], strict=True))}


def _help(f: Callable[..., Any]) -> str:
    """The summaries and the notes of a docstring, by paragraphs."""
    sections = _sections(f)
    text = _plain(sections["Summary"] + sections.get("Notes", ""))
    return escape("\n\n".join(" ".join(p.split()) for p in text.strip().split("\n\n")))


def _option_help(f: Callable[..., Any]) -> dict[str, str]:
    """The description of each parameter in the docstring."""
    meanings = _PARAMETER.findall(_sections(f).get("Parameters", ""))
    return {name: escape(" ".join(_plain(meaning).split())) for name, meaning in meanings}


def _plain(text: str) -> str:
    """A text without the markup of references, lists, code and blocks."""
    text = re.sub(r" ?\[\d\]_|^ *- ", "", text, flags=re.MULTILINE)
    return text.replace("``", "").replace("::\n", ":\n")
