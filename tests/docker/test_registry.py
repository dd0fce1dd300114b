"""Images from a real registry: pulled, moved, gone back to; refused where it has none, is away, or wants a login."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch.control.host import generation as generations
from support.docker.engine import Engine
from support.docker.registry import PASSWORD, USER, Registry
from support.docker.stack import EngineStack
from support.stack.stack import until

pytestmark = pytest.mark.timeout(600)
BOX = "box"
LAYER_MIB = 24


class Pulled(EngineStack):
    """One machine in a container of `engine`; `write` says from which image."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        super().__init__(folder, engine, name="pulled")

    def write(self, image: str) -> None:
        ports = self.ports
        self.file.write_text(f"""
version: 1
name: pulled
redis: {{port: {ports["redis"]}}}
api: {{port: {ports["api"]}}}
monitor: {{port: {ports["monitor"]}}}
services:
  simulation: {{scale: per_machine, builtin: simulation, port: 8299}}
machines:
  {BOX}: {{runtime: compose, image: '{image}', services: [simulation], num_gpus: 1}}
reconcile: {{interval: 1s}}
""")

    def on_terminal(self, *args: str) -> tuple[int, str]:
        """Exit code and all that `emp ARGS…` showed on a terminal, as a person sees it."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 160, 0, 0))
        env = {**os.environ, "DOCKER_HOST": self.engine.url}
        ran = subprocess.Popen(
            self.argv(*args), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=env
        )
        os.close(theirs)
        shown = b""
        try:
            while more := _read(ours):
                shown += more
        finally:
            os.close(ours)
        return ran.wait(180), shown.decode(errors="replace")

    @property
    def container(self) -> str:
        argv = ["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=emp.machine={BOX}"]
        return self.engine.docker(*argv, "--filter", "label=emp.fleet=pulled").strip()

    def runs(self) -> str:
        """The id of the image that the machine's container is made from."""
        return str(self.engine.inspect(self.container)["Image"])

    def recorded(self) -> tuple[str, str]:
        """Id and digest of the one image that the generation in force names."""
        kept = generations.kept(self.layout)
        assert kept is not None
        (there,) = kept.fleet.images
        return there.id, there.digest

    def generation(self) -> int:
        return int(json.loads(self.run("diff", "--json").stdout)["generation"])

    def kinds(self) -> set[str]:
        return {d["drift"]["kind"] for d in self.diff()[1]["drift"]}

    def refused(self, image: str, *words: str) -> None:
        """An apply of `image` ends with `words`, publishes nothing and touches nothing."""
        before, number = self.container, self.generation()
        self.write(image)
        said = self.run("apply", "-y", "--timeout", "120")
        assert said.returncode == 1, said.stdout + said.stderr
        assert f"cannot pull {image}: " in said.stderr, said.stderr
        for word in words:
            assert word in said.stderr, said.stderr
        assert self.generation() == number
        assert (self.container, self.engine.status(before)) == (before, "running")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


class Publisher:
    """Who builds images elsewhere and pushes them: on `engine` nothing of them stays."""

    def __init__(self, engine: Engine, base: str, folder: Path) -> None:
        self._engine, self._base, self._folder = engine, base, folder

    def push(self, image: str, mark: str, *, mib: int = 0) -> tuple[str, str]:
        """Another image under this name, with a layer of its own of `mib`: its id and digest."""
        docker = self._engine.docker
        made = docker("create", self._base).strip()
        if mib:
            (self._folder / "layer").write_bytes(os.urandom(mib << 20))
            docker("cp", str(self._folder / "layer"), f"{made}:/srv/layer")
        docker("commit", "--change", f"LABEL made={mark}", made, image)
        docker("rm", made)
        said = docker("push", image)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        assert found, said
        image_id = str(self._engine.inspect(image)["Id"])
        self.forget(image)
        return image_id, found[1]

    def forget(self, image: str) -> None:
        self._engine.docker("image", "rm", "--force", image)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(scope="module")
