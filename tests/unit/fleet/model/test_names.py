"""Every form in which emp prints a name means the same thing wherever a name is taken."""

from __future__ import annotations

import pytest

from emp_orch.errors import UsageError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.names import Name, Names, UnknownName, names_of
from emp_orch.fleet.plan.operations import Verb, operation_key
from support.fleet.fleets import COMFYUI, SETUP, SIMULATION, fleet, machine

# Names that could be taken for another's: of a log, a worker, a part of the control plane, a service.
MACHINES = ("m", "m-worker-0", "machine-m", "api", "comfyui", "x")
SERVICES = (SIMULATION, COMFYUI, SETUP)
FLEET = fleet(
    SERVICES, *(machine(name, num_gpus=2, services=("comfyui", "simulation", "prepare")) for name in MACHINES)
)
NAMES = names_of(FLEET, parts=("api", "redis"))


def found(*words: str, names: Names = NAMES) -> str:
    return names.find(words).text


def test_every_form_of_every_name() -> None:
    for wanted in desired_machines(FLEET).values():
        assert found(wanted.id) == wanted.id
        logged = f"machine-{wanted.id}" not in MACHINES
        for kind in (*Kind, *(operation_key(verb, MachineId("")) for verb in Verb)):
            assert found(f"{kind}/{wanted.id}/{wanted.id}") == wanted.id
        forms: dict[str, list[str]] = {str(p.name): [p.name] for p in wanted.programs}
        for worker, part_of in wanted.workers.items():
            forms[part_of].append(worker)
        for program, called in {**forms, "agent": ["agent"], "supervisord": ["supervisord"]}.items():
            for name in called:
                for words in (
                    (wanted.id, name),
                    (f"{wanted.id}/{name}",),
                    *(((f"machine-{wanted.id}/{name}",), (f"machine-{wanted.id}", name)) if logged else ()),
                    (wanted.id, f"{wanted.id}/{name}"),
                    (wanted.id, f"{Kind.PROGRAM_FATAL}/{wanted.id}/{name}"),
                    (f"{Kind.PROGRAM_FATAL}/{wanted.id}/{name}",),
                ):
                    assert found(*words) == f"{wanted.id}/{program}", words


@pytest.mark.parametrize(
    ("words", "means"),
    [
        (("x-worker-1",), "x/redis-worker-gpu1"),
        # A machine of that very name comes first.
        (("m-worker-0",), "m-worker-0"),
        (("machine-m",), "machine-m"),
        (("api",), "api"),
        (("m/",), "m"),
    ],
)
def test_alone(words: tuple[str, ...], means: str) -> None:
    assert found(*words) == means


def test_a_program_alone_is_meant_where_one_machine_has_it() -> None:
    one = names_of(fleet(SERVICES, machine("m", services=("simulation",))), parts=("api",))
    assert found("simulation", names=one) == "m/simulation"
    assert found("redis-worker-gpu0", names=one) == "m/redis-worker-gpu0"
    with pytest.raises(UnknownName, match="6 machines have a program comfyui-gpu0") as several:
        found("comfyui-gpu0")
    assert "m/comfyui-gpu0, m-worker-0/comfyui-gpu0" in (several.value.hint or "")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("basic-machine-locl",), "there is no machine 'basic-machine-locl' in this fleet, nor a program; "
         "did you mean basic-machine-local", "`emp status`"),
        (("basic-machine-local/comfui-gpu0",), "machine basic-machine-local has no program 'comfui-gpu0'; "
         "did you mean comfyui-gpu0", "comfyui-gpu0, comfyui-gpu1, "),
        (("basic-machine-local", "comfyui"), "has no program 'comfyui'; did you mean comfyui-gpu", "it has: "),
        (("basic-machine-local-worker-9",), "there is no machine 'basic-machine-local-worker-9'", "`emp status`"),
        (("nobody", "comfyui-gpu0"), "there is no machine 'nobody' in this fleet", "`emp status`"),
        (("api",), "api is a part of the control plane", "`emp logs api`"),
        (("program-fatal/nobody/x",), "there is no machine", "`emp status`"),
        (("",), "there is no machine ''", "`emp status`"),
        (("../control",), "there is no machine '../control'", "`emp status`"),
        (("basic-machine-local-worker-٣",), "there is no machine", "`emp status`"),
    ],
)  # fmt: skip
def test_what_nobody_is_called(words: tuple[str, ...], message: str, hint: str) -> None:
    local = machine("basic-machine-local", num_gpus=2, services=("comfyui", "simulation"))
    names = names_of(fleet(SERVICES, local), parts=("api",))
    with pytest.raises(UsageError) as raised:
        names.find(words)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")


def test_machines_that_left_the_fleet_are_still_named() -> None:
    names = names_of(fleet(SERVICES, machine("m")), more=("m", "old"))
    assert [n for n in names.all() if "/" not in n] == ["m", "old"]
    assert found("machine-old", names=names) == "old"
    assert found("old", "supervisord", names=names) == "old/supervisord"


def test_which_drifts_a_name_is_about() -> None:
    program = Name(machine="m", program="redis-worker-gpu1")
    assert program.is_about("m", "redis-worker-gpu1") and program.is_about("m", "m-worker-1")
    assert not program.is_about("m", "m-worker-0") and not program.is_about("x", "redis-worker-gpu1")
    assert Name(machine="m").is_about("m", "m-worker-0") and not Name(machine="m").is_about("x", "x")
