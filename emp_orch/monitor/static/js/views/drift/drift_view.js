import { html } from "../../ui/html.js";
import { Choice, FilterBar, matches, Search } from "../parts/filters.js";
import { DriftTable } from "./drift.js";
import { HealedList } from "./healed.js";

const DOING = { acting: "being repaired", held: "held", shown: "shown only" };
const doing = (d) => (!d.action ? "shown" : d.held && d.held !== "under way" ? "held" : "acting");

// Every difference, with filters.
export function DriftView({ store, filters }) {
  const all = store.drift.list;
  const { q, kind, machine, doing: wanted } = filters;
  const found = all.filter(
    (d) =>
      (!kind || d.kind === kind) &&
      (!machine || d.machine_id === machine) &&
      (!wanted || doing(d) === wanted) &&
      matches(q, [d.subject, d.machine_id, d.kind, d.cause, d.observed, d.desired, d.origin, d.held, d.failed]),
  );
  const kinds = [...new Set(all.map((d) => d.kind))].sort();
  const machines = [...new Set(all.map((d) => d.machine_id))].sort();
  return html`
    <h1 class="view-title">Drift</h1>
    <${FilterBar} shown=${found.length} of=${all.length} what="differences">
      <${Search} value=${q} what="drift" />
      <${Choice} name="kind" label="Kind" value=${kind} options=${kinds.map((k) => [k, k])} />
      <${Choice} name="machine" label="Machine" value=${machine} options=${machines.map((m) => [m, m])} />
      <${Choice} name="doing" label="What emp does" value=${wanted} options=${Object.entries(DOING)} />
    </${FilterBar}>
    <section class="panel" id="drift" aria-label="Differences">
      <${DriftTable} drift=${found} empty=${all.length ? "Nothing that fits these filters." : "Nothing differs."} />
    </section>
    <section class="panel" aria-labelledby="healed-title">
      <h2 id="healed-title">Healed <span class="muted small">the last hour</span></h2>
      ${store.healed.list.length
        ? html`<${HealedList} healed=${store.healed.list.slice(0, 100)} />`
        : html`<p class="empty">Nothing had to heal.</p>`}
    </section>
  `;
}
