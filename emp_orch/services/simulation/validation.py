"""ComfyUI's validation of a prompt: which outputs can run, and what is wrong with the others.

Words, types and their order follow `validate_prompt` of ComfyUI's execution.py
(https://github.com/comfyanonymous/ComfyUI), so that a client written for it works unchanged.
"""

from __future__ import annotations

import traceback
from typing import Any

from msgspec import Struct

from emp_orch.services.simulation.config import Folders
from emp_orch.services.simulation.nodes import NODES
from emp_orch.services.simulation.nodes.model import Input, NodeType, Prompt

# Longer lists of choices are not repeated in an error.
_LISTED = 20

Problem = dict[str, Any]


class Invalid(Struct, frozen=True, kw_only=True):
    """Why a prompt was refused: the body of ComfyUI's 400 answer."""

    error: Problem
    node_errors: dict[str, Any]


class Valid(Struct, frozen=True, kw_only=True):
    """A prompt that runs. `outputs` are the nodes to run for; `node_errors` tell of those that are left out."""

    prompt: Prompt
    outputs: list[str]
    node_errors: dict[str, Any]


def problem(type_: str, message: str, details: str = "", **extra: Any) -> Problem:
    return {"type": type_, "message": message, "details": details, "extra_info": extra}


def validate(
    prompt: Any, folders: Folders, *, only: object = None, names_missing_nodes: bool = True
) -> Invalid | Valid:
    """The outputs of `prompt` that can run. `only`: the ids of output nodes to look at, or all.

    Values are converted in place to what their inputs take, as ComfyUI does.
    """
    outputs: list[str] = []
    for node_id in prompt:
        class_type = prompt[node_id].get("class_type")
        if class_type not in NODES:
            error = _missing(node_id, prompt[node_id], class_type, named=names_missing_nodes)
            return Invalid(error=error, node_errors={})
        if NODES[class_type].is_output and (not isinstance(only, list) or node_id in only):
            outputs.append(node_id)
    if not outputs:
        return Invalid(error=problem("prompt_no_outputs", "Prompt has no outputs"), node_errors={})
    look = _Look(prompt, folders)
    good, lines, node_errors = [], [], dict[str, Any]()
    for node_id in outputs:
        if look.output(node_id):
            good.append(node_id)
            continue
        lines += [f"{e['message']}: {e['details']}" for e in look.found[node_id]]
        for at, errors in look.found.items():
            if errors:
                known = {"errors": errors, "dependent_outputs": [], "class_type": prompt[at]["class_type"]}
                node_errors.setdefault(at, known)["dependent_outputs"].append(node_id)
    if good:
        return Valid(prompt=prompt, outputs=good, node_errors=node_errors)
    words = "Prompt outputs failed validation"
    return Invalid(error=problem("prompt_outputs_failed_validation", words, "\n".join(lines)), node_errors=node_errors)


def _missing(node_id: str, node: dict[str, Any], class_type: object, *, named: bool) -> Problem:
    details = f"Node ID '#{node_id}'"
    if not named:
        words = (
            "a node is missing the class_type property." if class_type is None else f"node {class_type} does not exist."
        )
        return problem("invalid_prompt", f"Cannot execute because {words}", details)
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if class_type is None:
        words = f"Node '{title or f'ID #{node_id}'}' has no class_type."
        words += " The workflow may be corrupted or a custom node is missing."
    else:
        title = title or class_type
        words = f"Node '{title}' not found. The custom node may not be installed."
    return problem("missing_node_type", words, details, node_id=node_id, class_type=class_type, node_title=title)


