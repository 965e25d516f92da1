"""Groups for `Muon`: the algorithm for each parameter of a model, by the type of its module and by its shape."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch  # noqa: TID251
from torch import nn  # noqa: TID251

from matsign.core.options import short_repr
from matsign.optim.assignment_table import ALGORITHMS, Assignment, table
from matsign.optim.batching import check_layout
from matsign.optim.groups import Group, check_names, layout_of
from matsign.optim.module_rules import (
    Owner,
    is_embedding,
    is_embedding_module,
    is_entrywise,
    is_norm,
    matrices,
    weight_shape,
)

LAYOUT = {"split": 1, "split_inputs": 1, "batch_axes": 0, "outputs_last": False}


class Decision(NamedTuple):
    """An algorithm, the reason for it, and options; if no rule applies, "" and why none does."""

    algorithm: str
    reason: str
    options: Group = {}  # noqa: RUF012 (never changed)


class ParamGroups(list[Group]):
    """Groups for `Muon`. `assignments` has a record for each parameter of the model; printed, it is a table of them."""

    def __init__(self, groups: Iterable[Group] = (), assignments: Iterable[Assignment] = ()) -> None:
        super().__init__(groups)
        self.assignments = list(assignments)

    def __repr__(self) -> str:
        return table(self.assignments)

    __str__ = __repr__


def param_groups(
    model: nn.Module,
    *,
    muon: Mapping[str, Any] | None = None,
    adamw: Mapping[str, Any] | None = None,
    assign: Mapping[str, str | Mapping[str, Any]] | None = None,
) -> ParamGroups:
    """Make the groups of `Muon` for a model: matrices to Muon, the rest to AdamW.

    Embeddings, output heads, norms, biases and gains go to AdamW, by the type of their module and by their shape.
    ``print(groups)`` shows where each parameter goes.

    Parameters
    ----------
    model : torch.nn.Module
        The model. Parameters that do not require a gradient are in no group.
    muon : dict, optional
        Options of the groups under Muon, as `Muon` takes them.
    adamw : dict, optional
        Options of the groups under AdamW. Options that it does not have, such as the learning rate, are those of the
        optimiser.
    assign : dict, optional
        Exceptions, from the name of a parameter or a pattern (``"blocks.*.qkv.weight"``) to "muon", to "adamw" or to a
        dict of options: ``{"split": (32, 8, 8)}``, ``{"batch_axes": 1}``, ``{"lr": 1e-4}``. If several match, options of later
        ones replace those of earlier ones.

    Returns
    -------
    groups : list of dict
        Groups of named parameters, one for every algorithm and set of options. ``print(groups)`` prints a line for
        every parameter: algorithm, name, shape, reason and options.

    Raises
    ------
    ValueError
        If a parameter with three or more axes belongs to a module whose matrices are not known, a parameter that
        ``assign`` gives to Muon is not a matrix or has no such blocks, a parameter has no shape yet, a pattern matches
        nothing, or an option is out of place. The message names the parameter.
    TypeError
        If ``model`` is not a ``torch.nn.Module``.

    See Also
    --------
    Muon : The optimiser for these groups.

    Notes
    -----
    The rules, the first that applies:

    - A parameter of an embedding goes to AdamW, also where another module shares it (tied embeddings), and a plain
      parameter that its name calls an embedding, a position or a token.
    - A parameter of a norm goes to AdamW: the modules of torch, and classes whose name ends with "Norm".
    - The head goes to AdamW. It is the first of these that exists: what ``get_output_embeddings()`` of the model
      returns; a Linear that shares the weight of an embedding; the one Linear whose weight has the shape of an
      embedding; the last Linear, unless another layer has its shape and, apart from numbers, its name.
    - A parameter whose entries lie along one axis goes to AdamW: biases, gains, shapes such as (C, 1, 1).
    - Biases with several axes and ``A_log`` of Mamba go to AdamW, by their name.
    - Convolutions go to Muon, with ``split=groups``, unless a matrix is a single row (depthwise convolutions).
    - The input projection of ``torch.nn.MultiheadAttention`` goes to Muon with ``split=3``, weights of LSTM and GRU
      with a block for each gate.
    - ``Conv1D`` of transformers (GPT-2) goes to Muon with ``outputs_last=True``, its experts with ``batch_axes=1`` and the
      layout that they declare.
    - Other parameters with two axes go to Muon.

    Examples
    --------
    >>> import torch
    >>> from matsign.optim import Muon, param_groups
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Embedding(50, 8), torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 50)
    ... )
    >>> groups = param_groups(model, muon={"lr": 0.02}, adamw={"lr": 3e-4, "weight_decay": 0.0})
    >>> print(groups)
    adamw  0.weight  50×8  embedding
    muon   1.weight  8×8   matrix
    adamw  1.bias    8     vector
    adamw  2.weight  8     norm
    adamw  2.bias    8     norm
    adamw  3.weight  50×8  head
    adamw  3.bias    50    head
    muon: 1 parameter, 64 numbers
    adamw: 6 parameters, 874 numbers
    >>> optimiser = Muon(groups)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"param_groups: model must be a torch.nn.Module, got {short_repr(model)}")
    common = {"muon": _options("muon", muon), "adamw": _options("adamw", adamw)}
    owners = _owners(model)
    heads = _heads(model, owners)
    exceptions = _exceptions(assign, owners)
    groups: dict[Any, Group] = {}
    assignments = []
    for name, p in model.named_parameters():
        decision = _decide(name, p, owners[p], heads, exceptions[p])
        assignments.append(Assignment(name, _shape(name, p), *decision))
        if decision.algorithm == "frozen":
            continue
        options = {**common[decision.algorithm], **decision.options}
        if decision.algorithm == "muon":
            _check_matrix(name, p, options)
        key = (decision.algorithm, *((k, _identity(v)) for k, v in sorted(options.items())))
        groups.setdefault(key, {"params": [], "algorithm": decision.algorithm, **options})["params"].append((name, p))
    return ParamGroups(sorted(groups.values(), key=lambda group: ALGORITHMS.index(group["algorithm"])), assignments)


