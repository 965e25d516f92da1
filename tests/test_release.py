"""The files of a release agree: version, changelog, citation, classifiers, and the lowest versions that are tested."""

import re
import tomllib
from datetime import date
from pathlib import Path

import matsign

ROOT = Path(__file__).parents[1]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
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


def test_the_changelog_has_this_version_in_its_form():
    """Versions and dates descend from `__version__`; only the newest may be unreleased. Changes are sorted by kind."""
    first, *parts = text("CHANGELOG.md").split("\n## ")
    assert first.startswith("# Changelog")
    found = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\S+)", part.splitlines()[0]).groups() for part in parts]
    assert found[0][0] == matsign.__version__
    numbers = [tuple(map(int, version.split("."))) for version, _ in found]
    assert numbers == sorted(set(numbers), reverse=True)
    days = [date.fromisoformat(day) for _, day in found[found[0][1] == "Unreleased" :]]
    assert days == sorted(days, reverse=True)
    for part in parts:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert kinds == [x for x in KINDS if x in kinds], kinds


def test_the_citation_has_this_version():
    """The fields that the format demands, with the version, and with the date of the changelog once there is one."""
    citation = dict(re.findall(r"^([\w-]+): *(.*)$", text("CITATION.cff"), re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == matsign.__version__
    day = re.search(r"^## \[.*\] - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)[1]
    assert citation.get("date-released", "Unreleased").strip("'\"") == day


def test_links_between_the_pages_at_the_top_lead_somewhere():
    pages = sorted(p.name for p in ROOT.glob("*.md"))
    assert {"README.md", "RELEASING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"} <= set(pages)
    links = [(page, x) for page in pages for x in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", text(page))]
    assert links
    assert [(page, x) for page, x in links if not (ROOT / x).exists()] == []
