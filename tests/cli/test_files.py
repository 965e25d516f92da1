"""Matrices survive a round through every format, and a bad file is one line."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from matsign.cli.files import FileError, read, read_all, write

FORMATS = ("npy", "npz", "mat", "mtx", "csv")
REAL = np.array([[1.5, -2.0e-300, 1 / 3], [0.0, 1e17, -7.25]])


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("matrix", [REAL, REAL + 1j * REAL[::-1], REAL[:, :1], REAL[:1], REAL[:1, :1]])
def test_round_trip_keeps_every_bit(tmp_path, ending, matrix):
    target = str(tmp_path / f"x.{ending}")
    write([target], {"x": matrix})
    found = read(target)
    assert found.dtype == matrix.dtype
    assert np.array_equal(found, matrix)


@pytest.mark.parametrize("ending", ["npz", "mat"])
def test_a_name_chooses_among_several(tmp_path, ending):
    target = str(tmp_path / f"x.{ending}")
    write([target], {"u": REAL, "h": 2 * REAL})
    assert np.array_equal(read(f"{target}:h"), 2 * REAL)
    with pytest.raises(FileError, match=r"holds u \(2×3\), h \(2×3\); choose one"):
        read(target)
    with pytest.raises(FileError, match="holds no 'x', but u"):
        read(f"{target}:x")


def test_sparse_and_integer_arrays_and_text(tmp_path):
    path = tmp_path / "x.mat"
    content = {"A": scipy.sparse.csc_matrix(REAL), "C": np.array([[1, 0]], np.uint8), "note": "text"}
    scipy.io.savemat(path, content)
    found = read_all(path)
    assert sorted(found) == ["A", "C"]
    assert np.array_equal(found["A"], REAL)
    scipy.io.mmwrite(tmp_path / "x.mtx", scipy.sparse.coo_matrix(REAL))
    assert np.array_equal(read(str(tmp_path / "x.mtx")), REAL)


def test_csv_as_people_write_it(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\ufeff# a comment\n1+2i, -3\n\n(4-1j),1e-3\n", encoding="utf-8")
    assert np.array_equal(read(str(path)), [[1 + 2j, -3], [4 - 1j, 1e-3]])


@pytest.mark.parametrize("content", [b"", b"hello", b"1,2\n3\n", bytes(range(256))])
@pytest.mark.parametrize("ending", FORMATS)
def test_corrupt_files_are_one_line(tmp_path, ending, content):
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(content)
    with pytest.raises(FileError, match=rf"bad\.{ending} is not a readable") as error:
        read(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", FORMATS[:-1])
def test_truncated_files_are_one_line(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    write([str(path)], {"x": REAL})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileError):
        read(str(path))


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object))
    with pytest.raises(FileError, match="Object arrays"):
        read(str(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("x.txt", "cannot write .txt; known are .npy"),
        ("x", "a name without an ending"),
        ("none/x.npy", "No such file or directory"),
        ("stack.csv", "one matrix fits into .csv"),
        ("stack.mtx", "one matrix fits into .mtx"),
    ],
)
def test_what_cannot_be_written(tmp_path, target, message):
    value = np.zeros((2, 2, 2)) if "stack" in target else REAL
    with pytest.raises(FileError, match=message):
        write([str(tmp_path / target)], {"x": value})


def test_several_results_need_several_files_or_one_with_names(tmp_path):
    with pytest.raises(FileError, match="there are 2 results"):
        write([str(tmp_path / "u.npy")], {"u": REAL, "h": REAL})
    write([str(tmp_path / "u.npy"), str(tmp_path / "h.csv")], {"u": REAL, "h": 2 * REAL})
    assert np.array_equal(read(str(tmp_path / "h.csv")), 2 * REAL)
