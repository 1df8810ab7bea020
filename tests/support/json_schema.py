"""The few words of JSON Schema that the schemas in tests/data use; any other word is an error, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KNOWN = {
    "$ref", "additionalProperties", "anyOf", "const", "definitions", "enum", "items", "properties", "required", "type",
}  # fmt: skip

TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float), "integer": int,
    "null": type(None),
}  # fmt: skip


def complaints(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "") -> list[str]:
    """Return what is wrong with a value, each with the place where it is."""
    return list(_complaints(value, schema, root or schema, at))


def _complaints(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    assert set(schema) <= KNOWN, f"a schema with words that are not understood: {set(schema) - KNOWN}"
    if "$ref" in schema:
        yield from _complaints(value, root["definitions"][schema["$ref"].removeprefix("#/definitions/")], root, at)
        return
    if "type" in schema and not _is_a(value, schema["type"]):
        yield f"{at}: {value!r} is no {schema['type']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "anyOf" in schema:
        yield from _of_the_nearest(value, schema["anyOf"], root, at)
    if isinstance(value, dict):
        yield from _of_an_object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from _complaints(each, schema["items"], root, f"{at}[{index}]")


def _is_a(value: Any, types: str | list[str]) -> bool:
    names = [types] if isinstance(types, str) else types
    return any(isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names)


def _of_the_nearest(value: Any, schemas: list[dict[str, Any]], root: dict[str, Any], at: str) -> Iterator[str]:
    """Yield what is wrong by the alternative that has the least to complain about; the same ``type`` counts first."""
    found = [list(_complaints(value, schema, root, at)) for schema in schemas]
    wrong_kind = [any(each.startswith(f"{at}.type:") for each in each_found) for each_found in found]
    yield from min(zip(wrong_kind, map(len, found), found, strict=True), key=lambda each: each[:2])[2]


def _of_an_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: {name} is missing"
    for name, each in value.items():
        inner = properties.get(name, schema.get("additionalProperties", True))
        if inner is False:
            yield f"{at}: {name} is not known"
        elif isinstance(inner, dict):
            yield from _complaints(each, inner, root, f"{at}.{name}")
