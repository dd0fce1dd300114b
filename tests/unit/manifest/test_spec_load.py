"""What a good emp.yaml becomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from emp_orch import resources
from emp_orch.fleet.model.fleet import (
    Checkout,
    DockerHost,
    DockerTls,
    Fleet,
    Gpus,
    Health,
    Limits,
    ModelSection,
    PoolName,
    SecretRef,
    ServiceName,
    Volume,
)
from emp_orch.manifest import ConfigError, environment, load, load_text, schema_reader
from emp_orch.manifest.text.interpolate import plain_value

HEAD = "version: 1\nname: f\n"


def fleet(text: str, **environ: str) -> Fleet:
    return load_text(HEAD + text, file="emp.yaml", environ=environ)


# --- defaults

LEAST = fleet(
    "services:\n  a: {scale: per_gpu, command: x, port: 1, health: {http: /}, install: {command: y}}\n"
    "  b: {scale: per_gpu, command: x}\n"
    "  c: {scale: per_gpu, builtin: comfyui, path: /c, port: 9}\n"
    "hosts: {h: {docker: 'ssh://h'}}\n"
    "machines:\n  m: {services: [a]}\n  n: {services: [], gpus: {}}\n"
    "pools:\n  p: {services: [a], size: 2}\n  q: {services: [], gpus: {}, size: 0..40}\n"
)
A, B, COMFY = LEAST.services.values()
assert COMFY.checkout is not None
C = COMFY.checkout
M, N = LEAST.machines
P, Q = LEAST.pools.values()
assert LEAST.jobs.inputs is not None
INPUTS = LEAST.jobs.inputs

# Where each default of the schema must be seen: (what the schema says, what the fleet holds).
SEEN: dict[str, tuple[Any, Callable[[], Any], Any]] = {
    "redis.url": ("embedded", lambda: LEAST.redis.url, "embedded"),
    "redis.machine_url": ("", lambda: LEAST.redis.machine_url, ""),
    "redis.port": (6380, lambda: LEAST.redis.port, 6380),
    "redis.prefix": ("", lambda: LEAST.redis.prefix, ""),
    "redis.replicas": (0, lambda: LEAST.redis.replicas, 0),
    "api.host": ("127.0.0.1", lambda: LEAST.api.host, "127.0.0.1"),
    "api.port": (3331, lambda: LEAST.api.port, 3331),
    "api.token": (None, lambda: LEAST.api.token, None),
    "api.tokens": ({}, lambda: LEAST.api.tokens, ()),
    "api.machine_url": ("", lambda: LEAST.api.machine_url, ""),
    "monitor.host": ("127.0.0.1", lambda: LEAST.monitor.host, "127.0.0.1"),
    "monitor.port": (3333, lambda: LEAST.monitor.port, 3333),
    "monitor.token": (None, lambda: LEAST.monitor.token, None),
    "monitor.role": ("operate", lambda: LEAST.monitor.role, "operate"),
    "control.runtime": ("process", lambda: LEAST.control.runtime, "process"),
    "control.image": (None, lambda: LEAST.control.image, None),
    "control.redis_image": ("redis:7-alpine", lambda: LEAST.control.redis_image, "redis:7-alpine"),
    "hosts.*.tls": (None, lambda: LEAST.hosts["h"].tls, None),
    "services.*.builtin": (None, lambda: A.builtin, None),
    "services.*.path": (None, lambda: A.checkout, None),
    "services.*.python": (None, lambda: C.python, None),
    "services.*.args": ([], lambda: C.args, ()),
    "services.*.models": (None, lambda: (C.model_folders, C.model_sections), ((), ())),
    "services.*.connector": (None, lambda: A.connector, None),
    "services.*.connector_options": ({}, lambda: A.connector_options, {}),
    "services.*.discover": ("1m", lambda: A.discover_s, 60.0),
    "services.*.warmup": (None, lambda: A.warmup, ""),
    "services.*.port": (None, lambda: B.port, None),
    "services.*.health": (None, lambda: B.health, None),
    "services.*.health.interval": ("2s", lambda: A.health and A.health.interval_s, 2.0),
    "services.*.health.timeout": ("1s", lambda: A.health and A.health.timeout_s, 1.0),
    "services.*.health.failures": (3, lambda: A.health and A.health.failures, 3),
    "services.*.health.startup": ("60s", lambda: A.health and A.health.startup_s, 60.0),
    "services.*.install": (None, lambda: B.install, None),
    "services.*.install.creates": (None, lambda: A.install and A.install.creates, None),
    "services.*.env": ({}, lambda: A.env, {}),
    "services.*.inherit": ([], lambda: A.inherit, ()),
    "services.*.cwd": (None, lambda: A.cwd, None),
    "services.*.stop.signal": ("TERM", lambda: A.stop.signal, "TERM"),
    "services.*.stop.timeout": ("10s", lambda: A.stop.timeout_s, 10.0),
    "services.*.start": ("1s", lambda: A.start_s, 1.0),
    "services.*.depends_on": ([], lambda: A.depends_on, ()),
    "machines.*.runtime": ("process", lambda: M.runtime, "process"),
    "machines.*.num_gpus": (1, lambda: M.num_gpus, 1),
    "machines.*.env": ({}, lambda: M.env, {}),
    "machines.*.gpus": ("none", lambda: M.gpus, Gpus(kind="none", ids=())),  # type: ignore[arg-type]
    "machines.*.gpus.kind": ("none", lambda: N.gpus.kind, "none"),
    "machines.*.gpus.ids": ([], lambda: N.gpus.ids, ()),
    "machines.*.replicas": (None, lambda: M.id, "m"),
    "machines.*.host": (None, lambda: M.host, None),
    "machines.*.image": (None, lambda: M.image, None),
    "machines.*.publish": ([], lambda: M.publish, ()),
    "machines.*.volumes": ([], lambda: M.volumes, ()),
    "machines.*.limits.memory": (None, lambda: M.limits.memory_bytes, None),
    "machines.*.limits.swap": (None, lambda: M.limits.swap_bytes, None),
    "machines.*.limits.pids": (16384, lambda: M.limits.pids, 16384),
    "machines.*.limits.shm": (None, lambda: M.limits.shm_bytes, None),
    "machines.*.limits.cpus": (None, lambda: M.limits.cpus, None),
    "machines.*.ports": ({}, lambda: M.ports, {}),
    "machines.*.health_port": (0, lambda: M.health_port, 0),
    "machines.*.inherit": ([], lambda: M.inherit, ()),
    "machines.*.labels": ({}, lambda: M.labels, {}),
    "machines.*.worker.capabilities": ({}, lambda: M.worker.capabilities, {}),
    "machines.*.worker.drain_timeout": ("30s", lambda: M.worker.drain_timeout_s, 30.0),
    "machines.*.worker.job_timeout": ("10m", lambda: M.worker.job_timeout_s, 600.0),
    "pools.*.provider": ("join", lambda: P.provider, "join"),
    "pools.*.provider_options": ({}, lambda: P.options, {}),
    "pools.*.scale.jobs_per_gpu": (1, lambda: P.scale.jobs_per_gpu, 1.0),
    "pools.*.scale.up_after": ("15s", lambda: P.scale.up_after_s, 15.0),
    "pools.*.scale.down_after": ("5m", lambda: P.scale.down_after_s, 300.0),
    "pools.*.forget_after": ("10m", lambda: P.forget_after_s, 600.0),
    "pools.*.cost": (0, lambda: P.cost, 0.0),
    "pools.*.num_gpus": (1, lambda: P.template.num_gpus, 1),
    "pools.*.env": ({}, lambda: P.template.env, {}),
    "pools.*.gpus": ("none", lambda: P.template.gpus, Gpus(kind="none", ids=())),  # type: ignore[arg-type]
    "pools.*.gpus.kind": ("none", lambda: Q.template.gpus.kind, "none"),
    "pools.*.gpus.ids": ([], lambda: Q.template.gpus.ids, ()),
    "pools.*.image": (None, lambda: P.template.image, None),
    "pools.*.volumes": ([], lambda: P.template.volumes, ()),
    "pools.*.limits.memory": (None, lambda: P.template.limits.memory_bytes, None),
    "pools.*.limits.swap": (None, lambda: P.template.limits.swap_bytes, None),
    "pools.*.limits.pids": (16384, lambda: P.template.limits.pids, 16384),
    "pools.*.limits.shm": (None, lambda: P.template.limits.shm_bytes, None),
    "pools.*.limits.cpus": (None, lambda: P.template.limits.cpus, None),
    "pools.*.ports": ({}, lambda: P.template.ports, {}),
    "pools.*.health_port": (0, lambda: P.template.health_port, 0),
    "pools.*.labels": ({}, lambda: P.template.labels, {}),
    "pools.*.worker.capabilities": ({}, lambda: P.template.worker.capabilities, {}),
    "pools.*.worker.drain_timeout": ("30s", lambda: P.template.worker.drain_timeout_s, 30.0),
    "pools.*.worker.job_timeout": ("10m", lambda: P.template.worker.job_timeout_s, 600.0),
    "jobs.artifacts": ("", lambda: LEAST.jobs.artifacts, ""),
    "jobs.inputs.hosts": ([], lambda: INPUTS.hosts, ()),
    "jobs.inputs.keep": ("24h", lambda: INPUTS.keep_s, 86_400.0),
    "jobs.inputs.max_size": ("256MiB", lambda: INPUTS.max_bytes, 256 * 1024**2),
    "jobs.keep.count": (10_000, lambda: LEAST.jobs.keep_count, 10_000),
    "jobs.keep.age": ("168h", lambda: LEAST.jobs.keep_age_s, 604_800.0),
    "jobs.affinity": (True, lambda: LEAST.jobs.affinity, True),
    "jobs.lease": ("30s", lambda: LEAST.jobs.lease_s, 30.0),
    "worker_package": (None, lambda: LEAST.worker_package, None),
    "reconcile.interval": ("2s", lambda: LEAST.reconcile.interval_s, 2.0),
    "reconcile.stuck_after": ("30s", lambda: LEAST.reconcile.stuck_after_s, 30.0),
    "reconcile.stale_after": ("10s", lambda: LEAST.reconcile.stale_after_s, 10.0),
    "reconcile.max_unavailable": (1, lambda: LEAST.reconcile.max_unavailable, 1),
    "reconcile.prune": (False, lambda: LEAST.reconcile.prune, False),
    "reconcile.budget.program": (5, lambda: LEAST.reconcile.budget.program, 5),
    "reconcile.budget.machine": (3, lambda: LEAST.reconcile.budget.machine, 3),
    "reconcile.budget.window": ("30m", lambda: LEAST.reconcile.budget.window_s, 1800.0),
    "reconcile.breaker.share": (0.5, lambda: LEAST.reconcile.breaker.share, 0.5),
    "reconcile.breaker.window": ("2m", lambda: LEAST.reconcile.breaker.window_s, 120.0),
    "reconcile.breaker.probe": ("1m", lambda: LEAST.reconcile.breaker.probe_s, 60.0),
    "reconcile.rollout.min_healthy": ("5s", lambda: LEAST.reconcile.rollout.min_healthy_s, 5.0),
    "reconcile.rollout.progress_deadline": ("10m", lambda: LEAST.reconcile.rollout.progress_deadline_s, 600.0),
    "reconcile.rollout.rollback": (False, lambda: LEAST.reconcile.rollout.rollback, False),
}


def properties(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of the schema, by its path; `*` stands for a name."""
    for branch in [node, *node.get("anyOf", ())]:
        for name, below in branch.get("properties", {}).items():
            yield ".".join((*path, name)), below
            yield from properties(below, (*path, name))
        if path in (("hosts",), ("services",), ("machines",), ("pools",)):
            yield from properties(branch["additionalProperties"], (*path, "*"))


