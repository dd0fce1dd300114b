import { html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { ui } from "../../ui/dialogs.js";
import { Badge } from "../parts/badge.js";
import { jobDialog } from "./job.js";

const ORDER = ["pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable"];
const SHOWN = 8;

export function JobsPanel({ store }) {
  const { counts } = store;
  const active = store.active.list;
  const names = ORDER.filter((s) => counts[s]);
  return html`
    <section class="panel" aria-labelledby="jobs-title" id="jobs">
      <h2 id="jobs-title"><a href=${href("jobs")}>Jobs</a></h2>
      ${names.length
        ? html`<ul class="job-counts">
            ${names.map(
              (s) => html`<li key=${s}><a href=${href("jobs", "", { status: s })}><${Badge} word=${s} /></a> <span class="number">${counts[s]}</span></li>`,
            )}
          </ul>`
        : html`<p class="empty">No job yet. <a href=${href("jobs")}>Submit one</a></p>`}
      <${ActiveJobs} jobs=${active.slice(0, SHOWN)} />
      ${active.length > SHOWN ? html`<p class="more"><a href=${href("jobs")}>${active.length - SHOWN} more are active</a></p>` : null}
    </section>
  `;
}

export const ActiveJobs = ({ jobs }) =>
  jobs.length
    ? html`<ul class="active-jobs">
        ${jobs.map((job) => html`<${Active} key=${job.job_id} job=${job} />`)}
      </ul>`
    : null;

const Active = ({ job }) => html`
  <li data-job=${job.job_id} data-nav tabindex="-1">
    <div class="active-head">
      <button class="quiet mono clip" data-open onClick=${() => ui.open(jobDialog(job.job_id))} title=${job.job_id}>${job.job_id}</button>
      <span class="muted small nowrap">${Math.round(job.progress * 100)} %</span>
    </div>
    <progress max="1" value=${job.progress} aria-label=${`progress of job ${job.job_id}`}></progress>
    <div class="muted small wrap">${[job.service, job.worker_id, job.message].filter(Boolean).join(" · ")}</div>
  </li>
`;
