"""What a traced JAX program does on one device: its collectives, and the memory that its arrays need.

The program is a jaxpr, so that its sizes may be those of any mesh: no device is needed and no array exists. Memory is that of
arrays in the order of the program. As in a compiled program, an operation on entries whose result has one use is a part of that
use, transposed and reshaped arrays are views, and a result takes the memory of an argument that ends.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import Literal

from matsign.backends.jax_accelerator import trace, trace_products

# Collectives by their names in JAX, and as compiled programs name them.
_COLLECTIVES = {
    "ppermute": "permute",
    "psum": "all-reduce",
    "psum_invariant": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
    "all_to_all": "all-to-all",
    "all_gather": "all-gather",
    "all_gather_invariant": "all-gather",
    "reduce_scatter": "reduce-scatter",
}
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat",
    "checkpoint",
    "shard_map",
)
_VIEWS = frozenset(("transpose", "reshape", "squeeze", "expand_dims", "copy", "pvary", "optimization_barrier"))
_MADE_ANYWHERE = frozenset(("broadcast_in_dim", "iota"))
_ENTRYWISE = frozenset(
    (
        *(
            "abs",
            "neg",
            "sign",
            "square",
            "sqrt",
            "rsqrt",
            "exp",
            "exp2",
            "log",
            "log1p",
            "cos",
            "pow",
            "integer_pow",
            "floor",
        ),
        *(
            "ceil",
            "round",
            "real",
            "imag",
            "conj",
            "complex",
            "is_finite",
            "convert_element_type",
            "bitcast_convert_type",
        ),
        *("add", "add_any", "sub", "mul", "div", "rem", "max", "min", "clamp", "select_n", "atan2"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "shift_left", "shift_right_arithmetic"),
    )
)
_REDUCTIONS = frozenset(("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "argmin"))


class Transfer(NamedTuple):
    """A collective with a result of `size` bytes on a device, between groups of `group` devices."""

    kind: str
    size: int
    group: int


Transfers = Counter[Transfer]


class Program(NamedTuple):
    """The transfers on the cheapest and on the most expensive branches, and the bytes beside the arguments."""

    least: Transfers
    most: Transfers
    memory: float


class _Line(NamedTuple):
    """An operation of a program without calls; variables are numbers, constants in the text of the program are left out."""

    name: str
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Text:
    """A jaxpr with its calls replaced by what they call."""

    def __init__(self, jaxpr: Any) -> None:
        self.sizes: list[float] = []
        self.lines: list[_Line] = []
        names: dict[Any, int] = {}
        for v in (*jaxpr.constvars, *jaxpr.invars):
            names[v] = self._new(v.aval)
        self.inputs = tuple(names.values())
        self._inline(jaxpr, names)
        self.results = tuple(names[v] for v in jaxpr.outvars if not isinstance(v, Literal))

    def _new(self, aval: Any) -> int:
        self.sizes.append(math.prod(getattr(aval, "shape", ())) * getattr(getattr(aval, "dtype", None), "itemsize", 0))
        return len(self.sizes) - 1

    def _inline(self, jaxpr: Any, names: dict[Any, int]) -> None:
        for eqn in jaxpr.eqns:
            inner = _callee(eqn)
            if inner is None:
                inputs = tuple(names[v] for v in eqn.invars if not isinstance(v, Literal))
                for v in eqn.outvars:
                    names[v] = self._new(v.aval)
                outputs = tuple(names[v] for v in eqn.outvars)
                self.lines.append(_Line(eqn.primitive.name, eqn.params, inputs, outputs))
                continue
            inside: dict[Any, int] = {v: self._new(v.aval) for v in inner.constvars}
            for v, given in zip(inner.invars, eqn.invars[-len(inner.invars) :], strict=True):
                inside[v] = self._new(v.aval) if isinstance(given, Literal) else names[given]
            self._inline(inner, inside)
            for v, result in zip(eqn.outvars, inner.outvars, strict=True):
                names[v] = self._new(v.aval) if isinstance(result, Literal) else inside[result]


def _callee(eqn: Any) -> Any:
    """The jaxpr that an equation calls, if it is a call or an operation of matsign."""
    if eqn.primitive.name == "matsign":
        bound = eqn.params["bound"]
        program = trace_products if bound.fixed else functools.partial(trace, call_host=_host)
        avals = [jax.core.ShapedArray(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        return jax.make_jaxpr(functools.partial(program, bound=bound))(*avals).jaxpr
    if eqn.primitive.name not in _CALLS:
        return None
    inner = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params)
    return getattr(inner, "jaxpr", inner)


def _host(solve: Any, results: Any, *arrays: Any) -> tuple[Any, ...]:
    """What the host would return, as far as memory is concerned."""
    return tuple(jax.numpy.zeros(shape, dtype) for shape, dtype in results)


def analyse(jaxpr: Any, mesh: Mapping[str, int], loop_steps: int) -> Program:
    """The program of one device. A loop that ends by a condition takes `loop_steps` steps, or half of its limit if less."""
    text = _Text(jaxpr)
    least, most = Transfers(), Transfers()
    extra: dict[int, float] = {}
    for k, line in enumerate(text.lines):
        if line.name in _COLLECTIVES:
            size = int(sum(text.sizes[v] for v in line.outputs))
            transfer = Transfer(_COLLECTIVES[line.name], size, _group(line.params, mesh))
            least[transfer] += 1
            most[transfer] += 1
        for times, programs in _inner(line, mesh, loop_steps):
            cheapest = min(programs, key=lambda program: _numbers_sent(program.least))
            dearest = max(programs, key=lambda program: _numbers_sent(program.most))
            least.update({t: times * n for t, n in cheapest.least.items()})
            most.update({t: times * n for t, n in dearest.most.items()})
            extra[k] = max(extra.get(k, 0.0), *(program.memory for program in programs))
    return Program(least, most, _peak(text, extra))


def _numbers_sent(transfers: Transfers) -> int:
    return sum(t.size * n for t, n in transfers.items())


def _group(params: Mapping[str, Any], mesh: Mapping[str, int]) -> int:
    """The number of devices between which a collective exchanges."""
    names = params.get("axes", params.get("axis_name"))
    return math.prod(mesh[name] for name in (names if isinstance(names, (tuple, list)) else (names,)))


def _inner(line: _Line, mesh: Mapping[str, int], loop_steps: int) -> Iterator[tuple[int, list[Program]]]:
    """How often an operation runs programs, and the ones of which it runs one."""
    if line.name == "scan":
        yield line.params["length"], [analyse(line.params["jaxpr"].jaxpr, mesh, loop_steps)]
    elif line.name == "while":
        limit = _limit(line.params["cond_jaxpr"].jaxpr)
        steps = loop_steps if limit is None else min(loop_steps, max(1, limit // 2))
        yield steps, [analyse(line.params["body_jaxpr"].jaxpr, mesh, loop_steps)]
        yield steps + 1, [analyse(line.params["cond_jaxpr"].jaxpr, mesh, loop_steps)]
    elif line.name == "cond":
        yield 1, [analyse(branch.jaxpr, mesh, loop_steps) for branch in line.params["branches"]]


def _limit(condition: Any) -> int | None:
    """The number that the counter of a loop is compared with."""
    for eqn in condition.eqns:
        if eqn.primitive.name == "lt" and isinstance(eqn.invars[1], Literal):
            return int(eqn.invars[1].val)
    return None


def _peak(text: _Text, extra: dict[int, float]) -> float:
    """The most bytes at one time beside the arguments, where operation k needs extra[k] bytes inside."""
    uses = Counter(v for line in text.lines for v in set(line.inputs))
    last = {v: len(text.lines) for v in text.results}
    held = dict(enumerate(text.sizes)) | dict.fromkeys(text.inputs, 0.0)
    consumer: dict[int, str] = {}
    for k in reversed(range(len(text.lines))):
        line = text.lines[k]
        end = k
        if _is_part_of_its_use(line, uses, consumer, last, len(text.lines)):
            end = max((last.get(v, k) for v in line.outputs), default=k)
            held |= dict.fromkeys(line.outputs, 0.0)
        for v in line.inputs:
            last[v] = max(last.get(v, 0), end)
            consumer[v] = line.name
    ending: dict[int, list[int]] = {}
    for v, end in last.items():
        ending.setdefault(end, []).append(v)
    live = peak = 0.0
    for k, line in enumerate(text.lines):
        freed = sum(held[v] for v in ending.get(k, ()) if v not in line.outputs)
        made = sum(held[v] for v in line.outputs)
        if line.name in ("while", "scan", "cond"):
            peak = max(peak, live + made + extra.get(k, 0.0))
        elif line.name in _ENTRYWISE or line.name == "dynamic_update_slice":
            peak = max(peak, live + max(0.0, made - freed))
        else:
            peak = max(peak, live + max(made, extra.get(k, 0.0)))
        live += made - freed - sum(held[v] for v in line.outputs if v not in last)
    return peak


def _is_part_of_its_use(
    line: _Line, uses: Counter[int], consumer: dict[int, str], last: dict[int, int], end: int
) -> bool:
    """Whether the results of an operation need no memory of their own."""
    if line.name in _VIEWS:
        return True
    if any(last.get(v) == end for v in line.outputs):
        return False
    if line.name in _MADE_ANYWHERE and not line.inputs:
        return all(consumer.get(v) in _ENTRYWISE | _REDUCTIONS for v in line.outputs)
    single = all(uses[v] == 1 for v in line.outputs)
    return (
        line.name in _ENTRYWISE | _MADE_ANYWHERE
        and single
        and all(consumer.get(v) in _ENTRYWISE | _REDUCTIONS for v in line.outputs)
    )
