"""Matrices from and to .npy, .npz, .mat, .mtx and .csv files. Failures are `FileError`s of one line."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from matsign._typing import NDArray as Array
from matsign.cli import text


class FileError(Exception):
    """A file that cannot be read or written, and why, in one line."""


def read(spec: str) -> Array:
    """The matrix in ``FILE``, or in ``FILE:NAME`` where the file holds several; sparse matrices become dense."""
    path, name = _split_spec(spec)
    matrices, others = _contents(path)
    if name is None and len(matrices) == 1 and not any(map(_may_hold_numbers, others.values())):
        return next(iter(matrices.values()))
    listed = ", ".join([*([_list(matrices)] if matrices else []), *(f"{n} ({kind})" for n, kind in others.items())])
    if name is None:
        raise FileError(f"{path} holds {listed}; choose one with {path}:NAME")
    if name in others:
        raise FileError(f"{path}: {name} is {others[name]}, not a matrix of numbers")
    if name not in matrices:
        raise FileError(f"{path} holds no {name!r}, but {listed}")
    return matrices[name]


def read_all(path: Path) -> dict[str, Array]:
    """Every matrix in a file by name; in a format without names, by the name of the file."""
    return _contents(path)[0]


def _contents(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The matrices of numbers in a file by name, at least one, and descriptions of its other entries."""
    reader = _lookup(path, _READERS, "read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning means that the parser left something out,
            for kind in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):  # except these
                warnings.simplefilter("ignore", kind)
            entries = reader(path)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"{path}: {error.strerror}") from None
        # The five parsers do not document all that they raise for a malformed file.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path} is not a readable {path.suffix} file: {reason}") from None
    matrices = {
        name: _native(x) for name, x in entries.items() if isinstance(x, np.ndarray) and x.dtype.kind in "biufc"
    }
    others = {name: _describe(x) for name, x in entries.items() if name not in matrices}
    if not matrices:
        listed = ", ".join(f"{name} ({kind})" for name, kind in others.items())
        raise FileError(f"{path} holds no matrix of numbers" + (f", but {listed}" if listed else ""))
    return matrices, others


def _native(x: Array) -> Array:
    """x in the byte order of the machine."""
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _describe(x: Any) -> str:
    kind = x.dtype.kind if isinstance(x, np.ndarray) else "O"
    if kind in "US":
        return "text"
    if kind == "V":
        return "a structure"
    return "dates" if kind in "mM" else "objects"


def _may_hold_numbers(kind: str) -> bool:
    return kind != "text"


def write(targets: list[str], values: Mapping[str, Array]) -> None:
    """Write the named matrices to one file that can hold them all, or to one file each."""
    paths = [Path(t) for t in targets]
    writers = [_lookup(path, _WRITERS, "write") for path in paths]
    if len(paths) == 1 and (len(values) == 1 or paths[0].suffix.lower() in _NAMED):
        parts: list[Mapping[str, Array]] = [values]
    elif len(paths) == len(values):
        parts = [{name: value} for name, value in values.items()]
    else:
        named = " or ".join(_NAMED)
        raise FileError(
            f"there are {len(values)} results, {_list(values)}: give {len(values)} times -o, or one {named}"
        )
    for path, writer, part in zip(paths, writers, parts, strict=True):
        try:
            writer(path, part)
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or 'cannot be written'}") from None


def check_target(target: str) -> None:
    """A `FileError` for an output whose name or folder is wrong, before anything is computed."""
    path = Path(target)
    _lookup(path, _WRITERS, "write")
    if not path.parent.is_dir():
        raise FileError(f"{path}: there is no folder {path.parent}")


def _split_spec(spec: str) -> tuple[Path, str | None]:
    """FILE:NAME in its parts, unless a file has that name, as with drive letters."""
    path, colon, name = spec.rpartition(":")
    if colon and not Path(spec).exists() and Path(path).suffix:
        return Path(path), name
    return Path(spec), None


def _lookup(path: Path, table: dict[str, Any], verb: str) -> Callable[..., Any]:
    if path.suffix.lower() not in table:
        raise FileError(
            f"{path}: cannot {verb} {path.suffix or 'a name without an ending'}; known are {', '.join(table)}"
        )
    return table[path.suffix.lower()]


def _list(matrices: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} ({'×'.join(map(str, x.shape)) or 'a number'})" for name, x in matrices.items())


def _read_npy(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        x = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError("it goes on behind the first array; save several arrays as .npz")
    return {path.stem: x}


def _read_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not an archive")
        with np.load(file, allow_pickle=False) as archive:
            if {"format", "shape", "data"} <= set(archive.files):  # as scipy.sparse.save_npz writes
                file.seek(0)
                return {path.stem: scipy.sparse.load_npz(file).toarray()}
            return {name: _member(archive, name) for name in archive.files}


def _member(archive: Any, name: str) -> Any:
    """An array of an archive; None for Python objects, which only unpickling could read."""
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return None


def _read_mat(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = scipy.io.loadmat(file, spmatrix=False)
        file.seek(0)
        double = {name for name, _, kind in scipy.io.whosmat(file) if kind == "double"}
    arrays = {}
    for name, x in content.items():
        if not name.startswith("__"):
            x = x.toarray() if scipy.sparse.issparse(x) else x
            # MATLAB stores whole doubles as small integers to save space.
            arrays[name] = x.astype(float) if name in double and x.dtype.kind in "iu" else x
    return arrays


def _read_mtx(path: Path) -> dict[str, Any]:
    # Read as text first: bytes that are not text make SciPy's parser abort the process.
    content = path.read_text(encoding="utf-8")
    text.check_matrix_market(content)
    x = scipy.io.mmread(io.BytesIO(content.encode()))
    return {path.stem: x.toarray() if scipy.sparse.issparse(x) else x}


def _read_csv(path: Path) -> dict[str, Any]:
    """Rows of numbers as `text.matrix` reads them."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8 ({error.reason} at byte {error.start})") from None
    return {path.stem: text.matrix(content)}


def _write_npy(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.save(file, next(iter(values.values())), allow_pickle=False)


def _write_npz(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez(file, **dict[str, Any](values))


def _write_mat(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        scipy.io.savemat(file, dict(values), oned_as="column")


def _write_mtx(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        scipy.io.mmwrite(file, _matrix(path, values), precision=17, symmetry="general")


def _write_csv(path: Path, values: Mapping[str, Array]) -> None:
    rows = (",".join(str(x) for x in row).replace("(", "").replace(")", "") for row in _matrix(path, values).tolist())
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _matrix(path: Path, values: Mapping[str, Array]) -> Array:
    (value,) = values.values()
    if value.ndim == 1:  # poles and the like: a column, as in .mat
        value = value[:, None]
    if value.ndim != 2:
        raise FileError(f"{path}: one matrix fits into {path.suffix}, not a stack {value.shape}; use .npy")
    return value


_NAMED = (".npz", ".mat")
_READERS = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat, ".mtx": _read_mtx, ".csv": _read_csv}
_WRITERS = {".npy": _write_npy, ".npz": _write_npz, ".mat": _write_mat, ".mtx": _write_mtx, ".csv": _write_csv}
