"""The devices that an installed array library sees, for the self-test of ``matsign doctor``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array, NDArray


class Device(NamedTuple):
    """A device: `put` moves a NumPy array to it, `get` brings one back; `dtypes` are those that it computes in."""

    name: str
    description: str
    put: Callable[[NDArray], Array]
    get: Callable[[Array], NDArray]
    dtypes: tuple[str, ...]
    accelerator: bool


def devices(library: str) -> list[Device]:
    """The CPU, and each accelerator that the library supports and sees; the library is imported."""
    return {"numpy": _numpy_devices, "torch": _torch_devices, "jax": _jax_devices}[library]()


_REAL = ("float32", "float64")


def _numpy_devices() -> list[Device]:
    return [Device("cpu", "", np.asarray, np.asarray, _REAL, False)]


def _torch_devices() -> list[Device]:
    import torch

    def device(name: str, description: str) -> Device:
        return Device(
            name, description, lambda x: torch.asarray(x, device=name), lambda x: x.cpu().numpy(), _REAL, name != "cpu"
        )

    capability = torch.backends.cpu.get_cpu_capability()
    found = [device("cpu", f"{torch.get_num_threads()} threads, {capability}")]
    for k in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(k)
        version = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        found.append(device(f"cuda:{k}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {version}"))
    return found


def _jax_devices() -> list[Device]:
    import jax

    wide = bool(jax.config.read("jax_enable_x64"))
    setting = "64-bit on" if wide else "64-bit off; JAX_ENABLE_X64=1 allows float64"

    def device(x: Any) -> Device:
        return Device(
            f"{x.platform}:{x.id}",
            f"{x.device_kind}, {setting}",
            lambda array: jax.device_put(array, x),
            np.asarray,
            _REAL if wide else _REAL[:1],
            x.platform != "cpu",
        )

    return [device(x) for x in jax.local_devices()]
