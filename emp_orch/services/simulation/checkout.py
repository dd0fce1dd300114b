"""The simulation in the place of a ComfyUI checkout: a main.py of one line that calls `main`.

    from emp_orch.services.simulation.checkout import main; main()

It takes ComfyUI's own command line, uses the folder of that main.py as ComfyUI does, and logs to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.loglines import log_handler
from emp_orch.services.simulation.arguments import folders_of, parser
from emp_orch.services.simulation.config import SimulationConfig
from emp_orch.services.simulation.server import serve
from emp_orch.services.simulation.versions import NEWEST, VERSIONS

log = logging.getLogger("emp.simulate")

# The original keeps so many.
_HISTORY = 10_000


def main(*, version: str = NEWEST, start_delay_s: float = 0.0, steps: int = 20, step_s: float = 0.05) -> None:
    """Serve as ComfyUI `version` would with this process's arguments, until SIGINT or SIGTERM.

    For `start_delay_s` nothing listens yet. Ends with status 2 and usage for arguments that ComfyUI does not know.
    """
    if version not in VERSIONS:
        raise ValueError(f"no version {version!r}; there are {', '.join(VERSIONS)}")
    script = Path(sys.argv[0]).absolute()
    args = parser(script.name).parse_args()
    logging.basicConfig(handlers=[log_handler()], level=logging.INFO)
    log.info("Python version: %s", sys.version)
    log.info("ComfyUI version: %s", version)
    config = SimulationConfig(
        hosts=tuple(args.listen.split(",")),
        port=args.port,
        folders=folders_of(args, script.parent),
        steps=steps,
        step_s=step_s,
        argv=tuple(sys.argv),
        version=version,
        start_delay_s=start_delay_s,
        cache=not args.cache_none,
        keep=_HISTORY,
        tidy=False,
        preview_method=args.preview_method,
        max_upload_bytes=round(args.max_upload_size * 1024 * 1024),
    )
    try:
        asyncio.run(_serve(config))
    except EmpError as e:
        sys.exit(f"OSError: {e}")
    except KeyboardInterrupt:
        log.info("Stopped server")


async def _serve(config: SimulationConfig) -> None:
    """SIGINT stops it, as a KeyboardInterrupt; SIGTERM ends it at once, by its default. So it is with ComfyUI."""
    for host in config.hosts:
        log.info("To see the GUI go to: http://%s:%d", f"[{host}]" if ":" in host else host, config.port)
    await serve(config, asyncio.Event())
