"""`inherit` in emp.yaml: what it takes, what it refuses, what it is told about, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.control.apply.proposal import read_proposal
from emp_orch.fleet.desired.inherits import missed
from emp_orch.fleet.desired.machines import desired_machines, needed_secrets
from emp_orch.fleet.model.fleet import Fleet, MachineId, ProgramName, SecretRef
from emp_orch.fleet.plan.operations import compare
from emp_orch.manifest import ConfigError, load_text, notes_of_shell
from emp_orch.render.supervisord import render_control
from emp_orch.resources import read_text

TEXT = """\
version: 1
name: f
services:
  s: {scale: per_machine, command: [sh, -c, 'echo $HF_HOME ${OTHER_NAME} $HOME $NUM_GPUS'], SERVICE}
  t: {scale: per_machine, command: [t]}
defaults: {DEFAULTS}
machines:
  a: {services: [s, t], num_gpus: 1, MACHINE}
  b: {services: [t], replicas: 2}
"""
ENV = {"HF_HOME": "/models", "OTHER_NAME": "x", "HOME": "/root", "NUM_GPUS": "1"}


def load(*, service: str = "", machine: str = "", defaults: str = "") -> Fleet:
    text = TEXT.replace("SERVICE", service).replace("DEFAULTS", defaults).replace("MACHINE", machine)
    return load_text(text.replace("${OTHER_NAME}", "$${OTHER_NAME}"), file="emp.yaml", environ=ENV)


def inheriting(fleet: Fleet) -> dict[str, list[str]]:
    """Program on its machine → what it inherits."""
    return {
        f"{m.id}/{p.name}": names
        for m in desired_machines(fleet).values()
        for p in m.programs
        if (names := [n for n, v in p.env.items() if isinstance(v, SecretRef) and v.optional])
    }


def test_a_services_programs_and_no_others() -> None:
    assert inheriting(load(service="inherit: [B, A]")) == {"a/s": ["B", "A"]}


def test_all_programs_of_a_machine() -> None:
    found = inheriting(load(machine="inherit: [A]", service="inherit: [A, B]"))
    assert found == {"a/shared-setup": ["A"], "a/s": ["A", "B"], "a/t": ["A"], "a/redis-worker-gpu0": ["A"]}


def test_a_machines_list_replaces_that_of_defaults() -> None:
    found = inheriting(load(defaults="inherit: [A]", machine="inherit: [B]"))
    assert found["a/t"] == ["B"] and found["b-1/t"] == found["b-2/t"] == ["A"]


def test_a_value_in_env_wins_over_one_inherited_elsewhere() -> None:
    machine = desired_machines(load(machine="inherit: [A], env: {B: m}", service="inherit: [B], env: {A: s}"))
    program = next(p for p in next(iter(machine.values())).programs if p.name == "s")
    assert (program.env["A"], program.env["B"]) == ("s", "m")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"service": "inherit: [EMP_SECRETS]"}, 'services.s.inherit[0]: "EMP_SECRETS" is emp\'s own'),
        ({"machine": "inherit: [A, REDIS_URL]"}, 'machines.a.inherit[1]: "REDIS_URL" is emp\'s own'),
        ({"defaults": "inherit: [SUPERVISOR_X]"}, 'defaults.inherit[0]: "SUPERVISOR_X" is emp\'s own'),
        ({"service": "inherit: [A], env: {A: x}"}, 'services.s.inherit[0]: "A" has its value in env already'),
        ({"service": "inherit: [1A]"}, "services.s.inherit[0]: expected a variable's name"),
        ({"service": "inherit: [A=B]"}, "services.s.inherit[0]: expected a variable's name"),
        ({"service": "inherit: ['A\\n']"}, "services.s.inherit[0]: expected a variable's name"),
        ({"service": "inherit: [A, A]"}, "services.s.inherit"),
        ({"service": "inherit: A"}, "services.s.inherit: expected a list of names of variables"),
        ({"service": f"inherit: [{', '.join(f'A{n}' for n in range(101))}]"}, "services.s.inherit"),
    ],
)
def test_what_is_refused(given: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as e:
        load(**given)
    assert expected in e.value.message and "emp.yaml:" in e.value.message


def test_what_is_not_set_is_told_once_with_its_line() -> None:
    fleet = load(service="inherit: [A, B]", defaults="inherit: [C]")
    assert list(notes_of_shell(fleet, {}, known=("B",))) == [
        "emp.yaml:4:3: note: services.s.inherit: A is not set here: its programs run without it",
        "emp.yaml:8:3: note: machines.a.inherit: C is not set here: its programs run without it",
        "emp.yaml:9:3: note: machines.b-1.inherit: C is not set here: its programs run without it",
    ]


def test_a_command_that_names_what_no_longer_reaches_it() -> None:
    told = list(notes_of_shell(load(), ENV, known=ENV))
    assert [t.partition(": note: ")[2].partition(" hands")[0] for t in told] == [
        "services.s: its command names $HF_HOME, which is set here and does not reach programs by itself: "
        "inherit: [HF_HOME]",
        "services.s: its command names $OTHER_NAME, which is set here and does not reach programs by itself: "
        "inherit: [OTHER_NAME]",
    ]
    fleet = load(service="inherit: [HF_HOME]", machine="env: {OTHER_NAME: y}")
    assert list(notes_of_shell(fleet, ENV, known=ENV)) == []


def test_the_plan_names_who_inherits_what() -> None:
    before, after = (desired_machines(load(service=s)) for s in ("inherit: [A]", "inherit: [B]"))
    old, new = (next(iter(m.values())) for m in (before, after))
    change = compare(old, new)
    assert change.changed == ("s",)
    (found,) = change.inherits
    assert (found.programs, found.more, found.less) == (("s",), ("B",), ("A",))
    assert compare(new, new).inherits == ()


def proposed(folder: Path, shell: dict[str, str], text: str) -> tuple[dict[str, str], Fleet]:
    (folder / "emp.yaml").write_text(text)
    _, proposal = read_proposal(folder / "emp.yaml", shell)
    return proposal.secrets, proposal.fleet


def test_values_are_the_shells_or_of_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B=of-the-file\n")
    text = TEXT.replace("SERVICE", "inherit: [A, B, C]").replace("DEFAULTS", "").replace("MACHINE", "")
    values, fleet = proposed(tmp_path, {"A": "", "OTHER_NAME": "x"}, text)
    assert values == {"env:A": "", "env:B": "of-the-file"}
    a, b = (desired_machines(fleet)[MachineId(i)] for i in fleet_ids(fleet)[:2])
    assert needed_secrets(a, values) == values and needed_secrets(b, values) == {}


def fleet_ids(fleet: Fleet) -> list[str]:
    return [m.id for m in fleet.machines]


STORE = """\
version: 1
name: f
jobs: {artifacts: 's3://b/c'}
machines: {a: {services: []}, box: {services: [], runtime: external}, c: {services: [], runtime: compose}}
"""


def test_who_opens_a_far_store_has_its_login_and_a_box_has_not() -> None:
    """Here that was the shell's. A box is given nothing of it: what it may read is said in its `env`."""
    fleet = load_text(STORE, file="emp.yaml", environ={})
    values = {"env:AWS_SECRET_ACCESS_KEY": "s3cret"}
    machines = desired_machines(fleet)
    given = {i: [p.name for p in m.programs if "AWS_SECRET_ACCESS_KEY" in p.env] for i, m in machines.items()}
    assert given == {"a": ["redis-worker-gpu0"], "box": [], "c": []}
    assert [bool(needed_secrets(m, values)) for m in machines.values()] == [True, False, False]

    template = read_text("templates/control.conf.j2")
    lines = render_control(template, embedded_redis=True, artifacts=fleet.jobs.artifacts).splitlines()
    named = [
        line.partition("launch ")[2].split()[0] for line in lines if "--inherit AWS_SECRET_ACCESS_KEY=env:" in line
    ]
    assert named == ["api", "reconcile"]
    assert "--inherit" not in render_control(template, embedded_redis=True, artifacts="file:///a")


def test_last_words_that_name_a_variable_of_the_shell_only() -> None:
    machine = next(iter(desired_machines(load(machine="inherit: [ASKED_FOR]")).values()))
    program = machine.program(ProgramName("s"))
    assert program is not None
    shell = dict.fromkeys(("HF_TOKEN", "ASKED_FOR", "CUDA_HOME", "NUM_GPUS", "LC_ALL", "A_B", "HF"), "x")
    said = ["KeyError: 'HF_TOKEN'", "ASKED_FOR CUDA_HOME LC_ALL NUM_GPUS HF NOT_SET", "MY_A_B A_BC lower_case"]
    assert missed(program, said, shell) == ("HF_TOKEN",)
    assert missed(program, said, {}) == ()