class _Look:
    """One look at the nodes of a prompt: each once, its inputs before itself."""

    def __init__(self, prompt: Prompt, folders: Folders) -> None:
        self._prompt = prompt
        self._folders = folders
        # What is wrong with each node that was looked at. Empty and not in `_good`: something before it is wrong.
        self.found: dict[str, list[Problem]] = {}
        self._good: set[str] = set()
        self._path: list[str] = []

    def output(self, node_id: str) -> bool:
        try:
            return self._node(node_id)
        except Exception as e:  # noqa: BLE001  # as ComfyUI: whatever a malformed prompt raises is told to the client
            extra = {"exception_type": type(e).__name__, "traceback": traceback.format_tb(e.__traceback__)}
            self.found[node_id] = [
                problem("exception_during_validation", "Exception when validating node", str(e), **extra)
            ]
            self._path.clear()
            return False

    def _node(self, node_id: str) -> bool:
        if node_id in self._path:
            self._ring(self._path[self._path.index(node_id) :])
        if node_id in self.found:
            return node_id in self._good
        given: dict[str, Any] = self._prompt[node_id]["inputs"]
        kind = NODES[self._prompt[node_id]["class_type"]]
        errors: list[Problem] = []
        before = True
        for name, spec in kind.inputs.items():
            if name not in given:
                if not spec.optional:
                    errors.append(problem("required_input_missing", "Required input is missing", name, input_name=name))
            elif isinstance(given[name], list):
                before = self._link(node_id, name, spec, given[name], errors) and before
            else:
                errors += self._value(kind, name, spec, given)
        if not errors and before and kind.valid is not None and (words := kind.valid(given, self._folders)):
            for name in sorted(kind.valid_inputs):
                message = "Custom validation failed for node"
                errors.append(problem("custom_validation_failed", message, f"{name} - {words}", input_name=name))
        errors = [*self.found.get(node_id, []), *errors]
        self.found[node_id] = errors
        if not errors and before:
            self._good.add(node_id)
        return node_id in self._good

    def _ring(self, ring: list[str]) -> None:
        shown = " -> ".join(f"{i} ({self._prompt[i]['class_type']})" for i in [*ring, ring[0]])
        for node_id in ring:
            extra = {"node_id": node_id, "cycle_nodes": ring}
            self.found[node_id] = [problem("dependency_cycle", "Dependency cycle detected", shown, **extra)]

    def _link(self, node_id: str, name: str, spec: Input, value: list[Any], errors: list[Problem]) -> bool:
        """Whether what `value` refers to is in order; what is wrong with the link itself goes into `errors`."""
        config = spec.shown(self._folders)
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            about = {"input_name": name, "input_config": config, "received_value": value}
            errors.append(problem("bad_linked_input", message, name, **about))
            return True
        source = value[0]
        returned = NODES[self._prompt[source]["class_type"]].returns[value[1]]
        if not _fits(returned, config[0]):
            details = f"{name}, received_type({returned}) mismatch input_type({config[0]})"
            about = {"input_name": name, "input_config": config, "received_type": returned, "linked_node": value}
            errors.append(
                problem("return_type_mismatch", "Return type mismatch between linked nodes", details, **about)
            )
            return True
        self._path.append(node_id)
        try:
            return self._node(source)
        except Exception as e:  # noqa: BLE001  # as in `output`, for the node that raised
            about = {"input_name": name, "exception_message": str(e), "linked_node": value}
            message = "Exception when validating inner node"
            self.found[source] = [problem("exception_during_inner_validation", message, str(e), **about)]
            return False
        finally:
            self._path.pop()

    def _value(self, kind: NodeType, name: str, spec: Input, given: dict[str, Any]) -> list[Problem]:
        value = given[name]
        if isinstance(value, dict) and "__value__" in value:
            value = given[name] = value["__value__"]
        wanted, options = spec.shown(self._folders)
        about: dict[str, Any] = {"input_name": name, "input_config": (wanted, options), "received_value": value}
        try:
            value = given[name] = _converted(wanted, value)
        except (TypeError, ValueError, OverflowError) as e:
            message = f"Failed to convert an input value to a {wanted} value"
            about["exception_message"] = str(e)
            return [problem("invalid_input_type", message, f"{name}, {value}, {e}", **about)]
        if name in kind.valid_inputs:
            return []
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return [problem("value_smaller_than_min", message, name, **about)]
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return [problem("value_bigger_than_max", message, name, **about)]
        if isinstance(wanted, list) and value not in wanted:
            listed = str(wanted) if len(wanted) <= _LISTED else f"(list of length {len(wanted)})"
            if len(wanted) > _LISTED:
                about["input_config"] = None
            return [problem("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {listed}", **about)]
        return []


def _fits(returned: str, wanted: str | list[str]) -> bool:
    """A combo takes texts too; `*` takes and gives anything."""
    if isinstance(wanted, list):
        return returned in ("COMBO", "STRING", "*")
    return returned == wanted or "*" in (returned, wanted)


def _converted(wanted: str | list[str], value: Any) -> Any:
    match wanted:
        case "INT":
            return int(value)
        case "FLOAT":
            return float(value)
        case "STRING":
            return str(value)
        case "BOOLEAN":
            return bool(value)
        case _:
            return value
