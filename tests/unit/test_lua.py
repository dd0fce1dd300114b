"""Lua out of .lua files: what a script is given, in which order; what is told of a file that does not hold together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from audit.lua import files, scripts
from emp_orch.store.queue.limits import limits
from emp_orch.store.queue.scripts import NAMES, all_texts
from emp_orch.store.redis import lua
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import STORE, BadScript, declaration, read, script
from emp_orch.store.reports.reports import FORGET, PUT

KEYS = Keys("p:")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lua, "STORE", tmp_path)
    monkeypatch.setattr(lua, "COMMON", tmp_path / "redis" / "lua")
    lua.read.cache_clear()
    lua._script.cache_clear()
    return tmp_path


def put(store: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = store / f"{name}.lua"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


BASE = """-- Common.

-- Sends.
local call = redis.call

-- The time.
-- include base: call
local function now()
  return call('TIME')
end
"""
WANTED = """-- What it does.
-- include base: now
-- limits: MOST
-- include things: a
-- key names: JOB, LEASES

return a()
"""


def test_all_comes_in_the_order_in_which_it_is_declared_and_once(store: Path) -> None:
    kept = "-- Of a.\n-- key names: JOBS, JOB\n-- include base: call\nlocal function a()\n  -- told\nend\n"
    put(store, {"redis/lua/base": BASE, "r/lua/shared/things": kept, "r/lua/one/it": WANTED})
    assert script("r/one/it", KEYS, {"MOST": 3}).splitlines() == [
        "",
        "local call = redis.call",
        "local function now()",
        "  return call('TIME')",
        "end",
        "local MOST = 3",
        'local JOBS = "p:jobs"',
        'local JOB = "p:job:"',
        "local function a()",
        "  -- told",
        "end",
        'local LEASES = "p:leases"',
        "return a()",
    ]


def test_a_part_stands_where_it_is_included_and_what_it_declares_before_all(store: Path) -> None:
    part = "-- A part.\n-- key names: JOBS\n\nlocal id = JOBS\n"
    put(store, {"r/lua/part": part, "r/lua/it": "-- It.\n\nlocal n = 1\n-- include part\n\nreturn id\n"})
    assert script("r/it", KEYS) == '\nlocal JOBS = "p:jobs"\nlocal n = 1\nlocal id = JOBS\n\nreturn id\n'


def test_what_a_branch_includes_stands_in_that_branch_alone(store: Path) -> None:
    branch = "-- It.\n\nif ARGV[1] then\n  -- include base: now\n  now()\nelse\n  -- include base: now\n  now()\nend\n"
    put(store, {"redis/lua/base": BASE, "r/lua/it": branch})
    text = script("r/it")
    assert text.startswith("\nif ARGV[1] then\nlocal call")
    assert text.count("local function now") == text.count("local call") == 2
    put(store, {"r/lua/had": branch.replace("-- It.", "-- It.\n-- include base: call")})
    assert script("r/had").count("local call") == 1, "what stands before the branch is not made again"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-- include nobody: a", r"r/lua/it\.lua: includes nobody, and there is no nobody\.lua"),
        ("-- include base: nothing", r"r/lua/it\.lua: includes nothing, which .*base\.lua does not have"),
        ("-- key names: NOTHING", r"r/lua/it\.lua: names the key NOTHING"),
        ("-- key names: PREFIXES, jobs: in", r"r/lua/it\.lua: declares no names"),
        ("-- limits: MOST", r"r/lua/it\.lua: names the limit MOST"),
        ("-- limits", r"r/lua/it\.lua: declares no names"),
        ("-- include round: a", r"round\.lua: a includes itself"),
    ],
)
def test_a_file_that_does_not_hold_together_is_named(store: Path, line: str, told: str) -> None:
    circle = "-- include round: b\nlocal function a() b() end\n\n-- include round: a\nlocal function b() a() end\n"
    put(store, {"redis/lua/base": BASE, "r/lua/round": circle, "r/lua/it": f"-- It.\n{line}\n\nreturn 1\n"})
    with pytest.raises(BadScript, match=told):
        script("r/it", KEYS)


def test_a_part_that_is_not_there_or_includes_itself_is_named(store: Path) -> None:
    put(store, {"r/lua/it": "-- It.\n\n-- include gone\n", "r/lua/again": "-- Again.\n\n-- include again\n"})
    with pytest.raises(BadScript, match=r"r/lua/it\.lua: includes gone"):
        script("r/it")
    with pytest.raises(BadScript, match=r"r/lua/again\.lua: it includes itself"):
        script("r/again")
    with pytest.raises(BadScript, match=r"r/lua/none\.lua: cannot be read"):
        script("r/none")


def test_what_machines_of_older_images_send_stays_byte_for_byte() -> None:
    """They send it by its digest. Whoever means to change it: store/acl/machine_scripts, FORMER."""
    digests = [hashlib.sha1(text.encode()).hexdigest() for text in (PUT, FORGET)]
    assert digests == ["f5c80b8570c79a5dede4a05afe5809e67c5b93d2", "3e49328b5cea51c38af201c9c190a36683565038"]


def test_every_script_of_the_queue_is_known_by_name() -> None:
    found = {name.removeprefix("queue/") for name in scripts() if name.startswith("queue/")}
    assert found - {"losses/look", "losses/tell"} == set(NAMES)
    assert all_texts(KEYS).keys() == set(NAMES)


def test_every_file_says_what_it_is_and_each_function_too() -> None:
    for path in files():
        lines = path.read_text().splitlines()
        assert lines[0].startswith("-- "), path
        assert declaration(lines[0], path) is None, path
        for n, line in enumerate(lines):
            if re.match(r"local function", line) and path.stem in INCLUDED:
                assert lines[n - 1].startswith("--"), f"{path}:{n + 1}"


@pytest.mark.parametrize("name", sorted(scripts()))
def test_a_script_says_what_it_takes_and_answers(name: str) -> None:
    room, _, below = name.partition("/")
    head = (STORE / room / "lua" / f"{below}.lua").read_text().split("\n\n", 1)[0]
    assert re.search(r"\b(ARGV|KEYS)\b", head), name
    assert re.search(r"^-- Answer: |answer: as of", head, re.MULTILINE), name


# Names of the files that others include.
INCLUDED = {one.source for p in files() for line in p.read_text().splitlines() if (one := declaration(line, p))}


def test_what_is_declared_is_used_and_what_is_used_declared() -> None:
    """luacheck says so too, where it is installed."""
    given = {*limits(), "MOVING_MS", "FUTURE_MS", "MAX_LEASE_MS"}
    shared = {name for path in files() if path.stem in INCLUDED for name in read(path).functions}
    for name, text in scripts().items():
        code = re.sub(r"--.*|'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", "''", text)
        local = re.findall(r"^local (?:function )?(\w+)", code, re.MULTILINE)
        for word in {w for w in local if w.isupper() or w in shared}:
            assert len(re.findall(rf"\b{word}\b", code)) > 1, f"{name}: {word} is declared and not used"
        for word in set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", code)) - {"KEYS", "ARGV"}:
            assert word in local or re.search(rf"local {word}\b", code), f"{name}: {word} is not declared"
            assert word in given or word == "ENDED_IN" or hasattr(KEYS, word.lower()), word
