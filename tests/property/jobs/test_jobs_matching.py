"""Matching against an oracle of its own making, over small worlds in which most things nearly match."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.matching.requirements import Requirements, canonical, lane_of, unmet
from emp_orch.jobs.matching.workable import DesiredWorker, Possible, Unworkable, Workable, judge, judge_all
from emp_orch.jobs.outcome.retry import Cause, Requeue, decide

NAMES = ("a", "b", "c")
MINIMUMS = ("gpu_memory_gb", "gpu_count", "cpu_cores", "ram_gb")
KEYS = ("k", "l", "models", "region")

names = st.sampled_from(NAMES)
name_lists = st.lists(names, max_size=3)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from((0.0, 0.5, 1.0)), names)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(names, scalars, max_size=2))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
gpu_models = st.sampled_from(("A100", "a100", "L4", "RTX 4090"))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def asked(draw: st.DrawFn) -> dict[str, Any]:
    """A job's requirements as a user writes them."""
    made = draw(
        some(
            hardware=some(
                **{name: st.integers(0, 3) for name in MINIMUMS},
                gpu_model=st.one_of(gpu_models, st.lists(gpu_models, min_size=1, max_size=2)),
            ),
            models=name_lists,
            customer=names,
            workflow=names,
            positive=st.dictionaries(st.sampled_from(KEYS), values, max_size=2),
            negative=st.dictionaries(st.sampled_from(KEYS), values, max_size=2),
        )
    )
    if "customer" in made and draw(st.booleans()):
        made["isolation"] = "strict"
    return made


capabilities = some(
    services=st.sampled_from((["s"], ["t", "s"], ["s", "t"], ["t"], [])),
    hardware=some(**{name: st.integers(0, 3) for name in MINIMUMS}, gpu_model=gpu_models),
    models=name_lists,
    customers=some(isolation=st.sampled_from(("loose", "strict")), allow=name_lists, deny=name_lists),
    workflows=name_lists,
    k=values,
    l=values,
    region=values,
)


def requirements_of(source: dict[str, Any]) -> Requirements:
    return parse_submission({"service": "s", "requirements": source}).requirements


# The oracle: the rules of docs/jobs.md once more, from the user's own words and not from parsed values.


def equal(one: Any, other: Any) -> bool:
    def typed(value: Any) -> Any:
        match value:
            case bool():
                return ("bool", value)
            case int() | float():
                return ("number", float(value))
            case list():
                return ("list", [typed(v) for v in value])
            case dict():
                return ("dict", sorted((k, typed(v)) for k, v in value.items()))
            case _:
                return ("other", value)

    return bool(typed(one) == typed(other))


def among(item: Any, found: Any) -> bool:
    return any(equal(item, f) for f in (found if isinstance(found, list) else [found]))


def has(wanted: Any, found: Any, quantifier: Any) -> bool:
    if isinstance(wanted, list):
        return bool(quantifier(among(item, found) for item in wanted))
    if isinstance(found, list):
        return among(wanted, found)
    if type(wanted) in (int, float):
        return type(found) in (int, float) and found >= wanted
    return equal(wanted, found)


def takes_customer(job: dict[str, Any], worker: dict[str, Any]) -> bool:
    theirs = worker.get("customers", {})
    allow, deny, customer = theirs.get("allow", []), theirs.get("deny", []), job.get("customer")
    if customer in deny:
        return False
    if job.get("isolation") == "strict" or theirs.get("isolation") == "strict" or allow:
        return customer in allow
    return True


def oracle(job: dict[str, Any], worker: dict[str, Any]) -> bool:
    hardware, own = job.get("hardware", {}), worker.get("hardware", {})
    models = hardware.get("gpu_model", [])
    models = [models] if isinstance(models, str) else models
    checks = [
        "s" in worker.get("services", []),
        all(name in own and own[name] >= hardware[name] for name in MINIMUMS if name in hardware),
        not models or own.get("gpu_model", "").lower() in [m.lower() for m in models],
        not job.get("models") or set(job["models"]) <= set(worker.get("models", [])),
        takes_customer(job, worker),
        "workflows" not in worker or job.get("workflow") in worker["workflows"],
        all(k in worker and has(v, worker[k], all) for k, v in job.get("positive", {}).items()),
        not any(k in worker and has(v, worker[k], any) for k, v in job.get("negative", {}).items()),
    ]
    return all(checks)


@settings(max_examples=1_000)
@given(job=asked(), worker=capabilities)
def test_nothing_is_unmet_exactly_when_the_rules_hold(job: dict[str, Any], worker: dict[str, Any]) -> None:
    assert (unmet(requirements_of(job), worker) == ()) == oracle(job, worker)


@settings(max_examples=1_000)
@given(wanted=values, found=values)
def test_a_wanted_value_holds_or_is_ruled_out_by_the_rules(wanted: Any, found: Any) -> None:
    worker = {"services": ["s"], "k": found}
    assert (unmet(requirements_of({"positive": {"k": wanted}}), worker) == ()) == has(wanted, found, all)
    assert (unmet(requirements_of({"negative": {"k": wanted}}), worker) == ()) == (not has(wanted, found, any))


