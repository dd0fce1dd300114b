"""emp as it is installed here, packed as a wheel: from a checkout and from an installed wheel alike.

No build backend and no network: what runs here is what the image holds. The same emp packs to the same bytes.
Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

from emp_orch import __version__
from emp_orch.errors import EmpError

DISTRIBUTION = "emp-orch"
WHEEL_NAME = f"emp_orch-{__version__}-py3-none-any.whl"
# What lies beside the package in a checkout, and in `_data` in a wheel (pyproject.toml says the same to hatchling).
DATA = ("templates", "schema", "containers", "emp.yaml")
_PACKAGE = Path(__file__).resolve().parents[2]
_INFO = f"emp_orch-{__version__}.dist-info"
_WHEEL = "Wheel-Version: 1.0\nGenerator: emp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# The first moment that a zip file can name.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack() -> bytes:
    """The wheel. Raises EmpError."""
    files = _modules() | _info()
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in sorted(files.items()))
    files[f"{_INFO}/RECORD"] = f"{record}{_INFO}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def requirements() -> list[str]:
    """What emp needs to run, as `Requires-Dist` says it, without the extras for developers."""
    return [line for line in _distribution().requires or [] if "extra ==" not in line]


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _modules() -> dict[str, bytes]:
    found = _below(_PACKAGE, "emp_orch")
    if not (_PACKAGE / "_data").is_dir():
        for name in DATA:
            found |= _below(_PACKAGE.parent / name, f"emp_orch/_data/{name}")
    return found


def _below(path: Path, name: str) -> dict[str, bytes]:
    """The file `path` as `name`, or all files below it; without what Python made of them."""
    if path.is_file():
        return {name: path.read_bytes()}
    inside = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {f"{name}/{p.relative_to(path).as_posix()}": p.read_bytes() for p in inside}


def _info() -> dict[str, bytes]:
    installed = _distribution()
    found = {"WHEEL": _WHEEL}
    for name in ("METADATA", "entry_points.txt"):
        text = installed.read_text(name)
        if not text:
            raise EmpError(f"emp's installation holds no {name}", hint="install emp-orch again")
        found[name] = text
    return {f"{_INFO}/{name}": text.encode() for name, text in found.items()}


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise EmpError("emp is not installed, only its files are here", hint="pip install it, or `make up`") from None
