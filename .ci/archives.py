"""Check the archives in a folder: their files and their metadata. Standard library only.

    python .ci/archives.py dist

The wheel holds the tracked files of src/matsign, the licences and nothing else; the source archive holds nothing that is not
tracked, and all that the tests and the documentation read.
"""

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", ".ci", ".github")
FIELDS = ("Name", "Version", "Summary", "License-Expression", "License-File", "Author", "Keywords", "Requires-Python")


def tracked():
    """The files that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(listed.splitlines())


def faults_of_wheel(path):
    """What is missing in the wheel or should not be in it, and what its metadata lack."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        folder = next(x.split("/")[0] for x in names if ".dist-info/" in x)
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    expected = {x.removeprefix("src/") for x in tracked() if x.startswith("src/matsign/")}
    package = {x for x in names if not x.startswith(f"{folder}/")}
    yield from differences("the wheel", package, expected)
    for licence in metadata.get_all("License-File", []):
        if f"{folder}/licenses/{licence}" not in names:
            yield f"the wheel lacks the licence {licence}"
    yield from faults_of_metadata(metadata)


def faults_of_metadata(metadata):
    yield from (f"the metadata lack {field}" for field in FIELDS if not metadata.get(field))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {x for x in metadata.get_all("Requires-Dist", []) if "extra ==" not in x}
    yield from differences("the list of dependencies", found, set(project["dependencies"]))
    extras = set(metadata.get_all("Provides-Extra", []))
    yield from differences("the list of extras", extras, set(project["optional-dependencies"]))
    version = re.search('__version__ = "(.*)"', (ROOT / "src/matsign/__init__.py").read_text())[1]
    if metadata["Version"] != version:
        yield f"the metadata have the version {metadata['Version']}, the package {version}"


def faults_of_source(path):
    """What is missing in the source archive, or should not be in it."""
    with tarfile.open(path) as archive:
        names = {x.name.partition("/")[2] for x in archive.getmembers() if x.isfile()}
    files = tracked()
    expected = {x for x in files if x.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    expected |= {x for x in files if "/" not in x and x.endswith((".md", ".txt", ".toml", ".cff"))} | {
        "LICENSE",
        "Makefile",
    }
    yield from differences("the source archive", names, expected | {"PKG-INFO", ".gitignore"})


def differences(name, found, expected):
    yield from (f"{name} lacks {x}" for x in sorted(expected - found))
    yield from (
        f"{name} has {x}, which git does not track or which does not belong there" for x in sorted(found - expected)
    )


def main(folder):
    wheels, sources = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    if (len(wheels), len(sources)) != (1, 1):
        sys.exit(f"{folder} has {len(wheels)} wheels and {len(sources)} source archives, not one of each")
    faults = [*faults_of_wheel(wheels[0]), *faults_of_source(sources[0])]
    print(
        "\n".join(faults) or f"{wheels[0].name} and {sources[0].name} have the files and the metadata that they should"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
