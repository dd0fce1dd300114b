import { call, path } from "../../net/api.js";
import { Component, html } from "../../ui/html.js";
import { Remote } from "../../net/remote.js";
import { clock, Time } from "../../state/time.js";
import { ui } from "../../ui/dialogs.js";
import { Artifacts } from "./artifacts.js";
import { Badge } from "../parts/badge.js";
import { ask, COMMANDS } from "../parts/commands.js";
import { Copy } from "../parts/copy.js";
import { Dialog } from "../parts/dialog.js";
import { Preview } from "./preview.js";

const AGAIN = ["failed", "cancelled", "timeout"];
const ENDED = ["completed", "failed", "cancelled", "timeout"];

// The whole of one job: how it stands and why, what it made, what it was given, what happened to it.
export const jobDialog =
  (id) =>
  ({ close }) => html`<${Dialog} title=${`Job ${id}`} close=${close} wide>
    <${Remote} url=${path("jobs", id)} every=${1_000}>
      ${({ data, error, reload }) =>
        data ? html`<${Job} j=${data} reload=${reload} />` : html`<p class=${error ? "problem" : "muted"}>${error || "Asking…"}</p>`}
    </${Remote}>
  </${Dialog}>`;

const from = ({ asset, size, url, job }) => {
  if (asset) return `${size.toLocaleString("en")} bytes, ${asset}`;
  return url ?? `${job.output} of job ${job.id}`;
};

class Job extends Component {
  constructor() {
    super();
    this.state = { error: "" };
    this.retry = async () => {
      const { j, reload } = this.props;
      try {
        await call(path("jobs", j.job_id, "retry"), { method: "POST" });
        this.setState({ error: "" });
        ui.say(`job ${j.job_id} waits again`);
        reload();
      } catch (error) {
        this.setState({ error: error.message });
      }
    };
  }

  render({ j }, { error }) {
    const ended = ENDED.includes(j.status);
    return html`<div id="job" data-status=${j.status}>
      <p class="facts-line">
        <${Badge} word=${j.status} /> <span>${j.service}</span> · submitted <${Time} at=${j.created_at} />${" "}
        ${j.worker_id ? html`· <code>${j.worker_id}</code>` : null} · <${Copy} text=${j.job_id} what="id" />
      </p>
      ${ended ? null : html`<progress max="1" value=${j.progress} aria-label="progress"></progress>`}
      ${j.status === "in_progress" ? html`<${Preview} id=${j.job_id} />` : null}
      <p>${j.why}${j.message ? ` · ${j.message}` : ""}</p>
      ${j.error ? html`<p class="problem">${j.error.message}</p>` : null}
      ${error ? html`<p class="problem" role="alert">${error}</p>` : null}
      <div class="buttons start">
        ${AGAIN.includes(j.status) ? html`<button onClick=${this.retry}>Run again</button>` : null}
        ${ended ? null : html`<button class="danger" onClick=${() => ask(COMMANDS.cancel(j.job_id))}>Cancel</button>`}
      </div>
      ${j.result || j.outputs.length ? html`<h3>${j.result ? "What it made" : "What it had made before it failed"}</h3><${Artifacts} outputs=${j.outputs} />` : null}
      ${j.result && Object.keys(j.result.detail).length ? html`<pre class="log short">${JSON.stringify(j.result.detail, null, 2)}</pre>` : null}
      <h3>What it was given</h3>
      <pre class="log short" tabindex="0" aria-label="payload">${JSON.stringify(j.payload, null, 2)}</pre>
      ${Object.keys(j.inputs).length ? html`<ul class="small wrap">${Object.entries(j.inputs).map(([name, source]) => html`<li key=${name} data-input=${name}><code>${name}</code> ${from(source)}</li>`)}</ul>` : null}
      ${j.secrets.length ? html`<p class="muted small">Beside it, forgotten at the job's end: ${j.secrets.join(", ")}</p>` : null}
      <h3>What happened</h3>
      <ol class="steps">
        ${j.history.map((h, i) => html`<li key=${i}><span class="muted small">${clock(h.at)}</span> <span>${[h.event, h.worker_id, h.reason].filter(Boolean).join(" · ")}</span></li>`)}
      </ol>
    </div>`;
  }
}
