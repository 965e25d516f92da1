"""Check a site that was built: python .ci/site.py FOLDER

It prints a line for each link or anchor that leads nowhere, each file that a browser would fetch from elsewhere or would not
find when it opens a page, each image without a text, and each page without a title, a language or a heading of the first level.
"""

import functools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Values of <link rel> for which a browser fetches something, or connects; the others are links to follow.
FETCHED = {
    "stylesheet",
    "icon",
    "apple-touch-icon",
    "manifest",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
}
SOURCES = {"src", "poster", "data"}  # the last is that of <object>
URL_IN_CSS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])([^"')]+)""")


class Page(HTMLParser):
    """What a page has: anchors, links and files as (line, address), texts of its title and headings, and faults of images."""

    def __init__(self, file):
        super().__init__()
        self.anchors, self.links, self.files, self.images = set(), [], [], []
        self.language, self.texts, self._open = "", {"title": "", "h1": ""}, []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        line, values = self.getpos()[0], {name: value or "" for name, value in attributes}
        self._open.append(tag)
        self.anchors |= {values[name] for name in ("id", "name") if name in values and (name == "id" or tag == "a")}
        if tag == "html":
            self.language = values.get("lang", "")
        if tag == "img" and not (values.get("alt", "").strip() or values.get("role") == "presentation"):
            self.images.append((line, values.get("src", "")))
        self._addresses(line, tag, values)

    def _addresses(self, line, tag, values):
        fetched = [values[name] for name in SOURCES & values.keys() if name != "data" or tag == "object"]
        fetched += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        fetched += URL_IN_CSS.findall(values.get("style", ""))
        followed = [values[name] for name in ("href", "xlink:href") if name in values]
        if tag in ("image", "use") or (tag == "link" and FETCHED & set(values.get("rel", "").split())):
            fetched, followed = fetched + followed, []
        self.files += [(line, address) for address in fetched]
        self.links += [(line, address) for address in followed]

    def handle_endtag(self, tag):
        if tag in self._open:  # elements without an end tag are closed with the one around them
            while self._open.pop() != tag:
                pass

    def handle_data(self, text):
        if self._open and self._open[-1] == "style":
            self.files += [(self.getpos()[0], address) for address in URL_IN_CSS.findall(text)]
        for tag in self.texts:
            if tag in self._open and "svg" not in self._open:
                self.texts[tag] += text.strip()


@functools.cache
def page_at(file):
    return Page(file)


def target_of(folder, file, path):
    """The file in the folder that a relative address in `file` names; None if there is none."""
    target = (file.parent / unquote(path)).resolve() if path else file
    target = target / "index.html" if target.is_dir() else target
    return target if target.is_file() and target.is_relative_to(folder) else None


def fault_of_link(folder, file, address):
    """Why a link leads nowhere; None if it does not, or leads elsewhere."""
    url = urlsplit(address)
    if url.scheme in ("http", "https", "mailto") or url.netloc:
        return None
    target = None if url.scheme else target_of(folder, file, url.path)
    if target is None:
        return f"the link {address} leads nowhere"
    if url.fragment in ("", "top") or target.suffix != ".html" or unquote(url.fragment) in page_at(target).anchors:
        return None
    return f"the anchor of the link {address} does not exist"


def fault_of_file(folder, file, address):
    """Why a browser would not find a file in the folder; None if it would."""
    url = urlsplit(address)
    if url.scheme == "data" or address.startswith("#"):
        return None
    if url.scheme or url.netloc:
        return f"{address} would be fetched from elsewhere"
    return None if target_of(folder, file, url.path) else f"the file {address} is missing"


def faults_of_page(folder, file):
    """The faults of a page as (line, text); line 1 stands for the whole page."""
    page = page_at(file)
    yield from ((1, f"the page has no <{tag}>") for tag, text in page.texts.items() if not text)
    if not page.language:
        yield 1, "the page has no language, <html lang>"
    yield from ((line, f"the image {address[:80]} has no alt text") for line, address in page.images)
    for check, addresses in ((fault_of_link, page.links), (fault_of_file, page.files)):
        yield from ((line, fault) for line, address in addresses if (fault := check(folder, file, address)))


def style_sheets(folder, pages):
    """The style sheets that pages use, each once, with those that they import."""
    waiting = [(file, address) for file in pages for _, address in page_at(file).files]
    seen = set()
    while waiting:
        file, address = waiting.pop()
        target = None if urlsplit(address).scheme else target_of(folder, file, urlsplit(address).path)
        if target is not None and target.suffix == ".css" and target not in seen:
            seen.add(target)
            waiting += [(target, inside) for _, inside in addresses_in_css(target)]
    return sorted(seen)


def addresses_in_css(file):
    text = re.sub(
        r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), file.read_text(encoding="utf-8"), flags=re.S
    )
    return [(text.count("\n", 0, found.start()) + 1, found[1].strip()) for found in URL_IN_CSS.finditer(text)]


def faults(folder):
    """All faults as text, "FILE:LINE: what is wrong"."""
    pages = sorted(folder.rglob("*.html"))
    found = [(file, *fault) for file in pages for fault in faults_of_page(folder, file)]
    for file in style_sheets(folder, pages):
        addresses = addresses_in_css(file)
        found += [(file, line, fault) for line, url in addresses if (fault := fault_of_file(folder, file, url))]
    return [f"{file.relative_to(folder)}:{line}: {fault}" for file, line, fault in found]


def main(arguments):
    folder = Path(arguments[0]).resolve() if len(arguments) == 1 else None
    if folder is None or not any(folder.rglob("*.html")):
        print(__doc__.splitlines()[0] if folder is None else f"{folder} holds no page", file=sys.stderr)
        return 2
    found = faults(folder)
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
