"""schema/emp.schema.json as a value, and the defaults it holds: the only place where defaults are."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, cast

import msgspec

from emp_orch import resources

Schema = dict[str, Any]


def text() -> str:
    """The schema as editors read it."""
    return resources.read_text("schema/emp.schema.json")


@cache
def document() -> Schema:
    """The schema with every `$ref` replaced by what it names, so that nothing is looked up again for each machine."""
    raw: Schema = msgspec.json.decode(text())
    return cast(Schema, _inline(raw, raw["$defs"]))


def _inline(value: Any, defs: dict[str, Any]) -> Any:
    """`value` without references. What stands beside a `$ref` (description, default) goes before what it names."""
    if isinstance(value, list):
        return [_inline(v, defs) for v in value]
    if not isinstance(value, dict):
        return value
    own = {k: v for k, v in value.items() if k not in ("$ref", "$defs")}
    if "$ref" in value:
        own = {**defs[value["$ref"].removeprefix("#/$defs/")], **own}
        return _inline(own, defs)
    return {k: v if k in ("default", "examples") else _inline(v, defs) for k, v in own.items()}


def sub(*names: str) -> Schema:
    """The schema of a property, by names: `sub("redis", "port")`; `*` is any key of a mapping."""
    schema = document()
    for name in names:
        schema = schema["additionalProperties"] if name == "*" else schema["properties"][name]
    return schema


def fill(schema: Schema, value: Any) -> Any:
    """`value` with the schema's defaults in every place it leaves open, also those of a `then`. It fits the schema."""
    if not isinstance(value, dict):
        return value
    for branch in schema.get("anyOf", ()):
        if "properties" in branch:
            return fill(branch, value)
    if "if" in schema and _holds(schema["if"], value):
        schema = _over(schema, schema["then"])
    properties: dict[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    filled: dict[str, Any] = {}
    for key, property_schema in properties.items():
        if key in value:
            filled[key] = fill(property_schema, value[key])
        elif "default" in property_schema:
            filled[key] = fill(property_schema, copy.copy(property_schema["default"]))
    for key, item in value.items():
        if key not in properties:
            filled[key] = fill(others, item) if isinstance(others, dict) else item
    return filled


def _holds(condition: Schema, value: dict[str, Any]) -> bool:
    """Whether `value` has what an `if` of ours asks for: keys with constants."""
    return all(key in value and value[key] == wanted["const"] for key, wanted in condition["properties"].items())


def _over(schema: Schema, more: Schema) -> Schema:
    """`schema` with what `more` says of the same properties put over it."""
    merged = {**schema, **more}
    for key in schema.keys() & more.keys():
        if isinstance(schema[key], dict) and isinstance(more[key], dict) and key != "default":
            merged[key] = _over(schema[key], more[key])
    return merged
