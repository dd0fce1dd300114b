"""`python -m bench.joins --api URL --pool NAME --token-file FILE`: the rush, and its figures."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bench.joins.rush import rush


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.joins", description=__doc__)
    parser.add_argument("--api", required=True, help="the fleet's API")
    parser.add_argument("--pool", required=True, help="a pool that may have so many members")
    parser.add_argument("--token-file", required=True, type=Path, help="a token of `emp pool join`")
    parser.add_argument("--boxes", type=int, default=500)
    parser.add_argument("--within", type=float, default=10.0, metavar="S", help="seconds in which they come")
    given = parser.parse_args()
    token = given.token_file.read_text().strip()
    found = asyncio.run(rush(given.api, given.pool, token, boxes=given.boxes, within_s=given.within))
    waits = ", ".join(f"p{share:.0%} {found.wait_s(share) * 1000:.0f} ms" for share in (0.5, 0.95, 1.0))
    print(f"{found.boxes} boxes, {found.members} members in {found.took_s:.1f} s; each waited {waits}")
    print(f"answers to boxes {found.statuses}, to strangers {found.guesses}")


if __name__ == "__main__":
    main()
