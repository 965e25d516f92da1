"""The tour passes on its own inputs and on models, shows every identity, and fails for a wrong result."""

import base64
import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from typer.testing import CliRunner

from conftest import JAX
from matsign.backends import load
from matsign.cli import identities, inputs, judging, tour
from matsign.cli.app import app
from matsign.cli.flows import dense

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIGNS = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")


def run(*arguments):
    return CliRunner().invoke(app, ["tour", *map(str, arguments)])


@pytest.mark.slow
def test_the_quick_tour_holds_and_writes_its_page(tmp_path):
    page = tmp_path / "tour.html"
    result = run("--quick", "-o", page)
    assert result.exit_code == 0, result.output
    assert "all 25 rows hold" in result.output
    html = page.read_text(encoding="utf-8")
    drawings = [base64.b64decode(x).decode() for x in SIGNS.findall(html)]
    assert len(drawings) == 6, "three pictures, light and dark"
    assert all(x.rstrip().endswith("</svg>") for x in drawings)
    widths = [float(re.search(r'<svg [^>]*width="([\d.]+)pt"', x)[1]) for x in drawings]
    assert max(widths) < 389, "10 points are 9 pixels where the picture is 350 pixels wide"
    assert html.count("<tr>") == 1 + 25
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html), "nothing is loaded from elsewhere"


def test_every_identity_of_the_article_has_a_row():
    places = [row.place for row in identities.rows(inputs.shipped_inputs(quick=True))]
    equations = {number for place in places for number in re.findall(r"\((\d+)\)", place)}
    assert equations == {"1", "2", "3", "5", "6", "7", "8", "9", "10", "11", "13"}


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes most of the time of a tour; `test_the_quick_tour_holds_and_writes_its_page` looks at the pictures."""
    monkeypatch.setattr(tour, "_pictures", lambda chosen, advance: [])


def wrong(row):
    """The row with a reference that is wrong in the tenth digit."""
    return dataclasses.replace(row, reference=lambda *a: tuple(x * (1 + 1e-10) for x in row.reference(*a)))


@pytest.mark.usefixtures("without_pictures")
def test_a_row_that_misses_is_red_and_fails_the_tour(tmp_path, monkeypatch):
    honest = identities.rows
    monkeypatch.setattr(tour, "rows", lambda i: [wrong(row) for row in honest(i)[:1]] + honest(i)[1:2])
    page = tmp_path / "tour.html"
    result = run("--quick", "-o", page)
    assert result.exit_code == 1
    assert "1 of 2 rows miss their accuracy" in result.output
    assert page.read_text(encoding="utf-8").count('<tr class="bad">') == 1


@pytest.mark.usefixtures("without_pictures")
def test_a_row_without_an_answer_says_why(tmp_path, monkeypatch):
    def without(i):
        row = identities.rows(i)[2]
        return [dataclasses.replace(row, source=inputs.Input("rotation", (np.array([[0.0, 1.0], [-1.0, 0.0]]),)))]

    monkeypatch.setattr(tour, "rows", without)
    result = run("--quick", "--json", "-o", tmp_path / "tour.html")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    (row,) = content["rows"]
    assert (content["passed"], row["passed"], row["residual"], row["input"]) == (False, False, None, "rotation")
    assert "imaginary axis" in row["trouble"]
    assert "imaginary axis" in " ".join((tmp_path / "tour.html").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", ["torch", JAX])
def test_other_libraries(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    backend = load(name)
    for row in identities.rows(inputs.shipped_inputs(quick=True))[:3]:
        verdict = judging.judge(row, backend)
        assert verdict.passed, verdict


def test_a_library_that_is_not_there(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(tour.backends, "load", missing)
    result = run("--backend", "torch", "-o", tmp_path / "x.html")
    assert result.exit_code == 1
    assert result.stderr.strip() == 'matsign: torch is not installed; pip install "matsign[torch]"'


@pytest.mark.slow
def test_a_model_of_ones_own(tmp_path):
    a = np.array([[-1.0, 2.0, 0.0], [-2.0, -1.0, 1.0], [0.0, 0.0, -3.0]])
    content = {"A": scipy.sparse.csc_matrix(a), "B": np.array([[0], [0], [1]], np.uint8), "C": np.array([[1, 0, 0]])}
    scipy.io.savemat(tmp_path / "own.mat", content)
    result = run("--model", tmp_path / "own.mat", "-o", tmp_path / "own.html")
    assert result.exit_code == 0, result.output
    assert "tour of own.mat" in (tmp_path / "own.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_published_model(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the benchmark models are not here")
    result = run("--model", SHARED / "building.mat", "-o", tmp_path / "model.html")
    assert result.exit_code == 0, result.output


def test_condition_is_that_of_the_problem():
    """For the inverse of a diagonal matrix it is the ratio of the largest to the smallest entry, to within a small factor."""
    m = np.diag([1.0, 1e-3])

    def invert(x):
        return (np.linalg.inv(x),)

    assert 1e2 < judging.condition(invert, (m,), invert(m)) < 1e4


def test_a_flow_starts_at_the_matrix_and_ends_at_its_sign():
    m = np.array([[4.0, 3.0], [0.0, -2.0]])
    flow = dense(m)
    assert np.array_equal(flow.iterates[0], m)
    np.testing.assert_allclose(flow.iterates[-1], [[1, 1], [0, -1]], atol=1e-14)
    assert flow.residuals()[-1] < 1e-15
