"""All that may happen to pools in a history. Each event draws what it needs from `choose`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from emp_orch.fleet.model.pools import Box as Shown
from emp_orch.fleet.model.pools import BoxState
from sim.events import Choose
from sim.pools.fleets import GUESTS, RENDERS, SPARE
from sim.pools.simulation import PoolSimulation

Event = Callable[[PoolSimulation, Choose], Awaitable[None]]
ENGINES = (RENDERS, SPARE)


async def time_passes(sim: PoolSimulation, choose: Choose) -> None:
    await sim.seconds(choose((1, 2, 3, 5, 8, 13)))


async def long_time_passes(sim: PoolSimulation, choose: Choose) -> None:
    await sim.seconds(choose((30, 60, 110)))


async def jobs_come(sim: PoolSimulation, choose: Choose) -> None:
    lane, count = choose(("web", "web", "extra")), choose((1, 2, 4, 9))
    sim.watch.say(f"{count} {lane} jobs come")
    sim.world.submit(lane, count)


async def jobs_trickle(sim: PoolSimulation, choose: Choose) -> None:
    """One after the other, at pauses that are shorter and longer than the windows."""
    for _ in range(choose((3, 6))):
        sim.world.submit("web", choose((1, 1, 2)))
        await sim.seconds(choose((3, 7, 12)))


async def a_box_vanishes(sim: PoolSimulation, choose: Choose) -> None:
    """Its engine says that it ended, forgets it, goes on to list it, or starts it elsewhere."""
    things = sim.things()
    if not things:
        return
    engine, thing = choose(things)
    member_id, how = thing.launch.member_id, choose(("ended", "gone", "listed", "again", "again"))
    sim.watch.say(f"the box of {member_id} vanishes: {how}")
    thing.life.kill()
    if how in ("gone", "listed"):
        engine.things.pop(member_id, None)
    if how == "listed":
        engine.faults.lists[member_id] = Shown(member_id=member_id, state=BoxState.RUNNING)
    if how == "again" and member_id in engine.things:
        await sim.seconds(choose((1, 4, 20)))
        if member_id in engine.things and thing.life is None:
            engine.start(thing)


async def a_box_is_cut_off(sim: PoolSimulation, choose: Choose) -> None:
    if sim.boxes:
        box = choose(sim.boxes)
        sim.watch.say(f"cut off: {box.member.id if box.member else box.pool}")
        box.set_cut(cut=True)


async def boxes_are_back(sim: PoolSimulation, choose: Choose) -> None:
    for box in sim.boxes:
        box.set_cut(cut=False)


async def a_box_is_cut_off_for_long(sim: PoolSimulation, choose: Choose) -> None:
    """So long that it is none any more, or just not; then it comes back with what it was given."""
    if not sim.boxes:
        return
    box = choose(sim.boxes)
    sim.watch.say(f"cut off for long: {box.member.id if box.member else box.pool}")
    box.set_cut(cut=True)
    await sim.seconds(choose((80, 130, 200)))
    box.set_cut(cut=False)
    await sim.seconds(12)


async def a_node_is_cut_off_and_its_box_started_twice(sim: PoolSimulation, choose: Choose) -> None:
    things = sim.things()
    if not things:
        return
    engine, thing = choose(things)
    first = thing.life
    sim.watch.say(f"twice: {thing.launch.member_id}")
    if choose((False, True)):
        first.set_cut(cut=True)
    engine.start(thing)
    sim.guests.append(first)
    await sim.seconds(choose((5, 20)))
    first.set_cut(cut=False)
    await sim.seconds(choose((1, 15)))
    first.kill()
    if thing.life is None and thing.launch.member_id in engine.things and not thing.given_back:
        engine.start(thing)


async def a_box_has_notice(sim: PoolSimulation, choose: Choose) -> None:
    """Its host takes it away, and says so before."""
    things = sim.things()
    if things:
        _, thing = choose(things)
        sim.watch.say(f"notice: {thing.launch.member_id}")
        sim.watch.excuse(thing.launch.member_id)
        thing.life.terminate()


async def an_engine_is_ill(sim: PoolSimulation, choose: Choose) -> None:
    faults = sim.engines[choose(ENGINES)].faults
    what = choose(("refuses", "after", "mute", "deaf", "slow", "crawls", "full", "after and deaf"))
    sim.watch.say(f"an engine {what}")
    match what:
        case "slow":
            faults.slow_s = 8.0
        case "crawls":
            faults.slow_s = 40.0
        case "full":
            faults.places = choose((0, 1, 2))
        case _:
            for one in what.split(" and "):
                setattr(faults, one, True)
    await sim.seconds(choose((1, 10, 40)))


async def the_cheapest_gets_no_boxes(sim: PoolSimulation, choose: Choose) -> None:
    """For minutes its engine has no place, or one more now and then, while jobs wait; those that it had may be lost."""
    engine, how = sim.engines[RENDERS], choose(("refuses", "full", "lost", "lost", "now and then"))
    sim.watch.say(f"no boxes for {RENDERS}: {how}")
    if how in ("lost", "now and then"):
        for thing in [t for t in engine.things.values() if t.life is not None]:
            thing.life.kill()  # type: ignore[union-attr]
    engine.faults.refuses, engine.faults.places = how in ("refuses", "lost"), 0
    level = choose((2, 6))
    for _ in range(choose((2, 3))):
        await jobs_keep_coming(sim, 80, level)
        engine.faults.places += how == "now and then"
    engine.faults.refuses, engine.faults.places = False, choose((1, 99))
    await jobs_keep_coming(sim, 60, level)


async def jobs_keep_coming(sim: PoolSimulation, seconds: int, level: int) -> None:
    """So many always wait."""
    for _ in range(seconds // 5):
        sim.world.submit("web", max(0, level - sim.world.waiting_in("web")))
        await sim.seconds(5)


async def an_engine_forgets(sim: PoolSimulation, choose: Choose) -> None:
    """For a while it does not show a box that is there."""
    engine = sim.engines[choose(ENGINES)]
    if engine.things:
        forgotten = choose(sorted(engine.things))
        sim.watch.say(f"the engine forgets {forgotten}")
        engine.faults.forgets.add(forgotten)
        await sim.seconds(choose((5, 70)))
        engine.faults.forgets.discard(forgotten)


async def an_engine_fails_half_way(sim: PoolSimulation, choose: Choose) -> None:
    """It starts boxes, says that it did not, and takes no word about them."""
    pool = choose(ENGINES)
    sim.watch.say(f"the engine of {pool} fails half-way")
    faults = sim.engines[pool].faults
    faults.after = faults.deaf = True
    sim.world.submit("web" if pool == RENDERS else "extra", 9)
    await sim.seconds(choose((10, 25, 80)))
    faults.after = faults.deaf = False


async def engines_are_well(sim: PoolSimulation, choose: Choose) -> None:
    for engine in sim.engines.values():
        engine.faults = type(engine.faults)()


async def a_guest_comes(sim: PoolSimulation, choose: Choose) -> None:
    sim.guest(choose(("", "", "box-one", "box-two")))


async def more_guests_come_than_have_room(sim: PoolSimulation, choose: Choose) -> None:
    for _ in range(5):
        sim.guest()
    await sim.seconds(choose((12, 20)))


async def a_name_goes_to_another_box(sim: PoolSimulation, choose: Choose) -> None:
    """While the box that had it is cut off; then that one is back."""
    sim.guest("box-one")
    await sim.seconds(10)
    named = [b for b in sim.boxes if b.member is not None and b.member.name == "box-one"]
    for box in named:
        box.set_cut(cut=True)
    await sim.seconds(12)
    sim.guest("box-one")
    await sim.seconds(choose((5, 15)))
    for box in named:
        box.set_cut(cut=False)
    await sim.seconds(15)


async def a_guest_goes(sim: PoolSimulation, choose: Choose) -> None:
    guests = [b for b in sim.boxes if b.pool == GUESTS]
    if guests:
        box, how = choose(guests), choose(("killed", "told"))
        sim.watch.say(f"a guest goes: {how} {box.member.id if box.member else ''}")
        if how == "killed":
            box.kill()
        else:
            if box.member is not None:
                sim.watch.excuse(box.member.id)
            box.terminate()


async def guests_come_and_go(sim: PoolSimulation, choose: Choose) -> None:
    for _ in range(choose((2, 4))):
        await a_guest_comes(sim, choose)
        await sim.seconds(choose((3, 20)))
        await a_guest_goes(sim, choose)


async def a_person_scales(sim: PoolSimulation, choose: Choose) -> None:
    sim.order(choose(ENGINES), choose((None, 0, 1, 3, 9)))


async def a_person_holds_the_cheapest(sim: PoolSimulation, choose: Choose) -> None:
    sim.order(RENDERS, choose((0, 0, 1)))
    await jobs_keep_coming(sim, 60, choose((2, 6)))
    sim.order(RENDERS, None)


async def a_person_changes_their_mind(sim: PoolSimulation, choose: Choose) -> None:
    """All are to go, and before they went all are wanted again."""
    sim.world.submit("web", 9)
    await sim.seconds(choose((18, 25)))
    sim.order(RENDERS, 0)
    sim.engines[RENDERS].faults.deaf = choose((False, True))
    await sim.seconds(choose((3, 5, 9)))
    sim.order(RENDERS, choose((None, 9)))
    sim.world.submit("web", 4)
    await sim.seconds(8)
    sim.engines[RENDERS].faults.deaf = False


async def a_person_changes_a_pool(sim: PoolSimulation, choose: Choose) -> None:
    sim.apply(sim.change(**{choose(ENGINES): choose(((0, 4), (1, 3), (2, 5), (0, 1)))}))


async def a_person_changes_the_command(sim: PoolSimulation, choose: Choose) -> None:
    sim.watch.excuse_all()
    sim.apply(sim.change(command=choose(("serve", "serve2"))))


async def a_reconciler_dies(sim: PoolSimulation, choose: Choose) -> None:
    process = choose(sim.processes)
    sim.watch.say(f"kill {process.name}")
    await process.kill()
    await sim.seconds(choose((0, 2, 12)))
    process.start()


async def a_reconciler_loses_redis(sim: PoolSimulation, choose: Choose) -> None:
    process = choose(sim.processes)
    process.line.cut = True
    await sim.seconds(choose((3, 12, 20)))
    process.line.cut = False


async def answers_are_late(sim: PoolSimulation, choose: Choose) -> None:
    for process in sim.processes:
        process.line.late_s = choose((0.01, 0.05, 0.2))


async def redis_is_away(sim: PoolSimulation, choose: Choose) -> None:
    sim.watch.excuse_all()
    sim.watch.say("redis is away")
    sim.world.redis_away = True
    await sim.seconds(choose((3, 15)))
    sim.world.redis_away = False
    sim.watch.excuse_all()


EVENTS: tuple[Event, ...] = (
    *(time_passes, long_time_passes, jobs_come, jobs_trickle),
    *(a_box_vanishes, a_box_is_cut_off, boxes_are_back, a_box_is_cut_off_for_long, a_box_has_notice),
    *(a_node_is_cut_off_and_its_box_started_twice, an_engine_is_ill, an_engine_forgets),
    *(an_engine_fails_half_way, the_cheapest_gets_no_boxes, engines_are_well),
    *(a_guest_comes, more_guests_come_than_have_room, a_name_goes_to_another_box, a_guest_goes, guests_come_and_go),
    *(
        a_person_scales,
        a_person_holds_the_cheapest,
        a_person_changes_their_mind,
        a_person_changes_a_pool,
        a_person_changes_the_command,
    ),
    *(a_reconciler_dies, a_reconciler_loses_redis, answers_are_late, redis_is_away),
)
