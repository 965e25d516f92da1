"""The page of figures: one HTML file that loads nothing, with the figures of other machines beside those of this one."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from statistics import median

from bench.groups import GROUPS
from bench.store import Figures, Row, replace
from bench.text import disturbed, duration, number, spread, words_of

STYLE = Path(__file__).with_name("page.css")
METHOD = """
<p>Each number is the time of matsign over that of the other library: <strong>below 1 matsign is faster</strong>. It is the
median of the ratios of several rounds; the quartiles stand below it. A number
is coloured where both quartiles are on the same side of 1. In a round both are called for equally long, one after
the other. Below these are the two times, that of matsign first. Ratios apply to similar machines, too; times do not.</p>
<p>Both answers are compared before anything is measured. Where they disagree there is no ratio.</p>
"""
# The strips show ratios from 1/32 to 32.
SPAN = 5.0
WIDTH, HEIGHT = 640, 24


def write_page(path: Path, figures: Figures, beside: list[Figures]) -> None:
    replace(path, page(figures, beside))


def page(figures: Figures, beside: list[Figures]) -> str:
    machines = [figures, *beside]
    keys = list(dict.fromkeys(key for x in machines for key in x.rows))
    row_of = {key: next(x.rows[key] for x in machines if key in x.rows) for key in keys}
    groups = {name: [key for key in keys if row_of[key]["group"] == name] for name in GROUPS}
    parts = [
        "<h1>matsign beside other libraries</h1>",
        METHOD,
        notes(figures),
        "<h2>Machines</h2>",
        *(machine_details(letter(k), x, k == 0) for k, x in enumerate(machines)),
        overview(figures),
        *(group_table(name, found, row_of, machines) for name, found in groups.items() if found),
    ]
    return document("matsign beside other libraries", "\n".join(parts))


def document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n'
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def notes(figures: Figures) -> str:
    """What is left out, was disturbed or has no times."""
    lines = words_of(figures)
    failed = sum("failure" in row for row in figures.rows.values())
    if failed:
        lines.append(f"{failed} of {len(figures.rows)} have no times; the tables say why")
    return f"<ul>{''.join(f'<li>{escape(x)}</li>' for x in lines)}</ul>" if lines else ""


def letter(k: int) -> str:
    return chr(ord("A") + k) if k < 26 else f"M{k}"


def machine_details(name: str, figures: Figures, is_here: bool) -> str:
    x = figures.machine
    processors = f"{x.get('processors', '?')} processor{'' if x.get('processors') == '1' else 's'}"
    title = figures.about or f"{x.get('processor', 'unknown')}, {processors}"
    entries = {
        "Processor": f"{x.get('processor')}; {processors}, {x.get('memory')} of memory",
        "System": x.get("system"),
        "Threads": ", ".join(f"{k} {v or 'all'}" for k, v in x.get("threads", {}).items()),
        "BLAS": "; ".join(f"{k}: {v}" for k, v in x.get("blas", {}).items()),
        "Versions": ", ".join(f"{k} {v}" for k, v in x.get("versions", {}).items()),
        "Settings": ", ".join(f"{k}={v}" for k, v in x.get("settings", {}).items()) or "none",
        "Measured": figures.date,
        "Other load": load_of(figures),
    }
    found = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in entries.items() if v)
    note = " (this run)" if is_here else ""
    return f"<details><summary>{name}: {escape(title)}{note}</summary><dl>{found}</dl></details>"


def load_of(figures: Figures) -> str:
    loads = [row["other_load"] for row in figures.rows.values() if row.get("other_load") is not None]
    if not loads:
        return "not known"
    return f"other programs kept {median(loads):.2f} processors busy (median), at most {max(loads):.2f}"


def overview(figures: Figures) -> str:
    """A strip of dots for each group, one for each ratio of this run."""
    strips = []
    for name, title in GROUPS.items():
        ratios = sorted(row["ratio"][1] for row in figures.rows.values() if row["group"] == name and "ratio" in row)
        if ratios:
            strips.append(f'<div><a href="#{name}">{escape(title)}</a></div>{strip(title, ratios)}')
    if not strips:
        return ""
    ends = "<span>1/32, faster</span><span>1</span><span>slower, 32</span>"
    axis = f'<div></div><div class="axis" aria-hidden="true">{ends}</div>'
    return f'<h2>All ratios of this run</h2><div class="strips">{"".join(strips)}{axis}</div>'


def strip(title: str, ratios: list[float]) -> str:
    """The ratios on a logarithmic scale."""
    label = (
        f"{title}: {len(ratios)} ratios from {number(ratios[0])} to {number(ratios[-1])}, median {number(median(ratios))}; "
        f"matsign is faster in {sum(x < 1 for x in ratios)}"
    )
    dots = "".join(
        f'<circle class="{side(x)}" cx="{place(x):.1f}" cy="{HEIGHT / 2:.0f}" r="5"></circle>' for x in ratios
    )
    x, y = f"{WIDTH / 2:.0f}", f"{HEIGHT / 2:.0f}"
    lines = f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"></line>'
    lines += f'<line class="even" x1="{x}" x2="{x}" y1="0" y2="{HEIGHT}"></line>'
    return (
        f'<svg class="strip" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">{lines}{dots}</svg>'
    )


def place(ratio: float) -> float:
    return (max(-1.0, min(1.0, math.log2(ratio) / SPAN)) + 1) * (WIDTH / 2 - 8) + 8


def side(ratio: float) -> str:
    return "faster" if ratio < 1 else "slower"


def group_table(name: str, keys: list[str], row_of: dict[str, Row], machines: list[Figures]) -> str:
    heads = "".join(f'<th scope="col">{letter(k)}</th>' for k in range(len(machines)))
    body = "".join(
        f'<tr><th scope="row">{heading(row_of[key])}</th>{"".join(cell(x.rows.get(key)) for x in machines)}</tr>\n'
        for key in keys
    )
    title = escape(GROUPS[name])
    return (
        f'<h2 id="{name}">{title}</h2>\n<div class="scroll" role="region" tabindex="0" aria-label="Table: {title}">\n<table>\n'
        f"<caption>Time of matsign over that of the other library, on each machine</caption>\n"
        f'<thead><tr><th scope="col">Problem</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
    )


def heading(row: Row) -> str:
    size = escape(row["size"]).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{escape(row['name'])}, {size}<small>{escape(row['peer'])}: {escape(row['call'])}</small>"


def cell(row: Row | None) -> str:
    if row is None:
        return '<td><span class="soft">not measured</span></td>'
    if "failure" in row:
        return f'<td class="fault">no ratio<small>{escape(row["failure"])}</small></td>'
    ratio = row["ratio"]
    lines = [spread(ratio), f"{duration(row['ours'])} / {duration(row['theirs'])}"]
    if disturbed(row):
        lines.append(f"other load {row['other_load']:.1f}")
    small = "".join(f"<small>{x}</small>" for x in lines if x)
    clear = side(ratio[1]) if ratio[0] is None or side(ratio[0]) == side(ratio[2]) else ""
    return f'<td><strong class="{clear}">{number(ratio[1])}</strong>{small}</td>'
