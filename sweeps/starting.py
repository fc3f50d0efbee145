"""Writes a model or a task to start from: what `sweeps new` does."""

from __future__ import annotations

import keyword
from pathlib import Path

from sweeps import catalog

TEMPLATES = Path(__file__).parent / "templates"


def write(kind: catalog.Kind, name: str, folder: Path) -> Path:
    """The file FOLDER/NAME.py. Raises ValueError for a name that cannot be one, and overwrites nothing."""
    name = name.removesuffix(".py")
    _check_name(kind, name)
    path = folder / f"{name}.py"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: make it first, or leave it out")
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten: take another name")
    text = (TEMPLATES / f"{kind}.txt").read_text(encoding="utf-8")
    class_name = "".join(word.capitalize() for word in name.split("_"))
    path.write_text(text.replace("NAME", name).replace("CLASS", class_name), encoding="utf-8")
    return path


def _check_name(kind: catalog.Kind, name: str) -> None:
    rule = "a name is lower-case letters, digits and _, and begins with a letter: my_unit"
    if not name.isidentifier() or not name.isascii() or name != name.lower() or not name[:1].isalpha():
        near = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_0123456789")
        suggestion = f". Perhaps {near!r}?" if near.isidentifier() and near.isascii() else ""
        raise ValueError(f"{name!r} cannot be the name of a {kind}: {rule}{suggestion}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ValueError(f"{name!r} is a word of Python's own: take another, for instance {'my_' + name!r}")
    if name in catalog.names(kind):
        raise ValueError(
            f"{name!r} is the name of a {kind} that ships with us (`sweeps show {kind} {name}`): take another"
        )
