// What the page knows: a snapshot, and every delta since. Views read it and never change it.
import { Events } from "./events.js";
import { Groups } from "./groups.js";
import { Healed } from "./healed.js";
import { same } from "./same.js";
import { byText, Table } from "./table.js";

export const CONNECTING = "connecting";
export const LIVE = "live";
export const RECONNECTING = "reconnecting";
export const STALE = "stale";
export const NEEDS_TOKEN = "needs-token";

const machineId = (m) => m.machine_id;
const workerId = (w) => w.worker_id;
const driftKey = (d) => d.key;
const poolName = (p) => p.name;
const poolOf = (m) => m.pool;
const memberId = (m) => m.id;
const pointKey = (p) => `${p.pool}/${p.at}`;
const bySlot = (a, b) => a.gpu - b.gpu || byText(workerId)(a, b);
const bySince = (a, b) => byText((d) => d.since)(a, b) || byText(driftKey)(a, b);

export class Store {
  constructor() {
    this.connection = { phase: CONNECTING, since: Date.now(), why: "" };
    this.known = false;
    this.revision = 0;
    this.redis = true;
    this.redisHeard = 0; // by the server's clock
    this.reconciler = null;
    this.stats = null;
    this.fleet = null;
    this.counts = {};
    this.machines = new Table(machineId, byText(machineId));
    this.workers = new Table(workerId, byText(workerId));
    this.drift = new Table(driftKey, bySince);
    this.desired = new Table((m) => m.id, byText((m) => m.id));
    this.active = new Table((j) => j.job_id, byText((j) => j.created_at));
    this.pools = new Table(poolName, byText(poolName));
    this.members = new Table(memberId, byText(memberId));
    this.points = new Table(pointKey, byText(pointKey));
    this.membersBy = new Groups(poolOf, memberId, byText(memberId));
    this.pointsBy = new Groups(poolOf, pointKey, byText(pointKey));
    this.workersBy = new Groups(machineId, workerId, bySlot);
    this.driftBy = new Groups(machineId, driftKey, bySince);
    this.events = new Events();
    this.healed = new Healed();
    this.listeners = new Set();
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

  // The whole state as of `now`, whatever was known before.
  setState({ data, revision }, now) {
    this.machines.replace(data.machines);
    this.workersBy.change(this.workers.replace(data.workers));
    this.driftBy.change(this.drift.replace(data.drift));
    this.pools.replace(data.pools);
    this.membersBy.change(this.members.replace(data.members));
    this.pointsBy.change(this.points.replace(data.points));
    // When those that are gone went is not known here: the journal tells, which is fetched after each snapshot.
    const { machines, ...fleet } = data.fleet;
    this.desired.replace(machines);
    this.#setFleet(fleet);
    this.#setCounts(data.jobs.counts);
    this.active.replace(data.jobs.active);
    this.#setStats(data.system_stats);
    this.revision = revision;
    this.redis = true;
    this.redisHeard = now;
    this.known = true;
    this.changed();
  }

  // What differs from revision `base`. False when that is not what is known here: only a snapshot helps then.
  applyDelta({ base, revision, set = {}, gone = {} }, now) {
    if (!this.known || base !== this.revision) return false;
    const change = (table, name) => table.apply(Object.entries(set[name] ?? {}), gone[name] ?? []);
    change(this.machines, "machines");
    change(this.desired, "desired");
    change(this.pools, "pools");
    this.membersBy.change(change(this.members, "members"));
    this.pointsBy.change(change(this.points, "points"));
    this.workersBy.change(change(this.workers, "workers"));
    const drift = change(this.drift, "drift");
    this.driftBy.change(drift);
    this.healed.note(drift.gone, now);
    if (set.fleet) this.#setFleet(set.fleet);
    if (set.jobs?.counts) this.#setCounts(set.jobs.counts);
    this.active.apply(Object.entries(set.jobs?.active ?? {}), gone.jobs ?? []);
    if (set.system_stats) this.#setStats(set.system_stats);
    this.revision = revision;
    this.redis = true;
    this.redisHeard = now;
    this.changed();
    return true;
  }

  heartbeat(data, now) {
    this.redis = data.redis;
    if (data.redis) this.redisHeard = now;
    if (data.reconciler) this.reconciler = data.reconciler;
    this.changed();
  }

  addEvents(events) {
    if (this.events.add(events)) this.changed();
  }

  setHealed(entries) {
    this.healed.fromJournal(entries);
    this.changed();
  }

  #setFleet(fleet) {
    if (!same(this.fleet, fleet)) this.fleet = fleet;
  }

  #setCounts(counts) {
    if (!same(this.counts, counts)) this.counts = counts;
  }

  #setStats(stats) {
    this.stats = stats;
    this.reconciler = stats.reconciler;
  }
}
