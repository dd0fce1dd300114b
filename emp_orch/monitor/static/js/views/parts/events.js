import { html, Pure } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { absolute, clock } from "../../state/time.js";
import { Outputs } from "../jobs/outputs.js";

const SHOWN = 40;

// Newest first.
export class EventsPanel extends Pure {
  render({ events }) {
    const shown = events.slice(-SHOWN).reverse();
    return html`
      <section class="panel" aria-labelledby="events-title" id="events">
        <h2 id="events-title"><a href=${href("timeline")}>Events</a></h2>
        ${shown.length
          ? html`<ol class="events" tabindex="0" aria-label="Last events">
              ${shown.map((e) => html`<${Entry} key=${e.id} e=${e} />`)}
            </ol>`
          : html`<p class="empty">Nothing has happened yet.</p>`}
      </section>
    `;
  }
}

export class Entry extends Pure {
  render({ e }) {
    const { type: _, machine_id: machine, ...rest } = e.data;
    return html`
      <li data-nav tabindex="-1" data-event=${e.id}>
        <time datetime=${e.at} title=${absolute(e.at)}>${clock(e.at)}</time>
        <div>
          <div><b>${e.type}</b> ${machine ? html`<a class="muted" href=${href("machines", String(machine))} data-open>${String(machine)}</a>` : null}</div>
          <div class="muted small details">${details(rest)}</div>
          ${e.type === "job_completed" ? html`<${Outputs} id=${rest.job_id} />` : null}
        </div>
      </li>
    `;
  }
}

export const details = (data) =>
  Object.entries(data)
    .filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" · ");
