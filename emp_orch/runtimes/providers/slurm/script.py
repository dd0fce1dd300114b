"""What a box is submitted with: sbatch's words, the batch script, and the environment apart from both.

Administrators and the job's user read a job's script, and everybody its name, comment and words: no secret is in them.
"""

from __future__ import annotations

import math
import shlex

from emp_orch.fleet.model.fleet import GpuKind
from emp_orch.options.provider_slurm import Options
from emp_orch.runtimes.providers.base import Launch
from emp_orch.runtimes.providers.slurm.jobs import name_of

# Slurm looks at time limits every half minute.
_LATE_S = 60
_MIB = 2**20
# A second signal ends a box at once, a third by force with all that it began: SIGKILL would leave that behind.
_STEP_S = 5
FORCED_S = 3 * _STEP_S

_SCRIPT = """\
#!/bin/bash
# A box of an emp fleet. SIGTERM drains it. {stop_s} s later it is hurried, and then ended by force.
umask 077
export HOME="${{HOME:-$(echo ~)}}" USER="${{USER:-$(id -un)}}"
box= guard=
drain() {{
  trap '' TERM
  [ -n "$box" ] || exit 143
  kill -TERM "$box" 2>/dev/null
  (
    trap - TERM
    trap 'kill "$!" 2>/dev/null; exit' USR1
    sleep {stop_s} & wait "$!"
    for signal in TERM TERM KILL; do kill -$signal "$box" 2>/dev/null; sleep {step_s} & wait "$!"; done
  ) & guard=$!
}}
trap drain TERM
folder={folder}
mkdir -p -m 700 "$folder" && [ -O "$folder" ] && [ ! -L "$folder" ] || {{ echo "$folder is not ours" >&2; exit 73; }}
cd "$folder" || exit 73
printf %s "$EMP_JOIN_TOKEN" > token
unset EMP_JOIN_TOKEN
export EMP_JOIN_TOKEN_FILE="$folder/token" EMP_MACHINE_FOLDER="$folder/machine" EMP_MACHINE_LOGS="$folder/logs"
(
trap - TERM
{setup}
exec {command}
) & box=$!
while kill -0 "$box" 2>/dev/null; do wait "$box"; done
wait "$box"; code=$?
[ -z "$guard" ] || kill -USR1 "$guard" 2>/dev/null
cd / && rm -rf "$folder"
exit $code
"""


def script(launch: Launch, options: Options) -> bytes:
    folder = f"{options.folder.rstrip('/')}/{name_of(launch.fleet, launch.member_id)}"
    text = _SCRIPT.format(
        stop_s=max(1, math.ceil(launch.stop_s)),
        step_s=_STEP_S,
        folder=shlex.quote(folder),
        setup="\n".join(options.setup),
        command=_command(launch, options),
    )
    return text.encode()


def environment(launch: Launch) -> bytes:
    """As sbatch --export-file reads it: NAME=value, each ended by NUL. It holds the token."""
    path = "/usr/local/bin:/usr/bin:/bin"
    named = {"PATH": path, **launch.variables, "EMP_JOIN_TOKEN": launch.token}
    return b"".join(f"{name}={value}".encode() + b"\0" for name, value in named.items())


def submission(launch: Launch, options: Options, fd: int) -> list[str]:
    """`sbatch`, which reads the script from stdin and the environment from `fd`."""
    gpus = f"gpu:{launch.num_gpus}" if launch.gpus is GpuKind.NVIDIA and launch.num_gpus else ""
    limits = launch.limits
    memory = options.memory or (f"{math.ceil(limits.memory_bytes / _MIB)}M" if limits.memory_bytes else "")
    cpus = options.cpus or (math.ceil(limits.cpus) if limits.cpus else 0)
    notice = min(math.ceil(launch.stop_s) + _LATE_S, math.floor(options.time_s / 2), 65535)
    named = {
        "job-name": name_of(launch.fleet, launch.member_id),
        "comment": f"emp: fleet {launch.fleet}, pool {launch.pool}",
        "signal": f"B:TERM@{notice}",
        "time": str(math.ceil(options.time_s / 60)),
        "output": options.output,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": options.gres or gpus,
        "constraint": options.constraint,
        "cpus-per-task": str(cpus) if cpus else "",
        "mem": memory,
        "container-image": options.pyxis,
        "container-mounts": _mounts(launch) if options.pyxis else "",
    }
    # singleton: two jobs of one name and user never run at once, so no member has a twin.
    fixed = ["--requeue", "--open-mode=append", "--nodes=1", "--ntasks=1", "--dependency=singleton"]
    words = [f"--{name}={value}" for name, value in named.items() if value]
    return ["sbatch", "--parsable", f"--export-file={fd}", *fixed, *words, *options.sbatch]


def _mounts(launch: Launch) -> str:
    return ",".join(f"{v.source}:{v.target}{':ro' if v.read_only else ''}" for v in launch.volumes)


def _command(launch: Launch, options: Options) -> str:
    emp = [f"{options.venv.rstrip('/')}/bin/emp"] if options.venv else ["emp"]
    if options.python:
        emp = [options.python, "-m", "emp_orch"]
    words = shlex.join([*emp, "machine", "--pool", launch.pool, "--stay"])
    if not options.apptainer:
        return words
    nv = " --nv" if launch.gpus is GpuKind.NVIDIA else ""
    mounts = _mounts(launch)
    bind = f" --bind {shlex.quote(mounts)}" if mounts else ""
    return f'apptainer exec{nv} --bind "$folder"{bind} --pwd "$folder" {shlex.quote(options.apptainer)} {words}'
