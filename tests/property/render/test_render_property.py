"""Any machine renders to exactly its programs, and no value leaves its line: supervisord's own parser is the judge."""

from __future__ import annotations

import signal as signals

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import EnvValue, Scale, SecretRef, Service, Stop
from emp_orch.machine.launch import Launch
from emp_orch.render.supervisord import render_machine
from emp_orch.resources import read_text
from support.fleet.fleets import COMFYUI, HEALTH, SETUP, SIMULATION, fleet, install, machine, one, service
from support.machine.supervisor_conf import launch_of, parse, programs

TEMPLATE = read_text("templates/supervisord.conf.j2")
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

# --- which programs

SERVICES = (
    SIMULATION,
    COMFYUI,
    SETUP,
    service("tool", scale=Scale.PER_GPU, port=9000, install=install("get", "tool", creates="tool/done")),
    service("plain"),
    service("after", port=9500, health=HEALTH, depends_on=("tool", "comfyui")),
)
EXPECTED = {
    "simulation": lambda n: {"simulation-installer", "simulation"},
    "comfyui": lambda n: {"comfyui-installer", *(f"comfyui-gpu{i}" for i in range(n))},
    "prepare": lambda n: {"prepare"},
    "tool": lambda n: {"tool-installer", *(f"tool-gpu{i}" for i in range(n))},
    "plain": lambda n: {"plain"},
    "after": lambda n: {"after"},
}


@settings(STEADY, max_examples=60)
@given(st.integers(0, 16), st.lists(st.sampled_from(SERVICES), unique_by=lambda s: s.name))
def test_exactly_the_expected_programs_with_unique_ports(num_gpus: int, services: list[Service]) -> None:
    m = machine(services=[s.name for s in services], num_gpus=num_gpus)
    wanted = desired_machine(fleet(SERVICES, m), m)
    expected = {"shared-setup", *(f"redis-worker-gpu{i}" for i in range(num_gpus))}
    for s in services:
        expected |= EXPECTED[s.name](num_gpus)
    assert len(wanted.programs) == len(expected)
    assert {p.name for p in wanted.programs} == expected
    ports = [p.port for p in wanted.programs if p.port is not None]
    assert len(ports) == len(set(ports))

    options = parse(render_machine(TEMPLATE, wanted))
    parsed = programs(options)
    assert set(parsed) == expected | {"agent"}
    for program in wanted.programs:
        got = parsed[program.name]
        assert not got.autostart
        assert bool(got.autorestart) is not program.kind.once
        assert got.startsecs == (0 if program.kind.once else 1)
        assert got.exitcodes == [0]
        assert got.stopasgroup
        assert got.killasgroup
        assert got.redirect_stderr
        assert got.stdout_logfile.endswith(f"/logs/{program.name}.log")
        assert_same(launch_of(got), program.name, program.argv, program.env, program.cwd, program.creates)
    assert parsed["agent"].autostart


@settings(STEADY, max_examples=40)
@given(st.integers(0, 16), st.integers(0, 16), st.lists(st.sampled_from(SERVICES), unique_by=lambda s: s.name))
def test_programs_that_stay_render_alike_whatever_the_number_of_gpus(a: int, b: int, services: list[Service]) -> None:
    """So that supervisord leaves them running when the number changes."""

    def lines(num_gpus: int) -> dict[str, str]:
        m = machine(services=[s.name for s in services], num_gpus=num_gpus)
        text = render_machine(TEMPLATE, desired_machine(fleet(SERVICES, m), m))
        return {block.partition("]")[0]: block.strip() for block in text.split("\n[")[1:]}

    one_, other = lines(a), lines(b)
    stay = set(one_) & set(other)
    assert {name: one_[name] for name in stay} == {name: other[name] for name in stay}
    assert {name for name in set(one_) ^ set(other) if "-gpu" not in name} == set()


# --- any values

CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NASTY = st.sampled_from(
    [
        *("", " ", "  x  ", "\n", "a\nb", "a\r\nb", "\t", "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "\x1b[0m", "\x7f"),
        *("%", "%%", "%(here)s", "%%(here)s", "%(ENV_HOME)s", "%(program_name)s", "%s", "100%", "50 % (x)"),
        *(";", " ;x", "a ; b", "#", " # c", "a #b", ";;", "';", '";"', "'", '"', "'\"'\"'", "\\", "\\\\", "\\n", "\\'"),
        *("[program:evil]", "\n[program:evil]\ncommand=evil", "\\x41", "\\N{DIGIT ONE}", "=", "a=b", ":", ","),
        *("--", "-c", "--env", "--cwd", "@emp", "$HOME", "`id`", "$(id)", "ü", "日本", "🙂", "\u202e", "\ufeff"),
    ]
)
TEXT = st.one_of(NASTY, st.text(CHARS, max_size=20), st.lists(NASTY, max_size=4).map("".join))
ARGV = st.lists(TEXT, min_size=1, max_size=4).map(tuple)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
ENV = st.dictionaries(NAMES, st.one_of(TEXT, st.builds(SecretRef, source=st.just("file"), name=TEXT)), max_size=3)


def values(env: dict[str, EnvValue]) -> dict[str, str]:
    return {k: v for k, v in env.items() if isinstance(v, str)}


def assert_same(
    got: Launch, name: str, argv: tuple[str, ...], env: dict[str, EnvValue], cwd: str | None, creates: str | None
) -> None:
    assert got.name == name
    assert tuple(got.argv) == argv
    assert got.env == values(env)
    assert got.secrets == {k: v.key for k, v in env.items() if isinstance(v, SecretRef)}
    assert (got.cwd, got.creates) == (cwd, creates)


@settings(STEADY, max_examples=300)
@given(ARGV, ENV, ENV, st.none() | TEXT, ARGV, st.none() | TEXT)
@example(("x",), {}, {}, "--", ("y",), "--")
@example(("%(here)s", "%%(here)s"), {"A": "%(here)s"}, {}, "%(here)s", ("a ; b # c",), " ; %")
@example(("\n[program:evil]\ncommand=evil",), {"A": "\n[program:evil]"}, {}, None, ("",), None)
def test_no_value_breaks_out_of_its_line(
    argv: tuple[str, ...],
    env: dict[str, EnvValue],
    machine_env: dict[str, EnvValue],
    cwd: str | None,
    installer: tuple[str, ...],
    creates: str | None,
) -> None:
    s = service("s", command=argv, env=env, cwd=cwd, install=install(*installer, creates=creates))
    wanted: DesiredMachine = one([s], env=machine_env)
    options = parse(render_machine(TEMPLATE, wanted))
    parsed = programs(options)
    assert set(parsed) == {"agent", "shared-setup", "s-installer", "s", "redis-worker-gpu0"}
    for program in wanted.programs:
        got = launch_of(parsed[program.name])
        assert_same(got, program.name, program.argv, program.env, program.cwd, program.creates)
    running, setup = launch_of(parsed["s"]), launch_of(parsed["s-installer"])
    assert tuple(running.argv) == argv
    assert running.cwd == setup.cwd == cwd
    assert values({**machine_env, **env}).items() <= running.env.items()
    assert tuple(setup.argv) == installer
    assert setup.creates == creates


@settings(STEADY, max_examples=40)
@given(
    st.sampled_from(["TERM", "INT", "QUIT", "HUP", "KILL", "USR1", "USR2"]),
    st.floats(0, 1e6),
    st.floats(0, 1e4),
)
def test_stop_and_start_times_round_up(signal: str, stop_s: float, start_s: float) -> None:
    s = service("s", stop=Stop(signal=signal, timeout_s=stop_s), start_s=start_s)
    got = programs(parse(render_machine(TEMPLATE, one([s]))))["s"]
    assert got.stopsignal == signals.Signals[f"SIG{signal}"]
    assert max(1.0, stop_s) <= got.stopwaitsecs < max(1.0, stop_s) + 1
    assert max(1.0, start_s) <= got.startsecs < max(1.0, start_s) + 1
