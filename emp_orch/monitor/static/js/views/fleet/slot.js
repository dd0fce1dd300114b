import { html } from "../../ui/html.js";
import { jobDialog } from "../jobs/job.js";
import { ui } from "../../ui/dialogs.js";
import { Badge } from "../parts/badge.js";
import { ProgramBadge, programWord } from "./program.js";

// One GPU slot: its worker, what that works on, and its programs.
export function Slot({ gpu, info, worker, job, programs }) {
  const memory = info?.memory_mib ? `${Math.round(info.memory_mib / 1024)} GiB` : "";
  return html`
    <div class=${`slot ${worker ? "" : "vacant"}`} data-slot=${gpu} data-worker=${worker?.worker_id}>
      <div class="slot-head">
        <span class="slot-name">GPU ${gpu}</span>
        <span class="muted small">${[info?.name, memory].filter(Boolean).join(" · ")}</span>
      </div>
      ${worker ? html`<${Worker} worker=${worker} job=${job} />` : html`<p class="muted small">no worker reports</p>`}
      ${programs.length
        ? html`<ul class="slot-programs" aria-label=${`Programs of GPU ${gpu}`}>
            ${programs.map(([name, p]) => html`<${ProgramBadge} key=${name} name=${name} program=${p} word=${programWord(p)} />`)}
          </ul>`
        : null}
    </div>
  `;
}

const Worker = ({ worker, job }) => html`
  <div class="worker">
    <div class="worker-line">
      <${Badge} word=${worker.status} title=${worker.stale ? `silent; last reported ${worker.reported_status}` : worker.worker_id} />
      <span class="muted small" title="jobs completed and failed">${worker.jobs_completed} done${worker.jobs_failed ? `, ${worker.jobs_failed} failed` : ""}</span>
    </div>
    ${worker.current_job_id ? html`<${JobNow} id=${worker.current_job_id} job=${job} />` : null}
    <ul class="connectors" aria-label="Connectors">
      ${Object.entries(worker.connector_statuses).map(
        ([name, c]) => html`<li key=${name}>
          <${Badge} word=${c.status} label=${name} title=${[c.version, c.detail, has(c), occupied(c)].filter(Boolean).join(": ")} small />
        </li>`,
      )}
    </ul>
    ${Object.entries(worker.connector_statuses)
      .filter(([, c]) => c.status === "error" && c.detail)
      .map(([name, c]) => html`<p key=${name} class="trouble small">${name}: ${c.detail}</p>`)}
    ${Object.entries(worker.connector_statuses)
      .filter(([, c]) => c.status === "idle" && c.occupied_by)
      .map(([name, c]) => html`<p key=${name} class="trouble small">${name}: ${occupied(c)}</p>`)}
  </div>
`;

// What its service told that it has.
const has = (c) => (c.offers ? `${c.models} models, ${c.node_classes} node classes` : "");
const occupied = (c) => (c.occupied_by ? `occupied by ${c.occupied_by}` : "");

// Jobs of one batch differ in their last letters.
const brief = (id) => (id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-8)}` : id);

const JobNow = ({ id, job }) => html`
  <div class="job-now">
    <button class="quiet mono clip" onClick=${() => ui.open(jobDialog(id))} title=${`job ${id}`}>${brief(id)}</button>
    ${job ? html`<span class="small nowrap">${Math.round(job.progress * 100)} %</span>` : null}
    ${job ? html`<progress max="1" value=${job.progress} aria-label=${`progress of job ${id}`}></progress>` : null}
  </div>
`;
