"""Every Redis key and channel emp uses, in one place (DESIGN.md §5).

| key | type | writer | content |
|---|---|---|---|
| machines, workers | hash | agent; worker | id → report, JSON |
| machines:seen, workers:seen | zset | agent; worker | id → last report, ms of Redis TIME |
| machine:{id}:commands, :acks | stream | reconciler; agent | {epoch, seq, verb, args}; {seq, ok, error} |
| machine:{id}:config | string | reconciler | rendered supervisord text, machine document, hash: JSON |
| fleet:{name}:generation | string | apply | number of the current generation |
| fleet:{name}:spec:{n} | string | apply | the generation, JSON |
| fleet:{name}:status | string | reconciler | what the last tick saw and decided, JSON |
| fleet:{name}:leader, :epoch | string | reconcilers | the lease; the fencing number |
| fleet:{name}:paused | string | API, CLI | why the reconciler is paused, JSON |
| fleet:{name}:requests | stream | API, CLI | what people ask of the reconciler |
| fleet:{name}:journal | stream | reconciler | drift opened and closed, operations, outcomes |
| events | stream | all | every change, capped |
| job:{id}, lane:{sig}, … | | queue | see below and store/queue_prelude.py |
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix; two fleets may share a Redis by two prefixes."""

    prefix: str = ""

    def _k(self, name: str) -> str:
        return self.prefix + name

    # reports
    @property
    def machines(self) -> str:
        return self._k("machines")

    @property
    def workers(self) -> str:
        return self._k("workers")

    @property
    def machines_seen(self) -> str:
        return self._k("machines:seen")

    @property
    def workers_seen(self) -> str:
        return self._k("workers:seen")

    # one machine
    def commands(self, machine_id: str) -> str:
        return self._k(f"machine:{machine_id}:commands")

    def acks(self, machine_id: str) -> str:
        return self._k(f"machine:{machine_id}:acks")

    def config(self, machine_id: str) -> str:
        return self._k(f"machine:{machine_id}:config")

    # one fleet
    def generation(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:generation")

    def spec(self, fleet: str, number: int) -> str:
        return self._k(f"fleet:{fleet}:spec:{number}")

    def status(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:status")

    def leader(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:leader")

    def epoch(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:epoch")

    def paused(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:paused")

    def requests(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:requests")

    def journal(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:journal")

    # events
    @property
    def events(self) -> str:
        return self._k("events")

    @property
    def startup_channel(self) -> str:
        """Pub/sub, for subscribers that listen the old way."""
        return self._k("machine:startup:events")

    # queue
    def job(self, job_id: str) -> str:
        return self._k(f"job:{job_id}")

    def lane(self, sig: str) -> str:
        return self._k(f"lane:{sig}")

    @property
    def lanes(self) -> str:
        return self._k("lanes")

    @property
    def lanes_version(self) -> str:
        """Another one with every new lane."""
        return self._k("lanes:version")

    @property
    def lanes_used(self) -> str:
        """zset lane → its last submission, ms."""
        return self._k("lanes:used")

    def lane_groups(self, sig: str) -> str:
        """set of the groups in which workers that serve this lane may wait."""
        return self._k(f"lane-groups:{sig}")

    def group(self, group: str) -> str:
        """zset waiting worker → when its wait is over, ms."""
        return self._k(f"group:{group}")

    @property
    def waiting(self) -> str:
        """hash waiting worker → its group."""
        return self._k("workers:waiting")

    @property
    def waking(self) -> str:
        """zset worker that was woken and has not claimed yet → since when, ms."""
        return self._k("workers:waking")

    @property
    def waking_lane(self) -> str:
        """hash woken worker → the lane it was woken for."""
        return self._k("workers:waking:lane")

    def wake(self, worker_id: str) -> str:
        """list a worker blocks on: a lane, or `cancel:{job_id}`."""
        return self._k(f"wake:{worker_id}")

    @property
    def leases(self) -> str:
        """zset job → when its lease is over, ms."""
        return self._k("leases")

    @property
    def jobs(self) -> str:
        """zset job → sequence number: all jobs that are kept."""
        return self._k("jobs")

    def jobs_in(self, status: str) -> str:
        """zset job → sequence number, of one status."""
        return self._k(f"jobs:in:{status}")

    @property
    def jobs_ended(self) -> str:
        """zset ended job → when, ms."""
        return self._k("jobs:ended")

    @property
    def jobs_avoid(self) -> str:
        """hash pending job → `until ms:worker`, the worker that just failed it."""
        return self._k("jobs:avoid")

    @property
    def jobs_seq(self) -> str:
        return self._k("jobs:seq")
