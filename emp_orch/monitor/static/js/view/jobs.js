import { html } from "../html.js";
import { Badge } from "./badge.js";

const ORDER = ["pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable"];

export function Jobs({ jobs }) {
  const names = ORDER.filter((s) => jobs.counts[s]);
  return html`
    <section class="panel" aria-labelledby="jobs-title" id="jobs">
      <h2 id="jobs-title">Jobs</h2>
      ${names.length
        ? html`<ul class="job-counts">
            ${names.map(
              (s) => html`<li key=${s}><${Badge} word=${s} /> <span class="number">${jobs.counts[s]}</span></li>`,
            )}
          </ul>`
        : html`<p class="empty">No job yet.</p>`}
      ${jobs.active.length
        ? html`<ul class="active-jobs">
            ${jobs.active.map((job) => html`<${Active} key=${job.job_id} job=${job} />`)}
          </ul>`
        : null}
    </section>
  `;
}

const Active = ({ job }) => html`
  <li>
    <div class="active-head"><code class="clip" title=${job.job_id}>${job.job_id}</code><span class="muted small nowrap">${Math.round(job.progress * 100)} %</span></div>
    <progress max="1" value=${job.progress} aria-label=${`progress of ${job.job_id}`}></progress>
    <div class="muted small">${[job.service, job.worker_id, job.message].filter(Boolean).join(" · ")}</div>
  </li>
`;
