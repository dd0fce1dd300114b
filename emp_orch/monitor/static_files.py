"""The page's files, read once: what is not in the table cannot be served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent / "static"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    content_type: str
    etag: str


def load(root: Path = ROOT) -> dict[str, StaticFile]:
    """URL path → file, for every file of a known type. `/` is the page itself."""
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
            files["/" + path.relative_to(root).as_posix()] = StaticFile(body, TYPES[path.suffix], etag)
    files["/"] = files["/index.html"]
    return files
