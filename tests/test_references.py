"""Every source that the code and the pages cite by author and year is in the list of sources."""

import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs/reference/bibliography.md"
NAME = r"[A-ZÅ][\w-]+"
CITED = re.compile(rf"({NAME}(?:,\s{NAME})*(?:\s(?:&|and)\s{NAME})?)\s\(?((?:19|20)\d\d)\b")


def citations():
    pages = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in pages:
        for names, year in CITED.findall(path.read_text()) if path != LIST else []:
            yield f"{' '.join(names.split()).replace(' and ', ' & ')} {year}", path.relative_to(ROOT)


def without_accents(name):
    """A name as an alphabetical list sorts it: Á as A."""
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).casefold()


def test_every_citation_is_in_the_list_of_sources():
    listed = LIST.read_text()
    missing = {f"{cited} ({path})" for cited, path in citations() if f"{cited}.**" not in listed}
    assert not missing


def test_the_list_is_sorted_and_cited():
    entries = re.findall(r"^\*\*(.+?)\.\*\*", LIST.read_text(), re.MULTILINE)
    assert entries == sorted(entries, key=without_accents)
    assert len({cited for cited, _ in citations()}) > 30
