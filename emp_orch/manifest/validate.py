"""The document against the schema: jsonschema's findings, said in a user's words and places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from emp_orch.manifest import schema_reader
from emp_orch.manifest.show import found
from emp_orch.manifest.text.problems import Path, Report, did_you_mean, quoted
from emp_orch.manifest.text.tree import Scalar, Source

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
# jsonschema types every field of an error as possibly unset; those that iter_errors yields have them all.
Finding = Any

_DURATION_PATTERN = "(ms|s|m|h)$"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """ECMA's `$` is the very end; Python's would let a newline through."""
    return re.compile(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern)


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError("does not match")


@cache
def _validator() -> Any:
    extend: Any = validators.extend  # untyped
    return extend(Draft202012Validator, {"pattern": _pattern})(schema_reader.document())


def validate(document: dict[str, Any], source: Source, report: Report) -> None:
    """Report all of `document` that does not fit the schema, save what is wrong already."""
    for error in list(_validator().iter_errors(document)):
        _Telling(source, report).tell(error)


class _Telling:
    """Puts one finding into words."""

    def __init__(self, source: Source, report: Report) -> None:
        self._source = source
        self._report = report

    def tell(self, error: Finding) -> None:
        path: Path = tuple(error.absolute_path)
        if self._report.covered(path):
            return
        match error.validator:
            case "anyOf":
                self._any_of(error, path)
            case "additionalProperties":
                self._unknown_keys(error, path)
            case "required":
                self._missing(error, path)
            case "uniqueItems":
                self._twice(error, path)
            case _ if "propertyNames" in error.absolute_schema_path:
                self._bad_name(error, path)
            case _:
                self._unexpected(error, path)

    def _any_of(self, error: Finding, path: Path) -> None:
        """The findings of the one alternative that has the right shape, or else what was expected at large."""
        branches: dict[Any, list[Finding]] = {}
        for inner in error.context or ():
            branches.setdefault(inner.schema_path[0], []).append(inner)
        shaped = [
            inner
            for inner in branches.values()
            if isinstance(error.instance, dict | list)
            and not any(e.validator in ("type", "enum") and not e.path for e in inner)
        ]
        if len(shaped) == 1:
            for inner in shaped[0]:
                self.tell(inner)
        else:
            self._unexpected(error, path)

    def _unknown_keys(self, error: Finding, path: Path) -> None:
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key in known or (not path and key.startswith("x-")):
                continue
            at = (*path, key)
            self._report.add(at, self._source.key_mark(at), "unknown key", did_you_mean(key, known))

    def _missing(self, error: Finding, path: Path) -> None:
        for name in error.validator_value:
            if name in error.instance or self._report.covered((*path, name)):
                continue
            wanted = expected(error.schema["properties"][name])
            self._report.add((*path, name), self._source.key_mark(path), f"missing; expected {wanted}")

    def _twice(self, error: Finding, path: Path) -> None:
        seen: set[str] = set()
        for index, item in enumerate(error.instance):
            known = repr(item) in seen
            seen.add(repr(item))
            if known:
                at = (*path, index)
                self._report.add(at, self._source.value_mark(at), f"{found(self._source, at, item)} stands here twice")

    def _bad_name(self, error: Finding, path: Path) -> None:
        at = (*path, error.instance)
        message = f"expected {expected(error.schema)}, found {quoted(error.instance)}"
        self._report.add(at, self._source.key_mark(at), message)

    def _unexpected(self, error: Finding, path: Path) -> None:
        message = f"expected {expected(error.schema)}, found {found(self._source, path, error.instance)}"
        self._report.add(path, self._source.value_mark(path), message, self._hint(error, path))

    def _hint(self, error: Finding, path: Path) -> str:
        value, wanted = error.instance, error.schema
        types = wanted.get("type", ())
        if path[-1:] in (("token",), ("previous",)):
            return "a secret never stands in this file: put it into the environment and write {env: NAME}"
        if value is None and path[-2:-1] == ("env",):
            return 'write "" for empty text'
        if value is None:
            return "give it a value, or remove the key"
        if isinstance(value, bool | int | float):
            if str(wanted.get("pattern", "")).endswith(_DURATION_PATTERN):
                return f'did you mean "{value}s"?' if not isinstance(value, bool) and value >= 0 else ""
            return "put it in quotes" if "string" in types and "integer" not in types else ""
        if isinstance(value, str):
            if "enum" in wanted:
                return did_you_mean(value, [v for v in wanted["enum"] if v], list_all=False)
            node = self._source.node(path)
            if "integer" in types and isinstance(node, Scalar) and not node.plain and _INTEGER.match(value):
                inside = "; where { } or [ ] need them, write this part with one line each" if "${" in node.text else ""
                return f"remove the quotes{inside}"
        return ""


def expected(wanted: schema_reader.Schema) -> str:
    """What a schema asks for, in words."""
    if "title" in wanted:
        return str(wanted["title"])
    if "enum" in wanted:
        *most, last = [str(v) for v in wanted["enum"] if v is not None]
        return f"{', '.join(most)} or {last}" if most else last
    if "anyOf" in wanted:
        return " or ".join(expected(branch) for branch in wanted["anyOf"])
    types = wanted.get("type", "something else")
    return types if isinstance(types, str) else " or ".join(types)
