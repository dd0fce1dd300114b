"""The page's files, read once: what is not in the table cannot be served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from emp_orch.roles import Role

ROOT = Path(__file__).parent / "static"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# In the page's head, where the names of all modules go: a browser that learns them one import at a time asks six times
# over before it draws anything.
MODULES = b'<link rel="modulepreload" href="/js/main.js">'
HTML = b'<html lang="en">'
# What is fetched by other means, or when it is first needed.
NOT_AT_ONCE = frozenset({"/js/theme.js", "/js/boot.js", "/vendor/uPlot.esm.js"})


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    content_type: str
    etag: str


def load(root: Path = ROOT, *, role: Role = Role.OPERATE) -> dict[str, StaticFile]:
    """URL path → file, for every file of a known type. `/` is the page itself, which is told its `role`."""
    found = {
        "/" + path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix in TYPES
    }
    modules = [name for name in found if name.endswith(".js") and name not in NOT_AT_ONCE]
    links = b"\n  ".join(b'<link rel="modulepreload" href="%b">' % name.encode() for name in modules)
    page = HTML if role is Role.OPERATE else HTML[:-1] + b' data-role="%b">' % role.encode()
    files = {name: _file(path, links, page) for name, path in found.items()}
    files["/"] = files["/index.html"]
    return files


def _file(path: Path, links: bytes, page: bytes) -> StaticFile:
    body = path.read_bytes()
    if path.suffix == ".html":
        body = body.replace(MODULES, links).replace(HTML, page)
    return StaticFile(body, TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:24]}"')
