"""docs/howto/fsdp_training.py on two processes: the losses of one process, and a checkpoint with all parameters."""

import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from processes import run  # noqa: E402

pytestmark = pytest.mark.slow
SCRIPT = str(Path(__file__).parents[2] / "docs/howto/fsdp_training.py")


def losses(folder):
    return runpy.run_path(SCRIPT)["main"]("cpu", folder)


def test_two_processes_have_the_losses_of_one(tmp_path):
    alone, first, second = *run(1, losses, str(tmp_path / "1")), *run(2, losses, str(tmp_path / "2"))
    assert first == second
    assert first[-1] < 0.5 * first[0]
    assert first == pytest.approx(alone, rel=1e-3)  # divided batches have other rounding errors
    assert len(list((tmp_path / "2").glob("*.distcp"))) == 2
