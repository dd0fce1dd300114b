"""Every operation of the HTTP API, from the OpenAPI document that the API itself serves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from docs_site.reference.markdown import code, prose, table
from emp_orch.api.routes import ROUTES
from emp_orch.api.views import openapi

METHODS = ("get", "head", "post", "put", "patch", "delete")
REF = "#/components/schemas/"
Part = Mapping[str, Any]


def page() -> str:
    document = openapi.document(ROUTES, token=True)
    lines = [
        "# HTTP API",
        "",
        "This page is made from the document that the API serves as `/openapi.json`. Where the API has no token, no",
        "operation needs one. Every error is an [Error](#error).",
        "",
    ]
    found = sorted(operations(document), key=lambda one: one[2]["tags"][0])  # stable: each tag in the table's order
    for tag, those in groupby(found, key=lambda one: one[2]["tags"][0]):
        lines += [f"## {tag.capitalize()}", ""]
        for method, path, operation in those:
            lines += _operation(method, path, operation)
    lines += ["## Types", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += _schema(name, schema)
    return "\n".join(lines)


def operations(document: Part) -> list[tuple[str, str, Part]]:
    """Method, path and operation, in the document's order."""
    return [
        (method, path, found[method])
        for path, found in document["paths"].items()
        for method in METHODS
        if method in found
    ]


def _operation(method: str, path: str, operation: Part) -> list[str]:
    lines = [f"### {code(f'{method.upper()} {path}')} {{ #{operation['operationId'].lower()} }}", ""]
    lines += [prose(operation["summary"]), ""]
    facts = [("Token", _token(operation))]
    if "requestBody" in operation:
        body = operation["requestBody"]
        facts.append(("Body", _content(body["content"]) + ("" if body["required"] else ", or none")))
    facts += [("Answer", answer)] if (answer := _answer(operation["responses"])) else []
    facts.append(("Statuses", ", ".join(f"{code(s)} {r['description']}" for s, r in operation["responses"].items())))
    lines += [f"- **{name}**: {what}" for name, what in facts] + [""]
    rows = [
        (code(p["name"]), p["in"], kind(p["schema"]), prose(p.get("description", ""))) for p in operation["parameters"]
    ]
    return [*lines, *table(("parameter", "in", "value", "meaning"), rows)]


def _token(operation: Part) -> str:
    """Who is let in, where the API has a token."""
    ways = {name for way in operation["security"] for name in way}
    if not ways:
        return "none needed"
    roles = " or ".join(code(role) for role in operation["x-emp-roles"])
    found = [f"of the API, with role {roles}"] if "token" in ways and roles else []
    return " or ".join([*found, *(["a machine's own"] if "machine" in ways else [])])


def _answer(responses: Part) -> str:
    good = [r for s, r in responses.items() if s.startswith("2") and "content" in r]
    return _content(good[0]["content"]) if good else ""


def _content(content: Part) -> str:
    found = []
    for media, part in content.items():
        schema = part.get("schema", {})
        data = schema.get("properties", {}).get("data")
        if data:
            found.append(f"{code(media)}, with `data`: {kind(data)}")
        else:
            found.append(f"{code(media)}" + (f": {kind(schema)}" if schema else ""))
    return ", or ".join(found)


def kind(schema: Part) -> str:
    """What a value of `schema` is, in a few words, with links to the types below."""
    if not schema:
        return "anything"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(code(str(one)) for one in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]).lower())
    match schema.get("type"):
        case "array":
            return f"list of {kind(schema.get('items') or {})}"
        case "object":
            inner = schema.get("additionalProperties")
            return f"object of {kind(inner)}" if isinstance(inner, dict) and inner else "object"
        case "null":
            return "null"
        case str() as named:
            return prose(named) + _bounds(schema)
        case _:
            return "anything"


def _bounds(schema: Part) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" from {low}"
    return f" {code(schema['pattern'])}" if "pattern" in schema else ""


def _schema(name: str, schema: Part) -> list[str]:
    lines = [f"### {name}", ""]
    if "description" in schema:
        lines += [prose(schema["description"]), ""]
    if "properties" not in schema:
        return [*lines, kind(schema), ""]
    needed = schema.get("required", ())
    rows = [
        (code(field), kind(own), "" if field in needed else _default(own))
        for field, own in schema["properties"].items()
    ]
    return [*lines, *table(("field", "value", "default"), rows)]


def _default(schema: Part) -> str:
    default = schema.get("default")
    return code(str(default)) if default not in (None, "", [], {}) else "empty"