PROPERTIES = {p: s for p, s in properties(schema_reader.document()) if not p.startswith("defaults.")}


def test_every_default_of_the_schema_is_in_the_table() -> None:
    defaults = {p: s["default"] for p, s in PROPERTIES.items() if "default" in s}
    shells = {"redis", "api", "monitor", "control", "hosts", "services", "machines", "pools", "jobs", "reconcile"}
    shells |= {"pools.*.scale", "pools.*.limits", "pools.*.worker"}
    shells |= {"services.*.stop", "machines.*.limits", "machines.*.worker", "jobs.keep", "jobs.inputs"}
    shells |= {"reconcile.budget", "reconcile.breaker", "reconcile.rollout"}
    assert {p: d for p, d in defaults.items() if p not in shells} == {p: said for p, (said, _, _) in SEEN.items()}
    assert all(defaults[p] == {} for p in shells)


def test_what_a_real_comfyui_is_given_by_default() -> None:
    """Each of these stands in the schema, under `then` of a service."""
    assert COMFY.connector == "comfyui"
    assert COMFY.health == Health(http="/system_stats", interval_s=5.0, timeout_s=5.0, failures=12, startup_s=600.0)
    slower = fleet(
        "services:\n  s: {scale: per_gpu, builtin: comfyui, path: /c, port: 9, health: {startup: 20m},"
        " connector: none}\n"
        "  never: {scale: per_gpu, builtin: comfyui, path: /c, port: 9, health: null}\n"
        "  mine: {scale: per_gpu, command: x, port: 9, health: {http: /}}\n"
    ).services
    s, never, mine = slower.values()
    assert s.health == Health(http="/system_stats", interval_s=5.0, timeout_s=5.0, failures=12, startup_s=1200.0)
    assert (s.connector, never.health) == (None, None)
    assert mine.health == Health(http="/", interval_s=2.0, timeout_s=1.0, failures=3, startup_s=60.0)


