"""The ten lines of the README run, and their results are right."""

import re
from pathlib import Path

import numpy as np


def test_the_ten_lines(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), names)
    assert all(float(x) < 1e-13 for x in capsys.readouterr().out.split())
    u, s, x = names["U"], names["S"], names["x"]
    np.testing.assert_allclose(u.mT @ u, np.broadcast_to(np.eye(32), (1000, 32, 32)), atol=1e-13)
    np.testing.assert_allclose(s @ s, np.eye(300), atol=1e-9)
    np.testing.assert_allclose(names["a"] @ x + x @ names["b"], names["q"], atol=1e-11)
