"""The checker of the built site, on a site of two small pages."""

import importlib.util
import runpy
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("site_checker", Path(__file__).parents[2] / ".ci" / "site.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)

GOOD = """<!DOCTYPE html>
<html lang="en">
<head><title>One</title><link rel="stylesheet" href="style.css?v=1"><link rel="canonical" href="https://example.org/"></head>
<body>
<h1 id="one">One</h1>
<p>A <a href="https://doi.org/10.1137/1">source</a>, <a href="#">the top</a>, <a href="inside/">a page</a>,
<a href="inside/index.html#a%20b">a part</a>, <a href="mailto:a@example.org">mail</a>.
<img src="dot%20.png" alt="a dot" srcset="dot%20.png 2x">
<img src="data:image/gif;base64,AA" role="presentation">
<svg><title>not the title</title><use href="#one"/></svg>
</body>
"""
INSIDE = '<html lang="en"><head><title>Two</title></head><h1>Two</h1><p id="a b"><a href="../index.html#one">back</a></p></html>'

# A line of a page or of its style sheet, and what is wrong with it.
BROKEN = [
    ('<a href="gone.html">', "the link gone.html leads nowhere"),
    ('<a href="../outside.html">', "the link ../outside.html leads nowhere"),
    ('<a href="/index.html">', "the link /index.html leads nowhere"),
    ('<a href="file:///etc/passwd">', "the link file:///etc/passwd leads nowhere"),
    ('<a href="#gone">', "the anchor of the link #gone does not exist"),
    ('<a href="inside/index.html#one">', "the anchor of the link inside/index.html#one does not exist"),
    ('<link rel="next" href="gone.html">', "the link gone.html leads nowhere"),
    ('<link rel="preconnect" href="https://a.org">', "https://a.org would be fetched from elsewhere"),
    ('<script src="https://a.org/a.js"></script>', "https://a.org/a.js would be fetched from elsewhere"),
    ('<script src="//a.org/a.js"></script>', "//a.org/a.js would be fetched from elsewhere"),
    ('<script src="gone.js"></script>', "the file gone.js is missing"),
    ('<iframe src="http://a.org"></iframe>', "http://a.org would be fetched from elsewhere"),
    ('<object data="http://a.org"></object>', "http://a.org would be fetched from elsewhere"),
    ('<svg><image href="http://a.org/a.png"/></svg>', "http://a.org/a.png would be fetched from elsewhere"),
    ('<img alt="x" srcset="dot%20.png, //a.org/b.png 2x">', "//a.org/b.png would be fetched from elsewhere"),
    ('<p style="background: url(https://a.org/b.png)">', "https://a.org/b.png would be fetched from elsewhere"),
    ("<style>p {src: url('https://a.org/b.woff')}</style>", "https://a.org/b.woff would be fetched from elsewhere"),
    ('<img src="dot%20.png">', "the image dot%20.png has no alt text"),
    ('<img src="dot%20.png" alt=" ">', "the image dot%20.png has no alt text"),
]
BROKEN_STYLES = [
    ('@import "https://a.org/a.css";', "https://a.org/a.css would be fetched from elsewhere"),
    ("p {background: url( 'gone.png' )}", "the file gone.png is missing"),
    ("@font-face {src: url(//a.org/a.woff2)}", "//a.org/a.woff2 would be fetched from elsewhere"),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "index.html").write_text(INSIDE)
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "dot .png").touch()
    (tmp_path / "style.css").write_text('@import "more.css"; p {background: url(data:image/gif;base64,AA)}')
    (tmp_path / "more.css").write_text("/* url(gone.png) */\np {background: url('dot%20.png')}")
    (tmp_path.parent / "outside.html").touch()
    site.page_at.cache_clear()
    return tmp_path


def test_a_site_without_faults(folder, capsys):
    assert site.main([str(folder)]) == 0
    assert capsys.readouterr() == ("", "")


def test_each_fault_has_a_line(folder, capsys):
    lines = [html for html, _ in BROKEN]
    (folder / "index.html").write_text(GOOD.replace("</body>", "\n".join(lines)))
    assert site.main([str(folder)]) == 1
    first = GOOD.count("\n", 0, GOOD.index("</body>")) + 1
    expected = [f"index.html:{first + number}: {text}" for number, (_, text) in enumerate(BROKEN)]
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(expected)


def test_style_sheets_and_those_that_they_import(folder):
    (folder / "more.css").write_text("\n".join(line for line, _ in BROKEN_STYLES))
    assert site.faults(folder) == [f"more.css:{n}: {text}" for n, (_, text) in enumerate(BROKEN_STYLES, 1)]


def test_a_page_without_title_language_and_heading(folder):
    (folder / "inside" / "index.html").write_text('<html lang=""><title> </title><h1></h1><h2 id="a b">Two</h2></html>')
    found = [fault.removeprefix("inside/index.html:1: ") for fault in site.faults(folder)]
    assert found == ["the page has no <title>", "the page has no <h1>", "the page has no language, <html lang>"]


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["{empty}"]])
def test_no_site(arguments, tmp_path, capsys):
    assert site.main([a.format(empty=tmp_path) for a in arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_headings_of_the_navigation_have_a_level_and_sources_are_no_list():
    path = Path(__file__).parents[2] / "docs" / "_extensions" / "accessible.py"
    accessible = runpy.run_path(str(path))
    context = {"body": '<div role="list" class="citation-list">', "furo_navigation_tree": '<p role="heading">'}
    accessible["mend"](None, "page", "page.html", context, None)
    assert context == {
        "body": '<div class="citation-list">',
        "furo_navigation_tree": '<p role="heading" aria-level="2">',
    }
