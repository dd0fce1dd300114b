"""`python -m docs_site [FOLDER]`: build the site there (build/docs), check its links, and say where it lies.

Exit codes: 0 built and whole; 1 the builder failed, or a link leads nowhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs_site.build import build
from docs_site.links import faults
from docs_site.pages import ROOT


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"
    done = build(folder)
    if done.status != 0:
        print(done.output, file=sys.stderr)
        return 1
    found = faults(done.site)
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        return 1
    print(f"file://{done.site.absolute() / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
