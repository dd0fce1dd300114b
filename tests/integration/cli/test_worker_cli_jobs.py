"""`emp submit`, `emp jobs`, `emp cancel` as a user types them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis.server import Server, eventually, free_port, running_server
from support.worker.cli import emp, write_settings
from support.worker.processes import Bench, bench


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("cli")
    with running_server("valkey", folder / "redis") as server, bench(folder, server) as made:
        write_settings(folder, server.url)
        _, port = made.simulation()
        made.worker(f"simulation=simulation@http://127.0.0.1:{port}")
        made.ready()
        yield made


def test_submit_and_wait(stage: Bench) -> None:
    done = emp(stage.folder, "submit", "simulation", "--payload", '{"prompt": "a cat", "steps": 3}', "--wait")
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout and "image/png" in done.stdout and "sha256" in done.stdout


def test_outputs_are_fetched_whole_and_nothing_is_replaced_unasked(stage: Bench) -> None:
    payload = '{"prompt": "a dog", "steps": 1}'
    done = emp(stage.folder, "submit", "simulation", "--payload", payload, "--wait", "--json", "--id", "dog")
    (output,) = json.loads(done.stdout)["result"]["outputs"]
    shown = emp(stage.folder, "jobs", "show", "dog").stdout
    kept = Path(next(word for word in shown.split() if word.startswith("/")))
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == output["sha256"] and output["sha256"] in shown
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "out/new")
    file = stage.folder / "out" / "new" / output["name"]
    assert (done.returncode, done.stdout.strip()) == (0, str(file)), done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() == output["sha256"]
    file.write_text("mine")
    done = emp(stage.folder, "jobs", "fetch", "dog", output["name"], "-o", "out/new")
    assert done.returncode == 1 and "--force replaces it" in done.stderr and file.read_text() == "mine"
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "out/new", "--force")
    assert done.returncode == 0 and file.read_bytes() == kept.read_bytes()
    kept.write_bytes(bytes(output["size"]))
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "out/other")
    assert done.returncode == 1 and "was changed in the artifact store" in done.stderr
    assert list((stage.folder / "out" / "other").iterdir()) == []
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "out/new", "--force")
    assert done.returncode == 1 and file.stat().st_size == output["size"] and file.read_bytes()[:4] == b"\x89PNG"
    kept.unlink()
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "out/other")
    assert done.returncode == 1 and " was deleted from file:///" in done.stderr
    (stage.folder / "plain").write_text("")
    kept.write_bytes(file.read_bytes())
    done = emp(stage.folder, "jobs", "fetch", "dog", "-o", "plain")
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_submit_reads_files_and_standard_input_and_prints_json(stage: Bench) -> None:
    (stage.folder / "payload.json").write_text('{"prompt": "from a file", "steps": 1}')
    argv = ("submit", "simulation", "--wait", "--json", "--payload")
    done = emp(stage.folder, *argv, f"@{stage.folder}/payload.json")
    job = json.loads(done.stdout)
    assert done.returncode == 0 and job["status"] == "completed" and job["payload"]["prompt"] == "from a file"
    done = emp(stage.folder, *argv, "-", stdin='{"steps": 1}')
    assert done.returncode == 0 and json.loads(done.stdout)["payload"] == {"steps": 1}


def test_a_job_that_fails_is_exit_1_with_the_services_words(stage: Bench) -> None:
    payload = '{"fail": "out of paint", "steps": 1}'
    done = emp(stage.folder, "submit", "simulation", "--payload", payload, "--wait")
    assert done.returncode == 1 and "out of paint" in done.stdout


def test_a_wait_that_is_over_is_exit_4_and_says_why(stage: Bench) -> None:
    done = emp(stage.folder, "submit", "video", "--wait", "--timeout", "0.3")
    assert done.returncode == 4
    assert "still pending" in done.stderr and "service 'video' is needed" in done.stderr


def test_list_show_and_cancel(stage: Bench) -> None:
    job_id = emp(stage.folder, "submit", "audio", "--id", "my-job", "--priority", "5").stdout.strip()
    assert job_id == "my-job"
    again = emp(stage.folder, "submit", "audio", "--id", "my-job")
    assert again.returncode == 0 and "was there already" in again.stderr
    listed = emp(stage.folder, "jobs", "--status", "pending")
    assert listed.returncode == 0 and "my-job" in listed.stdout and "audio" in listed.stdout
    as_json = json.loads(emp(stage.folder, "jobs", "--json", "--limit", "1").stdout)
    assert as_json["jobs"][0]["id"] == "my-job" and as_json["total"] >= 1 and as_json["counts"]["pending"] >= 1
    shown = emp(stage.folder, "jobs", "show", "my-job")
    assert "service 'audio' is needed" in shown.stdout and "job_submitted" in shown.stdout
    assert json.loads(emp(stage.folder, "jobs", "show", "my-job", "--json").stdout)["priority"] == 5
    done = emp(stage.folder, "cancel", "my-job")
    assert done.returncode == 0 and "is cancelled" in done.stdout
    done = emp(stage.folder, "cancel", "my-job")
    assert done.returncode == 1 and "had ended before: cancelled" in done.stderr


def test_cancel_a_running_job(stage: Bench) -> None:
    emp(stage.folder, "submit", "simulation", "--payload", '{"steps": 1000}', "--id", "running")
    eventually(lambda: (report := stage.report()) is not None and report.current_job_id == "running")
    done = emp(stage.folder, "cancel", "running")
    assert done.returncode == 0 and "told to stop" in done.stdout
    eventually(lambda: "job running: cancelled" in stage.daemons[-1].log)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("jobs", "fetch", "no-such-job"), 1, "no-such-job"),
        (("submit", "simulation", "--payload", "{"), 2, "emp: --payload: its value is not JSON"),
        (("submit", "simulation", "--payload", "@/no/such/file"), 2, "/no/such/file"),
        (("submit", "no service"), 2, "service:"),
        (("submit", "simulation", "--requirements", '{"nope": 1}'), 2, "nope"),
        (("jobs", "show", "nothing"), 1, "no job 'nothing'"),
        (("cancel", "nothing"), 1, "no job 'nothing'"),
    ],
)
def test_bad_input_is_explained(stage: Bench, argv: tuple[str, ...], code: int, words: str) -> None:
    done = emp(stage.folder, *argv)
    assert done.returncode == code and words in done.stderr


def test_no_fleet_and_no_redis(tmp_path: Path) -> None:
    done = emp(tmp_path, "jobs")
    assert done.returncode == 2 and "no fleet was applied" in done.stderr
    write_settings(tmp_path, f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    done = emp(tmp_path, "jobs")
    assert done.returncode == 3 and "does not answer" in done.stderr and "hunter2" not in done.stderr


def test_the_server_is_really_valkey(stage: Bench) -> None:
    assert isinstance(stage.server, Server)
    assert b"valkey" in (stage.folder / "redis" / "server.log").read_bytes().lower()
