"""For every input whatever: a Fleet or a ConfigError, secrets unshown, and no variable becomes structure."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emp_orch import resources
from emp_orch.fleet.desired.machines import config_hash, desired_machines
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.manifest import ConfigError, environment, load, load_text

DEFAULT = resources.read_text("emp.yaml")
HEAD = "version: 1\nname: f\n"
# Text that a parser of YAML, of variables or of shell words may trip over.
WORDS = "${ } $${ ${A} ${A:- ${A:? : [ ] { } , &a *a ! !!str ' \" # % @ ` ? ~ 0x 1e9 \\ name machines null"
SPACED = [": ", "- ", "<<: ", "\n", "\n  ", "\t", "|\n", ">\n", "---\n", "...\n"]
ODD = ["\0", "\x1b[31m", "\x85", "\u2028", "\ufeff", "é", "🙂"]
PIECES = st.sampled_from([*WORDS.split(), *SPACED, *ODD])
TRICKY = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)
ENVIRONS = st.dictionaries(st.sampled_from(["A", "B", "NUM_GPUS", "HUB_REDIS_URL"]), TRICKY, max_size=3)


def check(text: str, environ: dict[str, str] | None = None) -> Fleet | None:
    """Load; what comes out is usable all the way to a rendered hash, or a ConfigError that can be printed."""
    try:
        fleet = load_text(text, file="emp.yaml", environ=environ or {})
    except ConfigError as e:
        assert e.problems
        for problem in e.problems:
            assert problem.text.count("\n") <= 1
            assert all(c.isprintable() or c == "\n" for c in problem.text)
            assert 0 <= problem.line <= len(re.split(r"\r\n?|\n", text)) + 1
            assert problem.column >= (1 if problem.line else 0)
        msgspec.json.encode([problem.text for problem in e.problems])
        return None
    assert msgspec.json.decode(msgspec.json.encode(fleet), type=Fleet) == fleet
    for machine in desired_machines(fleet).values():
        config_hash(machine)
    return fleet


@given(st.binary(max_size=400), st.binary(max_size=200))
def test_any_bytes(content: bytes, dotenv: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "emp.yaml")
        path.write_bytes(content)
        path.with_name(".env").write_bytes(dotenv)
        for attempt in (lambda: load(path, {}), lambda: environment(path, {})):
            try:
                attempt()
            except ConfigError as e:
                assert e.problems


@given(TRICKY, ENVIRONS)
@example("\x85", {})
@example("- " * 500, {})
def test_any_text(text: str, environ: dict[str, str]) -> None:
    check(text, environ)
    check(HEAD + text, environ)


@given(st.text(), st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3))
def test_any_unicode(text: str, environ: dict[str, str]) -> None:
    check(text, environ)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_change_to_the_default_file(data: st.DataObject) -> None:
    text = DEFAULT
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 20)))
        text = text[:start] + data.draw(PIECES | st.text(max_size=3)) + text[end:]
    check(text, data.draw(ENVIRONS))


KEYS = TRICKY | st.sampled_from(["env", "file", "http", "command"])
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TRICKY | st.sampled_from(["2s", "8GiB", "embedded", "x"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in below for place in places(value, (*path, key)))]


FULL: dict[str, Any] = yaml.safe_load(DEFAULT) | {"defaults": {"labels": {"a": "b"}, "gpus": {"kind": "none"}}}
FULL["services"]["tool"] = {
    "scale": "per_machine",
    "command": "x ${port} 'y z'",
    "install": {"command": ["a", "b"], "creates": "c"},
    "env": {"A": "1", "B": {"env": "C"}},
    "stop": {"signal": "INT"},
    "depends_on": ["simulation"],
}
FULL["services"]["real"] = {
    "scale": "per_gpu",
    "builtin": "comfyui",
    "path": "/c",
    "python": "python3",
    "args": ["--cpu", "${gpu}"],
    "models": {"a": {"base_path": "/m", "is_default": True, "vae": ["v", "w"], "loras": "l"}},
    "port": 7000,
    "health": {"startup": "1m"},
}
FULL["machines"]["other"] = {
    "runtime": "external",
    "replicas": 2,
    "services": [],
    "worker": {"capabilities": {"x": [1]}},
}
FULL["hosts"] = {
    "a": {"docker": "tcp://a:1", "tls": {"ca": "a", "cert": "b", "key": "c"}},
    "b": {"docker": "ssh://u@b"},
}
FULL["machines"]["box"] = {
    "runtime": "compose",
    "host": "a",
    "image": "x",
    "services": ["comfyui"],
    "publish": ["comfyui"],
    "volumes": ["/a:/b:ro"],
    "limits": {"memory": "8GiB", "cpus": 1.5},
    "ports": {"comfyui": 9000},
}
FULL["redis"]["machine_url"] = "redis://hub:6379"
FULL["jobs"] = {"artifacts": "s3://b/f"}
PLACES = [place for place in places(FULL) if place]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), JSONISH), min_size=1, max_size=3), st.booleans())
def test_any_value_in_any_place(changes: list[tuple[tuple[Any, ...], Any]], remove: bool) -> None:
    document = msgspec.json.decode(msgspec.json.encode(FULL))
    for path, value in changes:
        node = document
        for step in path[:-1]:
            try:
                node = node[step]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(node, dict) and remove:
                node.pop(path[-1], None)
            elif isinstance(node, dict) or (isinstance(node, list) and path[-1] in range(len(node))):
                node[path[-1]] = value
    check(yaml.safe_dump(document, allow_unicode=True))


@given(TRICKY)
@example("x\ny: z")
@example("' \"")
@example("${port}")
def test_a_variable_never_becomes_structure(value: str) -> None:
    text = (
        HEAD + "services:\n  a:\n    scale: once\n    command: run --x ${A} 'in ${A} quotes' ${A}${A}\n"
        "    env: {E: '${A}', F: '1'}\nmachines:\n  m:\n    services: [a]\n"
        "    labels:\n      l: ${A}\n      k: <${A}>\n"
    )
    fleet = check(text, {"A": value})
    if fleet is None:
        assert "\0" in value or "${port}" in value or "${gpu}" in value or "${machine_id}" in value
        return
    (service,) = fleet.services.values()
    (machine,) = fleet.machines
    assert service.command == ("run", "--x", value, f"in {value} quotes", value + value)
    assert service.env == {"E": value, "F": "1"}
    assert machine.labels == {"l": value, "k": f"<{value}>"}
    assert machine.services == ("a",)


SECRETS = st.text(alphabet="ABCDEFGHJKMNPQRSTUVWXYZ23456789", min_size=12, max_size=20)


@given(
    SECRETS, st.sampled_from(PLACES), st.sampled_from(["${A}", "redis://u:${A}@h", "'${A}'", "{x: '${A}'}", "['${A}']"])
)
def test_a_value_of_the_environment_is_never_shown(secret: str, path: tuple[Any, ...], form: str) -> None:
    document = msgspec.json.decode(msgspec.json.encode(FULL))
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = "PLACE"
    text = yaml.safe_dump(document, default_flow_style=False).replace("PLACE", form)
    try:
        load_text(text, file="emp.yaml", environ={"A": secret})
    except ConfigError as e:
        assert secret not in str(e)


@given(
    SECRETS,
    st.sampled_from(["{s}", "http://u:{s}@h", "redis://:{s}@", "redis://u:{s}@h:x", "redis://h/{s}", "x://a@{s}@h"]),
)
def test_a_password_in_the_file_is_never_shown(secret: str, form: str) -> None:
    value = form.replace("{s}", secret)
    for text in (
        f"redis: {{url: '{value}'}}\n",
        f"redis: {{machine_url: '{value}'}}\n",
        f"api: {{token: '{value}'}}\n",
        f"monitor: {{host: 'http://u:{secret}@h'}}\n",
        f"hosts: {{a: {{docker: '{value}'}}}}\n",
        f"hosts: {{a: {{docker: 'ssh://u:{secret}@h'}}}}\n",
        f"services: {{a: {{scale: once, command: x, env: {{A: ['{value}']}}}}}}\n",
        f"services: {{a: {{scale: once, command: x, env: {{A: {{env: '{value}-'}}}}}}}}\n",
        f'services: {{a: {{scale: once, command: "{value} \'x"}}}}\n',
    ):
        try:
            load_text(HEAD + text, file="emp.yaml", environ={})
        except ConfigError as e:
            assert secret not in str(e)
