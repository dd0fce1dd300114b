"""`emp worker`: one worker, for one GPU slot of a machine."""

from __future__ import annotations

import click

from emp_orch.cli.output.options import Duration


@click.command("worker")
@click.option("--machine", "machine", envvar="MACHINE_ID", required=True, help="The machine it belongs to.")
@click.option("--gpu", type=click.IntRange(min=0), default=0, show_default=True, help="Its GPU slot.")
@click.option("--service", "services", multiple=True, metavar="NAME=CONNECTOR@URL", help="A service it works for.")
@click.option("--connector-options", "options", multiple=True, metavar="NAME=JSON", help="Settings of its connector.")
@click.option("--discover", multiple=True, metavar="NAME=SECONDS", help="How often to ask a service what it has.")
@click.option("--warmup", "warmups", multiple=True, metavar="NAME=FILE", help="What a service runs first of all.")
@click.option("--affinity/--no-affinity", default=True, help="Get jobs for models that it ran last.")
@click.option("--capabilities", default="{}", metavar="JSON", help="What else it can do.")
@click.option("--drain-timeout", type=Duration(), default=30.0, show_default=True, help="Seconds.")
@click.option("--job-timeout", type=Duration(min=0.1), default=3600.0, show_default=True, help="Seconds.")
@click.option(
    "--lease-ttl",
    type=Duration(min=0.1),
    default=30.0,
    show_default=True,
    envvar="EMP_LEASE_TTL",
    help="Seconds after which a silent worker has lost its job.",
)
@click.option("--heartbeat", type=Duration(min=0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--probe", type=Duration(min=0.1), default=2.0, show_default=True, help="Seconds between probes.")
@click.option(
    "--artifacts",
    envvar="EMP_ARTIFACTS_URL",
    default="",
    metavar="URL",
    help="Where outputs go, any fsspec URL, or api:// for the fleet's API; without it the folder artifacts here.",
)
@click.option("--replicas", type=click.IntRange(0, 5), default=0, help="Of Redis, that are to have the end of a run.")
@click.option("--input-host", "input_hosts", multiple=True, metavar="HOST", help="Whose URLs jobs may name as inputs.")
@click.option("--input-max-bytes", type=click.IntRange(min=0), default=0, help="How large one of these may be.")
@click.pass_context
def worker(
    ctx: click.Context,
    machine: str,
    gpu: int,
    services: tuple[str, ...],
    options: tuple[str, ...],
    discover: tuple[str, ...],
    warmups: tuple[str, ...],
    affinity: bool,
    capabilities: str,
    drain_timeout: float,
    job_timeout: float,
    lease_ttl: float,
    heartbeat: float,
    probe: float,
    artifacts: str,
    replicas: int,
    input_hosts: tuple[str, ...],
    input_max_bytes: int,
) -> None:
    """Take jobs from the queue for one GPU slot, one at a time. Redis: HUB_REDIS_URL or REDIS_URL."""
    import os
    from typing import Any

    import msgspec

    from emp_orch.cli.daemons.run import log_to_stderr, stop_on_signals
    from emp_orch.errors import UsageError
    from emp_orch.host import loops
    from emp_orch.machine.boot.redis_url import own_url
    from emp_orch.store.artifacts.api_access import access_file
    from emp_orch.store.artifacts.url import local_url
    from emp_orch.worker.config import (
        UrlRules,
        WorkerConfig,
        check_machine_id,
        machine_folder,
        parse_binding,
        store_url,
        with_discovery,
        with_options,
        with_warmups,
    )
    from emp_orch.worker.daemon import run_worker

    url = own_url()
    if not url:
        raise UsageError("the worker does not know its Redis", hint="set HUB_REDIS_URL or REDIS_URL")
    try:
        own = msgspec.json.decode(capabilities, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise UsageError(f"--capabilities is not a JSON object: {e}") from e
    bindings = tuple(parse_binding(s) for s in services)
    names = [b.service for b in bindings]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"--service names {', '.join(sorted(twice))} twice")
    folder = machine_folder()
    config = WorkerConfig(
        machine_id=check_machine_id(machine),
        gpu=gpu,
        services=with_warmups(with_discovery(with_options(bindings, options), discover), warmups),
        affinity=affinity,
        capabilities=own,
        drain_timeout_s=drain_timeout,
        job_timeout_s=job_timeout,
        lease_s=lease_ttl,
        heartbeat_s=heartbeat,
        probe_s=probe,
        artifacts=store_url(artifacts, os.environ, folder and access_file(folder)) or local_url(ctx.obj / "artifacts"),
        url_inputs=UrlRules(hosts=input_hosts, max_bytes=input_max_bytes),
        replicas=replicas,
    )
    log_to_stderr(gather=True)

    async def run() -> None:
        with stop_on_signals() as stop:
            await run_worker(config, url, os.environ.get("EMP_REDIS_PREFIX", ""), stop)

    loops.run(run())
