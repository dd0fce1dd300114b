"""A real S3 server that is not ours, in a process of its own: moto's, from a virtual environment apart.

It keeps everything in memory. Once `guard` was called, it holds every request against the keys that it gave out.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import get_session

from support.host.debian import alone, cache
from support.stack.stack import free_ports, until
from support.tree import TESTS

LOCK = TESTS / "s3-server.lock"
REGION = "us-east-1"
START_S = 60.0
_ALLOW = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": [%s]}]}'
_ALL = _ALLOW % '"*"'
_OBJECTS = _ALLOW % '"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"'


def server_command() -> Path:
    """moto's server, installed once for a state of the lock; skips the test where that cannot be, in CI it fails."""
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache() / f"s3-server-{key}"
    with alone("s3-server"):
        if not (folder / "whole").exists():
            venv.create(folder, with_pip=True, clear=True)
            argv = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(LOCK)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
            if done.returncode != 0:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no S3 server: {done.stderr[-500:]}")
            (folder / "whole").touch()
    return folder / "bin" / "moto_server"


class S3Server:
    """Use as a context manager. `env` is what whoever opens a store there needs in the environment."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            "AWS_ACCESS_KEY_ID": "first",
            "AWS_SECRET_ACCESS_KEY": "first-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
        }
        self._admin = {name: self.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        self._log = folder / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3Server:
        argv = [str(server_command()), "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(
            "an answer of the S3 server", self._answers, within_s=START_S, shown=lambda: self._log.read_text()[-2000:]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """With all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
        except OSError:
            return False
        return True

    def guard(self) -> None:
        """From now on only users of ours get in. `env` is one's who may read and write objects, and make no bucket."""
        admin, env = self._user("admin", _ALL), self._user("emp", _OBJECTS)
        self._admin = admin
        self.env |= env
        asked = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=b"0", method="POST")
        asked.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(asked, timeout=5).close()

    def _user(self, name: str, policy: str) -> dict[str, str]:
        iam = self._client("iam")
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.put_user_policy(UserName=name, PolicyName="its", PolicyDocument=policy)
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def make_bucket(self, name: str) -> None:
        self._client("s3").create_bucket(Bucket=name)

    def remove_bucket(self, name: str) -> None:
        """With all that is in it."""
        s3 = self._client("s3")
        for key in self.keys(name):
            s3.delete_object(Bucket=name, Key=key)
        s3.delete_bucket(Bucket=name)

    def buckets(self) -> list[str]:
        return sorted(b["Name"] for b in self._client("s3").list_buckets()["Buckets"])

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        found = self._client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(o["Key"] for page in found for o in page.get("Contents", ()))

    def _client(self, service: str) -> Any:
        return get_session().create_client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=self._admin["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self._admin["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}, retries={"max_attempts": 1}),
        )
