"""Numbers as multiples of I, negative numbers, the standard input and output, JSON, exit codes, short printing, completion."""

import io
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import matsign
from matsign.cli.app import app
from matsign.cli.files import read

A = np.array([[0.0, 1.0, 0.0], [0.5, -1.0, 2.0], [0.0, 0.25, -3.0]])
B = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in a folder with A and B."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", A)
    np.save("b.npy", B)

    def call(*arguments, stdin=None):
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)

    return call


def result_of(run, *arguments, **options):
    """The results of a command, by its JSON."""
    done = run(*arguments, "--json", **options)
    assert done.exit_code == 0, done.output
    return {name: np.array(x["values"]) for name, x in json.loads(done.stdout)["results"].items()}


def test_a_number_is_a_multiple_of_the_identity(run):
    np.testing.assert_array_equal(
        result_of(run, "lqr", "a.npy", "b.npy", 2, 0.1)["gain"], matsign.lqr(A, B, 2 * np.eye(3), 0.1 * np.eye(2)).gain
    )
    np.testing.assert_array_equal(
        result_of(run, "solve-continuous-are", "a.npy", 1, 1, 3, "--e", "-2")["solve_continuous_are"],
        matsign.solve_continuous_are(A, np.eye(3), np.eye(3), 3 * np.eye(3), -2 * np.eye(3)),
    )
    x = result_of(run, "solve_sylvester", "a.npy", "7.5", "b.npy")["solve_sylvester"]
    np.testing.assert_allclose(A @ x + 7.5 * x, B, atol=1e-14)
    assert result_of(run, "solve_sylvester", 2, 2, 1)["solve_sylvester"] == [[0.25]]
    refused = run("solve_sylvester", "a.npy", np.save("c.npy", np.eye(2)) or "c.npy", 1)
    assert refused.exit_code == 1
    assert "q is a matrix of 3×2 here: a number stands for a multiple of the identity" in refused.stderr


def test_a_number_does_not_widen_single_precision(run):
    np.save("s.npy", A.astype("float32"))
    for number, dtype in (("7", "float32"), ("7+1j", "complex64")):
        assert run("solve_sylvester", "s.npy", number, "1", "-o", "x.npy").exit_code == 0
        assert read("x.npy").dtype == dtype
    refused = run("solve_sylvester", "s.npy", "1e300", "1")
    assert refused.exit_code == 1
    assert "infinity" in refused.stderr


@pytest.mark.parametrize("word", ["-2", "-.5", "-1e-3", "-2+1j", "-3i"])
def test_negative_numbers_are_arguments(run, word):
    done = run("mcsgn", word)
    on_the_axis = word == "-3i"
    assert done.exit_code == (1 if on_the_axis else 0)
    assert "imaginary axis" in done.stderr if on_the_axis else "[[-1." in done.stdout


def test_standard_input_and_output(run):
    packed, container = io.BytesIO(), io.BytesIO()
    np.save(packed, A)
    np.savez(container, x=A, y=B)
    text = "\n".join(",".join(map(repr, row)) for row in A.tolist())
    for given, name in ((packed.getvalue(), "-"), (text, "-"), (text, "-.csv"), (container.getvalue(), "-:x")):
        np.testing.assert_array_equal(result_of(run, "mcsgn", name, stdin=given)["mcsgn"], matsign.mcsgn(A))
    done = run("mcsgn", "a.npy", "-o", "-")
    rows = [[float(x) for x in line.split(",")] for line in done.stdout.splitlines()]
    np.testing.assert_array_equal(rows, matsign.mcsgn(A))
    assert done.stderr.startswith("backward error")
    done = run("polar", "-", "-o", "-.npz", stdin=packed.getvalue())
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout_bytes))["h"], matsign.polar(A).h)


STREAM_MISTAKES = {
    "two from the input": (["solve_sylvester", "-", "-", "1"], "only one argument can be read from the standard input"),
    "a matrix and a threshold": (
        ["mclip", "-", "--upper", "-"],
        "only one argument can be read from the standard input",
    ),
    "nothing": (["mcsgn", "-"], "standard input is not a readable .csv file: it is empty"),
    "two to the output": (["polar", "a.npy", "-o", "-", "-o", "-"], "only one result can go to the standard output"),
    "two results as text": (["polar", "a.npy", "-o", "-"], "there are 2 results"),
    "both": (["mcsgn", "a.npy", "-o", "-", "--json"], "both need the standard output"),
    "nearest file": (["mcsgn", "aa.npy"], "No such file or directory; did you mean a.npy?"),
    "no ending": (
        ["mcsgn", "a"],
        "cannot read a name without an ending; known are .npy, .npz, .mat, .mtx, .csv; did you mean a.npy?",
    ),
    "nearest command": (["mcsng", "a.npy"], "Did you mean 'mcsgn'"),
    "command of SciPy": (["signm", "a.npy"], "No such command 'signm'. Did you mean 'mcsgn'?"),
    "nearest option": (["mcsgn", "a.npy", "--methd", "newton"], "--method"),
    "nearest model for plan": (
        ["plan", "Muon", "--model", "b.nyp"],
        "b.nyp: No such file or directory; did you mean b.npy?",
    ),
    "nearest name for plan": (["plan", "solve_sylvestr"], "did you mean solve_sylvester?"),
}


