"""Labels for a tree of parameters in JAX: which leaves go to Muon and which to AdamW, by their path and their shape."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251

from matsign.core.options import short_repr
from matsign.optim.assignment_table import ALGORITHMS, Assignment, table
from matsign.optim.batching import Layout
from matsign.optim.jax_leaves import path_name
from matsign.optim.matrix_axes import MatrixAxes, reading

Tree = Any
Shape = tuple[int, ...]

# Parts of a path, in lower case. The last part is the name of the parameter.
_EMBEDDING = re.compile(r"embed|(^|_)(wte|wpe|pos|position|tokens?)(_|$)")
_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)")
_HEAD = re.compile(r"(^|_)(head|logits|classifier|readout)(_\d+)?$")
_CONVOLUTION = re.compile(r"conv")
_ENTRYWISE = re.compile(r"(^|_)(bias|scale|offset|gain|beta|gamma)(_|$)|^b$|^a_log$")


class _Decision(NamedTuple):
    """An algorithm, the reason for it, and the axes if they are not the default ones; if no rule applies, ""."""

    algorithm: str
    reason: str
    axes: MatrixAxes | None = None


class ParamLabels:
    """Labels "muon" and "adamw" for the leaves of a tree.

    ``labels(params)`` is the tree of labels, so that it can be the second argument of ``optax.multi_transform``. `axes` is an
    option of `scale_by_msign`. `assignments` has a record for each leaf; printed, it is a table of them.
    """

    def __init__(self, assignments: Sequence[Assignment], axes: Mapping[str, MatrixAxes]) -> None:
        self.assignments = list(assignments)
        self._axes = dict(axes)
        self._labels = {row.name: row.algorithm for row in assignments}

    def __call__(self, params: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda path, _: self._label(path_name(path)), params)

    def _label(self, name: str) -> str:
        if name not in self._labels:
            raise ValueError(
                f"param_labels: the tree has a leaf {name!r}, which has no label; make labels for this tree"
            )
        return self._labels[name]

    def axes(self, path: str, shape: Shape) -> MatrixAxes | None:
        """The axes of the leaf with this path; None if they are the default ones."""
        return self._axes.get(path)

    def __repr__(self) -> str:
        return table(self.assignments)

    __str__ = __repr__


def param_labels(params: Tree, *, assign: Mapping[str, str | MatrixAxes] | None = None) -> ParamLabels:
    """Label the leaves of a tree for Muon and AdamW, for ``optax.multi_transform``.

    Embeddings, output heads, norms, biases and gains go to AdamW, by their path and by their shape, and matrices to
    Muon. ``print(labels)`` shows where each leaf goes.

    Parameters
    ----------
    params : tree of arrays
        The parameters, or their shapes from ``jax.eval_shape``.
    assign : dict, optional
        Exceptions, from the path of a leaf or a pattern (``"layers.*.query.kernel"``) to "muon", to "adamw" or to
        `MatrixAxes`, which also mean "muon". If several match, the last one is taken.

    Returns
    -------
    labels : ParamLabels
        The second argument of ``optax.multi_transform``: ``labels(params)`` is a tree of "muon" and "adamw".
        ``labels.axes`` is the value for the option ``axes`` of `scale_by_msign`. ``print(labels)`` prints a line for
        every leaf: label, path, shape, reason and axes.

    Raises
    ------
    ValueError
        If a leaf with three or more axes is none of the kinds below, a leaf that ``assign`` gives to Muon is not a matrix, a
        pattern matches nothing, or a value of ``assign`` means nothing. The message names the leaf.

    See Also
    --------
    scale_by_msign : The transformation for leaves with the label "muon".
    MatrixAxes : The axes of a leaf.
    param_groups : The same for a model of PyTorch.

    Notes
    -----
    The rules, the first that applies, on the parts of a path without regard to case:

    - Where a part contains "embed" or is called wte, wpe, pos or token, an embedding: AdamW.
    - Where a part contains "norm" or is called ln, a norm: AdamW.
    - Where a part ends with "head", "logits", "classifier" or "readout", a head: AdamW. So does the one other leaf that
      has the shape of an embedding, or its transpose.
    - A last part called bias, b, scale, offset, gain, beta, gamma or A_log: AdamW, also with an axis for scanned layers.
    - A leaf whose entries lie along one axis: AdamW.
    - Where a part contains "conv", a convolution (..., in, out): Muon; AdamW if it has one input (depthwise).
    - Kernels (in, heads, size) called query, key and value beside a kernel (heads, size, out) called out, as Flax has them
      in attention: Muon.
    - Other leaves with two axes: Muon.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from matsign.optim import MatrixAxes, param_labels, scale_by_msign
    >>> params = {
    ...     "embed": jnp.ones((50, 8)),
    ...     "layers": {"up": {"kernel": jnp.ones((2, 8, 32)), "bias": jnp.ones((2, 32))}},
    ...     "out": {"kernel": jnp.ones((8, 8))},
    ... }
    >>> labels = param_labels(params, assign={"layers.*.kernel": MatrixAxes()})
    >>> print(labels)
    adamw  embed             50×8    embedding
    adamw  layers.up.bias    2×32    bias or gain
    muon   layers.up.kernel  2×8×32  assigned      inputs=-2, outputs=-1
    muon   out.kernel        8×8     matrix
    muon: 2 parameters, 576 numbers
    adamw: 2 parameters, 464 numbers
    >>> muon = scale_by_msign(axes=labels.axes)
    >>> labels(params)["out"]
    {'kernel': 'muon'}

    With optax: ``optax.multi_transform({"muon": optax.chain(muon, optax.scale_by_learning_rate(0.02)), "adamw":
    optax.adamw(3e-4)}, labels)``.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    shapes = {path_name(path): tuple(jnp.shape(x)) for path, x in leaves}
    if len(shapes) < len(leaves):
        raise ValueError("param_labels: two leaves have the same path when its parts are joined by dots")
    exceptions = _exceptions(assign, shapes)
    assignments, axes = [], {}
    for name, shape in shapes.items():
        decision = _decide(name, shapes, exceptions.get(name))
        assignments.append(Assignment(name, shape, decision.algorithm, decision.reason, _shown(decision.axes)))
        if decision.algorithm == "muon":
            _check_matrix(name, shape, decision.axes)
            if decision.axes is not None:
                axes[name] = decision.axes
    return ParamLabels(assignments, axes)


