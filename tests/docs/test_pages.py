"""Every block of Python and every `$ matsign` command of the documentation runs, in order, in one namespace and folder a page.

A ```text block right below the code is what it prints. Its numbers may differ by 2%, or be any rounding errors.
"""

import importlib.util
import os
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
DEVICES = "howto/many_devices.md"
# Of the others tests/optim/test_recipes.py and tests/cli/test_arguments.py run every block, and more after it.
ELSEWHERE = {DEVICES, "howto/training_frameworks.md", "reference/command_line.md"}
# What a page needs that computes on several devices: those of JAX, and the variables that torchrun sets.
OF_DEVICES = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
EIGHT = "--xla_force_host_platform_device_count=8"
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
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ matsign"):
            command = [sys.executable, "-m", *shlex.split(line.removeprefix("$ "))]
            subprocess.run(command, check=True, timeout=300)


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


@pytest.mark.compiles
@pytest.mark.slow
def test_the_page_of_many_devices_runs(tmp_path, monkeypatch, capfd):
    """In a process of its own, with eight devices."""
    for package in ("torch", "jax", "optax", "dask", "xarray"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for kind, code, promised in blocks(DEVICES):
        if kind == "console":
            run_commands(code)
            assert_prints(capfd.readouterr().out, promised)
    programs = [(code, promised) for kind, code, promised in blocks(DEVICES) if kind == "python"]
    end = "the end of a block"
    text = f"\nprint({end!r}, flush=True)\n".join(code for code, _ in programs)
    environment = os.environ | OF_DEVICES | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {EIGHT}"}
    subprocess.run([sys.executable, "-c", text], check=True, timeout=300, env=environment)
    said = capfd.readouterr().out.split(f"{end}\n")
    for got, (_, promised) in zip(said, programs, strict=True):
        if promised:
            assert_prints(got, promised)


@pytest.mark.parametrize("script", sorted((DOCS / "gallery").glob("*.py")), ids=lambda p: p.stem)
def test_the_script_of_the_gallery_draws(script, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))["figure"].savefig("drawn.svg")
    pyplot.close("all")
    assert Path("drawn.svg").stat().st_size > 1000