@pytest.mark.parametrize(
    ("name", "rest", "failures"),
    [
        ("comfyui", "command: x", 12),
        ("other", "command: x, connector: comfyui", 12),
        ("comfyui", "command: x, connector: http, connector_options: {path: /x}", 3),
        ("comfyui", "builtin: simulation", 3),
        ("other", "command: x", 3),
    ],
)
def test_who_starts_comfyui_by_a_command_gets_its_patience(name: str, rest: str, failures: int) -> None:
    text = f"services:\n  {name}: {{scale: per_gpu, port: 9, health: {{http: /system_stats, interval: 3s}}, {rest}}}\n"
    health = fleet(text).services[ServiceName(name)].health
    assert health is not None
    assert (health.interval_s, health.failures) == (3.0, failures)
    assert (
        fleet(text.replace("health: {http: /system_stats, interval: 3s}", "health: null"))
        .services[ServiceName(name)]
        .health
        is None
    )


def test_every_default_of_a_real_comfyui_has_its_reason() -> None:
    then = schema_reader.sub("services", "*")["then"]["properties"]["health"]
    for name, below in [("health", then), *then["properties"].items()]:
        assert below["description"], name


@pytest.mark.parametrize("path", SEEN)
def test_every_default_reaches_the_fleet(path: str) -> None:
    _, see, wanted = SEEN[path]
    assert see() == wanted


