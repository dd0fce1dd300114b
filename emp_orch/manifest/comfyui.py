"""`builtin: comfyui` in emp.yaml: what a service's own keys say, and what it is filled with."""

from __future__ import annotations

from typing import Any

from emp_orch.fleet.model.fleet import Checkout, ModelSection
from emp_orch.manifest import schema_reader

COMFYUI = "comfyui"
KEYS = ("path", "python", "args", "models")


def read(d: dict[str, Any]) -> Checkout | None:
    """What a service's own keys say, defaults filled in; None when it is no builtin comfyui."""
    if d["builtin"] != COMFYUI:
        return None
    models = d["models"]
    folders = [models] if isinstance(models, str) else models if isinstance(models, list) else []
    return Checkout(
        path=d["path"] or "",
        python=d["python"] or None,
        args=tuple(str(word) for word in d["args"]),
        model_folders=tuple(folders),
        model_sections=tuple(_section(n, s) for n, s in models.items()) if isinstance(models, dict) else (),
    )


def patient(raw: dict[str, Any]) -> dict[str, Any] | None:
    """The health check that a service asks for, where its `command` starts ComfyUI: what it leaves open fits that."""
    if raw.get("health") is None:
        return None
    filled: dict[str, Any] = schema_reader.fill(schema_reader.sub("services", "*"), {**raw, "builtin": COMFYUI})[
        "health"
    ]
    return filled


def _section(name: str, d: dict[str, Any]) -> ModelSection:
    return ModelSection(
        name=name, paths=tuple((key, "\n".join(v) if isinstance(v, list) else v) for key, v in d.items())
    )
