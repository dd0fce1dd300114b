"""What a cluster of Kubernetes is given for a pool, as text, and what it says. Kubernetes' own schemas read it.

`EMP_UPDATE_GOLDEN=1 pytest tests/unit/render/test_golden_kubernetes.py` rewrites golden/kubernetes-*.yaml: read the
diff. tests/docker has podman run the pod.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import ValidationError, all_versions, validate
from msgspec import structs

from emp_orch.cli.apply.render_kubernetes import kubernetes_text
from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Gpus, InputsSpec, Limits, MachineId, Pool, Volume, WorkerSpec
from emp_orch.fleet.model.member_ids import id_of_name
from emp_orch.fleet.model.pools import JOIN
from emp_orch.fleet.model.runtimes import RuntimeKind
from support.fleet.fleets import SIMULATION, fleet, machine
from support.fleet.pools import pool
from support.tree import TESTS

GOLDEN = TESTS / "golden"
URL = "https://emp.example.com"
# 1.25 to the newest that is known; `major.minor.0`.
VERSIONS = all_versions()
KEDA = "keda.sh/v1alpha1"


def _pool(name: str = "renders", least: int = 0, most: int = 40, **template: Any) -> Pool:
    made = machine("", services=[SIMULATION.name], runtime=RuntimeKind.EXTERNAL, **{"num_gpus": 1, **template})
    return pool(name, least, most, provider=JOIN, template=structs.replace(made, id=MachineId("")))


def _text(made: Pool, *, api: str = URL, **changes: Any) -> str:
    return kubernetes_text(structs.replace(_fleet(made), **changes), made, api=api)


def _fleet(made: Pool) -> Fleet:
    return structs.replace(fleet([SIMULATION]), pools={made.name: made})


GPUS = _pool(
    gpus=Gpus(kind=GpuKind.NVIDIA, ids=()),
    num_gpus=2,
    image="registry.example.com/emp-machine:1",
    limits=Limits(memory_bytes=32 * 2**30, shm_bytes=8 * 2**30, cpus=7.5),
    volumes=(
        Volume(source="/srv/models", target="/models", read_only=True),
        Volume(source='/srv/it\'s "odd"', target="/out put", read_only=False),
    ),
    worker=WorkerSpec(capabilities={}, drain_timeout_s=90.0, job_timeout_s=600.0),
)
FIXED = _pool("fixed", 3, 3)
# Names that some reader of YAML takes for a number, a truth or nothing.
ODD = _pool("1e3", 1, 2)
JOBS = fleet([SIMULATION]).jobs
DOWNLOADS = structs.replace(JOBS, inputs=InputsSpec(hosts=("files.example.com",), keep_s=60.0, max_bytes=1))
TEXTS = {
    "kubernetes-gpus": _text(GPUS, name="farm", jobs=DOWNLOADS),
    "kubernetes-fixed": _text(FIXED, api="http://10.0.0.5:3331"),
    "kubernetes-names": _text(ODD, api="http://[fd00::5]:3331", name="on-"),
}


def _read(text: str) -> dict[str, dict[str, Any]]:
    """By kind: there is one of each."""
    documents = list(yaml.safe_load_all(text))
    found = {d["kind"]: d for d in documents}
    assert len(found) == len(documents)
    return found


def _pod(text: str) -> Any:
    return _read(text)["StatefulSet"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_as_recorded(name: str) -> None:
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("EMP_UPDATE_GOLDEN") == "1":
        file.write_text(TEXTS[name], encoding="utf-8")
    assert TEXTS[name] == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {f.stem for f in GOLDEN.glob("kubernetes-*.yaml")} == set(TEXTS)


@pytest.mark.parametrize(
    ("name", "version"),
    [*(("kubernetes-gpus", version) for version in VERSIONS), *((name, VERSIONS[-1]) for name in TEXTS)],
)
def test_kubernetes_schemas_take_every_document(name: str, version: str) -> None:
    """Strictly: a field that is not known is an error. KEDA's own kinds have no schema there."""
    checked = 0
    for document in _read(TEXTS[name]).values():
        if document["apiVersion"] != KEDA:
            validate(document, version, strict=True)
            checked += 1
    assert checked == 4


def test_the_schemas_refuse_what_is_wrong() -> None:
    wrong = _read(TEXTS["kubernetes-fixed"])["StatefulSet"]
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(ValidationError, match="readinesProbe"):
        validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", TEXTS)
