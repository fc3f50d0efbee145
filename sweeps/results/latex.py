"""The report of sweeps as LaTeX: booktabs tables of the best of each cell, and of every configuration.

The tables need the packages booktabs and longtable, and nothing else; those of a paper in two columns booktabs and graphicx, as
LaTeX has no long tables there. Numbers are plain text with $\\times 10^n$ for exponents.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from sweeps.errors import UserError
from sweeps.results import formats
from sweeps.results.formats import Part, Table
from sweeps.results.numbers import UNKNOWN
from sweeps.results.report import Report

FLOATS = 12
"""Tables after which a page ends: LaTeX keeps about 50 that have no place yet, and then fails."""
LONG = 35
"""Rows of a table that still fits on a page; a longer one breaks over pages."""
WIDE = 24
"""Characters of a column that still needs no line breaks."""
LONG_OF_PARAMETERS = 24
"""Rows of a table with parameters in a paper of two columns, most of which have two lines."""
WIDTHS = ("column", "page")
"""Of a paper in two columns, as of figures."""
LINES = r"p{0.2\linewidth}"
"""A column whose text has line breaks."""
SMALLEST = r"\scriptsize\setlength{\tabcolsep}{2pt}\binoppenalty=10000"
"""The same as `SMALL` for a column of a paper in two."""
SMALL = r"\footnotesize\setlength{\tabcolsep}{2pt}\binoppenalty=10000"
"""Before a table, so that those of usual sweeps fit in the 345 pt of an article's line; no line ends in a power of ten."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\textasciigrave{}", UNKNOWN: "--", "†": r"$\dagger$", "—": "---", "−": "$-$",
    "×": r"$\times$", "±": r"$\pm$", "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$",
    "∞": r"$\infty$", "∈": r"$\in$", "√": r"$\surd$", "·": r"$\cdot$", "…": r"\ldots{}", "°": r"$^\circ$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$", "η": r"$\eta$",
    "θ": r"$\theta$", "λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "π": r"$\pi$", "ρ": r"$\rho$", "σ": r"$\sigma$",
    "τ": r"$\tau$", "φ": r"$\varphi$", "ω": r"$\omega$", "Σ": r"$\Sigma$", "Δ": r"$\Delta$",
}  # fmt: skip
_SCRIPTS = {"<sub>": "_", "<super>": "^"}
_NOT_IN_OT1 = "«»ÐðÞþ"
_WITHOUT_SIGNS = re.compile(r"[^0-9A-Za-z]+")
_NUMERIC = re.compile(r"[-+]?[\d.]+(?:e[+-]?\d+)?[kMG%]?[*†]?|\d+/\d+ .*|" + UNKNOWN + r"|")
_EXPONENT = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]?\d+)(?!\w)")
_NEGATIVE = re.compile(r"(?<![\w.)\]])-(?=\d)")


