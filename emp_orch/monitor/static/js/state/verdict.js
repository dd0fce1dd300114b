// What all of it comes to, in one headline.
import { LIVE } from "./store.js";

export function verdict(store) {
  const { fleet, reconciler, connection } = store;
  const drift = store.drift.list;
  const unknown = (headline, detail) => ({ tone: "unknown", headline, detail });
  // What was true when we last heard is no verdict of now.
  if (connection.phase !== LIVE) return unknown("Unknown", "No news from the API: what stands below may be old.");
  if (!store.redis) return unknown("Unknown", "Redis is away: what stands below is from before. What runs goes on running.");
  if (fleet.error) return unknown("Unknown", fleet.error);
  if (!fleet.generation) return unknown("Nothing applied", "Run emp apply to publish a generation.");
  if (!reconciler?.alive) return unknown("Unknown", "The reconciler is silent: nobody compares or repairs now.");
  if (fleet.in_sync === null) return unknown("Comparing", `Generation ${fleet.generation} was just applied.`);
  if (!drift.length) return { tone: "ok", headline: "In sync", detail: `What runs is what generation ${fleet.generation} says.` };
  const counts = new Map();
  for (const d of drift) counts.set(phaseOf(d), (counts.get(phaseOf(d)) ?? 0) + 1);
  return {
    // All of it is on its way by itself: no reason for alarm.
    tone: counts.size === 1 && counts.has(SETTLING) ? "settling" : "differs",
    headline: drift.length === 1 ? "1 difference" : `${drift.length} differences`,
    detail: [...counts].map(([phase, count]) => `${count} ${phase}`).join(" · "),
  };
}

// What no repair of emp's can mend says so in these words (fleet/policy/gate).
const PERSON = "needs a person";
export const forAPerson = (held) => Boolean(held?.startsWith(PERSON));
const SETTLING = "on its way";

function phaseOf({ kind, action, held, next_attempt }) {
  if (/-(starting|booting)$/.test(kind)) return SETTLING;
  if (action && (!held || held === "under way")) return "being repaired";
  if (forAPerson(held)) return PERSON;
  if (!action) return "shown only";
  return next_attempt ? "to be tried again" : "held";
}
