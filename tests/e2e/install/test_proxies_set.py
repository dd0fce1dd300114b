"""With every proxy variable of the environment set: the fleet's own ways are straight, the outside goes by them."""

from __future__ import annotations

import json
from pathlib import Path

from support.servers.proxy import counting_proxy
from support.stack.stack import MACHINE, Stack

PICTURE = "http://pictures.invalid/a.png"
# In no_proxy, and nobody has it: straight means that no address is found.
DIRECT = "http://direct.invalid/a.png"
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
HOSTS = "\njobs: {inputs: {hosts: [pictures.invalid, direct.invalid]}}\n"


def test_a_fleet_behind_a_proxy(folder_stack: Stack) -> None:
    stack = folder_stack
    stack.file.write_text(stack.file.read_text() + HOSTS)
    with counting_proxy({PICTURE: b"picture"}) as proxy:
        behind = proxy.environment(no_proxy="direct.invalid")
        stack.up(**behind)
        submit = ("submit", "simulation", "--payload", '{"prompt": "x"}', "--retries", "0", "--wait")
        stack.ok(*submit, **behind)
        (stack.root / "wf.json").write_text(json.dumps(WORKFLOW))
        stack.ok("submit", "comfyui", "--workflow", str(stack.root / "wf.json"), "--wait", **behind)
        for words in (("status",), ("diff",), ("doctor",), ("top", "--once"), ("logs", MACHINE), ("events", "-n", "1")):
            stack.ok(*words, **behind)
        # What a service asks for is its own business: it has the user's variables as they were.
        for program in ("comfyui-gpu0", "simulation", "redis-worker-gpu0"):
            seen = Path(f"/proc/{stack.program(program).pid}/environ").read_bytes().split(b"\0")
            assert {f"{name}={value}".encode() for name, value in behind.items()} <= set(seen), program
        assert proxy.asked == []

        told = json.loads(stack.ok(*submit, "--json", "--input", f"a.png={PICTURE}", **behind))
        assert told["status"] == "completed", told
        assert proxy.asked == [f"GET {PICTURE}"]

        failed = stack.run(*submit, "--input", f"a.png={DIRECT}", **behind)
        assert failed.returncode == 1 and "direct.invalid" in failed.stderr + failed.stdout
        stack.ok("down", **behind)
        assert proxy.asked == [f"GET {PICTURE}"]