def test_the_schema_is_one_and_editors_can_use_it() -> None:
    raw = json.loads(schema_reader.text())
    Draft202012Validator.check_schema(raw)
    for path, below in PROPERTIES.items():
        assert below.get("description"), f"{path} has no description"
    objects = [raw, *raw["$defs"].values(), *raw["properties"].values()]
    for node in objects:
        assert "object" not in str(node.get("type")) or "additionalProperties" in node or "capabilities" in str(node)


def test_the_examples_in_the_schema_are_valid() -> None:
    raw = json.loads(schema_reader.text())
    examples = 0
    for below in PROPERTIES.values():
        for example in below.get("examples", ()):
            if not (isinstance(example, str) and "${" in example and "port" not in example):
                Draft202012Validator(below).validate(example)
                examples += 1
    assert examples > 20
    for example in raw["examples"]:
        load_text(json.dumps(example), file="example", environ={})


# --- the default file


def test_the_default_file() -> None:
    loaded = load_text(resources.read_text("emp.yaml"), file="emp.yaml", environ={})
    assert loaded.name == "basic"
    assert loaded.redis.url == "embedded"
    assert (loaded.api.port, loaded.monitor.port) == (3331, 3333)
    assert [(s.name, s.scale, s.builtin, s.connector, s.port) for s in loaded.services.values()] == [
        ("simulation", "per_machine", "simulation", "simulation", 8299),
        ("comfyui", "per_gpu", "simulation", "comfyui", 8188),
    ]
    (machine,) = loaded.machines
    assert (machine.id, machine.runtime, machine.num_gpus) == ("basic-machine-local", "process", 2)
    assert machine.services == ("simulation", "comfyui")


def test_the_default_file_follows_the_environment() -> None:
    text = resources.read_text("emp.yaml")
    loaded = load_text(text, file="emp.yaml", environ={"NUM_GPUS": "4", "HUB_REDIS_URL": "redis://hub:6379"})
    assert loaded.machines[0].num_gpus == 4
    assert loaded.redis.machine_url == "redis://hub:6379"


def test_origins_name_the_key() -> None:
    text = resources.read_text("emp.yaml")
    loaded = load_text(text, file="emp.yaml", environ={})
    lines = text.split("\n")
    for thing, name in [(loaded.services[n], n) for n in loaded.services] + [(m, m.id) for m in loaded.machines]:
        file, line, column = thing.origin.split(":")
        assert file == "emp.yaml"
        assert lines[int(line) - 1][int(column) - 1 :].startswith(f"{name}:")


# --- scalars and interpolation


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False), ("no", "no"), ("on", "on"),
        ("0", 0), ("-7", -7), ("+7", 7), ("007", 7), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("1:30", "1:30"),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("1e9999", "1e9999"), (".inf", ".inf"), (".nan", ".nan"),
        ("-", "-"), (".", "."), ("2s", "2s"), ("2024-01-01", "2024-01-01"), ("9" * 18, 10**18 - 1),
        ("9" * 400, "9" * 400),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = plain_value(text)
    assert (found, type(found)) == (value, type(value))