def _identity(value: Any) -> Any:
    return id(value) if isinstance(value, torch.Tensor) else repr(value)


def _options(argument: str, options: Mapping[str, Any] | None) -> Group:
    """The options of all groups of an algorithm, copied."""
    if options is None:
        return {}
    if not isinstance(options, Mapping) or {"params", "algorithm", "use_muon"} & set(options):
        raise ValueError(
            f"param_groups: {argument} must be a dict of options without params and algorithm, got {short_repr(options)}"
        )
    check_names(options, f"param_groups: {argument}")
    return dict(options)


def _shape(name: str, p: nn.Parameter) -> tuple[int, ...]:
    if nn.parameter.is_lazy(p):
        raise ValueError(f"param_groups: parameter {name!r} has no shape yet; run the model once before")
    return tuple(p.shape)


def _owners(model: nn.Module) -> dict[nn.Parameter, list[Owner]]:
    """The modules of every parameter; for a parametrised weight the layer that it belongs to."""
    owners: dict[nn.Parameter, list[Owner]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        layer, parametrised, _ = f".{path}.".partition(".parametrizations.")
        owner = model.get_submodule(layer[1:]) if parametrised else module
        for attribute, p in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{path}.{attribute}" if path else attribute
            owners.setdefault(p, []).append(Owner(name, owner, attribute))
    return owners


def _heads(model: nn.Module, owners: dict[nn.Parameter, list[Owner]]) -> set[nn.Module]:
    """The layers that make the output."""
    getters: list[Any] = [getattr(m, "get_output_embeddings", None) for m in model.modules()]
    if named := {m for m in (get() for get in getters if callable(get)) if m is not None}:
        return named
    embeddings = [m for m in model.modules() if is_embedding_module(m)]
    linear: list[tuple[str, nn.Module]] = [
        (path, m)
        for path, m in model.named_modules()
        if isinstance(m, nn.Linear) and not isinstance(m, nn.modules.linear.NonDynamicallyQuantizableLinear)
    ]
    shared = {id(p) for m in embeddings for p in m.parameters(recurse=False)}
    if tied := {m for _, m in linear if any(id(p) in shared for p in m.parameters())}:
        return tied
    places = [(re.sub(r"\d+", "#", path), *weight_shape(m)) for path, m in linear]
    single = [m for place, (_, m) in zip(places, linear, strict=True) if places.count(place) == 1]
    shapes = {weight_shape(m) for m in embeddings}
    alike = [m for m in single if weight_shape(m) in shapes]
    if len(alike) == 1:
        return set(alike)
    return {linear[-1][1]} & set(single) if linear else set()


def _exceptions(assign: Any, owners: dict[nn.Parameter, list[Owner]]) -> dict[nn.Parameter, Group]:
    """The options that `assign` gives to every parameter, under any of its names."""
    if not (assign is None or isinstance(assign, Mapping)):
        raise ValueError(f"param_groups: assign must be a dict from names to options, got {short_repr(assign)}")
    found: dict[nn.Parameter, Group] = {p: {} for p in owners}
    for pattern, value in (assign or {}).items():
        options = dict(value) if isinstance(value, Mapping) else {"algorithm": value}
        if options.get("algorithm", "muon") not in ALGORITHMS or {"params", "use_muon"} & set(options):
            raise ValueError(
                f'param_groups: assign[{pattern!r}] must be "muon", "adamw" or a dict of options, got {short_repr(value)}'
            )
        check_names(options, f"param_groups: assign[{pattern!r}]")
        matched = [p for p, names in owners.items() if any(fnmatchcase(o.name, pattern) for o in names)]
        if not matched:
            names = ", ".join(repr(o[0].name) for o in list(owners.values())[:4])
            raise ValueError(
                f"param_groups: assign has {pattern!r}, which no parameter matches; names are {names}, ..."
            )
        for p in matched:
            found[p] |= options
    return found


def _decide(name: str, p: nn.Parameter, owners: list[Owner], heads: set[nn.Module], exception: Group) -> Decision:
    if not p.requires_grad:
        return Decision("frozen", "needs no gradient")
    shape = _shape(name, p)
    by_rule = _by_rule(p, shape, owners, heads)
    options = {key: value for key, value in exception.items() if key != "algorithm"}
    algorithm = exception.get("algorithm") or ("muon" if LAYOUT.keys() & options.keys() else by_rule.algorithm)
    if not algorithm:
        raise ValueError(
            f"param_groups: parameter {name!r} of shape {shape} {by_rule.reason}; give assign={{{name!r}: "
            '{"batch_axes": 1}} if its first axis counts matrices, {"batch_axes": 0} if its first axis is the outputs\', '
            'or "adamw"'
        )
    if algorithm == by_rule.algorithm:
        return Decision(algorithm, by_rule.reason, {**by_rule.options, **options})
    return Decision(algorithm, "assigned", options)


def _by_rule(p: nn.Parameter, shape: tuple[int, ...], owners: list[Owner], heads: set[nn.Module]) -> Decision:
    """The algorithm of a parameter by its modules and its shape."""
    tied = f", tied: {', '.join(owner.name for owner in owners[1:])}" if len(owners) > 1 else ""
    for reason, applies in (("embedding", is_embedding), ("norm", is_norm), ("head", lambda o: o.module in heads)):
        if any(map(applies, owners)):
            return Decision("adamw", reason + tied)
    if math.prod(shape) == max(shape, default=1):
        return Decision("adamw", "vector" + tied)
    if any(map(is_entrywise, owners)):
        return Decision("adamw", "entrywise" + tied)
    reason, options = matrices(owners[0], p)
    if not reason and shape[0] == 1:  # a position embedding (1, n, m): one row
        return Decision("adamw", "single row" + tied)
    if not reason:
        return Decision("", f"belongs to class {type(owners[0].module).__name__}, whose matrices are not known")
    if all(outputs == 1 for _, outputs, _ in layout_of({**LAYOUT, **options}).shapes(shape)):
        return Decision("adamw", f"{reason} with a single row in each matrix" + tied)
    return Decision("muon", reason + tied, options)


def _check_matrix(name: str, p: nn.Parameter, options: Group) -> None:
    """A ValueError that names the parameter if it is not made of such matrices."""
    layout = layout_of({**LAYOUT, **options})
    check_layout(layout)
    layout.shapes(tuple(p.shape), f"parameter {name!r}")
