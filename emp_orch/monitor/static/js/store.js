// What the page knows. Parts that did not change keep their identity, so that they are not drawn again.

const MAX_EVENTS = 300;
// Shown where they belong, and too many for a list.
const UNLISTED = new Set(["job_progress"]);
const MAX_HEALED = 8;
const HEALED_MS = 60_000;

export const CONNECTING = "connecting";
export const LIVE = "live";
export const RECONNECTING = "reconnecting";
export const STALE = "stale";
export const NEEDS_TOKEN = "needs-token";

export class Store {
  constructor() {
    this.connection = { phase: CONNECTING, since: Date.now(), why: "" };
    this.state = null;
    this.revision = 0;
    this.redis = true;
    this.reconciler = null;
    this.events = [];
    this.healed = [];
    this.listeners = new Set();
    this.texts = new Map();
    this.eventIds = new Set();
  }

  subscribe(listener) {
    this.listeners.add(listener);
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  setConnection(phase, why = "", since = Date.now()) {
    if (this.connection.phase === phase && this.connection.why === why) return;
    this.connection = { phase, why, since };
    this.changed();
  }

  setState(document, now) {
    const { data, revision } = document;
    const before = this.state;
    this.state = {
      ...data,
      machines: this.#shared("machine", data.machines, (m) => m.machine_id),
      workers: this.#shared("worker", data.workers, (w) => w.worker_id),
      drift: this.#shared("drift", data.drift, (d) => d.key),
    };
    this.revision = revision;
    this.redis = true;
    this.reconciler = data.system_stats.reconciler;
    if (before) this.#noteHealed(before.drift, this.state.drift, now);
    this.changed();
  }

  // Apply what differs from the revision we have. False when we have another one: only a snapshot helps then.
  applyDelta({ revision, base, timestamp, set = {}, gone = {} }, now) {
    if (!this.state || base !== this.revision) return false;
    const { state } = this;
    const { active, counts } = set.jobs ?? {};
    const data = {
      ...state,
      machines: patched(state.machines, (m) => m.machine_id, set.machines, gone.machines),
      workers: patched(state.workers, (w) => w.worker_id, set.workers, gone.workers),
      drift: patched(state.drift, (d) => d.key, set.drift, gone.drift),
      jobs: { counts: counts ?? state.jobs.counts, active: patched(state.jobs.active, (j) => j.job_id, active, gone.jobs) },
      fleet: {
        ...(set.fleet ?? state.fleet),
        machines: patched(state.fleet.machines, (m) => m.id, set.desired, gone.desired),
      },
      system_stats: set.system_stats ?? state.system_stats,
    };
    data.machines.sort(by((m) => [m.machine_id]));
    data.workers.sort(by((w) => [w.machine_id, w.gpu, w.worker_id]));
    this.setState({ revision, timestamp, data }, now);
    return true;
  }

  heartbeat(data) {
    this.redis = data.redis;
    if (data.reconciler) this.reconciler = data.reconciler;
    this.changed();
  }

  addEvents(events) {
    const fresh = events.filter((e) => !this.eventIds.has(e.id) && !UNLISTED.has(e.type));
    if (!fresh.length) return;
    this.events = [...this.events, ...fresh].sort((a, b) => compareIds(a.id, b.id)).slice(-MAX_EVENTS);
    this.eventIds = new Set(this.events.map((e) => e.id));
    this.changed();
  }

  forgetOldHealed(now) {
    if (this.healed.some((d) => now - d.at > HEALED_MS)) {
      this.healed = this.healed.filter((d) => now - d.at <= HEALED_MS);
    }
  }

  #noteHealed(before, after, now) {
    const open = new Set(after.map((d) => d.key));
    const healed = before.filter((d) => !open.has(d.key)).map((drift) => ({ drift, at: now }));
    const kept = this.healed.filter((h) => !open.has(h.drift.key));
    if (healed.length || kept.length !== this.healed.length) this.healed = [...healed, ...kept].slice(0, MAX_HEALED);
  }

  #shared(kind, items, keyOf) {
    const known = this.texts.get(kind) ?? new Map();
    const next = new Map();
    const shared = items.map((item) => {
      const text = JSON.stringify(item);
      const old = known.get(keyOf(item));
      const kept = old && old.text === text ? old : { text, item };
      next.set(keyOf(item), kept);
      return kept.item;
    });
    this.texts.set(kind, next);
    return shared;
  }
}

function patched(items, keyOf, set = {}, gone = []) {
  const all = new Map(items.map((item) => [keyOf(item), item]));
  for (const key of gone) all.delete(key);
  for (const [key, item] of Object.entries(set)) all.set(key, item);
  return [...all.values()];
}

function by(fieldsOf) {
  return (a, b) => {
    const theirs = fieldsOf(b);
    for (const [i, mine] of fieldsOf(a).entries()) if (mine !== theirs[i]) return mine < theirs[i] ? -1 : 1;
    return 0;
  };
}

function compareIds(a, b) {
  const [aMs, aSeq] = a.split("-").map(Number);
  const [bMs, bSeq] = b.split("-").map(Number);
  return aMs - bMs || aSeq - bSeq;
}
