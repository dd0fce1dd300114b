"""Every key of emp.yaml, from schema/emp.schema.json: meaning, type, unit, default, example."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from docs_site.pages import ROOT
from docs_site.reference.markdown import code, prose

SCHEMA = ROOT / "schema" / "emp.schema.json"
REF = "#/$defs/"
# Units by the shared definition that a key's value has, and by the key's own name where it has none.
UNITS = {
    "duration": "time: ms, s, m or h",
    "duration_or_zero": "time: ms, s, m or h",
    "size": "bytes: KiB, MiB, GiB or TiB",
    "port": "TCP port",
}
NAMED_UNITS = {
    "cpus": "processor cores",
    "pids": "processes",
    "num_gpus": "GPU slots",
    "replicas": "servers or machines",
    "size": "boxes",
    "jobs_per_gpu": "jobs",
    "cost": "any, the same for all pools",
    "failures": "checks in a row",
    "count": "jobs",
    "max_unavailable": "machines, or a per cent of them: 25%",
    "program": "tries",
    "machine": "tries",
    "share": "part of all machines, 0 to 1",
    "health_port": "TCP port",
    "port": "TCP port",
    "rate": "requests a second, minute or hour: 10/s",
}
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. `path`: as in emp.yaml, with NAME for a name of the user's. `schema`: with what it refers to."""

    path: str
    name: str
    schema: Schema
    refers: str  # the shared definition, empty without one
    required: bool
    section: str  # the path of the mapping that its value is, or of the place where that is described; empty without


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping with keys. `path` is empty for the file itself."""

    path: str
    description: str
    keys: tuple[Key, ...]


def load() -> Schema:
    schema: Schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def page() -> str:
    lines = [
        "# emp.yaml: every key",
        "",
        "This page is made from `schema/emp.schema.json`, which `emp schema` prints and editors use.",
        "NAME stands for a name that you choose. A key without a default may be left out unless it is required.",
        "",
    ]
    for section in sections(load()):
        lines += [f"## {section.path or 'The file'}", "", prose(section.description), ""]
        for key in section.keys:
            lines += _entry(key)
    return "\n".join(lines)


def sections(schema: Schema) -> list[Section]:
    """Every mapping of emp.yaml, in the order of the schema; one that stands in several places only at the first."""
    # A machine's keys are described where machines are, not where their defaults are.
    return list(_Walk(defs=schema["$defs"], first={"machine": "machines.NAME"}).sections("", schema))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    defs: Mapping[str, Schema]
    first: dict[str, str]  # shared definition → the path where it was described

    def sections(self, path: str, schema: Schema) -> Iterator[Section]:
        later: list[tuple[str, Schema]] = []
        keys = [self._key(path, name, own, schema, later) for name, own in schema["properties"].items()]
        yield Section(path=path, description=schema.get("description", schema.get("title", "")), keys=tuple(keys))
        for below, found in later:
            yield from self.sections(below, found)

    def _key(self, above: str, name: str, own: Schema, parent: Schema, later: list[tuple[str, Schema]]) -> Key:
        path = f"{above}.{name}" if above else name
        full, refers = self._resolved(own)
        below, inside, shared = self._mapping(path, full, refers)
        section = ""
        if inside is not None:
            section = self.first.get(shared, below) if shared else below
            if section == below:
                if shared:
                    self.first[shared] = below
                later.append((below, inside))
        required = name in parent.get("required", ())
        return Key(path=path, name=name, schema=full, refers=refers, required=required, section=section)

    def _resolved(self, own: Schema) -> tuple[Schema, str]:
        if "$ref" not in own:
            return own, ""
        refers = own["$ref"].removeprefix(REF)
        return {**self.defs[refers], **{k: v for k, v in own.items() if k != "$ref"}}, refers

    def _mapping(self, path: str, schema: Schema, shared: str) -> tuple[str, Schema | None, str]:
        """The mapping with keys that a value of `schema` is or holds: path, mapping, name it is shared by."""
        if "properties" in schema:
            return path, schema, shared
        inner = schema.get("additionalProperties")
        choices = [(path, one) for one in schema.get("anyOf", ())]
        if isinstance(inner, dict):
            choices.append((f"{path}.NAME", inner))
        if isinstance(schema.get("items"), dict):
            choices.append((f"{path}[]", schema["items"]))
        for below, one in choices:
            full, refers = self._resolved(one)
            found = self._mapping(below, full, refers)
            if found[1] is not None:
                return found
        return path, None, ""


def anchor(path: str) -> str:
    """The anchor of a key or section: its path, as `attr_list` takes it."""
    return path.replace("[]", "-item") or "file"


def _entry(key: Key) -> list[str]:
    schema = key.schema
    lines = [f"### {code(key.path)} {{ #{anchor(key.path)}-key }}", ""]
    if "description" in schema:
        lines += [prose(schema["description"]), ""]
    facts = [("Type", _type(schema))]
    if unit := unit_of(key):
        facts.append(("Unit", prose(unit)))
    facts.append(("Default", _default(key)))
    if key.section:
        facts.append(("Keys", f"[{code(key.section)}](#{heading(key.section)})"))
    lines += [f"- **{name}**: {what}" for name, what in facts]
    return [*lines, "", *_example(key)]


def heading(path: str) -> str:
    """The anchor that the builder gives a section's heading: lower case, letters, digits, - and _."""
    return "".join(c for c in path.lower() if c.isalnum() or c in "-_") or "the-file"


