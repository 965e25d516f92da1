"""Matrices from and to .npy, .npz, .mat, .mtx and .csv files, or the standard input and output, which are called ``-``.

Failures are `FileError`s of one line.
"""

from __future__ import annotations

import difflib
import io
import itertools
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

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
    reader: Reader
    if is_standard(str(path)):
        file, reader = _standard_input(path)
        path = Path("standard input" + path.suffix)
    else:
        file, reader = None, _lookup(path, _READERS, "read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning means that the parser left something out,
            for kind in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):  # except these
                warnings.simplefilter("ignore", kind)
            if file is not None:
                entries = reader(file, "input")
            else:
                with path.open("rb") as file:
                    entries = reader(file, path.stem)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"{path}: {error.strerror}{nearest(path)}") from None
        # The five parsers do not document all that they raise for a malformed file.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path} is not a readable {path.suffix or '.csv'} file: {reason}") from None
    matrices = {
        name: _native(x) for name, x in entries.items() if isinstance(x, np.ndarray) and x.dtype.kind in "biufc"
    }
    others = {name: _describe(x) for name, x in entries.items() if name not in matrices}
    if not matrices:
        listed = ", ".join(f"{name} ({kind})" for name, kind in others.items())
        raise FileError(f"{path} holds no matrix of numbers" + (f", but {listed}" if listed else ""))
    return matrices, others


def is_standard(spec: str) -> bool:
    """Whether a name stands for the standard input or output: ``-``, ``-:NAME``, or with an ending ``-.npy``."""
    path = _split_spec(spec)[0]
    return str(path) == "-" or (path.stem == "-" and path.parent == Path() and path.suffix.lower() in _READERS)


def _standard_input(path: Path) -> tuple[BinaryIO, Reader]:
    """The bytes of the standard input, and the reader for the format that they begin with."""
    content = sys.stdin.buffer.read()
    begins = (suffix for suffix, magic in _MAGIC.items() if content.startswith(magic))
    return io.BytesIO(content), _READERS[path.suffix.lower() or next(begins, ".csv")]


def nearest(path: Path) -> str:
    """A question for the file of the nearest name, if there is one."""
    if path.exists():
        return ""
    try:
        names = [entry.name for entry in itertools.islice(os.scandir(path.parent), _MOST_NAMES)]
    except OSError:
        return ""
    close = [x for x in names if Path(x).stem == path.name] or difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


_MOST_NAMES = 5000  # of a larger folder, the first ones are compared


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
    writers = [_writer(path) for path in paths]
    if len(paths) == 1 and (len(values) == 1 or paths[0].suffix.lower() in _NAMED):
        parts: list[Mapping[str, Array]] = [values]
    elif len(paths) == len(values):
        parts = [{name: value} for name, value in values.items()]
    else:
        named = " or ".join(_NAMED)
        raise FileError(
            f"there are {len(values)} results, {_list(values)}: give {len(values)} times -o, or one {named}"
        )
    if sum(map(is_standard, targets)) > 1:
        raise FileError("only one result can go to the standard output; several fit into -.npz or -.mat")
    for path, writer, part in zip(paths, writers, parts, strict=True):
        content = dict(part) if writer in (_write_npy, _write_npz, _write_mat) else {path.stem: _matrix(path, part)}
        try:
            if is_standard(str(path)):
                buffer = io.BytesIO()
                writer(buffer, content)
                sys.stdout.buffer.write(buffer.getvalue())
                sys.stdout.flush()
            else:
                with path.open("wb") as file:
                    writer(file, content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or 'cannot be written'}") from None


def check_target(target: str) -> None:
    """A `FileError` for an output whose name or folder is wrong, before anything is computed."""
    path = Path(target)
    _writer(path)
    if not path.parent.is_dir():
        raise FileError(f"{path}: there is no folder {path.parent}")


def _split_spec(spec: str) -> tuple[Path, str | None]:
    """FILE:NAME in its parts, unless a file has that name, as with drive letters."""
    path, colon, name = spec.rpartition(":")
    if colon and not Path(spec).exists() and (Path(path).suffix or path == "-"):
        return Path(path), name
    return Path(spec), None


def _writer(path: Path) -> Writer:
    return _write_csv if str(path) == "-" else _lookup(path, _WRITERS, "write")


