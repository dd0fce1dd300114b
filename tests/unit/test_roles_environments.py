"""Which variables a role takes over: the pure function, by tables of names."""

from __future__ import annotations

import pytest

from emp_orch import environments
from emp_orch.environments import CONTROL, MACHINE, of_daemon, of_role, of_store, passes
from emp_orch.fleet.model.allotment import NVIDIA, OBEYED
from emp_orch.host.proxies import proxy_for
from emp_orch.render.supervisord import CONTROL_PROGRAMS, EMBEDDED_REDIS

DAEMONS = tuple(p.name for p in (*CONTROL_PROGRAMS, EMBEDDED_REDIS))
ROLES = (*DAEMONS, MACHINE, CONTROL)
FOR_ALL: tuple[str, ...] = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_TIME",
    "TZ",
    "TMPDIR",
    "USER",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
)
FOR_ALL = (*FOR_ALL, "PYTHONPATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "EMP_DEBUG")
FOR_DEVICES = (
    *OBEYED,
    NVIDIA,
    "NVIDIA_DRIVER_CAPABILITIES",
    "NCCL_DEBUG",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
)
FOR_NOBODY = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "HF_TOKEN", "HF_HOME", "GITHUB_TOKEN", "DATABASE_URL", "NOTIFY_SOCKET"),
    *("NVIDIA_API_KEY", "CUDA_TOKEN", "TORCH_SECRET", "PYTHON_KEYRING_PASSWORD", "LC_AUTH", "ROCM_CREDENTIALS"),
    *("REDIS_URL", "HUB_REDIS_URL", "HUB_REDIS_URL_FILE", "EMP_SECRETS", "EMP_MARK", "EMP_JOIN_TOKEN", "EMP_RUN_DIR"),
    *("PIP_INDEX_URL", "", "=", "path", "PATH ", "XPATH", "PATHS", "BASH_FUNC_x%%", "PS1", "PWD", "_"),
)
ENGINES = ("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR")


@pytest.mark.parametrize("role", ROLES)
def test_what_all_need_and_nobody_gets(role: str) -> None:
    assert [n for n in FOR_ALL if not passes(role, n)] == []
    assert [n for n in FOR_NOBODY if passes(role, n)] == []


@pytest.mark.parametrize("role", ROLES)
def test_only_who_has_a_use_for_it(role: str) -> None:
    starts_machines = role in (CONTROL, "reconcile")
    assert {passes(role, n) for n in ENGINES} == {starts_machines}
    assert {passes(role, n) for n in FOR_DEVICES} == {starts_machines or role == MACHINE}
    assert passes(role, "https_proxy") is passes(role, "HTTPS_PROXY") is (role not in ("redis", "monitor", "eventlog"))


def test_values_stay_as_they_are() -> None:
    shell = {"PATH": "/bin", "LANG": "", "SECRET": "x", "TZ": "a\nb=c"}
    assert of_role(MACHINE, shell) == {"PATH": "/bin", "LANG": "", "TZ": "a\nb=c"}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_gets_its_share_of_its_supervisords(daemon: str) -> None:
    """Nothing that it needs was held back before, and what its supervisord tells it stays."""
    supervisords = {
        **dict.fromkeys((*FOR_ALL, *ENGINES, *FOR_DEVICES), "x"),
        "EMP_MARK": "m",
        "SUPERVISOR_ENABLED": "1",
    }
    got = of_daemon(daemon, supervisords)
    assert {"PATH", "EMP_MARK", "SUPERVISOR_ENABLED"} <= got.keys()
    assert ("SSH_AUTH_SOCK" in got) is (daemon == "reconcile")
    assert of_role(CONTROL, got) == of_role(daemon, got)


@pytest.mark.parametrize("program", ["worker", "machine-agent", "machine-setup", "simulate"])
def test_a_machines_own_programs_get_all_of_its(program: str) -> None:
    """In a container that is what its image and its compose file say, whatever the names."""
    assert of_daemon(program, {"ANY": "x", "PATH": "y"}) == {"ANY": "x", "PATH": "y"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/a", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/a", "AWS_ENDPOINT_URL"),
        ("s3a://bucket/a", "AWS_REQUEST_CHECKSUM_CALCULATION"),
        ("gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://container", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_a_far_store_is_opened_with_its_own(url: str, name: str) -> None:
    assert name in of_store(url)
    assert len(set(of_store(url))) == len(of_store(url))


@pytest.mark.parametrize("url", ["", "file:///srv/a", "memory://x", "s3", "http://s3://x"])
def test_other_stores_need_nothing(url: str) -> None:
    assert of_store(url) == ()


def test_the_proxies_that_emp_goes_by_are_those_handed_on() -> None:
    for scheme in ("http", "https", "ws", "wss"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "no_proxy"):
            assert passes(MACHINE, name) and passes("api", name)
    assert proxy_for("https", "example.com", 443, of_role("api", {"HTTPS_PROXY": "http://p:1"}))[1] == "http://p:1"


def test_every_daemon_is_known() -> None:
    assert set(DAEMONS) <= environments._NAMES.keys()
