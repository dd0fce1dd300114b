"""What a service says it has, node classes and files of models, and what a workflow needs of that.

A workflow is ComfyUI's API format: node id → `{"class_type": …, "inputs": {…}}`. A file of a model is recognized where
ComfyUI itself would refuse it: as the literal value of an input that is a choice, in a node that an output depends on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

MAX_NAME = 256
MAX_NEEDS = 64
MAX_NODES = 20_000
MAX_MODELS = 200_000
# The capability of a worker that names its services' offers: service → digest.
SERVICE_OFFERS: Final = "service_offers"
# Files in which weights are kept.
MODEL_ENDINGS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
_LONGEST_ENDING: Final = max(map(len, MODEL_ENDINGS))

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
_Names = Annotated[tuple[_Name, ...], Meta(max_length=MAX_NEEDS)]


class Needs(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Node classes and files of models that a service must have. One that does not tell what it has may have them."""

    nodes: _Names = ()
    models: _Names = ()

    @property
    def in_words(self) -> str:
        """`model a.safetensors and node classes B, C`."""
        named = (("model", "models", self.models), ("node class", "node classes", self.nodes))
        return " and ".join(
            f"{one if len(names) == 1 else more} {', '.join(names)}" for one, more, names in named if names
        )


class Offers(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one service has. `nodes`: class → its inputs that are a choice. `outputs`: the classes that end a workflow.

    `models`: the names of all files, as a workflow gives them, whatever their folder.
    """

    nodes: Annotated[dict[_Name, tuple[str, ...]], Meta(max_length=MAX_NODES)] = {}
    outputs: frozenset[str] = frozenset()
    models: Annotated[frozenset[str], Meta(max_length=MAX_MODELS)] = frozenset()


_NOTHING: Mapping[str, Offers] = {}


def is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_model(value: object) -> bool:
    """Whether a value of a workflow looks like a file of a model."""
    return isinstance(value, str) and value[-_LONGEST_ENDING:].lower().endswith(MODEL_ENDINGS) and is_name(value)


def encoded(offers: Offers) -> bytes:
    """One text for the same offers."""
    return msgspec.json.encode(
        {
            "nodes": {name: sorted(offers.nodes[name]) for name in sorted(offers.nodes)},
            "outputs": sorted(offers.outputs),
            "models": sorted(offers.models),
        }
    )


def digest_of(text: bytes) -> str:
    """32 hexadecimal digits."""
    return hashlib.sha256(text).hexdigest()[:32]


def lacking(
    needs: Needs, service: str, capabilities: Mapping[str, Any], known: Mapping[str, Offers] = _NOTHING
) -> Needs | None:
    """What of `needs` a worker's `service` does not have; None when it has all, or does not tell.

    `known`: digest → offers. What emp.yaml lists as the worker's `models` counts as there.
    """
    offers = offers_of(service, capabilities, known)
    if offers is None:
        return None
    own = capabilities.get("models")
    listed = own if isinstance(own, list | tuple) else ()
    nodes = tuple(name for name in needs.nodes if name not in offers.nodes)
    models = tuple(name for name in needs.models if name not in offers.models and name not in listed)
    return Needs(nodes=nodes, models=models) if nodes or models else None


def offers_of(service: str, capabilities: Mapping[str, Any], known: Mapping[str, Offers]) -> Offers | None:
    """The offers of a worker's `service`, where it tells them and they are known."""
    told = capabilities.get(SERVICE_OFFERS)
    digest = told.get(service) if isinstance(told, Mapping) else None
    return known.get(digest) if isinstance(digest, str) else None


def digests_in(capabilities: Mapping[str, Any]) -> Iterator[str]:
    """The digests that a worker names."""
    told = capabilities.get(SERVICE_OFFERS)
    yield from (d for d in told.values() if isinstance(d, str)) if isinstance(told, Mapping) else ()


def both(one: Needs | None, other: Needs | None) -> Needs | None:
    """The needs of both, within the limit."""
    if one is None or other is None:
        return one or other
    return _needs({*one.nodes, *other.nodes}, {*one.models, *other.models})


def _needs(nodes: Iterable[str], models: Iterable[str]) -> Needs | None:
    found = Needs(nodes=tuple(sorted(nodes))[:MAX_NEEDS], models=tuple(sorted(models))[:MAX_NEEDS])
    return found if found.nodes or found.models else None


# What a workflow needs


def workflow_in(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The workflow in a job's payload, in any form that the connector takes; None when there is none to read."""
    for name in ("workflow", "prompt"):
        found = payload.get(name)
        if isinstance(found, str) and found.lstrip().startswith("{"):
            try:
                found = msgspec.json.decode(found)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                return None
        if isinstance(found, dict) and isinstance(inner := found.get("prompt"), dict) and _is_workflow(inner):
            return inner
        if isinstance(found, dict):
            return found if _is_workflow(found) else None
    return payload if _is_workflow(payload) else None


def _is_workflow(value: Mapping[str, Any]) -> bool:
    return any(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in value.values())


def missing(payload: Mapping[str, Any], offers: Offers) -> Needs | None:
    """What the workflow in `payload` needs and a service with these `offers` does not have."""
    workflow = workflow_in(payload)
    if workflow is None:
        return None
    nodes = {
        node["class_type"]: None
        for node in workflow.values()
        if isinstance(node, dict) and is_name(node.get("class_type"))
    }
    unknown = [name for name in nodes if name not in offers.nodes]
    # With `partial`, or a class that is not there, what does not reach an output is dropped: nothing is refused.
    models = set() if payload.get("partial") is True else _missing_models(workflow, offers)
    return _needs(unknown, models)


def _missing_models(workflow: Mapping[str, Any], offers: Offers) -> set[str]:
    return {
        value
        for node_id in _reached(workflow, offers)
        for value in _choices(workflow[node_id], offers)
        if is_model(value) and value not in offers.models
    }


def _choices(node: Mapping[str, Any], offers: Offers) -> Iterator[Any]:
    inputs = node.get("inputs")
    if isinstance(inputs, dict):
        for name in offers.nodes.get(node["class_type"], ()):
            yield inputs.get(name)


def _reached(workflow: Mapping[str, Any], offers: Offers) -> set[str]:
    """The nodes that outputs depend on: ComfyUI looks at no other."""

    def known(node_id: object) -> bool:
        node = workflow.get(node_id) if isinstance(node_id, str) else None
        return isinstance(node, dict) and isinstance(node.get("class_type"), str)

    left = [i for i in workflow if known(i) and workflow[i]["class_type"] in offers.outputs]
    reached = set(left)
    while left:
        inputs = workflow[left.pop()].get("inputs")
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if isinstance(value, list | tuple) and len(value) == 2 and known(value[0]) and value[0] not in reached:
                reached.add(value[0])
                left.append(value[0])
    return reached


# What a run leaves loaded

# Inputs that name the largest part of what a workflow loads; the rest goes on top of it.
_MAIN_INPUTS: Final = frozenset({"ckpt_name", "unet_name", "model_name", "gguf_name", "diffusion_model"})


def model_key(payload: Mapping[str, Any]) -> str:
    """One word for the models that a workflow loads, '' when it names none: 16 hexadecimal digits.

    Workflows with the same base model and other LoRAs have the same.
    """
    workflow = workflow_in(payload)
    named = [
        (name, value)
        for node in (workflow or {}).values()
        if isinstance(node, dict) and isinstance(inputs := node.get("inputs"), dict)
        for name, value in inputs.items()
        if is_model(value)
    ]
    main = sorted({value for name, value in named if name in _MAIN_INPUTS} or {value for _, value in named})
    return hashlib.sha256("\0".join(main).encode()).hexdigest()[:16] if main else ""
