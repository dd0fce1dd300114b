"""`emp simulate`: the simulation service, and its installer step."""

from __future__ import annotations

from pathlib import Path

import click

from emp_orch.cli.output.options import Duration


@click.command("simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8299, show_default=True)
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Its files.")
@click.option("--gpu", type=click.IntRange(min=0), default=None, help="The GPU slot it stands in for.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many per sampler.")
@click.option("--step-ms", type=click.IntRange(min=0), default=50, show_default=True, help="How long one step takes.")
@click.option("--version", "version", default=None, help="Speak as this version of ComfyUI; see docs/comfyui.md.")
@click.option("--cache", is_flag=True, help="Run a node again only when its inputs differ, as ComfyUI does.")
@click.option("--models", is_flag=True, help="Take only models that lie in DIR/models, by their names.")
@click.option("--start-delay", type=Duration(), default=0, help="Listen only after so long.")
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
    version: str | None,
    cache: bool,
    models: bool,
    start_delay: float,
    only_prepare: bool,
) -> None:
    """A stand-in for ComfyUI: the same HTTP and WebSocket protocol, real small pictures, no GPU."""
    import asyncio

    from emp_orch import __version__
    from emp_orch.cli.daemons.run import log_to_stderr, stop_on_signals
    from emp_orch.errors import UsageError
    from emp_orch.services import simulation
    from emp_orch.services.simulation.config import folders_below
    from emp_orch.services.simulation.versions import NEWEST, VERSIONS

    folder = ctx.obj / folder
    if only_prepare:
        click.echo(f"simulation is prepared: drew {simulation.prepare(folder)}")
        return
    version = version or NEWEST
    if version not in VERSIONS:
        raise UsageError(f"no version {version} of ComfyUI to speak as; there are {', '.join(VERSIONS)}")
    log_to_stderr()
    folders = folders_below(folder.absolute(), models=models)
    # What a client reads in /system_stats: where ComfyUI would be told to put its files.
    told = ["--listen", host, "--port", str(port), "--output-directory", str(folders.output)]
    told += ["--temp-directory", str(folders.temp.parent), "--input-directory", str(folders.input)]
    config = simulation.SimulationConfig(
        hosts=(host,),
        port=port,
        folders=folders,
        gpu=gpu,
        steps=steps,
        step_s=step_ms / 1000,
        argv=("main.py", *told),
        version=version,
        shown_version=f"{version} (emp-simulation {__version__})",
        start_delay_s=start_delay,
        cache=cache,
    )

    async def run() -> None:
        with stop_on_signals() as stop:
            await simulation.serve(config, stop)

    asyncio.run(run())
