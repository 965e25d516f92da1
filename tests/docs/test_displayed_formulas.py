"""Formulas of docstrings, Unicode in the sources, are LaTeX on the pages."""

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "docs" / "_extensions" / "displayed_formulas.py"
_spec = importlib.util.spec_from_file_location("displayed_formulas", SOURCE)
formulas = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(formulas)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("r⁻¹ bᴴ x = 0.", r"r^{-1} b^{\mathsf H} x = 0."),
        ("σₖ = √λₖ(x w)", r"σ_{k} = \sqrt{λ_{k}(x w)}"),
        ("[[a, c], [d, b]]", r"\begin{pmatrix} a & c \\ d & b \end{pmatrix}"),
        ("[x; I] y", r"\begin{pmatrix} x \\  I \end{pmatrix} y"),
        (
            "w ← lr s msign(u),    S³ = S",
            r"w \leftarrow  \operatorname{lr} s \operatorname{msign}(u), \qquad S^{3} = S",
        ),
    ],
)
def test_a_formula_is_latex(text, latex):
    assert formulas.as_latex(text) == latex


def test_a_block_becomes_a_displayed_formula():
    lines = ["The equation is::", "", "    S³ = S.", "", "More."]
    formulas.convert(None, "function", "f", None, {}, lines)
    assert lines == ["The equation is:", "", ".. math::", "", "   S^{3} = S.", "", "More."]
