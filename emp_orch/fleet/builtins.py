"""Command lines of the services that come with emp. Each begins with EMP: a subcommand of emp's starts them."""

from __future__ import annotations

from emp_orch.fleet.model import Service

# First word of a command that is emp itself; the launcher puts this host's interpreter in its place.
EMP = "@emp"


def preparing(service: Service) -> tuple[str, ...]:
    """The set-up step of a builtin service that names no `install` of its own."""
    return (EMP, "simulate", "--prepare", "--dir", data_dir(service, None))


def serving(service: Service, slot: int | None, port: int | None, *, published: bool) -> tuple[str, ...]:
    """A builtin service itself, listening on `port`."""
    gpu = () if slot is None else ("--gpu", str(slot))
    # Docker hands a published port's connections to the container's own address, not to its loopback.
    host = ("--host", "0.0.0.0") if published else ()  # noqa: S104
    return (EMP, "simulate", *host, "--port", str(port), "--dir", data_dir(service, slot), *gpu)


def data_dir(service: Service, slot: int | None) -> str:
    """Relative to the machine's folder, which is every program's working directory unless `cwd` says else."""
    return f"data/{service.name}" if slot is None else f"data/{service.name}-gpu{slot}"
