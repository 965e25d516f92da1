"""Every block of Python and every `$ matsign` command of the documentation runs, in order, in one namespace and folder a page.

A ```text block right below the code is what it prints. Its numbers may differ by 2%, or be any rounding errors.
"""

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib import pyplot

DOCS = Path(__file__).parents[2] / "docs"
# Their programs have tests of their own, which run them in several processes or continue from their checkpoints.
ELSEWHERE = {"howto/many_devices.md", "howto/training_frameworks.md", "reference/command_line.md"}
PAGES = sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if "_build" not in p.parts)
BLOCK = re.compile(r"^```(python|text|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
ROUNDING = 1e-9


def blocks(page):
    """The kind and the content of each block, and of the code what the page says that it prints, or None."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for m, after in pairwise([*BLOCK.finditer(text), None]):
        adjacent = after and after[1] == "text" and not text[m.end() : after.start()].strip()
        yield *m.groups(), after[2] if adjacent else None


def assert_prints(said, promised):
    assert NUMBER.sub("#", said).split() == NUMBER.sub("#", promised).split(), said
    for got, wanted in zip(map(float, NUMBER.findall(said)), map(float, NUMBER.findall(promised)), strict=True):
        small = max(abs(got), abs(wanted)) < ROUNDING
        assert small or got == pytest.approx(wanted, rel=0.02), said


def run_commands(text):
    for line in text.splitlines():
        if line.startswith("$ matsign"):
            command = [sys.executable, "-m", *shlex.split(line.removeprefix("$ "))]
            subprocess.run(command, check=True, timeout=60)


def cases():
    for page in PAGES:
        codes = [code for kind, code, _ in blocks(page) if kind != "text"]
        if page not in ELSEWHERE and codes:
            compiles = any("import jax" in code for code in codes)
            yield pytest.param(page, marks=[pytest.mark.compiles] if compiles else [])


@pytest.mark.parametrize("page", list(cases()))
def test_the_page_runs(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"__name__": "__main__"}  # a page runs as a script does
    for kind, code, promised in blocks(page):
        if kind == "python":
            for package in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
                if importlib.util.find_spec(package) is None:
                    pytest.skip(f"{package} is not installed")
            exec(compile(code, page, "exec"), names)
        elif kind == "console":
            run_commands(code)
        said = capfd.readouterr().out
        if kind != "text" and promised:
            assert_prints(said, promised)


@pytest.mark.parametrize("script", sorted((DOCS / "gallery").glob("*.py")), ids=lambda p: p.stem)
def test_the_script_of_the_gallery_draws(script, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))["figure"].savefig("drawn.svg")
    pyplot.close("all")
    assert Path("drawn.svg").stat().st_size > 1000
