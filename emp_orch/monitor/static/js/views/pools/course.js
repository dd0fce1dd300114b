import { html } from "../../ui/html.js";
import { LIVE } from "../../state/store.js";
import { serverNow } from "../../state/time.js";
import { Chart } from "../parts/charts.js";
import { Choice } from "../parts/filters.js";

const SPANS = [["600", "10 minutes"], ["7200", "2 hours"]];
// A point comes at least each five minutes: after a longer gap nobody looked.
const GAP_S = 600;

const CHARTS = [
  { id: "pool-jobs", title: "Jobs", series: [["waiting", "wait"], ["running", "busy"]], steps: true },
  { id: "pool-members", title: "Members", series: [["there", "ok"], ["wanted", "accent"]], steps: true },
];
const FIGURES = { "pool-jobs": ["waiting", "running"], "pool-members": ["there", "wanted"] };

// Jobs above members, over the same time: what the leader kept, up to what is now.
export const Course = ({ store, name, span }) => html`
  <section id="course" aria-labelledby="course-title">
    <h2 id="course-title" class="section-title">Jobs and members over time
      <${Choice} name="span" label="The last" value=${span} options=${SPANS} all="day" />
    </h2>
    <div class="charts pool-charts">
      ${CHARTS.map((chart) => html`<${Chart} key=${`${chart.id}/${span ?? ""}`} past=${{ store, name, span }}
        chart=${{ ...chart, of: (past) => figures(past, FIGURES[chart.id]) }} />`)}
    </div>
  </section>
`;

// [times, figures of each name]; null where nobody looked.
export function figures({ store, name, span }, names) {
  const points = store.pointsBy.of(name).map((p) => ({ ...p, t: Date.parse(p.at) / 1000 }));
  const pool = store.pools.get(name);
  const live = store.connection.phase === LIVE && store.redis && store.reconciler?.alive;
  if (pool && pool.wanted !== null && live) points.push({ ...pool, t: Math.max(serverNow() / 1000, points.at(-1)?.t ?? 0) });
  const from = span ? (points.at(-1)?.t ?? 0) - Number(span) : -Infinity;
  const first = Math.max(0, points.findLastIndex((p) => p.t <= from));
  const shown = points.slice(first).flatMap((p, i, all) => {
    const gap = i && p.t - all[i - 1].t > gapOf(all[i - 1].t, points.at(-1).t);
    return gap ? [{ t: (p.t + all[i - 1].t) / 2 }, p] : [p];
  });
  return [shown.map((p) => Math.max(p.t, from)), ...names.map((n) => shown.map((p) => p[n] ?? null))];
}

// What lies back further is kept coarser.
const gapOf = (t, now) => (now - t > 7200 ? 4 * GAP_S : GAP_S);
