"""What an emp that kept its files among those of services left in a container's volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.machine.boot.moved import take_over
from emp_orch.machine.home.folder import MachineFolder

SECRETS = ("hub_redis_url", "secrets.json", "orders.json", "api.json")
EMPS = (*SECRETS, "supervisord.conf", "config.json", "agent.json", "join.json", "box.json", "run/agent", "packages/a/x")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineFolder:
    """A new one, beside a volume that has been in use."""
    old = tmp_path / "home/machine"
    for name in (*EMPS, "data/model", "config.yaml", "../secrets/hub_redis_url", "../secrets/of-a-service"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(name)
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("EMP_SERVICES_FOLDER", str(old))
    monkeypatch.setenv("EMP_SECRETS", "/run/secrets/secrets.json")
    return MachineFolder(tmp_path / "own")


def left(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_its_secrets_go_and_what_a_box_is_known_by_moves(folder: MachineFolder) -> None:
    take_over(folder)
    assert left(folder.services.parent) == {"machine/data/model", "machine/config.yaml", "secrets/of-a-service"}
    assert left(folder.root) == {"join.json", "box.json"}
    take_over(folder)
    assert left(folder.root) == {"join.json", "box.json"}


def test_what_an_earlier_reconciler_handed_over_stays(folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMP_SECRETS", str(folder.services.parent / "secrets/secrets.json"))
    take_over(folder)
    assert "secrets/hub_redis_url" in left(folder.services.parent)


def test_a_services_own_files_of_such_names_are_left_alone(folder: MachineFolder) -> None:
    """Also where emp's volume is new again: such a folder has no supervisord.conf."""
    (folder.services / "supervisord.conf").unlink()
    before = left(folder.services)
    take_over(folder)
    assert left(folder.services) == before and left(folder.root) == set()
    (folder.services / "supervisord.conf").write_text("a service's")
    (folder.root / "config.json").write_text("{}")
    take_over(folder)
    assert left(folder.services) == {*before, "supervisord.conf"}
