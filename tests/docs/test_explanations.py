"""The pages of explanations name tests that exist, and no function of the library is left out where all should be."""

import re
from pathlib import Path

import pytest

import matsign

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/explanation").glob("*.md"))
FUNCTIONS = {name for name in matsign.__all__ if hasattr(getattr(matsign, name), "spec")}


def defined(path):
    return set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def named(page):
    return set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))


def test_every_test_that_a_page_names_exists():
    known = set().union(*(defined(path) for path in (ROOT / "tests").rglob("test_*.py")))
    missing = {f"{page.name}: {name}" for page in PAGES for name in named(page) - known}
    assert not missing


def test_every_test_of_the_article_is_on_the_page_of_identities():
    page = ROOT / "docs/explanation/identities.md"
    assert named(page) == defined(ROOT / "tests/test_article.py")
    shown = re.findall(r":pyobject: (\w+)", page.read_text(encoding="utf-8"))
    assert set(shown) == named(page)


@pytest.mark.parametrize("page", ["certificates", "derivatives"])
def test_every_function_is_on_the_page(page):
    text = (ROOT / f"docs/explanation/{page}.md").read_text(encoding="utf-8")
    # The heads of the definition lists: the lines before those that begin with a colon.
    heads = "\n".join(re.findall(r"^(`.*)\n: ", text, re.MULTILINE))
    assert FUNCTIONS - set(re.findall(r"`(\w+)`", heads)) == set()
