"""Matrices from and to .npy, .npz, .mat, .mtx and .csv files. What cannot be read or written is a `FileError` of one line."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

Array = np.ndarray[Any, Any]


class FileError(Exception):
    """A file that cannot be read or written, and why, in one line."""


def read(spec: str) -> Array:
    """The matrix in ``FILE``, or in ``FILE:NAME`` where the file holds several; sparse matrices become dense."""
    path, name = _split(spec)
    found = read_all(path)
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None:
        raise FileError(f"{path} holds {_list(found)}; choose one with {path}:NAME")
    if name not in found:
        raise FileError(f"{path} holds no {name!r}, but {_list(found)}")
    return found[name]


def read_all(path: Path) -> dict[str, Array]:
    """Every matrix in a file by name; a format without names calls it by the file's."""
    reader = _lookup(path, _READERS, "read")
    try:
        found = reader(path)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise FileError(f"{path}: {error.strerror}") from None
        # Five parsers, and no list of what they raise for a file that is not what its name says.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path} is not a readable {path.suffix} file: {reason}") from None
    found = {name: x for name, x in found.items() if x.dtype.kind in "biufc"}
    if not found:
        raise FileError(f"{path} holds no matrix of numbers")
    return found


def write(targets: list[str], values: Mapping[str, Array]) -> None:
    """The named matrices to one file that can hold them all, or to one file each."""
    paths = [Path(t) for t in targets]
    writers = [_lookup(path, _WRITERS, "write") for path in paths]
    if len(paths) == 1 and (len(values) == 1 or paths[0].suffix in _NAMED):
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
    """Complain about an output whose name or folder is wrong, before anything is computed."""
    path = Path(target)
    _lookup(path, _WRITERS, "write")
    if not path.parent.is_dir():
        raise FileError(f"{path}: there is no folder {path.parent}")


def _split(spec: str) -> tuple[Path, str | None]:
    """FILE:NAME in its parts, unless a file is called that, as drive letters make it likely."""
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


def _list(found: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} ({'×'.join(map(str, x.shape)) or 'a number'})" for name, x in found.items())


def _dense(x: Any) -> Array:
    return x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)


def _read_npy(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        return {path.stem: np.lib.format.read_array(file, allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not an archive")
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)


def _read_mat(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        content = scipy.io.loadmat(file)
    return {name: _dense(x) for name, x in content.items() if not name.startswith("__")}


def _read_mtx(path: Path) -> dict[str, Array]:
    # Read as text first: bytes that are none make SciPy's parser abort the process.
    text = path.read_text(encoding="utf-8")
    return {path.stem: _dense(scipy.io.mmread(io.BytesIO(text.encode())))}


def _read_csv(path: Path) -> dict[str, Array]:
    """Numbers with commas between them; lines that begin with # are comments, 1+2j and 1+2i are complex."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    rows = [[_number(cell) for cell in line.split(",")] for line in lines if line and not line.startswith("#")]
    if not rows:
        raise ValueError("it is empty")
    if len({len(row) for row in rows}) > 1:
        raise ValueError("its rows differ in length")
    matrix = np.array(rows)
    return {path.stem: matrix if np.iscomplexobj(matrix) else matrix.astype(float)}


def _number(cell: str) -> float | complex:
    text = cell.strip().strip("()")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return complex(text.replace(" ", "").replace("i", "j"))
    except ValueError:
        raise ValueError(f"{cell.strip()!r} is not a number") from None


def _write_npy(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.save(file, next(iter(values.values())), allow_pickle=False)


def _write_npz(path: Path, values: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **values)


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
