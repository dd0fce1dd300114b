"""The node types that the simulation knows, and ComfyUI's validation of a prompt against them.

Shapes and error texts follow ComfyUI's `object_info` and `execution.validate_prompt`
(https://github.com/comfyanonymous/ComfyUI), so that a client written for it works unchanged.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

# Larger than any picture a stand-in needs; 2048 × 2048 takes about a second to draw.
MAX_SIDE = 2048
MAX_SEED = 2**64 - 1


class NodeType(Struct, frozen=True, kw_only=True):
    """`inputs`: name → (type or list of choices, options). A name in `optional` may be left out."""

    inputs: dict[str, tuple[str | tuple[str, ...], dict[str, Any]]]
    returns: tuple[str, ...]
    category: str
    display: str
    optional: frozenset[str] = frozenset()
    is_output: bool = False


_SAMPLERS = ("euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "lcm")
_SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta")
_SIDE = {"default": 256, "min": 16, "max": MAX_SIDE, "step": 8}

NODES: dict[str, NodeType] = {
    "CheckpointLoaderSimple": NodeType(
        inputs={"ckpt_name": ("STRING", {})},
        returns=("MODEL", "CLIP", "VAE"),
        category="loaders",
        display="Load Checkpoint",
    ),
    "CLIPTextEncode": NodeType(
        inputs={"text": ("STRING", {"multiline": True}), "clip": ("CLIP", {})},
        returns=("CONDITIONING",),
        category="conditioning",
        display="CLIP Text Encode (Prompt)",
    ),
    "EmptyLatentImage": NodeType(
        inputs={
            "width": ("INT", _SIDE),
            "height": ("INT", _SIDE),
            "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
        },
        returns=("LATENT",),
        category="latent",
        display="Empty Latent Image",
    ),
    "KSampler": NodeType(
        inputs={
            "model": ("MODEL", {}),
            "seed": ("INT", {"default": 0, "min": 0, "max": MAX_SEED}),
            "steps": ("INT", {"default": 20, "min": 1, "max": 10_000}),
            "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}),
            "sampler_name": (_SAMPLERS, {}),
            "scheduler": (_SCHEDULERS, {}),
            "positive": ("CONDITIONING", {}),
            "negative": ("CONDITIONING", {}),
            "latent_image": ("LATENT", {}),
            "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}),
        },
        returns=("LATENT",),
        category="sampling",
        display="KSampler",
    ),
    "VAEDecode": NodeType(
        inputs={"samples": ("LATENT", {}), "vae": ("VAE", {})},
        returns=("IMAGE",),
        category="latent",
        display="VAE Decode",
    ),
    "SaveImage": NodeType(
        inputs={"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
        returns=(),
        category="image",
        display="Save Image",
        is_output=True,
    ),
    "PreviewImage": NodeType(
        inputs={"images": ("IMAGE", {})}, returns=(), category="image", display="Preview Image", is_output=True
    ),
    # The simulation's own: a node that fails while it runs, to try out what a failing workflow looks like.
    "SimulatedError": NodeType(
        inputs={"message": ("STRING", {"default": "simulated failure"}), "images": ("IMAGE", {})},
        returns=("IMAGE",),
        category="simulation",
        display="Simulated Error",
        optional=frozenset({"images"}),
        is_output=True,
    ),
}

Prompt = dict[str, dict[str, Any]]


class Invalid(Struct, frozen=True, kw_only=True):
    """Why a prompt was refused: the body of ComfyUI's 400 answer."""

    error: dict[str, Any]
    node_errors: dict[str, Any]


