#!/usr/bin/env python3
"""Boxes of a pool of emp as containers of the Docker Engine that `docker` speaks to. See docs/pools-command.md."""

import json
import os
import subprocess
import sys

STATES = {"created": "pending", "restarting": "pending", "running": "running", "paused": "running"}
OF_CONTAINERS = {"owner": '.Label "emp.owner"', "member": '.Label "emp.member"', "state": ".State", "ref": ".ID"}
FIELDS = [f'"{name}": {{{{json ({of})}}}}' for name, of in (OF_CONTAINERS | {"words": ".Status"}).items()]


def docker(*words, fine="", **environment):
    """What `docker WORDS…` prints. Docker's own words are this program's, unless `fine` is among them."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, env=os.environ | environment)
    if done.returncode and not (fine and fine in done.stderr):
        sys.exit(done.stderr)
    return done.stdout


def listed(asked):
    mine = f"--filter=label=emp.owner={asked['owner']}"
    lines = docker("ps", "--all", "--no-trunc", mine, "--format", "{" + ",".join(FIELDS) + "}")
    boxes = [json.loads(line) for line in lines.splitlines()]
    return {"boxes": [box | {"state": STATES.get(box["state"], "ended")} for box in boxes]}


def created(asked):
    """The name lets no second one be made, also where this program was killed in the middle."""
    words = [f"--label=emp.owner={asked['owner']}", f"--label=emp.member={asked['member']}"]
    words += [f"--env={name}" for name in asked["environment"]]  # the values stand in no argument
    words += [f"--volume={v['source']}:{v['target']}{':ro' * v['read_only']}" for v in asked["volumes"]]
    limits = {"cpus": "cpus", "memory": "memory_bytes", "shm-size": "shm_bytes"}
    words += [f"--{option}={asked[name]}" for option, name in limits.items() if asked[name]]
    words += [f"--gpus={asked['num_gpus']}"] if asked["gpus"] == "nvidia" else []
    docker("create", f"--name={name_of(asked)}", *words, asked["image"], fine="already in use", **asked["environment"])
    docker("start", name_of(asked))
    return {}


def removed(asked):
    docker("stop", f"--time={min(30, round(asked['stop_seconds']))}", name_of(asked), fine="No such container")
    docker("rm", "--force", "--volumes", name_of(asked), fine="No such container")
    return {}


def name_of(asked):
    return f"{asked['owner']}.{asked['member']}"


asked = json.load(sys.stdin)
print(json.dumps({"list": listed, "create": created, "remove": removed}[asked["request"]](asked)))
