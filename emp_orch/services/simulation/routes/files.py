"""Files: look at what was made, and put in what a workflow loads."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from emp_orch.services.simulation import files, png
from emp_orch.services.simulation.config import Folders
from emp_orch.services.simulation.routes.answers import Table, json

_NOT_SHOWN = frozenset({"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"})


class Files:
    """The routes of files."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def table(self) -> Table:
        return [
            ("GET", "/view", self.view),
            ("POST", "/upload/image", self.upload_image),
            ("POST", "/upload/mask", self.upload_mask),
        ]

    async def view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        name, folder = files.annotated(query.get("filename", ""), self._folders)
        if "filename" not in query:
            return web.Response(status=404)
        if not name or name[0] == "/" or ".." in name or "\x00" in name:
            return web.Response(status=400)
        folder = folder or self._folders.of(query.get("type", "output"))
        if folder is None:
            return web.Response(status=400)
        folder = files.inside(folder, query.get("subfolder") or ".")
        if folder is None:
            return web.Response(status=403)
        path = folder / Path(name).name
        if not path.is_file():
            return web.Response(status=404)
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if content_type in _NOT_SHOWN:
            content_type = "application/octet-stream"
        shown = f'filename="{path.name}"'.encode("ascii", "replace").decode()
        headers = {"Content-Type": content_type, "Content-Disposition": shown, "X-Content-Type-Options": "nosniff"}
        return web.FileResponse(path, headers=headers)

    async def upload_image(self, request: web.Request) -> web.Response:
        post = await request.post()
        return self._keep(post, _content(post))

    async def upload_mask(self, request: web.Request) -> web.Response:
        """The alpha of what is uploaded, put onto the picture that `original_ref` names."""
        post = await request.post()
        mask = _content(post)
        original = self._original(post.get("original_ref"))
        if mask is None or original is None:
            return web.Response(status=400)
        try:
            picture, alpha = png.decode(original.read_bytes()), png.decode(mask[1]).alpha
        except (OSError, png.NotPng):
            return web.Response(status=400)
        size = picture.width * picture.height
        alpha = alpha if alpha is not None and len(alpha) == size else b"\xff" * size
        masked = png.Picture(
            width=picture.width, height=picture.height, rgb=picture.rgb, alpha=alpha, texts=picture.texts
        )
        return self._keep(post, (mask[0], png.encode(masked)))

    def _original(self, reference: object) -> Path | None:
        try:
            named = msgspec.json.decode(reference if isinstance(reference, str) else b"", type=dict[str, Any])
            name, folder = files.annotated(str(named["filename"]), self._folders)
        except (msgspec.DecodeError, KeyError):
            return None
        folder = folder or self._folders.of(str(named.get("type", "output")))
        if folder is None or not name or name[0] == "/" or ".." in name:
            return None
        return files.inside(folder, f"{named.get('subfolder') or '.'}/{name}")

    def _keep(self, post: Any, uploaded: tuple[str, bytes] | None) -> web.Response:
        kind = post.get("type") or "input"
        root = self._folders.of(kind) if isinstance(kind, str) else None
        if uploaded is None or root is None:
            return web.Response(status=400)
        name, content = uploaded
        subfolder = str(post.get("subfolder", ""))
        folder = files.inside(root, subfolder or ".")
        path = files.inside(root, f"{subfolder or '.'}/{name}")
        if not name or folder is None or path is None or path == folder or "/" in name:
            return web.Response(status=400)
        kept = files.keep_upload(folder, name, content, overwrite=post.get("overwrite") in ("true", "1"))
        return json({"name": kept, "subfolder": subfolder, "type": kind})


def _content(post: Any) -> tuple[str, bytes] | None:
    """The name and content of the uploaded file."""
    image = post.get("image")
    return (image.filename, image.file.read()) if isinstance(image, web.FileField) else None
