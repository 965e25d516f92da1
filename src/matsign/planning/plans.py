"""What a `Plan` says: how something will be computed on a mesh of devices, its work, its communication and its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from matsign.backends.counting import Tally, flops
from matsign.core.options import short_repr


class Way(StrEnum):
    """How the work is divided between devices."""

    ONE_DEVICE = "one device"
    LOCAL_BATCH = "local batch"
    OWNERS = "owners by all-to-all"
    STACKS = "stacks by one reshard each way"
    GRAM = "Gram form, all-reduce"
    PANELS = "products in panels"
    DOES_NOT_FIT = "does not fit"


class Collective(NamedTuple):
    """``times`` collectives of one kind between groups of ``group`` devices, each with a result of ``size`` bytes on a device."""

    kind: str
    times: float
    size: float
    group: int

    @property
    def bytes_sent(self) -> float:
        """The bytes that a device sends: rings for all-reduce and all-gather, and only what others need in an all-to-all."""
        if self.kind == "permute":
            return self.times * self.size
        factor = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": self.group, "all-to-all": 1.0}[self.kind]
        return self.times * self.size * factor * (self.group - 1) / self.group


@dataclass(frozen=True)
class Plan:
    """How a call will be computed on a mesh of devices, and what it costs.

    Attributes
    ----------
    subject : str
        What is planned: the function or the optimiser, its sizes and its dtype.
    mesh : dict of str to int
        The axes of the mesh and their sizes.
    way : str
        How the work is divided between the devices.
    reason : str
        Why this way.
    products, factorisations : (int, int)
        The fewest and the most matrix products and factorisations; they differ where values decide.
    flops : (float, float)
        The fewest and the most floating-point operations, of all devices together.
    busiest : float
        The most work of one device over the mean of all devices.
    collectives : tuple
        Kind, number, bytes of the result on a device, and size of the group, of each collective.
    memory : dict of str to float
        The bytes that a device holds, by purpose.
    available : float or None
        The bytes of memory of a device, if they are known.
    notes : tuple of str
        What was assumed, and advice.
    """

    subject: str
    mesh: dict[str, int]
    way: Way
    reason: str
    products: tuple[int, int]
    factorisations: tuple[int, int]
    flops: tuple[float, float]
    memory: dict[str, float]
    busiest: float = 1.0
    collectives: tuple[Collective, ...] = ()
    available: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def devices(self) -> int:
        """The number of devices."""
        return math.prod(self.mesh.values())

    @property
    def bytes_moved(self) -> float:
        """The bytes that a device sends."""
        return sum(c.bytes_sent for c in self.collectives)

    @property
    def bytes_held(self) -> float:
        """The bytes that a device holds at most."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether this is at most the memory of a device, if that is known."""
        return self.available is None or self.bytes_held <= self.available

    def as_dict(self) -> dict[str, Any]:
        """All of it in dictionaries, lists, numbers and text, as for JSON."""
        return {
            "subject": self.subject,
            "mesh": self.mesh,
            "devices": self.devices,
            "way": str(self.way),
            "reason": self.reason,
            "products": list(self.products),
            "factorisations": list(self.factorisations),
            "flops": list(self.flops),
            "busiest": self.busiest,
            "collectives": [c._asdict() | {"moved": c.bytes_sent} for c in self.collectives],
            "bytes_moved": self.bytes_moved,
            "memory": self.memory,
            "bytes_held": self.bytes_held,
            "available": self.available,
            "fits": self.fits,
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Name and text of each line of a report."""
        share = self.flops[0] / self.devices * self.busiest, self.flops[1] / self.devices * self.busiest
        rows = [
            ("mesh", " × ".join(f"{name} {size}" for name, size in self.mesh.items())),
            ("way", f"{self.way}: {self.reason}"),
            ("products", _range(*self.products, str)),
            ("factorisations", _range(*self.factorisations, str)),
            ("flops", f"{_range(*self.flops, as_number)}, {_range(*share, as_number)} on the busiest device"),
        ]
        for c in self.collectives:
            times = f"{c.times:g} × " if c.times != 1 else ""
            rows.append((c.kind, f"{times}{as_bytes(c.size)} between {c.group} devices"))
        most = "up to " if self.collectives and self.products[0] < self.products[1] else ""
        rows.append(("bytes moved", f"{most}{as_bytes(self.bytes_moved)} sent by a device"))
        parts = ", ".join(f"{name} {as_bytes(size)}" for name, size in self.memory.items())
        limit = "" if self.available is None else f" of {as_bytes(self.available)}"
        rows.append(("memory a device", f"{as_bytes(self.bytes_held)}{limit} ({parts})"))
        return rows + [("note", note) for note in self.notes]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join([self.subject, *(f"  {name:{width}}  {text}" for name, text in self.rows())])

    __repr__ = __str__


def totals(least: Tally, most: Tally, times: float = 1.0) -> dict[str, Any]:
    """The products and factorisations of one device, and the operations of so many, as fields of a `Plan`."""

    def products(tally: Tally) -> int:
        return sum(count for work, count in tally.items() if work.is_matrix_product)

    def factorisations(tally: Tally) -> int:
        return sum(count for work, count in tally.items() if work.kind != "product")

    found: dict[str, Any] = {f.__name__: (f(least), f(most)) for f in (products, factorisations)}
    return found | {"flops": (times * flops(least), times * flops(most))}


def as_mesh(mesh: Any) -> dict[str, int]:
    """A mesh as sizes by name, from a number of devices or a mapping; a ValueError for anything that is no mesh."""
    axes = {"devices": mesh} if isinstance(mesh, int) and not isinstance(mesh, bool) else mesh
    if not isinstance(axes, Mapping) or not axes:
        raise ValueError(f"mesh must be a number of devices or sizes by name, got {short_repr(mesh)}")
    for name, size in axes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"mesh: the size of {name} must be a positive whole number, got {short_repr(size)}")
    return dict(axes)


def as_memory(memory: Any) -> float | None:
    """The bytes of memory of a device; a ValueError for anything but a positive number or None."""
    if memory is None:
        return None
    if not isinstance(memory, (int, float)) or isinstance(memory, bool) or not 0 < memory < math.inf:
        raise ValueError(f"memory must be a positive number of bytes, got {short_repr(memory)}")
    return float(memory)


def as_bytes(size: float) -> str:
    """A number of bytes with a unit, in powers of ten as networks and makers of memory count."""
    return as_number(size, "B")


def as_number(x: float, unit: str = "") -> str:
    """A number with three digits and a prefix of the SI."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    step = 0
    while x >= 999.5 and step < len(prefixes) - 1:
        x, step = x / 1000, step + 1
    return f"{x:.3g} {prefixes[step]}{unit}".rstrip() if x < 999.5 else f"{x:.3g} {prefixes[step]}{unit}"


def _range(least: Any, most: Any, text: Any) -> str:
    return text(most) if least == most else f"{text(least)} to {text(most)}"
