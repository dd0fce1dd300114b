import { html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { Badge } from "../parts/badge.js";
import { Facts, Slots, Standing, Trouble } from "./card.js";
import { ask, COMMANDS } from "../parts/commands.js";
import { Copy } from "../parts/copy.js";
import { Diff } from "../drift/diff.js";
import { DriftTable } from "../drift/drift.js";
import { Logs } from "../parts/logs.js";
import { cardOf } from "./machines.js";
import { Startup } from "./startup.js";

// One machine: what differs, desired and observed side by side, its start, its log, and what one may ask of it.
export function MachinePage({ store, id }) {
  const card = cardOf(store, id);
  const { machine, member, desired, drift } = card;
  if (!machine && !desired && !member) {
    return html`<section class="panel"><h1>There is no machine ${id}</h1><p class="empty">emp.yaml does not name it and none of that name reports. <a href=${href("machines")}>All machines</a></p></section>`;
  }
  const held = store.fleet.overrides.filter((o) => o.scope === id || o.scope.startsWith(`${id}/`));
  return html`
    <div class="machine-page" data-machine=${id}>
      <p class="crumbs">${member ? html`<a href=${href("pools", member.pool)}>Pool ${member.pool}</a>` : html`<a href=${href("machines")}>Machines</a>`} ›</p>
      <header class="machine-head">
        <h1>${id}</h1>
        <${Badge} word=${card.status} />
        <${Commands} id=${id} card=${card} held=${held} />
      </header>
      ${machine
        ? html`<${Facts} machine=${machine} member=${member} desired=${desired} />`
        : member
          ? html`<${Standing} member=${member} silent />`
          : html`<p class="facts">It has never reported, or was forgotten.</p>`}
      ${desired ? html`<p class="facts">wanted by <${Copy} text=${desired.origin} what="place in emp.yaml" /> · services ${desired.services.join(", ") || "none"}</p>` : null}
      ${held.map((o) => html`<p class="note" key=${o.kind + o.scope}><span class="chip warn">${o.kind === "pause" ? "paused" : "drained"} ${o.scope === id ? "" : o.scope}: ${o.reason || "no reason given"}${o.by ? ` (by ${o.by})` : ""}</span></p>`)}
      ${machine ? html`<${Trouble} machine=${machine} member=${member} desired=${desired} drift=${[]} />` : null}
      ${drift.length
        ? html`<section class="panel" id="drift" aria-labelledby="drift-title"><h2 id="drift-title">Drift <span class="count">${drift.length}</span></h2><${DriftTable} drift=${drift} /></section>`
        : null}
      ${machine && machine.num_gpus + card.workers.length
        ? html`<section class="panel" aria-labelledby="slots-title"><h2 id="slots-title">GPU slots</h2><${Slots} ...${card} /></section>`
        : null}
      ${machine || desired ? html`<${Diff} card=${card} generation=${store.fleet.generation} />` : null}
      <div class="two">
        <${Startup} id=${id} boot=${machine?.boot_id ?? ""} events=${store.events.list} />
        <${Logs} component=${`machine-${id}`} />
      </div>
    </div>
  `;
}

function Commands({ id, card, held }) {
  const { machine } = card;
  const can = {
    restart: true,
    drain: !held.some((o) => o.kind === "drain"),
    pause: !held.some((o) => o.kind === "pause" && o.scope === id),
    resume: held.some((o) => o.scope === id),
    forget: Boolean(machine && machine.status === "offline"),
  };
  return html`<div class="commands" role="group" aria-label=${`Commands for ${id}`}>
    ${Object.keys(can).filter((name) => can[name]).map(
      (name) => html`<button key=${name} data-command=${name} class=${name === "forget" ? "danger" : ""} onClick=${() => ask(COMMANDS[name](id))}>${COMMANDS[name](id).button}</button>`,
    )}
  </div>`;
}
