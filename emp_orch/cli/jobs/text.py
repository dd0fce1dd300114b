"""Jobs, lanes and explanations as text for a person, 80 columns where it can be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emp_orch.cli.jobs.access import plain
from emp_orch.cli.output.text import age, table

if TYPE_CHECKING:
    from emp_orch.jobs.document.model import InputSource, JobSummary
    from emp_orch.jobs.matching.explain import Explanation
    from emp_orch.jobs.matching.requirements import Requirements
    from emp_orch.store.queue.explain import Explained, LaneWorkers
    from emp_orch.store.queue.reads import LaneView

# So many workers are told one by one; of more, those of equal words are told together.
MAX_SINGLE = 12
MAX_NAMED = 3
INDENT = "    "


def local(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def note(job: JobSummary) -> str:
    """What else there is to say of a job: who has it, how far it is, what went wrong."""
    parts = []
    if job.worker_id and job.finished_ms is None:
        parts.append(job.worker_id)
    parts += under_way(job)
    if job.error is not None and job.error.message:
        parts.append(job.error.message)
    return plain(" · ".join(parts))


def input_words(source: InputSource) -> str:
    """Where an input's content comes from."""
    from emp_orch.jobs.document.inputs import shown_url

    if source.asset:
        return source.asset if source.size is None else f"{source.asset}, {source.size:,} bytes"
    return shown_url(source.url) if source.url else f"from job {source.job}: {source.output}"


def under_way(job: JobSummary) -> list[str]:
    """Of a job that a worker has: that it is to be stopped, how far it is."""
    parts = ["cancellation asked for"] if job.cancel_requested and job.finished_ms is None else []
    if job.progress is not None and job.status == "in_progress":
        parts.append(f"{job.progress.fraction:.0%} {job.progress.message}".strip())
    return parts


def job_table(jobs: Sequence[JobSummary], now_ms: int, width: int) -> str:
    """A line for each job, and a second, indented one where there is more to say."""
    head = ("JOB", "STATUS", "SERVICE", "PRIO", "RUN", "AGE")
    rows = [
        (
            *(job.id, str(job.status), job.service, str(job.priority)),
            *(f"{job.attempts}/{job.max_retries + 1}", age(max(0, now_ms - job.created_ms))),
        )
        for job in jobs
    ]
    first, *lines = table(head, rows).splitlines()
    told = [first]
    for job, line in zip(jobs, lines, strict=True):
        told.append(line)
        if words := note(job):
            told.append(_cut(INDENT + words, width))
    return "\n".join(told)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def asked(requirements: Requirements) -> str:
    """What a job asks for, on one line: `comfyui, gpu_memory_gb ≥ 24, models flux`."""
    import msgspec

    parts = [requirements.service]
    hardware = requirements.hardware
    minimums = ((name, getattr(hardware, name)) for name in ("gpu_memory_gb", "gpu_count", "cpu_cores", "ram_gb"))
    parts += [f"{name} ≥ {value:g}" for name, value in minimums if value is not None]
    if hardware.gpu_model is not None:
        models = (hardware.gpu_model,) if isinstance(hardware.gpu_model, str) else hardware.gpu_model
        parts.append(f"gpu_model {' or '.join(models)}")
    if requirements.models:
        parts.append(f"models {' '.join(requirements.models)}")
    if requirements.customer is not None:
        parts.append(f"customer {requirements.customer} ({requirements.isolation})")
    if requirements.workflow is not None:
        parts.append(f"workflow {requirements.workflow}")
    for verb, custom in (("", requirements.positive), ("no ", requirements.negative)):
        parts += [f"{verb}{name}={msgspec.json.encode(value).decode()}" for name, value in custom.items()]
    return plain(", ".join(parts))


def workers_short(workers: LaneWorkers) -> str:
    """`4: 1 idle, 3 busy`."""
    named = (("idle", workers.idle), ("busy", workers.busy), ("down", workers.down), ("silent", workers.silent))
    parts = [f"{n} {word}" for word, n in named if n]
    return f"{workers.able + workers.silent}: {', '.join(parts)}" if parts else "none"


def lane_table(lanes: Sequence[LaneView], served: dict[str, LaneWorkers], now_ms: int, width: int) -> str:
    """Two lines for each lane: figures; what its jobs ask, and why nobody could serve it."""
    rows = []
    for lane in lanes:
        wait = age(now_ms - lane.oldest_ms) if lane.oldest_ms else "-"
        workers = "unworkable" if lane.unworkable else workers_short(served[lane.lane])
        rows.append((lane.lane, f"{lane.depth:,}", wait, workers))
    first, *lines = table(("LANE", "JOBS", "OLDEST", "WORKERS"), rows).splitlines()
    told = [first]
    for lane, line in zip(lanes, lines, strict=True):
        told += [line, _cut(INDENT + asked(lane.requirements), width)]
        if lane.unworkable:
            told.append(_wrapped(lane.unworkable, width, INDENT))
    return "\n".join(told)


def _wrapped(text: str, width: int, indent: str, first: str | None = None) -> str:
    """Other people's words are safe in `text` and in `first`."""
    return textwrap.fill(
        plain(text),
        width,
        initial_indent=indent if first is None else plain(first),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def field(name: str, text: str, width: int) -> str:
    """`  name      text`, wrapped under itself."""
    return _wrapped(text, width, " " * 12, f"  {name:<10}")


def explanation(found: Explained, width: int) -> str:
    """The sentence first; then what the job asks, what the fleet could do, and each worker."""
    job = found.job
    # Each worker's reasons follow, so the sentence need not repeat them.
    nobody = found.workers and all(w.standing == "unable" for w in found.workers)
    why = "no worker can run it" if nobody and job.status == "pending" else found.why
    told = "" if why == f"it is {job.status}" else f": {why}"
    lines = [_wrapped(f"job {job.id} is {job.status}{told}", width, INDENT, "")]
    lines.append(field("asks for", asked(job.requirements), width))
    if found.fleet:
        lines.append(field("fleet", found.fleet, width))
    elif found.workers:
        lines.append(field("fleet", "nothing was applied, so only reports count", width))
    lines += [_wrapped(words, width, " " * 8, f"  {who}: ") for who, words in _told(found.workers)]
    return "\n".join(lines)


def _told(workers: Sequence[Explanation]) -> list[tuple[str, str]]:
    """Who, and what is to be said of them."""
    if len(workers) <= MAX_SINGLE:
        return [(w.worker_id, w.words) for w in workers]
    groups: dict[str, list[str]] = {}
    for worker in workers:
        groups.setdefault(_general(worker), []).append(worker.worker_id)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    told = []
    for words, ids in ordered[:MAX_SINGLE]:
        names = ", ".join(ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
        told.append((f"{len(ids)} workers" if len(ids) > 1 else "1 worker", f"{words} ({names})"))
    if rest := ordered[MAX_SINGLE:]:
        told.append((f"{sum(len(ids) for _, ids in rest)} workers", f"{len(rest)} more reasons; --json has them all"))
    return told


def _general(worker: Explanation) -> str:
    """Its words without what is its own: the job it is busy with."""
    import msgspec

    return msgspec.structs.replace(worker, job_id=None).words
