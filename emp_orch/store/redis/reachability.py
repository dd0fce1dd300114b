"""Why no connection to a Redis stands, where the way there is the cause: TLS, a certificate, a socket, the URL."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from redis import exceptions as rexc

from emp_orch.host.ports import StrangersPort
from emp_orch.store.redis.refusals import Refusal
from emp_orch.urls import sentinel_url

DOC = "docs/redis.md, The URL"
# The files that a rediss:// URL may name.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def on_the_way(url: str, e: BaseException) -> Refusal | None:
    """What lies between us and the Redis at `url`; None when nothing but that nobody answers is known."""
    asked = sentinel_url(url)
    parts = urlsplit(asked.server if asked else url)
    cause = _cause(e)
    if isinstance(cause, StrangersPort):
        return Refusal(
            says=f"is not the fleet's: {cause}",
            hint=f"see who with `ss -ltnp 'sport = :{parts.port}'` as root; when it is free, Redis comes back",
        )
    if parts.scheme == "unix":
        return _of_socket(unquote(parts.path), cause)
    if parts.scheme == "rediss":
        return _of_tls(parts.hostname or "", parse_qs(parts.query), cause, str(e))
    if _closed(cause, str(e)):
        return Refusal(
            says=f"closed the connection: {e}",
            hint=f"if it takes only TLS there, write rediss:// ({DOC}); else see its log",
        )
    return None


def _cause(e: BaseException) -> BaseException:
    """What the operating system or OpenSSL said, below redis-py's own errors."""
    found: BaseException = e
    for _ in range(5):
        below = found.__cause__ or found.__context__
        if below is None:
            break
        found = below
        if isinstance(found, OSError) and not isinstance(found, rexc.RedisError):
            break
    return found


def _closed(cause: BaseException, said: str) -> bool:
    """With TLS 1.3 that is all that a client hears, when the server did not like what it showed."""
    return isinstance(cause, ConnectionResetError) or "Connection closed by server" in said


def _of_socket(path: str, cause: BaseException) -> Refusal | None:
    match cause:
        case FileNotFoundError():
            return Refusal(
                says=f"has no socket at {path}",
                hint="is it running on this host, with `unixsocket` in its configuration?",
            )
        case PermissionError():
            return Refusal(
                says=f"has a socket that this user may not use: {path}",
                hint="add the user to its group, and set unixsocketperm 770 there",
            )
        case _:
            return None


def _of_tls(host: str, options: dict[str, list[str]], cause: BaseException, said: str) -> Refusal | None:
    files = [(name, options[name][0]) for name in _FILES if name in options]
    for name, path in files:
        if not os.access(path, os.R_OK):
            why = "is not there" if not Path(path).exists() else "cannot be read by this user"
            return Refusal(
                says=f"cannot be asked over TLS: {path} ({name}) {why}",
                hint="the file must be there on every host that uses this URL; write its whole path",
            )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _of_certificate(host, dict(files).get("ssl_ca_certs", ""), cause)
    text = str(cause)
    if isinstance(cause, TimeoutError) or "WRONG_VERSION_NUMBER" in text or "Timeout connecting" in said:
        return Refusal(
            says="does not speak TLS there, or nobody answers",
            hint="write redis:// for a port without TLS, or its TLS port",
        )
    asks = "certificate required" in text.lower().replace("_", " ")
    if asks or ("ssl_certfile" not in options and _closed(cause, said)):
        return Refusal(
            says="closed the connection: it wants a certificate of its clients, most likely",
            hint=f"add &ssl_certfile=/…/client.pem&ssl_keyfile=/…/client.key ({DOC}); else see its log",
        )
    if isinstance(cause, ssl.SSLError) and files:
        return Refusal(
            says=f"cannot be asked over TLS: {cause.reason or cause}",
            hint=f"{', '.join(path for _, path in files)}: PEM files of a certificate, its key, and the CA ({DOC})",
        )
    return None


def _of_certificate(host: str, ca: str, cause: ssl.SSLCertVerificationError) -> Refusal:
    why = cause.verify_message
    if "mismatch" in why:
        return Refusal(
            says=f"shows a certificate that is not for {host}",
            hint="use the name that stands in it, or add ?ssl_check_hostname=false",
        )
    if "expired" in why or "not yet valid" in why:
        return Refusal(says=f"shows a bad certificate: {why}", hint="renew it there; look at this host's clock, too")
    if ca:
        return Refusal(
            says=f"shows a certificate that the CA in {ca} did not sign", hint="name the file of the CA that signed it"
        )
    return Refusal(
        says=f"shows a certificate of a CA that this host does not know: {why}",
        hint=f"name it with ?ssl_ca_certs=/…/ca.pem ({DOC})",
    )
