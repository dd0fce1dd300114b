"""The line that `emp machine join` prints, and how the box reads it."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from fleet_support import machine

from emp_orch import __version__
from emp_orch.api.rate import Rate
from emp_orch.cli import join_lines
from emp_orch.errors import UsageError
from emp_orch.fleet.model import GpuKind, Gpus
from emp_orch.machine.join import Invitation, invitation_of
from emp_orch.store import queue_lua, queue_lua_care, queue_prelude, reports
from emp_orch.store.scoped_access import COMMANDS, with_login


def test_both_lines_hold_all_that_the_box_needs() -> None:
    found = join_lines.lines(machine("box-1"), url="https://emp.example", token="emp1.a.b")
    words = shlex.split(found.docker)
    assert words[:2] == ["docker", "run"]
    assert words[-1] == f"emp-machine:{__version__}"
    assert {"--init", "--read-only", "MACHINE_ID=box-1", "emp-box-1:/var/lib/emp"} <= set(words)
    assert {"EMP_JOIN_URL=https://emp.example", "EMP_JOIN_TOKEN=emp1.a.b"} <= set(words)
    assert words[words.index("--restart") + 1] == "unless-stopped"
    assert "--gpus" not in words
    assert found.plain == "EMP_JOIN_URL=https://emp.example EMP_JOIN_TOKEN=emp1.a.b emp machine box-1 --stay"


@pytest.mark.parametrize(("ids", "asked"), [((), "all"), (("0", "3"), '"device=0,3"')])
def test_a_machine_with_gpus_asks_docker_for_them(ids: tuple[str, ...], asked: str) -> None:
    found = join_lines.lines(machine(gpus=Gpus(kind=GpuKind.NVIDIA, ids=ids)), url="http://a", token="t")
    words = shlex.split(found.docker)
    assert words[words.index("--gpus") + 1] == asked


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


@pytest.mark.parametrize("module", [reports, queue_prelude, queue_lua, queue_lua_care])
def test_a_machines_user_may_do_what_the_scripts_do(module: ModuleType) -> None:
    done = set(re.findall(r"\bcall\('([A-Z]+)'", inspect.getsource(module)))
    assert done
    assert {command.lower() for command in done} <= set(COMMANDS)
