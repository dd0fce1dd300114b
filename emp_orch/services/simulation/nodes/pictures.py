"""The nodes that make, load, change and save pictures, as ComfyUI's own do."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from emp_orch.services.simulation import files, png
from emp_orch.services.simulation.config import Folders
from emp_orch.services.simulation.images import Image, Mask, Pixels, Solid
from emp_orch.services.simulation.nodes.model import At, Given, Input, Made, NodeFailed, NodeType, always_anew

MAX_RESOLUTION = 16384
_COLOR = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
_SIDE = {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1}
_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
# One of its own for each process, as in ComfyUI.
_TEMP_PREFIX = "ComfyUI_temp_" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5))


async def _empty(given: Given, _: At) -> Made:
    image = Image(width=given["width"], height=given["height"], source=Solid(color=given.get("color", 0)))
    return Made(values=((image,) * given["batch_size"],))


async def _invert(given: Given, _: At) -> Made:
    inverted = [await asyncio.to_thread(image.inverted) for image in given["image"]]
    return Made(values=(tuple(inverted),))


async def _scale(given: Given, _: At) -> Made:
    width, height = given["width"], given["height"]
    images: Sequence[Image] = given["image"]
    if not width and not height:
        return Made(values=(images,))
    scaled = []
    for image in images:
        w = width or max(1, round(image.width * height / image.height))
        h = height or max(1, round(image.height * width / image.width))
        scaled.append(await asyncio.to_thread(image.scaled, w, h))
    return Made(values=(tuple(scaled),))


def _read(name: str, folders: Folders) -> png.Picture:
    path = files.input_file(name, folders)
    if path is None:
        raise NodeFailed(f"[Errno 2] No such file or directory: '{folders.input / name}'", kind="FileNotFoundError")
    try:
        return png.decode(path.read_bytes())
    except png.NotPng as e:
        words = f"cannot identify image file '{path}' (the simulation reads PNG: {e})"
        raise NodeFailed(words, kind="PIL.UnidentifiedImageError") from e


async def _load(given: Given, at: At) -> Made:
    read = await asyncio.to_thread(_read, given["image"], at.folders)
    image = Image(width=read.width, height=read.height, source=Pixels(rgb=read.rgb))
    if read.alpha is None:
        return Made(values=((image,), Mask(width=64, height=64, plane=bytes(64 * 64))))
    masked = bytes(255 - a for a in read.alpha)
    return Made(values=((image,), Mask(width=read.width, height=read.height, plane=masked)))


async def _load_mask(given: Given, at: At) -> Made:
    read = await asyncio.to_thread(_read, given["image"], at.folders)
    if given["channel"] == "alpha":
        return Made(values=(await _load(given, at)).values[1:])
    plane = read.rgb[("red", "green", "blue").index(given["channel"]) :: 3]
    return Made(values=(Mask(width=read.width, height=read.height, plane=plane),))


async def _mask_to_image(given: Given, _: At) -> Made:
    mask: Mask = given["mask"]
    return Made(values=((mask.image(),),))


def _content(given: Given, folders: Folders) -> str:
    path = files.input_file(str(given["image"]), folders)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""


def _there(given: Given, folders: Folders) -> str | None:
    name = str(given["image"])
    return None if files.input_file(name, folders) else f"Invalid image file: {name}"


async def _save(given: Given, at: At) -> Made:
    return await _write(given["images"], at, "output", str(given["filename_prefix"]))


async def _preview(given: Given, at: At) -> Made:
    return await _write(given["images"], at, "temp", _TEMP_PREFIX)


def _texts(at: At) -> dict[str, str]:
    """What ComfyUI keeps in each file: the prompt, and whatever else the client gave for it."""
    extra: Any = at.extra_data.get("extra_pnginfo")
    kept = {"prompt": at.prompt, **(extra if isinstance(extra, dict) else {})}
    return {str(key): msgspec.json.encode(value).decode() for key, value in kept.items()}


async def _write(images: Sequence[Image], at: At, kind: str, prefix: str) -> Made:
    root = at.folders.output if kind == "output" else at.folders.temp
    try:
        target = files.save_path(prefix, root, width=images[0].width, height=images[0].height)
    except files.Outside as e:
        raise NodeFailed(str(e), kind="Exception") from e
    texts, names = _texts(at), []
    for number, image in enumerate(images):
        name = target.file(number)
        await asyncio.to_thread(_write_one, image, target, name, texts)
        names.append(name)
    at.made(kind, names, target.subfolder)
    told = [{"filename": name, "subfolder": target.subfolder, "type": kind} for name in names]
    return Made(values=(images,), ui={"images": told})


def _write_one(image: Image, target: files.SavePath, name: str, texts: dict[str, str]) -> None:
    picture = png.Picture(width=image.width, height=image.height, rgb=image.rgb(), texts=texts)
    with (target.folder / name).open("wb") as f:  # whoever comes last under this name wins, as in ComfyUI
        f.write(png.encode(picture))


async def _send(given: Given, at: At) -> Made:
    images: Sequence[Image] = given["images"]
    for number, image in enumerate(images):
        rgb = await asyncio.to_thread(image.rgb)
        at.progress(number, len(images), png.encode(png.Picture(width=image.width, height=image.height, rgb=rgb)))
    return Made()


_LOADED = Input(kind="COMBO", options={"image_upload": True}, choices=lambda folders: files.images_in(folders.input))
_CHANNELS = ("alpha", "red", "green", "blue")

NODES = {
    "EmptyImage": NodeType(
        inputs={
            "width": Input(kind="INT", options=_SIDE),
            "height": Input(kind="INT", options=_SIDE),
            "batch_size": Input(kind="INT", options={"default": 1, "min": 1, "max": 4096}),
            "color": Input(kind="INT", options=_COLOR),
        },
        returns=("IMAGE",),
        category="image",
        display="EmptyImage",
        run=_empty,
    ),
    "LoadImage": NodeType(
        inputs={"image": _LOADED},
        returns=("IMAGE", "MASK"),
        category="image",
        display="Load Image",
        run=_load,
        changed=_content,
        valid=_there,
        valid_inputs=frozenset({"image"}),
    ),
    "LoadImageMask": NodeType(
        inputs={"image": _LOADED, "channel": Input(kind="COMBO", choices=lambda _: _CHANNELS)},
        returns=("MASK",),
        category="mask",
        display="Load Image (as Mask)",
        run=_load_mask,
        changed=_content,
        valid=_there,
        valid_inputs=frozenset({"image"}),
    ),
    "MaskToImage": NodeType(
        inputs={"mask": Input(kind="MASK")},
        returns=("IMAGE",),
        category="mask",
        display="Convert Mask to Image",
        run=_mask_to_image,
        module="comfy_extras.nodes_mask",
    ),
    "ImageInvert": NodeType(
        inputs={"image": Input(kind="IMAGE")},
        returns=("IMAGE",),
        category="image",
        display="Invert Image",
        run=_invert,
    ),
    "ImageScale": NodeType(
        inputs={
            "image": Input(kind="IMAGE"),
            "upscale_method": Input(kind="COMBO", choices=lambda _: _METHODS),
            "width": Input(kind="INT", options=_SIDE | {"min": 0}),
            "height": Input(kind="INT", options=_SIDE | {"min": 0}),
            "crop": Input(kind="COMBO", choices=lambda _: ("disabled", "center")),
        },
        returns=("IMAGE",),
        category="image/upscaling",
        display="Upscale Image",
        run=_scale,
    ),
    "SaveImage": NodeType(
        inputs={
            "images": Input(kind="IMAGE"),
            "filename_prefix": Input(kind="STRING", options={"default": "ComfyUI"}),
        },
        returns=(),
        category="image",
        display="Save Image",
        run=_save,
        is_output=True,
    ),
    "PreviewImage": NodeType(
        inputs={"images": Input(kind="IMAGE")},
        returns=(),
        category="image",
        display="Preview Image",
        run=_preview,
        is_output=True,
    ),
    "SaveImageWebsocket": NodeType(
        inputs={"images": Input(kind="IMAGE")},
        returns=(),
        category="api/image",
        display="SaveImageWebsocket",
        run=_send,
        is_output=True,
        module="custom_nodes.websocket_image_save",
        changed=always_anew,
    ),
}
