"""Schemathesis asks the API of a real stack all that /openapi.json says, and what it does not say: no 5xx, no answer
that the document does not know, and a fleet that works afterwards.

`EMP_FUZZ_API`: how many examples of each operation, beside the boundaries of all that it takes (`make fuzz-api`).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from schemathesis.config import GenerationConfig, PhasesConfig, ProjectConfig, ProjectsConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi import checks

from emp_orch.api.routes import ROUTES
from emp_orch.api.views.openapi import document
from emp_orch.api.views.route import Kind, Opens
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from support.stack.stack import MACHINE, Stack

EXAMPLES = int(os.environ.get("EMP_FUZZ_API", "10"))
SEED = int(os.environ.get("EMP_FUZZ_SEED", "0"))
FLEET, BOX, POOL = "fuzzed", "box", "fuzzpool"
TOKEN = "sesame-of-who-works-here"
ENV = {"NUM_GPUS": "1", "EMP_TOKEN": TOKEN}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DONE, FAILED, WAITING = "fuzz-done", "fuzz-failed", "fuzz-waiting"
# Longer waits are for tests that have something to wait for.
WAIT_MOST_S = 1
TIMEOUT_S = 30

ROUTE = {f"{r.method} {r.path}": r for r in ROUTES}
PROGRAMS = ("simulation", "comfyui-gpu0", "redis-worker-gpu0", "agent")
# What is there, by the names in the paths; first of one name in one path, then of the name anywhere, then of the name
# behind that beginning. `fleet` adds what only a fleet that stands has.
THERE: dict[str, list[str]] = {
    "/api/jobs/{id}/artifacts/{name} id": [DONE],
    "/api/jobs/{id}/retry id": [FAILED],
    "/api/machines/{id}/join id": [BOX],
    **{f"/api/pools/{{name}}{what} name": [POOL] for what in ("", "/join", "/leave", "/scale")},
    "program": [*PROGRAMS],
    "component": ["api", "reconcile"],
    "/api/jobs/": [DONE, FAILED, WAITING],
    "/api/machines/": [MACHINE, BOX],
}
NOT_HELD = (
    # What is taken may hang together as no schema says: `before` or `after`, a program with its machine.
    checks.positive_data_acceptance,
    # A path with a name in it may match as well: GET /api/jobs/purge is the job of that id.
    checks.allow_header_conformance,
)
NOT_HELD_OF = {
    # Guessed tokens are counted there, so that 429 may be the answer to one (test_guessed_tokens).
    **{label: (checks.ignored_auth,) for label, route in ROUTE.items() if route.opens is Opens.JOIN},
    # In a form a number is the file that holds its digits.
    "POST /api/assets": (checks.negative_data_rejection,),
}
# Only for a run that a worker of the box holds, or a machine that has gone; and an upgrade has a test of its own.
NEVER_DONE = {
    "DELETE /api/machines/{id}",
    # Only for a member's own token (integration/api/test_pool_joins).
    "POST /api/pools/{name}/leave",
    *(label for label, route in ROUTE.items() if "/{run}/" in label or route.kind is Kind.WEBSOCKET),
}

met: set[str] = set()
tried: Counter[str] = Counter()
answered: Counter[tuple[str, int]] = Counter()


def _schema(examples: int) -> schemathesis.BaseSchema:
    generation = GenerationConfig(
        max_examples=examples, deterministic=SEED == 0, with_security_parameters=False, no_shrink=examples > 100
    )
    project = ProjectConfig(
        generation=generation, request_timeout=TIMEOUT_S, max_stream_events=1, phases=PhasesConfig()
    )
    config = schemathesis.Config(projects=ProjectsConfig(default=project), seed=SEED)
    return schemathesis.openapi.from_dict(document(ROUTES, token=True), config=config)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("fuzzed"), name=FLEET)
    text = made.file.read_text()
    (api,) = [line for line in text.splitlines() if line.startswith("api:")]
    text = text.replace(api, api.replace("{", "{token: {env: EMP_TOKEN}, ", 1), 1)
    box = f"{BOX}: {{runtime: external, num_gpus: 0, services: [simulation]}}"
    pool = f"{POOL}: {{size: 0..100, num_gpus: 0, services: [simulation]}}"
    made.file.write_text(text.replace("machines:\n", f"pools:\n  {pool}\nmachines:\n  {box}\n"))
    try:
        made.up(True, **ENV)
        _work(made)
        yield made
    finally:
        made.run("down")
        left = made.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


def _work(fleet: Stack) -> None:
    """Have jobs, outputs, an asset and a package there."""
    for job, payload, wants in (
        (DONE, "{}", ("--wait",)),
        (FAILED, '{"fail": "on purpose"}', ("--wait", "--retries", "0")),
        (WAITING, "{}", ("--requirements", '{"hardware": {"gpu_memory_gb": 9999}}')),
    ):
        said = fleet.run("submit", "simulation", "--id", job, "--payload", payload, *wants, **ENV)
        assert said.returncode == (job == FAILED), said.stdout + said.stderr
    done = requests.get(f"{fleet.api}/api/jobs/{DONE}", headers=BEARER, timeout=TIMEOUT_S).json()["data"]
    files = {"file": ("a.png", b"a picture")}
    kept = requests.post(f"{fleet.api}/api/assets", headers=BEARER, files=files, timeout=TIMEOUT_S).json()["assets"]
    drift = requests.get(f"{fleet.api}/api/drift", headers=BEARER, timeout=TIMEOUT_S).json()["data"]["drift"]
    for field in ("kind", "machine_id", "subject"):
        THERE[field] = [drift[0][field]]  # the box that is yet to join
    THERE["name"] = [output["name"] for output in done["outputs"]]
    THERE["digest"] = [kept[0]["asset"], *(p.stem for p in fleet.layout.package("0" * 64).parent.glob("*.tar"))]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def _fits(case: schemathesis.Case[Any], where: ParameterLocation) -> bool:
    """Whether what is sent there is as the document has it."""
    return case.meta is not None and not case.meta.is_negative_at(where)


def _of_what_is_there(case: schemathesis.Case[Any]) -> None:
    """Most names in a path are of what is there, and those of an operation's first case; which, the case says, so that
    it is the same when it is repeated.
    """
    names = case.path_parameters
    if not names or not _fits(case, ParameterLocation.PATH):
        return
    # Restarts are carried out one after the other: a long run orders no more of them than a short one.
    share = min(0.9, 10 / EXAMPLES) if case.path.endswith("/restart") else 0.9
    chosen = random.Random(f"{sorted(names.items())} {case.query} {case.body!s}")
    first = case.operation.label not in met
    met.add(case.operation.label)
    for name in names:
        places = (f"{case.path} {name}", name, case.path.partition("{")[0])
        known = next((THERE[place] for place in places if place in THERE), None)
        if known and (first or chosen.random() < share):
            names[name] = chosen.choice(known)


def _of_the_service(case: schemathesis.Case[Any]) -> None:
    """Half of the jobs that fit the document are for a service that there is."""
    if case.operation.label == "POST /api/jobs" and _fits(case, ParameterLocation.BODY):
        body: Any = case.body
        for job in body if isinstance(body, list) else [body]:
            if len(job["service"]) % 2:
                job["service"] = "simulation"


def _of_old_jobs(case: schemathesis.Case[Any]) -> None:
    """Those that the other operations are asked about stay."""
    if case.operation.label.endswith("/purge") and _fits(case, ParameterLocation.BODY):
        body: Any = case.body
        for field, least in (("keep", 1_000), ("older_than_s", 3_600)):
            if isinstance(wanted := body.get(field), int | float) and 0 <= wanted < least:
                body[field] = least


def _in_a_hurry(case: schemathesis.Case[Any]) -> None:
    if isinstance(case.query, dict) and "wait" in case.operation.query:
        wait = case.query.setdefault("wait", 0)
        if str(wait).isdecimal() and int(wait) > WAIT_MOST_S:
            case.query["wait"] = WAIT_MOST_S


@_schema(EXAMPLES).parametrize()
def test_each_operation_answers_as_the_document_says(
    case: schemathesis.Case[Any], fleet: Stack, session: requests.Session
) -> None:
    label, headers = case.operation.label, BEARER
    if ROUTE[label].opens in (Opens.MACHINE, Opens.JOIN):
        tokens = JoinTokens(fleet.layout)
        token = tokens.issue(FLEET, BOX, expires_s=None)
        if "/pools/" in label:
            token = tokens.pool_token(FLEET, POOL, expires_s=None)
        headers = {"Authorization": f"Bearer {token}"}
    _of_what_is_there(case)
    _of_the_service(case)
    _of_old_jobs(case)
    _in_a_hurry(case)
    answer = case.call(base_url=fleet.api, session=session, headers=headers)
    tried[label] += 1
    answered[label, answer.status_code] += 1
    case.validate_response(
        answer,
        headers=headers,
        transport_kwargs={"session": session, "base_url": fleet.api, "headers": headers},
        excluded_checks=[*NOT_HELD, *NOT_HELD_OF.get(label, ())],
    )


@_schema(min(EXAMPLES, 3)).parametrize()
def test_without_a_token_nobody_learns_a_thing(
    case: schemathesis.Case[Any], fleet: Stack, session: requests.Session
) -> None:
    opens = ROUTE[case.operation.label].opens
    answer = case.call(base_url=fleet.api, session=session)
    case.validate_response(answer, excluded_checks=[*NOT_HELD, checks.negative_data_rejection])
    if opens is not Opens.ANYBODY:
        assert answer.status_code in ((400, 401, 403, 429) if opens is Opens.JOIN else (401,)), answer.status_code


@pytest.mark.parametrize("path", [r.path for r in ROUTES if r.kind is Kind.WEBSOCKET and r.opens is Opens.TOKEN])
async def test_an_upgrade_is_answered_by_101(fleet: Stack, path: str) -> None:
    url = fleet.api + path.replace("{id}", "fuzz")
    async with aiohttp.ClientSession(headers=BEARER) as http:
        async with http.ws_connect(url) as ws:
            assert not ws.closed
        async with http.get(url, headers={"Upgrade": "websocket", "Connection": "Upgrade"}) as answer:
            assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")


def test_all_of_them_were_tried(request: pytest.FixtureRequest) -> None:
    """All that this run has chosen; a run of the file chooses all of the document."""
    name = test_each_operation_answers_as_the_document_says.__name__
    chosen = {i.name[len(name) + 1 : -1] for i in request.session.items if i.name.startswith(f"{name}[")}
    assert chosen <= set(ROUTE)
    print(json.dumps({label: {s: n for (of, s), n in answered.items() if of == label} for label in tried}, indent=1))
    assert set(tried) == chosen
    done = {label for label, status in answered if status < 400}
    assert done == chosen - NEVER_DONE


def test_the_fleet_works_on(fleet: Stack, session: requests.Session) -> None:
    """Whatever was paused, drained, restarted and forgotten: orders are lifted, and a job runs."""
    assert "Traceback" not in fleet.layout.log("api").read_text()
    scopes = [{}, {"machine_id": MACHINE}, *({"machine_id": MACHINE, "program": p} for p in PROGRAMS)]
    for scope in scopes:
        told = session.post(f"{fleet.api}/api/reconcile/resume", json=scope, headers=BEARER, timeout=TIMEOUT_S)
        assert told.status_code in (200, 404), told.text
    said = fleet.run("submit", "simulation", "--payload", "{}", "--wait", "--timeout", "90s", **ENV)
    assert said.returncode == 0, f"{said.stdout}{said.stderr}{fleet.log_ends()}"
