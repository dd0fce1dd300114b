"""What emp writes for other programs, read back by those programs themselves: render/quoting is the one that quotes.

supervisord's `command=` words are in test_render_property.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emp_orch.control.plane.embedded import configuration
from emp_orch.fleet.model.fleet import Volume
from emp_orch.manifest import load_text
from emp_orch.render.quoting import lua_text, redis_line, shell_line, yaml_text
from emp_orch.render.supervisord import render_control
from emp_orch.render.systemd import Unit, render_unit
from emp_orch.resources import read_text
from emp_orch.runtimes.compose.ssh import dial_argv
from support.docker.compose import container, placed, text
from support.machine.supervisor_conf import parse, programs
from support.redis.server import SERVERS, Server, eventually, free_port, running_server, server_binary

FOLDER = 'my fleet\'s 100% "$x"; #1'
CHARS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NASTY = st.sampled_from(
    [
        *(
            "",
            " ",
            "  x  ",
            "\n",
            "a\r\nb",
            "\t",
            "\x07",
            "\x1b[0m",
            "\x7f",
            "\x85",
            "\u2028",
            "\ufeff",
            "ü",
            "日本",
            "🙂",
        ),
        *(
            "%",
            "%%",
            "%(here)s",
            "%(ENV_HOME)s",
            "100%",
            ";",
            " ;x",
            "#",
            " # c",
            "'",
            '"',
            "\\",
            "\\n",
            "\\x41",
            "\\'",
        ),
        *(
            "$",
            "$$",
            "$HOME",
            "${HOME}",
            "$${A:-b}",
            "`id`",
            "$(id)",
            "~",
            "*",
            "?",
            "[a]",
            "{a,b}",
            "&&",
            "|",
            ">",
            "!",
        ),
        *("--", "-c", "--port", "-oProxyCommand=x", "=", "a=b", ":", ",", "include /etc/passwd", FOLDER, "]]", "--]]"),
    ]
)
TEXT = st.one_of(NASTY, st.text(CHARS, max_size=20), st.lists(NASTY, max_size=4).map("".join))
NAME = TEXT.map(lambda t: t.replace("/", "|").strip(".") or "x").filter(lambda t: len(t.encode()) < 100)
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

# --- Redis and Valkey


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server


@settings(STEADY, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=3))
def test_a_server_splits_a_line_into_the_values(server: Server, values: list[str]) -> None:
    """Of its inline protocol, which is taken apart by the very function that takes its configuration apart."""
    with socket.create_connection(("127.0.0.1", server.port)) as line, line.makefile("rb") as answer:
        line.sendall(f"{redis_line('EVAL', 'return ARGV', '0', *values)}\r\n".encode("ascii"))
        assert answer.readline() == f"*{len(values)}\r\n".encode()
        for value in values:
            size = int(answer.readline().removeprefix(b"$"))
            assert answer.read(size + 2) == value.encode() + b"\r\n"


@pytest.mark.parametrize("name", [FOLDER, "--port 1", "tab\tline\nend", "ü\\x41\\"])
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_takes_the_configuration_of_any_folder(kind: str, name: str, tmp_path: Path) -> None:
    folder, port = tmp_path / name, free_port()
    folder.mkdir()
    file = folder / "redis.conf"
    file.write_text(configuration(folder, port, ("192.0.2.1",), password=name))
    process = subprocess.Popen([server_binary(kind), str(file)], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password=name, decode_responses=True) as r:

            def answers() -> bool:
                with suppress(redis.ConnectionError):
                    return bool(r.ping())
                return False

            eventually(answers)
            assert r.config_get("dir") == {"dir": str(folder)}
            assert r.config_get("bind") == {"bind": "127.0.0.1 -::1 -192.0.2.1"}
            assert r.config_get("save") == {"save": ""}
    finally:
        process.kill()
        process.wait()


@settings(STEADY, max_examples=100)
@given(TEXT)
def test_lua_reads_a_text(server: Server, value: str) -> None:
    with redis.Redis(port=server.port) as r:
        assert r.eval(f"return {lua_text(value)}", 0) == value.encode()


# --- a shell


@settings(STEADY, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=4), TEXT)
def test_a_shell_runs_the_words_with_the_variables(words: list[str], value: str) -> None:
    line = shell_line("sh", "-c", 'printf "%s\\0" "$VALUE" "$@"', "sh", *words, variables={"VALUE": value})
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == [value, *words, ""]


# --- ssh


@settings(STEADY, max_examples=60)
@given(TEXT)
@example("-oProxyCommand=x")
@example('it\'s "me"; $x %h')
def test_ssh_takes_a_user_for_a_user_or_refuses(user: str) -> None:
    words = dial_argv(f"ssh://{quote(user, safe='')}@box.example.com:2222")
    done = subprocess.run(["ssh", "-G", "-F", "none", *words[1:]], capture_output=True, check=False)
    if done.returncode != 0:
        return
    said = done.stdout.decode()
    assert "hostname box.example.com\nport 2222\n" in said
    assert not user or said.startswith(f"user {user}\n") or f"\nuser {user}\n" in said
    assert "proxycommand" not in said.removeprefix(f"user {user}\n").replace(f"\nuser {user}\n", "\n")


def test_a_host_that_looks_like_an_option_is_none() -> None:
    words = dial_argv("ssh://-oproxycommand=touch")
    done = subprocess.run(["ssh", "-G", "-F", "none", *words[1:]], capture_output=True, check=False)
    assert b"\nproxycommand touch" not in done.stdout


# --- supervisord: what its configuration gets by way of the environment


@settings(STEADY, max_examples=60)
@given(NAME, NAME)
@example(FOLDER, FOLDER)
@example('"', "\\")
@example("%(here)s", "%(ENV_HOME)s")
def test_supervisord_starts_the_interpreter_in_the_folder(folder: str, python: str) -> None:
    text = render_control(read_text("templates/control.conf.j2"), embedded_redis=True)
    options = parse(text, log_dir=folder, python=f"/opt/{python}/bin/python3")
    for name, process in programs(options).items():
        assert shlex.split(process.command)[0] == f"/opt/{python}/bin/python3"
        assert process.stdout_logfile.endswith(f"/{folder}/{name}.log")
    assert options.logfile.endswith(f"/{folder}/control.log")


# --- Compose


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker")
@settings(STEADY, max_examples=4)
@given(st.lists(TEXT.filter(bool), min_size=20, max_size=40))
@example([FOLDER])
def test_compose_reads_the_values(values: list[str]) -> None:
    """Many at once: each look by Compose takes as long as a hundred values."""
    machines = [
        placed(
            container(f"m-{i}", volumes=(Volume(source=f"/{value}", target="/in", read_only=True),)),
            redis_url=value,
            prefix=value,
            secrets=f"/{value}",
        )
        for i, value in enumerate(values)
    ]
    argv = ["docker", "compose", "-f", "-", "config", "--format", "json", "--no-path-resolution"]
    done = subprocess.run(argv, input=text(*machines, fleet=values[0]).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    # What is printed is a compose file again, with `$` written as `$$`.
    understood = json.loads(done.stdout.decode().replace("$$", "$"))
    for i, value in enumerate(values):
        service = understood["services"][f"m-{i}"]
        environment = service["environment"]
        assert (environment["REDIS_URL"], environment["EMP_REDIS_PREFIX"]) == (value, value)
        (bound,) = [v for v in service["volumes"] if v["target"] == "/in"]
        assert bound["source"] == f"/{value}"
        assert understood["secrets"][f"m-{i}.secrets.json"]["file"] == f"/{value}/secrets.json"


# --- emp.yaml itself


@settings(STEADY, max_examples=150)
@given(TEXT)
def test_an_emp_yaml_that_emp_writes_says_the_value(value: str) -> None:
    fleet = load_text(
        "version: 1\nname: f\nmachines: {m: {num_gpus: 1, services: [s]}}\n"
        f"services:\n  s: {{scale: per_machine, command: [x], env: {{A: {yaml_text(value)}}}}}\n",
        file="emp.yaml",
        environ={},
    )
    assert next(iter(fleet.services.values())).env == {"A": value}


NAMES = (
    "plain",
    FOLDER,
    "%h",
    "$HOME",
    "${HOME}",
    "$$",
    "a\\b",
    "\\x41",
    "'",
    '"',
    ";",
    "#",
    "tab\there",
    "nl\nx",
    "ü日本🙂",
    "-",
    "@x",
)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="takes systemd-analyze")
def test_systemd_finds_the_program_of_a_unit_wherever_it_lies(tmp_path: Path) -> None:
    units, programs_ = [], {}
    for n, name in enumerate(NAMES):
        folder = tmp_path / name
        folder.mkdir()
        program = folder / "python"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        command = (str(program), "-C", str(folder), "start")
        unit = Unit(fleet="x", folder=str(folder), command=command, path=f"/bin:{folder}", user="root", stop_s=100)
        units.append(tmp_path / f"emp-{n}.service")
        units[-1].write_text(render_unit(read_text("templates/emp.service.j2"), unit))
        programs_[name] = program

    def verified() -> str:
        argv = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stderr

    assert verified() == "", "it has nothing to say of any"
    # One whose path systemd would refuse is begun by a shell, of which it knows no more.
    direct = [name for name in NAMES if not set(name) & set("\"'\\\t\n")]
    for program in programs_.values():
        program.unlink()
    said = verified()
    assert [name for name in NAMES if f"Command {programs_[name]} is not executable" in said] == direct