def as_tex(reports: Sequence[Report], timing: bool = True, width: str = "") -> str:
    """Return tables that a paper includes with `\\input`. They have no wall times, with or without `timing`.

    `width` is that of a `column` or of the `page` of a paper in two columns; empty: the line of one in one column. Raises
    UserError for another one.
    """
    if width and width not in WIDTHS:
        raise UserError(f"--width of a LaTeX report is {' or '.join(WIDTHS)} of a paper in two columns, not {width!r}")
    names = ", ".join(report.name for report in reports)
    option = f" --width {width}" if width else ""
    lines = [
        f"% Results of {_comment(names)}: `sweeps report {_comment(names.replace(', ', ' '))} --format tex{option}`",
        rf"% In the preamble: \usepackage{{booktabs,{'graphicx' if width else 'longtable'}}}",
        *([r"\ifdefined\sweepstable\else\newsavebox{\sweepstable}\fi"] if width else []),
        "",
    ]
    used: set[str] = set()
    for report in reports:
        lines += _sweep(report, used, width)
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text as LaTeX shows it: special characters escaped, on one line, without control characters.

    Letters that pdfLaTeX has without further packages stay: those of Latin-1, and subscripts, superscripts and letters of
    formulas as such. Others are `?`.
    """
    flat = _flat(text)
    return "".join(
        "-{}" if letter == after == "-" else _shown(letter)  # -- alone would be a dash
        for letter, after in itertools.zip_longest(flat, flat[1:])
    )


def _flat(text: str) -> str:
    normal = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(letter for letter in normal if letter.isprintable() and not "\ud800" <= letter <= "\udfff")


@cache
def _shown(letter: str) -> str:
    if letter in _SPECIAL or letter.isascii():
        return _SPECIAL.get(letter, letter)
    kind, *codes = unicodedata.decomposition(letter).split() or [""]
    if kind in _SCRIPTS and all(chr(int(code, 16)).isalnum() or int(code, 16) == 0x2212 for code in codes):
        inner = "".join(chr(int(code, 16)).replace("\u2212", "-") for code in codes)
        return f"${_SCRIPTS[kind]}{{{inner}}}$" if inner.isascii() else "?"
    if kind in ("<font>", "<wide>", "<compat>", "<narrow>") and len(codes) == 1:
        return _shown(chr(int(codes[0], 16)))
    return letter if "\xa0" <= letter <= "\xff" and letter not in _NOT_IN_OT1 else "?"


def _is_replaced(text: str) -> bool:
    return any(letter != "?" and _shown(letter) == "?" for letter in _flat(text))


def value(text: str) -> str:
    """Return a field of a table: as `escape`, with numbers as formulas where they have a sign or an exponent."""
    found: list[str] = []

    def keep(formula: str) -> str:
        found.append(formula)
        return f"\x00{len(found) - 1}\x00"

    def power(match: re.Match[str]) -> str:
        mantissa, exponent = match[1], int(match[2])
        factor = "" if mantissa == "1" else rf"{mantissa} \times "
        return keep(f"${factor}10^{{{exponent}}}$")

    flat = " ".join(text.replace("\x00", "").split())
    flat = _EXPONENT.sub(power, flat)
    flat = _NEGATIVE.sub(lambda _: keep("$-$"), flat).replace("->", keep(r"$\to$"))
    parts = flat.split("\x00")
    return "".join(found[int(part)] if at % 2 else _escape_part(part) for at, part in enumerate(parts))


def _escape_part(text: str) -> str:
    """Return `escape` of a part of a field, with its spaces at both ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return escape(text) if not text.strip() else f"{before}{escape(text)}{after}"


def _comment(text: str) -> str:
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable() and letter.isascii())


def _sweep(report: Report, used: set[str], width: str) -> list[str]:
    sections = list(_sections(formats.overview(report)[1 if report.row.document.get("question") else 0 :]))
    of_cells = [
        (title if cell[0].configuration.labels else "all configurations", found, "")
        for cell in report.cells()
        for title, found, _ in _sections(formats.of_cell(report, cell))
    ]
    legend = " ".join(formats.legend(report, remarks=False))
    lines = [f"% {'-' * 40} {_comment(report.name)}"]
    if not sections and not of_cells:
        return [*lines, "% No configuration has been tried yet.", ""]
    tables = 0
    for at, (title, found, remark) in enumerate([*sections, *of_cells]):
        with_legend = at == 0 or (at == len(sections) and len(of_cells) == 1)
        note = " ".join(filter(None, (remark, legend if with_legend else "")))
        for part, what in _parts(found, width):
            if tables and tables % FLOATS == 0:
                lines += [r"\clearpage", ""]
            name = _label(report.name, f"{title.partition(':')[0]} {what}", used)
            lines += _table(part, f"{title}{f', {what}' if what else ''} (sweep {report.name})", name, note, width)
            tables, note = tables + 1, ""
    return lines


