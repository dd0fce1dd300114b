import { html } from "../html.js";
import { LIVE } from "../store.js";

// One look: in sync or not, and how many of what.
export function Summary({ store }) {
  const { state } = store;
  const stats = state.system_stats;
  const [tone, headline, detail] = verdict(state, store.reconciler, store.connection);
  const ready = stats.machines.by_status.ready ?? 0;
  const wanted = state.fleet.machines.length;
  const slots = state.fleet.machines.reduce((n, m) => n + m.num_gpus, 0);
  const { idle = 0, busy = 0 } = stats.workers.by_status;
  return html`
    <section class=${`summary verdict-${tone}`} aria-label="Summary">
      <div class="verdict" role="status" id="verdict">
        <span class="verdict-mark" aria-hidden="true">${MARKS[tone]}</span>
        <div>
          <h1>${headline}</h1>
          <p>${detail}</p>
        </div>
      </div>
      <dl class="figures">
        <${Figure} name="machines ready" value=${ready} of=${wanted || stats.machines.total} />
        <${Figure} name="workers idle" value=${idle} of=${slots || stats.workers.total} />
        <${Figure} name="workers busy" value=${busy} />
        <${Figure} name="jobs waiting" value=${state.jobs.counts.pending ?? 0} />
      </dl>
    </section>
  `;
}

const MARKS = { ok: "✓", unknown: "?", settling: "…", differs: "≠" };

const Figure = ({ name, value, of }) => html`
  <div class="figure">
    <dt>${name}</dt>
    <dd>${value}${of === undefined ? null : html`<span class="of">/${of}</span>`}</dd>
  </div>
`;

function verdict(state, reconciler, connection) {
  const n = state.drift.length;
  const { fleet } = state;
  // What was true when we last heard is no verdict of now.
  if (connection.phase !== LIVE) return ["unknown", "Unknown", "No news from the API: what stands below may be old."];
  if (fleet.error) return ["unknown", "Unknown", fleet.error];
  if (!fleet.generation) return ["unknown", "Nothing applied", "Run emp apply to publish a generation."];
  if (!reconciler?.alive) return ["unknown", "Unknown", "The reconciler is silent: nobody compares or repairs now."];
  if (fleet.in_sync === null) return ["unknown", "Comparing", `Generation ${fleet.generation} was just applied.`];
  if (n === 0) return ["ok", "In sync", `What runs is what generation ${fleet.generation} says.`];
  const headline = n === 1 ? "1 difference" : `${n} differences`;
  const counts = new Map();
  for (const d of state.drift) counts.set(phaseOf(d), (counts.get(phaseOf(d)) ?? 0) + 1);
  const detail = [...counts].map(([phase, count]) => `${count} ${phase}`).join(" · ");
  // All of it is on its way by itself: no reason for alarm.
  return [counts.size === 1 && counts.has(SETTLING) ? "settling" : "differs", headline, detail];
}

const SETTLING = "starting up";

function phaseOf({ kind, action, held }) {
  if (/-(starting|booting)$/.test(kind)) return SETTLING;
  if (action && (!held || held === "under way")) return "being repaired";
  return action ? "waiting" : "shown only";
}
