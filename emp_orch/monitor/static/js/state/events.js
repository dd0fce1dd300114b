// The last events, oldest first, each once; and how many jobs ended when.
const MAX_EVENTS = 2_000;
// Shown where they belong, and too many for a list.
const UNLISTED = new Set(["job_progress"]);
const ENDS = new Set(["job_completed", "job_failed", "job_timeout", "job_cancelled"]);
export const BUCKET_MS = 10_000;
const MAX_BUCKETS = 360;

export class Events {
  constructor() {
    this.list = [];
    this.ids = new Set();
    this.ends = new Map(); // bucket's beginning → jobs that ended in it
  }

  // Whether any of them is new.
  add(events) {
    const fresh = events.filter((e) => !this.ids.has(e.id) && !UNLISTED.has(e.type));
    if (!fresh.length) return false;
    for (const e of fresh) {
      this.ids.add(e.id);
      this.#count(e);
    }
    const last = this.list.at(-1);
    const inOrder = !last || compareIds(last.id, fresh[0].id) < 0;
    this.list = [...this.list, ...fresh];
    if (!inOrder || fresh.length > 1) this.list.sort((a, b) => compareIds(a.id, b.id));
    for (const old of this.list.splice(0, Math.max(0, this.list.length - MAX_EVENTS))) this.ids.delete(old.id);
    return true;
  }

  #count({ type, at }) {
    if (!ENDS.has(type)) return;
    const bucket = Math.floor(Date.parse(at) / BUCKET_MS) * BUCKET_MS;
    this.ends.set(bucket, (this.ends.get(bucket) ?? 0) + 1);
    if (this.ends.size > MAX_BUCKETS) this.ends.delete(Math.min(...this.ends.keys()));
  }
}

function compareIds(a, b) {
  const [aMs, aSeq] = a.split("-").map(Number);
  const [bMs, bSeq] = b.split("-").map(Number);
  return aMs - bMs || aSeq - bSeq;
}
