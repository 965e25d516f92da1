"""Sphinx: sphinx-build docs docs/_build"""

import sys
from pathlib import Path

from matsign import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "matsign"
author = "The matsign authors"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # no page fetches anything from elsewhere
    "sphinx_design",
    "numpydoc",
    "accessible",
    "displayed_formulas",
    "elsewhere",
    "unbroken_cells",
    "gallery",
]
templates_path = ["_templates"]
nitpicky = True  # a link to a name that does not exist is an error
myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"matsign {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["matsign.css"]
html_js_files = ["scrollable.js"]
html_copy_source = False

autodoc_typehints = "none"
smartquotes = False  # "auto" is a value to type
default_role = "py:obj"  # `msign` in a docstring is a link
numpydoc_show_class_members = False
