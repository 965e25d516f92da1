"""Sphinx: sphinx-build docs docs/_build"""

project = "matsign"
author = "The matsign authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
