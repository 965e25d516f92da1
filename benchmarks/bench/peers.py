"""The libraries beside which matsign is measured. None of them but SciPy must be installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """A library, and the packages that bring it, of which the first that is installed is used."""

    name: str
    packages: tuple[str, ...]

    @property
    def package(self) -> str | None:
        return next((name for name in self.packages if module(name)), None)


NUMPY = Peer("NumPy", ("numpy",))
SCIPY = Peer("SciPy", ("scipy",))
TORCH = Peer("PyTorch", ("torch",))
JAX = Peer("JAX", ("jax",))
SLICOT = Peer("SLICOT", ("slycot", "ctrlsys"))
PEERS = (NUMPY, SCIPY, TORCH, JAX, SLICOT)


def module(name: str) -> Any:
    """A module, or None if it is not installed or cannot be loaded: the cases that need it are left out."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def versions() -> dict[str, str]:
    """The versions of the packages that may be compared, without loading them."""
    names = [name for peer in PEERS for name in peer.packages if importlib.util.find_spec(name)]
    return {name: importlib.metadata.version(name) for name in names}
