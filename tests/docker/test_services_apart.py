"""What a service of a container reaches of what is emp's own, or another service's: nothing; and all that it needs."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.docker.engine import Engine
from support.docker.stack import EngineStack
from support.stack.stack import until

BOX = "box"
CANARY, MINE = "canary-of-another-service", "what-the-service-was-given"
# Carries out each script that is put down for it, as a node that somebody installed would.
DOES = """
import pathlib, subprocess, sys, time
asked = pathlib.Path("asked")
asked.mkdir(exist_ok=True)
while True:
    for script in asked.glob("*.py"):
        done = subprocess.run([sys.executable, script], capture_output=True, text=True)
        script.with_suffix(".part").write_text(f"{done.returncode} {done.stdout}{done.stderr}")
        script.with_suffix(".part").rename(script.with_suffix(".done"))
        script.unlink()
    time.sleep(0.05)
"""
OWN, HOME = "/var/lib/emp-own", "/var/lib/emp"
ASKED = f"{HOME}/machine/asked"
HEAD = f"""
import os, pathlib, socket, subprocess, sys
own = pathlib.Path("{OWN}/machine")
def pid(name):
    return pathlib.Path("/var/lib/emp-own/machine/run", name).read_text().split()[0]
def pids(word):  # without a look into what is hidden
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word in pathlib.Path("/proc", p, "cmdline").read_text().replace(chr(0), " "):
                yield p
        except OSError:
            pass
logs = os.environ.get("EMP_MACHINE_LOGS", "/none") + "/machine-{BOX}"
"""
_ASK_SUPERVISORD = """
s = socket.socket(socket.AF_UNIX)
s.connect(f"{own}/supervisor.sock")
call = "<methodCall><methodName>supervisor.getAllProcessInfo</methodName><params/></methodCall>"
head = ("POST /RPC2 HTTP/1.0", "Content-Type: text/xml", f"Content-Length: {len(call)}", "", call)
s.sendall("\\r\\n".join(head).encode())
assert b"200 OK" in s.recv(1000)
"""
# What one user can do to another's process or file of the same user, none of it with a trace.
ATTACKS = {
    "login": "print(open('/run/secrets/hub_redis_url').read())",
    "values of others": f"assert {CANARY!r} in open('/run/secrets/secrets.json').read()",
    "orders' key": "print(open('/run/secrets/orders.json').read())",
    "token at the API": "print(open('/run/secrets/api.json').read())",
    "secret by a link": "os.symlink('/run/secrets', '/tmp/s')\n"
    "d = open('/tmp/s/hub_redis_url').read(); os.remove('/tmp/s')",
    "secret by another's root": "open(f'/proc/{next(pids(\"machine-agent\"))}/root/run/secrets/api.json').close()",
    "configuration": "print((own / 'config.json').read_text())",
    "change of supervisord's": "open(own / 'supervisord.conf', 'a').close()",
    "another supervisord.conf": "c = own / 'supervisord.conf'; os.rename(c, own / 'x'); os.rename(own / 'x', c)",
    "a module of workers": "p = own / 'packages/current/emp_orch/x.py'; p.write_text(''); p.unlink()",
    "another package": "p = own / 'packages/f'; p.mkdir(); p.rmdir()",
    "truncation": "p = own / 'x'; p.touch(); os.truncate(p, 0); p.unlink()",
    "a trap for who writes logs": "l = f'{logs}/x.log'; os.symlink('/var/lib/emp-own/machine/x', l); os.remove(l)",
    "others' logs": "open(f'{logs}/agent.log').read()",
    "environment of the agent": "open(f'/proc/{next(pids(\"machine-agent\"))}/environ').read()",
    "environment of the worker": "open(f'/proc/{next(pids(\"emp_orch worker\"))}/environ').read()",
    "environment of another service": "open(f'/proc/{next(pids(\"sleep 100001\"))}/environ').read()",
    "environment of supervisord": "open(f'/proc/{next(pids(\"supervisor.supervisord\"))}/environ').read()",
    "memory of the worker": "open(f'/proc/{next(pids(\"emp_orch worker\"))}/mem', 'rb').close()",
    "a signal to the agent": "os.kill(int(next(pids('machine-agent'))), 0)",
    "supervisord's socket": _ASK_SUPERVISORD,
    "results of all jobs": "assert os.stat(os.environ['EMP_ARTIFACTS_URL'][7:])\n"
    "p = pathlib.Path(os.environ['EMP_ARTIFACTS_URL'][7:], 'x'); p.touch(); p.unlink()",
}
NEEDS = {
    "its own secret": f"assert os.environ['TOKEN'] == {MINE!r}",
    "where it is": f"assert os.getcwd() == '{HOME}/machine', os.getcwd()",
    "a new folder at home": "p = pathlib.Path.home() / '.cache-of-it'; p.mkdir(); p /= 'x'\n"
    "p.write_text('1'); print(p.read_text())",
    "its data": "p = pathlib.Path('data/it'); p.mkdir(parents=True); (p / 'x').write_text('1'); (p / 'x').read_text()",
    "a rename between folders": "pathlib.Path('r').write_text('1'); pathlib.Path('data/r').mkdir()\n"
    "os.rename('r', 'data/r/r'); os.link('data/r/r', pathlib.Path.home() / 'linked')\n"
    "os.rename('data/r', '/var/lib/emp/r')",
    "forks": "child = os.fork() or os._exit(7); assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7",
    "a signal to its own": "c = subprocess.Popen(['sleep', '100']); c.terminate(); assert c.wait() == -15",
    "what it compiles in /tmp": "p = pathlib.Path('/tmp/made'); p.write_bytes(open('/bin/true', 'rb').read())\n"
    "p.chmod(0o755); subprocess.run([p], check=True); open('/tmp/m.py', 'w').write('x = 1')\n"
    "import py_compile; py_compile.compile('/tmp/m.py', doraise=True)",
    "sockets": "s = socket.socket(socket.AF_UNIX); s.bind('/tmp/s.sock'); s.listen()\n"
    "c = socket.socket(socket.AF_UNIX); c.connect('/tmp/s.sock'); t = socket.create_server(('127.0.0.1', 0))\n"
    "socket.create_connection(t.getsockname())",
    "memory that is shared": "from multiprocessing import shared_memory as m\n"
    "s = m.SharedMemory(create=True, size=9); s.close(); s.unlink()",
    "devices and itself": "open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(1)\n"
    "open('/proc/self/environ').read(); open('/dev/stdout', 'w').write('x'); open('/proc/meminfo').read()",
    "emp": "import emp_orch",
    "a fifo": "os.mkfifo('f'); os.remove('f')",
}


class Apart(EngineStack):
    shell: Mapping[str, str] = {"VICTIM": CANARY, "NODE": MINE}

    def __init__(self, folder: Path, engine: Engine, image: str) -> None:
        super().__init__(folder, engine, name="apart")
        ports = self.ports
        self.file.write_text(
            f"""\
