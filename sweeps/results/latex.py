"""The report of sweeps as LaTeX: booktabs tables of the best of each cell, and of every configuration.

The tables need the packages booktabs and longtable, and nothing else. Numbers are plain text with $\\times 10^n$ for exponents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sweeps.results import formats
from sweeps.results.formats import Part, Table
from sweeps.results.numbers import UNKNOWN
from sweeps.results.report import Report

FLOATS = 12
"""Tables after which a page ends: LaTeX keeps about 50 that have no place yet, and then fails."""
LONG = 35
"""Rows of a table that still fits on a page; a longer one breaks over pages."""
WIDE = 34
"""Characters of a column that still needs no line breaks."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\textasciigrave{}", UNKNOWN: "--", "—": "---", "−": "$-$",
    "×": r"$\times$", "±": r"$\pm$", "→": r"$\to$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$",
    "∞": r"$\infty$", "∈": r"$\in$", "√": r"$\surd$", "·": r"$\cdot$", "…": r"\ldots{}", "°": r"$^\circ$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$", "η": r"$\eta$",
    "θ": r"$\theta$", "λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "π": r"$\pi$", "ρ": r"$\rho$", "σ": r"$\sigma$",
    "τ": r"$\tau$", "φ": r"$\varphi$", "ω": r"$\omega$", "Σ": r"$\Sigma$", "Δ": r"$\Delta$",
}  # fmt: skip
_WITHOUT_SIGNS = re.compile(r"[^0-9A-Za-z]+")
_NUMERIC = re.compile(r"[-+]?[\d.]+(?:e[+-]?\d+)?[kMG%]?\*?|\d+/\d+ .*|" + UNKNOWN + r"|")
_EXPONENT = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]?\d+)(?!\w)")
_NEGATIVE = re.compile(r"(?<![\w.)\]])-(?=\d)")


def as_tex(reports: Sequence[Report], timing: bool = True) -> str:
    """Return tables that a paper includes with `\\input`. They have no wall times, with or without `timing`."""
    names = ", ".join(report.name for report in reports)
    lines = [
        f"% Results of {_comment(names)}: `sweeps report {_comment(names.replace(', ', ' '))} --format tex`",
        r"% In the preamble: \usepackage{booktabs,longtable}",
        "",
    ]
    for report in reports:
        lines += _sweep(report)
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text as LaTeX shows it: special characters escaped, on one line, without control characters."""
    flat = "".join(letter for letter in " ".join(text.split()) if letter.isprintable() and not "\ud800" <= letter <= "\udfff")
    parts = ("".join(_SPECIAL.get(letter, letter) for letter in part) for part in flat.split("--"))
    return "-{}-".join(parts)  # -- alone would be a dash


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


def _sweep(report: Report) -> list[str]:
    sections = list(_sections(formats.overview(report)[1 if report.row.document.get("question") else 0 :]))
    of_cells = [
        (title if cell[0].configuration.labels else "all configurations", found, "")
        for cell in report.cells()
        for title, found, _ in _sections(formats.of_cell(report, cell))
    ]
    legend = " ".join(formats.legend(report))
    lines = [f"% {'-' * 40} {_comment(report.name)}"]
    if not sections and not of_cells:
        return [*lines, "% No configuration has been tried yet.", ""]
    for at, (title, found, remark) in enumerate([*sections, *of_cells]):
        note = legend if at == 0 or (at == len(sections) and len(of_cells) == 1) else remark
        if at and at % FLOATS == 0:
            lines += [r"\clearpage", ""]
        lines += _table(found, f"{title} (sweep {report.name})", f"{report.name}-{title.partition(':')[0]}", note)
    return lines


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


def _table(found: Table, caption: str, label: str, note: str) -> list[str]:
    columns = "".join(map(_alignment, zip(*found.rows, strict=True))) or "l" * len(found.header)
    header = f"{' & '.join(map(escape, found.header))} \\\\"
    rows = [f"{' & '.join(map(value, row))} \\\\" for row in found.rows]
    # A row that begins with [ or * would be read as an option of the line before it.
    rows = [f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows]
    name = f"\\label{{tab:{_WITHOUT_SIGNS.sub('-', label).strip('-').lower()}}}"
    title = f"\\caption{{{escape(caption)}}}"
    if len(rows) > LONG:
        return [
            rf"{{\small\setlength{{\tabcolsep}}{{4pt}}\begin{{longtable}}{{{columns}}}", rf"{title}{name}\\",
            r"\toprule", header, r"\midrule", r"\endfirsthead", r"\toprule", header, r"\midrule", r"\endhead",
            r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}}",
            *([rf"{{\footnotesize {escape(note)}\par}}"] if note else []), "",
        ]  # fmt: skip
    below = [rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(note)}}}"] if note else []
    return [
        r"\begin{table}[htbp]", r"\centering\small\setlength{\tabcolsep}{4pt}",
        f"{title}{name}", rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}", "",
    ]  # fmt: skip


def _alignment(column: Sequence[str]) -> str:
    """Return r for numbers, l for text, and a column with line breaks for long text."""
    if all(_NUMERIC.fullmatch(field) for field in column):
        return "r"
    return r"p{0.34\linewidth}" if max(map(len, column)) > WIDE else "l"