def unit_of(key: Key) -> str:
    """What one of its value is, where it is a quantity; else empty."""
    if key.refers in UNITS:
        return UNITS[key.refers]
    kinds = key.schema.get("type", ())
    quantity = {"integer", "number"} & set([kinds] if isinstance(kinds, str) else kinds)
    return NAMED_UNITS.get(key.name, "") if quantity or key.name == "rate" else ""


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(code(str(one)) if one is not None else "nothing" for one in schema["enum"])
    if "const" in schema:
        return f"always {code(str(schema['const']))}"
    if "title" in schema:
        return prose(schema["title"])
    kinds = schema.get("type", "any")
    return "true or false" if kinds == "boolean" else prose(kinds if isinstance(kinds, str) else " or ".join(kinds))


def _default(key: Key) -> str:
    if key.required:
        return "none: it is required"
    if "default" not in key.schema or key.schema["default"] is None:
        return "none"
    match key.schema["default"]:
        case "" | {} | []:
            return "empty"
        case bool() as flag:
            return code(str(flag).lower())
        case default:
            return code(str(default))


def _example(key: Key) -> list[str]:
    """The first example that the schema has, or else the default or first choice, as YAML."""
    schema = key.schema
    if schema.get("examples"):
        example = next((one for one in schema["examples"] if one not in ("", None)), schema["examples"][0])
    elif schema.get("default") not in (None, "", {}, []):
        example = schema["default"]
    elif "enum" in schema or "const" in schema:
        example = schema.get("const", (schema.get("enum") or [None])[0])
    elif schema.get("type") == "boolean":
        example = True
    else:
        example = _made_up(schema, load()["$defs"])
    if example is None:
        return []
    text = yaml.safe_dump({key.name: example}, sort_keys=False, allow_unicode=True, width=100).rstrip()
    return ["```yaml", text, "```", ""]


def _made_up(schema: Schema, defs: Mapping[str, Schema]) -> Any:
    """An example of one of the choices, or of the keys of a mapping; None where none of them has one."""
    for one in schema.get("anyOf", ()):
        found = defs[one["$ref"].removeprefix(REF)] if "$ref" in one else one
        if found.get("examples"):
            return found["examples"][0]
    inner = {
        name: (own.get("examples") or [own.get("default")])[0] for name, own in schema.get("properties", {}).items()
    }
    return {name: one for name, one in inner.items() if one not in (None, "", {}, [])} or None
