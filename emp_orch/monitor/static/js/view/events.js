import { html, Pure } from "../html.js";
import { absolute, clock } from "../time.js";
import { Outputs } from "./outputs.js";

const SHOWN = 60;

// Newest first.
export class Events extends Pure {
  render({ events }) {
    const shown = events.slice(-SHOWN).reverse();
    return html`
      <section class="panel" aria-labelledby="events-title" id="events">
        <h2 id="events-title">Events</h2>
        ${shown.length
          ? html`<ol class="events">
              ${shown.map((e) => html`<${Entry} key=${e.id} e=${e} />`)}
            </ol>`
          : html`<p class="empty">Nothing has happened yet.</p>`}
      </section>
    `;
  }
}

function Entry({ e }) {
  const { type, machine_id: machine, ...rest } = e.data;
  return html`
    <li>
      <time datetime=${e.at} title=${absolute(e.at)}>${clock(e.at)}</time>
      <div>
        <div><b>${e.type}</b> ${machine ? html`<span class="muted">${machine}</span>` : null}</div>
        <div class="muted small details">${details(rest)}</div>
        ${type === "job_completed" ? html`<${Outputs} id=${rest.job_id} />` : null}
      </div>
    </li>
  `;
}

const details = (data) =>
  Object.entries(data)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" · ");