def env_of(value: str, **environ: str) -> Any:
    loaded = fleet(f"services:\n  a:\n    scale: once\n    command: x\n    env:\n      V: {value}\n", **environ)
    return loaded.services["a"].env["V"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("${X}", "x y"),
        ("a${X}b", "ax yb"),
        ("${NOPE:-d e}", "d e"),
        ("${NOPE:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${X:-d}", "x y"),
        ("${X:?told}", "x y"),
        ("${NOPE:-${X}}", "x y"),
        ("${X:-${NOPE}}", "x y"),
        ("${X:-${NOPE:?}}", "x y"),
        ("$${X}", "${X}"),
        ("$X $$X", "$X $$X"),
        ("${PORT}", "8080"),
        ("${port}", "${port}"),
        ("${NOPE:-${port}}", "${port}"),
        ("a:${gpu}:${machine_id}", "a:${gpu}:${machine_id}"),
        ("${YAML}", "{a: 1}\n- b # c"),
        ("${DOLLAR}", "${X}"),
        ("1.10", "1.10"),
        ("007", "007"),
        ("true", "true"),
        ("!!str 5", "5"),
        ("'5'", "5"),
        ("|\n        two\n        lines\n", "two\nlines\n"),
        ("{env: TOKEN}", SecretRef(source="env", name="TOKEN")),
        ("{file: a/b}", SecretRef(source="file", name="a/b")),
    ],
)
def test_variables(value: str, found: Any) -> None:
    environ = {"X": "x y", "EMPTY": "", "PORT": "8080", "YAML": "{a: 1}\n- b # c", "DOLLAR": "${X}"}
    assert env_of(value, **environ) == found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("python -m x", ("python", "-m", "x")),
        ("sh -c 'a; b' \"c d\"", ("sh", "-c", "a; b", "c d")),
        ("x --port ${port}", ("x", "--port", "${port}")),
        ("x ${TWO}", ("x", "a b'c")),
        ("x --n=${TWO}-z", ("x", "--n=a b'c-z")),
        ("x ${EMPTY} y", ("x", "", "y")),
        ("x ${NOPE:-a b} y", ("x", "a b", "y")),
        ("x ${NOPE:-} y", ("x", "", "y")),
        ("x $${A} y#z", ("x", "${A}", "y#z")),
        ("[x, 1.10, true, '${TWO}']", ("x", "1.10", "true", "a b'c")),
        ("5", ("5",)),
    ],
)
def test_commands_become_words(value: str, words: tuple[str, ...]) -> None:
    loaded = fleet(f"services:\n  a:\n    scale: once\n    command: {value}\n", TWO="a b'c", EMPTY="")
    assert loaded.services["a"].command == words  # type: ignore[index]


def test_a_variable_in_a_number() -> None:
    text = "machines:\n  m:\n    services: []\n    num_gpus: ${N:-2}\n    replicas: 1${N:-0}\n"
    assert len(fleet(text).machines) == 10
    assert fleet(text).machines[0].num_gpus == 2
    assert fleet(text, N="3").machines[0].num_gpus == 3


# --- structure


def test_anchors_merge_keys_and_extension_keys() -> None:
    loaded = fleet(
        "x-common: &common {LOG: debug, PORT: '${port}'}\n"
        "x-more: &more {LOG: never, MORE: '1'}\n"
        "services:\n"
        "  a: &a {scale: once, command: x, env: {<<: [*common, *more], OWN: '2'}}\n"
        "  b: {env: {A: b}, <<: *a, cwd: /srv}\n"
    )
    a, b = loaded.services.values()
    assert a.env == {"LOG": "debug", "PORT": "${port}", "MORE": "1", "OWN": "2"}
    assert (b.command, b.env, b.cwd) == (("x",), {"A": "b"}, "/srv")


