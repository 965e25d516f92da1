"""Small runs of the examples, and their claims."""

import importlib
from pathlib import Path

import pytest

from conftest import JAX

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the main program of an example, and check that its picture exists."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def quick(name, *options):
        picture = tmp_path / "picture.png"
        found = importlib.import_module(name).main(["--quick", "--out", str(picture), *options])
        assert picture.read_bytes().startswith(b"\x89PNG")
        return found

    return quick


@pytest.mark.parametrize("library", ["torch", JAX])
def test_inverse_optimal_control_finds_the_weights(run, library):
    pytest.importorskip(library)
    history = run("inverse_optimal_control", "--library", library)
    assert history.error[0] > 0.5
    assert history.error[-1] < 1e-5
    assert history.loss[-1] < 1e-12


def test_whitening_keeps_features_apart_and_useful(run):
    pytest.importorskip("torch")
    curves, levels = run("whitening_layer")
    loss, dimensions, accuracy = ({kind: curve[:, -1, k].mean() for kind, curve in curves.items()} for k in range(3))
    assert loss["none"] < 0.1 * loss["batch norm"] < 0.1 * loss["whitening"]  # the loss is lower if features collapse
    assert dimensions["batch norm"] < 3
    assert dimensions["whitening"] > 13
    others = [accuracy[kind] for kind in curves if kind != "whitening"]
    assert accuracy["whitening"] > max(*others, levels["largest class"])


def test_learning_through_the_inner_step_of_muon_pays(run):
    pytest.importorskip("torch")
    runs = run("test_time_training")
    through, cut_off, descent = ([r.errors for r in found] for found in runs.values())
    for best, other, plain in zip(through, cut_off, descent, strict=True):
        assert best[1] < 0.2 * best[0]  # one chunk teaches it the rotation
        assert best[1:].mean() < 0.2 * other[1:].mean()
        assert best[1:].mean() < 0.5 * plain[1:].mean()
    for found in list(runs.values())[::2]:
        assert found[0].aligned[-1] > 0.9  # the keys have found the directions that matter


def test_muon_learns_in_fewer_steps_than_adamw(run):
    torch = pytest.importorskip("torch")
    runs = run("muon_transformer")
    ours, adamw = runs["matsign.optim.Muon"], runs["AdamW"]
    assert len(runs) == 2 + hasattr(torch.optim, "Muon")
    assert ours.loss[0] == adamw.loss[0]  # the same start
    assert ours.loss[-1] < adamw.loss[-1] < 0.7 * adamw.loss[0]
    assert (ours.seconds[1:] > ours.seconds[:-1]).all()
