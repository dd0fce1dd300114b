"""The line that `emp machine join` prints, and how the box reads it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from emp_orch import __version__
from emp_orch.cli.output import join_lines
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import GpuKind, Gpus, Limits, Volume, WorkerSpec
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.machine.boot.join import Invitation, invitation_of
from emp_orch.store.acl.users import COMMANDS
from emp_orch.store.queue.scripts import all_texts
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import FORGET, PUT
from emp_orch.urls import with_login
from emp_orch.web.rate import Rate
from support.docker.compose import container, placed, services_of
from support.fleet.fleets import fleet, machine


def test_a_pools_line_warns_of_the_api_alone() -> None:
    """Members have no way to Redis but the API (ADR 0046)."""
    loopback = "127.0.0.1".__eq__
    assert join_lines.pool_warnings("https://emp.example", is_loopback=loopback) == []
    (near,) = join_lines.pool_warnings("http://127.0.0.1:3331", is_loopback=loopback)
    assert "give --api URL" in near
    (plain,) = join_lines.pool_warnings("http://emp.example", is_loopback=loopback)
    assert "https" in plain


def test_both_lines_hold_all_that_the_box_needs() -> None:
    box = machine("box-1", runtime=RuntimeKind.EXTERNAL)
    found = join_lines.lines(fleet([], box), box, url="https://emp.example", token="emp1.a.b")
    words = shlex.split(found.docker)
    assert words[:2] == ["docker", "run"]
    assert words[-1] == f"emp-machine:{__version__}"
    assert {"--init", "--read-only", "MACHINE_ID=box-1"} <= set(words)
    assert {"emp-box-1:/var/lib/emp", "emp-box-1-own:/var/lib/emp-own"} <= set(words)
    assert {"EMP_JOIN_URL=https://emp.example", "EMP_JOIN_TOKEN=emp1.a.b"} <= set(words)
    assert words[words.index("--restart") + 1] == "unless-stopped"
    assert "--gpus" not in words
    assert found.plain == "EMP_JOIN_URL=https://emp.example EMP_JOIN_TOKEN=emp1.a.b emp machine box-1 --stay"


@pytest.mark.parametrize(("ids", "asked"), [((), "all"), (("0", "3"), '"device=0,3"')])
def test_a_machine_with_gpus_asks_docker_for_them(ids: tuple[str, ...], asked: str) -> None:
    box = machine(gpus=Gpus(kind=GpuKind.NVIDIA, ids=ids), num_gpus=2, runtime=RuntimeKind.EXTERNAL)
    found = join_lines.lines(fleet([], box), box, url="http://a", token="t")
    words = shlex.split(found.docker)
    assert words[words.index("--gpus") + 1] == asked


def test_the_line_makes_the_container_that_compose_makes() -> None:
    """One function says what it is: only how each of both ways names it differs."""
    made: dict[str, Any] = {
        "image": "farm:1",
        "volumes": (Volume(source="/srv/models", target="/models", read_only=True),),
        "limits": Limits(memory_bytes=2**30, shm_bytes=2**29, cpus=1.5, swap_bytes=2**28, pids=500),
        "worker": WorkerSpec(capabilities={}, drain_timeout_s=90.0, job_timeout_s=600.0),
    }
    box = machine("box-1", runtime=RuntimeKind.EXTERNAL, **made)
    words = shlex.split(join_lines.lines(fleet([], box), box, url="http://a", token="t").docker)
    options = {w: words[n + 1] for n, w in enumerate(words[:-1]) if w.startswith("--")}
    written = services_of([placed(container("box-1", **made))])["box-1"]
    limits = written["deploy"]["resources"]["limits"]
    assert options["--stop-timeout"] + "s" == written["stop_grace_period"] == "165s"
    assert options["--tmpfs"] == written["tmpfs"][0]
    assert (options["--memory"], options["--memory-swap"]) == (limits["memory"], written["memswap_limit"])
    assert options["--memory-swap"] == str(2**30 + 2**28)
    assert (options["--cpus"], options["--shm-size"]) == (limits["cpus"], written["shm_size"])
    assert int(options["--pids-limit"]) == limits["pids"] == 500
    assert options["--cap-drop"] == written["cap_drop"][0]
    assert options["--security-opt"] == written["security_opt"][0]
    assert options["--restart"] == written["restart"]
    assert options["--log-driver"] == written["logging"]["driver"]
    logs = dict(words[n + 1].split("=") for n, w in enumerate(words) if w == "--log-opt")
    assert logs == written["logging"]["options"]
    assert options["--mount"] == '"type=bind","source=/srv/models","target=/models",readonly'
    assert words[-1] == written["image"] == "farm:1"
    assert {"--init", "--read-only"} <= set(words)


@pytest.mark.parametrize("url", ["ftp://a", "a:3331", "http://", "http://user:pw@a", "http://a?token=x"])
def test_what_is_no_url_of_an_api_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        join_lines.checked_url(url)
    with pytest.raises(UsageError):
        invitation_of({}, api=url, token_file=None)


def test_the_box_takes_options_before_its_environment(tmp_path: Path) -> None:
    environ = {"EMP_JOIN_URL": "http://env/", "EMP_JOIN_TOKEN": "of-env"}
    file = tmp_path / "token"
    file.write_text("of-file\n")
    assert invitation_of(environ, api=None, token_file=None) == Invitation(api="http://env", token="of-env")
    assert invitation_of(environ, api="http://arg", token_file=file) == Invitation(api="http://arg", token="of-file")
    named = {"EMP_JOIN_URL": "http://env", "EMP_JOIN_TOKEN_FILE": str(file)}
    assert invitation_of(named, api=None, token_file=None) == Invitation(api="http://env", token="of-file")
    assert invitation_of({}, api=None, token_file=None) is None


def test_a_token_without_an_api_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no API"):
        invitation_of({"EMP_JOIN_TOKEN": "t"}, api=None, token_file=None)
    with pytest.raises(UsageError, match="cannot read the token"):
        invitation_of({}, api="http://a", token_file=tmp_path / "missing")


def test_a_login_takes_the_place_of_the_one_in_the_url() -> None:
    url = with_login("rediss://old:pw@redis.example:6380/2", "emp:f:m", "p/w")
    assert url == "rediss://emp%3Af%3Am:p%2Fw@redis.example:6380/2"


def test_a_rate_lets_a_burst_through_and_then_only_so_many() -> None:
    rate = Rate(burst=2, per_s=4.0)
    assert [rate.take(5.0) for _ in range(3)] == [0.0, 0.0, 0.25]
    assert rate.take(5.25) == 0.0
    assert rate.take(5.25) > 0


def test_a_machines_user_may_do_what_the_scripts_do() -> None:
    """All but those that the reconciler alone runs."""
    queue = [text for name, text in all_texts(Keys()).items() if not name.startswith("positions/")]
    for text in (PUT, FORGET, *queue):
        done = set(re.findall(r"\bp?call\('([A-Z]+)'", text))
        assert done
        assert {command.lower() for command in done} <= set(COMMANDS)
