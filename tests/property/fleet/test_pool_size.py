"""Pools over time: never more boxes than they may have, no busy member removed, no flapping, and it settles."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool
from emp_orch.fleet.model.pools import BoxState
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.memory import Memory, ended, holds_together
from emp_orch.fleet.pools.memory import WINDOW_STEPS, PoolMemory
from emp_orch.fleet.pools.standing import SILENT_MS
from emp_orch.fleet.pools.windows import follow
from emp_orch.fleet.round import Inputs, decide
from support.fleet.fleets import NOW_MS
from support.fleet.pools import member, pool, pools_look, pools_wish

UP_MS, DOWN_MS = 10_000, 40_000


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6_000)), max_size=60), st.integers(0, 8))
def test_a_window_gives_the_least_on_the_way_up_and_the_most_on_the_way_down(
    wants: list[tuple[int, int]], size: int
) -> None:
    """Beside one that remembers all. What was wanted before the first look is not known."""
    now_ms = 0
    seen: list[tuple[int, int]] = []  # since when what is wanted
    found = follow(size, size, (), (), now_ms=0, up_after_ms=UP_MS, down_after_ms=DOWN_MS)
    for wanted, later_ms in wants:
        now_ms += later_ms
        found = follow(
            *(wanted, found.size, found.up, found.down),
            now_ms=now_ms,
            up_after_ms=UP_MS,
            down_after_ms=DOWN_MS,
        )
        seen.append((now_ms, wanted))
        for after_ms, worst in ((UP_MS, min), (DOWN_MS, max)):
            # Within the window, and what was wanted when it began.
            begin_ms = now_ms - after_ms
            before = [w for at, w in seen if at <= begin_ms][-1:]
            lately = [w for at, w in seen if at > begin_ms]
            if before and worst is min and worst([*before, *lately]) > size:
                size = worst([*before, *lately])
                break
            if before and worst is max and worst([*before, *lately]) < size:
                size = worst([*before, *lately])
        assert found.size == size
        assert not (found.up and found.down)


class World:
    """One pool over time, and an engine that is slow, and whose boxes vanish. It carries out what a round decides."""

    def __init__(self, one: Pool) -> None:
        self.pool = one
        self.now_ms = NOW_MS
        self.memory = Memory()
        self.members: dict[MachineId, Member] = {}
        self.boxes: dict[str, BoxState] = {}
        self.busy: set[str] = set()
        self.waiting = 0
        self.sizes: list[tuple[int, int, int]] = []  # when, size, jobs
        self.born = 0

    def round(self, later_ms: int = 2_000) -> None:
        self.now_ms += later_ms
        self._work()
        desired = pools_wish([self.pool], self.members.values())
        silent = [i for i, m in self.members.items() if m.joined_ms and i not in self.boxes]
        observed = pools_look(
            *(desired, {"renders": self.waiting} if self.waiting else {}),
            busy=self.busy,
            silent=silent,
            silent_ms=2 * SILENT_MS,
            boxes=self.boxes,
            now_ms=self.now_ms,
        )
        done = decide(Inputs(desired=desired, observed=observed, memory=self.memory))
        self.memory = done.memory
        assert holds_together(self.memory)
        size = done.pools[self.pool.name]
        assert self.pool.min_size <= size.wanted <= self.pool.max_size
        self.sizes.append((self.now_ms, size.wanted, self.waiting + len(self.busy)))
        for operation in done.decision.run:
            self._do(operation)
            self.memory = ended(self.memory, operation.key, ok=True)

    def _do(self, operation: Operation) -> None:
        i = operation.machine_id
        match operation.verb:
            case Verb.CREATE_MEMBER:
                for _ in range(operation.count):
                    self.born += 1
                    one = member(self.born, state=MemberState.EXPECTED, born_ms=self.now_ms, joined_ms=0)
                    self.members[one.id] = one
                    self.boxes[one.id] = BoxState.PENDING
                assert len(self.members) <= self.pool.max_size
            case Verb.DRAIN_MEMBER:
                assert i not in self.busy
                self.members[i] = structs.replace(self.members[i], leaving_ms=self.now_ms)
            case Verb.REMOVE_MEMBER:
                assert i not in self.busy, "a member at work is removed"
                self.members.pop(i, None)
                self.boxes.pop(i, None)

    def _work(self) -> None:
        """Who is idle and may take jobs takes one."""
        for i, one in self.members.items():
            if self.waiting and one.joined_ms and not one.leaving_ms and i in self.boxes and i not in self.busy:
                self.busy.add(i)
                self.waiting -= 1

    def come(self) -> None:
        """Every box that was asked for joins."""
        for i, one in self.members.items():
            if i in self.boxes and not one.joined_ms:
                self.boxes[i] = BoxState.RUNNING
                self.members[i] = structs.replace(one, state=MemberState.IN, joined_ms=self.now_ms)

    def end_jobs(self, count: int) -> None:
        for i in sorted(self.busy)[:count]:
            self.busy.remove(i)

    def vanish(self, number: int) -> None:
        """A box is no more, and its job waits again."""
        if self.boxes:
            gone = sorted(self.boxes)[number % len(self.boxes)]
            del self.boxes[gone]
            if gone in self.busy:
                self.busy.remove(gone)
                self.waiting += 1


STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 12)),
    st.tuples(st.just("end"), st.integers(1, 12)),
    st.tuples(st.just("come"), st.just(0)),
    st.tuples(st.just("vanish"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.integers(1, 30_000)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=30), st.integers(0, 2), st.integers(2, 6))
def test_whatever_happens_the_bounds_hold_and_it_settles(steps: list[tuple[str, int]], least: int, most: int) -> None:
    world = World(pool(least=least, most=most, up_after_s=UP_MS / 1000, down_after_s=DOWN_MS / 1000))
    for what, number in steps:
        match what:
            case "submit":
                world.waiting += number
            case "end":
                world.end_jobs(number)
            case "come":
                world.come()
            case "vanish":
                world.vanish(number)
            case _:
                world.round(number)
        world.round()
    _no_flapping(world)
    for _ in range(60):
        world.come()
        world.end_jobs(most)
        world.round(8_000)
    assert not world.waiting and not world.busy
    assert len(world.members) == len(world.boxes) == least
    size = world.memory.pools[world.pool.name]
    assert (size.size, size.up, size.down) == (least, (), ())


def _no_flapping(world: World) -> None:
    """It grows only where that was wanted all through the window, and shrinks likewise."""
    known: list[tuple[int, int, int]] = []
    for now_ms, size, jobs in world.sizes:
        before = known[-1][1] if known else size
        known.append((now_ms, size, jobs))
        bounded = [(at, min(world.pool.max_size, max(world.pool.min_size, j))) for at, _, j in known]
        if size > before:
            assert all(w >= size for at, w in bounded if at > now_ms - UP_MS)
        if size < before:
            assert all(w <= size for at, w in bounded if at > now_ms - DOWN_MS)


@given(st.lists(st.integers(0, 10_000), max_size=200))
def test_what_is_remembered_stays_small(wants: list[int]) -> None:
    memory = PoolMemory(size=5_000)
    for n, wanted in enumerate(wants):
        found = follow(*(wanted, memory.size, memory.up, memory.down), now_ms=n, up_after_ms=10**6, down_after_ms=10**6)
        memory = structs.replace(memory, size=found.size, up=found.up, down=found.down)
        assert len(memory.up) <= WINDOW_STEPS and len(memory.down) <= WINDOW_STEPS
