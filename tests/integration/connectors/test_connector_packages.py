"""Connectors of other packages: the one in docs/connectors.md as its reader would install it, and broken ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from emp_orch.connectors import CannotLoad, ConnectorStatus
from emp_orch.connectors.registry import load
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.requirements import unmet
from emp_orch.options.base import WrongOption
from emp_orch.options.registry import check
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from support.redis.server import Server, eventually, job, until
from support.tree import ROOT
from support.worker.connector import serving
from support.worker.processes import KEYS, Bench

DOC = ROOT / "docs/connectors.md"
FAULTLESS = """
from emp_orch.connectors import ConnectorReport, ConnectorStatus, Progress, Result, RunFailed

class Fine:
    kind = "fine"

    def __init__(self, url, options):
        self.options = options

    async def probe(self):
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run):
        return Result(detail=self.options)

    async def cancel(self): ...
    async def close(self): ...
"""


def example(language: str) -> str:
    """The last block of that language in docs/connectors.md."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", DOC.read_text(), re.MULTILINE | re.DOTALL)
    return blocks[-1]


def package(folder: Path, name: str, source: str, entry: str, *, kind: str = "own") -> Path:
    """An installed package, as pip leaves one."""
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[emp.connectors]\n{kind} = {entry}\n")
    (folder / f"{entry.partition(':')[0]}.py").write_text(source)
    return folder


@pytest.fixture
def modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("module", "source", "attribute", "words"),
    [
        ("own_a", "import surely_not_there", "X", "cannot be imported: ModuleNotFoundError: No module named 'surely_"),
        ("own_b", "raise RuntimeError('no CUDA')", "X", "cannot be imported: RuntimeError: no CUDA"),
        ("own_c", "import sys\nsys.exit(3)", "X", "cannot be imported: SystemExit: 3"),
        ("own_d", "def broken(:", "X", "cannot be imported: SyntaxError"),
        ("own_e", "", "Missing", "cannot be imported: AttributeError"),
        ("own_f", "X = 3", "X", "is not callable: own_f:X"),
        ("own_g", "def X(url, options): return options['token']", "X", "cannot be made: KeyError: 'token'"),
        ("own_h", "def X(url): ...", "X", "cannot be made: TypeError"),
        ("own_i", "class X:\n    def __init__(self, url, options): ...", "X", "lacks probe, run, cancel, close"),
        ("own_j", "def X(url, options): return None", "X", "lacks probe, run, cancel, close"),
        ("own_k", FAULTLESS + "class X(Fine):\n    def run(self, run): ...", "X", "not `async def`: run"),
        ("own_l", FAULTLESS + "class X(Fine):\n    kind = None", "X", "lacks kind"),
    ],
)
def test_a_package_that_is_broken_is_named_with_the_reason(
    module: str, source: str, attribute: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, "emp-own", source, f"{module}:{attribute}"))
    with pytest.raises(CannotLoad, match=re.escape(words)) as caught:
        load("own", "http://127.0.0.1:1", {})
    assert "the connector 'own' of emp-own 1.0" in caught.value.message


def test_a_package_is_loaded_with_its_options_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "a", "emp-bad", "raise RuntimeError", "own_bad:X", kind="bad"))
    monkeypatch.syspath_prepend(package(tmp_path / "b", "emp-fine", FAULTLESS, "own_fine:Fine", kind="fine"))
    made: Any = load("fine", "http://127.0.0.1:1", {"a": 1})
    assert made.options == {"a": 1} and "own_bad" not in sys.modules


def test_its_own_words_about_options_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None) -> None:
    source = (
        "from emp_orch.connectors import CannotLoad\n"
        "def X(url, options): raise CannotLoad('style is missing', hint='oil or ink')"
    )
    monkeypatch.syspath_prepend(package(tmp_path, "emp-own", source, "own_words:X"))
    with pytest.raises(CannotLoad, match=r"^style is missing$") as caught:
        load("own", "http://127.0.0.1:1", {})
    assert caught.value.hint == "oil or ink"


@pytest.mark.parametrize("kind", ["own", "comfyui"])
def test_a_name_with_two_owners_is_nobodys(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None
) -> None:
    for name in ("emp-one", "emp-two") if kind == "own" else ("emp-one",):
        folder = package(tmp_path / name, name, FAULTLESS, f"own_{name[4:]}:Fine", kind=kind)
        monkeypatch.syspath_prepend(folder)
    with pytest.raises(CannotLoad, match="is claimed by") as caught:
        load(kind, "http://127.0.0.1:1", {})
    assert "emp-one 1.0" in caught.value.message
    assert ("emp-two 1.0" if kind == "own" else "by emp and") in caught.value.message


