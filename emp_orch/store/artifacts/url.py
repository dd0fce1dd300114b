"""Where an artifact store is: its URL opened, and shown without secrets; and what can go wrong with a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.images import STORES, way_to_store
from emp_orch.jobs.document.outputs import Recorded, is_safe_id, location_of, url_holds_login

# How often s3fs begins anew what botocore has given up after some tries; its own five are minutes of silence.
S3_TRIES = 2


class BadArtifactsUrl(UsageError):
    """A URL that no store can be made of."""


class CannotStore(EmpError):
    """An output could not be saved or deleted. `retryable`: it may succeed later, or on another machine."""

    def __init__(self, message: str, *, retryable: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class CannotRead(Unreachable):
    """The store does not answer, or refuses."""


class NoSuchArtifact(EmpError):
    """The file is not there, is not what was recorded, or the record leads elsewhere."""


def local_url(folder: Path) -> str:
    """The URL of a folder on this host; not percent-encoded, since fsspec does not decode."""
    return f"file://{folder.absolute()}"


def local_path(url: str, job_id: str, output: Recorded) -> str | None:
    """Where an output of the store at `url` is on this host; None for a far store or a damaged record."""
    folder = url.partition("://")[2]
    if not is_local(url) or not is_safe_id(job_id) or location_of(output) is None:
        return None
    return f"{os.path.normpath(folder)}/{job_id}/{output.path}"


def without_login(url: str) -> str:
    """`url` fit for logs and errors."""
    head, separator, tail = url.partition("://")
    host, slash, path = tail.partition("/")
    return f"{head}{separator}***@{host.rpartition('@')[2]}{slash}{path}" if "@" in host else url


def is_local(url: str) -> bool:
    """Whether the store is a folder of this host."""
    return url.partition("://")[0] in ("file", "local")


def is_bucket(url: str) -> bool:
    """Whether the store is in a bucket: it has no folders, and to make one would make the bucket itself."""
    return any(url.partition("://")[0] in schemes for schemes in STORES)


def opened(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the folder in it; nothing is asked of it yet. Raises BadArtifactsUrl."""
    _, separator, rest = url.partition("://")
    if not separator or not rest:
        raise BadArtifactsUrl(
            f"{without_login(url)!r} is not the URL of an artifact store",
            hint="use file:///FOLDER, s3://BUCKET/FOLDER or another fsspec URL",
        )
    if url_holds_login(url):
        raise BadArtifactsUrl(
            f"{without_login(url)} holds a password",
            hint="put credentials into the environment, where the store's package looks for them",
        )
    return _local(rest) if is_local(url) else _far(url)


def _local(rest: str) -> tuple[Any, str]:
    from fsspec.implementations.local import LocalFileSystem

    if not rest.startswith("/"):
        raise BadArtifactsUrl(f"'file://{rest}' does not name a folder from the root on", hint="use file:///FOLDER")
    return LocalFileSystem(), os.path.normpath(rest)


def _far(url: str) -> tuple[Any, str]:
    import fsspec

    shown = without_login(url)
    try:
        fs, root = fsspec.url_to_fs(url, **_options(url, os.environ))
    except ImportError as e:
        hint = way_to_store(url.partition("://")[0]) or str(e)
        raise BadArtifactsUrl(f"{shown} needs a package that is not installed", hint=hint) from e
    except ValueError as e:
        raise BadArtifactsUrl(
            f"{shown} cannot be used as an artifact store: {e}",
            hint="use file:///FOLDER, s3://BUCKET/FOLDER or another fsspec URL",
        ) from e
    if _is_s3(url):
        fs.retries = S3_TRIES
    if any(c in root for c in "*?["):
        raise BadArtifactsUrl(f"{shown} holds a pattern character: * ? or [", hint="name a folder without them")
    return fs, root.rstrip("/")


def _options(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What the store's package is told. botocore's own way to try again takes half a minute to say that nobody is
    there: AWS's standard one, of three tries, takes seconds, and is taken where the environment names none.
    """
    if not _is_s3(url) or {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & environ.keys():
        return {}
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 3}}}


def _is_s3(url: str) -> bool:
    return url.partition("://")[0] in ("s3", "s3a")
