"""Objects that stand for matrices: state-space models, sparse matrices, vectors and numbers.

SciPy's and python-control's models and SciPy's sparse matrices are recognised by the modules of their types, which are not
imported here. A model takes the place of the first matrices of a call; a function declares which ones by `takes_model`. What a
vector or a number stands for is declared beside its solver (`weights`, `columns` and `rows` of `public_function`). Frames of
pandas are in `backends.pandas`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import constant_when_compiled
from matsign.core.options import Parameters


@dataclass(frozen=True)
class ModelArguments:
    """How a function takes a model in place of its first arguments.

    `matrices` are the attributes that it takes, in the order of the arguments; `discrete` is the kind of time, None for both, and
    `other` the function for the other kind, if there is one. `keywords` names the parameters "d" and "dt" that take the D and
    the dt of the model. `returns_model` marks a function whose result a, b, c, d becomes a model again, and
    `why_no_d` tells why the feedthrough D of the model must be 0, if it must.
    """

    name: str
    matrices: str
    discrete: bool | None
    other: str = ""
    keywords: tuple[str, ...] = ()
    returns_model: bool = False
    why_no_d: str = ""

    def accept(self, f: Callable[..., Any], *, directions: bool = False) -> Callable[..., Any]:
        """`f`, which also takes a model first; with `directions` a second one, where the second half of the arguments begins."""

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not args or not _is_model(type(args[0])):
                return f(*args, **kwargs)
            half = len(args) // 2
            first, second = (args[:half], args[half:]) if directions else (args, ())
            kwargs = self._with_keywords(args[0], kwargs, with_d=not directions)
            value = f(*self._expand(first, directions), *self._expand(second, directions), **kwargs)
            return self._with_model((second or first)[0], value) if self.returns_model else value

        return call

    def _expand(self, args: tuple[Any, ...], directions: bool) -> tuple[Any, ...]:
        """The arguments with the matrices of a model in its place; with `directions` D is one of them."""
        if not args:
            return ()
        matrices = self.matrices + "D" * (directions and "d" in self.keywords)
        if args[0] is None:  # no change
            return (*(None for _ in matrices), *args[1:])
        self._check(args[0])
        return (*(getattr(args[0], name) for name in matrices), *args[1:])

    def _with_keywords(self, model: Any, kwargs: dict[str, Any], *, with_d: bool) -> dict[str, Any]:
        """The keyword arguments, with the D and the dt of a model; raises if both say something else."""
        if "d" in self.keywords and with_d:
            if kwargs.get("d") is not None:
                raise TypeError(f"{self.name}: d is given, but sys has a D of its own")
            kwargs = kwargs | {"d": model.D}
        if "dt" not in self.keywords or (model.dt is None and _is_discrete(model) is None):
            return kwargs
        given, its = kwargs.get("dt"), model.dt
        both_numbers = not isinstance(given, bool) and not isinstance(its, bool)
        if given is not None and (bool(given) != bool(its) or (both_numbers and given != (its or 0))):
            raise ValueError(f"{self.name}: dt is {given}, but that of sys is {its}")
        return kwargs | {"dt": its}

    def _check(self, model: Any) -> None:
        """Raise unless the argument is a state-space model of this kind of time."""
        cls = type(model)
        if not _is_model(cls):
            raise TypeError(f"{self.name}: sys is a model and its direction of type {cls.__name__}; expected a model")
        if _state_space(cls) is None:
            remedy = "its to_ss()" if _root(cls) == "scipy" else "control.ss of it, or control.linearize"
            raise TypeError(f"{self.name}: sys is a {cls.__name__}; expected a state-space model: pass {remedy}")
        discrete = _is_discrete(model)
        if None not in (discrete, self.discrete) and discrete != self.discrete:
            found, wanted = ("discrete", "continuous") if discrete else ("continuous", "discrete")
            remedy = f"use {self.other}" if self.other else f"this function is for {wanted} time"
            raise ValueError(f"{self.name}: sys is a model in {found} time (dt = {model.dt}); {remedy}")
        if self.why_no_d and (model.D != 0).any():
            raise ValueError(f"{self.name}: sys has a D that is not zero; {self.why_no_d}")

    def _with_model(self, model: Any, value: Any) -> Any:
        """A result with a model in place of its matrices a, b and c."""
        if getattr(value, "_fields", ())[:3] == ("a", "b", "c"):
            return _like(model, value)
        return (
            (self._with_model(model, value[0]), *value[1:]) if isinstance(value, tuple) else value
        )  # with a certificate


def takes_model(matrices: str, *, discrete: bool | None, **properties: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a public function that takes a model in place of its first arguments, the `matrices` of the model."""

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        arguments = ModelArguments(f.__name__, matrices, discrete, **properties)
        call = arguments.accept(f)
        call.__dict__["model_arguments"] = arguments
        return call

    return decorate


def accept_models_of(f: Callable[..., Any], g: Callable[..., Any], *, directions: bool = False) -> Any:
    """`g`, a function of the arguments of `f`, with the models that `f` takes."""
    arguments = getattr(f, "model_arguments", None)
    return g if arguments is None else arguments.accept(g, directions=directions)


@constant_when_compiled
def _is_model(cls: type) -> bool:
    """Whether a type is one of the models of SciPy or python-control, in any form."""
    if cls not in _known:
        names = {base.__name__ for base in cls.__mro__ if _root(base) in ("scipy", "control")}
        _known[cls] = bool(names & {"LinearTimeInvariant", "InputOutputSystem"})
    return _known[cls]


