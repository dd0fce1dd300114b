"""What one simulation service is told: where it listens, its folders, how fast it works, as whom it speaks."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from emp_orch.services.simulation.versions import NEWEST, VERSIONS, Version

# Of ComfyUI's folder_paths: the kinds of models that GET /models lists.
MODEL_KINDS = (
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models"),
    *("embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "latent_upscale_models"),
    *("custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders"),
)


class Folders(Struct, frozen=True, kw_only=True):
    """`models`: kind → folders, in the order in which they are searched; None takes any model's name for there."""

    output: Path
    temp: Path
    input: Path
    user: Path
    models: dict[str, tuple[Path, ...]] | None = None

    def of(self, kind: str) -> Path | None:
        """The folder of `type` in a URL."""
        return {"output": self.output, "temp": self.temp, "input": self.input}.get(kind)


def folders_below(base: Path, *, models: bool) -> Folders:
    """ComfyUI's layout: everything below one folder."""
    kinds: dict[str, tuple[Path, ...]] | None = None
    if models:
        kinds = {kind: (base / "models" / kind,) for kind in MODEL_KINDS}
    return Folders(output=base / "output", temp=base / "temp", input=base / "input", user=base / "user", models=kinds)


class SimulationConfig(Struct, frozen=True, kw_only=True):
    """`steps` caps the steps of a sampler; `step_s` is how long one takes. `gpu` is None for a shared service.

    `argv` is what /system_stats tells. `start_delay_s`: nothing listens for so long. `cache` off: every node runs every
    time. `keep` runs are in /history; with `tidy` the files of older ones are removed. `preview_method` as ComfyUI's.
    """

    hosts: tuple[str, ...]
    port: int
    folders: Folders
    gpu: int | None = None
    steps: int = 20
    step_s: float = 0.05
    argv: tuple[str, ...] = ()
    version: str = NEWEST
    shown_version: str = ""
    start_delay_s: float = 0.0
    cache: bool = True
    keep: int = 500
    tidy: bool = True
    preview_method: str = "none"
    max_upload_bytes: int = 100 * 1024 * 1024

    @property
    def speaks(self) -> Version:
        return VERSIONS[self.version]
