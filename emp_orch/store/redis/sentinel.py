"""Where the primary is, as the sentinels tell: asked before each connection, so that a failover needs no restart.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/. A sentinel disconnects the clients of a
primary that it demotes; of one that vanished the kernel and the deadlines of our commands tell.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis import exceptions as rexc
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff

from emp_orch.fleet.model.hosts import is_loopback
from emp_orch.urls import SentinelUrl

# One sentinel that says nothing must not keep us from the next for long.
ASK_S = 2.0
DOC = "docs/redis.md, Failover"


class NoPrimary(MasterNotFoundError):
    """No sentinel names a primary that lives. `says` follows "Redis at …"."""

    def __init__(self, says: str, hint: str) -> None:
        super().__init__(says)
        self.says, self.hint = says, hint


class Primary:
    """Asks the sentinels of one URL, in their order; the one that knew is asked first the next time."""

    def __init__(self, url: SentinelUrl) -> None:
        self._url = url
        self._asking = asyncio.Lock()
        tls = {"ssl": True, **{k: v for k, v in url.options if k.startswith("ssl_")}} if url.tls else {}
        if "ssl_check_hostname" in tls:
            tls["ssl_check_hostname"] = str(tls["ssl_check_hostname"]).lower() not in ("0", "f", "false", "n", "no", "")
        self._sentinels = Sentinel(  # type: ignore[no-untyped-call]
            url.sentinels,
            sentinel_kwargs={
                "username": url.username or None,
                "password": url.password or None,
                "decode_responses": True,
                "retry": Retry(NoBackoff(), 0),
                **tls,
            },
        )

    async def now(self) -> dict[str, str | int]:
        """`host` and `port`. Raises NoPrimary."""
        async with self._asking:
            said: list[tuple[str, BaseException | str]] = []
            for index, asked in enumerate(self._sentinels.sentinels):
                at = asked.connection_pool.connection_kwargs
                try:
                    async with asyncio.timeout(ASK_S):
                        known: Any = await asked.sentinel_masters()
                except (rexc.RedisError, OSError) as e:
                    said.append((f"{at['host']}:{at['port']}", e))
                    continue
                finally:
                    await asked.connection_pool.disconnect()
                state = known.get(self._url.name)
                if state and self._sentinels.check_master_state(state, self._url.name):
                    line = self._sentinels.sentinels
                    line.insert(0, line.pop(index))
                    return {"host": _from_here(str(state["ip"]), at["host"]), "port": int(state["port"])}
                said.append((f"{at['host']}:{at['port']}", self._of(state, known)))
            raise self._nobody(said)

    def _of(self, state: dict[str, Any] | None, known: dict[str, Any]) -> str:
        if state:
            return f"says that {self._url.name} at {state['ip']}:{state['port']} is down"
        return f"knows no {self._url.name}" + (f", but {', '.join(sorted(known)[:5])}" if known else "")

    def _nobody(self, said: list[tuple[str, BaseException | str]]) -> NoPrimary:
        """The most telling of what was said: an answer before a refusal before silence."""
        for rank in (_down, _unknown, _refused, _no_sentinel):
            for at, what in said:
                if (found := rank(at, what)) is not None:
                    return found
        at, what = said[0]
        why = f"no word for {ASK_S:g} s" if isinstance(what, TimeoutError) and not str(what) else str(what)
        several = f", nor do {len(said) - 1} more" if len(said) > 1 else ""
        return NoPrimary(
            f"cannot be found: the sentinel at {at} does not answer: {why}{several}",
            f"are its sentinels running, and is redis.url right? ({DOC})",
        )

    async def aclose(self) -> None:
        await self._sentinels.aclose()


def _from_here(host: str, sentinel: str) -> str:
    """A sentinel that names its own loopback means its own host."""
    return sentinel if is_loopback(host) and not is_loopback(sentinel) else host


def _down(at: str, what: BaseException | str) -> NoPrimary | None:
    if isinstance(what, str) and what.endswith("is down"):
        return NoPrimary(
            f"has no primary: the sentinel at {at} {what}, and none is elected yet",
            "wait some seconds; if it stays so, look into the sentinels' logs, and at the quorum and the replicas",
        )
    return None


def _unknown(at: str, what: BaseException | str) -> NoPrimary | None:
    if isinstance(what, str):
        hint = f"write the name that they monitor, redis+sentinel://HOST:PORT/NAME/DATABASE ({DOC})"
        return NoPrimary(f"cannot be found: the sentinel at {at} {what}", hint)
    return None


def _refused(at: str, what: BaseException | str) -> NoPrimary | None:
    if isinstance(what, rexc.NoPermissionError):
        hint = "ACL SETUSER there: +auth +hello +ping +sentinel|masters"
        return NoPrimary(f"cannot be found: the sentinel at {at} does not let its user ask: {what}", hint)
    if isinstance(what, rexc.AuthenticationError) or (
        isinstance(what, rexc.ResponseError) and "AUTH" in str(what).upper()
    ):
        hint = f"give theirs beside the servers': ?sentinel_username=USER&sentinel_password=PASSWORD ({DOC})"
        return NoPrimary(f"cannot be found: the sentinel at {at} refused the login: {what}", hint)
    return None


def _no_sentinel(at: str, what: BaseException | str) -> NoPrimary | None:
    if isinstance(what, rexc.ResponseError):
        hint = f"sentinels listen on 26379, as a rule; without sentinels write redis:// ({DOC})"
        return NoPrimary(f"cannot be found: what answers at {at} is no sentinel: {what}", hint)
    return None
