"""What a job says to ComfyUI: every form that users have, made one, with all that is wrong in it.

The forms: the API export as it is, `{"1": {"class_type": …}}`; `{"workflow": …}`; `{"prompt": …}`, also as a whole
request to ComfyUI with `client_id` and `extra_data`; worker-comfyui's `{"input": {"workflow": …}}`; each also as a text
of JSON. The one: `{"workflow": {…}, "partial"?: true, "extra_data"?: {…}}`.
Source: POST /prompt in ComfyUI's server.py, validate_prompt in its execution.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.secrets import COMFY_KEYS, Secrets, fault_of
from emp_orch.jobs.matching.capability import shown

# Texts of JSON within texts of JSON.
MAX_UNPACKED = 2
MAX_TOLD = 50

_EXPORT = "in ComfyUI: Workflow, Export (API); in older versions: Save (API Format)"
_FORMS = '{"workflow": {…}}, {"prompt": {…}}, or the API export itself'
_NAMES = ("workflow", "prompt")
_FIELDS = frozenset({*_NAMES, "partial", "extra_data", "client_id"})
# worker-comfyui's name for it, and ComfyUI's.
_INPUT_KEY = {"comfy_org_api_key": "api_key_comfy_org"}
# The connection and the job's id are emp's own.
_OWN = ("client_id", "emp_job_id")
_PLACE = "a job's place is its priority"
_FILES = "files stand in the job's field inputs, beside payload"
_HINTS = {
    "prompt_id": "emp names each run itself; id or idempotency_key name the job",
    "number": _PLACE,
    "front": _PLACE,
    "partial_execution_targets": "leave out of the workflow what is not to run",
    "inputs": _FILES,
    "images": _FILES,
}


class Asked(Struct, frozen=True, kw_only=True):
    """A payload in its one form, and the secrets that stood in it."""

    payload: dict[str, Any]
    secrets: Secrets = Secrets()


class Classes(Struct, frozen=True, kw_only=True):
    """Node classes that workers of a service report, and which of them end a workflow."""

    known: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()


class Services(Struct, frozen=True, kw_only=True):
    """What is known of the fleet's services when a job is submitted.

    `connectors`: service → its connector, '' for none; a service that is not in it is not known yet. `classes`: those
    of each service whose workers report them.
    """

    connectors: Mapping[str, str] = {}
    classes: Mapping[str, Classes] = {}


def taken(value: object, service: str, services: Services) -> Asked | list[str]:
    """The payload of a job for `service` as the queue takes it, or what is wrong with it."""
    connector = services.connectors.get(service)
    if connector == "comfyui":
        return normalised(value, classes=services.classes.get(service, Classes()))
    if not isinstance(value, dict):
        return [f"payload: expected an object, found {shown(value)}"]
    return hidden(value) if connector is None else Asked(payload=value)


_NO_CLASSES = Classes()


def normalised(value: object, *, classes: Classes = _NO_CLASSES) -> Asked | list[str]:
    """The payload in its one form, or all that is wrong with it, each naming its field or node."""
    problems: list[str] = []
    asked = _asked(value, classes, problems)
    if asked is None or problems:
        return problems if len(problems) <= MAX_TOLD else [*problems[:MAX_TOLD], f"and {len(problems) - MAX_TOLD} more"]
    return asked


def hidden(value: dict[str, Any]) -> Asked | list[str]:
    """For a service of which nothing is known yet: the payload as it is, without the secrets of its `extra_data`."""
    extra = value.get("extra_data")
    if not isinstance(extra, dict) or not any(extra.get(name) for name in COMFY_KEYS):
        return Asked(payload=value)
    problems: list[str] = []
    kept, found = _without_secrets(extra, "payload.extra_data", problems)
    rest = {name: v for name, v in value.items() if name != "extra_data"}
    asked = Asked(payload={**rest, "extra_data": kept} if kept else rest, secrets=Secrets(found))
    _told_once(asked, problems)
    return problems or asked


def _asked(value: object, classes: Classes, problems: list[str]) -> Asked | None:
    request = _unpacked(value, "payload", problems)
    if request is None:
        return None
    where, keys = "payload", {}
    if "input" in request and not _is_node(request["input"]):
        _refuse(request, {"input"}, where, problems)
        where = "payload.input"
        inner = _unpacked(request["input"], where, problems)
        if inner is None:
            return None
        request = {name: v for name, v in inner.items() if name not in _INPUT_KEY}
        keys = {_INPUT_KEY[name]: v for name, v in inner.items() if name in _INPUT_KEY}
    named = [name for name in _NAMES if name in request and not _is_node(request[name])]
    if not named and _is_export(request):
        request, at = {"workflow": request}, where
        named = ["workflow"]
    else:
        _refuse(request, _FIELDS, where, problems)
        at = f"{where}.{named[0]}" if named else where
    extra, secrets = _extra_data(request.get("extra_data"), keys, f"{where}.extra_data", problems)
    partial = request.get("partial", False)
    if not isinstance(partial, bool):
        problems.append(f"{where}.partial: expected true or false, found {shown(partial)}")
    if len(named) != 1:
        what = "has workflow and prompt; give one of the two" if named else f"holds no workflow; give {_FORMS}"
        problems.append(f"{where}: {what}")
        return None
    workflow = _workflow(request[named[0]], at, classes, problems)
    payload: dict[str, Any] = {"workflow": workflow}
    if partial is True:
        payload["partial"] = True
    if extra:
        payload["extra_data"] = extra
    asked = Asked(payload=payload, secrets=Secrets(secrets))
    _told_once(asked, problems)
    return asked


def _unpacked(value: object, where: str, problems: list[str]) -> dict[str, Any] | None:
    """`value` as an object, also one that stands there as a text of JSON."""
    for _ in range(MAX_UNPACKED):
        if not isinstance(value, str):
            break
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as e:
            problems.append(f"{where}: the text is not JSON: {e}")
            return None
    if isinstance(value, dict):
        return value
    problems.append(f"{where}: expected an object, or its JSON as text, found {shown(value)}")
    return None


def _refuse(given: dict[str, Any], known: Collection[str], where: str, problems: list[str]) -> None:
    for name in given:
        if name not in known:
            hint = _HINTS.get(name, f"a payload has {', '.join(sorted(_FIELDS))}")
            problems.append(f"{where}.{_name(name)}: there is no such field; {hint}")


def _is_node(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_type"), str)


def _is_export(value: dict[str, Any]) -> bool:
    """Whether this is a workflow and not what holds one: the API's or the editor's export."""
    if _is_editors(value) or any(_is_node(node) for node in value.values()):
        return True
    return bool(value) and all(isinstance(node, dict) and "inputs" in node for node in value.values())


def _is_editors(value: dict[str, Any]) -> bool:
    return isinstance(value.get("nodes"), list) and isinstance(value.get("links"), list)


def _extra_data(
    value: object, keys: dict[str, Any], where: str, problems: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What goes on to ComfyUI, and the secrets. `keys`: those that stood elsewhere."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"{where}: expected an object, found {type(value).__name__}")
        return {}, {}
    kept = {name: v for name, v in value.items() if name not in _OWN}
    return _without_secrets({**keys, **kept}, where, problems)


def _without_secrets(extra: dict[str, Any], where: str, problems: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    secrets = {}
    for name in COMFY_KEYS:
        if not (value := extra.get(name)):
            continue  # ComfyUI's page sends it empty
        if fault := fault_of(value):
            problems.append(f"{where}.{name}: {fault}")
        else:
            secrets[name] = value
    return {name: v for name, v in extra.items() if name not in COMFY_KEYS}, secrets


def _told_once(asked: Asked, problems: list[str]) -> None:
    """A secret that stands in the payload a second time would be kept and shown with it."""
    if not asked.secrets:
        return
    try:
        text = msgspec.json.encode(asked.payload).decode()
    except (TypeError, ValueError, RecursionError):
        return  # it is refused as it is
    for name, value in asked.secrets.values.items():
        if msgspec.json.encode(value).decode()[1:-1] in text:
            problems.append(f"payload: the value of {name} stands in it elsewhere too, where everybody reads it")


def _workflow(value: object, where: str, classes: Classes, problems: list[str]) -> dict[str, Any]:
    """A workflow in the API's format, each node with its inputs."""
    nodes = _unpacked(value, where, problems)
    if nodes is None:
        return {}
    if _is_editors(nodes):
        problems.append(f"{where}: the workflow is in the editor's format; export it for the API ({_EXPORT})")
        return {}
    if not nodes:
        problems.append(f"{where}: the workflow has no node")
    made = {}
    for node_id, node in nodes.items():
        name = f"{where}: node {_name(node_id)}"
        if not isinstance(node, dict):
            problems.append(f"{name}: expected an object with class_type and inputs, found {shown(node)}")
            continue
        kind, inputs = node.get("class_type"), node.get("inputs", {})
        if not isinstance(kind, str) or not kind:
            problems.append(f"{name}{_titled(node)}: has no class_type")
        else:
            name = f"{name} ({_name(kind)})"
        if isinstance(inputs, dict):
            problems += [f"{name}: {wrong}" for wrong in _loose_links(inputs, nodes)]
        else:
            problems.append(f"{name}: inputs: expected an object, found {shown(inputs)}")
        made[node_id] = node if "inputs" in node else {**node, "inputs": {}}
    kinds = {kind for node in made.values() if isinstance(kind := node.get("class_type"), str)}
    # A class that nobody reports may be an output.
    if kinds and kinds <= classes.known and kinds.isdisjoint(classes.outputs):
        problems.append(f"{where}: no node of it is an output (SaveImage, PreviewImage, …), so nothing would run")
    return made


def _loose_links(inputs: dict[str, Any], nodes: dict[str, Any]) -> list[str]:
    return [
        f"input {_name(name)} links to node {_name(value[0])}, which is not there"
        for name, value in inputs.items()
        if _is_link(value) and value[0] not in nodes
    ]


def _is_link(value: object) -> bool:
    """As ComfyUI tells them: the id of a node and the number of its output."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def _titled(node: dict[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return f" ({_name(title)})" if isinstance(title, str) and title else ""


def _name(name: object) -> str:
    return name if isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable() else shown(name)