def test_an_error_in_an_anchor_is_told_where_it_stands() -> None:
    with pytest.raises(ConfigError) as caught:
        fleet("x-a: &a\n  port: nine\nservices:\n  s:\n    <<: *a\n    scale: per_gpu\n    command: x\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.path) == (4, 9, "services.s.port")


def test_one_anchor_used_by_a_thousand_machines() -> None:
    head = "x-env: &env {" + ", ".join(f"V{i}: a" for i in range(15)) + "}\nmachines:\n"
    loaded = fleet(head + "".join(f"  m-{i}: {{runtime: external, services: [], env: *env}}\n" for i in range(1000)))
    assert len(loaded.machines) == 1000


def test_defaults_stand_under_every_machine() -> None:
    loaded = fleet(
        "services: {a: {scale: once, command: x}}\n"
        "defaults:\n"
        "  runtime: external\n"
        "  services: [a]\n"
        "  env: {A: '1', B: {env: X}}\n"
        "  labels: {site: x}\n"
        "  worker: {job_timeout: 1h, capabilities: {vram: 24GiB, gpu: {name: t4, mem: 8GiB}}}\n"
        "  gpus: {kind: nvidia, ids: [4, 5]}\n"
        "machines:\n"
        "  m: {num_gpus: 2}\n"
        "  n:\n"
        "    services: []\n"
        "    env: {B: {file: y}, C: '3'}\n"
        "    labels: {rack: 7}\n"
        "    worker: {drain_timeout: 0s, capabilities: {vram: 0.5GiB, gpu: [1.5KiB]}}\n"
        "    gpus: none\n"
    )
    m, n = loaded.machines
    assert (m.runtime, m.services, m.labels, m.gpus.ids) == ("external", ("a",), {"site": "x"}, ("4", "5"))
    assert (m.worker.job_timeout_s, m.worker.drain_timeout_s) == (3600.0, 30.0)
    assert m.worker.capabilities == {"vram": 24 * 2**30, "gpu": {"name": "t4", "mem": 8 * 2**30}}
    assert n.services == ()
    assert n.env == {"A": "1", "B": SecretRef(source="file", name="y"), "C": "3"}
    assert n.labels == {"site": "x", "rack": "7"}
    assert (n.worker.job_timeout_s, n.worker.drain_timeout_s) == (3600.0, 0.0)
    assert n.worker.capabilities == {"vram": 2**29, "gpu": [1536]}
    assert n.gpus == Gpus(kind="none", ids=())  # type: ignore[arg-type]


@pytest.mark.parametrize(("runtime", "step"), [("process", 100), ("compose", 100), ("external", 0)])
def test_replicas(runtime: str, step: int) -> None:
    loaded = fleet(f"machines:\n  m: {{runtime: {runtime}, services: [], replicas: 3, health_port: 9000}}\n")
    found = [(m.id, m.port_offset, m.health_port, m.origin) for m in loaded.machines]
    assert found == [(f"m-{k + 1}", step * k, 9000 + step * k, "emp.yaml:4:3") for k in range(3)]


def test_a_container_and_its_host() -> None:
    loaded = fleet(
        "redis: {url: 'redis://hub:6379'}\njobs: {artifacts: 's3://b/f'}\n"
        "hosts:\n  a: {docker: 'tcp://a:2376', tls: {ca: ca.pem, cert: c.pem, key: k.pem}}\n"
        "services: {a: {scale: per_gpu, command: x, port: 1}}\n"
        "defaults: {host: a, limits: {memory: 8GiB, cpus: 4}, volumes: ['/srv/m:/models:ro', '/a b:/c:rw', '/d:/e']}\n"
        "machines:\n"
        "  m: {runtime: compose, image: 'x@sha256:0', services: [a], publish: [a], limits: {shm: 0.5GiB, cpus: 1.5}}\n"
        "  n: {services: []}\n"
    )
    assert loaded.hosts == {
        "a": DockerHost(docker="tcp://a:2376", tls=DockerTls(ca="ca.pem", cert="c.pem", key="k.pem"))
    }
    m = loaded.machines[0]
    assert (m.host, m.image, m.publish) == ("a", "x@sha256:0", ("a",))
    assert m.limits == Limits(memory_bytes=8 * 2**30, shm_bytes=2**29, cpus=1.5)
    assert m.volumes == (
        Volume(source="/srv/m", target="/models", read_only=True),
        Volume(source="/a b", target="/c", read_only=False),
        Volume(source="/d", target="/e", read_only=False),
    )


@pytest.mark.parametrize(
    "url",
    [
        *("unix:///var/run/docker.sock", "unix:///run/user/1000/docker.sock", "ssh://gpu-a", "ssh://me@gpu-a:2222"),
        *("tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://[::1]:2375", "ssh://me@[fd00::1]"),
    ],
)
def test_addresses_of_docker_hosts(url: str) -> None:
    assert fleet(f"hosts: {{a: {{docker: '{url}'}}}}\n").hosts["a"].docker == url


def test_local_may_be_another_socket_and_its_containers_need_no_more_than_this_host_has() -> None:
    loaded = fleet(
        "hosts:\n  local: {docker: 'unix:///run/user/1000/docker.sock'}\n  near: {docker: 'tcp://127.0.0.1:2375'}\n"
        "machines:\n  m: {runtime: compose, services: []}\n  n: {runtime: compose, services: [], host: near}\n"
    )
    assert [m.host for m in loaded.machines] == [None, "near"]


def test_ports_of_containers_clash_with_nobody_unless_published() -> None:
    """And then only on the same host; two names may stand for one engine."""
    loaded = fleet(
        "redis: {url: 'redis://hub:6379'}\njobs: {artifacts: 's3://b/f'}\n"
        "hosts: {a: {docker: 'ssh://a'}, b: {docker: 'ssh://b'}}\n"
        "services: {s: {scale: per_gpu, command: x, port: 3331}}\n"
        "defaults: {runtime: compose, services: [s], num_gpus: 3}\n"
        "machines:\n  m: {}\n  n: {}\n  o: {host: a, publish: [s]}\n  p: {host: b, publish: [s]}\n"
    )
    assert len(loaded.machines) == 4


def test_one_replica_has_a_number_and_none_is_no_machine() -> None:
    loaded = fleet(
        "machines:\n  m: {services: [], replicas: 1}\n  n: {services: [], replicas: 0}\n  o: {services: []}\n"
    )
    assert [m.id for m in loaded.machines] == ["m-1", "o"]


def test_ports_can_make_room_for_a_second_machine() -> None:
    loaded = fleet(
        "services: {a: {scale: per_gpu, builtin: simulation, port: 8188}}\n"
        "machines:\n  m: {services: [a], num_gpus: 4}\n  n: {services: [a], num_gpus: 4, ports: {a: 8192}}\n"
    )
    assert loaded.machines[1].ports == {"a": 8192}


@pytest.mark.parametrize(
    ("name", "said", "connector"),
    [
        ("comfyui", "", "comfyui"),
        ("comfyui", "connector: none", None),
        ("other", "", None),
        ("other", "connector: comfyui", "comfyui"),
        ("other", "connector: my-own", "my-own"),
        ("http", "", None),
        ("none", "", None),
    ],
)
def test_the_connector_follows_the_name(name: str, said: str, connector: str | None) -> None:
    loaded = fleet(f"services:\n  {name}: {{scale: per_gpu, command: x, {said}}}\n")
    assert loaded.services[name].connector == connector  # type: ignore[index]


def test_connector_options_are_any_values_and_keep_references_to_secrets() -> None:
    loaded = fleet(
        "services:\n  a:\n    scale: per_gpu\n    command: x\n    port: 1\n    connector: http\n"
        "    connector_options:\n      path: ${WHERE:-/x}\n      interval_s: ${EVERY:-2}\n      done: [a]\n"
        "      headers: {Authorization: {env: TOKEN}}\n"
    )
    assert loaded.services["a"].connector_options == {  # type: ignore[index]
        "path": "/x",
        "interval_s": 2,
        "done": ["a"],
        "headers": {"Authorization": {"env": "TOKEN"}},
    }


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2s", 2.0), ("1.5s", 1.5), ("5m", 300.0), ("1h", 3600.0), ("0.1ms", 0.0001)]
)
def test_durations(text: str, seconds: float) -> None:
    assert fleet(f"reconcile: {{interval: {text}}}\n").reconcile.interval_s == seconds


