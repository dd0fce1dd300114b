"""Tokens of the API as a user changes them: the plan names them, the running API takes them, and no value shows."""

from __future__ import annotations

import aiohttp

from support.stack.stack import Stack

ENV = {"ALL": "value-of-all", "SHOP_1": "value-of-the-first-year", "SHOP_2": "value-of-the-second-year"}
FIRST = "api: {token: {env: ALL}, tokens: {shop: {token: {env: SHOP_1}, role: submit}}, "
TWO = "{token: {env: SHOP_2}, previous: {env: SHOP_1}, role: submit, rate: 50/s}"
SECOND = f"api: {{token: {{env: ALL}}, tokens: {{shop: {TWO}}}, "


def _write(stack: Stack, text: str, api: str) -> None:
    (line,) = [line for line in text.splitlines() if line.startswith("api:")]
    stack.file.write_text(text.replace(line, api + line.partition("{")[2]) + "\n")


async def _status(stack: Stack, method: str, path: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.request(method, stack.api + path, headers=headers) as answer:
        return answer.status


async def test_a_token_is_changed_without_a_gap(folder_stack: Stack) -> None:
    stack, text = folder_stack, folder_stack.file.read_text()
    stack.up(NUM_GPUS="1")
    assert await _status(stack, "GET", "/api/jobs", "") == 200  # on loopback, and no token is configured

    said = []
    _write(stack, text, FIRST)
    planned = stack.run("diff", "--plan-out", "p.json", NUM_GPUS="1", **ENV)
    assert "+ api.token: needed from now on" in planned.stdout, planned.stdout + planned.stderr
    assert "+ api.tokens.shop: submit" in planned.stdout
    said += [planned.stdout, stack.ok("apply", "-y", "--timeout", "120", NUM_GPUS="1", **ENV)]
    seen = {
        token: [
            await _status(stack, "GET", "/api/jobs", token),
            await _status(stack, "GET", "/api/monitor/state", token),
            await _status(stack, "POST", "/api/machines/basic-machine-local/restart", token),
        ]
        for token in ("", ENV["SHOP_1"], ENV["SHOP_2"])
    }
    assert seen == {"": [401] * 3, ENV["SHOP_1"]: [200, 403, 403], ENV["SHOP_2"]: [401] * 3}
    # emp's own commands use the one of all power.
    stack.ok("submit", "simulation", "--payload", "{}", "--wait", NUM_GPUS="1", **ENV)

    _write(stack, text, SECOND)
    planned = stack.run("diff", "--plan-out", "p.json", NUM_GPUS="1", **ENV)
    assert "~ api.tokens.shop: rate 50/s, a new value" in planned.stdout, planned.stdout + planned.stderr
    assert "machines run on" in planned.stdout and "emp restart" not in planned.stdout
    said += [planned.stdout, stack.ok("apply", "-y", "--timeout", "120", NUM_GPUS="1", **ENV)]
    assert [await _status(stack, "GET", "/api/jobs", ENV[name]) for name in ("SHOP_1", "SHOP_2", "ALL")] == [200] * 3

    said += [stack.ok("history"), stack.log_ends(lines=100_000)]
    assert not [name for name, value in ENV.items() if any(value in text for text in said)]
    held = [p for p in stack.root.rglob("*") if p.is_file() and b"value-of-the" in p.read_bytes()]
    assert {p.name for p in held} <= {"settings.json", "secrets.json"}, held
    assert all(p.stat().st_mode & 0o077 == 0 for p in held)
