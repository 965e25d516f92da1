"""A command for every public function, with arguments, options and help from its parameters and docstring."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import typer
from rich.markup import escape
from typer.core import TyperCommand

import matsign
from matsign._typing import NDArray as Array
from matsign.cli import files, printing
from matsign.cli.arguments import check_standard_input, protect_arguments, read_arrays, read_threshold
from matsign.core.options import Parameters
from matsign.core.public import FunctionSpec, spec_of

# Exit code of a command whose result has NaN, as ``--errors nan`` allows.
HAS_NAN = 3

_OUT = "where to write: .npy, .npz, .mat, .mtx or .csv; several results go to one .npz or .mat, or to one -o each; \
- is the standard output as .csv, -.npy and so on in another format"
_MATRICES = "A matrix is a file (FILE:NAME where it holds several), - for the standard input, or a number c for c I."
_JSON = "print the result and its certificate as JSON"
_SECTION = re.compile(r"^(\w[\w ]*)\n-+\n", re.MULTILINE)
_PARAMETER = re.compile(r"^(\w+) : .*\n((?:    .*\n|\n)*)", re.MULTILINE)


def functions() -> list[Callable[..., Any]]:
    """The public functions of arrays, by name."""
    public = (getattr(matsign, name) for name in sorted(matsign.__all__))
    return [f for f in public if hasattr(f, "spec")]


def command(f: Callable[..., Any]) -> Callable[..., None]:
    """The function of one command, with the signature that its options are read from."""
    spec = spec_of(f, "command needs a function of matsign")
    parameters = spec.parameters

    def run(out: list[str] | None, as_json: bool, **given: Any) -> None:
        targets = [target.strip() for target in out or []]
        for target in targets:
            files.check_target(target)
        to_stdout = any(map(files.is_standard, targets))
        if as_json and to_stdout:
            raise ValueError("--json and -o - both need the standard output")
        texts = {name: given.pop(name.lower()) for name in parameters.arrays}
        thresholds = {name: given.pop(name.lower()) for name in parameters.numbers}
        check_standard_input(texts | thresholds)
        arrays = read_arrays(parameters, texts)
        numbers = {name: read_threshold(text) for name, text in thresholds.items() if text is not None}
        value, certificate = matsign.certify(f)(**arrays, **numbers, **given)
        results = _name_results(spec.name, value)
        if targets:
            files.write(targets, results)
        elif not as_json:
            printing.show(results)
        if as_json:
            printing.print_json(spec.name, results, targets, certificate)
        else:
            printing.print_summary(certificate, stderr=to_stdout)
        _exit_for_nan(results, certificate)

    run.__doc__ = _help(f)
    run.__signature__ = inspect.Signature(_parameters(f, parameters))  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run


def _exit_for_nan(results: dict[str, Array], certificate: matsign.Certificate) -> None:
    if any(np.isnan(x).any() for x in results.values()):
        failed, count = np.count_nonzero(~certificate.converged), np.size(certificate.converged)
        print(f"matsign: the result has NaN: {failed} of {count} matrices have no answer", file=sys.stderr)
        raise typer.Exit(HAS_NAN)


class Command(TyperCommand):
    """A command that takes negative numbers as arguments, and describes its options to the shell in one line each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, protect_arguments(args))

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            item.help = _first_line(item.help or "")
        return items


def _first_line(text: str) -> str:
    """What stands before the first full stop, colon or semicolon; typer breaks lines of 80, and fish reads lines as words."""
    return textwrap.shorten(re.split(r"[.:;] ", text)[0].removesuffix("."), 60, placeholder=" ...")


def epilog(f: Callable[..., Any]) -> str:
    """What stands below the help of a command."""
    return f"{_MATRICES}\n\nExample: {example(f)}"


