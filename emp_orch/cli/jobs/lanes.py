"""`emp jobs explain` and `emp jobs lanes`: why jobs wait."""

from __future__ import annotations

import click

from emp_orch.cli.jobs.access import fleet_queue, plural, print_json, terminal_width


@click.command("explain", short_help="Why a job waits, and what each worker lacks.")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, with each worker.")
@click.pass_context
def explain(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Say why a job waits, and for each worker which requirement it does not meet."""
    import asyncio

    from emp_orch.cli.jobs.text import explanation

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            found = await access.explainer.explain(await access.queue.get(job_id))
        if not as_json:
            click.echo(explanation(found, terminal_width()))
            return
        print_json(
            {
                "job_id": job_id,
                "status": found.job.status,
                "lane": found.job.lane,
                "requirements": found.job.requirements,
                "why": found.why,
                "fleet": found.fleet,
                "workers": [
                    {"worker_id": e.worker_id, "standing": e.standing, "reasons": e.reasons, "words": e.words}
                    for e in found.workers
                ],
            }
        )

    asyncio.run(run())


@click.command("lanes", short_help="Who waits for what, and who could serve it.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def lanes(ctx: click.Context, limit: int, as_json: bool) -> None:
    """Show the lanes that hold jobs, deepest first: their oldest wait, and who could serve them."""
    import asyncio

    from emp_orch.cli.jobs.text import lane_table
    from emp_orch.store.queue.explain import serving
    from emp_orch.store.redis.client import time_ms

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            found, workers = await access.queue.lanes(), await access.explainer.look()
            now_ms = await time_ms(access.redis)
        told = found[:limit]
        served = serving(told, workers)
        if as_json:
            rows = [
                {
                    "lane": lane.lane,
                    "service": lane.requirements.service,
                    "requirements": lane.requirements,
                    "depth": lane.depth,
                    "oldest_wait_s": max(0, now_ms - lane.oldest_ms) / 1000 if lane.oldest_ms else 0.0,
                    "head": lane.head,
                    "unworkable": lane.unworkable,
                    "workers": served[lane.lane],
                }
                for lane in told
            ]
            print_json({"total": len(found), "jobs": sum(lane.depth for lane in found), "lanes": rows})
            return
        if not found:
            click.echo("no job waits", err=True)
            return
        click.echo(lane_table(told, served, now_ms, terminal_width()))
        if len(found) > limit:
            rest = sum(lane.depth for lane in found[limit:])
            click.echo(f"and {plural(len(found) - limit, 'lane')} with {plural(rest)}; --limit shows more", err=True)

    asyncio.run(run())
