"""Every Redis key and channel emp uses, in one place (DESIGN.md §5).

| key | type | writer | content |
|---|---|---|---|
| machines, workers | hash | agent; worker | id → report, JSON |
| machines:seen, workers:seen | zset | agent; worker | id → last report, ms of Redis TIME |
| offers:{digest} | string | worker | which models and node classes a service has: store/queue/offers.py |
| reports:changed, reports:seq | zset; counter | agent; worker | `{documents} {id}` → number of its last change |
| machine:{id}:commands, :acks | stream | reconciler; agent | {epoch, seq, verb, args}; {seq, ok, error} |
| machine:{id}:config | string | reconciler | rendered supervisord text, machine document, hash: JSON |
| fleet:{name}:generation | string | apply | number of the current generation |
| fleet:{name}:spec:{n} | string | apply | the generation, JSON |
| fleet:{name}:status | string | reconciler | what the last tick saw and decided, JSON |
| fleet:{name}:leader, :epoch | string | reconcilers | the lease; the fencing number |
| fleet:{name}:overrides | hash | API, CLI | kind:scope → a pause or drain with its reason, JSON |
| fleet:{name}:members | hash | API, reconciler | id of a member of a pool → what is known of it, JSON, sealed |
| fleet:{name}:members:counts, :mark | hash; counter | as members | pool → how many; changes with each change |
| fleet:{name}:pools:courses | string | reconciler | pool → its figures over the last day, JSON |
| fleet:{name}:memory | string | reconciler | what its decisions depend on from round to round, JSON |
| fleet:{name}:rounds | stream | reconciler | the inputs of the last rounds in which it acted |
| fleet:{name}:requests | stream | API, CLI | what people ask of the reconciler |
| fleet:{name}:journal | stream | reconciler | drift opened and closed, operations, outcomes |
| damaged:{ms}:{key} | any | doctor, reconciler | what stood under `key` and was not emp's; for a week |
| fleet:{name}:loss | string | reconcilers | the last jobs that Redis lost, JSON; for a day |
| jobs:mark | hash | reconcilers, queue | by which a Redis is known again: store/queue/upkeep/losses.py |
| events | stream | all | every change, capped |
| assets, assets:moving | zset | API, CLI, reconciler | digest → last given or named, ms; being put or deleted, since |
| secrets:{id} | string | queue | what a job gave as secrets, JSON; from its submission to its end |
| preview:{id} | channel | worker | pictures of a running job, while somebody looks |
| jobs, job:{id}, lane:{sig}, heads, … | | queue | see below, docs/adr/0006 and store/queue/scripts.py |
"""

from __future__ import annotations

from dataclasses import dataclass

