"""Each kind of request with a proxy in the environment: which goes to it, with which login, and what errors tell."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.http.client import NETWORK, Requests
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.machine.package.fetch import FetchError, fetch
from emp_orch.runtimes.compose.command_line import environment
from emp_orch.runtimes.compose.connection import EngineAway
from emp_orch.runtimes.compose.engine import Engine
from emp_orch.settings import EngineAddress
from emp_orch.store.artifacts.api_access import ApiAccess
from emp_orch.worker.config import UrlRules
from emp_orch.worker.files import input_urls
from support.servers.proxy import CountingProxy, counting_proxy

PAGE = "http://outside.invalid/page"
PASSWORD = "topsecret"
LOGIN = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    with counting_proxy({PAGE: b"page"}) as counting:
        for name, value in counting.environment().items():
            monkeypatch.setenv(name, value.replace("://", f"://me:{PASSWORD}@") if value else value)
        yield counting


async def ask(url: str) -> bytes:
    requests = Requests(URL(url), {})
    try:
        async with requests.ask("GET", URL(url)) as answer:
            return await requests.read(answer)
    finally:
        await requests.close()


async def test_a_service_outside_is_asked_through_the_proxy_with_its_login(proxy: CountingProxy) -> None:
    assert await ask(PAGE) == b"page"
    assert (proxy.asked, proxy.logins) == ([f"GET {PAGE}"], [LOGIN])


async def test_https_goes_through_a_tunnel_and_a_refusal_tells_no_login(proxy: CountingProxy) -> None:
    with pytest.raises(NETWORK) as raised:
        await ask("https://outside.invalid/page")
    assert (proxy.asked, proxy.logins) == (["CONNECT outside.invalid:443"], [LOGIN])
    assert PASSWORD not in str(raised.value)


async def test_inputs_and_packages_from_outside(proxy: CountingProxy, tmp_path: Path) -> None:
    rules = UrlRules(hosts=("outside.invalid",), max_bytes=100)
    assert await input_urls.fetch(PAGE, into := io.BytesIO(), rules) == 4
    assert into.getvalue() == b"page"
    with pytest.raises(input_urls.CannotFetch) as refused:
        await input_urls.fetch("https://outside.invalid/x", io.BytesIO(), rules)
    package = WorkerPackage(digest="0" * 64, url=PAGE)
    await fetch(package, None, tmp_path / "part", wanted=lambda: True)
    assert (tmp_path / "part").read_bytes() == b"page"
    assert proxy.asked == [f"GET {PAGE}", "CONNECT outside.invalid:443", f"GET {PAGE}"]
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "fleet.invalid:1"])
async def test_the_api_of_the_fleet_is_never_asked_through_it(proxy: CountingProxy, tmp_path: Path, host: str) -> None:
    package = WorkerPackage(digest="0" * 64)
    with pytest.raises(FetchError):
        await fetch(package, ApiAccess(url=f"http://{host}"), tmp_path / "part", wanted=lambda: True)
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1:1", "engine.invalid:1"])
def test_a_docker_engine_is_never_asked_through_it(proxy: CountingProxy, host: str) -> None:
    engine = Engine(EngineAddress(name="far", url=f"tcp://{host}", here=False))
    with pytest.raises(EngineAway):
        engine.containers(("emp.fleet",))
    assert proxy.asked == []
    assert host.partition(":")[0] in environment(engine.host)["no_proxy"]


async def test_a_proxy_of_another_kind_is_named_and_nothing_goes_round_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks5://me:topsecret@127.0.0.1:1080")
    rules = UrlRules(hosts=("outside.invalid",), max_bytes=100)
    with pytest.raises(input_urls.CannotFetch, match="all_proxy names no http proxy"):
        await input_urls.fetch(PAGE, io.BytesIO(), rules)
    with pytest.raises((*NETWORK, RunFailed), match="all_proxy names no http proxy"):
        await ask(PAGE)
