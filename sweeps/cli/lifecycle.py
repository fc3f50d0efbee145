"""Verbs that rename, copy and delete sweeps, and that give disk space back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.app import StoreOption, app, console, echo, errors, require_store, warn
from sweeps.errors import StoreError, TrackingError, UserError

if TYPE_CHECKING:
    from sweeps.store import Store
    from sweeps.store.records import SweepRow
    from sweeps.store.removal import Removal

Yes = Annotated[bool, typer.Option("--yes", "-y", help="without the question")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print what would go, and change nothing")]


@app.command()
def rename(old: str, new: str, store: StoreOption = "results") -> None:
    """Give a sweep another name, in the store and in MLflow."""
    from sweeps.config.faults import shown
    from sweeps.config.sweep_file import NAME_RULE, SWEEP_NAME
    from sweeps.store import Store
    from sweeps.tracking import default_uri

    if not SWEEP_NAME.fullmatch(new):
        raise UserError(f"the name of a sweep must be {NAME_RULE}, not {shown(new)}")
    if new == old:
        raise UserError(f"{old} has that name already")
    require_store(store)
    with Store(store) as opened:
        row = _rows(opened, [old])[0]
        # Both names, so that nobody begins a sweep of the new one meanwhile.
        with opened.hold(old, count_time=False), opened.hold(new, count_time=False):
            opened.rename_sweep(old, new)
        console.print(f"{old} is called {new} now", highlight=False)
        _rename_in_mlflow(opened, store, default_uri(store), row, new)
    if row.document.get("name", old) == old:
        console.print(
            f"`sweeps run {new}` continues it. Its file still has the old name: with it, add --name {new}, or edit `name`",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _rename_in_mlflow(opened: Store, folder: str, uri: str, row: SweepRow, new: str) -> None:
    from sweeps.runner.run import describe
    from sweeps.tracking.removal import is_there, rename_experiment

    if not is_there(uri):
        return
    try:
        rename_experiment(uri, row.created, row.name, new)
        describe(new, opened, folder)
    except TrackingError as error:
        warn(f"MLflow still has the old name: {error}. `sweeps sync {new}` repeats it")


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    yes: Yes = False,
    dry_run: DryRun = False,
    mlflow: Annotated[
        bool | None,
        typer.Option("--mlflow/--no-mlflow", help="MLflow's runs too; by default only of the store's own MLflow"),
    ] = None,
    store: StoreOption = "results",
) -> None:
    """Delete sweeps with their records and MLflow runs. Records that other sweeps use are kept."""
    from sweeps.store import Store
    from sweeps.store.removal import delete_sweeps, what_goes
    from sweeps.tracking import default_uri
    from sweeps.tracking.removal import delete_runs

    names = list(dict.fromkeys(names))
    require_store(store)
    if dry_run:
        with Store(store, read_only=True) as opened:
            rows = _rows(opened, names)
            _show_removal(what_goes(opened, names), rows, default_uri(store), store, mlflow)
        return
    with Store(store) as opened, ExitStack() as held:
        rows = _rows(opened, names)
        for name in names:
            held.enter_context(opened.hold(name, count_time=False))
        uri = default_uri(store)
        runs = _show_removal(what_goes(opened, names), rows, uri, store, mlflow)
        _confirm(yes, f"delete {_listed(names)}?")
        # MLflow first: killed in between, the sweep is still there, and so are its runs after `sweeps sync`.
        if runs:
            try:
                delete_runs(uri, {row.created: row.name for row in rows})
            except TrackingError as error:
                raise _not_without_mlflow(error) from error
        delete_sweeps(opened, names)
    console.print(f"deleted {_listed(names)}. `sweeps gc` gives the disk space back", highlight=False, soft_wrap=True)


def _not_without_mlflow(error: TrackingError) -> UserError:
    return UserError(
        f"{error}. Nothing is deleted from the store: without the sweep there nothing finds its runs in MLflow. "
        "Try again later; --no-mlflow deletes without them"
    )


def _show_removal(removal: Removal, rows: Sequence[SweepRow], uri: str, store: str, with_mlflow: bool | None) -> int | None:
    """Print what a deletion removes. Return the number of MLflow's runs that go too, None where there is no MLflow.

    Raises UserError where MLflow has to be opened and cannot.
    """
    from sweeps.tracking.removal import count_runs, is_shared, is_there

    for row in rows:
        echo(f"{row.name}: begun {row.created[:16].replace('T', ' ')} UTC, {row.state}")
    echo(
        f"  {_number(removal.configurations, 'configuration')}, {_number(removal.lanes, 'lane')}, "
        f"{_number(removal.records, 'record')}, {_number(removal.checkpoints, 'checkpoint')}: {_size(removal.size_bytes)}"
    )
    if removal.kept:
        echo(
            f"  kept: {_number(removal.kept, 'record or checkpoint', 'records and checkpoints')} that other sweeps use as well"
        )
    if with_mlflow is False or not is_there(uri):
        return None
    kept = with_mlflow is None and is_shared(uri, store)
    try:
        runs = count_runs(uri, [row.created for row in rows])
    except TrackingError as error:
        if kept:
            warn(f"MLflow's runs are not deleted: {error}")
            return None
        raise _not_without_mlflow(error) from error
    if kept:
        if runs:
            warn(
                f"{_number(runs, 'run')} in MLflow stay: other stores that have a copy of this sweep share them. "
                "--mlflow deletes them too"
            )
        return None
    echo(f"  {_number(runs, 'run')} in MLflow, which can restore deleted ones until `sweeps gc`")
    return runs


@app.command("gc")
def gc_(yes: Yes = False, dry_run: DryRun = False, store: StoreOption = "results") -> None:
    """Remove what no sweep needs any more, in the store and in MLflow, and give the disk space back.

    That is: records and checkpoints that no sweep names, checkpoints of finished lanes, and MLflow runs that were deleted.
    """
    from sweeps.store import Store
    from sweeps.store.removal import compact, delete_what_nobody_names, held_names, what_nobody_names
    from sweeps.tracking import default_uri

    require_store(store)
    uri = default_uri(store)
    with Store(store, read_only=dry_run) as opened:
        found = what_nobody_names(opened)
        echo(
            f"{opened.location}: {_number(found.records, 'record')} and {_number(found.checkpoints, 'checkpoint')} that no "
            f"sweep needs: {_size(found.size_bytes)}"
        )
        mlflow = _purge_mlflow(uri, dry_run=True)
        if dry_run:
            return
        _confirm(yes, "remove them for good?")
        before = opened.database.size_bytes()
        delete_what_nobody_names(opened)
        try:
            if why := compact(opened):
                warn(why)
        except StoreError as error:
            warn(f"the records are removed, and the file keeps its size for now: {error}")
        echo(f"{opened.location}: {_size(before)} before, {_size(opened.database.size_bytes())} now")
        if mlflow:
            _purge_mlflow(uri, dry_run=False, compact=lambda: not held_names(opened))


def _purge_mlflow(uri: str, dry_run: bool, compact: Callable[[], bool] = lambda: True) -> bool:
    """Remove MLflow's deleted runs, or print how many there are. Return whether that is possible."""
    from sweeps.tracking.client import without_password
    from sweeps.tracking.removal import is_there, purge

    if not is_there(uri):
        return False
    try:
        if dry_run:
            found = purge(uri, dry_run=True)
            what = f"{_number(found.runs, 'deleted run')} and {_number(found.experiments, 'deleted experiment')} of sweeps"
            echo(f"{without_password(uri)}: {what}")
            return True
        with console.status("removing MLflow's deleted runs") as status:
            found = purge(uri, False, compact, lambda done: status.update(f"removing MLflow's deleted runs: {done}"))
    except TrackingError as error:
        warn(f"MLflow's deleted runs stay: {error}")
        return False
    if found.left:
        warn(
            f"artifacts of {_number(found.left, 'run or model', 'runs and models')} stay: they are not in the folder of "
            f"MLflow's database, the only one where gc deletes files, but as {found.left_at}. Remove there what nobody needs"
        )
    if found.before_bytes:
        echo(f"{without_password(uri)}: {_size(found.before_bytes)} before, {_size(found.after_bytes)} now")
    return True


