"""An engine behind ssh: HTTP over the input and output of `ssh HOST docker system dial-stdio`, as the docker command
reaches it.

The SDK has a way of its own, which needs paramiko, and which no timeout ends: a host that is cut off would hold a
thread for good. Here both ends are a socket, so that timeouts and closed connections are seen as everywhere else.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import tempfile
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

# Asks nobody anything; ends within half a minute of the host's silence, also while it only listens.
CONNECT_S = 10
_OPTIONS = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "ServerAliveInterval=10", "ServerAliveCountMax=2")
_DIAL = "docker system dial-stdio"
_END_S = 2.0
# Connections that are kept.
POOL = 10
_WORDS_BYTES = 4096


def dial_argv(url: str) -> list[str]:
    """The command that speaks with the engine of an `ssh://[user@]host[:port]`."""
    address = urlsplit(url)
    user = ["-l", unquote(address.username)] if address.username else []
    port = ["-p", str(address.port)] if address.port else []
    options = [word for option in _OPTIONS for word in ("-o", option)]
    return ["ssh", "-T", *options, *user, *port, "--", address.hostname or "", _DIAL]


class SshAdapter(HTTPAdapter):
    """For the SDK's client, in the place of its own. Each connection is an ssh of its own, and is kept."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._pool = _Pool(dial_argv(url))

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)

    def close(self) -> None:
        self._pool.close()
        super().close()


class _Pool(HTTPConnectionPool):
    def __init__(self, argv: list[str]) -> None:
        super().__init__("localhost", maxsize=POOL)
        self._argv = argv

    def _new_conn(self) -> Any:
        return _Connection(self._argv)


class _Connection(HTTPConnection):
    def __init__(self, argv: list[str]) -> None:
        super().__init__("localhost")
        self._argv = argv
        self._ssh: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the connection

    def connect(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # argv, no shell; away from the terminal, so that Ctrl-C is the caller's alone.
            self._ssh = subprocess.Popen(
                self._argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said, start_new_session=True
            )
        ours.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
        self.sock = ours

    def getresponse(self) -> Any:
        """As always; where ssh ended instead, with what that said."""
        failed: Exception
        if not self._answered and isinstance(self.timeout, int | float):
            self.timeout += CONNECT_S  # the first answer comes behind a dozen trips of ssh's own
        try:
            answer = super().getresponse()
            self._answered = True
            return answer
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as e:
            failed = e
        raise ConnectionError(self._last_words() or str(failed))

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            if self._ssh is not None:
                self._ssh.wait(_END_S)
        self._said.seek(0)
        lines = self._said.read(_WORDS_BYTES).decode(errors="replace").split("\n")
        return "; ".join(line.strip() for line in lines if line.strip())

    def close(self) -> None:
        super().close()
        if self._ssh is not None:
            self._ssh.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._ssh.wait(_END_S)
