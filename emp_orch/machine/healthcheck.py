"""`python -I -m emp_orch.machine.healthcheck`: a container's health check; asks the agent on loopback.

Exit 0 while the agent answers and the machine has no error, also while it starts; else 1, with the reason. With
`--alive` an error is none, as long as the agent answers: emp mends it, and who restarts the box ends its jobs. It runs
every few seconds, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TIMEOUT_S = 4.0
LIMIT = 65536


def ask(port: int) -> dict[str, object]:
    """The answer of the agent's /ready. Raises OSError or ValueError."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as peer:
        peer.settimeout(TIMEOUT_S)
        peer.sendall(b"GET /ready HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        said = b""
        while len(said) < LIMIT and (chunk := peer.recv(LIMIT)):
            said += chunk
    answer = json.loads(said.partition(b"\r\n\r\n")[2])
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    return answer


def verdict(folder: str, *, alive: bool = False) -> tuple[int, str]:
    """Exit code and reason for the machine in `folder`; `alive`: whatever its agent answers."""
    try:
        with open(os.path.join(folder, "health"), encoding="ascii") as file:
            port = int(file.read(6))
    except (OSError, ValueError):
        return 1, f"no agent has started yet in {folder}"
    try:
        answer = ask(port)
    except (OSError, ValueError, OverflowError) as e:
        return 1, f"the agent does not answer on port {port}: {e}"
    status, error = answer.get("status", "?"), answer.get("error")
    return (0 if alive else 1, f"{status}: {error}") if error else (0, str(status))


def main() -> None:
    code, why = verdict(os.environ.get("EMP_MACHINE_FOLDER", "."), alive="--alive" in sys.argv[1:])
    print(why)  # noqa: T201  # docker keeps it beside the verdict
    sys.exit(code)


if __name__ == "__main__":
    main()