@settings(max_examples=300)
@given(job=asked(), worker=capabilities)
def test_every_requirement_fails_alone_and_by_its_name(job: dict[str, Any], worker: dict[str, Any]) -> None:
    """Each part of the requirements, asked alone, gives the reasons that it gives among the others."""
    whole = unmet(requirements_of(job), worker)
    parts: list[dict[str, Any]] = []
    for field, value in job.items():
        if field in ("hardware", "positive", "negative"):
            parts += [{field: {name: inner}} for name, inner in value.items()]
        elif field != "isolation":
            parts.append({field: value})
    alone: list[str] = []
    open_to_all = {k: v for k, v in worker.items() if k not in ("customers", "workflows")} | {"services": ["s"]}
    for part in parts:
        ((field, value),) = part.items()
        of_part = {**open_to_all}
        if field == "customer":
            part = {k: v for k, v in job.items() if k in ("customer", "isolation")}
            of_part |= {k: v for k, v in worker.items() if k == "customers"}
        elif field == "workflow":
            of_part |= {k: v for k, v in worker.items() if k == "workflows"}
        reasons = unmet(requirements_of(part), of_part)
        name = f"{field}.{next(iter(value))}" if field == "hardware" else field
        name = next(iter(value)) if field in ("positive", "negative") else name
        assert all(r.startswith((f"{name}:", f"{name} ")) for r in reasons)
        alone += reasons
    for field, subject in (("customer", "customers"), ("workflow", "workflows")):
        if field not in job and subject in worker:
            alone += unmet(requirements_of({}), {"services": ["s"], subject: worker[subject]})
    if "s" not in worker.get("services", []):
        alone += unmet(requirements_of({}), {"services": worker.get("services", [])})
    assert sorted(whole) == sorted(alone)


@settings(max_examples=300)
@given(
    job=asked(),
    worker=st.dictionaries(
        st.sampled_from(("services", "hardware", "models", "customers", "workflows", *KEYS)), anything, max_size=6
    ),
)
def test_no_capability_makes_it_raise(job: dict[str, Any], worker: dict[str, Any]) -> None:
    for reason in unmet(requirements_of(job), worker):
        assert 0 < len(reason) < 600


def shuffled(value: Any, rng: random.Random, *, is_set: bool) -> Any:
    """The same thing asked in another order: keys everywhere, and lists where they are sets."""
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {k: shuffled(v, rng, is_set=is_set) for k, v in items}
    if isinstance(value, list) and is_set:
        items = [shuffled(v, rng, is_set=False) for v in value] + value[:1]
        rng.shuffle(items)
        return items
    return value


@settings(max_examples=300)
@given(job=asked(), worker=capabilities, rng=st.randoms(use_true_random=False))
def test_the_order_of_keys_and_sets_makes_no_difference(
    job: dict[str, Any], worker: dict[str, Any], rng: random.Random
) -> None:
    other = shuffled(job, rng, is_set=True)
    one, two = requirements_of(job), requirements_of(other)
    assert canonical(one) == canonical(two)
    assert lane_of(one) == lane_of(two)
    assert (unmet(one, worker) == ()) == (unmet(two, worker) == ())


@settings(max_examples=300)
@given(job=asked(), worker=capabilities)
def test_a_lanes_text_asks_what_its_jobs_ask(job: dict[str, Any], worker: dict[str, Any]) -> None:
    one = requirements_of(job)
    text = canonical(one)
    two = msgspec.json.decode(text, type=Requirements)
    assert canonical(two) == text
    assert (unmet(one, worker) == ()) == (unmet(two, worker) == ())


fleets = st.lists(st.tuples(capabilities, st.none() | capabilities), max_size=5)


@settings(max_examples=200)
@given(jobs=st.lists(asked(), min_size=1, max_size=3), fleet=fleets)
def test_the_verdict_of_many_lanes_is_that_of_each_worker(
    jobs: list[dict[str, Any]], fleet: list[tuple[dict[str, Any], dict[str, Any] | None]]
) -> None:
    workers = [DesiredWorker(worker_id=f"w{i}", known=k, reported=r) for i, (k, r) in enumerate(fleet)]
    lanes = {str(i): requirements_of(job) for i, job in enumerate(jobs)}
    verdicts = judge_all(lanes, workers)
    for lane, requirements in lanes.items():
        able = tuple(w.worker_id for w in workers if w.reported is not None and not unmet(requirements, w.reported))
        possible = tuple(
            w.worker_id for w in workers if w.reported is None and not unmet(requirements, w.known, open_hardware=True)
        )
        verdict = verdicts[lane]
        assert verdict == judge(requirements, workers)
        if able:
            assert verdict == Workable(able=able)
        elif possible:
            assert verdict == Possible(ids=possible)
        else:
            assert isinstance(verdict, Unworkable) and 0 < len(verdict.reason) <= 1_000


@given(causes=st.lists(st.sampled_from(list(Cause)), min_size=1, max_size=30), max_retries=st.integers(0, 5))
def test_a_job_that_never_completes_runs_one_time_more_than_its_retries(causes: list[Cause], max_retries: int) -> None:
    attempts, handed_back = 0, 0
    for cause in causes:
        attempts += 1  # counted when the run begins
        step = decide(cause=cause, retryable=True, attempts=attempts, max_retries=max_retries, cancelled=False)
        if not isinstance(step, Requeue):
            assert attempts == max_retries + 1
            return
        if not step.counts:
            attempts -= 1
            handed_back += 1
    assert attempts <= max_retries
    assert attempts + handed_back == len(causes)