def _parts(found: Table, width: str) -> Iterable[tuple[Table, str]]:
    """Yield the tables that are one in the paper's width, with what they hold.

    In a column the parameters have a table of their own, beside the axes and the number. In both widths long ones are several.
    """
    if not width:
        yield found, ""
        return
    with_parameters = found.header[-1] == "parameters"
    pieces = [(found, LONG_OF_PARAMETERS if with_parameters else LONG, "")]
    if width == "column" and with_parameters and "#" in found.header:
        named = found.header.index("#") + 1
        settings = Table((*found.header[:named], "parameters"), [(*row[:named], row[-1]) for row in found.rows])
        results = Table(found.header[:-1], [row[:-1] for row in found.rows])
        pieces = [(results, LONG, ""), (settings, LONG_OF_PARAMETERS, "parameters")]
    for piece, length, what in pieces:
        chunks = [piece.rows[at : at + length] for at in range(0, len(piece.rows), length)] or [()]
        for number, rows in enumerate(chunks, start=1):
            which = f"part {number} of {len(chunks)}" if len(chunks) > 1 else ""
            yield Table(piece.header, rows), ", ".join(filter(None, (what, which)))


def _sections(parts: Iterable[Part]) -> Iterable[tuple[str, Table, str]]:
    """Yield (title, table, the paragraphs after it) of parts."""
    title, found = "", None
    remarks: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            found = part
        elif part.startswith("## "):
            if found is not None:
                yield title, found, " ".join(remarks)
            title, found, remarks = part.removeprefix("## "), None, []
        else:
            remarks.append(part)
    if found is not None:
        yield title, found, " ".join(remarks)


def _label(sweep: str, title: str, used: set[str]) -> str:
    """Return the name of a table, which no other table of the file has, and add it to `used`."""
    base = _WITHOUT_SIGNS.sub("-", f"{sweep}-{title.partition(':')[0]}").strip("-").lower()
    found = next(name for name in itertools.chain([base], (f"{base}-{n}" for n in itertools.count(2))) if name not in used)
    used.add(found)
    return found


def _table(found: Table, caption: str, label: str, note: str, width: str) -> list[str]:
    columns = "".join(map(_alignment, zip(*found.rows, strict=True))) or "l" * len(found.header)
    if width and found.header[-1] == "parameters":  # as wide as they need to be to have few lines
        columns = columns.replace(LINES, rf"p{{{0.7 if width == 'column' else 0.4}\linewidth}}")
    header = f"{' & '.join(map(escape, found.header))} \\\\"
    rows = [f"{' & '.join(map(value, row))} \\\\" for row in found.rows]
    # A row that begins with [ or * would be read as an option of the line before it.
    rows = [f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows]
    name = f"\\label{{tab:{label}}}"
    title = f"\\caption{{{escape(caption)}}}"
    replaced = any(map(_is_replaced, (caption, note, *found.header, *itertools.chain.from_iterable(found.rows))))
    comment = ["% Characters that pdfLaTeX does not have without further packages are ? in this table."] if replaced else []
    if len(rows) > LONG and not width:
        return [
            *comment, rf"{{{SMALL}\begin{{longtable}}{{{columns}}}", rf"{title}{name}\\",
            r"\toprule", header, r"\midrule", r"\endfirsthead", r"\toprule", header, r"\midrule", r"\endhead",
            r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}}",
            *([rf"{{\footnotesize {escape(note)}\par}}"] if note else []), "",
        ]  # fmt: skip
    below = [rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(note)}}}"] if note else []
    tabular = [
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    if width:  # what is too wide nevertheless is scaled to fit
        tabular[0], tabular[-1] = r"\sbox{\sweepstable}{" + tabular[0], tabular[-1] + "}%"
        tabular += [
            r"\ifdim\wd\sweepstable>\linewidth\resizebox{\linewidth}{!}{\usebox{\sweepstable}}%",
            r"\else\usebox{\sweepstable}\fi",
        ]
    kind, small = "table*" if width == "page" else "table", SMALLEST if width == "column" else SMALL
    place = "tp" if width else "htbp"
    return [
        *comment, rf"\begin{{{kind}}}[{place}]", rf"\centering{small}", f"{title}{name}", *tabular, *below,
        rf"\end{{{kind}}}", "",
    ]  # fmt: skip


def _alignment(column: Sequence[str]) -> str:
    """Return r for numbers, l for text, and a column with line breaks for long text."""
    if all(_NUMERIC.fullmatch(field) for field in column):
        return "r"
    return LINES if max(map(len, column)) > WIDE else "l"
