"""The directive `picture NAME`: what docs/gallery/NAME.py draws, once for light pages and once for dark ones.

A script of the gallery leaves its drawing in the variable `figure`, and is run again where the script is newer than its pictures.
"""

import runpy
from pathlib import Path
from typing import ClassVar

import matplotlib
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import pyplot
from sphinx.util.docutils import SphinxDirective

SCRIPTS = Path(__file__).parents[1] / "gallery"
INK = {"light": "#1f2328", "dark": "#d8dce2"}
# Each colour has a contrast of at least 3 to 1 with its page, and differs from the others for colour-blind readers.
COLOURS = {
    "light": ["#0067a6", "#c24e00", "#007a58", "#9b3d85", "#5f6368"],
    "dark": ["#5ab6ec", "#ff9d57", "#34c79d", "#e591cc", "#b5b9bf"],
}


def style(theme):
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(inked, INK[theme]) | {
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS[theme]),
        "figure.figsize": (5.2, 3.4),  # 10 points are still 9 pixels on a page 390 pixels wide
        "figure.constrained_layout.use": True,
        "font.size": 10.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.titlesize": 10.0,
        "grid.color": "#88888840",
        "axes.facecolor": "none",
        "legend.frameon": False,
        "savefig.transparent": True,
        "svg.hashsalt": "matsign",
    }


def draw(script, target, theme):
    matplotlib.use("agg")
    with matplotlib.rc_context(style(theme)):
        figure = runpy.run_path(str(script))["figure"]
        figure.savefig(target, metadata={"Date": None})
    pyplot.close("all")


def pictures(name):
    """The files of the light and the dark picture, drawn where they are missing or out of date."""
    script = SCRIPTS / f"{name}.py"
    (SCRIPTS / "drawn").mkdir(exist_ok=True)
    for theme in INK:
        target = SCRIPTS / "drawn" / f"{name}-{theme}.svg"
        newest = max(script.stat().st_mtime, Path(__file__).stat().st_mtime)
        if not target.exists() or target.stat().st_mtime < newest:
            draw(script, target, theme)
        yield theme, target


class Picture(SphinxDirective):
    """The two pictures of a script; furo shows the one that suits the page. The content is the text for screen readers."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"class": directives.class_option}

    def run(self):
        self.assert_has_content()
        self.env.note_dependency(str(SCRIPTS / f"{self.arguments[0]}.py"))
        return [
            nodes.image(
                uri=f"/gallery/drawn/{path.name}",
                alt=" ".join(self.content),
                classes=[f"only-{theme}", "drawn", *self.options.get("class", [])],
            )
            for theme, path in pictures(self.arguments[0])
        ]


def setup(app):
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