def _exceptions(assign: Any, shapes: Mapping[str, Shape]) -> dict[str, str | MatrixAxes]:
    """The value that `assign` has for each leaf."""
    if not (assign is None or isinstance(assign, Mapping)):
        raise ValueError(f"param_labels: assign must be a dict from paths to labels or axes, got {short_repr(assign)}")
    found = {}
    for pattern, value in (assign or {}).items():
        if not (isinstance(value, MatrixAxes) or (isinstance(value, str) and value in ALGORITHMS)):
            raise ValueError(
                f'param_labels: assign[{pattern!r}] must be "muon", "adamw" or MatrixAxes, got {short_repr(value)}'
            )
        matched = [name for name in shapes if fnmatchcase(name, str(pattern))]
        if not matched:
            paths = ", ".join(map(repr, list(shapes)[:4]))
            raise ValueError(f"param_labels: assign has {pattern!r}, which no leaf matches; paths are {paths}, ...")
        found.update(dict.fromkeys(matched, value))
    return found


def _decide(name: str, shapes: Mapping[str, Shape], exception: str | MatrixAxes | None) -> _Decision:
    shape = shapes[name]
    if isinstance(exception, MatrixAxes):
        return _Decision("muon", "assigned", exception)
    by_rule = _by_rule(name, shapes)
    if exception is not None:
        return by_rule if exception == by_rule.algorithm else _Decision(exception, "assigned")
    if not by_rule.algorithm:
        raise ValueError(
            f"param_labels: leaf {name!r} of shape {shape} has {len(shape)} axes, and its path does not say which of them are "
            f"inputs and outputs; give assign={{{name!r}: MatrixAxes()}} if the last two are, as in scanned layers and in "
            'experts, MatrixAxes(inputs=..., outputs=...) if others are, or "adamw"'
        )
    return by_rule


def _by_rule(name: str, shapes: Mapping[str, Shape]) -> _Decision:
    """The algorithm of a leaf by its path and its shape."""
    shape, parts = shapes[name], name.lower().split(".")
    for reason, word in (("embedding", _EMBEDDING), ("norm", _NORM), ("head", _HEAD)):
        if any(map(word.search, parts)):
            return _Decision("adamw", reason)
    if _ENTRYWISE.search(parts[-1]):
        return _Decision("adamw", "bias or gain")
    if math.prod(shape) == max(shape, default=1):
        return _Decision("adamw", "vector")
    if len(shape) == 2:
        return (
            _Decision("adamw", "head, of an embedding's shape")
            if name in _heads(shapes)
            else _Decision("muon", "matrix")
        )
    if any(map(_CONVOLUTION.search, parts)):
        return _Decision("adamw", "depthwise") if shape[-2] == 1 else _Decision("muon", "convolution")
    axes = _attention(name, shapes)
    return _Decision("muon" if axes else "", "attention", axes)


def _heads(shapes: Mapping[str, Shape]) -> list[str]:
    """The one leaf, if there is one, that has the shape of an embedding or its transpose, but is none."""
    embeddings = {name for name in shapes if any(map(_EMBEDDING.search, name.lower().split(".")))}
    tables = {shape for name in embeddings for shape in (shapes[name], shapes[name][::-1])}
    alike = [name for name, shape in shapes.items() if len(shape) == 2 and shape in tables and name not in embeddings]
    return alike if len(alike) == 1 else []


def _attention(name: str, shapes: Mapping[str, Shape]) -> MatrixAxes | None:
    """The axes of a kernel of Flax's attention."""
    *parents, layer, last = ["", "", *name.split(".")]
    if last != "kernel" or layer not in ("query", "key", "value", "out"):
        return None
    query, out = (shapes.get(".".join([*parents, kind, last]).lstrip("."), ()) for kind in ("query", "out"))
    if len(query) < 3 or len(query) != len(out) or query[-2:] != out[-3:-1]:
        return None
    return MatrixAxes((-3, -2), -1) if layer == "out" else MatrixAxes(-3, (-2, -1))


def _check_matrix(name: str, shape: Shape, axes: MatrixAxes | None) -> None:
    if axes is None:
        Layout(outputs_last=True).shapes(shape, f"leaf {name!r}")
    else:
        reading(axes, shape, f"leaf {name!r}")


def _shown(axes: MatrixAxes | None) -> dict[str, Any]:
    """The axes in the table, without options that have no effect."""
    if axes is None:
        return {}
    blocks = {key: getattr(axes, key) for key in ("split", "split_inputs") if getattr(axes, key) != 1}
    return {"inputs": axes.inputs, "outputs": axes.outputs, **blocks}
