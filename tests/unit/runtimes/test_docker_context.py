"""Which engine emp takes for this host's: the one that the docker command line speaks with, by its own contexts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from emp_orch.errors import UsageError
from emp_orch.runtimes.compose.connection import local_host
from emp_orch.runtimes.compose.context import DEFAULT_SOCKET, Named, engine_of


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Contexts as the docker command line itself writes them."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path


def _environ(config: Path, **more: str) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(config / "docker"), **more}


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True, timeout=60)


def test_without_a_context_it_is_the_default_socket(config: Path) -> None:
    assert engine_of(_environ(config)) == Named(url=DEFAULT_SOCKET)


def test_the_context_in_use_is_followed(config: Path) -> None:
    docker("context", "create", "rootless", "--docker", "host=unix:///run/user/1000/docker.sock")
    docker("context", "use", "rootless")
    assert engine_of(_environ(config)) == Named(url="unix:///run/user/1000/docker.sock")
    assert local_host().here
    assert engine_of(_environ(config, DOCKER_HOST="unix:///other.sock")) == Named(url="unix:///other.sock"), (
        "as docker has it"
    )
    assert engine_of(_environ(config, DOCKER_CONTEXT="default")) == Named(url=DEFAULT_SOCKET)


def test_a_context_over_ssh_is_another_host(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker("context", "create", "far", "--docker", "host=ssh://me@box")
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert (local_host().url, local_host().here) == ("ssh://me@box", False)


def test_its_tls_files_are_taken(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = config / "k.pem", config / "c.pem"
    openssl = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2")
    subprocess.run([*openssl, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    docker("context", "create", "tls", "--docker", f"host=tcp://10.0.0.1:2376,ca={cert},cert={cert},key={key}")
    monkeypatch.setenv("DOCKER_CONTEXT", "tls")
    host = local_host()
    assert (host.url, host.here) == ("tcp://10.0.0.1:2376", False)
    assert [Path(file).read_bytes() for file in (host.ca, host.cert, host.key)] == [
        *(cert.read_bytes(), cert.read_bytes(), key.read_bytes())
    ]


def test_a_context_that_is_not_there_or_damaged_is_named(config: Path) -> None:
    with pytest.raises(UsageError, match="context 'gone' cannot be used: there is no such context"):
        engine_of(_environ(config, DOCKER_CONTEXT="gone"))
    docker("context", "create", "bad", "--docker", "host=unix:///x.sock")
    (meta,) = (config / "docker" / "contexts" / "meta").glob("*/meta.json")
    for text in (
        "{",
        "[]",
        '{"Name": "bad", "Endpoints": {"docker": {"Host": 7}}}',
        '{"Name": "bad", "Endpoints": {}}',
    ):
        meta.write_text(text)
        with pytest.raises(UsageError, match="docker context 'bad' cannot be used") as refused:
            engine_of(_environ(config, DOCKER_CONTEXT="bad"))
        assert "docker context ls" in refused.value.hint