@pytest.mark.parametrize("case", STREAM_MISTAKES)
def test_mistakes_are_one_line(run, case):
    words, message = STREAM_MISTAKES[case]
    done = run(*words, stdin="")
    assert done.exit_code == (2 if case in ("nearest command", "nearest option", "command of SciPy") else 1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_result_with_nan_has_an_exit_code_of_its_own(run):
    np.save("m.npy", np.stack([np.array([[0.0, 1.0], [-1.0, 0.0]]), np.eye(2)]))
    for words in (["-o", "x.npy"], [], ["--json"]):
        done = run("mcsgn", "m.npy", "--errors", "nan", *words)
        assert done.exit_code == 3
        assert "the result has NaN: 1 of 2 matrices have no answer" in done.stderr
    content = json.loads(done.stdout)
    assert content["results"]["mcsgn"]["values"][0] == [[None, None], [None, None]]
    assert content["certificate"]["converged"] == [False, True]
    assert np.isnan(read("x.npy")[0]).all()


def test_json_is_strict_and_names_files_instead_of_entries(run):
    done = run("lqr", "a.npy", "b.npy", 1, 1, "--json")
    content = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert content["results"]["poles"]["dtype"] == "complex128"
    assert np.shape(content["results"]["poles"]["values"]) == (3, 2)
    assert content["certificate"]["backward_error"] < 1e-14
    content = json.loads(run("lqr", "a.npy", "b.npy", 1, 1, "--json", "-o", "k.npz").stdout)
    assert content["files"] == ["k.npz"]
    assert content["results"]["gain"] == {"shape": [2, 3], "dtype": "float64"}


def test_large_results_are_shortened_and_small_numbers_are_not_zero(run):
    for shape in ((40, 40), (6, 40, 40), (5, 5, 20, 20)):
        np.save("m.npy", np.random.default_rng(0).standard_normal(shape))
        shown = run("msign", "m.npy").stdout
        assert len(shown.splitlines()) < 30
        assert "-o FILE writes all" in shown
    np.save("m.npy", 1e-12 * np.eye(2))
    assert "1.00000e-06" in run("sqrtm", "m.npy").stdout
    np.save("m.npy", np.eye(2) + 1e-12)
    assert "e" not in run("sqrtm", "m.npy").stdout.splitlines()[1]


def test_the_shell_completes_commands_and_methods(run, monkeypatch, capsys):
    monkeypatch.setenv("_MATSIGN_COMPLETE", "complete_bash")
    for words, expected in (
        ("matsign mcs", ["mcsgn"]),
        ("matsign mcsgn --meth", ["--method"]),
        ("matsign mcsgn --method n", ["newton"]),
        ("matsign tour --backend t", ["torch"]),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        with pytest.raises(SystemExit) as end:
            app(prog_name="matsign")
        assert end.value.code == 0
        assert capsys.readouterr().out.split() == expected
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "matsign mcsgn --")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_MATSIGN_COMPLETE", "complete_fish")
    with pytest.raises(SystemExit):
        app(prog_name="matsign")
    words = [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert "--method" in words
    assert all(word.startswith("--") for word in words), "fish reads every line as a word"
    monkeypatch.delenv("_MATSIGN_COMPLETE")
    assert "--install-completion" in run("--help").stdout


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["matsign", "mcsgn", "-2"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("matsign", run_name="__main__")
    assert end.value.code == 0
    assert "[[-1.]]" in capsys.readouterr().out


def test_the_examples_of_the_documentation_run(run):
    """Those of the page that call functions; what stands below an example is the beginning of its output."""
    text = (Path(__file__).parents[2] / "docs/reference/command_line.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(script, {})
    lines, count = text.splitlines(), 0
    for k, line in enumerate(lines):
        if not line.startswith("    $ ") or line.endswith("doctor"):
            continue
        stages = [part.split(";")[0].split() for part in line.removeprefix("    $ ").split("|")]
        content = Path(stages.pop(0)[1]).read_bytes() if stages[0][0] == "cat" else b""
        for words in stages:
            done = run(*words[1:], stdin=content)
            assert done.exit_code == (3 if "nan" in words else 0), (line, done.output)
            content = done.stdout_bytes
        if lines[k + 1].startswith("    {"):
            assert done.stdout.startswith(lines[k + 1].strip().removesuffix("..."))
        if "nan" in words:
            assert [done.stdout.strip(), done.stderr.strip()] == [x.strip() for x in lines[k + 1 : k + 3]]
        count += 1
    assert count == 8
