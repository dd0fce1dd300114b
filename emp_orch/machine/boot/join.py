"""How a machine that nobody here started learns the way to Redis: it shows the API a token, and keeps the answer.

The first token comes with the line of `emp machine join` or `emp pool join`, and expires. The answer holds another,
which lasts until the machine is revoked, or its member forgotten. With the API away the machine goes by the last
answer. A box of a pool learns from the first answer which member it is, and is that one as long as it has its folder.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import re
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
from emp_orch.store.acl.joining import JOIN_NAME, Asking, JoinAnswer, Leaving
from emp_orch.store.redis.client import redacted

log = logging.getLogger("machine")

# Set for a machine that joined: its agent may ask the API again.
JOINED = "EMP_JOINED"
ASK_S = 15.0
MAX_ANSWER_BYTES = 8 * 1024**2
MAX_TOKEN_BYTES = 4_096
MAX_HOST = 255
MAX_REASON = 600
# Told to come again, a box does so, and gives up after so long.
LATER_S = 120.0
LATER_MOST_S = 30.0
LEAVE_S = 3.0
_POOL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


class NotLetIn(EmpError):
    """The API knows nobody by this token: it is expired, revoked, or another machine's."""


class JoinedByAnother(EmpError):
    """Another box is this machine, and lives."""


class Later(Unreachable):
    """The API asks to come again, `after_s` seconds later."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class Pooled(Struct, frozen=True, kw_only=True):
    """A box of no name of its own, or of one that it chose: of which pool, and what it goes by, if anything."""

    pool: str
    name: str = ""


class Invitation(Struct, frozen=True, kw_only=True):
    """Where the API is, and the token that came with it."""

    api: str
    token: str


class _Body(Struct, frozen=True):
    """The API's answer; `error` where it is one."""

    data: JoinAnswer | None = None
    error: str = ""


class _Kept(Struct, frozen=True, kw_only=True):
    """What a machine keeps of its last join, 0600: tokens and passwords are in it. A member's `pool`, and the name that
    its box went by.
    """

    api: str
    answer: JoinAnswer
    pool: str = ""
    name: str = ""


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


def pooled_of(pool: str, name: str) -> Pooled:
    """Raises UsageError for what is no pool's name, or no box's."""
    if not _POOL.fullmatch(pool):
        raise UsageError(f"{pool[:80]!r} is not a pool's name")
    if name and not re.fullmatch(JOIN_NAME, name, re.ASCII):
        raise UsageError(
            f"{name[:80]!r} is not what a box goes by", hint="letters, digits and ._:/@+=,- (--as, EMP_JOIN_AS)"
        )
    return Pooled(pool=pool, name=name)


class Membership:
    """A joined machine's standing with the API, kept in its folder. `machine_id` is empty, and `pooled` given, of a box
    that joins a pool: `member_id` tells it.
    """

    def __init__(
        self, folder: MachineFolder, machine_id: str, invitation: Invitation | None = None, pooled: Pooled | None = None
    ) -> None:
        self._folder = folder
        self._path = folder.root / "join.json"
        self._machine_id = machine_id
        self._invitation = invitation
        self._pooled = pooled
        self._fresh: JoinAnswer | None = None

    async def member_id(self) -> str:
        """Which member this box is: the one that it was here, else what the API says now. Raises as `ask`."""
        kept = self._kept()
        if kept is None:
            self._fresh = await self.ask()
        return self._machine_id if kept is None else kept.answer.machine_id

    async def leave(self, leaving: Leaving) -> None:
        """Say that this member goes. Raises NotLetIn, Unreachable; nothing of a machine that is no member."""
        kept = self._kept()
        if kept is not None and kept.pool:
            where, path = f"the API at {kept.api}", f"/api/pools/{kept.pool}/leave"
            status, raw, _ = await _posted(kept.api, path, kept.answer.token, msgspec.json.encode(leaving), LEAVE_S)
            if status != 200:
                raise Unreachable(f"{where} says {status}: {one_line(_body(raw).error)[:200] or 'no reason'}")

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
        if self._pooled is not None:
            # A folder that another member left behind, or that was given another name, is this box's no more.
            mine = kept.pool == self._pooled.pool and self._pooled.name in ("", kept.name)
            return kept if mine and self._machine_id in ("", kept.answer.machine_id) else None
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
                f"{self._called(kept)} does not know how to join",
                hint=f"take the line that `{self._line(kept)}` prints where the fleet was applied",
            )
        answer = await self._first_of(api, tokens, kept)
        self._machine_id = answer.machine_id
        self._keep(_Kept(api=api, answer=answer, pool=self._pool(kept), name=self._name(kept)))
        return answer

    def _pool(self, kept: _Kept | None) -> str:
        return self._pooled.pool if self._pooled else kept.pool if kept else ""

    def _name(self, kept: _Kept | None) -> str:
        return self._pooled.name if self._pooled else kept.name if kept else ""

    def _called(self, kept: _Kept | None) -> str:
        return self._machine_id or f"this box of pool {self._pool(kept)}"

    def _line(self, kept: _Kept | None) -> str:
        pool = self._pool(kept)
        return f"emp pool join {pool}" if pool else f"emp machine join {self._machine_id}"

    async def _first_of(self, api: str, tokens: list[str], kept: _Kept | None) -> JoinAnswer:
        """The answer to the first token that the API takes."""
        pool = self._pool(kept)
        had = kept.answer.machine_id if kept else ""
        asking = Asking(box=self.box(), host=platform.node()[:MAX_HOST], name=(self._name(kept) or had) if pool else "")
        door = _Door(
            api=api,
            path=f"/api/pools/{pool}/join" if pool else f"/api/machines/{self._machine_id}/join",
            who=self._called(kept),
            line=self._line(kept),
            machine_id=had if pool else self._machine_id,
            pool=pool,
        )
        for token in tokens[:-1]:
            try:
                return await _patiently(door, token, asking)
            except NotLetIn:
                continue
        return await _patiently(door, tokens[-1], asking)

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
            fresh_answer, self._fresh = self._fresh, None
            answer, fresh = fresh_answer or await self.ask(), True
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


