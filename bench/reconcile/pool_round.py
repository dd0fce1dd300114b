"""What one round decides at 10,000 machines of 8 GPUs: as members of a pool, beside as many named machines.

`python -m bench.reconcile.pool_round [MACHINES GPUS]`, from the root of the repository with `tests` on PYTHONPATH.
"""

from __future__ import annotations

import statistics
import sys
import time

from msgspec import structs

from emp_orch.fleet.drift.incremental import IncrementalDiff
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.observed import Changed, Observed
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, decide
from support.fleet.pools import member, pool, pools_look, pools_wish

NOTHING = Changed(machines=frozenset(), workers=frozenset())
ROUNDS = 5


def rounds_ms(desired: Desired, observed: Observed) -> list[float]:
    """One full look, then rounds of a fleet where nothing changed: ms each, the first one first."""
    diff, memory, took = IncrementalDiff(), Memory(), []
    for n in range(ROUNDS + 1):
        now_ms = observed.now_ms + 2_000 * n
        seen = observed if n == 0 else structs.replace(observed, now_ms=now_ms, changed=NOTHING)
        began = time.perf_counter()
        done = decide(Inputs(desired=desired, observed=seen, memory=memory), diff.diff(desired, seen))
        took.append((time.perf_counter() - began) * 1000)
        memory = done.memory
    return took


def main(machines: int, gpus: int) -> None:
    members = [member(n) for n in range(machines)]
    of = pool(num_gpus=gpus, most=machines)
    desired = pools_wish([of], members)
    observed = pools_look(desired, {"renders": machines * gpus})
    named = structs.replace(desired, pools={}, members={})
    for what, wanted, seen in (
        ("pool", desired, observed),
        ("named", named, structs.replace(observed, pools={}, waiting=())),
    ):
        full, *rest = rounds_ms(wanted, seen)
        print(f"{what}: full look {full:.0f} ms, a round with no change {statistics.median(rest):.1f} ms")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] or ("10000", "8"))))
