"""The lowest versions that pyproject.toml allows are those that `make lowest` tests."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_lowest_versions_are_the_ones_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    declared = [*project["project"]["dependencies"], *(x for extra in extras for x in extra)]
    declared += [x for x in project["dependency-groups"]["test"] if x.startswith(("optax", "distributed"))]
    lowest = dict(re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)$", x).groups() for x in declared)
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for name, version in lowest.items():
        parts = [[int(x) for x in v.split(".")] for v in (version, tested[name])]
        assert parts[0] == parts[1][: len(parts[0])], name
        assert not any(parts[1][len(parts[0]) :]), name
