"""The tour as one self-contained HTML page: pictures inside, no script, light and dark."""

from __future__ import annotations

import base64
from html import escape

from matsign.cli.judging import Verdict
from matsign.cli.pictures import Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #6b6b70; --line: #dcdce0; --paper: #ffffff; --bad: #c22b2b;
  --badpaper: #fdeaea; --good: #1f7a4d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e8; --soft: #9a9aa2; --line: #37373c; --paper: #17171a;
  --bad: #ff7b7b; --badpaper: #3a1d1f; --good: #5fca93; } }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 46rem; } .soft, figcaption, th, .limit { color: var(--soft); }
.figures { margin-top: 1.5rem; columns: 2 26rem; column-gap: 2.5rem; } figure { margin: 0 0 2rem; break-inside: avoid; }
figure h2 { margin-top: 0; } figure img { width: 100%; max-width: 36rem; height: auto; } figcaption { font-size: .9rem; }
.verdict { font-weight: 600; color: var(--good); } .verdict.bad, .bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .84rem; width: 100%; line-height: 1.35; }
th { text-align: left; font-weight: 500; } th, td { padding: .45rem .7rem .45rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } tr.bad { background: var(--badpaper); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; } .limit { font-size: .75rem; display: block; }
td .soft { display: block; font-size: .78rem; }
@media (max-width: 52rem) { thead { display: none; } table, tbody { display: block; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem 1rem; padding: .8rem 0; border-bottom: 1px solid var(--line); }
  td { display: block; padding: 0; border: 0; min-width: 0; overflow-wrap: anywhere; } td.wide { grid-column: 1 / -1; }
  td::before { content: attr(data-label); display: block; font-size: .75rem; color: var(--soft); } }
"""

_HEAD = ("article", "identity and input", "size", "method", "residual", "distance to reference", "time", "SciPy's")


def page(title: str, setting: str, verdicts: list[Verdict], pictures: list[Picture]) -> str:
    """The whole document."""
    missed = sum(not v.passed for v in verdicts)
    summary = f"{missed} of {len(verdicts)} rows miss their accuracy" if missed else f"all {len(verdicts)} rows hold"
    head = "".join(f"<th>{h}</th>" for h in _HEAD)
    rows = "\n".join(_row(v) for v in verdicts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="soft">{escape(setting)}</p>
<p class="verdict{" bad" if missed else ""}">{summary}.</p>
<div class="figures">{"".join(_figure(p) for p in pictures)}</div>
<h2>Every identity of the article</h2>
<p>The article is "What can the matrix sign function mcsgn compute?" (Su 2025). The small numbers are limits. The limit of
a residual is the size n of the matrix times rounding. The limit of a distance in double precision is 1e-12 or, if that is larger,
√n times rounding times the condition number of the quantity, which is measured by perturbing the input of the reference. The
reference uses another method: singular vectors, eigenvectors, Schur vectors or Cholesky factors. Times are the best of several
runs.</p>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></div>
</body></html>
"""


def _figure(picture: Picture) -> str:
    light, dark = (f"data:image/svg+xml;base64,{base64.b64encode(s.encode()).decode()}" for s in picture[2:])
    return f"""<figure><h2>{escape(picture.title)}</h2>
<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}"><img src="{light}" alt="{escape(picture.title)}"></picture>
<figcaption>{escape(picture.caption)}</figcaption></figure>
"""


def _row(v: Verdict) -> str:
    identity = f'{escape(v.row.identity)}<span class="soft">{escape(v.row.source.text)}</span>'
    cells = [_cell(0, escape(v.row.place)), _cell(1, identity, "wide"), _cell(2, v.size)]
    if v.trouble:
        cells.append(f'<td class="bad wide" colspan="5">{escape(v.trouble)}</td>')
    else:
        cells += [
            _cell(3, escape(v.method)),
            _number(4, v.residual, v.residual_limit),
            _number(5, v.distance, v.distance_limit),
            _cell(6, duration(v.seconds), "number"),
            _cell(7, duration(v.peer_seconds), "number"),
        ]
    kind = "" if v.passed else ' class="bad"'
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _cell(column: int, content: str, kind: str = "") -> str:
    """A cell with the name of its column, which a narrow page shows above it."""
    return f'<td class="{kind}" data-label="{escape(_HEAD[column])}">{content}</td>'


def _number(column: int, value: float, limit: float) -> str:
    kind = "number" if value <= limit else "number bad"
    return _cell(column, f'{value:.1e}<span class="limit">≤ {limit:.0e}</span>', kind)


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"
