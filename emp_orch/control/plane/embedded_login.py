"""The password of the embedded Redis: made once, kept 0600 below `.emp/control/`, and taken by a server that runs."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from msgspec import structs

from emp_orch.errors import EmpError
from emp_orch.host import plainfile
from emp_orch.layout import Layout
from emp_orch.procident import locked
from emp_orch.settings import Settings, write_private
from emp_orch.store.redis import client
from emp_orch.urls import password_of, without_login

log = logging.getLogger("apply")

_PASSWORD = re.compile(r"[A-Za-z0-9_-]{20,200}")
_IN_CONFIGURATION = re.compile(r'^requirepass "([A-Za-z0-9_-]{20,200})"$', re.MULTILINE)
_MAX_FILE = 16 * 1024


def kept_password(layout: Layout) -> str:
    """The one that was made before, also where its own file was lost; empty where none is known."""
    text = _text(layout.redis_password).strip()
    if _PASSWORD.fullmatch(text):
        return text
    found = _IN_CONFIGURATION.search(_text(layout.redis / "redis.conf"))
    return found[1] if found else ""


def keep_password(layout: Layout, settings: Settings) -> None:
    """Put it where people find it, and the next apply. May raise OSError."""
    password = password_of(settings.redis_url) if settings.embedded else ""
    if password and password != _text(layout.redis_password).strip():
        write_private(layout.redis_password, f"{password}\n".encode())


def claimed(layout: Layout, settings: Settings) -> Settings:
    """`settings` with the password that is kept, where another apply was first to keep one; else theirs is kept now.

    Raises EmpError where it cannot be written.
    """
    password = password_of(settings.redis_url) if settings.embedded else ""
    if not password:
        return settings
    try:
        layout.control.mkdir(parents=True, exist_ok=True)
        with locked(layout.control / ".password.lock"):
            kept = kept_password(layout)
            if not kept:
                keep_password(layout, settings)
    except OSError as e:
        raise EmpError(f"cannot write {e.filename}: {e.strerror}", hint="check who owns the fleet's folder") from e
    if kept in ("", password):
        return settings

    def ours(url: str) -> str:
        return url.replace(f":{password}@", f":{kept}@")

    return structs.replace(
        settings,
        redis_url=ours(settings.redis_url),
        machine_redis_url=ours(settings.machine_redis_url),
        container_redis_url=ours(settings.container_redis_url),
    )


async def assure_password(layout: Layout, settings: Settings) -> None:
    """Let an embedded Redis that runs, and that an older emp started without a password, have the one of `settings`.

    Who is connected stays so. One that has a password already, is away, or is not this folder's, is left alone.
    """
    password = password_of(settings.redis_url) if settings.embedded else ""
    if not password:
        return
    bare = client.client(without_login(settings.redis_url))
    try:
        async with client.within():
            folder = (await bare.config_get("dir")).get("dir", "")
            if folder and Path(folder).resolve() == layout.redis.resolve():
                await bare.config_set("requirepass", password)
                log.info("the embedded Redis has a password from now on")
    except (*client.TRANSIENT, TimeoutError):
        return  # it asks for one, or it will when it starts
    finally:
        await bare.aclose()


def _text(path: Path) -> str:
    try:
        return plainfile.read(path, limit=_MAX_FILE).decode("ascii", "replace")
    except (OSError, ValueError):
        return ""
