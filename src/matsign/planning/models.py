"""The shapes of the parameters of a model: from a file, or of a transformer from its sizes."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matsign.core.options import short_repr

Shapes = dict[str, tuple[int, ...]]

# Names of parameters that are no hidden matrices: AdamW takes them, and every parameter with one axis.
OTHERS = r"embed|wte|wpe|lm_head|norm|bias"
# More layers than this are a mistake.
_MOST_LAYERS = 100_000
# No header of a real file is longer.
_LONGEST_HEADER = 10**8


def transformer(
    layers: int, width: int, heads: int, mlp: int, vocab: int, kv_heads: int | None = None, *, tied: bool = False
) -> Shapes:
    """The parameters of a decoder as Llama's: separate q, k, v and o, a gated MLP, RMS norms, a head of its own unless `tied`."""
    given = {"layers": layers, "width": width, "heads": heads, "mlp": mlp, "vocab": vocab}
    for name, size in (given | ({} if kv_heads is None else {"kv-heads": kv_heads})).items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a positive whole number, got {short_repr(size)}")
    if layers > _MOST_LAYERS:
        raise ValueError(f"layers must be at most {_MOST_LAYERS}, got {layers}")
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}")
    kv = width // heads * (heads if kv_heads is None else kv_heads)
    if kv > width or heads % (kv_heads or heads):
        raise ValueError(f"heads={heads} is not a multiple of kv-heads={kv_heads}")
    one = {
        "attention_norm.weight": (width,),
        "attention.q.weight": (width, width),
        "attention.k.weight": (kv, width),
        "attention.v.weight": (kv, width),
        "attention.o.weight": (width, width),
        "mlp_norm.weight": (width,),
        "mlp.gate.weight": (mlp, width),
        "mlp.up.weight": (mlp, width),
        "mlp.down.weight": (width, mlp),
    }
    shapes: Shapes = {"embed.weight": (vocab, width)}
    for k in range(layers):
        shapes |= {f"layers.{k}.{name}": shape for name, shape in one.items()}
    shapes["norm.weight"] = (width,)
    return shapes if tied else shapes | {"lm_head.weight": (vocab, width)}


def read_shapes(path: Path) -> Shapes:
    """The shapes by name in a JSON file {name: shape}, or in the header of a .safetensors file; else a ValueError."""
    try:
        entries = _header(path) if path.suffix == ".safetensors" else json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (ValueError, struct.error) as error:
        raise ValueError(f"{path} is not readable: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path} holds no table from names to shapes")
    shapes = {
        name: entry["shape"] if isinstance(entry, dict) and "shape" in entry else entry
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    return check_shapes(shapes, f"{path}: ")


def _header(path: Path) -> Any:
    """The header of a .safetensors file: its length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header says that it has {length} bytes")
        return json.loads(file.read(length))


def check_shapes(shapes: Any, where: str = "") -> Shapes:
    """The shapes as tuples; a ValueError that names the parameter whose shape is none."""
    if not isinstance(shapes, Mapping) or not shapes:
        raise ValueError(f"{where}a model is a table from names to shapes, got {short_repr(shapes)}")
    for name, shape in shapes.items():
        whole = isinstance(shape, (list, tuple)) and all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape
        )
        if not whole:
            raise ValueError(f"{where}the shape of {name} must be whole numbers of at least 0, got {short_repr(shape)}")
    return {str(name): tuple(shape) for name, shape in shapes.items()}


def split_by_name(shapes: Shapes, others: str = OTHERS) -> tuple[Shapes, Shapes]:
    """The hidden matrices, and the parameters for AdamW: those with one axis, and those whose name matches `others`."""
    try:
        pattern = re.compile(others)
    except re.error as error:
        raise ValueError(f"{others!r} is not a regular expression: {error}") from None
    matrices = {name: s for name, s in shapes.items() if len(s) > 1 and 0 not in s and not pattern.search(name)}
    return matrices, {name: shape for name, shape in shapes.items() if name not in matrices}
