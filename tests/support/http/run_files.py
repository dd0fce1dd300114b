"""A real API, a job that a worker of one machine runs, and what that machine asks of the API with its token."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from emp_orch.jobs.document.submission import parse_submission
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.keys import Keys
from support.http.stack import FLEET, Stack

BODY = b"what the run made"
API_TOKEN = "sesame-of-the-fleet"


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


class Lab:
    """An API beyond loopback by its token, and a job that a worker of machine `mine` runs."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.redis = stack.client()
        self.keys = Keys(stack.settings.prefix)
        self.queue = Queue(self.redis, self.keys)
        self.http = aiohttp.ClientSession(stack.api)
        self._claims: list[Claims] = []

    def token(self, machine: str) -> str:
        return JoinTokens(self.stack.layout).issue(FLEET, machine, expires_s=None)

    async def claimed(self, machine: str, **more: Any) -> tuple[Claims, Claimed]:
        sent = await self.queue.submit(parse_submission({"service": "simulation", **more}))
        claims = Claims(self.redis, self.keys, f"{machine}-worker-0", lease_s=30)
        self._claims.append(claims)
        claim = await claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
        return claims, claim

    async def put(
        self, job: str, run: str, name: str, body: Any = BODY, *, token: str = "", **headers: str
    ) -> tuple[int, str]:
        told = {"Content-Digest": digest(BODY), **{k.replace("_", "-"): v for k, v in headers.items()}}
        if token:
            told["Authorization"] = f"Bearer {token}"
        url = URL(f"{self.stack.api}/api/work/{job}/{run}/outputs/{name}", encoded=True)
        async with self.http.put(url, data=body, headers=told) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str, token: str) -> tuple[int, bytes]:
        async with self.http.get(
            URL(self.stack.api + path, encoded=True), headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            return answer.status, await answer.read()

    def stored(self) -> list[str]:
        root = self.stack.layout.artifacts
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())

    async def aclose(self) -> None:
        for claims in self._claims:
            await claims.aclose()
        await self.http.close()
        await self.redis.aclose()


@asynccontextmanager
async def running_lab(new_stack: Callable[..., Stack]) -> AsyncIterator[Lab]:
    """A lab whose Redis and API run."""
    stack = new_stack(token=API_TOKEN)
    stack.start_redis()
    stack.start("api")
    await stack.answers(f"{stack.api}/health")
    lab = Lab(stack)
    yield lab
    await lab.aclose()