class _Door(Struct, frozen=True, kw_only=True):
    """Where to ask, and for whom. `machine_id` is what the answer is to name; empty of a box that has none yet: then
    it is to be one of `pool`.
    """

    api: str
    path: str
    who: str
    line: str
    machine_id: str
    pool: str


async def _patiently(door: _Door, token: str, asking: Asking) -> JoinAnswer:
    """As `_asked`; who is told to come again does."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + LATER_S
    while True:
        try:
            return await _asked(door, token, asking)
        except Later as e:
            # Who was turned away together does not come together again.
            wait_s = min(max(e.after_s, 1.0), LATER_MOST_S) * (1 + random.random())  # noqa: S311
            if loop.time() + wait_s > end_s:
                raise
            log.info("%s; asking again in %.0f s", e.message, wait_s)
            await asyncio.sleep(wait_s)


async def _asked(door: _Door, token: str, asking: Asking) -> JoinAnswer:
    if urlsplit(door.api).scheme == "http" and urlsplit(door.api).hostname not in _LOCAL:
        log.warning("the API at %s is asked over plain HTTP: whoever listens on the way learns what it says", door.api)
    status, raw, after_s = await _posted(door.api, door.path, token, msgspec.json.encode(asking), ASK_S)
    return _understood(door, status, raw, after_s)


async def _posted(api: str, path: str, token: str, body: bytes, within_s: float) -> tuple[int, bytes, float]:
    """Status, body, and after how many seconds to come again. Raises Unreachable."""
    try:
        async with (
            sessions.straight(timeout=aiohttp.ClientTimeout(total=within_s)) as session,
            session.post(
                f"{api}{path}",
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                data=body,
                allow_redirects=False,  # the token is for this address only
            ) as got,
        ):
            after = got.headers.get("Retry-After", "")
            after_s = float(after) if re.fullmatch(r"[0-9]{1,4}", after) else 1.0
            return got.status, await _all(got), after_s
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as e:
        raise Unreachable(f"the API at {api} does not answer: {one_line(str(e) or type(e).__name__)}") from e


async def _all(got: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in got.content.iter_chunked(65_536):
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise ValueError("its answer is too large")
    return bytes(raw)


def _body(raw: bytes) -> _Body:
    try:
        return msgspec.json.decode(raw, type=_Body)
    except msgspec.MsgspecError:
        return _Body()


def _understood(door: _Door, status: int, raw: bytes, after_s: float) -> JoinAnswer:
    """The answer, checked. Nothing of what cannot be read is repeated: it may hold a password."""
    body, where = _body(raw), f"the API at {door.api}"
    if status == 403:
        raise NotLetIn(
            f"{where} does not let {door.who} join: {one_line(body.error) or 'it gives no reason'}",
            hint=f"where the fleet was applied, `{door.line}` prints a new line",
        )
    if status == 409:
        raise JoinedByAnother(f"{where} does not let {door.who} join: {one_line(body.error)[:MAX_REASON]}")
    if status == 429:
        raise Later(f"{where} says 429: {one_line(body.error)[:200] or 'no reason'}", after_s)
    if status != 200:
        raise Unreachable(f"{where} says {status}: {one_line(body.error)[:200] or 'no reason'}")
    named = {door.machine_id} if door.machine_id else set()
    if body.data is not None:
        key = body.data.orders
        named |= {body.data.machine_id, body.data.config.machine.id, *([key.machine] if key else [])}
    fits = len(named) == 1 and (not door.pool or next(iter(named)).startswith(f"{door.pool}-"))
    if body.data is None or not fits:
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
