"""The command lines of the benchmarks: nothing is measured before all of it is understood."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser that says what the script's docstring says: its first line, and below the options the rest without the usage."""
    title, _, rest = doc.strip().partition("\n\n")
    rest = "\n\n".join(part for part in rest.split("\n\n") if not part.startswith("    python "))
    return argparse.ArgumentParser(
        description=title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def json_file(text: str) -> Path:
    return _target(text, ".json")


def page(text: str) -> Path:
    return _target(text, ".md")


def folder(text: str) -> Path:
    """A folder that is there."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


def _target(text: str, ending: str) -> Path:
    """A file of that ending which can be written."""
    path = Path(text)
    if path.suffix != ending:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {ending}")
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}, or it is a folder itself")
    return path