def test_a_token_opens_the_api() -> None:
    loaded = fleet("api: {host: 0.0.0.0, token: {env: EMP_TOKEN}}\nmonitor: {host: '::1'}\n")
    assert loaded.api.token == SecretRef(source="env", name="EMP_TOKEN")


def test_broken_parts_do_not_make_others_look_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        fleet(
            "api: {port: x}\nredis: {url: ftp://x}\n"
            "services:\n  a: {scale: per_gpu, builtin: simulation, port: 3331}\n  b: {scale: x, command: y}\n"
            "  c: {scale: per_gpu, command: y, depends_on: [b]}\n"
            "machines:\n  m: {services: [a, b, c]}\n  n: {services: [a], num_gpus: x}\n"
        )
    assert [p.path for p in caught.value.problems] == [
        "api.port",
        "redis.url",
        "services.b.scale",
        "machines.n.num_gpus",
    ]


# --- files


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_dotenv_feeds_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "emp.yaml", HEAD + "machines:\n  m:\n    services: []\n    num_gpus: ${N}\n")
    write(tmp_path, ".env", "N=3\n")
    assert load(path, {}).machines[0].num_gpus == 3
    assert load(path, {"N": "5"}).machines[0].num_gpus == 5
    assert environment(path, {"A": "b"}) == {"N": "3", "A": "b"}


