"""`emp simulate`: the simulation service, and its installer step."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8299, show_default=True)
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Its files.")
@click.option("--gpu", type=click.IntRange(min=0), default=None, help="The GPU slot it stands in for.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many per sampler.")
@click.option("--step-ms", type=click.IntRange(min=0), default=50, show_default=True, help="How long one step takes.")
@click.option("--prepare", "only_prepare", is_flag=True, help="Make the folder, draw a self-test picture, and end.")
@click.pass_context
def simulate(
    ctx: click.Context,
    host: str,
    port: int,
    folder: Path,
    gpu: int | None,
    steps: int,
    step_ms: int,
    only_prepare: bool,
) -> None:
    """A stand-in for ComfyUI: the same HTTP and WebSocket protocol, real small pictures, no GPU."""
    import asyncio

    from emp_orch.cli.daemon import log_to_stderr, stop_on_signals
    from emp_orch.services import simulation

    folder = ctx.obj / folder
    if only_prepare:
        click.echo(f"simulation is prepared: drew {simulation.prepare(folder)}")
        return
    log_to_stderr()
    config = simulation.SimulationConfig(
        host=host, port=port, folder=folder, gpu=gpu, steps=steps, step_s=step_ms / 1000
    )

    async def run() -> None:
        with stop_on_signals() as stop:
            await simulation.serve(config, stop)

    asyncio.run(run())
