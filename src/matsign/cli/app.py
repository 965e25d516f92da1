"""The entry point: ``matsign tour``, ``plan`` and ``doctor``, and one command for each public function.

docs/reference/command_line.md lists the exit codes.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import matsign
from matsign.cli import commands, doctor, plan
from matsign.cli.files import FileError

# The base class of typer's errors for a wrong command line; this expression works in all its versions.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
# Names that other libraries give to our functions, and that do not resemble ours, or resemble those of others more.
OF_OTHERS = {
    "signm": "mcsgn",
    "care": "solve-continuous-are",
    "dare": "solve-discrete-are",
    "lyap": "solve-continuous-lyapunov",
    "dlyap": "solve-discrete-lyapunov",
    "kalman": "lqe",
    "balred": "balanced-truncation",
}


class Library(StrEnum):
    """The array libraries that the tour can run on."""

    numpy = "numpy"
    torch = "torch"
    jax = "jax"


class OneLine(TyperGroup):
    """A group whose failures are one line on stderr and an exit code, and whose names may have _ or -."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name.replace("_", "-"))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if ours := OF_OTHERS.get(args[0]):
            raise _UsageError(f"No such command {args[0]!r}. Did you mean {ours!r}?")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except _UsageError as error:
            code = _print_error(error.format_message(), 2)  # type: ignore[attr-defined]
        except (FileError, ValueError, TypeError, ArithmeticError, OSError, MemoryError) as error:
            code = _print_error(str(error) or type(error).__name__, 1)
        except typer.Abort:
            code = _print_error("stopped", 130)
        sys.exit(code or 0)


def _print_error(text: str, code: int) -> int:
    print(f"matsign: {'; '.join(text.splitlines())}", file=sys.stderr)
    return code


app = typer.Typer(
    cls=OneLine,
    help="Matrix sign functions and the equations they solve: a tour of the mathematics, and each function on files.",
    epilog=(
        "Files are .npy, .npz, .mat, .mtx or .csv; FILE:NAME chooses one matrix of several. - is the standard input or output, "
        "and a number c stands for c I.\n\nExit codes: 0 done; 1 no answer, an unreadable file, or a fault; 2 a mistake in the "
        "command line; 3 the result has NaN.\n\nExample: matsign solve-sylvester a.npy b.npy q.npy -o x.npy"
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


def _version(show: bool) -> None:
    if show:
        print(f"matsign {matsign.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command(epilog="Example: matsign tour --quick -o tour.html")
def tour(
    model: Annotated[Path | None, typer.Option(metavar="FILE.mat", help="run on the A, B, C of this file")] = None,
    backend: Annotated[Library, typer.Option(help="the array library to run on")] = Library.numpy,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PAGE.html", help="the page to write")] = Path(
        "tour.html"
    ),
    quick: Annotated[bool, typer.Option(help="small matrices, a few seconds")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the rows as JSON")] = False,
) -> None:
    """Check every identity of the article on real input, and write a page with pictures.

    Each row says where the identity stands, what it ran on, the method, the residual, the distance to an independent
    reference, and the time beside SciPy's. A row that misses its accuracy is red and makes the exit code 1.
    """
    # Matplotlib and the tour's inputs are not loaded for the other commands.
    from matsign.cli.tour import run

    raise typer.Exit(0 if run(model, backend.value, out, quick, as_json) else 1)


app.command("plan", cls=commands.Command, epilog=f"Example: {plan.EXAMPLE}")(plan.command)
app.command("doctor", epilog=f"Example: {doctor.EXAMPLE}")(doctor.command)

for _f in commands.functions():
    app.command(
        _f.__name__.replace("_", "-"),
        cls=commands.Command,
        rich_help_panel="Functions on files",
        epilog=commands.epilog(_f),
    )(commands.command(_f))


def main() -> None:
    """Run the command line."""
    app()
