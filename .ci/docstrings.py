"""Check the docstrings of the public names: numpydoc's validation, that no section is missing, and how shapes are written.

The checks, and the reasons for those left out, are in pyproject.toml under [tool.numpydoc_validation].
"""

import inspect
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

from numpydoc.validate import validate

import matsign
import matsign.optim
import matsign.plugins

SECTIONS = {
    "function": ("Parameters", "Returns", "Raises", "See Also", "Notes", "Examples"),
    "optimiser": ("Parameters", "Raises", "See Also", "Notes", "References", "Examples"),
    "record": ("Attributes", "See Also", "Examples"),
}
# The fields of a record are attributes; its constructor is not public.
NOT_FOR_RECORDS = {"PR01"}


def kind_of(thing):
    if inspect.isfunction(thing):
        return "function"
    return "record" if issubclass(thing, (tuple, Exception)) else "optimiser"


def faults(name, left_out):
    thing = inspect.unwrap(eval(name, {"matsign": matsign}))
    kind = kind_of(thing)
    lines = (inspect.getdoc(thing) or "").splitlines()
    headings = {line for line, rule in pairwise(lines) if rule and set(rule) == {"-"}}
    needless = set() if inspect.signature(thing).parameters else {"Parameters"}
    missing = (section for section in SECTIONS[kind] if section not in headings | needless)
    yield from (f"the section {section} is missing" for section in missing)
    yield from (f"write array_like (..., n, m): {line}" for line in lines if re.match(r"\w+ : array\w*, ", line))
    ignored = left_out | (NOT_FOR_RECORDS if kind == "record" else set())
    yield from (f"{code} {text}" for code, text in validate(name)["errors"] if code not in ignored)


def main():
    config = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    left_out = set(config["tool"]["numpydoc_validation"]["checks"]) - {"all"}
    modules = (matsign, matsign.optim, matsign.plugins)
    names = [f"{module.__name__}.{name}" for module in modules for name in module.__all__]
    found = [f"{name}: {fault}" for name in names for fault in faults(name, left_out)]
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