_known: dict[type, bool] = {}


def _root(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _state_space(cls: type) -> type | None:
    """The class `StateSpace` from which a type is derived."""
    found = (base for base in cls.__mro__ if base.__name__ == "StateSpace" and _root(base) in ("scipy", "control"))
    return next(found, None)


def _is_discrete(model: Any) -> bool | None:
    """Whether the time of a model is discrete; None for python-control's dt = None, which leaves it open."""
    if model.dt is None:
        return False if _root(_state_space(type(model)) or type(model)) == "scipy" else None
    return bool(model.dt)


def _like(model: Any, value: Any) -> Any:
    """A model of the same class with other matrices, the same dt, and the same names of inputs and outputs."""
    cls: Any = _state_space(type(model))
    if _root(cls) == "scipy":
        time = {} if model.dt is None else {"dt": model.dt}
        return cls(value.a, value.b, value.c, getattr(value, "d", model.D), **time)
    labels = {"inputs": model.input_labels, "outputs": model.output_labels}
    return cls(value.a, value.b, value.c, getattr(value, "d", model.D), model.dt, **labels)


# Sparse matrices with at most this many rows and columns become dense: 128 MB in float64.
MAX_SPARSE = 4000


def densify(x: Any) -> Any:
    """A sparse matrix of SciPy as a NumPy array; anything else, and what is larger than `MAX_SPARSE`, unchanged."""
    is_small_sparse = is_sparse(type(x)) and max(x.shape, default=0) <= MAX_SPARSE
    return x.toarray() if is_small_sparse else x


def is_sparse(cls: type) -> bool:
    """Whether a type is a sparse array or matrix of SciPy."""
    return hasattr(cls, "toarray") and any(_root(base) == "scipy" for base in cls.__mro__)


def as_matrices(parameters: Parameters, backend: Backend, arrays: list[Array]) -> list[Array]:
    """The arrays, with matrices for vectors and numbers where the parameters say what these stand for.

    Batches of vectors are not guessed. A vector whose length does not fit stays, and `check_sizes` reports it.
    """
    if parameters.vectors and not all(x is None or x.ndim > 1 for x in arrays):
        arrays = _expand_vectors(parameters, backend, arrays)
    if any(len(letters) > 2 for letters in parameters.shapes):
        arrays = _repeat_constants(parameters, backend, arrays)
    return arrays


def _repeat_constants(parameters: Parameters, backend: Backend, arrays: list[Array]) -> list[Array]:
    """The arrays, with a matrix in place of a sequence of matrices repeated as often as the first sequence is long."""
    length = arrays[0].shape[-3] if arrays[0].ndim > 2 else None
    return [
        backend.xp.broadcast_to(x, (length, *x.shape))
        if length is not None and x is not None and len(letters) > x.ndim == 2
        else x
        for letters, x in zip(parameters.shapes, arrays, strict=True)
    ]


def _expand_vectors(parameters: Parameters, backend: Backend, arrays: list[Array]) -> list[Array]:
    """The arrays, with matrices for vectors and numbers."""
    arrays, sizes = list(arrays), _known_sizes(parameters, arrays)
    names = zip(parameters.arrays, parameters.shapes, strict=True)
    # Vectors that are columns tell the number of the inputs, and so on; numbers come last.
    order = sorted(enumerate(names), key=lambda item: _rank(parameters.vectors.get(item[1][0], ""), arrays[item[0]]))
    for place, (name, letters) in order:
        x, role = arrays[place], parameters.vectors.get(name)
        if x is None or role is None or x.ndim > 1:
            continue
        arrays[place] = x = _as_matrix(backend, x, role, sizes.get(letters[-1] if role == "row" else letters[-2], 1))
        if x.ndim == 2:
            for letter, size in zip(letters[-2:], x.shape, strict=True):
                sizes.setdefault(letter, size)
    return arrays


def _known_sizes(parameters: Parameters, arrays: list[Array]) -> dict[str, int]:
    """The size for each letter of the shapes, from the matrices; a number that is no weight counts as a 1 × 1 matrix."""
    sizes: dict[str, int] = {}
    entries = list(zip(parameters.arrays, parameters.shapes, arrays, strict=True))
    for _, letters, x in entries:
        if x is not None and x.ndim > 1:
            for letter, size in zip(letters[-2:], x.shape[-2:], strict=True):
                sizes.setdefault(letter, size)
    for name, letters, x in entries:
        if x is not None and x.ndim == 0 and parameters.vectors.get(name) != "diagonal":
            for letter in letters:
                sizes.setdefault(letter, 1)
    return sizes


def _rank(role: str, x: Array) -> int:
    return 2 if x is not None and x.ndim == 0 else int(role == "diagonal")


def _as_matrix(backend: Backend, x: Array, role: str, size: int) -> Array:
    """A vector or a number as a matrix; unchanged if its length is not this size."""
    if x.ndim == 1 and x.shape[0] != size:
        return x
    if role == "diagonal":
        if size == 1:
            return x.reshape((1, 1))
        # Not by a product, in which infinite entries would make others NaN.
        return backend.xp.where(backend.eye(size, x) != 0, x, backend.zeros((size, size), x))
    if x.ndim == 0:
        return x
    return x.reshape((1, size) if role == "row" else (size, 1))
