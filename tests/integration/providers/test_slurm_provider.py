"""The provider `slurm` with a real Slurm of two nodes with a GPU each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emp_orch.fleet.model.fleet import GpuKind, MachineId, PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers import registry
from emp_orch.runtimes.providers.base import Making, Provider, ProviderError
from emp_orch.runtimes.providers.slurm import jobs
from support.pools.slurm import Slurm, running_slurm
from support.provider_contract import RULES, Rule, Subject, launch, rule_name

WITHIN_S = 40.0
POOL = PoolName("renders")
MEMBERS = [MachineId(f"renders-{n}aaa") for n in (1, 2, 3)]
ON_GPU = launch(num_gpus=1, gpus=GpuKind.NVIDIA, stop_s=5)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture
def provider(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Provider]]:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    box = tmp_path / "box.sh"
    box.write_text(
        "#!/bin/bash\n"
        f"notes={tmp_path}/notes-$EMP_JOIN_AS\n"
        "trap 'echo TERM >> $notes; exit 0' TERM\n"
        "echo $EMP_JOIN_AS $CUDA_VISIBLE_DEVICES $(cat $EMP_JOIN_TOKEN_FILE) ${EMP_JOIN_TOKEN-apart} >> $notes\n"
        "while :; do sleep 0.2; done\n"
    )
    box.chmod(0o755)

    def made(fleet: str = "f", pool: PoolName = POOL) -> Provider:
        options = {"setup": [f"exec {box}"], "folder": str(tmp_path), "time": "10m"}
        found = registry.load("slurm", Making(fleet=fleet, pool=pool, options=options, folder=str(tmp_path)))
        assert found is not None
        return found

    yield made
    for line in slurm.tool("squeue", "-h", "-o", "%i").split():
        slurm.tool("scancel", line)


async def until(provider: Provider, so: Callable[[dict[str, Box]], bool]) -> dict[str, Box]:
    deadline = time.monotonic() + WITHIN_S
    while not so(seen := {str(b.member_id): b for b in await provider.boxes()}):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.2)
    return seen


async def noted(path: Path, word: str, times: int = 1) -> str:
    deadline = time.monotonic() + WITHIN_S
    while not path.exists() or (text := path.read_text()).count(word) < times:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    return text


def is_in(seen: dict[str, Box], member: str, state: BoxState) -> bool:
    return member in seen and seen[member].state is state


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
async def test_slurm_keeps_the_contract(rule: Rule, provider: Callable[..., Provider]) -> None:
    await rule(Subject(provider=provider, launch=launch(stop_s=2), within_s=WITHIN_S))


async def test_a_box_a_gpu_and_the_third_waits_with_slurms_reason(
    slurm: Slurm, provider: Callable[..., Provider], tmp_path: Path
) -> None:
    own = provider()
    foreign = slurm.tool("sbatch", "--parsable", "--job-name=mine", "--output=/dev/null", "--wrap=sleep 600").strip()
    for member in MEMBERS:
        await own.create(ON_GPU("f", POOL, member))
    seen = await until(
        own, lambda s: sum(b.state is BoxState.RUNNING for b in s.values()) == 2 and "Resources" in str(s)
    )
    waits = [b for b in seen.values() if b.state is BoxState.PENDING]
    assert [b.words for b in waits] == ["no node has what it asks for free (Resources)"]
    runs = [b for b in seen.values() if b.state is BoxState.RUNNING]
    assert sorted(b.node for b in runs) == ["n1", "n2"]
    token = ON_GPU("f", POOL, runs[0].member_id).token
    said = await noted(tmp_path / f"notes-{runs[0].member_id}", "apart")
    assert said.split() == [runs[0].member_id, "0", token, "apart"]
    job = runs[0].ref.removeprefix("job ")
    shown = slurm.tool("scontrol", "show", "job", "-dd", job) + slurm.tool(
        "scontrol", "write", "batch_script", job, "-"
    )
    assert "EMP_JOIN_TOKEN" in shown
    assert token not in shown + slurm.tool("squeue", "--json")

    # Removed: it drains by SIGTERM, and what waits takes its place. Others' jobs stay.
    await own.remove(runs[0].member_id, stop_s=5)
    await noted(tmp_path / f"notes-{runs[0].member_id}", "TERM")
    await until(own, lambda s: is_in(s, waits[0].member_id, BoxState.RUNNING))
    assert slurm.tool("squeue", "-h", "-j", foreign, "-o", "%T").strip() == "RUNNING"
    assert not (tmp_path / f"emp.f.{runs[0].member_id}").exists()


async def test_a_requeued_box_is_the_same_member(
    slurm: Slurm, provider: Callable[..., Provider], tmp_path: Path
) -> None:
    own, member = provider(), MEMBERS[0]
    await own.create(ON_GPU("f", POOL, member))
    first = await until(own, lambda s: is_in(s, member, BoxState.RUNNING))
    await noted(tmp_path / f"notes-{member}", "apart")
    slurm.tool("scontrol", "requeue", first[member].ref.removeprefix("job "))
    text = await noted(tmp_path / f"notes-{member}", "apart", times=2)
    assert text.count(f"{member} 0 {ON_GPU('f', POOL, member).token}") == 2
    again = await until(own, lambda s: is_in(s, member, BoxState.RUNNING))
    assert again[member].ref == first[member].ref


async def test_the_end_of_what_was_given_back_is_not_told(provider: Callable[..., Provider]) -> None:
    own, other, member = provider(), provider(), MEMBERS[2]
    await own.create(ON_GPU("f", POOL, member))
    await until(own, lambda s: is_in(s, member, BoxState.RUNNING))
    await own.remove(member, stop_s=5)
    await until(own, lambda s: member not in s)
    # Who did not give it back himself, as a new leader, sees it as long as Slurm lists it, and does so once more.
    assert is_in(await until(other, lambda s: member in s), member, BoxState.ENDED)
    await other.remove(member, stop_s=5)
    assert member not in await until(other, lambda s: True)


async def test_a_drained_node_is_told_in_words(slurm: Slurm, provider: Callable[..., Provider]) -> None:
    own, member = provider(), MEMBERS[1]
    try:
        slurm.tool("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=repair")
        await own.create(ON_GPU("f", POOL, member))
        seen = await until(
            own, lambda s: (member in s and "ReqNodeNotAvail" in s[member].words) or "Resources" in str(s)
        )
        assert seen[member].state is BoxState.PENDING
        assert seen[member].words
    finally:
        slurm.tool("scontrol", "update", "NodeName=n1,n2", "State=RESUME")


async def test_without_slurmctld_it_says_so_within_its_time(slurm: Slurm, provider: Callable[..., Provider]) -> None:
    own, member = provider(), MEMBERS[2]
    await own.create(ON_GPU("f", POOL, member))
    await until(own, lambda s: is_in(s, member, BoxState.RUNNING))
    slurm.stop_controller()
    try:
        began = time.monotonic()
        with pytest.raises(ProviderError, match="squeue"):
            await own.boxes()
        assert time.monotonic() - began < 25
    finally:
        slurm.start_controller()
    await until_answers(own)
    await until(own, lambda s: is_in(s, member, BoxState.RUNNING))


async def until_answers(provider: Provider) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            await provider.boxes()
        except ProviderError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        else:
            return


async def test_the_list_without_json_says_the_same(slurm: Slurm, provider: Callable[..., Provider]) -> None:
    own, member = provider(), MEMBERS[0]
    await own.create(ON_GPU("f", POOL, member))
    seen = await until(own, lambda s: is_in(s, member, BoxState.RUNNING))
    plain = jobs.in_text(slurm.tool(*jobs.LIST_TEXT).encode(), 0)
    assert seen[member] in jobs.boxes_of(plain, "f", POOL)


async def test_a_refusal_is_told_in_slurms_words(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    making = Making(fleet="f", pool=POOL, options={"partition": "nowhere"}, folder=str(tmp_path))
    own = registry.load("slurm", making)
    assert own is not None
    with pytest.raises(ProviderError, match="invalid partition specified: nowhere"):
        await own.create(ON_GPU("f", POOL, MachineId("renders-9zzz")))
