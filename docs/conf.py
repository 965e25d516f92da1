"""Sphinx: sphinx-build docs docs/_build"""

from matsign import __version__

project = "matsign"
author = "The matsign authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
html_theme = "furo"
html_show_copyright = False
exclude_patterns = ["_build"]
autodoc_typehints = "none"
smartquotes = False  # "auto" is a value to type
default_role = "py:obj"  # `msign` in a docstring is a link
numpydoc_show_class_members = False
