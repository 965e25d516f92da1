"""Array arguments: check that library, device and sizes agree, promote the dtypes, and stack to (B, n, m)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from matsign import backends
from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.backends.adapters import adapter_name
from matsign.core.objects import MAX_SPARSE, as_matrices, densify, is_sparse
from matsign.core.options import Parameters

KINDS = ("float32", "float64", "complex64", "complex128")


HALVES = ("float16", "bfloat16")


class Call(NamedTuple):
    """The arguments of one call, checked and stacked."""

    backend: Backend
    stacks: Arrays  # None for an omitted optional array (never the first) and for a number in `known`
    batch: tuple[int, ...]
    dtype_name: str
    known: dict[str, float]  # the numbers that are floats


def stack_arguments(parameters: Parameters, arguments: list[Any], stacked: tuple[str, ...] = ()) -> Call:
    """Arrays of one library, device and dtype, stacked to (B, n, m). Apart from `check_hermitian`, entries are not read.

    A number that is a float stays a float unless its name is in `stacked`; the others become stacks (B,). So do the `signed`
    ones: a program compiled for one of their values serves for all.
    """
    names, count = (*parameters.arrays, *parameters.numbers), len(parameters.arrays)
    parameters.check_choice(arguments[:count])
    numbers = zip(parameters.numbers, arguments[count:], strict=True)
    stacked = (*stacked, *parameters.signed)
    fixed = {n: x for n, x in numbers if isinstance(x, float) and n not in stacked}
    backend, arrays = _gather(
        parameters, names, [None if n in fixed else x for n, x in zip(names, arguments, strict=True)]
    )
    number_arrays = arrays[count:]
    arrays, kind = _promote(parameters, backend, arrays[:count], [type(x) in _NUMBERS for x in arguments[:count]])
    arrays = as_matrices(parameters, backend, arrays)
    check_sizes(parameters, arrays)
    arrays = [x.reshape((1, 1)) if x is not None and x.ndim == 0 else x for x in arrays]  # a number as a matrix
    check_hermitian(parameters, backend, arrays)
    axes = [*map(len, parameters.shapes), *[0] * len(number_arrays)]
    arrays += _real_numbers(parameters, backend, number_arrays, arrays[0])
    leading = [None if x is None else tuple(x.shape[: x.ndim - k]) for x, k in zip(arrays, axes, strict=True)]
    batch = _batch(parameters, names, arrays, leading)
    try:
        stacks = backend.as_stacks(arrays, batch, axes)
    except ValueError as error:
        present = ", ".join(n for n, x in zip(names, arrays, strict=True) if x is not None)
        raise ValueError(f"{parameters.name}: the arrays {present} do not go together: {error}") from None
    return Call(backend, finite_estimates(parameters, backend, stacks), batch, kind, fixed)


def finite_estimates(parameters: Parameters, backend: Backend, stacks: Arrays) -> Arrays:
    """The stacks with zeros for members of estimates that hold NaN or infinity: such an estimate is none, not a failure."""
    if not parameters.estimates:
        return stacks
    places = [parameters.arrays.index(name) for name in parameters.estimates]
    return tuple(
        _zero_nonfinite_members(backend, x) if k in places and x is not None else x for k, x in enumerate(stacks)
    )


def _zero_nonfinite_members(backend: Backend, x: Array) -> Array:
    finite = backend.xp.isfinite(x).all((-1, -2))[..., None, None]
    return backend.xp.where(finite, x, backend.xp.zeros_like(x))


def _real_numbers(parameters: Parameters, backend: Backend, numbers: list[Array], like: Array) -> list[Array]:
    """Numbers converted to the precision of the matrices; the matrices are never promoted to that of the numbers."""
    for name, x in zip(parameters.numbers, numbers, strict=True):
        kind = "" if x is None else backend.dtype_name(x)
        if kind.startswith(("complex", "bool")):
            raise TypeError(f"{parameters.name}: {name} has dtype {kind}; expected real numbers")
    kind = backend.dtype_name(like.real)
    return [None if x is None else backend.astype(x, kind) for x in numbers]


_NUMBERS = (int, float, complex)


def _gather(parameters: Parameters, names: tuple[str, ...], arguments: list[Any]) -> tuple[Backend, list[Array]]:
    libraries = [backends.library_of(x) for x in arguments]  # None for sparse matrices, as for lists
    arguments = [densify(x) for x in arguments]
    present = sorted({lib for lib in libraries if lib})
    if parameters.numbers and present == ["jax", "numpy"]:
        present = ["jax"]  # with a JAX number, a NumPy matrix is a constant of JAX
    if len(present) > 1:
        origins = ", ".join(
            f"{n} is {lib or 'plain Python'}"
            for n, lib, x in zip(names, libraries, arguments, strict=True)
            if x is not None
        )
        raise TypeError(f"{parameters.name}: all arrays must come from one library; {origins}")
    backend = backends.load(present[0] if present else "numpy")
    like = next((x for x, lib in zip(arguments, libraries, strict=True) if lib == backend.name), None)
    arrays: list[Array] = []
    for name, x in zip(names, arguments, strict=True):
        if x is None and (parameters.may_be_none(name) or name in parameters.numbers):
            arrays.append(None)
            continue
        reason = why_unsupported(x)
        if reason is not None:
            raise TypeError(f"{parameters.name}: {name} {reason}")
        try:
            arrays.append(backend.asarray(x, like))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{parameters.name}: {name} is not a dense array of numbers: {error}") from None
    if len(arrays) > 1:
        fixed = {n: x for n, x in zip(names, arrays, strict=True) if x is not None and not backend.follows_others(x)}
        devices = {n: backend.device_name(x) for n, x in fixed.items()}
        if len(set(devices.values())) > 1:
            origins = ", ".join(f"{n} is on {d}" for n, d in devices.items())
            raise ValueError(f"{parameters.name}: all arrays must be on the same devices; {origins}")
    return backend, arrays


# Names of the methods by which sparse arrays become dense.
_DENSE_METHODS = ("toarray", "todense")


def why_unsupported(x: Any) -> str | None:
    """Why an argument cannot be converted to an array of numbers, and what to do; None if no reason is found."""
    cls = type(x)
    if cls is np.ndarray and x.dtype.kind in "fc":
        return None
    if is_sparse(cls):
        size = " × ".join(map(str, x.shape))
        return (
            f"is a sparse matrix of {size} ({cls.__name__}), made dense only up to {MAX_SPARSE} rows and columns; pass its "
            "toarray() if that fits in memory, or solve it by a method for large sparse matrices, such as those of pyMOR"
        )
    for method in _DENSE_METHODS:
        if hasattr(cls, method):
            library = cls.__module__.partition(".")[0]
            return f"is sparse ({cls.__name__} of {library}), which is not supported; pass its {method}() if that fits in memory"
    if backends.library_of(x) == "torch":
        other: str | None = backends.load("torch").why_unsupported(x)  # type: ignore[attr-defined]
        if other is not None:
            return other
        if x.is_sparse or x.is_sparse_csr:
            return f"is sparse (layout {x.layout}), which is not supported; pass its to_dense() if that fits in memory"
        return "is a nested tensor; pass its members one by one, or padded" if x.is_nested else None
    if backends.library_of(x) == "jax":
        return None
    if isinstance(x, (list, tuple)):
        entries = list(_entries(x))
        inside = next((lib for lib in map(backends.library_of, entries) if lib in ("torch", "jax")), None)
        inside = inside or adapter_name(entries)
        if inside:
            return f"is a {cls.__name__} of {inside} arrays; stack them into one array"
    try:
        array = np.asarray(x)
    except Exception:  # the caller converts it again and reports the error
        return None
    if array.dtype.kind in "US":
        return f"holds text (dtype {array.dtype}); expected numbers"
    if array.dtype.kind == "O" and array.ndim == 0:
        return f"is {'None' if x is None else f'of type {cls.__name__}'} and no array of numbers"
    if array.dtype.kind == "O":
        first = f" (the first entry is of type {type(array.flat[0]).__name__})" if array.size else ""
        return f"has dtype object{first}; convert it, as by np.asarray(x, dtype=float)"
    return None


def _entries(x: Any) -> Iterator[Any]:
    """The entries of nested lists and tuples."""
    for part in x:
        yield from _entries(part) if isinstance(part, (list, tuple)) else (part,)


def _promote(
    parameters: Parameters, backend: Backend, arrays: list[Array], from_numbers: list[bool]
) -> tuple[list[Array], str]:
    """The arrays in the dtype of the computation, and the dtype of the answer.

    Python numbers do not set its precision, and guesses do not set it at all.
    """
    kinds = {n: backend.dtype_name(x) for n, x in zip(parameters.arrays, arrays, strict=True) if x is not None}
    for name, kind in kinds.items():
        if parameters.real_only and kind.startswith("complex"):
            raise TypeError(
                f"{parameters.name}: {name} has dtype {kind}; expected real numbers: {parameters.real_only}"
            )
    kind = next(iter(kinds.values()))
    if kind in KINDS and all(other == kind for other in kinds.values()):
        return arrays, kind
    for name, kind in kinds.items():
        if kind not in KINDS and kind not in HALVES and not kind.startswith(("int", "uint", "bool")):
            raise TypeError(f"{parameters.name}: {name} has dtype {kind}; expected {', '.join(KINDS)}")
    guesses = {parameters.arrays[k]: kinds.pop(parameters.arrays[k], "") for k in parameters.guesses}
    setting = [(x, number) for n, x, number in zip(parameters.arrays, arrays, from_numbers, strict=True) if n in kinds]
    given, own = [x for x, _ in setting], [x for x, is_number in setting if not is_number]
    kind = backend.common_dtype_name(*(own or given))
    if kind.startswith(("int", "uint", "bool")):
        kind = backend.common_dtype_name(*given)
    if kind.startswith(("int", "uint", "bool")):
        kind = backend.default_float()
    if "complex" not in kind and any(name.startswith("complex") for name in kinds.values()):
        kind = "complex64" if kind == "float32" else "complex128"
    if kind in HALVES and not parameters.halves:
        raise TypeError(f"{parameters.name}: {kind} is too short for this function; convert to float32")
    for name, guess in guesses.items():
        if guess.startswith("complex") and "complex" not in kind:
            raise TypeError(
                f"{parameters.name}: {name} has dtype {guess}, but the matrices are real; it is not a state for them"
            )
    work = "float32" if kind in HALVES else kind
    with backend.full_precision(given[0]):  # a number may be infinite in float32
        return [None if x is None else backend.astype(x, work) for x in arrays], kind


def check_sizes(parameters: Parameters, arrays: list[Array]) -> None:
    """Raise a ValueError that names an array whose shape does not match the signature."""
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    given = [
        (name, letters, x)
        for name, letters, x in zip(parameters.arrays, parameters.shapes, arrays, strict=True)
        if x is not None
    ]
    # A number counts as a 1 × 1 matrix. Sizes are taken from the matrices first.
    for name, letters, x in sorted(given, key=lambda item: bool(item[2].ndim == 0)):
        fits = x.ndim >= len(letters) or (x.ndim == 0 and len(letters) == 2)
        for letter, size in zip(letters, x.shape[x.ndim - len(letters) :] or (1, 1), strict=False):
            fits = fits and sizes.setdefault(letter, size) == size
            source.setdefault(letter, name)
        if not fits:
            sources = [
                f"{v} = {sizes[v]} from {source[v]}" for v in dict.fromkeys(letters) if source.get(v, name) != name
            ]
            wanted = f"(..., {', '.join(letters)})" + _or_vector(parameters, name, letters, x, sizes)
            wanted += " with " + " and ".join(sources) if sources else ""
            raise ValueError(f"{parameters.name}: {name} has shape {tuple(x.shape)}, expected {wanted}")


def _or_vector(parameters: Parameters, name: str, letters: tuple[str, ...], x: Array, sizes: dict[str, int]) -> str:
    """What a vector of another length would have stood for, for an error message."""
    role = parameters.vectors.get(name)
    letter = letters[-1] if role == "row" else letters[0 if len(letters) == 1 else -2]
    if role is None or x.ndim != 1 or sizes.get(letter) == x.shape[0]:
        return ""
    return f" or ({letter},) for a {role}"


def check_hermitian(parameters: Parameters, backend: Backend, arrays: list[Array]) -> None:
    """Raise for NumPy arrays, as SciPy does. In PyTorch and JAX the solver takes the Hermitian part instead, so that
    finite differences may perturb a single entry.
    """
    if backend.name != "numpy":
        return
    for name, x in zip(parameters.arrays, arrays, strict=True):
        if name not in parameters.hermitian or x is None:
            continue
        if backend.all_true(x == x.conj().mT):
            continue
        with backend.full_precision(x):
            gap, size = (np.abs(y).max(axis=(-2, -1), initial=0) for y in (x - x.conj().mT, x))
        # False for members with NaN and infinity, which are reported by the solver.
        wrong = gap > 100 * backend.eps(x) * size
        if wrong.any():
            largest = gap[wrong].max()
            raise ValueError(
                f"{parameters.name}: {name} is not Hermitian; it differs from its adjoint by {largest:.1e}"
            )


def _batch(
    parameters: Parameters, names: tuple[str, ...], arrays: list[Array], leading: list[tuple[int, ...] | None]
) -> tuple[int, ...]:
    shapes = [shape for shape in leading if shape is not None]
    if all(shape == shapes[0] for shape in shapes[1:]):
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        shapes_text = ", ".join(f"{n} {tuple(x.shape)}" for n, x in zip(names, arrays, strict=True) if x is not None)
        raise ValueError(f"{parameters.name}: the leading axes do not broadcast: {shapes_text}") from None
