"""The options of the provider `swarm`: what is taken, and what is wrong with the rest."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.options import providers
from emp_orch.options.base import WrongOption
from emp_orch.options.provider_swarm import Mount, Options, options_of


def test_none_are_needed() -> None:
    assert options_of({}) == Options()
    assert providers.host_of("swarm", {}) == "local"


def test_all_of_them() -> None:
    given = {
        "host": "gpus",
        "image": "registry.example:5000/emp-machine:1",
        "constraints": ["node.labels.gpu == a100", "node.hostname!=old-1"],
        "gpu_resource": "NVIDIA-GPU",
        "network": "host",
        "mounts": [{"source": "models", "target": "/models", "read_only": True}, {"source": "/srv", "target": "/in"}],
        "user": "0:0",
    }
    found = options_of(given)
    assert found.mounts == (
        Mount(source="models", target="/models", read_only=True),
        Mount(source="/srv", target="/in"),
    )
    assert (found.constraints, found.user) == (("node.labels.gpu == a100", "node.hostname!=old-1"), "0:0")
    assert providers.host_of("swarm", given) == "gpus"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"hosts": "a"}, "hosts"),
        ({"host": 3}, "host"),
        ({"host": "--tls"}, "host"),
        ({"image": "a b"}, "image"),
        ({"constraints": "node.role==worker"}, "constraints"),
        ({"constraints": ["role==worker"]}, "constraints.0"),
        ({"constraints": ["node.role==worker", None]}, "constraints.1"),
        ({"gpu_resource": ""}, "gpu_resource"),
        ({"network": "a/b"}, "network"),
        ({"user": "root"}, "user"),
        ({"mounts": {}}, "mounts"),
        ({"mounts": ["models:/models"]}, "mounts.0"),
        ({"mounts": [{"source": "a", "target": "/a", "readonly": True}]}, "mounts.0.readonly"),
        ({"mounts": [{"target": "/a"}]}, "mounts.0.source"),
        ({"mounts": [{"source": "../a", "target": "/a"}]}, "mounts.0.source"),
        ({"mounts": [{"source": "a", "target": "a"}]}, "mounts.0.target"),
        ({"mounts": [{"source": "a", "target": "/a", "read_only": "yes"}]}, "mounts.0.read_only"),
        ({"constraints": ["node.role==worker"] * 51}, "constraints"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], name: str) -> None:
    with pytest.raises(WrongOption) as wrong:
        providers.check("swarm", given)
    assert wrong.value.name == name
    assert wrong.value.hint
    assert wrong.value.message.startswith(f"provider_options of the swarm provider: {name} ")
