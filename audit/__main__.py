"""`python -m audit`: all checks, one after the other, each said.

Exit 0: nothing found. 1: something was. 3: nothing was, but the advisory service could not be asked.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from audit import advisories, dockerfiles, licences, policy, vendored
from audit.lock import DEVELOPERS, RUNTIME, read_lock

FOUND, NOT_ASKED = 1, 3


def _told(what: str, faults: list[str]) -> int:
    print(f"{what}: {f'{len(faults)} found' if faults else 'nothing found'}")
    for line in faults:
        print(f"  {line}")
    return FOUND if faults else 0


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m audit", description=__doc__)
    words.add_argument("--osv", default="", metavar="URL", help="ask this service, which speaks OSV's protocol")
    osv = words.parse_args().osv
    known = policy.load()
    locked = read_lock(RUNTIME)
    page = vendored.vendored(vendored.PAGE)
    status = _told(f"licences of {len(locked)} locked packages", licences.faults(locked, known))
    status |= _told("licences of what the page brings", licences.faults_vendored(page, known))
    for folder in (vendored.PAGE, vendored.TESTS, vendored.DOCS):
        status |= _told(f"files in {folder.relative_to(folder.parents[2])}", vendored.faults(folder))
    status |= _told("Dockerfiles", dockerfiles.faults(dockerfiles.dockerfiles()))
    try:
        found = [one for lock in (RUNTIME, DEVELOPERS) for one in advisories.ask(lock, osv=osv)]
    except advisories.NotAsked as e:
        print(f"known faults: not asked: {e}")
        return status or NOT_ASKED
    return status | _told("known faults", advisories.faults(found, known, today=datetime.now(UTC).date()))


if __name__ == "__main__":
    sys.exit(main())