# How long the probe of whether Redis takes writes stays there.
PROBE_MS = 1_000


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

    @property
    def reports_changed(self) -> str:
        return self._k("reports:changed")

    @property
    def reports_seq(self) -> str:
        return self._k("reports:seq")

    def offers(self, digest: str) -> str:
        """string: which models and node classes some services have; goes when no worker names it any more."""
        return self._k(f"offers:{digest}")

    def warm(self, model: str) -> str:
        """zset worker → when it last ran this model (a key of jobs/offers.model_key), ms."""
        return self._k(f"warm:{model}")

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

    def overrides(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:overrides")

    def members(self, fleet: str) -> str:
        """hash id → a member of one of the fleet's pools."""
        return self._k(f"fleet:{fleet}:members")

    def members_counts(self, fleet: str) -> str:
        """hash pool → how many members it has."""
        return self._k(f"fleet:{fleet}:members:counts")

    def members_mark(self, fleet: str) -> str:
        """counter: another number whenever a member is another than before."""
        return self._k(f"fleet:{fleet}:members:mark")

    def pool_courses(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:pools:courses")

    def memory(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:memory")

    def rounds(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:rounds")

    def requests(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:requests")

    def journal(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:journal")

    def quarantined(self, key: str, at_ms: int) -> str:
        """The other name of a key that was not emp's, put aside at that time; for a week."""
        return self._k(f"damaged:{at_ms}:{key}")

    def loss(self, fleet: str) -> str:
        return self._k(f"fleet:{fleet}:loss")

    # events
    @property
    def events(self) -> str:
        return self._k("events")

    @property
    def startup_channel(self) -> str:
        """Pub/sub, for subscribers that listen the old way."""
        return self._k("machine:startup:events")

    @property
    def probe(self) -> str:
        """string: written to see whether this Redis takes writes; gone within a second."""
        return self._k("probe")

    def preview_channel(self, job_id: str) -> str:
        """Pub/sub: pictures of a running job, while somebody looks; nothing is kept."""
        return self._k(f"preview:{job_id}")

    # queue
    @property
    def jobs(self) -> str:
        """hash job → its place and what was submitted; written once."""
        return self._k("jobs")

    def job(self, job_id: str) -> str:
        """hash: what changed since; from the first claim on, or the end of a job that was never claimed."""
        return self._k(f"job:{job_id}")

    def payload(self, job_id: str) -> str:
        """string: a payload too large to stand in `jobs`."""
        return self._k(f"payload:{job_id}")

    def secrets(self, job_id: str) -> str:
        """string: name → value, JSON; from the submission of a job that gave secrets to its end, however it ends."""
        return self._k(f"secrets:{job_id}")

    def progress(self, job_id: str) -> str:
        """stream of what the runs of a job said, capped."""
        return self._k(f"progress:{job_id}")

    @property
    def jobs_seq(self) -> str:
        return self._k("jobs:seq")

    @property
    def jobs_mark(self) -> str:
        """hash: by which a Redis is known again, and how many jobs were forgotten since: queue/upkeep/losses.py."""
        return self._k("jobs:mark")

    def jobs_in(self, status: str) -> str:
        """zset job → sequence number: those that ended, by status."""
        return self._k(f"jobs:in:{status}")

    @property
    def jobs_begun(self) -> str:
        """set of the held jobs that are in progress."""
        return self._k("jobs:begun")

    @property
    def jobs_avoiding(self) -> str:
        """string, until when (ms) some waiting job is to be passed over by the worker that lost or failed it."""
        return self._k("jobs:avoiding")

    @property
    def jobs_files(self) -> str:
        """set of the jobs whose runs may have left artifacts."""
        return self._k("jobs:files")

    @property
    def jobs_forgotten(self) -> str:
        """list of forgotten jobs whose artifacts are to be deleted."""
        return self._k("jobs:forgotten")

    @property
    def jobs_keep(self) -> str:
        """string: how many ended jobs of each status the fleet keeps, from jobs.keep.count."""
        return self._k("jobs:keep")

    @property
    def jobs_inputs(self) -> str:
        """hash job → when it named its assets, ms, and their digests."""
        return self._k("jobs:inputs")

    @property
    def assets(self) -> str:
        """zset of the assets that are kept → when each was last given or named, ms."""
        return self._k("assets")

    @property
    def assets_moving(self) -> str:
        """zset of the assets whose file is being put into its place or deleted → since when, ms."""
        return self._k("assets:moving")

    @property
    def leases(self) -> str:
        """zset held job → when its lease is over, ms."""
        return self._k("leases")

    def lane(self, sig: str) -> str:
        """zset of a lane's waiting jobs, in the order in which they are claimed."""
        return self._k(f"lane:{sig}")

    @property
    def lanes(self) -> str:
        """hash lane → its requirements."""
        return self._k("lanes")

    @property
    def lanes_version(self) -> str:
        """`era:number of the newest lane`; another era when lanes were forgotten."""
        return self._k("lanes:version")

    @property
    def lanes_log(self) -> str:
        """zset lane → its number, from 1."""
        return self._k("lanes:log")

    @property
    def lanes_used(self) -> str:
        """zset lane → when it was last seen to be used, ms."""
        return self._k("lanes:used")

    @property
    def lanes_entry(self) -> str:
        """hash lane → its entry in `heads:*`; `!lane` → 1 when it is unworkable; `@lane` → the entry last swept."""
        return self._k("lanes:entry")

    @property
    def lanes_unworkable(self) -> str:
        """hash lane that no worker of the fleet could ever serve → why."""
        return self._k("lanes:unworkable")

    def lane_classes(self, sig: str) -> str:
        """set of the classes of workers that serve this lane."""
        return self._k(f"lane-classes:{sig}")

    def worker_class(self, name: str) -> str:
        """string: the version of the lanes that one class of workers knows."""
        return self._k(f"class:{name}")

    def heads(self, name: str) -> str:
        """zset of where each lane that a class serves begins, in the order in which jobs are claimed."""
        return self._k(f"heads:{name}")

    @property
    def classes(self) -> str:
        """zset class → when one of its workers last waited or matched lanes, ms."""
        return self._k("classes")

    @property
    def classes_waiting(self) -> str:
        """set of the classes in which workers wait."""
        return self._k("classes:waiting")

    def waiting_in(self, name: str) -> str:
        """zset waiting worker of one class → when its wait is over, ms."""
        return self._k(f"waiting:{name}")

    @property
    def waiting(self) -> str:
        """hash waiting worker → its class."""
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
