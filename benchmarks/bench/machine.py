"""The machine, the versions and the threads on which figures depend."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any

import matsign
from bench import peers
from matsign.cli import machine


def describe(threads: int | None, usable: int) -> dict[str, Any]:
    """What must be the same for figures to stand in one file. `source` identifies the code of matsign and of the cases.

    `usable` processors could be used before their number was limited to `threads`.
    """
    system = machine.processors()
    return {
        "processor": processor(),
        "processors": f"{threads} of {usable}" if threads else str(system["usable"]),
        "memory": memory(),
        "system": system["system"],
        "versions": machine.versions() | peers.versions(),
        "blas": {x["of"]: x["name"] for x in machine.blas()},
        "threads": {"limit": threads} | {x["of"]: x["threads"] for x in machine.blas()},
        "settings": machine.settings(),
        "source": source(),
    }


def processor() -> str:
    """Its name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{size / 2**30:.0f} GiB"


def source() -> str:
    """A digest of the files that are measured and of those that measure."""
    digest = hashlib.sha256()
    for folder in (Path(matsign.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class OtherLoad:
    """Processors that other programs kept busy since this was made; None where the system does not tell."""

    def __init__(self) -> None:
        self.start = time.monotonic(), _busy(), sum(os.times()[:4])

    def mean(self) -> float | None:
        began, busy, own = self.start
        now, took = _busy(), time.monotonic() - began
        if now is None or busy is None or took < 0.05:
            return None
        return max(0.0, (now - busy - (sum(os.times()[:4]) - own)) / took)


def _busy() -> float | None:
    """Seconds that all processors have worked since the start of the system."""
    try:
        user, nice, kernel, *_ = map(float, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    except (OSError, ValueError):
        return None
    return (user + nice + kernel) / os.sysconf("SC_CLK_TCK")
