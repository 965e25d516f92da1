"""Matrices are the same after a round trip through every format, and a bad file is an error of one line."""

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


def test_structures_and_cells_are_named_and_nothing_is_chosen_over_them(tmp_path):
    """A file with a structure and one number: the number is not chosen."""
    path = str(tmp_path / "x.mat")
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = np.eye(2), 1.0
    scipy.io.savemat(path, {"model": {"A": np.eye(2)}, "n": 3.0, "parts": cell, "note": "text"})
    with pytest.raises(
        FileError, match=r"holds n \(1×1\), model \(a structure\), parts \(objects\), note \(text\); choose"
    ):
        read(path)
    assert read(f"{path}:n") == 3.0
    for name, kind in (("model", "a structure"), ("note", "text")):
        with pytest.raises(FileError, match=f"{name} is {kind}, not a matrix of numbers"):
            read(f"{path}:{name}")


def test_pickles_in_an_archive_hide_behind_nothing(tmp_path):
    path = str(tmp_path / "x.npz")
    np.savez(path, A=REAL, o=np.array([{}], object))
    with pytest.raises(FileError, match=r"o \(objects\).*; choose one"):
        read(path)
    assert np.array_equal(read(f"{path}:A"), REAL)


def test_scipys_sparse_archives(tmp_path):
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_matrix(REAL))
    assert np.array_equal(read(str(tmp_path / "x.npz")), REAL)


def test_a_second_array_in_a_file_is_not_passed_over(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, REAL)
        np.save(file, 2 * REAL)
    with pytest.raises(
        FileError, match=r"x\.npy is not a readable \.npy file: there is more data after the first array"
    ):
        read(str(tmp_path / "x.npy"))


def test_foreign_byte_order_and_whole_doubles_of_matlab(tmp_path):
    np.save(tmp_path / "x.npy", REAL.astype(">f8"))
    found = read(str(tmp_path / "x.npy"))
    assert found.dtype.isnative
    assert np.array_equal(found, REAL)
    scipy.io.savemat(tmp_path / "x.mat", {"z": REAL + 1j})
    assert np.array_equal(read(str(tmp_path / "x.mat")), REAL + 1j)


def test_results_go_to_a_container_in_capital_letters(tmp_path):
    write([str(tmp_path / "x.NPZ")], {"u": REAL, "h": 2 * REAL})
    assert sorted(read_all(tmp_path / "x.NPZ")) == ["h", "u"]


@pytest.mark.parametrize("start", [b"MATLAB 7.3 MAT-file".ljust(512), b""])
def test_the_format_of_matlab_7_3_is_named(tmp_path, start):
    (tmp_path / "x.mat").write_bytes(start + b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(
        FileError, match=r"x\.mat .*MATLAB's format v7\.3 \(HDF5\), which is not read; save it with '-v7'"
    ):
        read(str(tmp_path / "x.mat"))
