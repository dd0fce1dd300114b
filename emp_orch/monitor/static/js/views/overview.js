import { html } from "../ui/html.js";
import { href } from "../ui/route.js";
import { Card } from "./fleet/card.js";
import { DriftPanel } from "./drift/drift.js";
import { EventsPanel } from "./parts/events.js";
import { HealedPanel } from "./drift/healed.js";
import { JobsPanel } from "./jobs/jobs_panel.js";
import { cardsOf } from "./fleet/machines.js";
import { PoolPanel } from "./pools/panel.js";
import { Summary } from "./summary.js";

const MAX_DRIFT = 30;
const MAX_CARDS = 12;

// Drift first. Of everything only so much as one look takes in; the rest is a link away.
export function Overview({ store }) {
  const cards = cardsOf(store).filter((c) => !c.member);
  const pools = store.pools.list;
  const shown = [...cards].sort((a, b) => b.trouble - a.trouble).slice(0, MAX_CARDS);
  return html`
    <${Summary} store=${store} />
    <div class="columns">
      <div class="wide">
        <${DriftPanel} drift=${store.drift.list} max=${MAX_DRIFT} />
        <${HealedPanel} healed=${store.healed.list} />
        ${pools.map((pool) => html`<${PoolPanel} key=${pool.name} store=${store} pool=${pool} />`)}
        ${cards.length || !pools.length ? html`<section aria-labelledby="machines-title" id="machines">
          <h2 id="machines-title" class="section-title">
            <a href=${href("machines")}>Machines</a> <span class="count">${cards.length}</span>
            ${cards.length > MAX_CARDS
              ? html`<span class="muted small">the ${MAX_CARDS} that need a look first · <a href=${href("machines")}>all</a></span>`
              : null}
          </h2>
          ${cards.length ? null : html`<p class="empty panel">No machine is desired, and none reports.</p>`}
          <div class="cards">${shown.map((c) => html`<${Card} key=${c.id} ...${c} />`)}</div>
        </section>` : null}
      </div>
      <aside class="side" aria-label="Jobs and events">
        <${JobsPanel} store=${store} />
        <${EventsPanel} events=${store.events.list} />
      </aside>
    </div>
  `;
}
