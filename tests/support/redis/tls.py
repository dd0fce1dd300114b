"""A CA of a test's own, a certificate for 127.0.0.1, and what makes a Redis listen with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.redis.server import free_port

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def tls(folder: Path, *, ask_clients: bool = False) -> tuple[Path, int, list[str]]:
    """The CA's file, the port, the options."""
    folder.mkdir(parents=True)

    def openssl(*words: str) -> None:
        subprocess.run(("openssl", *words), check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=our own")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name, options in (("server", ("-extfile", "names")), ("client", ())):
        openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, *options)
    port = free_port()
    files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    paths = [word if word.startswith("--") else str(folder / word) for word in files]
    return (
        folder / "ca.pem",
        port,
        [
            *("--tls-port", str(port), "--tls-auth-clients", "yes" if ask_clients else "no"),
            *paths,
        ],
    )
