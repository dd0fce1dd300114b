"""One try to download a worker package: from the fleet's API, or the URL that the generation names."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from emp_orch.errors import EmpError
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.host import sessions
from emp_orch.machine.package.disk import disk_error
from emp_orch.store.artifacts.api_access import ApiAccess

MAX_BYTES = 64 * 1024**2
CHUNK = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=15)


class FetchError(EmpError):
    """It did not work this time. `after_s`: how long the server wants to be left alone."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


async def fetch(
    package: WorkerPackage,
    access: ApiAccess | None,
    part: Path,
    *,
    wanted: Callable[[], bool],
    timeout: aiohttp.ClientTimeout = TIMEOUT,  # noqa: ASYNC109  # aiohttp's own, in its parts
) -> None:
    """Get the archive of `package` into `part`; what an earlier try left there is gone on with.

    `access` is for packages without a URL. Stops when it is no longer `wanted()`. Raises FetchError, or EmpError
    where the disk refuses. What was received is not checked here.
    """
    url, token, ca = _source(package, access)
    headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}
    have = part.stat().st_size if part.exists() else 0
    if have:
        headers["Range"] = f"bytes={have}-"
    way = _way_to(url) if package.url else {}
    owner = access.owner if access is not None and not package.url else None
    try:
        trust: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        async with (
            sessions.to_own(owner, timeout=timeout, auto_decompress=False) as session,
            session.get(url, headers=headers, allow_redirects=False, ssl=trust, **way) as answer,
        ):
            await _receive(answer, have, part, url, wanted)
    except TimeoutError as e:
        raise FetchError(f"{_shown(url)} is too slow, or does not answer") from e
    except (aiohttp.ClientError, ssl.SSLError) as e:
        raise FetchError(f"{_shown(url)}: {e or type(e).__name__}") from e
    except OSError as e:
        raise disk_error(part.parent, e) from e


def _source(package: WorkerPackage, access: ApiAccess | None) -> tuple[URL, str, str]:
    """Where to ask, with which token, trusting whom. A token is for the API only."""
    try:
        if package.url:
            return URL(package.url), "", access.ca if access is not None else ""
        if access is None:
            raise FetchError("nobody said where the API is")
        return URL(f"{access.url.rstrip('/')}/packages/{package.digest}"), access.token, access.ca
    except ValueError as e:
        raise FetchError(f"the package's URL is none: {e}") from e


def _way_to(url: URL) -> dict[str, Any]:
    """Of a URL that the generation names: through the environment's proxy, where it has one."""
    try:
        return sessions.way_to(url)
    except sessions.UnusableProxy as e:
        raise FetchError(f"{_shown(url)}: {e}") from e


async def _receive(answer: aiohttp.ClientResponse, have: int, part: Path, url: URL, wanted: Callable[[], bool]) -> None:
    match answer.status:
        case 206 if answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            flags = os.O_WRONLY | os.O_APPEND
        case 200:
            have, flags = 0, os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        case 206 | 416:
            part.unlink(missing_ok=True)  # what is here is no beginning of what is there
            raise FetchError(f"{_shown(url)} has another archive than was begun with")
        case status:
            after_s = _after_s(answer) if status in (429, 503) else 0.0
            raise FetchError(f"{_shown(url)} answered {status} {answer.reason or ''}".rstrip(), after_s=after_s)
    fd = os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        async for chunk in answer.content.iter_chunked(CHUNK):
            have += len(chunk)
            if have > MAX_BYTES:
                part.unlink(missing_ok=True)
                raise FetchError(f"{_shown(url)} is larger than {MAX_BYTES // 1024**2} MiB")
            if not wanted():
                raise FetchError("another package is wanted meanwhile")
            _write(fd, chunk)
        os.fsync(fd)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            part.unlink(missing_ok=True)  # what does not fit must not fill the disk
        raise
    finally:
        os.close(fd)


def _write(fd: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


def _after_s(answer: aiohttp.ClientResponse) -> float:
    """Retry-After in seconds; a date there is not worth a parser."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0


def _shown(url: URL) -> str:
    """Without what may be secret: credentials, and the query of a signed URL."""
    return str(url.with_user(None).with_query(None).with_fragment(None))
