"""The pod that a member of a pool is: one container with nothing that it does not need."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.fleet.model.fleet import GpuKind
from emp_orch.images import PYTHON
from emp_orch.render.kubernetes.names import TOKEN_KEY, Document, OnCluster

# The user of emp's machine image (containers/machine/Dockerfile).
USER = 10001
GPU = "nvidia.com/gpu"
_TOKEN_FOLDER = "/run/emp-join"  # noqa: S105  # a folder's name
_ONLY_ITS_GROUP = 0o440
_CHECK = [PYTHON, "-I", "-m", "emp_orch.machine.healthcheck"]
_SECOND_LOOK_S, _PROBE_S = 10, 10
# A box fetches and installs what its services need before its agent answers.
_STARTS_WITHIN_S = 1_800
# emp mends what is in a box; one whose agent does not answer for so long, nobody does.
_HUNG_S = 600


def pod_spec(asked: OnCluster) -> Document:
    """Of one member."""
    box = asked.box
    return {
        "serviceAccountName": asked.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Then the pod's own process is the first, and takes in what others leave behind, as Docker's --init does.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": box.stop_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]} if _gpus(asked) else {}),
        "containers": [_container(asked)],
        "volumes": [{"name": name, **source} for name, source, _ in _volumes(asked)],
    }


def _container(asked: OnCluster) -> Document:
    box = asked.box
    resources = _resources(asked)
    return {
        "name": "machine",
        "image": box.image,
        # Nobody else's of that name is ever pulled.
        "imagePullPolicy": "Never" if box.never_pulled else "IfNotPresent",
        "env": _environment(asked),
        **({"resources": {"limits": resources}} if resources else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": list(box.cap_drop)},
        },
        "startupProbe": _probe(_STARTS_WITHIN_S, "--alive"),
        "livenessProbe": _probe(_HUNG_S, "--alive"),
        "readinessProbe": _probe(3 * _SECOND_LOOK_S),
        "volumeMounts": [{"name": name, **mount} for name, _, mount in _volumes(asked)],
    }


def _environment(asked: OnCluster) -> list[Document]:
    told = {
        "EMP_POOL": asked.name,
        "EMP_JOIN_URL": asked.api,
        "EMP_JOIN_TOKEN_FILE": f"{_TOKEN_FOLDER}/{TOKEN_KEY}",
    }
    # A pod that is made anew has the same name, and is the same member.
    name: Document = {"name": "EMP_JOIN_AS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    found: list[Document] = [{"name": key, "value": value} for key, value in told.items()]
    return [*found, name]


def _probe(within_s: int, *words: str) -> Document:
    """Fails after `within_s` in which the check did not succeed once."""
    return {
        "exec": {"command": [*_CHECK, *words]},
        "periodSeconds": _SECOND_LOOK_S,
        "timeoutSeconds": _PROBE_S,
        "failureThreshold": within_s // _SECOND_LOOK_S,
    }


def _resources(asked: OnCluster) -> dict[str, str]:
    """Requests are the same where a limit is all that is said. Kubernetes knows no limit of processes for one pod, and
    no swap."""
    box, gpus = asked.box, _gpus(asked)
    sizes = {"cpu": box.cpus, "memory": box.memory, GPU: gpus or None}
    return {name: str(value) for name, value in sizes.items() if value is not None}


def _gpus(asked: OnCluster) -> int:
    machine = asked.pool.template
    return machine.num_gpus if machine.gpus.kind is GpuKind.NVIDIA else 0


def _volumes(asked: OnCluster) -> Iterator[tuple[str, Document, Document]]:
    """Name, where it is from, and how the container has it."""
    box = asked.box
    secret: Document = {"secretName": asked.join_secret, "defaultMode": _ONLY_ITS_GROUP}
    yield "join", {"secret": secret}, {"mountPath": _TOKEN_FOLDER, "readOnly": True}
    for name, path in (("home", box.home), ("own", box.own), ("tmp", "/tmp")):  # noqa: S108  # in the container
        yield name, {"emptyDir": {}}, {"mountPath": path}
    if box.shm is not None:
        memory: Document = {"medium": "Memory", "sizeLimit": str(box.shm)}
        yield "shm", {"emptyDir": memory}, {"mountPath": "/dev/shm"}  # noqa: S108
    for number, (source, target, read_only) in enumerate(box.volumes):
        # Unlike the usual type, it makes no empty folder where there is none.
        host: Document = {"path": source, "type": "Directory"}
        mount: Document = {"mountPath": target, **({"readOnly": True} if read_only else {})}
        yield f"volume-{number}", {"hostPath": host}, mount
