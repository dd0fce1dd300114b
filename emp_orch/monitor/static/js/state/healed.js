// Differences that went, newest first, with the time each took: from the journal, and from then on as they go.
const MAX_HEALED = 500;
// The journal tells of one moment, the page saw another: within this it is the same.
const ONE_MS = 5_000;

export class Healed {
  constructor() {
    this.list = [];
    this.journal = [];
  }

  note(drifts, now) {
    if (!drifts.length) return;
    const seen = drifts.map((d) => ({ ...subjectOf(d), at: now, took_ms: now - Date.parse(d.since), live: true }));
    this.list = [...seen, ...this.list].slice(0, MAX_HEALED);
  }

  // `entries`: the journal's, oldest first. What was only seen here stays.
  fromJournal(entries) {
    this.journal = entries;
    const told = entries
      .filter((e) => e.type === "drift_closed")
      .map((e) => ({ ...subjectOf(e.data), at: Date.parse(e.at), took_ms: e.data.healed_after_ms }));
    const untold = this.list.filter(
      (h) => h.live && !told.some((t) => t.key === h.key && Math.abs(t.at - h.at) < ONE_MS),
    );
    this.list = [...told, ...untold].sort((a, b) => b.at - a.at).slice(0, MAX_HEALED);
  }
}

const subjectOf = ({ key, kind, machine_id, subject, desired, observed, cause, origin }) => ({
  key,
  kind,
  machine_id,
  subject,
  desired,
  observed,
  cause,
  origin,
});
