"""The rendered supervisord.conf files as text, and as supervisord's own parser reads them.

`EMP_UPDATE_GOLDEN=1 pytest tests/unit/render/test_golden_conf.py` rewrites tests/golden/*.conf: read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emp_orch import resources
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import Checkout, ModelSection, Scale, SecretRef, Stop, WorkerSpec
from emp_orch.manifest import load_text
from emp_orch.render.supervisord import render_control, render_machine
from support.fleet.fleets import HEALTH, install, one, service
from support.machine.supervisor_conf import launch_of, parse, programs
from support.tree import ROOT, TESTS

GOLDEN = TESTS / "golden"


def default_machine(num_gpus: int) -> DesiredMachine:
    """The machine of the emp.yaml that ships."""
    fleet = load_text(resources.read_text("emp.yaml"), file="emp.yaml", environ={"NUM_GPUS": str(num_gpus)})
    return desired_machine(fleet, fleet.machines[0])


WORDS = ("50%", "%(here)s", "a ; b", "# c", "it's", '"', "\\n", "", " x ", "ü🙂")
NASTY = one(
    [
        service(
            "nasty",
            scale=Scale.PER_GPU,
            port=9000,
            command=(
                "serve it",
                "--port=${port}",
                "50%",
                "%(here)s",
                "a ; b",
                "# c",
                "it's",
                '"',
                "\\n",
                "",
                " x ",
                "ü🙂",
            ),
            env={
                "LINES": "one\ntwo\r\n[program:evil]\ncommand=evil",
                "TOKEN": SecretRef(source="env", name="API TOKEN; 100%"),
                "PERCENT": "%(ENV_HOME)s",
                "BELL": "\x07\x1b[31m",
            },
            cwd="/srv/my models; #1",
            install=install("get", "--into", "100% done", creates="/srv/my models; #1/.done"),
            health=HEALTH,
            stop=Stop(signal="INT", timeout_s=2.5),
            start_s=0.2,
        )
    ],
    num_gpus=2,
    env={"QUOTES": "\"'`$(id)", "EMPTY": ""},
    worker=WorkerSpec(capabilities={"note": "50% of 'it' # ; \n ü"}, drain_timeout_s=90.0, job_timeout_s=1.5),
)

COMFYUI = one(
    [
        service(
            "comfyui",
            scale=Scale.PER_GPU,
            builtin="comfyui",
            port=8188,
            connector="comfyui",
            checkout=Checkout(
                path="/opt/ComfyUI; 100%",
                python="python3",
                args=("--cpu", "${gpu}"),
                model_folders=("/srv/my models",),
                model_sections=(ModelSection(name="ü", paths=(("base_path", "/b"), ("vae", "v\nw"))),),
            ),
            health=HEALTH,
        )
    ],
    num_gpus=2,
)


def machine_text(machine: DesiredMachine) -> str:
    return render_machine(resources.read_text("templates/supervisord.conf.j2"), machine)


def control_text(*, embedded_redis: bool) -> str:
    return render_control(resources.read_text("templates/control.conf.j2"), embedded_redis=embedded_redis)


TEXTS = {
    "machine-default": machine_text(default_machine(2)),
    "machine-no-gpu": machine_text(default_machine(0)),
    "machine-nasty": machine_text(NASTY),
    "machine-comfyui": machine_text(COMFYUI),
    "control-embedded": control_text(embedded_redis=True),
    "control-external": control_text(embedded_redis=False),
}
PROGRAMS = {
    "machine-default": [
        *("agent", "shared-setup", "simulation-installer", "comfyui-installer", "simulation"),
        *("comfyui-gpu0", "comfyui-gpu1", "redis-worker-gpu0", "redis-worker-gpu1"),
    ],
    "machine-no-gpu": ["agent", "shared-setup", "simulation-installer", "comfyui-installer", "simulation"],
    "machine-nasty": [
        *("agent", "shared-setup", "nasty-installer", "nasty-gpu0", "nasty-gpu1"),
        *("redis-worker-gpu0", "redis-worker-gpu1"),
    ],
    "machine-comfyui": [
        *("agent", "shared-setup", "comfyui-installer", "comfyui-gpu0", "comfyui-gpu1"),
        *("redis-worker-gpu0", "redis-worker-gpu1"),
    ],
    "control-embedded": ["redis", "api", "reconcile", "monitor", "eventlog"],
    "control-external": ["api", "reconcile", "monitor", "eventlog"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_as_recorded(name: str) -> None:
    file = GOLDEN / f"{name}.conf"
    if os.environ.get("EMP_UPDATE_GOLDEN") == "1":
        file.write_text(TEXTS[name], encoding="utf-8")
    assert TEXTS[name] == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {f.stem for f in GOLDEN.glob("*.conf")} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_supervisords_parser_reads_it(name: str) -> None:
    options = parse((GOLDEN / f"{name}.conf").read_text(encoding="utf-8"))
    assert sorted(programs(options)) == sorted(PROGRAMS[name])
    assert options.configroot.supervisord.nodaemon
    assert len(options.server_configs) == 1
    assert Path(options.server_configs[0]["file"]).name == "supervisor.sock"


@pytest.mark.parametrize("folder", ["logs", "100% x", "%(here)s", "a;b", "a # b", "ü"])
@pytest.mark.parametrize("name", ["machine-default", "control-embedded"])
def test_logs_may_lie_in_any_folder(name: str, folder: str) -> None:
    options = parse(TEXTS[name], log_dir=folder)
    for process in programs(options).values():
        log = process.stdout_logfile if process.redirect_stderr else process.stderr_logfile
        assert Path(log).parent.name == folder


@pytest.mark.parametrize("name", ["control-embedded", "control-external"])
def test_the_control_plane_starts_by_itself_and_stays_up(name: str) -> None:
    parsed = programs(parse(TEXTS[name]))
    for program in parsed.values():
        assert program.autostart
        assert program.autorestart
        assert launch_of(program).argv == ["@emp", program.name]
    # supervisord starts in this order, and stops in the reverse: Redis goes last.
    in_order = sorted(parsed.values(), key=lambda p: p.priority)
    assert [p.name for p in in_order] == PROGRAMS[name]


def test_workers_stop_before_their_services_and_have_the_time_to_drain() -> None:
    parsed = programs(parse(TEXTS["machine-nasty"]))
    assert parsed["redis-worker-gpu0"].priority > parsed["nasty-gpu0"].priority > parsed["shared-setup"].priority
    assert parsed["redis-worker-gpu0"].stopwaitsecs == 95
    assert parsed["nasty-gpu0"].stopwaitsecs == 3


def test_nasty_values_arrive_as_they_are() -> None:
    launch = launch_of(programs(parse(TEXTS["machine-nasty"]))["nasty-gpu1"])
    assert launch.argv == ["serve it", "--port=9001", *WORDS]
    assert launch.env == {
        "LINES": "one\ntwo\r\n[program:evil]\ncommand=evil",
        "PERCENT": "%(ENV_HOME)s",
        "BELL": "\x07\x1b[31m",
        "QUOTES": "\"'`$(id)",
        "EMPTY": "",
        "CUDA_VISIBLE_DEVICES": "1",
        "EMP_GPU_SLOT": "1",
    }
    assert launch.secrets == {"TOKEN": "env:API TOKEN; 100%"}
    assert launch.cwd == "/srv/my models; #1"


def test_a_checkout_arrives_as_it_is() -> None:
    launch = launch_of(programs(parse(TEXTS["machine-comfyui"]))["comfyui-gpu1"])
    assert launch.argv == [
        *("@emp", "comfyui", "--path", "/opt/ComfyUI; 100%", "--python", "python3"),
        *("--port", "8189", "--dir", "data/comfyui-gpu1", "--model-folder", "/srv/my models"),
        *("--model-paths", '{"ü":{"base_path":"/b","vae":"v\\nw"}}', "--", "--cpu", "1"),
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_the_same_on_every_host(name: str) -> None:
    """No path of this host, and no character that another locale would read otherwise."""
    assert TEXTS[name].isascii()
    assert str(ROOT) not in TEXTS[name]
    assert str(Path.home()) + "/" not in TEXTS[name]