def example(f: Callable[..., Any]) -> str:
    """A command line that calls f; weights q and r that are square are the identity."""
    spec = spec_of(f, "example needs a function of matsign")
    parameters, words = spec.parameters, ["matsign", f.__name__.replace("_", "-")]
    for name, shape in zip(parameters.arrays, parameters.shapes, strict=True):
        if name not in parameters.optional:
            words.append("1" if name in "qr" and shape[0] == shape[1] else f"{name}.npy")
    words += [f"--{name.replace('_', '-')} {value}" for name, value in _examples_of_options(spec)]
    return " ".join([*words, "-o", "result.npy" if len(spec.operation.results) == 1 else "result.npz"])


def _examples_of_options(spec: FunctionSpec) -> list[tuple[str, Any]]:
    """Values for the options that have no default: half for a threshold, two states for an order, which tol may replace."""
    options = spec.parameters.options
    required = [
        name for name, x in options.items() if x is inspect.Parameter.empty or (name == "order" and "tol" in options)
    ]
    return [(name.lower(), 0.5 if name in spec.parameters.numbers else 2) for name in required]


def _parameters(f: Callable[..., Any], parameters: Parameters) -> list[inspect.Parameter]:
    hints, help = get_type_hints(f), _option_help(f)

    def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    shapes = dict(zip(parameters.arrays, parameters.shapes, strict=True))

    def text(name: str) -> str:
        leave_out = " none: left out." if name in parameters.replaceable else ""
        return f"{'×'.join(shapes[name])}. {help.get(name, '')}{leave_out}".strip()

    def file(name: str) -> Any:
        return Annotated[str, typer.Argument(metavar=name, help=text(name), show_default=False)]

    def optional_file(name: str) -> Any:
        option = typer.Option(f"--{name.lower()}", metavar="FILE", help=text(name), show_default=False)
        return Annotated[str | None, option]

    # In lower case, because some versions of typer convert names.
    arguments = [
        parameter(name.lower(), optional_file(name), None)
        if name in parameters.optional
        else parameter(name.lower(), file(name))
        for name in parameters.arrays
    ]
    hints |= {name: str if parameters.options[name] is not None else str | None for name in parameters.numbers}
    allowed = parameters.choices | {"errors": ("raise", "nan")}
    options = [
        parameter(
            name.lower(),
            Annotated[_readable(hints[name]), _option(help.get(name), allowed.get(name), default)],
            str(default) if name in parameters.numbers and default not in (None, inspect.Parameter.empty) else default,
        )
        for name, default in (parameters.options | {"errors": "raise"}).items()
    ]
    out = Annotated[list[str] | None, typer.Option("-o", "--out", metavar="OUT", help=_OUT, show_default=False)]
    as_json = Annotated[bool, typer.Option("--json", help=_JSON)]
    return [*arguments, parameter("out", out, None), parameter("as_json", as_json, False), *options]


def _option(help: str | None, choices: tuple[str | None, ...] | None, default: Any) -> Any:
    """An option, and if it has choices, these in its help and in the completion of the shell."""
    shown = default is not None
    if choices is None:
        return typer.Option(help=help, show_default=shown)
    names = [x for x in choices if x is not None]

    def complete(incomplete: str) -> list[str]:
        return [x for x in names if x.startswith(incomplete)]

    listed = help if help and all(x in help for x in names) else f"{help or ''} One of {', '.join(names)}.".strip()
    return typer.Option(help=listed, show_default=shown, autocompletion=complete)


def _readable(hint: Any) -> Any:
    """The type of an option on the command line: a name, where Python also takes rows of numbers."""
    return str | None if str in get_args(hint) else hint


def _name_results(name: str, value: Any) -> dict[str, Array]:
    """The results by name: the fields of a named tuple, else the function's name, numbered where there are several."""
    if not isinstance(value, tuple):
        return {name: value}
    fields = getattr(value, "_fields", [f"{name}_{k}" for k in range(1, len(value) + 1)])
    return dict(zip(fields, value, strict=True))


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
