import { html } from "../../ui/html.js";
import { Remote } from "../../net/remote.js";
import { Time } from "../../state/time.js";
import { ui } from "../../ui/dialogs.js";
import { Badge } from "../parts/badge.js";
import { Choice, FilterBar, matches, Search } from "../parts/filters.js";
import { jobDialog } from "./job.js";
import { ActiveJobs } from "./jobs_panel.js";
import { Lanes } from "./lanes.js";
import { Submit } from "./submit.js";

const LIMIT = 100;
const STATUSES = ["pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable"];

export function JobsView({ store, filters }) {
  const { q, status, service } = filters;
  const asked = new URLSearchParams({ limit: LIMIT, ...(STATUSES.includes(status) && { status }), ...(service && { service }) });
  const services = [...new Set(store.desired.list.flatMap((m) => m.services))].sort();
  const active = store.active.list;
  return html`
    <h1 class="view-title">Jobs</h1>
    <div class="columns">
      <div class="wide">
        <${Lanes} trigger=${store.counts} />
        <section class="panel" aria-labelledby="active-title" id="active">
          <h2 id="active-title">Active <span class="count">${active.length}</span></h2>
          ${active.length ? html`<${ActiveJobs} jobs=${active} />` : html`<p class="empty">No worker is at a job.</p>`}
        </section>
        <${Remote} url=${`/api/jobs?${asked}`} trigger=${store.counts} every=${10_000}>
          ${({ data, error }) => {
            const all = data?.jobs ?? [];
            const found = all.filter((j) => matches(q, [j.job_id, j.service, j.status, j.worker_id ?? "", j.error?.message ?? ""]));
            return html`<section class="panel" aria-labelledby="list-title" id="jobs">
              <h2 id="list-title">All jobs <span class="muted small">${data ? `newest first, ${all.length} of ${data.total}` : ""}</span></h2>
              <${FilterBar} shown=${found.length} of=${all.length} what="jobs">
                <${Search} value=${q} what="jobs" />
                <${Choice} name="status" label="Status" value=${status} options=${STATUSES.map((s) => [s, s.replace("_", " ")])} />
                <${Choice} name="service" label="Service" value=${service} options=${services.map((s) => [s, s])} />
              </${FilterBar}>
              ${error ? html`<p class="problem" role="alert">${error}</p>` : null}
              ${data && !found.length ? html`<p class="empty">${all.length ? "No job fits these filters." : "No job yet."}</p>` : null}
              <ul class="job-list">
                ${found.map((j) => html`<${Job} key=${j.job_id} j=${j} />`)}
              </ul>
            </section>`;
          }}
        </${Remote}>
      </div>
      <aside class="side" aria-label="Submit a job"><${Submit} services=${services} /></aside>
    </div>
  `;
}

const Job = ({ j }) => html`
  <li data-job=${j.job_id} data-nav tabindex="-1">
    <button class="quiet mono clip" data-open onClick=${() => ui.open(jobDialog(j.job_id))}>${j.job_id}</button>
    <${Badge} word=${j.status} small />
    <span class="wrap">${j.service}</span>
    <span class="muted small"><${Time} at=${j.finished_at ?? j.created_at} /></span>
    ${j.error ? html`<span class="trouble small job-error">${j.error.message}</span>` : null}
  </li>
`;