def _lookup(path: Path, table: dict[str, Any], verb: str) -> Callable[..., Any]:
    if path.suffix.lower() not in table:
        close = nearest(path) if verb == "read" else ""
        raise FileError(
            f"{path}: cannot {verb} {path.suffix or 'a name without an ending'}; known are {', '.join(table)}{close}"
        )
    return table[path.suffix.lower()]


def _list(matrices: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} ({'×'.join(map(str, x.shape)) or 'a number'})" for name, x in matrices.items())


def _read_npy(file: BinaryIO, stem: str) -> dict[str, Any]:
    x = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("there is more data after the first array; save several arrays as .npz")
    return {stem: x}


def _read_npz(file: BinaryIO, stem: str) -> dict[str, Any]:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not an archive")
    with np.load(file, allow_pickle=False) as archive:
        if {"format", "shape", "data"} <= set(archive.files):  # as scipy.sparse.save_npz writes
            file.seek(0)
            return {stem: scipy.sparse.load_npz(file).toarray()}
        return {name: _member(archive, name) for name in archive.files}


def _member(archive: Any, name: str) -> Any:
    """An array of an archive; None for Python objects, which only unpickling could read."""
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return None


def _read_mat(file: BinaryIO, stem: str) -> dict[str, Any]:
    _refuse_hdf5(file)
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


def _refuse_hdf5(file: BinaryIO) -> None:
    """A ValueError for the format of MATLAB's ``-v7.3``, HDF5, with or without MATLAB's block of 512 bytes before it."""
    start = file.read(520)
    file.seek(0)
    if start.startswith((_HDF5, b"MATLAB 7.3")) or start[512:] == _HDF5:
        raise ValueError("it is in MATLAB's format v7.3 (HDF5), which is not read; save it with '-v7' in MATLAB")


def _read_mtx(file: BinaryIO, stem: str) -> dict[str, Any]:
    # Read as text first: bytes that are not text make SciPy's parser abort the process.
    content = file.read().decode("utf-8")
    text.check_matrix_market(content)
    x = scipy.io.mmread(io.BytesIO(content.encode()))
    return {stem: x.toarray() if scipy.sparse.issparse(x) else x}


def _read_csv(file: BinaryIO, stem: str) -> dict[str, Any]:
    """Rows of numbers as `text.matrix` reads them."""
    try:
        content = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8 ({error.reason} at byte {error.start})") from None
    return {stem: text.matrix(content)}


def _write_npy(file: BinaryIO, values: Mapping[str, Array]) -> None:
    np.save(file, next(iter(values.values())), allow_pickle=False)


def _write_npz(file: BinaryIO, values: Mapping[str, Array]) -> None:
    np.savez(file, **dict[str, Any](values))


def _write_mat(file: BinaryIO, values: Mapping[str, Array]) -> None:
    scipy.io.savemat(file, dict(values), oned_as="column")


def _write_mtx(file: BinaryIO, values: Mapping[str, Array]) -> None:
    scipy.io.mmwrite(file, next(iter(values.values())), precision=17, symmetry="general")


def _write_csv(file: BinaryIO, values: Mapping[str, Array]) -> None:
    for row in next(iter(values.values())).tolist():
        line = ",".join(str(x) for x in row).replace("(", "").replace(")", "")
        file.write(f"{line}\n".encode())


def _matrix(path: Path, values: Mapping[str, Array]) -> Array:
    (value,) = values.values()
    if value.ndim < 2:  # poles and the like: a column, as in .mat; a norm
        value = value.reshape((-1, 1))
    if value.ndim != 2:
        raise FileError(
            f"{path}: one matrix fits into {path.suffix or '.csv'}, not a stack {value.shape}; use {_as_npy(path)}"
        )
    return value


def _as_npy(path: Path) -> str:
    return "-.npy" if is_standard(str(path)) else ".npy"


Reader = Callable[[BinaryIO, str], dict[str, Any]]
Writer = Callable[[BinaryIO, Mapping[str, Array]], None]

_NAMED = (".npz", ".mat")
_HDF5 = b"\x89HDF\r\n\x1a\n"
# How the content of a file begins, by its format; .csv is what begins with none of these.
_MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK", ".mat": b"MATLAB", ".mtx": b"%%MatrixMarket"}
_READERS = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat, ".mtx": _read_mtx, ".csv": _read_csv}
_WRITERS = {".npy": _write_npy, ".npz": _write_npz, ".mat": _write_mat, ".mtx": _write_mtx, ".csv": _write_csv}