def test_a_file_is_named_as_a_person_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "emp.yaml", "nme: x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert {p.file for p in caught.value.problems} == {"sub/emp.yaml"}
    good = write(tmp_path / "sub", "fleet.yaml", HEAD + "machines: {m: {services: []}}\n")
    assert load(good, {}).machines[0].origin == "fleet.yaml:3:12"


def test_a_byte_order_mark_and_dos_lines_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, "emp.yaml", b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert load(path, {}).name == "f"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"version: 1\nname: \xff\n", "emp.yaml:2:7: not UTF-8 text"),
        ("version: 1\n".encode("utf-16"), "emp.yaml:1:1: not UTF-8 text"),
        (b"#" * (8 * 1024 * 1024 + 1), "emp.yaml: larger than 8 MiB"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "emp.yaml", content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert [p.text for p in caught.value.problems] == [text]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")

    def told(name: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name, {})
        return str(caught.value)

    assert told("emp.yaml") == "emp.yaml: no such file\n    `emp init` writes one"
    assert told("folder") == "folder: is a folder\n    name the file in it"
    assert told("loop") == "loop: cannot be read (ELOOP)"
    assert told("a\0b").endswith("cannot be read")


def test_a_file_without_permission(tmp_path: Path) -> None:
    write(tmp_path, "emp.yaml", HEAD).chmod(0)
    # Root may read everything; without these capabilities root is like anybody else.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    argv = [*drop, sys.executable, "-m", "emp_orch", "-C", str(tmp_path), "validate"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "emp.yaml: permission denied" in done.stderr


def test_without_the_c_parser_the_fleet_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = resources.read_text("emp.yaml")
    with_c = load_text(text, file="emp.yaml", environ={})
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    assert load_text(text, file="emp.yaml", environ={}) == with_c
    for bad in ("a: [", "\ta: 1", "a: b: c", "[" * 10_000, "? " * 10_000, "a: *b", "a: ${X"):
        with pytest.raises(ConfigError):
            load_text(bad, file="emp.yaml", environ={})


# --- builtin comfyui


def test_a_checkout_with_all_its_keys() -> None:
    service = fleet(
        "services:\n  render:\n    scale: per_gpu\n    builtin: comfyui\n    port: 8188\n    path: ${WHERE}/ComfyUI\n"
        "    python: python3\n    args: [--cpu, --reserve-vram, 1.10, --preview-method, '${gpu}']\n"
        "    models: {z: {base_path: /srv, loras: [a, b], is_default: true}, a: {vae: /vae}}\n",
        WHERE="/opt",
    ).services[ServiceName("render")]
    assert service.connector == "comfyui"
    assert service.checkout == Checkout(
        path="/opt/ComfyUI",
        python="python3",
        args=("--cpu", "--reserve-vram", "1.10", "--preview-method", "${gpu}"),
        model_sections=(
            ModelSection(name="z", paths=(("base_path", "/srv"), ("loras", "a\nb"), ("is_default", True))),
            ModelSection(name="a", paths=(("vae", "/vae"),)),
        ),
    )


@pytest.mark.parametrize(("models", "folders"), [("/m", ("/m",)), ("[/m, /n]", ("/m", "/n")), ("[]", ()), ("", ())])
def test_folders_of_models(models: str, folders: tuple[str, ...]) -> None:
    head = "services:\n  c: {scale: per_gpu, builtin: comfyui, port: 1, path: /c"
    found = fleet(head + f", models: {models}}}\n").services[ServiceName("c")].checkout
    assert found is not None
    assert (found.model_folders, found.model_sections) == (folders, ())


# --- pools


def test_a_pool_is_a_size_and_a_template() -> None:
    assert (P.min_size, P.max_size) == (2, 2)
    assert (Q.min_size, Q.max_size) == (0, 40)
    assert (P.template.id, P.template.runtime, P.template.services, P.origin) == (
        "",
        "external",
        ("a",),
        "emp.yaml:12:3",
    )


def test_what_may_be_out_at_once_is_a_number_or_a_per_cent() -> None:
    said = [fleet(f"reconcile: {{max_unavailable: {text}}}\n").reconcile for text in ("3", "25%", '"100%"')]
    assert [(s.max_unavailable, s.max_unavailable_percent) for s in said] == [(3, None), (1, 25), (1, 100)]


def test_defaults_hold_for_pools_too() -> None:
    loaded = fleet("defaults: {runtime: compose, num_gpus: 3, services: [], labels: {a: b}}\npools:\n  p: {size: 1}\n")
    template = loaded.pools[PoolName("p")].template
    assert (template.num_gpus, template.labels, template.runtime) == (3, {"a": "b"}, "external")
