"""A real registry of images on loopback: Debian's `docker-registry`, in a folder and on a port of its own.

An engine takes 127.0.0.0/8 for insecure registries without being told, so no certificate is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.stack.stack import free_ports, until

USER, PASSWORD = "puller", "pull-me-2741"
# bcrypt, as `htpasswd -B` makes it of PASSWORD: the registry knows no other.
_HTPASSWD = "puller:$2y$04$Z9Bi.SUPZ.9p4g2RxTMCvu6uyC/lnPwSd4jTeh1ZYWxmIzWTUmKky\n"
START_S = 30.0


class Registry:
    """One registry; `login`: it asks for USER and PASSWORD. Use as a context manager. What it holds outlives a stop."""

    def __init__(self, folder: Path, *, login: bool = False) -> None:
        if shutil.which("docker-registry") is None:
            if os.environ.get("CI") == "true":
                pytest.fail("not installed: docker-registry (tests/system.sh installs it)")
            pytest.skip("not installed: docker-registry (tests/system.sh installs it)")
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{free_ports(1)}"
        self._log = folder / "registry.log"
        self._file = folder / "config.yml"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: emp-test, path: '{folder}/htpasswd'}}}}" if login else ""
        self._file.write_text(
            f"version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: '{folder}/images'}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.address}'}}\n{auth}\n"
        )

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self._log.open("ab") as log:
            argv = ["docker-registry", "serve", str(self._file)]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("an answer of the registry", self._answers, within_s=START_S, shown=lambda: self._log.read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5).close()
        except urllib.error.HTTPError as e:
            return e.code == 401  # it asks for a login
        except OSError:
            return False
        return True
