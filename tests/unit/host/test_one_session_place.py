"""One place makes HTTP sessions, so that one place says what goes through a proxy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import emp_orch

PACKAGE = Path(emp_orch.__file__).parent
# Names by which libraries make sessions or single requests, or read the proxy variables by themselves.
MAKERS = {
    *("aiohttp.ClientSession", "aiohttp.request", "urllib.request", "urllib3.PoolManager", "urllib3.ProxyManager"),
    *("http.client.HTTPConnection", "http.client.HTTPSConnection", "requests.Session", "requests.request"),
    *("requests.get", "requests.post", "requests.put", "requests.head", "requests.delete", "docker.from_env"),
    *("docker.DockerClient", "httpx", "websockets", "aiohttp.helpers.get_env_proxy_for_url"),
}
# Plain sockets, to an address of this host or one that is looked at, and nothing between.
SOCKETS = {"socket.create_connection", "asyncio.open_connection"}
MAY = {
    "host/sessions.py": {"aiohttp.ClientSession"},
    "cli/jobs/sync.py": SOCKETS,
    "machine/health/checks.py": SOCKETS,
    "machine/healthcheck.py": SOCKETS,
}
# The Docker SDK's client has a class of ours between, which trusts no environment.
BASES = {"docker.api.client.APIClient": "runtimes/compose/connection.py"}


def used(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """Every dotted name by its full path, where it stands, and whether it is called."""
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full[(alias.asname or alias.name).partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield alias.name, node.lineno, False
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno, False
    # An annotation only names a type.
    types = {id(n) for a in ast.walk(tree) for n in _annotation(a)}
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in types:
            head, *rest = ast.unparse(node).split(".")
            if head in full:
                yield ".".join((full[head], *rest)), node.lineno, id(node) in called


def _annotation(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("annotation", "returns"):
        if (found := getattr(node, field, None)) is not None:
            yield from ast.walk(found)


def faults(path: Path, within: Path = PACKAGE) -> list[str]:
    here = path.relative_to(within).as_posix()
    tree = ast.parse(path.read_text())
    found = []
    for name, line, called in used(tree):
        if name in MAKERS | SOCKETS or any(name.startswith(f"{maker}.") for maker in MAKERS):
            if name not in MAY.get(here, set()):
                found.append(f"{here}:{line}: {name}")
        elif called and BASES.get(name, here) != here:
            found.append(f"{here}:{line}: {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_env" and here != "host/sessions.py":
            found.append(f"{here}:{node.value.lineno}: trust_env")
    return found


def test_nobody_else_makes_a_session() -> None:
    assert [fault for path in sorted(PACKAGE.rglob("*.py")) for fault in faults(path)] == []


def test_the_search_sees_them_all(tmp_path: Path) -> None:
    """Each way that was or could be used, so that an empty result says something."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import aiohttp\nimport http.client\nimport urllib.request\nfrom urllib.request import urlopen\n"
        "from aiohttp import ClientSession as S\nimport requests as r\nfrom docker.api.client import APIClient\n"
        "def f(x: aiohttp.ClientSession) -> aiohttp.ClientSession: ...\n"
        "aiohttp.ClientSession()\nS()\nhttp.client.HTTPConnection('x')\nr.get('x')\nAPIClient()\n"
        "make(trust_env=True)\nimport socket\nsocket.create_connection(('x', 1))\n"
    )
    lines = {int(fault.split(":")[1]) for fault in faults(bad, tmp_path)}
    assert lines == {3, 4, 5, 9, 10, 11, 12, 13, 14, 16}
