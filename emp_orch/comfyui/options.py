"""ComfyUI's command line: the options that emp sets, and those that would undo what it sets.

Source: comfy/cli_args.py of the versions that docs/comfyui.md names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LISTEN = "--listen"
PORT = "--port"
OUTPUT = "--output-directory"
TEMP = "--temp-directory"
INPUT = "--input-directory"
USER = "--user-directory"
DATABASE = "--database-url"
EXTRA_MODELS = "--extra-model-paths-config"
UPLOAD = "--max-upload-size"

# Without one of these, a second slot would take the port or the pictures of the first.
NEEDED = (LISTEN, PORT, OUTPUT, TEMP, INPUT)
# What older versions lack, and what slots then share.
LATER = {
    USER: "its settings and saved workflows lie in the checkout, and all slots write there",
    DATABASE: "it has no database, or all slots share the one in the checkout",
}

_FOLDERS = "emp gives each slot a folder of its own, below its machine's"
_DEVICES = "emp gives each slot its device: gpus of the machine says which"
_PLAIN = "emp reaches it by plain HTTP on loopback"
_REFUSED = {
    LISTEN: "emp has it listen on loopback; publish of the machine opens it",
    PORT: "emp gives each slot a port: port of the service says the first",
    OUTPUT: _FOLDERS,
    TEMP: _FOLDERS,
    INPUT: _FOLDERS,
    USER: _FOLDERS,
    DATABASE: "emp gives each slot a database of its own",
    "--cuda-device": _DEVICES,
    "--default-device": _DEVICES,
    "--tls-keyfile": _PLAIN,
    "--tls-certfile": _PLAIN,
    "--quick-test-for-ci": "with it ComfyUI ends as soon as it is up",
}


def refused(args: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Of the words of a user's own: index, option and reason of each that undoes what emp sets.

    Abbreviations too: argparse takes `--out` for `--output-directory`.
    """
    for index, word in enumerate(args):
        name = word.partition("=")[0]
        if not name.startswith("--") or len(name) == len("--"):
            continue
        meant = next((option for option in _REFUSED if option.startswith(name)), None)
        if meant is not None:
            yield index, meant, _REFUSED[meant]
