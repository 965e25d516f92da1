"""``matsign doctor``: versions, the BLAS, devices, what ``auto`` takes on them, and a self-test; a text for a bug report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from matsign.cli import machine
from matsign.cli.printing import print_object
from matsign.cli.self_test import SIZES, UNNAMED

EXAMPLE = "matsign doctor > doctor.txt"
LIBRARIES = ("numpy", "torch", "jax")
# The self-test takes a few seconds; a library that has not answered after these seconds is at fault.
_LIMIT = 60.0
# sys.path is passed on: the libraries are to be those that this process would import.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from matsign.cli.self_test import main; main(sys.argv[1])"
# What stands for the method of a right answer if there was no time to find it.
_UNKNOWN = "right"
_REPORTS = "please report it with this text"


def command(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Look for faults of the installation: versions, BLAS and threads, devices, and a self-test of some seconds.

    It shows which methods "auto" takes here, and prints a text to paste into a bug report.

    If it finds a fault, it says what to do, and its exit code is 1.
    """
    report = examine()
    if as_json:
        print_object(report)
    else:
        print("\n".join(lines_of(report)))
    raise typer.Exit(1 if report["faults"] else 0)


def examine() -> dict[str, Any]:
    """Everything that the doctor finds."""
    installed = [name for name in LIBRARIES if machine.is_installed(name)]
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        tests = dict(zip(installed, pool.map(test, installed), strict=True))
    report: dict[str, Any] = {
        "versions": machine.versions(),
        **machine.processors(),
        "blas": machine.blas(),
        "settings": machine.settings(),
        "libraries": tests,
    }
    report["notes"] = [*_thread_notes(report), *_test_notes(tests)]
    report["faults"] = [
        *machine.outdated_packages(),
        *(fault for name in installed for fault in _test_faults(name, tests[name])),
    ]
    return report


def test(library: str) -> dict[str, Any]:
    """The self-test of a library in a process of its own: its devices, the outcomes, and how it ended."""
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    program = [sys.executable, "-c", _PROGRAM, library, json.dumps(sys.path)]
    try:
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=_LIMIT, check=False)
        output, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as stopped:
        output, errors, code = _text(stopped.stdout), _text(stopped.stderr), None
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    return {
        "devices": next((x["devices"] for x in found if "devices" in x), []),
        "outcomes": [x | {"fault": machine.without_home(x["fault"])} for x in found if "function" in x],
        "planned": next(
            (x["planned"] for x in found if "planned" in x), None
        ),  # None if the test did not come to its end
        "exit_code": code,
        "error": machine.without_home(errors.strip().splitlines()[-1])[:300] if errors.strip() and code != 0 else "",
    }


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _test_faults(library: str, tested: dict[str, Any]) -> Iterable[str]:
    """A line for each fault, with what to do."""
    for x in tested["outcomes"]:
        if x["fault"]:
            call = f"{x['function']}, {x['kind']}, {x['dtype']}, n = {x['n']}"
            yield f"{library} on {x['device']}: {call}: {x['fault']}; {_REPORTS}"
    if tested["planned"] is not None:
        return
    last = tested["outcomes"][-1] if tested["outcomes"] else None
    where = f"after {last['function']} ({last['dtype']}, n = {last['n']})" if last else "before its first call"
    if tested["exit_code"] is None:
        end, remedy = (
            f"did not answer for {_LIMIT:.0f} seconds",
            "look whether another program holds the device, or reinstall it",
        )
    elif tested["exit_code"] < 0:
        end, remedy = (
            f"ended by signal {-tested['exit_code']}",
            "reinstall it, in a build for this processor and driver",
        )
    else:
        end, remedy = f"failed: {tested['error']}", "reinstall it"
    command = f"python -m pip install --force-reinstall {library}" + (" scipy" if library == "numpy" else "")
    yield f"{library} {end}, {where}; {remedy}: {command}"


def _test_notes(tests: dict[str, Any]) -> Iterable[str]:
    for library, tested in tests.items():
        left = (tested["planned"] or 0) - len(tested["outcomes"])
        if left > 0:
            yield f"{library}: {left} of {tested['planned']} calls were not tried, for lack of time: a busy or a slow machine"
    if os.path.exists("/dev/nvidia0"):
        for library in ("torch", "jax"):
            found = tests.get(library, {}).get("devices", [])
            if found and len(found) == 1:
                yield f"an NVIDIA device is there, but {library} sees only {found[0]['name']}: its build may be for the CPU"


def _thread_notes(report: dict[str, Any]) -> Iterable[str]:
    for library in report["blas"]:
        if (library["threads"] or 0) > report["usable"]:
            yield (
                f"the BLAS of {library['of']} runs {library['threads']} threads on {report['usable']} processors: it may be "
                f"faster with OPENBLAS_NUM_THREADS={report['usable']} OMP_NUM_THREADS={report['usable']}"
            )


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [versions, f"{report['system']}; {report['processors']} processors, {report['usable']} usable"]
    for x in report["blas"]:
        lines.append(f"BLAS of {x['of']}: {x['name']}; threads: {x['threads'] or 'unknown'}")
    lines.append("settings: " + (", ".join(f"{k}={v}" for k, v in report["settings"].items()) or "none"))
    for name in LIBRARIES:
        tested = report["libraries"].get(name)
        lines += ["", f"{name}: not installed"] if tested is None else ["", *_library_lines(name, tested)]
    lines += ["", *(f"note: {x}" for x in report["notes"]), *(f"FAULT: {x}" for x in report["faults"])]
    count = len(report["faults"])
    return [*lines, f"{count} fault{'s' * (count > 1)} found" if count else "no fault found"]


def _library_lines(name: str, tested: dict[str, Any]) -> list[str]:
    """The devices of a library, and a table of the methods that "auto" took on each that was tested."""
    lines = [
        f"{name} on {x['name']}" + (f": {x['description']}" if x["description"] else "") for x in tested["devices"]
    ]
    for device in dict.fromkeys(x["device"] for x in tested["outcomes"]):
        lines += _table(device, [x for x in tested["outcomes"] if x["device"] == device])
    return lines


def _table(device: str, outcomes: list[dict[str, Any]]) -> list[str]:
    columns = [(dtype, n) for dtype in dict.fromkeys(x["dtype"] for x in outcomes) for n in SIZES]
    cells = {(x["function"], x["kind"], x["dtype"], x["n"]): _cell(x) for x in outcomes}
    rows = [[f'"auto" on {device} takes', "", *(f"{dtype}, n={n}" for dtype, n in columns)]]
    for function, kind in dict.fromkeys((x["function"], x["kind"]) for x in outcomes):
        rows.append([function, kind, *(cells.get((function, kind, *column), "not tried") for column in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed, worst = sum(bool(x["fault"]) for x in outcomes), max((x["backward_error"] or 0.0) for x in outcomes)
    notes = {
        UNNAMED: "a way without a name of its own, see the method auto in the help of the function",
        _UNKNOWN: "the answer is right; there was no time to find its method",
    }
    shown = [f"  {word}: {meaning}" for word, meaning in notes.items() if word in map(_cell, outcomes)]
    summary = f"  {len(outcomes) - failed} of {len(outcomes)} calls are right, backward errors up to {worst:.0e}"
    return [*lines, *shown, summary]


def _cell(outcome: dict[str, Any]) -> str:
    return "FAULT" if outcome["fault"] else outcome["method"] or _UNKNOWN
