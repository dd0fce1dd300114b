"""A service that does what a file says: `steered.py PORT FILE`. Run by itself, as a machine's program.

well: answers 200 on its port. sick: answers 500, and goes on so until it is another process. deaf: does not listen.
crash: ends at once. crash-later: ends once it counts as started.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TURN_S = 0.02
LATER_S = 1.2


class Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def main(port: int, steer: Path) -> None:
    began = time.monotonic()
    server: HTTPServer | None = None
    while True:
        word = steer.read_text().strip()
        if word == "crash" or (word == "crash-later" and time.monotonic() - began > LATER_S):
            raise SystemExit(1)
        if word == "sick":
            Answers.status = 500
        if word == "deaf" and server is not None:
            server.server_close()
            server = None
        elif word != "deaf" and server is None:
            try:
                server = HTTPServer(("127.0.0.1", port), Answers)
                server.timeout = TURN_S
            except OSError:
                print(f"port {port} is taken", flush=True)
        if server is not None:
            server.handle_request()
        else:
            time.sleep(TURN_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
