"""Displayed formulas of docstrings as MathJax. In the sources they are Unicode, so that `help` and the command line show them.

A formula is the indented block below a line that ends with "::".
"""

import re
import unicodedata

_NAMES = re.compile(r"\b(msign|lr)\b")
_ROOT = re.compile(r"√(\w+\([^)]*\))")
_MATRIX = re.compile(r"\[\[(.*?)\]\]|\[([^\[\]]*;[^\[\]]*)\]")
_SCRIPTS = re.compile(r"(?P<up>[⁰¹²³⁴-⁹⁺⁻ᴴᵀ]+)|(?P<down>[₀-₉ₖ]+)")


def _matrix(found):
    rows = found[1].split("], [") if found[1] else found[2].split(";")
    return r"\begin{pmatrix} " + r" \\ ".join(row.replace(",", " &") for row in rows) + r" \end{pmatrix}"


def _script(found):
    return ("^{" if found["up"] else "_{") + unicodedata.normalize("NFKC", found[0]).replace("\u2212", "-") + "}"


def as_latex(formula):
    """A formula such as ``a x + x aᴴ + q = 0`` in LaTeX."""
    formula = _SCRIPTS.sub(_script, _MATRIX.sub(_matrix, _ROOT.sub(r"\\sqrt{\1}", formula)))
    formula = _NAMES.sub(r"\\operatorname{\1}", formula).replace("←", r"\leftarrow ").replace("H}", r"\mathsf H}")
    return formula.replace("    ", r" \qquad ")


def convert(app, what, name, obj, options, lines):
    k = 0
    while k < len(lines):
        if lines[k].endswith("::") and not lines[k].lstrip().startswith(".."):
            indent = " " * (len(lines[k]) - len(lines[k].lstrip()))
            end = next((i for i in range(k + 2, len(lines)) if not lines[i].startswith(indent + "  ")), len(lines))
            formulas = [indent + "   " + as_latex(line.strip()) for line in lines[k + 2 : end]]
            lines[k:end] = [lines[k][:-1], "", indent + ".. math::", "", *formulas]
        k += 1


def setup(app):
    app.connect("autodoc-process-docstring", convert, priority=600)  # after numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
