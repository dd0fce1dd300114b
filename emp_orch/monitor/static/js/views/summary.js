import { html } from "../ui/html.js";
import { href } from "../ui/route.js";
import { counts } from "../state/members.js";
import { verdict } from "../state/verdict.js";

// One look: in sync or not, and how many of what.
export function Summary({ store }) {
  const { stats, counts: jobs } = store;
  const { tone, headline, detail } = verdict(store);
  const ready = store.machines.list.filter((m) => m.status === "ready" && counts(store, m.machine_id)).length;
  const desired = store.desired.list.filter((m) => counts(store, m.id));
  const wanted = desired.length;
  const slots = desired.reduce((n, m) => n + m.num_gpus, 0);
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
        <${Figure} name="machines ready" value=${ready} of=${wanted || stats.machines.total} to=${href("machines")} />
        <${Figure} name="workers idle" value=${idle} of=${slots || stats.workers.total} to=${href("machines", "", { worker: "idle" })} />
        <${Figure} name="workers busy" value=${busy} to=${href("machines", "", { worker: "busy" })} />
        <${Figure} name="jobs waiting" value=${jobs.pending ?? 0} to=${href("jobs")} />
      </dl>
    </section>
  `;
}

const MARKS = { ok: "✓", unknown: "?", settling: "…", differs: "≠" };

const Figure = ({ name, value, of, to }) => html`
  <div class="figure">
    <dt><a href=${to}>${name}</a></dt>
    <dd>${value}${of === undefined ? null : html`<span class="of">/${of}</span>`}</dd>
  </div>
`;
