"""ComfyUI's own command line, as far as a service heeds or must accept it.

Anything else ends the process with usage and status 2, as there.

Source: the options of ComfyUI 0.3.64 to 0.33 (comfy/cli_args.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from emp_orch.services.simulation.config import MODEL_KINDS, Folders, folders_below

_SWITCHES = """
auto-launch disable-auto-launch cuda-malloc disable-cuda-malloc force-fp32 force-fp16 fp32-unet fp64-unet bf16-unet
fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet fp16-vae fp32-vae bf16-vae cpu-vae fp8_e4m3fn-text-enc
fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc force-channels-last disable-ipex-optimize
supports-fp8-compute cache-classic cache-none use-split-cross-attention use-quad-cross-attention
use-pytorch-cross-attention use-sage-attention use-flash-attention disable-xformers force-upcast-attention
dont-upcast-attention enable-manager disable-manager-ui enable-manager-legacy-ui gpu-only highvram normalvram lowvram
novram cpu disable-async-offload force-non-blocking disable-smart-memory deterministic disable-pinned-memory
mmap-torch-files disable-mmap dont-print-server quick-test-for-ci windows-standalone-build disable-metadata
disable-all-custom-nodes disable-api-nodes multi-user log-stdout enable-compress-response-body enable-assets
"""
_VALUES = """
tls-keyfile tls-certfile cuda-device default-device oneapi-device-selector preview-size cache-lru reserve-vram
default-hashing-function front-end-version front-end-root comfy-api-base database-url
"""
_MAYBE_VALUES = ("enable-cors-header", "directml", "async-offload", "verbose", "cache-ram")
_PREVIEWS = ("none", "auto", "latent2rgb", "taesd")


def _directory(path: str) -> Path:
    """One that is there."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    return Path(path)


def parser(program: str) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog=program)
    found.add_argument("--listen", default="127.0.0.1", metavar="IP", nargs="?", const="0.0.0.0,::")
    found.add_argument("--port", type=int, default=8188)
    found.add_argument("--max-upload-size", type=float, default=100)
    for name in ("base", "output", "temp", "input", "models"):
        found.add_argument(f"--{name}-directory", type=Path)
    found.add_argument("--user-directory", type=_directory)
    found.add_argument("--extra-model-paths-config", metavar="PATH", nargs="+", action="append", default=[])
    found.add_argument("--preview-method", choices=_PREVIEWS, default="none")
    found.add_argument("--whitelist-custom-nodes", nargs="+", default=[])
    found.add_argument("--fast", nargs="*")
    for name in _SWITCHES.split():
        found.add_argument(f"--{name}", action="store_true")
    for name in _VALUES.split():
        found.add_argument(f"--{name}")
    for name in _MAYBE_VALUES:
        found.add_argument(f"--{name}", nargs="?", const="")
    return found


def folders_of(args: argparse.Namespace, checkout: Path) -> Folders:
    """Where it puts and finds files. `--temp-directory` names the folder above `temp`, as in ComfyUI."""
    base: Path = (args.base_directory or checkout).absolute()
    own = folders_below(base, models=True)
    models = dict(own.models or {})
    if args.models_directory:
        models |= {kind: (args.models_directory.absolute() / kind,) for kind in MODEL_KINDS}
    paths = [Path(path) for group in args.extra_model_paths_config for path in group]
    beside = checkout / "extra_model_paths.yaml"
    for path in [*([beside] if beside.is_file() else []), *paths]:
        for kind, folder in _extra_models(path):
            models[kind] = (*models.get(kind, ()), folder)
    return Folders(
        output=(args.output_directory or own.output).absolute(),
        temp=args.temp_directory.absolute() / "temp" if args.temp_directory else own.temp,
        input=(args.input_directory or own.input).absolute(),
        user=(args.user_directory or own.user).absolute(),
        models=models,
    )


def _extra_models(path: Path) -> Sequence[tuple[str, Path]]:
    """The folders that an extra_model_paths.yaml adds, by kind."""
    found = []
    for group in (yaml.safe_load(path.read_text()) or {}).values():
        if not isinstance(group, dict):
            continue
        base = path.absolute().parent / Path(str(group.get("base_path", ""))).expanduser()
        for kind, lines in group.items():
            if kind not in ("base_path", "is_default"):
                found += [(kind, base / line) for line in str(lines).split("\n") if line]
    return found
