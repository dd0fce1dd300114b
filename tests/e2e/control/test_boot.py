"""`emp boot` on a real systemd: the fleet comes up when the host is booted, and goes down in order with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.host.systemd import Host
from support.stack.stack import Stack, until

TINY = """\
version: 1
name: {name}
redis: {{url: embedded, port: {redis}}}
api: {{port: {api}}}
monitor: {{port: {monitor}}}
machines:
  box: {{num_gpus: 1, services: []}}
"""


def make_tiny(stack: Stack, name: str) -> None:
    """A fleet of one worker, which is soon up and down."""
    stack.file.write_text(TINY.format(name=name, **stack.ports))


class Booted(Stack):
    """A fleet on a host of the test's own."""

    def __init__(self, folder: Path, host: Host) -> None:
        super().__init__(folder)
        make_tiny(self, "boots")
        self._host = host

    def argv(self, *args: str) -> list[str]:
        return self._host.argv(*super().argv(*args))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    made.boot()
    yield made
    made.crash()


def test_a_fleet_comes_up_with_its_host_and_goes_down_with_it(host: Host, tmp_path: Path) -> None:
    stack = Booted(tmp_path / 'a fleet, 100% "mine"', host)
    refused = stack.run("boot", "install")
    assert refused.returncode == 2, refused.stderr
    assert "no fleet was applied" in refused.stderr
    stack.up()
    none = stack.run("boot", "status")
    assert none.returncode == 1
    assert "does not come up at boot; `emp boot install`" in none.stdout

    installed = json.loads(stack.ok("boot", "install", "--json"))
    unit = "emp-boots.service"
    assert (installed["unit"], installed["at_boot"], installed["outdated"]) == (unit, True, False)
    assert host.systemctl("is-active", unit) == "active", "it stays beside the fleet that runs already"
    assert "boots runs already: generation 1" in host.log

    host.crash()
    host.boot()
    until("the unit is up", lambda: host.systemctl("is-active", unit) == "active", shown=lambda: host.log)
    stack.until_in_sync()
    assert json.loads(stack.ok("boot", "status", "--json"))["state"] == "active"
    assert len(json.loads(stack.ok("history", "--json"))) == 1, "nothing was published"

    host.systemctl("stop", unit)
    assert host.systemctl("is-active", unit) == "inactive"
    assert "the fleet is down (box)" in host.log
    assert stack.run("status", "--host").returncode == 1, "nothing of it runs"

    host.systemctl("start", unit)
    assert host.systemctl("is-active", unit) == "active"
    stack.ok("down")
    until("the unit ends with its fleet", lambda: host.systemctl("is-active", unit) == "inactive")

    removed = json.loads(stack.ok("boot", "remove", "--json"))
    assert (removed["installed"], removed["at_boot"]) == (False, False)
    assert not Path(removed["path"]).exists()


def test_a_unit_of_another_fleet_or_a_persons_own_stays(host: Host, tmp_path: Path) -> None:
    first, second = Booted(tmp_path / "first", host), Booted(tmp_path / "second", host)
    for stack in (first, second):
        stack.ok("apply", "-y", "--no-wait")
    first.ok("boot", "install")
    refused = second.run("boot", "install")
    assert refused.returncode == 1
    assert f"is that of the fleet in {first.root}" in refused.stderr
    assert second.run("boot", "remove").returncode == 1
    assert second.run("boot", "status").returncode == 1, "that unit does not bring this fleet up"
    first.ok("boot", "remove")
    subprocess.run(host.argv("touch", "/etc/systemd/system/emp-boots.service"), check=True)
    own = second.run("boot", "install")
    assert own.returncode == 1
    assert "is not emp's" in own.stderr
    for stack in (first, second):
        stack.ok("down")


def test_a_host_without_systemd_is_told_what_to_do(folder_stack: Stack) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    stack = folder_stack
    make_tiny(stack, "tiny")
    stack.ok("apply", "-y", "--no-wait")
    refused = stack.run("boot", "install")
    assert refused.returncode == 1
    assert f"emp -C {stack.root} start" in refused.stderr
    assert "Type=notify" in stack.ok("boot", "install", "--print")
    assert stack.run("boot", "status").returncode == 1


def test_start_stays_in_the_foreground_until_it_is_told_to_end(folder_stack: Stack) -> None:
    stack = folder_stack
    make_tiny(stack, "tiny")
    stack.up()

    def staying(*, first: str, then: Callable[[int], None]) -> tuple[str, int]:
        """What it says once it has said `first` and `then` was done with its pid, and its exit status."""
        argv = stack.argv("start", "--foreground")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as stays:
            assert stays.stdout is not None
            assert stays.stdout.readline() == f"{first}\n"
            then(stays.pid)
            return stays.stdout.read(), stays.wait(60)

    said, status = staying(
        first="tiny runs already: generation 1",
        then=lambda _: os.kill(stack.control("supervisord").pid, signal.SIGKILL),
    )
    assert "the control plane ended by itself" in said
    assert status == 1
    said, status = staying(first="tiny is up: generation 1", then=lambda pid: os.kill(pid, signal.SIGTERM))
    assert "the fleet is down (box)" in said
    assert status == 0
    assert not stack.leftovers()
