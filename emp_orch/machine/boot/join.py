"""How a machine that nobody here started learns the way to Redis: it shows the API a token, and keeps the answer.

The first token comes with the line of `emp machine join`, and expires. The answer holds another, which lasts until
the machine is revoked. With the API away the machine goes by the last answer.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.host import sessions
from emp_orch.machine.boot.box_id import box_of, unwritable
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.redis_socket import url_of
from emp_orch.plaintext import one_line
from emp_orch.settings import write_private
from emp_orch.store.acl.joining import Asking, JoinAnswer
from emp_orch.store.redis.client import redacted

log = logging.getLogger("machine")

# Set for a machine that joined: its agent may ask the API again.
JOINED = "EMP_JOINED"
ASK_S = 15.0
MAX_ANSWER_BYTES = 8 * 1024**2
MAX_TOKEN_BYTES = 4_096
MAX_HOST = 255
MAX_REASON = 600
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


class NotLetIn(EmpError):
    """The API knows nobody by this token: it is expired, revoked, or another machine's."""


class JoinedByAnother(EmpError):
    """Another box is this machine, and lives."""


class Invitation(Struct, frozen=True, kw_only=True):
    """Where the API is, and the token that came with it."""

    api: str
    token: str


class _Body(Struct, frozen=True):
    """The API's answer; `error` where it is one."""

    data: JoinAnswer | None = None
    error: str = ""


class _Kept(Struct, frozen=True, kw_only=True):
    """What a machine keeps of its last join, 0600: tokens and passwords are in it."""

    api: str
    answer: JoinAnswer


def invitation_of(environ: Mapping[str, str], *, api: str | None, token_file: Path | None) -> Invitation | None:
    """What the command line or else the environment holds; None when neither says where the API is.

    Raises UsageError for half of it.
    """
    url = api or environ.get("EMP_JOIN_URL", "")
    named = token_file or Path(environ.get("EMP_JOIN_TOKEN_FILE", "") or "/dev/null")
    token = "" if token_file is not None else environ.get("EMP_JOIN_TOKEN", "").strip()
    if not token:
        try:
            with named.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
        except OSError as e:
            raise UsageError(f"cannot read the token in {named}: {e.strerror}") from e
    if not url and not token:
        return None
    if not url:
        raise UsageError("there is a token to join with, and no API", hint="give --api URL, or set EMP_JOIN_URL")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UsageError("the API's URL is not one", hint="give --api http://HOST:PORT or https://HOST")
    return Invitation(api=url.rstrip("/"), token=token)


class Membership:
    """A joined machine's standing with the API, kept in its folder."""

    def __init__(self, folder: MachineFolder, machine_id: str, invitation: Invitation | None = None) -> None:
        self._folder = folder
        self._path = folder.root / "join.json"
        self._machine_id = machine_id
        self._invitation = invitation

    def kept(self) -> JoinAnswer | None:
        """The last answer; None before the first."""
        kept = self._kept()
        return kept.answer if kept else None

    def way(self, answer: JoinAnswer) -> str:
        """The URL by which this machine's agent and workers find Redis."""
        return url_of(self._folder.root) if answer.gate else answer.redis_url

    def _kept(self) -> _Kept | None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError):
            log.warning("%s cannot be read; joining anew", self._path)
            return None
        return kept if kept.answer.machine_id == self._machine_id else None

    def box(self) -> str:
        """By which this box is told from another. Raises EmpError."""
        return box_of(self._folder.root)

    async def ask(self) -> JoinAnswer:
        """A fresh answer, kept with the secrets in it. Raises NotLetIn, JoinedByAnother, Unreachable, EmpError;
        UsageError when nobody has ever said where the API is.
        """
        kept = self._kept()
        api = self._invitation.api if self._invitation else kept.api if kept else ""
        tokens = [kept.answer.token] if kept else []
        tokens += [self._invitation.token] if self._invitation and self._invitation.token else []
        if not api or not tokens:
            raise UsageError(
                f"{self._machine_id} does not know how to join",
                hint=f"take the line that `emp machine join {self._machine_id}` prints where the fleet was applied",
            )
        answer = await self._first_of(api, tokens)
        self._keep(_Kept(api=api, answer=answer))
        return answer

    async def _first_of(self, api: str, tokens: list[str]) -> JoinAnswer:
        """The answer to the first token that the API takes."""
        asking = Asking(box=self.box(), host=platform.node()[:MAX_HOST])
        for token in tokens[:-1]:
            try:
                return await _asked(api, self._machine_id, token, asking)
            except NotLetIn:
                continue
        return await _asked(api, self._machine_id, tokens[-1], asking)

    def _keep(self, kept: _Kept) -> None:
        try:
            write_private(self._path, msgspec.json.encode(kept))
            write_private(self._folder.secrets, msgspec.json.encode(kept.answer.secrets))
            if kept.answer.orders is not None:
                write_private(self._folder.command_key, msgspec.json.encode(kept.answer.orders))
            # The way to worker packages.
            access = {"url": kept.api, "token": kept.answer.token}
            write_private(self._folder.root / "api.json", msgspec.json.encode(access))
        except OSError as e:
            raise unwritable(self._folder.root, e) from e

    async def join(self) -> tuple[JoinAnswer, bool]:
        """An answer to start from, and whether it is fresh: the API's, or the last one where the API is away.

        Raises as `ask`, where there is no last one; and NotLetIn and JoinedByAnother.
        """
        try:
            answer, fresh = await self.ask(), True
        except (NotLetIn, JoinedByAnother):
            raise
        except EmpError as e:
            last = self.kept()
            if last is None:
                raise
            log.warning("%s; going by its last answer", e.message)
            answer, fresh = last, False
        limits = "" if answer.scoped else "; this Redis keeps no users, so it is the fleet's own login"
        where = "through the API" if answer.gate else f"at {redacted(answer.redis_url)}"
        log.info("joined fleet %s as %s: Redis %s%s", answer.fleet, answer.machine_id, where, limits)
        return answer, fresh


