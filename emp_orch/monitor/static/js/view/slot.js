import { html } from "../html.js";
import { Badge } from "./badge.js";

// One GPU slot and the worker that serves it.
export function Slot({ gpu, info, worker }) {
  const memory = info?.memory_mib ? `${Math.round(info.memory_mib / 1024)} GiB` : "";
  return html`
    <div class=${`slot ${worker ? "" : "vacant"}`} data-slot=${gpu} data-worker=${worker?.worker_id}>
      <div class="slot-head">
        <span class="slot-name">GPU ${gpu}</span>
        <span class="muted small">${[info?.name, memory].filter(Boolean).join(" · ")}</span>
      </div>
      ${worker ? html`<${Worker} worker=${worker} />` : html`<p class="muted small">no worker reports</p>`}
    </div>
  `;
}

const Worker = ({ worker }) => html`
  <div class="worker">
    <div class="worker-line">
      <${Badge} word=${worker.status} title=${worker.stale ? `silent; last reported ${worker.reported_status}` : ""} />
      <span class="muted small" title="jobs completed / failed">${worker.jobs_completed} done${worker.jobs_failed ? `, ${worker.jobs_failed} failed` : ""}</span>
    </div>
    ${worker.current_job_id
      ? html`<div class="job-now" title="current job">▸ <code>${worker.current_job_id}</code></div>`
      : null}
    <ul class="connectors" aria-label="Connectors">
      ${Object.entries(worker.connector_statuses).map(
        ([name, c]) => html`<li key=${name}>
          <${Badge} word=${c.status} label=${name} title=${[c.version, c.detail].filter(Boolean).join(": ")} small />
        </li>`,
      )}
    </ul>
    ${Object.entries(worker.connector_statuses)
      .filter(([, c]) => c.status === "error" && c.detail)
      .map(([name, c]) => html`<p key=${name} class="trouble small">${name}: ${c.detail}</p>`)}
  </div>
`;
