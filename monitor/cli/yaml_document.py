"""A YAML file as plain values that remember their lines, with ``${NAME}`` replaced from the environment.

Only what a settings file needs: mappings with text keys, lists, text, numbers, true, false, null, anchors and
merge keys. Values are replaced after parsing, so that nothing in the environment can change the structure.
No complaint contains a value: what stands in the file, or in the environment, may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from monitor.errors import SettingsError

Path = tuple[str | int, ...]
"""Where a value stands: keys and indexes from the top."""

_TAG = "tag:yaml.org,2002:"
_NULL, _MERGE = f"{_TAG}null", f"{_TAG}merge"

# Dates stay text: no setting is a date, and a cluster may well be called 2026-01-01.
_TEXT_TAGS = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"})
_TYPED_TAGS = frozenset({f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool"})

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<or>:-(?P<default>[^}]*))?\})?")


class Complaint(NamedTuple):
    """What is wrong, where, and in which line."""

    line: int
    path: Path
    text: str


class Document:
    """What a file holds: ``data``, the ``lines`` of every path, the ``raw`` text of scalars, and ``complaints``."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self.raw: dict[Path, str] = {}
        self.complaints: list[Complaint] = []
        self._environ = environ
        self._open: list[yaml.Node] = []
        self._scalars = yaml.SafeLoader("")
        root = _compose(text)
        self.data: Any = None if root is None else self._value(root, ())

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest part of it that is in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def _complain(self, node: yaml.Node, path: Path, text: str) -> None:
        self.complaints.append(Complaint(node.start_mark.line + 1, path, text))

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if any(node is each for each in self._open):
            self._complain(node, path, f"{path_text(path)} contains itself: take the anchor apart")
            return None
        self._open.append(node)
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, path)
                case yaml.SequenceNode():
                    return self._list(node, path)
                case _:
                    return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in self._pairs(node, path):
            key = key_node.value
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            value = self._value(value_node, (*path, key))
            # A key with nothing behind it, as when everything below it is commented out, is a key not given.
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        return values

    def _list(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        for index, item in enumerate(node.value):
            self.lines[(*path, index)] = item.start_mark.line + 1
        return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """Yield merged pairs first, so that own ones win; refuse repeated keys."""
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                yield from self._merged(value_node, path)
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, f"a key{_within(path)} is not plain text: write KEY: VALUE")
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                first = seen[key_node.value]
                text = f"key `{printable(key_node.value)}`{_within(path)} is there twice (first in line {first})"
                self._complain(key_node, (*path, key_node.value), text)
                continue
            seen[key_node.value] = line
            yield key_node, value_node

    def _merged(self, node: yaml.Node, path: Path) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        # YAML's merge type: of several mappings the earlier one wins.
        for part in reversed(parts):
            if not isinstance(part, yaml.MappingNode) or any(part is each for each in self._open):
                self._complain(node, path, f"<<{_within(path)} takes a mapping: write <<: *NAME")
                return
            self._open.append(part)
            yield from self._pairs(part, path)
            self._open.pop()

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        self.raw[path] = node.value
        if node.tag in _TYPED_TAGS:
            try:
                return self._scalars.construct_object(node)
            except (ValueError, KeyError, yaml.YAMLError):
                return self._expand(node, path)  # whoever wants a number there says so
        if node.tag == _NULL:
            return None
        if node.tag not in _TEXT_TAGS:
            # A tag is what an unquoted value with ! in front is taken for.
            self._complain(node, path, f"{path_text(path)} starts with !: put the value in quotes")
            return None
        return self._expand(node, path)

    def _expand(self, node: yaml.Node, path: Path) -> str:
        try:
            return expand(node.value, self._environ)
        except LookupError as exc:
            self._complain(node, path, f"{path_text(path)}: {exc.args[0]}")
            return ""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}``; ``$${`` stands for a literal ``${``.

    As in a shell, the default is also taken where the variable is set but empty.

    Raises:
        LookupError: A variable is not set and has no default, or a ``${`` is not a reference.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name = match["name"]
        if name is None:
            raise LookupError("after ${ comes a NAME and }, or NAME:-default and }; write $${ for the characters ${")
        if match["or"] is not None:
            return environ.get(name) or match["default"]
        if name not in environ:
            missing = f"environment variable {name} is not set: set it, or write ${{{name}:-default}}"
            raise LookupError(missing)
        return environ[name]

    return _REFERENCE.sub(value, text)


def path_text(path: Path) -> str:
    """Write a path as people do: ``clusters[0].sasl``; "the file" for the top."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return text.lstrip(".") or "the file"


def printable(text: str) -> str:
    """Escape what would move the cursor, break the line or hide: control and format characters, backslashes."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def _within(path: Path) -> str:
    return f" in {path_text(path)}" if path else ""


class YamlSyntaxError(SettingsError):
    """The file is not YAML: one complaint, in ``line``."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        super().__init__([text])


def _compose(text: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise YamlSyntaxError(1 if mark is None else mark.line + 1, _problem(exc)) from None
    except yaml.reader.ReaderError as exc:
        unwanted = f"contains the character U+{int(exc.character):04X}, which YAML does not allow: take it out"
        raise YamlSyntaxError(text.count("\n", 0, exc.position) + 1, unwanted) from None
    except RecursionError:
        raise YamlSyntaxError(1, "is nested too deeply") from None
    return node


_ADVICE = {
    "found undefined alias": "a value starts with *: put it in quotes",
    "found undefined tag handle": "a value starts with !: put it in quotes",
    "second occurrence": "two values have the same &anchor: rename one, or put the values in quotes",
    "found character '\\t'": "contains a tab where spaces belong: use spaces",
    "found character '@'": "a value starts with @: put it in quotes",
    "found character '`'": "a value starts with `: put it in quotes",
    "found character '%'": "a value starts with %: put it in quotes",
    "found unknown escape character": "a backslash in double quotes starts an escape: write \\\\, or use single quotes",
    "found unexpected end of stream": "a quote is not closed",
    "mapping values are not allowed": "has a colon where none belongs: check the indentation, or quote the value",
    "could not find expected ':'": "a colon is missing after a key, or the indentation is off",
    "but found another document": "holds a second document (---): keep one",
    "expected ',' or ']'": "a [ is not closed, or a comma is missing",
    "expected ',' or '}'": "a { is not closed, or a comma is missing",
    "expected <block end>": "the indentation does not fit the lines above",
    "expected alphabetic or numeric": "a value starts with & or *: put it in quotes",
    "expected chomping or indentation": "a value starts with | or >: put it in quotes",
}
"""What to do, by the start of PyYAML's problem."""


def _problem(exc: yaml.MarkedYAMLError) -> str:
    """Say what to do. PyYAML's own text is left out: it quotes what a value starts with, and that may be a password."""
    problem = exc.problem or ""
    advice = (text for start, text in _ADVICE.items() if problem.startswith(start))
    return next(advice, "is not YAML: check quotes, colons and indentation")
