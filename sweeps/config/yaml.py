"""YAML 1.2: plain values with the line of each, and plain values as text.

1e-3 and 3_000_000 are numbers, `no` is a word, and a key given twice is a fault. A merge key, `<<: *alias` or a list of
aliases, adds what the mapping itself does not have; of a list the first one wins. An anchor may be given twice: an alias
means the last one before it. Only dict, list, str, int, float, bool
and None are constructed: a tag such as !!python/object is a fault, not a call.
"""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter

from sweeps.config.faults import Fault, join

MAX_NODES = 100_000
"""Aliases multiply: nine lines of them can mean a billion values. No sweep file is this large."""

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + "str", _TAG + "timestamp", _TAG + "value", _TAG + "merge"}  # a date is a word to us
_NUMBER_TAGS = {_TAG + "int", _TAG + "float"}
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_BASED = re.compile(r"[-+]?0(?:o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)


@dataclass
class Document:
    """A YAML text as plain values, with their lines and the faults of the text."""

    values: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted path -> line, counted from 1. Items of a list are numbered from 0: `compare.model.2.clamp`."""
    faults: list[Fault] = field(default_factory=list)


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return what is wrong with a file that is not UTF-8 text, with the line and the byte."""
    if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "is not UTF-8 text but UTF-16: save it as UTF-8"
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"is not UTF-8 text: byte 0x{error.object[error.start]:02x} on line {line}. Save it as UTF-8"


def read(text: str) -> Document:
    """Read one YAML document. Faults are in the result; nothing is raised."""
    document = Document()
    if re.match(r"\s*%YAML\s+1\.1", text):
        document.faults.append(Fault("", "a sweep file is YAML 1.2 (where `no` is a word): leave the %YAML 1.1 line out", 1))
        return document
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.composer.warn_double_anchors = False  # YAML 1.2 allows an anchor again: an alias means the last one before it
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        # A bracket that is never closed is reported at the line that opens it, not at the end of the file.
        unclosed = "<stream end>" in str(error.problem) and error.context_mark
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(Fault("", f"not YAML: {problem}", mark.line + 1 if mark else None))
    except YAMLError as error:
        # A character that YAML does not allow: its position is known, and no mark.
        line = text.count("\n", 0, error.position) + 1 if isinstance(error, ReaderError) else None
        document.faults.append(Fault("", f"not YAML: {str(error).splitlines()[0]}", line))
    except RecursionError:
        document.faults.append(Fault("", "nested too deeply"))
    else:
        if root is not None:
            _Builder(document).build(root)
    return document


def read_value(text: str) -> Any:
    """The value of one piece of YAML, such as the right side of KEY=VALUE. Raises ValueError."""
    document = read(text)
    if document.faults:
        raise ValueError(document.faults[0].message)
    return document.values


def dump(values: Any) -> str:
    """Plain values as YAML 1.2 text that reads back as the same values, in the same order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = None  # innermost collections on one line, as people write them
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda data: True
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


_OLD_BOOLEANS = {"y", "n", "yes", "no", "on", "off"}
"""Truth values to readers of YAML 1.1, such as Kubernetes' and Ray's."""


class _Representer(SafeRepresenter):
    """Quotes every text that is not plainly a word: the emitter leaves `?0` in a list unquoted, which reads as a key."""


def _represent_text(representer: _Representer, text: str) -> ScalarNode:
    plain = re.fullmatch(r"[A-Za-z][\w /%+.-]*", text, re.ASCII) and not text.endswith(" ")
    block = "\n" in text and not re.search("[\r\x85\u2028\u2029]", text)  # in a block these become other line breaks
    style = None if plain and text.lower() not in _OLD_BOOLEANS else "|" if block else '"'
    node: ScalarNode = representer.represent_scalar(_TAG + "str", text, style=style)
    return node


_Representer.add_representer(str, _represent_text)


class _Builder:
    """Fills a Document from the nodes of the YAML parser."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0
        self._open: set[int] = set()
        """Ids of the nodes that are being built; one of them again is an alias that contains itself."""

    def build(self, root: Node) -> None:
        try:
            self._document.values = self._value(root, "")
        except _TooLarge as error:
            self._document.values = None
            self._document.faults.append(Fault("", str(error), error.line))

    def _value(self, node: Node, path: str) -> Any:
        self._count(node)
        if id(node) in self._open:
            raise _TooLarge("an alias that contains itself", _line(node))
        if path:
            self._document.lines.setdefault(path, _line(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if str(node.tag) not in (_TAG + "map", _TAG + "seq"):
            self._fault(node, f"a tag ({node.tag}) is not allowed here: write plain values")
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._value(item, join(path, i)) for i, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _count(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooLarge(f"more than {MAX_NODES:,} values, aliases counted as often as they are used", _line(node))

    def _mapping(self, node: MappingNode, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in self._merged(node, path):
            key = str(key_node.value)
            here = join(path, key)
            self._document.lines[here] = _line(key_node)
            values[key] = self._value(value_node, here)
        return values

    def _merged(self, node: MappingNode, path: str) -> list[tuple[ScalarNode, Node]]:
        """Key and value of everything in a mapping; what its merge key adds stands in that key's place."""
        own: dict[str, ScalarNode] = {}
        found: list[tuple[ScalarNode, Node]] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or not key_node.value:
                self._fault(key_node, "a key must be a word")
                continue
            key = str(key_node.value)
            if key in own:
                remedy = ". Write one, with a list: `<<: [*first, *second]`" if _is_merge(key_node) else ""
                self._fault(key_node, f"{join(path, key)} is given twice: first on line {_line(own[key])}{remedy}")
                continue
            own[key] = key_node
            found.append((key_node, value_node))
        result: list[tuple[ScalarNode, Node]] = []
        for key_node, value_node in found:
            if not _is_merge(key_node):
                result.append((key_node, value_node))
                continue
            added: dict[str, tuple[ScalarNode, Node]] = {}
            for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                if not isinstance(source, MappingNode):
                    self._fault(key_node, "<< takes a mapping, as in `<<: *alias`, or a list of mappings")
                    continue
                self._count(source)
                if id(source) in self._open:
                    raise _TooLarge("an alias that contains itself", _line(source))
                self._open.add(id(source))
                for pair in self._merged(source, path):
                    self._count(pair[0])
                    added.setdefault(str(pair[0].value), pair)
                self._open.discard(id(source))
            result += [pair for key, pair in added.items() if key not in own]
        return result

    def _scalar(self, node: ScalarNode) -> Any:
        tag, text = str(node.tag), str(node.value)
        if tag == _TAG + "null":
            return None
        if tag == _TAG + "bool":
            return text.lower() == "true"
        if tag in _NUMBER_TAGS:
            return self._number(node, text)
        if tag not in _TEXT_TAGS:
            self._fault(node, f"a tag ({tag}) is not allowed here: write plain values")
        return text

    def _number(self, node: ScalarNode, text: str) -> int | float | str:
        if _NOT_FINITE.fullmatch(text):
            self._fault(node, f"{text} is not a number to calculate with: write a finite one")
            return 0.0
        plain = text.replace("_", "")
        if _INTEGER.fullmatch(text):
            # int() itself refuses thousands of digits.
            return self._within(node, int(plain)) if len(plain) < 400 else self._too_large(node)
        if _BASED.fullmatch(text):
            return self._within(node, int(plain, 0))
        if _FLOAT.fullmatch(text):
            return float(plain) if math.isfinite(float(plain)) else self._too_large(node)
        return text

    def _within(self, node: ScalarNode, value: int) -> float:
        """A whole number that a float can hold, which messages and checks rely on."""
        return value if abs(value) <= sys.float_info.max else self._too_large(node)

    def _too_large(self, node: ScalarNode) -> float:
        self._fault(node, "too large for a number")
        return 0.0

    def _fault(self, node: Node, message: str) -> None:
        self._document.faults.append(Fault("", message, _line(node)))


class _TooLarge(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _is_merge(key: ScalarNode) -> bool:
    return str(key.value) == "<<" and key.style is None  # a quoted one is a word


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