def publisher(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(engine, machine_image, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def fleet(engine: Engine, machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    stack = Pulled(tmp_path_factory.mktemp("pulled"), engine)
    try:
        stack.write(machine_image)
        stack.up()
        yield stack
    finally:
        stack.run("down")


def test_an_image_that_the_host_lacks_is_pulled_with_progress(
    fleet: Pulled, registry: Registry, publisher: Publisher, engine: Engine
) -> None:
    image = f"{registry.address}/team/farm:missing"
    image_id, digest = publisher.push(image, "missing", mib=LAYER_MIB)
    fleet.write(image)
    code, shown = fleet.on_terminal("apply", "-y", "--timeout", "120")
    assert code == 0, shown
    assert f"pulling {image} on Docker host local" in shown
    assert re.search(rf"pulling [0-9.]+ [KM]iB of {LAYER_MIB}[^\r\n]* MiB: {re.escape(image)}", shown), shown
    assert fleet.runs() == image_id
    assert fleet.recorded() == (image_id, f"{registry.address}/team/farm@{digest}")


def test_a_tag_that_moved_is_told_pulled_and_gone_back_from(
    fleet: Pulled, registry: Registry, publisher: Publisher, engine: Engine
) -> None:
    image = f"{registry.address}/team/farm:moves"
    first, _ = publisher.push(image, "1")
    fleet.write(image)
    fleet.ok("apply", "-y", "--timeout", "120")
    number = fleet.generation()
    engine.docker("tag", image, "emp-test-aside:1")  # who pushes from this host moves its names
    second, _ = publisher.push(image, "2")
    engine.docker("tag", "emp-test-aside:1", image)
    # What a registry has by that name now is asked for only by --pull.
    assert "nothing to do" in fleet.ok("apply", "-y")
    said = fleet.run("apply", "-y", "--pull", "--timeout", "120")
    assert said.returncode == 0, said.stderr
    assert f"image {image} is another" in said.stderr
    assert fleet.runs() == second
    # The very image of before, by the name that emp keeps.
    fleet.ok("rollback", str(number), "-y", "--timeout", "120")
    assert fleet.runs() == first
    assert "image-moved" in fleet.kinds()
    fleet.ok("apply", "-y", "--timeout", "120")
    assert fleet.runs() == second
    # Gone from the host: by its digest, though no tag of the registry means it any more.
    engine.docker("image", "rm", "--force", "emp-test-aside:1")
    engine.docker("image", "rm", "--force", first)
    assert engine.docker("image", "ls", "-q", "--no-trunc", "--filter", "label=made=1").split() == []
    said = fleet.run("rollback", str(number), "-y", "--timeout", "120")
    assert said.returncode == 0, said.stderr
    assert fleet.runs() == first


def test_a_pull_by_hand_is_drift(fleet: Pulled, registry: Registry, publisher: Publisher, engine: Engine) -> None:
    image = f"{registry.address}/team/farm:by-hand"
    first, _ = publisher.push(image, "by-hand-1")
    fleet.write(image)
    fleet.ok("apply", "-y", "--timeout", "120")
    second, _ = publisher.push(image, "by-hand-2")
    engine.docker("pull", image)
    until("it is told", lambda: "image-moved" in fleet.kinds())
    assert fleet.runs() == first
    fleet.ok("apply", "-y", "--timeout", "120")
    assert fleet.runs() == second


def test_what_the_registry_lacks_is_refused_with_its_words(fleet: Pulled, registry: Registry) -> None:
    fleet.refused(f"{registry.address}/team/farm:no-such", "manifest", "unknown")
    fleet.refused(f"{registry.address}/team/nothing:1", "manifest", "unknown")


def test_a_registry_that_is_away_is_refused_with_the_engines_words(
    fleet: Pulled, registry: Registry, publisher: Publisher
) -> None:
    image = f"{registry.address}/team/farm:away"
    image_id, _ = publisher.push(image, "away")
    registry.stop()
    try:
        fleet.refused(image, "connection refused")
    finally:
        registry.start()
    fleet.ok("apply", "-y", "--timeout", "120")
    assert fleet.runs() == image_id
    # What is on its host needs no registry: not when it starts anew, only when it is asked for.
    registry.stop()
    try:
        fleet.engine.docker("rm", "-f", fleet.container)
        until("it is made anew", lambda: fleet.container and not fleet.kinds())
        assert fleet.runs() == image_id
        number = fleet.generation()
        said = fleet.run("apply", "-y", "--pull")
        assert (said.returncode, "connection refused" in said.stderr) == (1, True), said.stderr
        assert fleet.generation() == number
    finally:
        registry.start()


def test_a_registry_that_asks_for_a_login(
    fleet: Pulled, publisher: Publisher, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused without one; pulled with what `docker login` wrote."""
    with Registry(tmp_path / "private", login=True) as private:
        image = f"{private.address}/team/secret:1"
        monkeypatch.setenv("DOCKER_CONFIG", _docker_config(tmp_path))
        engine.docker("login", "--username", USER, "--password", PASSWORD, private.address)
        image_id, _ = publisher.push(image, "private")
        engine.docker("logout", private.address)
        fleet.refused(image, "no basic auth credentials", "docker login")
        engine.docker("login", "--username", USER, "--password", PASSWORD, private.address)
        fleet.ok("apply", "-y", "--timeout", "120")
        assert fleet.runs() == image_id


def _docker_config(folder: Path) -> str:
    """A folder for `docker login` that is nobody's, with the plugins of the one in use."""
    before = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    made = folder / "docker"
    made.mkdir()
    if (before / "cli-plugins").is_dir():
        (made / "cli-plugins").symlink_to(before / "cli-plugins")
    return str(made)
