"""`make audit` as far as it needs no net: every check passes here, and each finds what it is there for."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from audit import advisories, dockerfiles, licences, policy, sbom, vendored
from audit.advisories import Advisory, NotAsked
from audit.lock import DEVELOPERS, ROOT, RUNTIME, Locked, read_lock

TODAY = date(2026, 1, 15)
KNOWN = policy.load()


def locked(name: str = "click", version: str = "", marker: str = "") -> Locked:
    return Locked(
        name=name, version=version or metadata.version(name), marker=marker, digests=("0" * 64,), needed_by=()
    )


# --- licences


def test_every_locked_package_has_a_licence_that_is_allowed() -> None:
    assert licences.faults(read_lock(RUNTIME), KNOWN) == []
    assert licences.faults_vendored(vendored.vendored(vendored.PAGE), KNOWN) == []


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        *(("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True), ("MIT AND GPL-3.0-only", False)),
        *(("(MIT OR GPL-3.0-only) AND ISC", True), ("Apache-2.0 WITH LLVM-exception", False), ("", False)),
        *(("No-Such-Licence", False), ("MIT AND", False), ("LicenseRef-Ours", False)),
    ],
)
def test_an_expression_is_met_or_not(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression, {"MIT", "ISC", "Apache-2.0"}) is allowed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "GPL")], "MIT OR Apache-2.0"),
        ([("License", "anything"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        (
            [
                ("Classifier", "License :: OSI Approved"),
                ("Classifier", "License :: OSI Approved :: MIT License"),
                ("Classifier", "License :: OSI Approved :: Apache Software License"),
            ],
            "Apache-2.0 AND MIT",
        ),
        (
            [("Classifier", "License :: OSI Approved :: MIT License"), ("Classifier", "License :: Free For Home Use")],
            "",
        ),
        ([("License", "Apache-2.0")], "Apache-2.0"),
        ([("License", "see the file")], ""),
        ([], ""),
    ],
)
def test_what_metadata_says(fields: list[tuple[str, str]], said: str) -> None:
    about = Message()
    for name, value in fields:
        about[name] = value
    assert licences.said_by(metadata._adapters.Message(about)) == said  # type: ignore[attr-defined]


def test_what_is_unknown_or_not_allowed_is_a_fault() -> None:
    mit = replace(KNOWN, allowed=frozenset({"ISC"}), read={})
    assert licences.faults([locked()], mit) == [
        f"click {metadata.version('click')}: BSD-3-Clause is not among the licences that policy.toml allows"
    ]
    (fault,) = licences.faults([locked(version="0.0.1")], replace(KNOWN, read={}))
    assert "is installed as" in fault
    (fault,) = licences.faults([locked("no-such-thing", "1")], replace(KNOWN, read={}))
    assert "is not installed" in fault
    (fault,) = licences.faults([locked("no-such-thing", "1", "sys_platform == 'win32'")], replace(KNOWN, read={}))
    assert "read its licence" in fault


def test_what_was_read_holds_for_that_version_and_for_what_is_locked() -> None:
    read = {"supervisor": policy.Read(version="1.0", licence="MIT", reason="x")}
    (fault,) = licences.faults([locked("supervisor")], replace(KNOWN, read=read))
    assert "policy.toml has the licence of 1.0" in fault
    (fault,) = licences.faults([], replace(KNOWN, read=read))
    assert fault == "supervisor: policy.toml has its licence, and no lock has it"


# --- what the page and its tests bring


@pytest.mark.parametrize("folder", [vendored.PAGE, vendored.TESTS, vendored.DOCS])
def test_vendored_files_are_as_the_manifest_has_them(folder: Path) -> None:
    assert vendored.faults(folder) == []


def test_a_changed_a_missing_and_an_unnamed_file_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "vendor"
    shutil.copytree(vendored.PAGE, folder)
    (folder / "htm.module.js").write_text("changed")
    (folder / "preact.module.js").unlink()
    (folder / "uplot.LICENSE").unlink()
    (folder / "more.js").write_text("")
    said = " | ".join(vendored.faults(folder))
    assert "more.js: not in vendored.json" in said and "htm.module.js: SHA-256 is" in said
    assert "preact.module.js: is missing" in said and "uplot.LICENSE: is missing" in said
    (folder / "vendored.json").write_text('{"a.js": {}}')
    assert "KeyError" in vendored.faults(folder)[0]


# --- Dockerfiles


def test_our_dockerfiles_are_well() -> None:
    files = dockerfiles.dockerfiles()
    assert len(files) == 2
    assert dockerfiles.faults(files) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM python:3.12-slim\nUSER 1\n", ""),
        ("ARG BASE\nFROM ${BASE}\n", ""),  # emp's own machine image, which has its user
        ("ARG BASE=python:3.12\nFROM ${BASE} AS a\nFROM a\nUSER app\n", ""),
        (f"FROM python@sha256:{'a' * 64}\nUSER 1\n", ""),
        ("FROM python:3.12-slim\n", "root runs at the end"),
        ("FROM python:3.12-slim\nUSER 1\nFROM python:3.12-slim\n", "root runs at the end"),
        ("FROM python:3.12-slim\nUSER 1\nUSER root:root\n", "root runs at the end"),
        ("FROM python:3.12-slim\nUSER 0:0\n", "root runs at the end"),
        ("FROM python:latest\nUSER 1\n", "FROM python:latest: name a version"),
        ("FROM python\nUSER 1\n", "FROM python: name a version"),
        ("FROM python:slim\nUSER 1\n", "name a version"),
        ("FROM example.com:5000/python\nUSER 1\n", "name a version"),
        ("ARG BASE=python:latest\nFROM --platform=linux/amd64 $BASE\nUSER 1\n", "FROM python:latest"),
        ("ARG BASE\nFROM ${BASE}\nUSER root\n", "root runs at the end"),
        ("FROM a:1\nRUN apt-get update \\\n # why\n && curl -s https://x.example | bash\nUSER 1\n", "run unseen"),
        ("FROM a:1\nADD https://x.example/y /y\nUSER 1\n", "without a checksum"),
        ("FROM a:1\nARG NPM_TOKEN\nUSER 1\n", "ARG NPM_TOKEN: a secret"),
        ("FROM a:1\nENV A=1 DB_PASSWORD=x\nUSER 1\n", "ENV DB_PASSWORD: a secret"),
        ("FROM a:1\nENV API_KEY x\nUSER 1\n", "ENV API_KEY: a secret"),
    ],
)
def test_our_own_rules(text: str, said: str) -> None:
    found = dockerfiles.of_text(text, "Dockerfile")
    assert (len(found) == 1 and said in found[0]) if said else found == [], found


def test_hadolint_looks_too_and_no_remark_silences_it(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian:12\n# hadolint ignore=DL3004\nRUN sudo true\nUSER 1\n")
    (fault,) = dockerfiles.faults([path])
    assert fault.startswith(f"{path}:3: DL3004 ")


# --- the bill of materials


def test_the_bill_is_what_cyclonedx_takes_for_one() -> None:
    text = sbom.bill()
    check = JsonStrictValidator(SchemaVersion.V1_6)
    assert check.validate_str(text) is None
    assert check.validate_str(text.replace('"library"', '"libary"', 1)) is not None
    assert sbom.bill() == text, "the same files give the same bytes"


def test_the_bill_holds_all_that_is_locked_and_all_that_the_page_brings() -> None:
    said = json.loads(sbom.bill())
    by_name = {one["name"]: one for one in said["components"]}
    pins = read_lock(RUNTIME)
    for pin in pins:
        one = by_name[pin.name]
        assert (one["version"], one["purl"]) == (pin.version, f"pkg:pypi/{pin.name}@{pin.version}")
        assert [h["content"] for h in one["externalReferences"][0]["hashes"]] == list(pin.digests)
    files = vendored.vendored(vendored.PAGE)
    assert set(by_name) == {pin.name for pin in pins} | {file.package for file in files}
    held = {h["content"] for one in said["components"] for f in one.get("components", ()) for h in f["hashes"]}
    assert held == {file.sha256 for file in files}
    assert by_name["aiohttp"]["scope"] == by_name["multidict"]["scope"] == "required"
    assert by_name["hatchling"]["scope"] == by_name["trove-classifiers"]["scope"] == "excluded"
    needs = {one["ref"]: one["dependsOn"] for one in said["dependencies"]}
    assert by_name["aiohttp"]["purl"] in needs[said["metadata"]["component"]["purl"]]
    assert by_name["multidict"]["purl"] in needs[by_name["aiohttp"]["purl"]]


def test_the_lock_is_read_whole() -> None:
    for lock in (RUNTIME, DEVELOPERS):
        pins, text = read_lock(lock), lock.read_text()
        assert len(pins) == sum("==" in line and not line.startswith(" ") for line in text.splitlines())
        assert sum(len(pin.digests) for pin in pins) == text.count("--hash=sha256:")
        assert all(pin.needed_by for pin in pins)


@pytest.mark.parametrize("line", ["click>=8", "click==8.0", "-r other.lock", "click==8.0 \\\n    --hash=md5:00"])
def test_a_line_of_a_lock_that_says_something_else_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"x\.lock"):
        read_lock(path)


# --- known faults, asked by pip-audit of a service on this machine

A_LOCK = f"click==8.1.0 \\\n    --hash=sha256:{'0' * 64}\nattrs==24.1.0 \\\n    --hash=sha256:{'1' * 64}\n"
BAD = Advisory(package="click", version="8.1.0", ids=("CVE-2026-0001", "GHSA-aaaa-bbbb-cccc"), mended_in=("8.1.7",))


@contextmanager
def service(answers: dict[str, dict[str, Any]], *, status: int = 200) -> Iterator[str]:
    """What speaks OSV's protocol: `answers` by package. Yields its URL."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps(answers.get(asked["package"]["name"], {})).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def vulnerable() -> dict[str, dict[str, Any]]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "8.1.7"}]}]
    affected = [{"package": {"name": "click", "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"click": {"vulns": [{"id": BAD.ids[1], "aliases": [BAD.ids[0]], "affected": affected}]}}


@pytest.fixture
def a_lock(tmp_path: Path) -> Path:
    path = tmp_path / "a.lock"
    path.write_text(A_LOCK)
    return path


def test_a_known_fault_is_found(a_lock: Path) -> None:
    with service(vulnerable()) as url:
        assert advisories.ask(a_lock, osv=url) == [BAD]
    with service({}) as url:
        assert advisories.ask(a_lock, osv=url) == []


def test_a_service_that_does_not_answer_is_no_service_that_knows_of_nothing(a_lock: Path) -> None:
    with service({}, status=503) as url, pytest.raises(NotAsked, match=r"a\.lock"):
        advisories.ask(a_lock, osv=url)
    with pytest.raises(NotAsked):
        advisories.ask(a_lock, osv=url)
    # As pip-audit tells it, with exit 0, of an index that has the packages and no advisories.
    skipped = {"name": "click", "skip_reason": "Dependency not found on PyPI and could not be audited: click (8.1.0)"}
    with pytest.raises(NotAsked, match="knows nothing of 1 of 2 packages: click"):
        advisories.understood({"dependencies": [skipped, {"name": "a", "version": "1", "vulns": []}]}, "x")
    with pytest.raises(NotAsked):
        advisories.understood({"dependencies": []}, "x")


@pytest.mark.parametrize("name", BAD.ids)
def test_a_fault_may_pass_for_a_while_with_a_reason(name: str) -> None:
    def faults(until: date) -> list[str]:
        one = policy.Ignored(id=name, reason="emp calls it with nothing of a user's", until=until)
        return advisories.faults([BAD, BAD], replace(KNOWN, ignored=(one,)), today=TODAY)

    bare = "click 8.1.0: CVE-2026-0001 GHSA-aaaa-bbbb-cccc: mended in 8.1.7"
    assert advisories.faults([BAD, BAD], replace(KNOWN, ignored=()), today=TODAY) == [bare]
    assert faults(TODAY) == []
    over = TODAY - timedelta(days=1)
    assert faults(over) == [f"{bare}; policy.toml let it pass until {over}"]


def test_what_passes_for_nothing_is_to_be_taken_out() -> None:
    one = policy.Ignored(id="GHSA-x", reason="gone", until=TODAY)
    (fault,) = advisories.faults([], replace(KNOWN, ignored=(one,)), today=TODAY)
    assert fault == "policy.toml lets GHSA-x pass, which nothing has any more: take it out"


def test_a_fault_that_passes_has_a_reason_and_a_day(tmp_path: Path) -> None:
    text = policy.POLICY.read_text()
    for line, error in (
        ('id = "a"\nreason = " "\nuntil = 2026-01-01', ValueError),
        ('id = "a"\nreason = "b"', TypeError),
    ):
        path = tmp_path / "policy.toml"
        path.write_text(f"{text}\n[[ignored]]\n{line}\n")
        with pytest.raises(error):
            policy.load(path)


# --- the command


def audit(osv: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "audit", "--osv", osv]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def test_the_command_says_what_it_found_by_its_status() -> None:
    with service({}) as url:
        done = audit(url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "known faults: nothing found" in done.stdout
    done = audit(url)  # which nobody answers at any more
    assert done.returncode == 3, done.stdout
    assert "known faults: not asked: requirements.lock" in done.stdout
    with service(vulnerable()) as url:
        done = audit(url)
    assert done.returncode == 1 and "  click " in done.stdout, done.stdout
