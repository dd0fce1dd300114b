import { html } from "../ui/html.js";
import { Windowed } from "../ui/windowed.js";
import { Charts } from "./parts/charts.js";
import { details, Entry } from "./parts/events.js";
import { Choice, FilterBar, matches, Search } from "./parts/filters.js";
import { HealedList } from "./drift/healed.js";

// Charts, and every event the page knows, newest first.
export function Timeline({ store, past, filters }) {
  const { list } = store.events;
  const { q, type, machine } = filters;
  const found = list
    .filter(
      (e) =>
        (!type || e.type === type) &&
        (!machine || e.data.machine_id === machine) &&
        (!q || matches(q, [e.type, details(e.data)])),
    )
    .reverse();
  const named = (of) => [...new Set(list.map(of).filter((v) => typeof v === "string"))].sort().map((v) => [v, v]);
  return html`
    <h1 class="view-title">Timeline</h1>
    <${Charts} past=${past} />
    ${store.healed.list.length
      ? html`<section class="panel" aria-labelledby="healed-title"><h2 id="healed-title">Healed</h2><${HealedList} healed=${store.healed.list.slice(0, 12)} /></section>`
      : null}
    <${FilterBar} shown=${found.length} of=${list.length} what="events">
      <${Search} value=${q} what="events" />
      <${Choice} name="type" label="Type" value=${type} options=${named((e) => e.type)} />
      <${Choice} name="machine" label="Machine" value=${machine} options=${named((e) => e.data.machine_id)} />
    </${FilterBar}>
    <section class="panel" id="events" aria-label="Events">
      ${found.length ? null : html`<p class="empty">${list.length ? "No event fits these filters." : "Nothing has happened yet."}</p>`}
      <${Windowed} tag="ol" items=${found} keyOf=${(e) => e.id} estimate=${52} className=${() => "events long"}
        row=${(e) => html`<${Entry} key=${e.id} e=${e} />`} />
    </section>
  `;
}
