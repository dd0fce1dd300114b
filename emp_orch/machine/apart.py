"""What is emp's own in a machine's container, and out of reach of its services: they have a user in common.

A service, its set-up steps and its checks stand behind a fence (landlock.py); the agent, workers and the shared set-up
do not. Only where services have a folder of their own, as in emp's images: a user's whole home cannot be listed.
It imports next to nothing: it is asked before every program. docs/adr/0042.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

TYPE_CHECKING = False  # as typing's, whose import is dear
if TYPE_CHECKING:
    from emp_orch.landlock import Fence

# Where services are at home, by the image. Where it is not said, that is the machine's folder, and nobody is apart.
SERVICES_FOLDER = "EMP_SERVICES_FOLDER"
# In the environment of a machine's supervisord: a JSON array of paths.
HIDDEN = "EMP_HIDDEN"
# Where Docker puts secrets; those of others than emp, too.
_SECRETS = "/run/secrets"
_NAMING = ("HUB_REDIS_URL_FILE", "EMP_SECRETS", "EMP_ORDERS", "EMP_API")


def hidden(environ: Mapping[str, str], *, folder: str, logs: str) -> dict[str, str]:
    """What a supervisord is told of it: the machine's `folder`, all `logs`, files with secrets, results of jobs."""
    services = environ.get(SERVICES_FOLDER)
    if not services:
        return {}
    store = environ.get("EMP_ARTIFACTS_URL", "")
    paths = [folder, logs, _SECRETS, *(environ[name] for name in _NAMING if environ.get(name))]
    found = {p for p in paths if not _is_theirs(p, services)}
    results = store.removeprefix("file://")
    if results != store and not any(os.access(above, os.W_OK) for above in _above(results)):
        found.add(results)
    return {HIDDEN: json.dumps(sorted(found))}


def _above(path: str) -> list[str]:
    """The folders that `path` lies in. Where services may make things in one, they could reach none of those."""
    found = []
    while (above := os.path.dirname(path)) != path:
        found.append(path := above)
    return found


def _is_theirs(path: str, services: str) -> bool:
    """Whether it lies where services make things: there nothing can be hidden."""
    return path.startswith(os.path.dirname(services).rstrip("/") + "/")


def workplace(cwd: str | None, environ: Mapping[str, str]) -> str | None:
    """The working directory of a service that asks for `cwd`; None: where we are."""
    services = environ.get(SERVICES_FOLDER)
    return os.path.join(services, cwd or "") if services else cwd


def fence(environ: Mapping[str, str], *, signals: bool = False) -> Fence | None:
    """One for a service to stand behind; None where there is none to be had, or none is wanted. `signals`: it may send
    some to others. Raises OSError.
    """
    paths = environ.get(HIDDEN)
    if not paths:
        return None
    from emp_orch.landlock import Fence, Unavailable

    try:
        return Fence([str(path) for path in json.loads(paths)], signals=signals)
    except Unavailable:
        return None


def enter(fence: Fence) -> None:
    """For good, where it can be entered. Raises OSError."""
    from emp_orch.landlock import Unavailable

    try:
        fence.enter()
    except Unavailable:
        pass  # the agent says so
    finally:
        fence.close()


def why_together(environ: Mapping[str, str]) -> str:
    """Why services of this container may read what is emp's own; empty where they may not."""
    from emp_orch.landlock import why_not

    services = environ.get(SERVICES_FOLDER)
    if not services:
        return f"its image gives services no folder apart from emp's own ({SERVICES_FOLDER})"
    among = next((environ[n] for n in _NAMING if _is_theirs(environ.get(n, ""), services)), "")
    return f"{among} lies among the files of its services" if among else why_not()
