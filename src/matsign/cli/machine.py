"""What ``matsign doctor`` says about the machine: versions, processors, the BLAS and its threads, and settings."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import matsign

# Variables that change what is computed, or how fast.
_SETTINGS = re.compile(
    "(OPENBLAS|OMP|MKL|BLIS|VECLIB|NUMEXPR)_.*|(CUDA|HIP|ROCR)_VISIBLE_DEVICES|CUBLAS_WORKSPACE_CONFIG"
    "|JAX_(ENABLE_X64|PLATFORMS|DEFAULT_MATMUL_PRECISION|DISABLE_JIT)|XLA_.*FLAGS.*|XLA_PYTHON_CLIENT_.*|NVIDIA_TF32_OVERRIDE"
    "|TORCH_ALLOW_TF32.*|PYTORCH_.*ALLOC_CONF|SCIPY_ARRAY_API"
)
OPTIONAL = ("torch", "jax", "jaxlib", "dask", "xarray", "optax", "triton")
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9.]+)")


def versions() -> dict[str, str]:
    """The version of each package, those that are optional only if they are installed."""
    found = {"matsign": matsign.__version__, "Python": platform.python_version()}
    for name in (*(name for name, _ in required_versions()), *OPTIONAL):
        version = installed_version(name)
        if version is not None:
            found[name] = version
    return found


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_installed(library: str) -> bool:
    """Whether an array library can be found, without importing it."""
    return importlib.util.find_spec(library) is not None


def required_versions() -> list[tuple[str, str]]:
    """The lowest versions that matsign declares, those of optional packages included."""
    try:
        texts = importlib.metadata.requires("matsign") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source
        texts = ["numpy>=2.1", "scipy>=1.16"]
    return [(match[1], match[2]) for text in texts if (match := _REQUIREMENT.match(text))]


def outdated_packages() -> list[str]:
    """A line for each package that is older than matsign declares."""
    lines = []
    for name, least in required_versions():
        version = installed_version(name)
        if version is not None and _numbers(version) < _numbers(least):
            lines.append(f'{name} {version} is older than {least}: python -m pip install --upgrade "{name}>={least}"')
    return lines


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without zeros at its end."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(x) for x in match[0].split(".")] if match else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def processors() -> dict[str, Any]:
    """The system and its processors; `usable` is how many this process may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usable = min(allowed, _quota() or allowed)
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processors": os.cpu_count(),
        "usable": usable,
    }


def _quota() -> int | None:
    """The processors whose time a container may use, if it has a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return None


def settings() -> dict[str, str]:
    """The variables of the environment that matter."""
    return {name: without_home(value) for name, value in sorted(os.environ.items()) if _SETTINGS.fullmatch(name)}


def without_home(text: str) -> str:
    """The text with ~ for the home folder, whose name is often that of a person."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def blas() -> list[dict[str, Any]]:
    """The BLAS of NumPy and of SciPy: its name, how it was built, and its threads (None where it does not tell)."""
    return [_blas_of(package) for package in (np, scipy)]


def _blas_of(package: Any) -> dict[str, Any]:
    built = package.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    name = f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()
    found = {"of": package.__name__, "name": name, "threads": None}
    for path in _libraries(package):
        found |= _ask(path)
    return found


def _libraries(package: Any) -> list[Path]:
    """The files of the BLAS: in a wheel, or on Linux, where any package uses one of the system, those that are loaded."""
    folder = Path(package.__file__).parent
    shipped = [
        x for where in (folder.with_name(f"{folder.name}.libs"), folder / ".dylibs") for x in where.glob("*blas*")
    ]
    maps = Path("/proc/self/maps")
    if shipped or not maps.exists():
        return shipped
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "/" in line}
    return [Path(x) for x in loaded if re.search("openblas|mkl_rt", x) and ".libs/" not in x]


def _ask(path: Path) -> dict[str, Any]:
    """What OpenBLAS or MKL says of itself; the names of its functions have a prefix and an ending in some builds."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return {}
    for prefix in ("scipy_", ""):
        for ending in ("64_", ""):
            threads = getattr(library, f"{prefix}openblas_get_num_threads{ending}", None)
            config = getattr(library, f"{prefix}openblas_get_config{ending}", None)
            if threads is not None and config is not None:
                config.restype = ctypes.c_char_p
                return {"name": " ".join(config().decode().split()), "threads": threads()}
    if hasattr(library, "MKL_Get_Max_Threads"):
        return {"name": "MKL", "threads": library.MKL_Get_Max_Threads()}
    return {}
