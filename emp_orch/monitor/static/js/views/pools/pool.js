import { html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { Copy } from "../parts/copy.js";
import { ask, COMMANDS } from "../parts/commands.js";
import { Choice, FilterBar, Search } from "../parts/filters.js";
import { DriftTable } from "../drift/drift.js";
import { Cards, passes, statusOptions } from "../fleet/machines.js";
import { Course } from "./course.js";
import { History } from "./history.js";
import { cardsOfPool, Counts, Size, Why } from "./panel.js";

// One pool: why it is as large as it is, how it fared, who came and went, and its members.
export function PoolPage({ store, id, filters }) {
  const pool = store.pools.get(id);
  if (!pool) {
    return html`<section class="panel"><h1>There is no pool ${id}</h1><p class="empty">emp.yaml does not name it. <a href=${href("pools")}>All pools</a></p></section>`;
  }
  const cards = cardsOfPool(store, id);
  const found = cards.filter(passes(filters));
  const drift = store.drift.list.filter((d) => d.machine_id === id || store.members.get(d.machine_id)?.pool === id);
  const order = store.fleet.overrides.find((o) => o.kind === "scale" && o.scope === id);
  return html`
    <div class="machine-page" data-pool=${id}>
      <p class="crumbs"><a href=${href("pools")}>Pools</a> ›</p>
      <header class="machine-head">
        <h1>${id}</h1>
        <${Size} store=${store} pool=${pool} />
        <${Commands} pool=${pool} order=${order} />
      </header>
      <p class="facts">${factsOf(pool)}${pool.origin ? html`${" · "}wanted by <${Copy} text=${pool.origin} what="place in emp.yaml" />` : null}</p>
      <section class="panel" id="why" aria-labelledby="why-title">
        <h2 id="why-title">Why this size</h2>
        <${Why} pool=${pool} />
        ${order ? html`<p class="note"><span class="chip warn">held at ${order.size}: ${order.reason || "no reason given"}${order.by ? ` (by ${order.by})` : ""}</span></p>` : null}
        <${Counts} store=${store} name=${id} />
      </section>
      <div class="two">
        <${Course} store=${store} name=${id} span=${filters.span} />
        <${History} store=${store} name=${id} pool=${pool} />
      </div>
      ${drift.length
        ? html`<section class="panel" id="drift" aria-labelledby="drift-title"><h2 id="drift-title">Drift <span class="count">${drift.length}</span></h2><${DriftTable} drift=${drift} /></section>`
        : null}
      <section id="members" aria-labelledby="members-title">
        <h2 id="members-title" class="section-title">Members <span class="count">${cards.length}</span></h2>
        <${FilterBar} shown=${found.length} of=${cards.length} what="members">
          <${Search} value=${filters.q} what="members" />
          <${Choice} name="status" label="Status" value=${filters.status} options=${statusOptions(cards)} />
        </${FilterBar}>
        ${found.length ? null : html`<p class="empty panel">${cards.length ? "No member fits these filters." : "It has no members now."}</p>`}
        <${Cards} cards=${found} />
      </section>
    </div>
  `;
}

const factsOf = ({ provider, num_gpus: gpus, services }) =>
  [
    provider === "join" ? "boxes that somebody else starts" : `boxes by ${provider}`,
    `${gpus} GPU${gpus === 1 ? "" : "s"} each`,
    `services ${services.join(", ") || "none"}`,
  ].join(" · ");

const Commands = ({ pool, order }) => html`<div class="commands" role="group" aria-label=${`Commands for ${pool.name}`}>
  <button data-command="scale" onClick=${() => ask(COMMANDS.scale(pool))}>Scale</button>
  ${order ? html`<button class="primary" data-command="follow" onClick=${() => ask(COMMANDS.follow(pool))}>Follow the queue</button>` : null}
</div>`;
