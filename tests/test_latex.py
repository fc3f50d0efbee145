"""Reports as LaTeX: text that is escaped, tables that a paper can include."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import call
from hypothesis import given
from hypothesis import strategies as st
from made_sweep import made_sweep

from sweeps.errors import UserError
from sweeps.results import FORMATS, Report, report
from sweeps.results.latex import as_tex, escape, value
from sweeps.store import Store

HOSTILE = '\\input{/etc/passwd} $x_1^2$ & 100 % #1 {a} ~ <b> | "c" -- -> Ω \x1b\ud800'


@pytest.fixture
def small(tmp_path: Path) -> Report:
    with Store(tmp_path) as store:
        made_sweep(store)
        return report(store, "small")


def renamed(small: Report, label: str) -> Report:
    """The report with another label of its first cell."""
    return dataclasses.replace(small, configurations=tuple(
        dataclasses.replace(one, configuration=dataclasses.replace(one.configuration, labels={"model": label}))
        if one.configuration.labels["model"] == "nau" else one
        for one in small.configurations
    ))  # fmt: skip


def test_text_of_users_is_escaped() -> None:
    assert escape("a_b & 100% #1 {x} $5") == r"a\_b \& 100\% \#1 \{x\} \$5"
    assert escape("\\input{f}~^<>|") == (
        r"\textbackslash{}input\{f\}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert escape('two\nlines\x1b\ud800 -- "x" 1 ± 2') == r"two lines -{}- ''x'' 1 $\pm$ 2"
    assert escape("a---b -") == "a-{}-{}-b -"
    assert escape("NMU\N{SUBSCRIPT TWO} x\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}") == "NMU$_{2}$ x$^{-}$$^{1}$"
    assert escape("e\N{COMBINING ACUTE ACCENT} \N{MATHEMATICAL ITALIC SMALL X} \u65e5\u672c") == "\xe9 x ??"


@given(st.text())
def test_no_text_can_begin_a_command_a_formula_or_a_comment(text: str) -> None:
    for shown in (escape(text), value(text)):
        left = re.sub(r"\\textbackslash\{\}|\\text[a-z]+\{\}|\\ldots\{\}|\\[&%$#_{}]|-\{\}(?=-)", "", shown)
        left = re.sub(r"\$[^$]*\$", "", left)  # of this package: those of the text are escaped
        assert not set(left) & set("\\&%$#_{}~^<>|"), shown


def test_numbers_with_signs_and_exponents_are_formulas_and_names_are_not() -> None:
    assert value("lr 3.2e-3, dropout off") == r"lr $3.2 \times 10^{-3}$, dropout off"
    assert value("1e-5") == "$10^{-5}$"
    assert value("+0.5 [-3.7, +3.7]") == "+0.5 [$-$3.7, +3.7]"
    assert value("1.61k -> 1.6k") == r"1.61k $\to$ 1.6k"
    assert value("U[-2,-1] run2e5x a-1") == "U[$-$2,$-$1] run2e5x a-1"
    assert value("–") == "--"


def test_there_is_a_booktabs_table_of_the_best_and_one_of_every_cell(small: Report) -> None:
    text = as_tex([small])
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{tabular}") == 3
    assert r"\caption{Best of each cell: lowest par2 (sweep small)}\label{tab:small-best-of-each-cell}" in text
    assert r"nau & 1 & 3/3 100\% [44, 100] & 3 & 4k & 0.4 & 5k & " in text
    assert r"lr $3.2 \times 10^{-3}$, dropout off, noise $3.4 \times 10^{-4}$" in text
    assert r"% In the preamble: \usepackage{booktabs,longtable}" in text


def test_characters_without_a_command_are_said_and_labels_differ(small: Report) -> None:
    text = as_tex([renamed(small, "\u65e5\u672c"), renamed(small, "\u672c")])
    assert text.count("% Characters that pdfLaTeX does not have") == 4 and "caption{model=?? (sweep small)}" in text
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels) == 6 and {"tab:small-model", "tab:small-model-2"} < set(labels)
    assert not re.search("[^\x00-\xff]", text)


def test_long_tables_break_over_pages_and_several_sweeps_are_one_file(small: Report) -> None:
    many = dataclasses.replace(small, configurations=small.configurations[:1] * 40)
    text = FORMATS["tex"].several([many, small], True)  # type: ignore[misc]
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    assert text.startswith("% Results of small, small:")


def test_labels_cannot_write_commands(small: Report) -> None:
    text = as_tex([renamed(small, HOSTILE)])
    assert r"\input" not in text.replace(r"\textbackslash{}input", "") and "\x1b" not in text


def test_tables_for_two_columns_have_parameters_apart_and_long_ones_in_parts(small: Report, tmp_path: Path) -> None:
    many = dataclasses.replace(small, configurations=small.configurations[:1] * 40)
    column, page = as_tex([small, many], width="column"), as_tex([small, many], width="page")
    assert r"\caption{model=nau, parameters (sweep small)}" in column and r"\caption{model=nau, part 2 of 2 (sweep" in column
    assert "nau & 1 & 3/3 100\\% [44, 100] & 3 & 4k & 0.4 & 5k \\\\" in column
    assert "nau & 1 & lr $3.2 \\times 10^{-3}$, dropout off, noise $3.4 \\times 10^{-4}$ \\\\" in column
    assert page.count(r"\begin{table*}[tp]") == page.count(r"\sbox{\sweepstable}") == 3 + 1 + 2 and "parameters (" not in page
    for text in (column, page):
        assert "longtable" not in text and r"\usepackage{booktabs,graphicx}" in text
        labels = re.findall(r"\\label\{(.*?)\}", text)
        assert len(set(labels)) == len(labels)
    with pytest.raises(UserError, match="--width of a LaTeX report is column or page"):
        as_tex([small], width="wide")
    refused = call("report", "small", "--width", "page", "--store", str(tmp_path))
    assert refused.status == 2 and "--width is column or page, with --format tex" in refused.err
    shown = call("report", "small", "--width", "page", "--format", "tex", "--store", str(tmp_path))
    assert shown.out == as_tex([small], width="page")


@pytest.mark.slow
@pytest.mark.parametrize("width", ["", "column", "page"])
def test_pdflatex_compiles_it(small: Report, tmp_path: Path, width: str) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no pdflatex on this machine")
    many = dataclasses.replace(small, configurations=small.configurations[:1] * 40)
    hostile = HOSTILE.replace("/etc/passwd", "f") if width else HOSTILE  # no word is too long for a column
    body = as_tex([renamed(small, f"{hostile} é \u2082 \u65e5"), many], width=width)
    columns, packages = ("[twocolumn]", "booktabs,graphicx") if width else ("", "booktabs,longtable")
    text = rf"\documentclass{columns}{{article}}\usepackage{{{packages}}}\begin{{document}}{body}Text.\end{{document}}"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not width or not re.search(r"Overfull .hbox|Float too large", done.stdout)
