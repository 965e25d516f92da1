"""`make bench` with cases that take no time: what it stores, continues, refuses and shows."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
ROW = dict.fromkeys(("key", "group", "name", "size", "peer", "call"), "x") | {"seconds": 1.0, "failure": "none"}
MACHINE = {name: {} for name in ("versions", "blas", "threads", "settings")}
WRONG_TYPE = json.dumps(
    {
        "format": "matsign bench 1",
        "about": "",
        "date": "",
        "machine": MACHINE,
        "left_out": [],
        "rows": [ROW | {"seconds": "long"}],
    }
)


@pytest.fixture(scope="module", autouse=True)
def bench():
    """The package; its folder is on the path only here."""
    sys.path.insert(0, str(FOLDER))
    import bench.__main__
    import bench.run

    yield bench
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name == "arguments" or name.partition(".")[0] == "bench"]:
        del sys.modules[name]


@pytest.fixture
def calls():
    """The names of the cases, in the order in which their answers were computed."""
    return []


@pytest.fixture
def run(bench, tmp_path, monkeypatch, calls):
    """Runs the command with five cases in the group "signs" instead of all; `call.figures()` reads what it wrote."""
    from bench.case import Case, agree
    from bench.peers import SCIPY, Peer

    def case(name, ours=1.0, peer=SCIPY):
        def compute(x):
            calls.append(name)
            if isinstance(ours, Exception):
                raise ours
            return ours * x

        return Case(name, peer, "copy", lambda rng, n: (np.eye(n),), compute, np.copy, {"quick": ((3,),)}, agree(1e-8))

    cases = {
        "signs": [
            case("one"),
            case("wrong", 1.0 + 1e-6),
            case("without a number", np.nan),
            case("<failing>", ValueError("no & answer")),
            case("two"),
            case("absent", peer=Peer("NoLib", ("no_such_package",))),
        ]
    }
    monkeypatch.setattr(bench.run, "cases_of", lambda group: cases.get(group, []))
    monkeypatch.setattr(bench.run, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", ""))
    (tmp_path / "results").mkdir()
    out = tmp_path / "figures.json"

    def call(*words):
        calls.clear()
        return bench.__main__.main(["--quick", "--seconds", "0.001", "--out", str(out), *words])

    call.cases, call.out, call.figures = cases["signs"], out, lambda: json.loads(out.read_text())
    return call


def rows(run):
    return {row["name"]: row for row in run.figures()["rows"]}


def test_figures_and_page(run, capsys):
    assert run("--about", "my <machine>") == 1  # three cases have no times
    figures, found = run.figures(), rows(run)
    assert list(found) == ["one", "wrong", "without a number", "<failing>", "two"]
    assert figures["about"] == "my <machine>"
    assert figures["left_out"] == [{"group": "signs", "peer": "NoLib", "packages": ["no_such_package"], "count": 1}]
    assert {"processor", "versions", "threads", "source"} <= set(figures["machine"])
    lower, middle, upper = found["one"]["ratio"]
    assert 0 < lower <= middle <= upper
    assert found["one"]["rounds"] >= 3
    page = run.out.with_suffix(".html").read_text()
    assert "NoLib is not installed (no_such_package): 1 measurement left out" in page
    assert "my &lt;machine&gt;" in page
    assert "&lt;failing&gt;" in page
    assert "figures.json" in capsys.readouterr().out


def test_no_times_without_the_right_answer(run):
    run()
    found = rows(run)
    assert "disagree" in found["wrong"]["failure"]
    assert "disagree" in found["without a number"]["failure"]
    assert found["<failing>"]["failure"] == "ValueError: no & answer"
    for name in ("wrong", "without a number", "<failing>"):
        assert not {"ours", "theirs", "ratio"} & set(found[name])


def test_a_later_run_measures_what_is_missing(run, calls):
    run()
    assert calls.count("one") > 3
    first = rows(run)["one"]
    assert run("--resume") == 1
    assert {"one", "two"}.isdisjoint(calls)  # those that failed are tried again
    assert rows(run)["one"] == first
    run("--seconds", "0.002")
    assert "one" in calls  # the earlier measurement was shorter
    run("--fresh")
    assert "one" in calls
    assert json.loads(run.out.with_name("figures.json.old").read_text())["rows"]


def test_what_other_programs_disturbed_is_measured_again(run, calls):
    run.cases[:] = [run.cases[0], run.cases[4]]
    run()
    content = run.figures()
    for row, load in zip(content["rows"], (0.5, 0.1), strict=True):
        row["other_load"] = load
    run.out.write_text(json.dumps(content))
    run()
    assert not calls
    run("--disturbed")
    assert set(calls) == {"one"}


def test_a_stopped_run_continues(run, calls, capsys):
    def stop(x):
        raise KeyboardInterrupt

    good = run.cases[1]
    run.cases[1] = type(good)(**{**vars(good), "ours": stop})
    assert run() == 130
    assert "stopped after 1 of 5; the same command continues" in capsys.readouterr().out
    assert list(rows(run)) == ["one"]
    assert run.out.with_suffix(".html").exists()
    run.cases[1] = good
    run()
    assert "one" not in calls
    assert len(rows(run)) == 5


def test_a_killed_run_leaves_a_whole_file(bench, tmp_path):
    """A process is killed by a write of a row, with half of the file written."""
    program = (
        "import os, sys; from pathlib import Path; from bench.store import Figures\n"
        f"figures, row = Figures(Path(sys.argv[1]), {MACHINE}, '', []), {ROW}\n"
        "figures.add(row | {'key': 'a'})\n"
        "os.fsync = lambda file: os.kill(os.getpid(), 9)\n"
        "figures.add(row | {'key': 'b'})\n"
    )
    path = tmp_path / "figures.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=False)
    assert done.returncode == -9
    from bench.store import read

    assert list(read(path).rows) == ["a"]


@pytest.mark.parametrize("entry", ["processor", "versions", "threads", "source"])
def test_figures_made_otherwise_are_refused(run, calls, capsys, entry):
    run.cases[:] = run.cases[:1]
    run()
    content = run.figures()
    value = content["machine"][entry]
    content["machine"][entry] = value | {"numpy": "another"} if isinstance(value, dict) else "another"
    text = json.dumps(content)
    run.out.write_text(text)
    assert run() == 2
    error = capsys.readouterr().err
    assert re.search(f"{entry}( numpy)?: another in the file", error)
    assert error.count("\n") == 1
    assert not calls
    assert run.out.read_text() == text


@pytest.mark.parametrize(
    "text", ["", '{"format": "matsign bench 1", "rows": [', "[1, 2]", '{"format": "matsign bench 1"}', WRONG_TYPE]
)
def test_a_damaged_file_is_refused_and_kept(run, capsys, text):
    run.out.write_text(text)
    assert run() == 2
    assert "--fresh" in capsys.readouterr().err
    assert run.out.read_text() == text


def test_two_runs_at_once_are_refused(bench, run, capsys):
    from bench.store import only_run

    pytest.importorskip("fcntl")
    with only_run(run.out):
        assert run() == 2
    assert "another run writes" in capsys.readouterr().err


def test_other_machines_stand_beside(run, tmp_path, capsys):
    run.cases[:] = run.cases[:1]
    run()
    other = run.figures()
    other["about"] = "a large machine"
    other["rows"][0] |= {"ratio": [0.0101, 0.0123, 0.0145]}
    (tmp_path / "results" / "large.json").write_text(json.dumps(other))
    (tmp_path / "results" / "of_another_script.json").write_text("[]")
    (tmp_path / "results" / "half.json").write_text('{"format": "matsign bench 1", ')
    assert run() == 0
    page = run.out.with_suffix(".html").read_text()
    assert "B: a large machine" in page
    assert "0.0123" in page
    assert "half.json cannot be read" in capsys.readouterr().out


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_is_self_contained_and_accessible(run):
    run()
    page = run.out.with_suffix(".html").read_text()
    reader = Elements()
    reader.feed(page)
    found = reader.found
    assert not re.findall(r"https?:|//|@import|url\(", page)
    assert {tag for tag, _ in found}.isdisjoint({"script", "img", "iframe"})
    assert [x["href"] for tag, x in found if tag == "link"] == ["data:,"]
    assert all(x["scope"] in ("row", "col") for tag, x in found if tag == "th")
    assert all(x["role"] == "img" and x["aria-label"] for tag, x in found if tag == "svg")
    assert {"html", "title", "main", "caption"} <= {tag for tag, _ in found}
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("word", ["rikati", "Signs", ""])
def test_an_unknown_group_is_one_line_with_the_nearest_name(bench, word, capsys):
    with pytest.raises(SystemExit) as end:
        bench.__main__.main(["--groups", word])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("'riccati'" if word == "rikati" else "'signs'") in error


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--seconds", "nan"], ["--out", "x.txt"], ["--quick", "--long"], ["x"]]
)
def test_a_mistake_is_an_error_before_anything_is_measured(bench, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        bench.__main__.main(words)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ratios_of_a_machine_whose_speed_changes(bench, monkeypatch):
    """One function takes three times the time of the other, and all is five times slower for a while."""
    from bench import timing

    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)

    def takes(seconds):
        def call():
            nonlocal now
            now += seconds * (5 if 0.4 < now < 0.6 else 1)

        return call

    found = timing.compare(takes(3e-3), takes(1e-3), 1.0)
    assert found.ratio[1] == pytest.approx(3)
    assert 3 <= found.rounds <= 9
    assert timing.compare(takes(3.0), takes(1.0), 0.1).rounds == 3


def test_answers_are_compared_in_every_result_and_member(bench):
    from bench.case import difference

    a = np.ones((4, 3, 3))
    assert difference(a, list(a)) == 0
    assert difference((a, a), [(x, x) for x in a]) == 0
    b = a.copy()
    b[2] *= 1 + 1e-3
    assert difference(b, a) == pytest.approx(1e-3)
    for other in (a[:3], (a, a), a[..., :2], a * np.nan):
        assert difference(other, a) == np.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    "group", ["signs", "powers", "equations", "riccati", "batches", "derivatives", "compiled", "muon"]
)
def test_every_group_has_quick_cases_with_names_of_their_own(bench, group):
    from bench.case import tasks_of
    from bench.cases import cases_of

    keys = [task.key for task in tasks_of(group, cases_of(group), "long")]
    assert len(set(keys)) == len(keys)
    assert tasks_of(group, cases_of(group), "quick")