def problem(type_: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    return {"type": type_, "message": message, "details": details, "extra_info": extra}


def object_info(name: str) -> dict[str, Any]:
    """The node type `name` as `/object_info` shows it."""
    node = NODES[name]

    def fields(*, optional: bool) -> dict[str, Any]:
        return {
            key: [list(kind) if isinstance(kind, tuple) else kind, *([options] if options else [])]
            for key, (kind, options) in node.inputs.items()
            if (key in node.optional) == optional
        }

    return {
        "input": {"required": fields(optional=False), "optional": fields(optional=True)},
        "input_order": {
            "required": [k for k in node.inputs if k not in node.optional],
            "optional": [k for k in node.inputs if k in node.optional],
        },
        "output": list(node.returns),
        "output_is_list": [False] * len(node.returns),
        "output_name": list(node.returns),
        "name": name,
        "display_name": node.display,
        "description": "",
        "python_module": "nodes",
        "category": node.category,
        "output_node": node.is_output,
    }


def link(value: object) -> tuple[str, int] | None:
    """The (node id, output index) that an input refers to, or None when it is a plain value."""
    match value:
        case [str(source), int(index)] if not isinstance(index, bool):
            return source, index
        case _:
            return None


def _number(kind: str, value: Any) -> int | float | None:
    try:
        return int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _check_value(
    name: str, kind: str | tuple[str, ...], options: dict[str, Any], value: object
) -> dict[str, Any] | None:
    extra = {"input_name": name, "received_value": value}
    if isinstance(kind, tuple):
        if value in kind:
            return None
        return problem("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {list(kind)}", **extra)
    if kind in ("INT", "FLOAT"):
        number = _number(kind, value)
        if number is None:
            message = f"Failed to convert an input value to a {kind} value"
            return problem("invalid_input_type", message, f"{name}, {value!r}", **extra)
        if "min" in options and number < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return problem("value_smaller_than_min", message, name, **extra)
        if "max" in options and number > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return problem("value_bigger_than_max", message, name, **extra)
        return None
    if kind == "STRING":
        if isinstance(value, str | int | float | bool):
            return None
        return problem(
            "invalid_input_type", "Failed to convert an input value to a STRING value", f"{name}, {value!r}", **extra
        )
    return problem("bad_linked_input", f"Bad linked input, must be a link to a {kind}", name, **extra)


def _check_link(name: str, kind: str | tuple[str, ...], at: tuple[str, int], prompt: Prompt) -> dict[str, Any] | None:
    source, index = at
    if source not in prompt:
        return problem("bad_linked_input", "Linked node does not exist", f"{name}, node {source}", input_name=name)
    returns = NODES[prompt[source]["class_type"]].returns
    if not 0 <= index < len(returns):
        details = f"{name}, node {source} has no output {index}"
        return problem("bad_linked_input", "Linked output does not exist", details, input_name=name)
    if returns[index] != kind and not isinstance(kind, tuple):
        message = "Return type mismatch between linked nodes"
        details = f"{name}, received_type({returns[index]}) mismatch input_type({kind})"
        return problem("return_type_mismatch", message, details, input_name=name)
    return None


def _check_node(node_id: str, prompt: Prompt) -> list[dict[str, Any]]:
    node = prompt[node_id]
    given: dict[str, Any] = node["inputs"]
    found: list[dict[str, Any]] = []
    for name, (kind, options) in NODES[node["class_type"]].inputs.items():
        if name not in given:
            if name not in NODES[node["class_type"]].optional:
                found.append(problem("required_input_missing", "Required input is missing", name, input_name=name))
            continue
        at = link(given[name])
        wrong = _check_link(name, kind, at, prompt) if at else _check_value(name, kind, options, given[name])
        if wrong:
            found.append(wrong)
    return found


def order(prompt: Prompt, outputs: list[str]) -> list[str] | None:
    """Node ids so that each comes after what it is linked to; None when links form a ring."""
    done: dict[str, None] = {}
    path: set[str] = set()
    for root in outputs:
        stack = [(root, False)]
        while stack:
            node_id, leaving = stack.pop()
            if leaving:
                path.discard(node_id)
                done[node_id] = None
                continue
            if node_id in done:
                continue
            if node_id in path:
                return None
            path.add(node_id)
            stack.append((node_id, True))
            needs = [at[0] for v in prompt[node_id]["inputs"].values() if (at := link(v)) and at[0] not in done]
            if any(n in path for n in needs):
                return None
            stack.extend((n, False) for n in needs)
    return list(done)


def _check_shape(prompt: object) -> Invalid | None:
    if not isinstance(prompt, dict) or not prompt:
        details = f"a prompt is an object of nodes, this is {type(prompt).__name__}" if prompt else "it is empty"
        return Invalid(error=problem("invalid_prompt", "Prompt is not an object of nodes", details), node_errors={})
    for node_id, node in prompt.items():
        where = f"Node ID '#{node_id}'"
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            message = "Cannot execute because a node is missing the class_type property."
            return Invalid(error=problem("invalid_prompt", message, where), node_errors={})
        if node["class_type"] not in NODES:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Invalid(error=problem("invalid_prompt", message, where), node_errors={})
        if not isinstance(node.get("inputs"), dict):
            message = "Cannot execute because a node is missing the inputs property."
            return Invalid(error=problem("invalid_prompt", message, where), node_errors={})
    return None


def validate(prompt: object) -> Invalid | tuple[Prompt, list[str]]:
    """The prompt with the ids of its output nodes, or what is wrong with it: every node error at once."""
    if wrong := _check_shape(prompt):
        return wrong
    checked: Prompt = prompt  # type: ignore[assignment]  # its shape was checked just now
    outputs = [i for i, node in checked.items() if NODES[node["class_type"]].is_output]
    if not outputs:
        return Invalid(error=problem("prompt_no_outputs", "Prompt has no outputs"), node_errors={})
    node_errors = {
        node_id: {"errors": errors, "dependent_outputs": outputs, "class_type": checked[node_id]["class_type"]}
        for node_id in checked
        if (errors := _check_node(node_id, checked))
    }
    if node_errors:
        details = "\n".join(
            f"* {e['class_type']} {i}:\n" + "\n".join(f"    - {x['message']}: {x['details']}" for x in e["errors"])
            for i, e in node_errors.items()
        )
        error = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Invalid(error=error, node_errors=node_errors)
    if order(checked, outputs) is None:
        error = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", "its links form a ring")
        return Invalid(error=error, node_errors={})
    return checked, outputs
