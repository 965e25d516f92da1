"""Numbers as people and programs write them: read correctly, or refused with the line and the text."""

import numpy as np
import pytest

from matsign.cli.files import FileError, read
from matsign.cli.text import number

A = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "text",
    [
        "1 2\n3 4", "  1   2  \n 3 4\n", "1,2\n3,4", "1;2\n3;4", "1\t2\n3\t4", "1, 2\r\n3, 4\r\n", "1,2\r3,4\r",
        "# c\n\n1,2\n\n3,4\n\n", "1,2 # first\n3,4", '"1","2"\n"3","4"', "+1,2.\n.3e1,40E-1", "1\t2 \n 3 \t4",
        "\ufeff1,2\n3,4",
    ],
)  # fmt: skip
def test_separators_comments_and_quotes(tmp_path, text):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8", newline="")
    assert read(str(tmp_path / "x.csv")).tolist() == A


@pytest.mark.parametrize("delimiter", [" ", ",", ";", "\t", ", "])
@pytest.mark.parametrize("fmt", ["%d", "%.18e", "%g", "%8.3f"])
def test_what_savetxt_writes(tmp_path, delimiter, fmt):
    x = np.array([[12.0, -3.0, 0.0], [1.0, 2.0, 40.0]])
    np.savetxt(tmp_path / "x.csv", x, fmt=fmt, delimiter=delimiter, header="a b c")
    assert np.array_equal(read(str(tmp_path / "x.csv")), x)


@pytest.mark.parametrize("delimiter", [" ", ","])
def test_complex_numbers_of_savetxt(tmp_path, delimiter):
    x = np.array([[1 + 2j, -3.5j], [1e-30 - 1j, 4.0]])
    np.savetxt(tmp_path / "x.csv", x, delimiter=delimiter)
    assert np.array_equal(read(str(tmp_path / "x.csv")), x)


@pytest.mark.parametrize(
    ("text", "line", "shown", "reason"),
    [
        ("1,2\n3,4_0", 2, "4_0", "not a number"),
        ("0x10,1", 1, "0x10", "not a number"),
        ("1,2\n\n3,\uff14", 3, "\uff14", "not a number"),  # a full-width 4
        ("1,\u22122", 1, "\u22122", "not a number"),  # U+2212, not a hyphen-minus
        ("1\u00a0000,2", 1, "000", "not a number"),  # a no-break space
        ("x,y\n1,2", 1, "x", "a heading begins with #"),
        ("i,j\n1,2", 1, "i", "a heading begins with #"),
        ("1,True", 1, "True", "not a number"),
        ("(5),1", 1, "(5)", "not a number"),
        ("1d5,1", 1, "1d5", "not a number"),
        ("1e400,1", 1, "1e400", "too large"),
        ("1,2\n-1e-400,1", 2, "-1e-400", "too small"),
        ("1,,2", 1, "1,,2", "cell 2 of 3 is empty"),
        ("1,2,\n3,4,", 1, "1,2,", "cell 3 of 3 is empty"),
        ("1\t\t2", 1, "1", "cell 2 of 3 is empty"),
        ("1 2\n3", 2, "3", "differs in length"),
        ("1,2\n3,4,5", 2, "3,4,5", "differs in length"),
        ("1 2, 3 4", 1, "1 2", "the file has commas as separators"),
        ("1,5 2,5\n3,5 4,5", 1, "5 2", "the file has commas as separators"),
        ("1,5;2,5\n3;4", 1, "1,5;2,5", "both commas and semicolons"),
        ("1,5\t2,5", 1, "5", "the file has commas as separators"),
        ('"1,5","2,5"', 1, '"1', "not a number"),
        ("1 000\n2 000", 1, "1 000", "digits in groups"),
        ("1 +2i\n3 4", 1, "1 +2i", "one complex number or two"),
        ("[1 2; 3 4]", 1, "[1 2", "not a number"),
        ("1,2\x0c3,4", 1, "2", "not a number"),
    ],
)
def test_refusals_name_file_line_and_text(tmp_path, text, line, shown, reason):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(FileError) as error:
        read(str(tmp_path / "x.csv"))
    message = str(error.value)
    assert "\n" not in message
    for part in ("x.csv", f": line {line}: ", repr(shown)[1:-1], reason):
        assert part in message


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "x.csv").write_text("1,2", encoding="utf-16")
    with pytest.raises(FileError, match=r"x\.csv .* not text in UTF-8"):
        read(str(tmp_path / "x.csv"))


@pytest.mark.parametrize("seed", range(20))
def test_numbers_survive_every_way_of_writing_them(seed):
    rng = np.random.default_rng(seed)
    for x in rng.standard_normal(20) * 10.0 ** rng.uniform(-300, 300, 20):
        for text in (repr(float(x)), f"{x:.17g}", f"{x:+.17e}", f"{x:.20E}"):
            assert number(text) == x
        z = complex(x, rng.standard_normal())
        for text in (str(z), str(z).strip("()"), str(z).replace("j", "i")):
            assert number(text) == z


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("array real general\n2 2\n1\n2\n3\n4x", "line 6: '4x' is not a number"),
        ("array real general\n2 2\n1 9\n2\n3\n4", "line 3: '1 9' holds 2 numbers where 1 belong"),
        ("array real general\n2 2\n1,5\n2\n3\n4", "line 3: '1,5' is not a number"),
        ("array real general\n2 2\n1\n2\n3\n1e400", "line 6: '1e400' is too large"),
        ("coordinate real general\n% c\n2 2 1\n1 1 1.5 7", "line 4: '1 1 1.5 7' holds 4 numbers where 3 belong"),
        ("coordinate integer general\n2 2 1\n1 1 1.5", "line 3: '1.5' is not a whole number"),
        ("array complex general\n1 1\n(1,2)", "line 3: '(1,2)' holds 1 numbers where 2 belong"),
    ],
)
def test_matrix_market_lines_hold_what_their_header_says(tmp_path, lines, message):
    (tmp_path / "x.mtx").write_text("%%MatrixMarket matrix " + lines + "\n")
    with pytest.raises(FileError) as error:
        read(str(tmp_path / "x.mtx"))
    assert message in str(error.value)
