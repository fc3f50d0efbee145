"""`sweeps reproduce best.yaml`: train an exported configuration again and compare the figures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.config.sweep_file import load
from sweeps.config.user_files import embedded_code
from sweeps.errors import UserError
from sweeps.machine import ray_address
from sweeps.results.comparison import Comparison, compare, exported_side, rate_text, side_of_results
from sweeps.results.export import compare_seeds, require_results, require_unedited
from sweeps.results.report import report
from sweeps.results.statistics import rate_difference
from sweeps.runner.run import run_sweep
from sweeps.store import Store
from sweeps.training.numerics import MODES, why_no_compiler


def reproduce(
    file: Path, console: Console, fresh_seeds: bool = False, workers: int | None = None, trust_code: bool = False
) -> bool:
    """Train an exported configuration in a new store, print PASS or FAIL, and return whether the figures agree.

    The same seeds on the same kind of machine must give equal figures. With `fresh_seeds` as many other seeds are
    trained and the success rates compared. Raises SweepFileError, UserError for a file without an `exported` section, and
    what `run_sweep` raises. Code that the file has itself is executed, from a folder of its own, if `trust_code` is set or the
    working directory has the same files.
    """
    if not file.suffix and not file.exists():
        raise UserError(
            f"{file}: no such file. The file of an export is reproduced: `sweeps export {file} -o best.yaml` writes that of a "
            "sweep of this name"
        )
    with embedded_code(file, lambda line: console.print(line, highlight=False, soft_wrap=True), trust_code) as at:
        return _reproduce(at, console, fresh_seeds, workers)


def _reproduce(file: Path, console: Console, fresh_seeds: bool, workers: int | None) -> bool:
    sweep = load(file)
    expected = sweep.expected
    if not expected:
        raise UserError(f"{file} has no `exported` section: `sweeps export NAME -o best.yaml` writes one")
    require_results(expected, str(file))
    require_unedited(sweep.document, expected, str(file))
    mode = None if fresh_seeds else _mode(expected)  # a success rate may be compared between modes, a figure may not
    if mode == "compiled" and ray_address() is None and (reason := why_no_compiler()):
        raise UserError(
            f"the seeds of {file} were trained compiled, and on this machine {reason}: figures are equal with a compiler only. "
            "Install one, or compare success rates with --fresh-seeds"
        )
    if fresh_seeds:
        sweep = load(file, [f"seeds={{first: {max(sweep.seeds) + 1}, count: {len(sweep.seeds)}}}"])
        expected = sweep.expected
        assert expected is not None
    with tempfile.TemporaryDirectory(prefix="sweeps-reproduce-") as folder, Store(folder) as store:
        outcome = run_sweep(sweep, store, folder, console, workers, tracked=False, numerics=mode)
        if outcome.state != "done":
            console.print(f"FAIL: it was not trained to the end: {outcome.reason}", highlight=False)
            return False
        found = report(store, sweep.name).configurations
    records = [result for one in found for result in one.results]
    settings = found[0].configuration.settings
    before, after = exported_side(expected, settings, "exported"), side_of_results("trained again", settings, records)
    if fresh_seeds:
        passed, text = agreement(compare(before, after))
        console.print(text, highlight=False, soft_wrap=True)
        return passed
    differences = compare_seeds(expected, records)
    for line in differences:
        console.print(line, highlight=False, soft_wrap=True)
    verdict = "FAIL: the figures differ" if differences else "PASS: every figure of every seed is the same"
    console.print(f"{verdict} ({len(records)} seeds)", highlight=False)
    if differences:
        compared = compare(before, after)
        console.print(f"Success: {compared.verdict(compared.pairs[0])}", highlight=False, soft_wrap=True)
    return not differences


def agreement(compared: Comparison) -> tuple[bool, str]:
    """Return whether the success rates of an exported configuration and of fresh seeds agree, and a sentence about it.

    They do if the interval of their difference contains 0: at 95 % about one correct repetition in twenty fails. Of a task
    without a threshold the errors must not differ. Where that holds whatever the fresh seeds give, the sentence says so.
    """
    pair = compared.pairs[0]
    rates, errors = pair.difference("success_rate"), pair.difference("error")
    assert errors is not None
    if rates is None:
        passed = errors.p_value is not None and errors.p_value >= 1 - compared.confidence
        return passed, f"{'PASS' if passed else 'FAIL'}: {compared.verdict(pair)}"
    counts, interval = rates.counts, rates.difference
    text = (
        f"exported {rate_text(counts['first'], counts['first_seeds'], compared.confidence)}, "
        f"fresh seeds {rate_text(counts['second'], counts['second_seeds'], compared.confidence)}"
    )
    if interval.low is None or interval.high is None or interval.estimate is None:
        return False, f"FAIL: there is nothing to compare: {text}."
    passed = interval.low <= 0 <= interval.high
    points = f"{100 * interval.estimate:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] points"
    if not passed:
        verdict = "FAIL: the rates differ"
    elif _could_differ(counts, compared.confidence):
        verdict = "PASS: the rates agree"
    else:
        verdict = "PASS, but these are too few seeds: whatever their results, no difference of the rates could be shown"
    chosen = " The exported rate is of the seeds that chose the configuration, so it is too good on average." * (
        pair.first.chosen_by_these and interval.estimate < 0
    )
    return passed, f"{verdict}: {text}; difference {points}, {rates.test}'s exact p = {rates.p_value:.2g}.{chosen}"


def _could_differ(counts: Mapping[str, int], confidence: float) -> bool:
    """Return whether as many fresh seeds could give a rate that differs from the exported one: all solved, or none."""
    exported, seeds = (counts["first"], counts["first_seeds"]), counts["second_seeds"]
    for solved in (0, seeds):
        interval = rate_difference(exported, (solved, seeds), confidence)
        if interval.low is not None and interval.high is not None and not interval.low <= 0 <= interval.high:
            return True
    return False


def _mode(expected: Mapping[str, Any]) -> str | None:
    """Return compiled or plain, as the seeds were trained; None where the file does not say so, as one of an older engine.

    Not their kind of device: another one gives other figures, and the comparison names the difference.
    """
    mode = str((expected.get("provenance") or {}).get("numerics", "")).rpartition(" ")[-1]
    return mode if mode in MODES else None
