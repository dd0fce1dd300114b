"""Who guesses tokens of boxes: told to wait, and in nobody's way."""

from __future__ import annotations

import aiohttp

from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.web.rate import Rates
from support.http.stack import Stack


async def test_a_flood_of_wrong_tokens_keeps_no_box_out(http_stack: Stack) -> None:
    token = JoinTokens(http_stack.layout).issue(http_stack.settings.fleet, "box", expires_s=None)
    async with aiohttp.ClientSession(http_stack.api) as session:

        async def join(given: str) -> tuple[int, str]:
            async with session.post("/api/machines/box/join", headers={"Authorization": f"Bearer {given}"}) as answer:
                if answer.status == 429:
                    assert int(answer.headers["Retry-After"]) >= 1
                return answer.status, (await answer.json())["error"]

        told = [(await join(f"guess-{n}"))[0] for n in range(60)]
        assert told[:20] == [403] * 20 and set(told[20:]) <= {403, 429} and told.count(429) >= 30
        for _ in range(5):
            # Its token opens: all that it lacks here is a generation that names it.
            assert await join(token) == (404, "the fleet has no external machine box now")


def test_each_address_has_its_own_tries_and_few_are_remembered() -> None:
    rates = Rates(burst=2, per_s=1.0, most=2)
    assert [rates.take("a", 0.0) > 0 for _ in range(3)] == [False, False, True]
    assert rates.take("b", 0.0) == 0
    assert rates.take("a", 1.0) == 0
    assert rates.take("c", 1.0) == 0  # b is forgotten: it was heard of before a
    assert rates.take("a", 1.0) > 0
