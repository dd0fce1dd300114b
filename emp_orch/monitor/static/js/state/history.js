// Figures over time: what the page has counted since it was opened, and what journal and events tell of before.
import { LIVE } from "./store.js";
import { BUCKET_MS } from "./events.js";

const EVERY_MS = 2_000;
const MAX_SAMPLES = 1_800;

export class History {
  constructor(store, now) {
    this.store = store;
    this.now = now;
    this.samples = []; // {t, drift, waiting, running}; null where nothing was known
    setInterval(() => this.#sample(), EVERY_MS);
  }

  #sample() {
    const { store } = this;
    if (!store.known) return;
    const live = store.connection.phase === LIVE && store.redis;
    const { pending = 0, assigned = 0, in_progress = 0 } = store.counts;
    const t = this.now() / 1000;
    this.samples.push(
      live
        ? { t, drift: store.drift.byKey.size, waiting: pending, running: assigned + in_progress }
        : { t, drift: null, waiting: null, running: null },
    );
    if (this.samples.length > MAX_SAMPLES) this.samples.shift();
  }

  // [times, differences]: before the first sample, counted back from it along the journal.
  drift() {
    const first = this.samples[0];
    if (!first) return [[], []];
    let count = first.drift ?? 0;
    const before = [];
    for (const e of [...this.store.healed.journal].reverse()) {
      const t = Date.parse(e.at) / 1000;
      if (t >= first.t) continue;
      before.push([t, count]);
      count = Math.max(0, count + (e.type === "drift_opened" ? -1 : 1));
    }
    const points = [...before.reverse(), ...this.samples.map((s) => [s.t, s.drift])];
    return [points.map(([t]) => t), points.map(([, n]) => n)];
  }

  // [times, seconds to heal]
  heals() {
    const known = this.store.healed.list.filter((h) => Number.isFinite(h.took_ms)).reverse();
    return [known.map((h) => h.at / 1000), known.map((h) => h.took_ms / 1000)];
  }

  // [times, jobs ended a minute]
  throughput() {
    const { ends } = this.store.events;
    if (!ends.size) return [[], []];
    const last = Math.floor(this.now() / BUCKET_MS) * BUCKET_MS;
    const times = [];
    for (let t = Math.min(...ends.keys()); t < last; t += BUCKET_MS) times.push(t);
    return [times.map((t) => t / 1000), times.map((t) => ((ends.get(t) ?? 0) * 60_000) / BUCKET_MS)];
  }

  // [times, waiting, running]
  queue() {
    const { samples } = this;
    return [samples.map((s) => s.t), samples.map((s) => s.waiting), samples.map((s) => s.running)];
  }
}
