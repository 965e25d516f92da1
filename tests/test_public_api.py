"""The public API is the one in public_api.txt: names, parameters and their defaults, choices, fields, methods and members.

`python tests/test_public_api.py` renews the file.
"""

import difflib
import enum
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

import matsign
import matsign.planning
import matsign.plugins

FILE = Path(__file__).parent / "public_api.txt"
RENEWAL = (
    f"the public API has changed; if it is meant to, `python tests/test_public_api.py` renews {FILE.name}, and "
    "CHANGELOG.md needs a line"
)
MODULES = ("matsign", "matsign.optim", "matsign.planning", "matsign.plugins")
WIDTH = 110


def public_api():
    """The lines of each public name, by name; those of optimisers only where their libraries are installed."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            try:
                found[f"{module.__name__}.{name}"] = described(f"{module.__name__}.{name}", getattr(module, name))
            except ModuleNotFoundError:
                continue
    return found


def described(name, thing):
    """The lines of one name."""
    if isinstance(thing, type) and issubclass(thing, enum.Enum):
        return [f"{name}: one of", *(f"    {x.name} = {x.value!r}" for x in thing)]
    lines = signature(name, thing)
    if isinstance(thing, type):
        return [*lines, *own_members(thing)]
    choices = thing.spec.parameters.choices if hasattr(thing, "spec") else {}
    return [*lines, *(f"  {option} is one of {', '.join(map(repr, allowed))}" for option, allowed in choices.items())]


def signature(name, thing):
    """The parameters with their defaults, without types, on one line or one a line."""
    plain = [p.replace(annotation=p.empty) for p in inspect.signature(thing).parameters.values()]
    text = str(inspect.Signature(plain))
    if len(name + text) <= WIDTH:
        return [name + text]
    parts = [str(p) for p in plain]
    keywords = [k for k, p in enumerate(plain) if p.kind is p.KEYWORD_ONLY]
    if keywords and not any(p.kind is p.VAR_POSITIONAL for p in plain):
        parts.insert(keywords[0], "*")
    return [f"{name}(", *(f"    {part}," for part in parts), ")"]


def own_members(thing):
    """Fields of named tuples, and the methods and properties that the class itself defines."""
    fields = getattr(thing, "_fields", ())
    if fields:
        yield f"  named tuple of {', '.join(fields)}"
    for name, member in sorted(vars(thing).items()):
        if name.startswith("_") or name in fields:
            continue
        if isinstance(member, (property, staticmethod, classmethod)) or inspect.isfunction(member):
            yield f"  .{name}" if isinstance(member, property) else signature(f"  .{name}", getattr(thing, name))[0]


def text_of(api):
    return "".join("\n".join(lines) + "\n" for _, lines in sorted(api.items()))


def difference(api):
    """What differs from the file, empty if nothing does; names whose library is missing are not compared."""
    kept = FILE.read_text(encoding="utf-8")
    blocks, name = {}, ""
    for line in kept.splitlines():
        name = line.partition("(")[0].partition(":")[0] if line.startswith("matsign.") else name
        blocks.setdefault(name, []).append(line)
    optional = {name for name in blocks if name.startswith("matsign.optim.")}
    kept = text_of({name: lines for name, lines in blocks.items() if name in api or name not in optional})
    return "\n".join(
        difflib.unified_diff(kept.splitlines(), text_of(api).splitlines(), FILE.name, "now", n=1, lineterm="")
    )


def test_the_public_api_is_the_one_in_the_file():
    changes = difference(public_api())
    if changes:
        pytest.fail(f"{changes}\n\n{RENEWAL}", pytrace=False)


def test_every_kind_of_change_shows(monkeypatch):
    def sqrtm(A, *, rtol=None, errors="nan"):
        pass

    monkeypatch.setattr(matsign, "sqrtm", sqrtm)
    monkeypatch.setattr(matsign, "__all__", [x for x in matsign.__all__ if x != "polar"])
    changes = difference(public_api())
    assert "\n+matsign.sqrtm(A, *, rtol=None, errors='nan')" in changes
    assert "\n-matsign.sqrtm(A, *, " in changes
    assert "\n-matsign.polar(" in changes


def renew():
    missing = [name for name in ("torch", "jax") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"install {' and '.join(missing)} first: the file has the optimisers")
    FILE.write_text(text_of(public_api()), encoding="utf-8")


if __name__ == "__main__":
    renew()
