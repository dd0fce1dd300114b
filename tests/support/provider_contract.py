"""The rules of emp_orch.runtimes.providers.contract for tests: what a box is to be started with, and one call a rule.

@pytest.mark.parametrize("rule", RULES, ids=rule_name)
async def test_a_swarm_keeps_the_contract(rule: Rule, engine: Engine) -> None:
    await rule(Subject(provider=lambda fleet, pool: …, launch=launch(image=BASE), within_s=60))
"""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.fleet.model.fleet import GpuKind, Limits, MachineId, PoolName
from emp_orch.runtimes.providers.base import Launch
from emp_orch.runtimes.providers.contract import RULES, Broken, Rule, Subject

__all__ = ["RULES", "Broken", "Launch", "Rule", "Subject", "launch", "rule_name"]


def rule_name(rule: Rule) -> str:
    """Of a test."""
    return getattr(rule, "__name__", repr(rule))


def launch(
    *, image: str = "", num_gpus: int = 0, gpus: GpuKind = GpuKind.NONE, stop_s: float = 2.0, **environment: str
) -> Callable[[str, PoolName, MachineId], Launch]:
    """For boxes that join nowhere: their API is a port that nobody listens on. Each member has a token of its own."""

    def made(fleet: str, pool: PoolName, member_id: MachineId) -> Launch:
        return Launch(
            fleet=fleet,
            pool=pool,
            member_id=member_id,
            api="http://127.0.0.1:9",
            token=f"emp1.token-of-{fleet}-{member_id}.secret",
            image=image,
            num_gpus=num_gpus,
            gpus=gpus,
            volumes=(),
            limits=Limits(),
            stop_s=stop_s,
            environment=environment,
        )

    return made
