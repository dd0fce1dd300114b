"""The settings of a connector by its kind: emp's own, and what other packages say of theirs in `emp.connector_options`.

That entry point is a JSON Schema (a mapping), or a function of the options that raises ValueError, or CannotLoad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from emp_orch.options import comfyui, http
from emp_orch.options.base import CannotLoad, WrongOption, no_options

GROUP = "emp.connector_options"

_BUILTIN: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "comfyui": comfyui.options_of,
    "http": http.options_of,
    "simulation": partial(no_options, "simulation"),
}


def check(kind: str, options: Mapping[str, Any]) -> None:
    """Raises WrongOption. What nobody here knows how to judge is judged where its worker starts."""
    if (own := _BUILTIN.get(kind)) is not None:
        own(options)
        return
    rule = _theirs(kind)
    if isinstance(rule, Mapping):
        _by_schema(kind, rule, options)
    elif callable(rule):
        try:
            rule(dict(options))
        except WrongOption:
            raise
        except CannotLoad as e:
            raise WrongOption(kind, "", e.message, e.hint) from e
        except ValueError as e:
            raise WrongOption(kind, "", str(e) or "is wrong") from e
        except Exception:  # noqa: BLE001  # another's code: a worker's start tells of it
            return


def _theirs(kind: str) -> Any:
    """What one package says; None where none does, or one is broken."""
    from importlib.metadata import entry_points

    try:
        found = list(entry_points(group=GROUP).select(name=kind))
        return found[0].load() if len(found) == 1 else None
    except (Exception, SystemExit):  # noqa: BLE001  # another's code, and its files
        return None


def _by_schema(kind: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    try:
        Draft202012Validator.check_schema(schema)
        wrong = best_match(Draft202012Validator(dict(schema)).iter_errors(dict(options)))
    except SchemaError:
        return  # not the user's fault
    if wrong is None:
        return
    name = ".".join(str(step) for step in wrong.absolute_path)
    match wrong.validator:
        case "required":
            missing = next((n for n in wrong.validator_value if n not in wrong.instance), "")
            raise WrongOption(kind, ".".join(filter(None, (name, str(missing)))), "is missing", _about(schema, missing))
        case "additionalProperties":
            known = wrong.schema.get("properties", {})
            extra = next((n for n in wrong.instance if n not in known), "")
            hint = f"there are: {', '.join(known)}"
            raise WrongOption(kind, ".".join(filter(None, (name, str(extra)))), "is unknown", hint)
        case "enum":
            hint = f"one of {', '.join(map(str, wrong.validator_value))}"
        case rule:
            hint = f"{rule}: {wrong.validator_value}"
    raise WrongOption(kind, name, "does not fit", f"expected {hint}", found=wrong.instance)


def _about(schema: Mapping[str, Any], name: str) -> str:
    told = schema.get("properties", {})
    return str(told.get(name, {}).get("description", "")) if isinstance(told, Mapping) else ""