def test_a_box_has_no_more_than_it_needs(name: str) -> None:
    pod = _pod(TEXTS[name])
    (box,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert "ports" not in box
    assert _read(TEXTS[name])["ServiceAccount"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", TEXTS)
def test_no_secret_stands_there_and_each_that_is_named_is_made_by_a_line(name: str) -> None:
    documents = _read(TEXTS[name])
    assert "Secret" not in documents
    named = [v["secret"]["secretName"] for v in _pod(TEXTS[name])["volumes"] if "secret" in v]
    named += [
        ref["name"]
        for ref in documents.get("TriggerAuthentication", {"spec": {"secretTargetRef": []}})["spec"]["secretTargetRef"]
    ]
    head = [line for line in TEXTS[name].splitlines() if line.startswith("#")]
    for secret in named:
        assert any(f"create secret generic {secret} --from-file=token=" in line for line in head)


def test_what_a_box_is_told() -> None:
    (box,) = _pod(TEXTS["kubernetes-names"])["containers"]
    told = {e["name"]: e.get("value", e.get("valueFrom")) for e in box["env"]}
    assert told == {
        "EMP_POOL": "1e3",
        "EMP_JOIN_URL": "http://[fd00::5]:3331",
        "EMP_JOIN_TOKEN_FILE": "/run/emp-join/token",
        "EMP_JOIN_AS": {"fieldRef": {"fieldPath": "metadata.name"}},
    }
    # A pod of a StatefulSet is called so, and that is its member's id.
    stateful = _read(TEXTS["kubernetes-names"])["StatefulSet"]["metadata"]["name"]
    assert id_of_name(ODD.name, f"{stateful}-0") == f"{stateful}-0"


def test_gpus_limits_volumes_and_the_time_to_stop() -> None:
    pod = _pod(TEXTS["kubernetes-gpus"])
    (box,) = pod["containers"]
    assert box["resources"] == {"limits": {"cpu": "7.5", "memory": str(32 * 2**30), "nvidia.com/gpu": "2"}}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    sources = {v["name"]: v for v in pod["volumes"]}
    mounts = {m["mountPath"]: {**sources[m["name"]], **m} for m in box["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(8 * 2**30)}
    assert mounts["/models"]["hostPath"] == {"path": "/srv/models", "type": "Directory"}
    assert mounts["/models"]["readOnly"] is True
    assert mounts["/out put"]["hostPath"]["path"] == '/srv/it\'s "odd"'
    assert {"/tmp", "/var/lib/emp", "/var/lib/emp-own", "/run/emp-join"} < set(mounts)
    # A drain of 90 s with its margin of 5, the slowest service, and a minute for what must be killed.
    assert pod["terminationGracePeriodSeconds"] == 90 + 5 + SIMULATION.stop.timeout_s + 60
    plain = _pod(TEXTS["kubernetes-fixed"])
    assert "resources" not in plain["containers"][0] and "tolerations" not in plain


def test_only_images_of_others_are_pulled() -> None:
    assert _pod(TEXTS["kubernetes-gpus"])["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert _pod(TEXTS["kubernetes-fixed"])["containers"][0]["imagePullPolicy"] == "Never"


def test_nobody_reaches_a_box_and_it_reaches_names_and_the_api() -> None:
    by_name = _read(TEXTS["kubernetes-gpus"])["NetworkPolicy"]["spec"]
    assert (by_name["policyTypes"], by_name["ingress"]) == (["Ingress", "Egress"], [])
    dns, api = by_name["egress"]
    assert dns == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert api == {"ports": [{"protocol": "TCP", "port": 443}]}
    for name, cidr in (("kubernetes-fixed", "10.0.0.5/32"), ("kubernetes-names", "fd00::5/128")):
        (_, api) = _read(TEXTS[name])["NetworkPolicy"]["spec"]["egress"]
        assert api == {"ports": [{"protocol": "TCP", "port": 3331}], "to": [{"ipBlock": {"cidr": cidr}}]}


def test_keda_asks_the_api_for_the_size() -> None:
    documents = _read(TEXTS["kubernetes-gpus"])
    spec = documents["ScaledObject"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 40)
    assert spec["scaleTargetRef"]["name"] == documents["StatefulSet"]["metadata"]["name"]
    (trigger,) = spec["triggers"]
    # A field of the answer that tests/integration/api/test_api_pools.py holds.
    assert trigger["metadata"]["valueLocation"] == "data.wanted"
    assert trigger["metadata"]["url"] == f"{URL}/api/pools/renders"
    assert trigger["authenticationRef"]["name"] == documents["TriggerAuthentication"]["metadata"]["name"]
    # KEDA's words are texts, also the numbers.
    assert all(isinstance(v, str) for v in trigger["metadata"].values())
    # Another apply must not set the size that KEDA set.
    assert "replicas" not in documents["StatefulSet"]["spec"]


def test_a_pool_of_one_size_needs_no_keda() -> None:
    documents = _read(TEXTS["kubernetes-fixed"])
    assert list(documents) == ["ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"]
    assert documents["StatefulSet"]["spec"]["replicas"] == 3
    assert "KEDA" not in TEXTS["kubernetes-fixed"]


def test_names_that_yaml_would_take_for_something_else() -> None:
    documents = _read(TEXTS["kubernetes-names"])
    assert {d["metadata"]["name"] for d in documents.values()} == {"1e3"}
    # A label's value may not end with a dash.
    assert documents["StatefulSet"]["metadata"]["labels"] == {"emp.fleet": "on", "emp.pool": "1e3"}
    assert 'name: "1e3"' in TEXTS["kubernetes-names"]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (pool("renders", provider="swarm"), "its provider, swarm"),
        (_pool(gpus=Gpus(kind=GpuKind.NVIDIA, ids=("3",))), "ids of its GPUs"),
    ],
)
def test_a_pool_that_no_cluster_can_start(made: Pool, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _text(made)
