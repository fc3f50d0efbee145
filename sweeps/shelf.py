"""The sweep files that ship with us, and what a FILE on the command line means."""

from __future__ import annotations

from pathlib import Path

from sweeps.catalog import nearest

SHELF = Path(__file__).parent / "definitions"


class NoSuchFile(ValueError):
    """Neither a file nor a definition; the message names the nearest definition."""


def definitions() -> list[str]:
    """Names of the sweep files that ship with us."""
    return sorted(path.stem for path in SHELF.glob("*.yaml"))


def find_file(given: str) -> Path:
    """The path of a FILE: a path, or the name of a definition. Raises NoSuchFile."""
    path = Path(given)
    if path.is_file():
        return path
    if given in definitions():
        return SHELF / f"{given}.yaml"
    near = nearest(given, definitions())
    raise NoSuchFile(
        f"no sweep file {given!r}, and no definition of that name."
        + (f" Did you mean {near!r}?" if near else "")
        + f" Definitions: {', '.join(definitions())}. `sweeps init {path.stem}.yaml` writes a file to start from."
    )


def question_of(name: str) -> str:
    """The question that a definition asks."""
    for line in (SHELF / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("question:"):
            return line.removeprefix("question:").strip()
    return ""
