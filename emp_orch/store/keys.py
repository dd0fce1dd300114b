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
| job:{id}, lane:{sig}, … | | queue | see store/queue.py |
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
