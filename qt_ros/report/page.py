"""The HTML of a report: sections of tables, numbers and figures in one file that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from qt_ros.report.numbers import words

STYLE = """
:root { --ink: #1d2430; --quiet: #5c6675; --line: #e3e7ed; --paper: #ffffff; --back: #f5f7fa;
        --accent: #2563ab; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
header p { margin: 0 0 20px; color: var(--quiet); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
          padding: 18px 22px 20px; margin: 18px 0; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p.lead { margin: 0 0 14px; color: var(--quiet); }
figure { margin: 14px 0 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--quiet); font-size: 13px; margin-top: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: none; }
td.n, th.n { text-align: right; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(126px, 1fr)); gap: 12px;
         margin: 6px 0 4px; }
.tile { background: var(--back); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 22px; letter-spacing: -0.01em; }
.tile span { color: var(--quiet); font-size: 13px; }
dl { columns: 3 250px; column-gap: 28px; margin: 6px 0 0; font-size: 13px; }
dl div { display: flex; justify-content: space-between; gap: 12px; break-inside: avoid;
         border-bottom: 1px solid var(--line); padding: 3px 0; }
dt { color: var(--quiet); } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.note { background: #fff7e0; border-radius: 8px; padding: 8px 14px; margin: 10px 0 0; }
@media print { body { background: none; } section { break-inside: avoid; } }
"""


@dataclass
class Section:
    """One part of a report: a heading, a sentence on what it shows, and its blocks of HTML."""

    title: str
    lead: str = ''
    blocks: list[str] = field(default_factory=list)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Section:
        """Add a table; columns that hold only numbers are aligned to the right."""
        if rows:
            self.blocks.append(_table(columns, rows))
        return self

    def tiles(self, facts: Mapping[str, object]) -> Section:
        """Add a row of large numbers, each with the words that name it."""
        cells = ''.join(
            f'<div class="tile"><b>{escape(words(value))}</b><span>{escape(name)}</span></div>'
            for name, value in facts.items()
        )
        self.blocks.append(f'<div class="tiles">{cells}</div>')
        return self

    def figure(self, image: bytes | None, alt: str, caption: str = '') -> Section:
        """Add a picture (SVG or PNG bytes); None, for nothing to draw, adds nothing."""
        if image is not None:
            kind = 'png' if image.startswith(b'\x89PNG') else 'svg+xml'
            data = base64.b64encode(image).decode('ascii')
            below = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
            self.blocks.append(
                f'<figure><img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'
                f'{below}</figure>'
            )
        return self

    def pairs(self, rows: Sequence[tuple[str, str]]) -> Section:
        """Add many names and values in little space."""
        cells = (f'<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>' for n, v in rows)
        self.blocks.append(f'<dl>{"".join(cells)}</dl>')
        return self

    def heading(self, text: str) -> Section:
        """Add a heading below the section's own."""
        self.blocks.append(f'<h3>{escape(text)}</h3>')
        return self

    def note(self, text: str) -> Section:
        """Add a remark that must not be overlooked."""
        self.blocks.append(f'<p class="note">{escape(text)}</p>')
        return self

    def html(self) -> str:
        """Return the section's HTML; '' when it has nothing to show."""
        if not self.blocks:
            return ''
        lead = f'<p class="lead">{escape(self.lead)}</p>' if self.lead else ''
        return f'<section><h2>{escape(self.title)}</h2>{lead}{"".join(self.blocks)}</section>\n'


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return one complete HTML document."""
    body = ''.join(section.html() for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>'
        f'<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n'
        f'{body}</main></body></html>\n'
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    numeric = [all(_number(row[i]) for row in rows) for i in range(len(columns))]
    head = ''.join(_cell('th', column, n) for column, n in zip(columns, numeric, strict=True))
    body = ''.join(
        '<tr>'
        + ''.join(_cell('td', words(v), n) for v, n in zip(row, numeric, strict=True))
        + '</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>'
    )


def _cell(tag: str, text: str, numeric: bool) -> str:
    return f'<{tag}{" class=n" if numeric else ""}>{escape(text)}</{tag}>'


def _number(value: object) -> bool:
    """Say whether a value is read as a number: 3, 0.5, nothing, or '88%' and '12 s'."""
    if isinstance(value, str):
        return value[:1].isdigit() or value == '–'
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