def test_a_package_that_is_damaged_on_disk_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, "emp-own", FAULTLESS, "own_damaged:Fine"))
    (tmp_path / "emp_own-1.0.dist-info/entry_points.txt").write_bytes(b"[emp.connectors]\nown = \xff\xfe\n")
    with pytest.raises(CannotLoad, match="cannot be read: UnicodeDecodeError"):
        load("own", "http://127.0.0.1:1", {})


def test_an_unknown_connector_says_which_there_are() -> None:
    with pytest.raises(CannotLoad, match="no connector 'comfyu' here") as caught:
        load("comfyu", "http://127.0.0.1:1")
    assert caught.value.hint == "did you mean 'comfyui'? there are: comfyui, http, simulation"
    with pytest.raises(CannotLoad, match="not the URL"):
        load("comfyui", "ftp://x")
    with pytest.raises(CannotLoad, match="speed is unknown: it takes no options"):
        load("simulation", "http://127.0.0.1:1", {"speed": 3})


# in a real worker


@pytest.fixture
async def queue(server: Server) -> AsyncIterator[Queue]:
    r: Client = client(server.url)
    yield Queue(r, KEYS)
    await r.aclose()


async def ended(queue: Queue, job_id: str) -> Job:
    async def look() -> Job | None:
        found = await queue.get(job_id)
        return found if found.status in ENDED else None

    found: Job = await until(look)
    return found


def path(*folders: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(f) for f in folders] + [os.environ.get("PYTHONPATH", "")])}


class CaptionService:
    """What the example in the docs talks to."""

    def __init__(self) -> None:
        self.app = web.Application()
        self.app.router.add_get("/health", self._health)
        self.app.router.add_post("/caption", self._caption)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _caption(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if not asked["image"]:
            return web.Response(status=422, text="which image?")
        return web.Response(text=f"{asked['language']}: a picture of {asked['image']}")


async def test_the_connector_of_the_docs_runs_real_jobs(stage: Bench, queue: Queue) -> None:
    source, project = stage.folder / "emp-caption", stage.folder / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(example("toml"))
    (source / "emp_caption.py").write_text(example("python"))
    assert len(example("python").splitlines()) <= 40, "the docs promise 40 lines"
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    done = subprocess.run([*pip, "--target", str(project), str(source)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert validated(stage.folder, project, "{language: de}") == ""
    assert 'connector_options.language: does not fit, found "fr"\n    expected one of en, de' in validated(
        stage.folder, project, "{language: fr}"
    )
    assert "connector_options.lang: is unknown\n    there are: language" in validated(
        stage.folder, project, "{lang: de}"
    )
    async with serving(CaptionService().app) as url:
        stage.worker(
            f"captions=caption@{url}",
            options=("--connector-options", 'captions={"language":"de"}', "--artifacts", f"file://{stage.folder}/out"),
            env=path(project),
        )
        sent = await queue.submit(job("captions", payload={"image": "a cat"}))
        found = await ended(queue, sent.job_id)
        assert found.status is JobStatus.COMPLETED and found.result is not None
        (output,) = found.result.outputs
        assert (output.name, output.content_type) == ("caption.txt", "text/plain")
        assert (stage.folder / "out" / found.id / output.path).read_text() == "de: a picture of a cat"
        refused = await ended(queue, (await queue.submit(job("captions", payload={}))).job_id)
        assert refused.status is JobStatus.FAILED
        assert refused.error is not None and refused.error.message == "which image?"


def validated(folder: Path, packages: Path, options: str) -> str:
    """What `emp validate` says of a service with these options; empty when nothing is wrong."""
    file = folder / "validated.yaml"
    file.write_text(
        "version: 1\nname: f\nservices:\n  captions: {scale: per_machine, command: x, port: 1, connector: caption,\n"
        f"    connector_options: {options}}}\nmachines: {{m: {{services: [captions]}}}}\n"
    )
    argv = (sys.executable, "-m", "emp_orch", "validate", str(file))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **path(packages)})
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        (
            "own_r",
            "def X(options):\n    if 'style' not in options: raise ValueError('style is missing')",
            "style is missing",
        ),
        (
            "own_s",
            "X = {'required': ['style'], 'properties': {'style': {'description': 'oil or ink'}}}",
            "style is missing",
        ),
        ("own_t", "def X(options): raise KeyError('oops')", ""),
        ("own_u", "import surely_not_there", ""),
        ("own_v", "X = {'type': 3}", ""),
        ("own_w", "X = 3", ""),
    ],
)
def test_what_a_package_says_of_its_options(
    module: str, source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: None
) -> None:
    """A broken one says nothing here: its worker does."""
    about = package(tmp_path, "emp-own", source, f"{module}:X") / "emp_own-1.0.dist-info" / "entry_points.txt"
    about.write_text(about.read_text().replace("[emp.connectors]", "[emp.connector_options]"))
    monkeypatch.syspath_prepend(str(tmp_path))
    if said:
        with pytest.raises(WrongOption, match=said):
            check("own", {})
    check("own", {"style": "oil"})