async def _asked(api: str, machine_id: str, token: str, asking: Asking) -> JoinAnswer:
    if urlsplit(api).scheme == "http" and urlsplit(api).hostname not in _LOCAL:
        log.warning("the API at %s is asked over plain HTTP: whoever listens on the way learns what it says", api)
    where = f"the API at {api}"
    try:
        async with (
            sessions.straight(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
            session.post(
                f"{api}/api/machines/{machine_id}/join",
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                data=msgspec.json.encode(asking),
                allow_redirects=False,  # the token is for this address only
            ) as got,
        ):
            status = got.status
            raw = await _all(got)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as e:
        raise Unreachable(f"{where} does not answer: {one_line(str(e) or type(e).__name__)}") from e
    return _understood(where, machine_id, status, raw)


async def _all(got: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in got.content.iter_chunked(65_536):
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise ValueError("its answer is too large")
    return bytes(raw)


def _understood(where: str, machine_id: str, status: int, raw: bytes) -> JoinAnswer:
    """The answer, checked. Nothing of what cannot be read is repeated: it may hold a password."""
    try:
        body = msgspec.json.decode(raw, type=_Body)
    except msgspec.MsgspecError:
        body = _Body()
    if status == 403:
        raise NotLetIn(
            f"{where} does not let {machine_id} join: {one_line(body.error) or 'it gives no reason'}",
            hint=f"where the fleet was applied, `emp machine join {machine_id}` prints a new line",
        )
    if status == 409:
        raise JoinedByAnother(f"{where} does not let {machine_id} join: {one_line(body.error)[:MAX_REASON]}")
    if status != 200:
        raise Unreachable(f"{where} says {status}: {one_line(body.error)[:200] or 'no reason'}")
    named = {machine_id}
    if body.data is not None:
        key = body.data.orders
        named |= {body.data.machine_id, body.data.config.machine.id, *([key.machine] if key else [])}
    if body.data is None or len(named) > 1:
        raise Unreachable(f"{where} gives an answer that does not fit", hint="is its emp as new as this one?")
    return body.data


class Renewal:
    """Asks the API again when Redis refuses the login: one that restarted has lost it. Not more often than it helps."""

    def __init__(self, membership: Membership, *, url: str) -> None:
        self._membership = membership
        self._url = url
        self._failures = 0
        self._next_s = 0.0

    async def refused(self) -> None:
        """Redis refused us. Returns when the API was asked, or need not be yet."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_s:
            return
        if await self.renew():
            self._failures = 0
        else:
            self._failures += 1
        self._next_s = now_s + min(60.0, 2.0 * 2**self._failures)

    async def renew(self) -> bool:
        """Ask, and keep the answer; what goes wrong is only told."""
        try:
            answer = await self._membership.ask()
        except EmpError as e:
            log.warning("%s; going by its last answer", e.message)
            return False
        if self._membership.way(answer) != self._url:
            log.warning("the way to Redis is another now: it is taken when this machine starts again")
        return True
