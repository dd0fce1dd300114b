"""Where a machine's services listen."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import Machine, Scale, Service


def program_port(machine: Machine, service: Service, slot: int | None) -> int | None:
    """Where slot `slot` of `service` listens on `machine`; None when the service has no port."""
    base = machine.ports.get(service.name, service.port)
    return None if base is None else base + machine.port_offset + (slot or 0)


def service_url(machine: Machine, service: Service, slot: int) -> str | None:
    """Where the worker of a slot finds `service`, on its own host; None for one that listens nowhere."""
    port = program_port(machine, service, slot if service.scale is Scale.PER_GPU else None)
    return None if port is None else f"http://127.0.0.1:{port}"