async def test_a_broken_package_is_an_error_and_its_service_not_advertised(stage: Bench, queue: Queue) -> None:
    _, port = stage.simulation()
    bad = package(stage.folder / "a", "emp-bad", "import surely_not_there", "own_bad:X", kind="bad")
    strict = package(stage.folder / "b", "emp-strict", "def X(url, options): return options['token']", "own_strict:X")
    stage.worker(
        *(f"simulation=simulation@http://127.0.0.1:{port}", "video=bad@http://127.0.0.1:1"),
        *("speech=own@http://127.0.0.1:1", "rest=http@http://127.0.0.1:1"),
        env=path(bad, strict),
        options=("--connector-options", 'rest={"pth":"/x"}'),
    )
    eventually(lambda: (report := stage.report()) is not None and report.status == "idle")
    report = stage.report()
    assert report is not None and report.capabilities["services"] == ["simulation"]
    statuses = report.connector_statuses
    assert statuses["simulation"].status is ConnectorStatus.IDLE
    for service, words in (
        ("video", "of emp-bad 1.0 cannot be imported: ModuleNotFoundError: No module named 'surely_not_there'"),
        ("speech", "of emp-strict 1.0 cannot be made: KeyError: 'token'"),
        ("rest", "connector_options of the http connector: pth is unknown; did you mean path?"),
    ):
        assert statuses[service].status is ConnectorStatus.ERROR and words in statuses[service].detail
        assert words in stage.daemons[-1].log
    sent = await queue.submit(job("video"))
    (why,) = unmet((await queue.get(sent.job_id)).requirements, report.capabilities)
    assert "service 'video' is needed" in why
    works = await queue.submit(job(payload={"steps": 1}))
    assert (await ended(queue, works.job_id)).status is JobStatus.COMPLETED


ODD = (
    FAULTLESS
    + """
class NoResult(Fine):
    async def run(self, run):
        return {"success": False}

class Raises(Fine):
    async def run(self, run):
        raise ValueError("oops")
    async def close(self):
        raise RuntimeError("cannot close")

class NotJson(Fine):
    async def run(self, run):
        return Result(detail={"at": object()})

class Deep(Fine):
    async def run(self, run):
        value = []
        for _ in range(5000):
            value = [value]
        return Result(detail={"at": value})

class Large(Fine):
    async def run(self, run):
        return Result(detail={"at": "x" * 2_000_000})

class Says(Fine):
    async def run(self, run):
        await run.progress(Progress(fraction=float("nan"), message="p" * 100_000 + chr(0xD800)))
        await run.began("r" * 100_000)
        raise RunFailed("no " + chr(0xD800), retryable=False, detail={"all": "x" * 2_000_000})

class Chatty(Fine):
    async def probe(self):
        return ConnectorReport(status=ConnectorStatus.IDLE, detail="d" * 1_000_000 + chr(0xD800), version=chr(0xDFFF))

class Odd(Fine):
    async def probe(self):
        return "fine"

def make(url, options):
    return {"none": NoResult, "raises": Raises, "odd": Odd, "object": NotJson, "deep": Deep,
            "large": Large, "chatty": Chatty, "says": Says}[options["how"]](url, options)
"""
)


ODD_WAYS = ("none", "raises", "object", "deep", "large", "says", "chatty", "odd")


async def test_a_faulty_connector_fails_its_job_and_not_the_worker(stage: Bench, queue: Queue) -> None:
    """Among them PRIOR-ART 3: an answer that is no success is never recorded as completed."""
    folder = package(stage.folder / "a", "emp-odd", ODD, "own_odd:make")
    worker = stage.worker(
        *(f"{how}=own@http://x" for how in ODD_WAYS),
        options=tuple(word for how in ODD_WAYS for word in ("--connector-options", f'{how}={{"how":"{how}"}}')),
        env=path(folder),
    )
    for service, words in (
        ("none", "the connector fine gave dict instead of a Result"),
        ("raises", "the connector fine broke: ValueError: oops"),
        ("object", "its result cannot be recorded: "),
        ("deep", "its result cannot be recorded: "),
        ("large", "its result has 2000020 bytes"),
        ("says", "no \\ud800"),
    ):
        found = await ended(queue, (await queue.submit(job(service))).job_id)
        assert found.status is JobStatus.FAILED and found.error is not None and words in found.error.message
        # Lists read every job's error, and the progress of each.
        assert len(msgspec.json.encode(msgspec.structs.replace(found, history=()))) < 50_000
    report = stage.report()
    assert report is not None
    chatty = report.connector_statuses["chatty"]
    assert len(chatty.detail) <= 1_000 and chatty.version == "\\udfff"
    odd = report.connector_statuses["odd"]
    assert odd.status is ConnectorStatus.ERROR and odd.detail == "its probe gave str instead of a ConnectorReport"
    assert worker.terminate() == 0
    assert "connector of raises failed to close" in worker.log and stage.report() is None
