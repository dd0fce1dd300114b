"""Calls of the API, with the status that is expected."""

from __future__ import annotations

from typing import Any

import aiohttp


async def post(api: aiohttp.ClientSession, path: str, status: int, body: Any = None) -> dict[str, Any]:
    async with api.post(path, json=body) as response:
        found: dict[str, Any] = await response.json()
        assert response.status == status, found
    return found


async def get(api: aiohttp.ClientSession, path: str) -> Any:
    async with api.get(path) as response:
        assert response.status == 200, await response.text()
        return (await response.json())["data"]