@app.command("copy")
def copy_(
    name: str,
    to: Annotated[str, typer.Option("--to", metavar="STORE", help="another folder, or postgresql:// URL")],
    store: StoreOption = "results",
) -> None:
    """Copy a sweep with its records into another store, for a colleague or another disk; again copies what is new."""
    from sweeps.store import Store, copy_sweep

    require_store(store)
    if "://" not in to and "://" not in store and Path(to).resolve() == Path(store).resolve():
        raise UserError(f"{to} is the store that {name} is in: give another folder")
    with Store(store, read_only=True) as source:
        _rows(source, [name])
        with Store(to) as target, target.hold(name, count_time=False):
            fresh = copy_sweep(source, target, name)
            where = target.location
    console.print(
        f"{name}: {_number(fresh, 'new record')} in {where}. There: sweeps report {name} --store {where}, and "
        f"sweeps sync {name} --store {where} for MLflow", highlight=False, soft_wrap=True,
    )  # fmt: skip


def _rows(opened: Store, names: Sequence[str]) -> list[SweepRow]:
    """Return the sweeps of these names. Raises UserError with the nearest name for one that does not exist."""
    from sweeps.store.removal import what_goes

    found = [opened.sweep(name) for name in names]
    if None in found:
        try:
            what_goes(opened, names)
        except StoreError as error:
            raise UserError(str(error)) from error
    return [row for row in found if row is not None]


def _confirm(yes: bool, question: str) -> None:
    """Return if the answer is yes. Raises UserError without --yes where nobody can be asked, and Exit(1) for a no."""
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UserError("nothing is changed: add --yes, since there is no terminal to confirm it on (--dry-run only shows it)")
    if not typer.confirm(question, default=False, err=True):
        errors.print("nothing is changed", highlight=False)
        raise typer.Exit(1)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