version: 1
name: apart
redis: {{port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
  victim:
    scale: per_machine
    command: [sh, -c, 'sleep 100001 & echo $! > /tmp/victim.pid; wait']
    env: {{TOKEN: {{env: VICTIM}}}}
    # A check runs what its service can change: it reaches no more than that.
    health: {{command: [sh, -c, '! cat /run/secrets/secrets.json && kill -0 $(cat /tmp/victim.pid)'], interval: 1s}}
  node:
    scale: per_machine
    install: {{command: [sh, -c, 'mkdir -p {ASKED} && ! cat /run/secrets/secrets.json'], creates: {ASKED}}}
    command: [python3, -c, {json.dumps(DOES)}]
    env: {{TOKEN: {{env: NODE}}}}
machines:
  {BOX}: {{runtime: compose, image: '{image}', num_gpus: 1, services: [simulation, victim, node]}}
"""
        )

    def container(self) -> str:
        return self.engine.docker("ps", "--quiet", "--filter", "label=emp.fleet=apart").strip()

    def by_person(self, script: str) -> tuple[int, str]:
        """The same user of the container, and no service: what `docker exec` begins."""
        argv = ["docker", "exec", self.container(), "python3", "-c", HEAD + script]
        done = subprocess.run(argv, env=self.engine.env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def by_node(self, script: str) -> tuple[int, str]:
        name = f"s{abs(hash(script))}"
        put = f"cat > {ASKED}/{name}.new && mv {ASKED}/{name}.new {ASKED}/{name}.py"
        argv = ["docker", "exec", "--interactive", self.container(), "sh", "-c", put]
        subprocess.run(argv, env=self.engine.env, input=HEAD + script, text=True, check=True)
        told = until("an answer", lambda: self._told(f"{ASKED}/{name}.done"), shown=self.log_ends)
        code, _, said = told.partition(" ")
        return int(code), said

    def _told(self, path: str) -> str:
        argv = ["docker", "exec", self.container(), "cat", path]
        return subprocess.run(argv, env=self.engine.env, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def apart(engine: Engine, machine_image: str) -> Iterator[Apart]:
    # Not in /tmp, which is a service's to write in, so that results of jobs in it could not be hidden.
    with tempfile.TemporaryDirectory(prefix="empap-", dir="/var/tmp") as folder:
        stack = Apart(Path(folder), engine, machine_image)
        try:
            stack.up()
            yield stack
        finally:
            stack.run("down", "--volumes")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_service_cannot(apart: Apart, attack: str) -> None:
    code, said = apart.by_person(ATTACKS[attack])
    assert code == 0, f"the attack itself is broken: {said}"
    code, said = apart.by_node(ATTACKS[attack])
    refused = ("Permission", "not permitted", "ConnectionReset", "AssertionError", "BrokenPipe")
    assert code != 0 and any(word in said for word in refused), said


@pytest.mark.parametrize("need", NEEDS)
def test_a_service_can(apart: Apart, need: str) -> None:
    code, said = apart.by_node(NEEDS[need])
    assert code == 0, said


def test_jobs_end_to_end_and_a_person_looks_around_as_before(apart: Apart) -> None:
    done = json.loads(apart.ok("submit", "simulation", "--wait", "--json"))
    assert done["status"] == "completed"
    apart.ok("jobs", "fetch", done["id"], "-o", str(apart.root / "out"))
    assert any((apart.root / "out").rglob("*.png"))
    assert "redis://" in apart.ok("exec", BOX, "--", "cat", "/run/secrets/hub_redis_url")
    doctor = apart.run("doctor")
    assert "services of 1 container are kept apart" in doctor.stdout, doctor.stdout
    assert doctor.returncode == 0


def test_it_is_apart_again_after_each_start(apart: Apart) -> None:
    """Both ways in which supervisord starts a program lead behind the fence, and so does a new container's."""
    for words in (("restart", BOX, "node"), ("restart", BOX)):
        apart.ok(*words)
        apart.until_in_sync(within_s=90)
        code, said = apart.by_node(f"{ATTACKS['login']}  # {words}")
        assert code != 0 and "Permission" in said
        code, said = apart.by_node(f"{NEEDS['its own secret']}  # {words}")
        assert code == 0, said
