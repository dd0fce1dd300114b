"""The way to Redis with its login stands in a file: who reads it, and which program is given what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.errors import EmpError
from emp_orch.machine.boot.redis_url import given_url, own_url
from emp_orch.machine.launch import Launch, LaunchError, words

BARE, WITH_LOGIN = "redis://127.0.0.1:6379/0", "redis://u:geheim@127.0.0.1:6379/0"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a machine's folder, whose environment this is; the variable that names it is not set."""
    for name in ("HUB_REDIS_URL_FILE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EMP_MACHINE_DIR", str(tmp_path))
    monkeypatch.setenv("HUB_REDIS_URL", BARE)
    made = tmp_path / "hub_redis_url"
    made.write_text(f"{WITH_LOGIN}\n")
    return made


def environment(file: Path) -> dict[str, str]:
    return {"HUB_REDIS_URL": BARE, "REDIS_URL": BARE, "HUB_REDIS_URL_FILE": str(file)}


@pytest.mark.parametrize("argv", [("sleep", "1"), ("@emp", "simulate")])
def test_a_service_is_not_even_told_of_it(file: Path, argv: tuple[str, ...]) -> None:
    given = words(Launch(["a", "--", *argv]), environment(file))[1]
    assert (given["HUB_REDIS_URL"], given["REDIS_URL"]) == (BARE, BARE) and "HUB_REDIS_URL_FILE" not in given


def test_a_worker_is_given_what_it_says_whatever_emp_it_is_of(file: Path) -> None:
    given = words(Launch(["redis-worker-gpu0", "--", "@emp", "worker"]), environment(file))[1]
    assert (given["HUB_REDIS_URL"], given["REDIS_URL"]) == (WITH_LOGIN, WITH_LOGIN)


def test_an_agent_reads_it_itself(file: Path) -> None:
    given = words(Launch(["agent", "--", "@emp", "machine-agent"]), environment(file))[1]
    assert given["HUB_REDIS_URL_FILE"] == str(file) and "geheim" not in str(given)


def test_a_worker_without_it_is_told_which_file(file: Path) -> None:
    file.unlink()
    with pytest.raises(LaunchError, match=f"cannot read {file}, which HUB_REDIS_URL_FILE names: No such file"):
        words(Launch(["redis-worker-gpu0", "--", "@emp", "worker"]), environment(file))


def test_below_a_supervisord_that_names_none_the_machines_own_counts(file: Path) -> None:
    assert own_url() == WITH_LOGIN
    assert given_url() == BARE, "what a machine is started with is what it is given"
    file.unlink()
    assert own_url() == BARE


def test_a_named_file_counts_first_and_is_never_quoted(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "secret"
    named.write_text("redis://u:other@h:1/0")
    monkeypatch.setenv("HUB_REDIS_URL_FILE", str(named))
    assert own_url() == given_url() == "redis://u:other@h:1/0"
    named.write_text("redis://u:other@h:1/0 and more")
    with pytest.raises(EmpError, match="exactly one line") as caught:
        own_url()
    assert "other" not in f"{caught.value.message}{caught.value.hint}"
