"""The files of a release agree: version, changelog, citation, classifiers, and the lowest versions that are tested."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

import matsign

ROOT = Path(__file__).parents[1]
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
REQUIREMENT = re.compile(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)$")


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def project():
    return tomllib.loads(text("pyproject.toml"))


def lowest_declared():
    """The lower bound of every dependency, those of the extras and those that only tests need but users combine with matsign."""
    declared, groups = project()["project"], project()["dependency-groups"]
    users = [*declared["dependencies"], *(x for extra in declared["optional-dependencies"].values() for x in extra)]
    return dict(REQUIREMENT.match(x).groups() for x in users), dict(
        match.groups() for x in groups["test"] if (match := REQUIREMENT.match(x))
    )


def test_the_lowest_versions_are_the_ones_that_are_tested():
    """Of every dependency and extra, and of optax, Dask and others that the tests of these need."""
    users, tests = lowest_declared()
    lines = text("constraints-lowest.txt").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert users.keys() <= pinned.keys()
    assert pinned.keys() <= users.keys() | tests.keys() | {"jaxlib"}
    for name, version in pinned.items():
        bound = (users | tests).get(name, users["jax"])
        # 2.1 and 2.1.0 are the same version.
        assert re.fullmatch(re.escape(bound) + r"(\.0)*", version), name
    for name in users.keys() & tests.keys():
        assert users[name] == tests[name], name


def test_every_python_that_is_allowed_is_named():
    classifiers = project()["project"]["classifiers"]
    named = [x.rpartition(".")[2] for x in classifiers if re.search(r"Python :: 3\.\d+$", x)]
    assert project()["project"]["requires-python"] == f">=3.{named[0]}"
    assert project()["tool"]["mypy"]["python_version"] == f"3.{named[0]}"
    assert named == [str(k) for k in range(int(named[0]), int(named[-1]) + 1)]
    if (ROOT / ".ci").is_dir():
        assert set(re.findall(r"3\.\d+", text(".ci/package"))) == {f"3.{k}" for k in named}


def headings(changelog):
    """(version, date or "unreleased") of each release, the newest first."""
    return re.findall(r"^## \[?([^\]\s]+)\]?(?: - (\S+))?$", changelog, re.MULTILINE)


def test_the_changelog_has_this_version():
    """The newest heading is that of `__version__`, unreleased or with a date; versions and dates descend."""
    found = headings(text("CHANGELOG.md"))
    assert found
    assert len(found) == text("CHANGELOG.md").count("\n## ")
    released = [(version, day) for version, day in found if version != "Unreleased"]
    assert found[0][0] == "Unreleased" or found[0][0] == matsign.__version__
    if released:
        assert released[0][0] == matsign.__version__
    numbers = [tuple(map(int, re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version).groups())) for version, _ in released]
    days = [date.fromisoformat(day) for _, day in released]
    assert numbers == sorted(numbers, reverse=True)
    assert days == sorted(days, reverse=True)


@pytest.mark.parametrize("k", [0])
def test_the_changelog_is_sorted_by_kinds_of_change(k):
    newest = text("CHANGELOG.md").split("\n## ")[1 + k]
    kinds = re.findall(r"^### (.*)$", newest, re.MULTILINE)
    assert kinds == [x for x in SECTIONS if x in kinds]
