"""What stands in the source about each field of a `Config`, those that it inherits included."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_origin, get_type_hints


@dataclass(frozen=True)
class FieldDoc:
    """A field as it is written (`hidden: int = 2`), the text under it ("" without one), and where."""

    name: str
    written: str
    text: str
    file: str
    line: int


def field_docs(config: type[Any]) -> list[FieldDoc]:
    """The fields in the order of the dataclass, each from the class that has the last word on it."""
    found: dict[str, FieldDoc] = {}
    for cls in reversed(config.__mro__):
        if dataclasses.is_dataclass(cls):
            found |= {doc.name: doc for doc in _of_class(cls)}
    return [found[f.name] for f in dataclasses.fields(config) if f.name in found]


def settings_lines(config: type[Any]) -> list[str]:
    """For people: every field with its default, and its explanation under it."""
    hints = get_type_hints(config)
    lines = []
    for doc in field_docs(config):
        written = doc.written
        if (
            get_origin(hints[doc.name]) is Literal and " = " in written
        ):  # the choices, also where they have a name
            choices = str(hints[doc.name]).replace("typing.", "")
            written = f"{doc.name}: {choices}{written[written.index(' = ') :]}"
        lines += [written, *textwrap.indent(doc.text, "    ").splitlines()]
    return ["settings:", *lines] if lines else ["no settings"]


def _of_class(cls: type[Any]) -> Iterator[FieldDoc]:
    lines, first = inspect.getsourcelines(cls)
    source = textwrap.dedent("".join(lines))
    body = ast.parse(source).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for i, item in enumerate(statements):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        after = statements[i + 1] if i + 1 < len(statements) else None
        text = ""
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            text = inspect.cleandoc(after.value.value)
        file = inspect.getsourcefile(cls) or ""
        yield FieldDoc(item.target.id, ast.unparse(item), text, file, first + item.lineno - 1)
