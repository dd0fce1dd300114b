"""The nodes of a text-to-picture workflow, without weights: what they make depends on text and seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from emp_orch.services.simulation import files, png
from emp_orch.services.simulation.config import Folders
from emp_orch.services.simulation.images import Drawn, Image
from emp_orch.services.simulation.nodes.model import At, Given, Input, Made, NodeType

# Larger than any picture a stand-in needs; 2048 × 2048 takes about a second to draw.
MAX_SIDE = 2048
MAX_SEED = 2**64 - 1
_PREVIEW_SIDE = 64

_SAMPLERS = ("euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "lcm")
_SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta")
_SIDE = {"default": 256, "min": 16, "max": MAX_SIDE, "step": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    width: int
    height: int
    batch: int
    seed: int = 0
    text: str = ""


def _models(kind: str) -> Callable[[Folders], Sequence[str] | None]:
    return lambda folders: None if folders.models is None else files.models_in(kind, folders)


def _fixed(*names: str) -> Callable[[Folders], Sequence[str]]:
    return lambda _: names


async def _load(given: Given, _: At) -> Made:
    return Made(values=(given["ckpt_name"],) * 3)


async def _encode(given: Given, _: At) -> Made:
    return Made(values=(str(given["text"]),))


async def _empty(given: Given, _: At) -> Made:
    return Made(values=(Latent(width=given["width"], height=given["height"], batch=given["batch_size"]),))


async def _sample(given: Given, at: At) -> Made:
    before: Latent = given["latent_image"]
    text = f"{given['positive']}\n{given['negative']}"
    for step, most in at.steps(given["steps"]):
        await at.step()
        shown = None
        if at.previews:
            source = Drawn(text=text, seed=given["seed"] + step)
            small = Image(width=_PREVIEW_SIDE, height=_PREVIEW_SIDE, source=source)
            shown = png.encode(png.Picture(width=small.width, height=small.height, rgb=small.rgb()))
        at.progress(step, most, shown)
    return Made(values=(replace(before, seed=given["seed"], text=text),))


async def _decode(given: Given, _: At) -> Made:
    latent: Latent = given["samples"]
    images = tuple(
        Image(width=latent.width, height=latent.height, source=Drawn(text=latent.text, seed=latent.seed + i))
        for i in range(latent.batch)
    )
    return Made(values=(images,))


NODES = {
    "CheckpointLoaderSimple": NodeType(
        inputs={"ckpt_name": Input(kind="STRING", choices=_models("checkpoints"))},
        returns=("MODEL", "CLIP", "VAE"),
        category="loaders",
        display="Load Checkpoint",
        run=_load,
    ),
    "CLIPTextEncode": NodeType(
        inputs={"text": Input(kind="STRING", options={"multiline": True}), "clip": Input(kind="CLIP")},
        returns=("CONDITIONING",),
        category="conditioning",
        display="CLIP Text Encode (Prompt)",
        run=_encode,
    ),
    "EmptyLatentImage": NodeType(
        inputs={
            "width": Input(kind="INT", options=_SIDE),
            "height": Input(kind="INT", options=_SIDE),
            "batch_size": Input(kind="INT", options={"default": 1, "min": 1, "max": 64}),
        },
        returns=("LATENT",),
        category="latent",
        display="Empty Latent Image",
        run=_empty,
    ),
    "KSampler": NodeType(
        inputs={
            "model": Input(kind="MODEL"),
            "seed": Input(kind="INT", options={"default": 0, "min": 0, "max": MAX_SEED}),
            "steps": Input(kind="INT", options={"default": 20, "min": 1, "max": 10_000}),
            "cfg": Input(kind="FLOAT", options={"default": 8.0, "min": 0.0, "max": 100.0}),
            "sampler_name": Input(kind="COMBO", choices=_fixed(*_SAMPLERS)),
            "scheduler": Input(kind="COMBO", choices=_fixed(*_SCHEDULERS)),
            "positive": Input(kind="CONDITIONING"),
            "negative": Input(kind="CONDITIONING"),
            "latent_image": Input(kind="LATENT"),
            "denoise": Input(kind="FLOAT", options={"default": 1.0, "min": 0.0, "max": 1.0}),
        },
        returns=("LATENT",),
        category="sampling",
        display="KSampler",
        run=_sample,
    ),
    "VAEDecode": NodeType(
        inputs={"samples": Input(kind="LATENT"), "vae": Input(kind="VAE")},
        returns=("IMAGE",),
        category="latent",
        display="VAE Decode",
        run=_decode,
    ),
}
