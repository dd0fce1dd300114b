"""The command line of a worker: all that one GPU slot's `emp worker` is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from emp_orch.fleet.desired.addresses import service_url
from emp_orch.fleet.desired.artifacts import THROUGH_API, through_api
from emp_orch.fleet.model.builtins import EMP
from emp_orch.fleet.model.fleet import Fleet, JobsSpec, Machine, Service

# A worker's stop must outlast its drain, so that the result of the last job is still written.
WORKER_STOP_MARGIN_S = 5.0
# Connectors of services that have no models or node classes.
_TELLS_NOTHING = frozenset({"simulation", "http"})


def worker_argv(fleet: Fleet, machine: Machine, slot: int) -> tuple[str, ...]:
    """The words of slot `slot`'s worker."""
    capabilities = msgspec.json.encode(machine.worker.capabilities, order="sorted").decode()
    store = THROUGH_API if through_api(fleet, machine) else fleet.jobs.artifacts
    return (
        *(EMP, "worker", "--machine", machine.id, "--gpu", str(slot)),
        *_services(fleet, machine, slot),
        *("--capabilities", capabilities),
        *("--drain-timeout", f"{machine.worker.drain_timeout_s:g}"),
        *("--job-timeout", f"{machine.worker.job_timeout_s:g}"),
        *("--lease-ttl", f"{fleet.jobs.lease_s:g}"),
        *(("--artifacts", store) if store else ()),
        *_input_rules(fleet.jobs),
        *(() if fleet.jobs.affinity else ("--no-affinity",)),
        *(("--replicas", str(fleet.redis.replicas)) if fleet.redis.replicas else ()),
    )


def _services(fleet: Fleet, machine: Machine, slot: int) -> tuple[str, ...]:
    """`--service NAME=CONNECTOR@URL` for every service this slot's worker can take jobs for, with its options."""
    words: list[str] = []
    for name in machine.services:
        service = fleet.services[name]
        url = service_url(machine, service, slot)
        if service.connector is not None and url is not None:
            words += ["--service", f"{service.name}={service.connector}@{url}"]
            if service.connector_options:
                options = msgspec.json.encode(service.connector_options, order="sorted").decode()
                words += ["--connector-options", f"{service.name}={options}"]
            if service.connector not in _TELLS_NOTHING and service.discover_s > 0:
                words += ["--discover", f"{service.name}={service.discover_s:g}"]
            if service.warmup:
                words += ["--warmup", f"{service.name}={warmup_file(service)}"]
    return tuple(words)


def _input_rules(jobs: JobsSpec) -> Iterator[str]:
    """Which URLs a worker fetches for a job, and how much; without them, none."""
    if jobs.inputs is not None and jobs.inputs.hosts:
        for host in jobs.inputs.hosts:
            yield from ("--input-host", host)
        yield from ("--input-max-bytes", str(jobs.inputs.max_bytes))


def warmup_file(service: Service) -> str:
    """Where a machine keeps the payload of a service's warm-up, within its folder; another name for another content."""
    return f"warmup/{service.name}-{hashlib.sha256(service.warmup.encode()).hexdigest()[:12]}.json"
