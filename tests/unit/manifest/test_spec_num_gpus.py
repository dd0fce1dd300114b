"""Where an emp.yaml says how many GPU slots a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch import manifest
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.manifest import Setting
from emp_orch.manifest.checks.ports import conflicts

HEAD = "version: 1\nname: f\n"
SERVICES = "services:\n  s: {scale: per_gpu, builtin: simulation, port: 5000}\n"


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        ("machines:\n  m: {services: [], num_gpus: 3}\n", "m", Setting(origin="emp.yaml:4:31", text="3", value=3)),
        (
            "machines:\n  m:\n    services: []\n    num_gpus: ${N:-2}\n",
            "m",
            Setting(origin="emp.yaml:6:15", text="${N:-2}", value=2),
        ),
        (
            "defaults:\n  num_gpus: 4\nmachines:\n  m: {services: []}\n",
            "m",
            Setting(origin="emp.yaml:4:13", text="4", value=4),
        ),
        ("machines:\n  m: {services: []}\n", "m", Setting(origin="emp.yaml:4:3", text="", value=1)),
        (
            "machines:\n  m: {services: [], num_gpus: 2, replicas: 2}\n",
            "m-2",
            Setting(origin="emp.yaml:4:31", text="2", value=2),
        ),
        ("machines:\n  m: {services: []}\n", "n", None),
    ],
)
def test_where_it_stands(tmp_path: Path, text: str, machine: str, expected: Setting | None) -> None:
    file = tmp_path / "emp.yaml"
    file.write_text(HEAD + text)
    assert manifest.num_gpus(file, {}, machine) == expected


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("a: 5000, b: 5001", ["port 5001 of s of b is taken by s of a"]),
        ("a: 5000, b: 5002", []),
        ("a: 5000, b: 65535", ["s of b needs port 65536, above 65535"]),
    ],
)
def test_a_fleet_without_its_file_is_judged_the_same(ports: str, expected: list[str]) -> None:
    """What `emp scale` asks of a stored generation is what `emp validate` asks of a file."""
    machines = "".join(
        f"  {name}: {{services: [s], num_gpus: 2, ports: {{s: {port}}}}}\n"
        for name, port in (entry.split(": ") for entry in ports.split(", "))
    )
    text = HEAD + SERVICES + "machines:\n" + machines
    if expected:
        with pytest.raises(manifest.ConfigError) as refused:
            manifest.load_text(text, file="emp.yaml", environ={})
        assert [p.message for p in refused.value.problems] == expected
    fleet = manifest.load_text(text.replace("num_gpus: 2", "num_gpus: 1"), file="emp.yaml", environ={})
    owner = {MachineId(m.id): m.id for m in fleet.machines}
    assert list(conflicts(fleet, owner)) == []
    from msgspec import structs

    scaled = structs.replace(fleet, machines=tuple(structs.replace(m, num_gpus=2) for m in fleet.machines))
    assert [c.text for c in conflicts(scaled, owner)] == expected
