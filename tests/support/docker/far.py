"""A Docker Engine in a network namespace of its own: a host elsewhere, reached over TLS, that can be cut off."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

from support.docker.engine import Engine
from support.host.debian import run, tools

PORT = 2376
# One network of two addresses for each: this host's end, and that of the engine.
LINKS = ipaddress.IPv4Network("10.214.0.0/16")

_PLUG = (("INPUT", "-i", "eth0"), ("OUTPUT", "-o", "eth0"), ("FORWARD", "-i", "eth0"), ("FORWARD", "-o", "eth0"))


class FarEngine(Engine):
    """An engine at `address`, which sees this host at `here`."""

    def __init__(self) -> None:
        super().__init__()
        number = int(self.bridge.removeprefix("empdk"))
        link = LINKS.network_address + 4 * number
        self.here, self.address = str(link + 1), str(link + 2)
        self.name = f"empns{number}"
        self._end = f"empve{number}"
        self.inside = ("nsenter", f"--net=/run/netns/{self.name}")  # `ip netns exec` would hide the cgroups
        self.certs = self.folder / "tls"
        self._is_cut = False

    @property
    def url(self) -> str:
        return f"tcp://{self.address}:{PORT}"

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certs)}

    def cut(self) -> None:
        """As if somebody pulled the plug of its network: no packet comes or goes, and nobody says so."""
        self._is_cut = True
        for rule in _PLUG:
            run(*self.inside, "iptables", "--wait", "-I", *rule, "-j", "DROP")

    def mend(self) -> None:
        for rule in _PLUG if self._is_cut else ():
            run(*self.inside, "iptables", "--wait", "-D", *rule, "-j", "DROP")
        self._is_cut = False

    def _make_network(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._end, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{self.here}/30", "dev", self._end)
        run("ip", "link", "set", self._end, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{self.address}/30", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", self.here],
        ):
            run(*self.inside, "ip", *words)
        super()._make_network()
        self._make_certs()

    def _drop_network(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True, env=tools())
        subprocess.run(["ip", "link", "delete", self._end], check=False, capture_output=True, env=tools())

    def _listening(self) -> list[str]:
        files = [f"--tlscacert={self.certs}/ca.pem", f"--tlscert={self.certs}/server.pem"]
        return ["--host", self.url, "--tlsverify", *files, f"--tlskey={self.certs}/server-key.pem"]

    def _make_certs(self) -> None:
        """A CA, and what it signed for the engine and for who may command it."""
        self.certs.mkdir(mode=0o700)
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-days", "2", "-subj", "/CN=emp-test"]
        run(*make, "-keyout", _in(self.certs, "ca-key.pem"), "-out", _in(self.certs, "ca.pem"))
        signed = ["-CA", _in(self.certs, "ca.pem"), "-CAkey", _in(self.certs, "ca-key.pem")]
        for name, prefix, usage in (("server", "server-", "serverAuth"), ("client", "", "clientAuth")):
            cert = "server.pem" if name == "server" else "cert.pem"
            more = ["-addext", f"subjectAltName=IP:{self.address}", "-addext", f"extendedKeyUsage={usage}"]
            more += ["-addext", "basicConstraints=critical,CA:FALSE"]
            files = ["-keyout", _in(self.certs, f"{prefix}key.pem"), "-out", _in(self.certs, cert)]
            run(*make, *signed, *more, *files)


def _in(folder: Path, name: str) -> str:
    return str(folder / name)
