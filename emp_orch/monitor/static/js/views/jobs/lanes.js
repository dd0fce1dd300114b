import { html } from "../../ui/html.js";
import { Remote } from "../../net/remote.js";
import { duration } from "../../state/time.js";
import { ui } from "../../ui/dialogs.js";
import { Badge } from "../parts/badge.js";
import { Dialog } from "../parts/dialog.js";

const EVERY_MS = 3_000;

// What waits, by lane: how deep, how long, and who could take it.
export const Lanes = ({ trigger }) => html`
  <${Remote} url="/api/lanes" trigger=${trigger} every=${EVERY_MS}>
    ${({ data, error }) => html`<section class="panel" aria-labelledby="lanes-title" id="lanes">
      <h2 id="lanes-title">Queue <span class="count">${data?.jobs ?? "…"}</span></h2>
      ${error ? html`<p class="problem" role="alert">${error}</p>` : null}
      ${data && !data.lanes.length ? html`<p class="empty">No job waits.</p>` : null}
      <ul class="lanes">
        ${(data?.lanes ?? []).map((lane) => html`<${Lane} key=${lane.lane} lane=${lane} />`)}
      </ul>
    </section>`}
  </${Remote}>
`;

const Lane = ({ lane }) => html`
  <li data-lane=${lane.lane} data-nav tabindex="-1">
    <div class="lane-head">
      <b class="wrap">${lane.service}</b>
      <span class="nowrap">${lane.depth} waiting, the oldest for ${duration(lane.oldest_wait_s * 1000)}</span>
    </div>
    <div class="muted small wrap">${asks(lane.requirements)}</div>
    ${lane.unworkable
      ? html`<p class="problem">${unworkable(lane.unworkable)}</p>`
      : html`<p class="small ${lane.workers.able ? "" : "trouble"}">${able(lane.workers)}</p>`}
    <button class="quiet small" data-open onClick=${() => ui.open(why(lane.head))}>why does it wait?</button>
  </li>
`;

function asks({ service: _, ...rest }) {
  const words = Object.entries(rest).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return words.length ? `asks for ${words.join(", ")}` : "any worker with the service will do";
}

const unworkable = (why) => (/^no worker/i.test(why) ? why[0].toUpperCase() + why.slice(1) : `No worker can run this: ${why}`);

function able({ able: n, idle, busy, down, silent }) {
  if (!n && silent) return `No worker that reports can run this; ${silent} that may have not reported yet.`;
  if (!n) return "No worker that reports can run this.";
  const words = [idle && `${idle} idle`, busy && `${busy} busy`, down && `${down} down`].filter(Boolean).join(", ");
  return `${n} worker${n === 1 ? "" : "s"} can run this${words ? `: ${words}` : ""}`;
}

// For each worker what stands between it and the lane's first job.
const why =
  (id) =>
  ({ close }) => html`<${Dialog} title=${`Why ${id} waits`} close=${close} wide>
    <${Remote} url=${`/api/jobs/${encodeURIComponent(id)}/explain`} every=${2_000}>
      ${({ data, error }) =>
        data
          ? html`<div id="why">
              <p><b>${data.why}</b></p>
              ${data.fleet ? html`<p class="muted">${data.fleet}</p>` : null}
              <ul class="plain">
                ${data.workers.map((w) => html`<li key=${w.worker_id}><code>${w.worker_id}</code> <${Badge} word=${w.standing} small /> <span class="wrap">${w.words}</span></li>`)}
              </ul>
            </div>`
          : html`<p class=${error ? "problem" : "muted"}>${error || "Asking…"}</p>`}
    </${Remote}>
  </${Dialog}>`;
