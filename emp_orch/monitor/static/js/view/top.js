import { html } from "../html.js";
import { CONNECTING, LIVE, NEEDS_TOKEN, RECONNECTING, STALE } from "../store.js";
import { absolute, clock, duration, since } from "../time.js";

export function Top({ store }) {
  const { state } = store;
  const fleet = state?.fleet;
  if (fleet) document.title = title(state, fleet);
  return html`
    <header class="top">
      <div class="brand">
        <img src="/favicon.svg" alt="" width="26" height="26" />
        <span class="brand-name">emp</span>
        ${fleet ? html`<span class="fleet-name" title="fleet">${fleet.name}</span>` : null}
        ${fleet?.generation
          ? html`<span class="chip" title=${`applied ${absolute(fleet.applied_at)}`}>generation ${fleet.generation}</span>`
          : null}
        ${fleet ? html`<${Holds} fleet=${fleet} />` : null}
      </div>
      <div class="top-right">
        <${Reconciler} store=${store} />
        <${Connection} connection=${store.connection} redis=${store.redis} />
      </div>
    </header>
  `;
}

// What people and policies hold up: the breaker, pauses and drains, a rollout on its way.
function Holds({ fleet }) {
  const { breaker, rollout, overrides = [] } = fleet;
  return html`
    ${breaker
      ? html`<span class="chip bad" id="breaker" title=${`since ${absolute(breaker.since)}`}
          >breaker open: ${breaker.reason}${breaker.trying.length ? `; trying ${few(breaker.trying)}` : null}</span
        >`
      : null}
    ${overrides.slice(0, SHOWN).map(
      (o) => html`<span class="chip warn" key=${`${o.kind}:${o.scope}`} data-override=${`${o.kind}:${o.scope}`} title=${`since ${absolute(o.at)}`}
        >${WORDS[o.kind] ?? o.kind}${o.scope === "fleet" ? "" : ` ${o.scope}`}: ${o.reason || "no reason given"}${o.by ? ` (by ${o.by})` : ""}</span
      >`,
    )}
    ${overrides.length > SHOWN ? html`<span class="chip warn">${overrides.length - SHOWN} more pauses and drains</span>` : null}
    ${rollout ? html`<${Rollout} rollout=${rollout} />` : null}
  `;
}

const SHOWN = 4;
const WORDS = { pause: "paused", drain: "drained" };
const few = (names) => names.slice(0, 3).join(", ") + (names.length > 3 ? " …" : "");

function Rollout({ rollout }) {
  const stands = rollout.halted ? `halted: ${few(rollout.broken)} failed with it` : rollout.stalled ? "stalled" : "";
  return html`<span
    class=${`chip ${stands ? "bad" : ""}`}
    id="rollout"
    title=${`last progress ${absolute(rollout.last_progress)}`}
    >rollout ${rollout.done}/${rollout.total}${stands ? `, ${stands}` : ""}</span
  >`;
}

const title = (state, fleet) => `${state.drift.length ? `(${state.drift.length}) ` : ""}${fleet.name} · emp`;

function Reconciler({ store }) {
  const known = store.reconciler;
  if (!known || !store.state) return null;
  if (!known.as_of) return html`<span class="heard bad">no reconciler has reported</span>`;
  const words = known.alive ? "reconciler ticked" : "reconciler silent for";
  const at = known.alive ? `${since(known.as_of)} ago` : since(known.as_of);
  return html`<span
    class=${`heard ${known.alive ? "" : "bad"}`}
    title=${`leader ${known.leader}, epoch ${known.epoch}, last tick ${absolute(known.as_of)}`}
    >${words} ${at}</span
  >`;
}

function Connection({ connection, redis }) {
  const [tone, words] = describe(connection, redis);
  return html`<span class=${`connection tone-${tone}`} id="connection" role="status">
    <span class="dot" aria-hidden="true"></span>${words}
  </span>`;
}

function describe({ phase, since: at }, redis) {
  switch (phase) {
    case CONNECTING:
      return ["wait", "connecting"];
    case LIVE:
      return redis ? ["ok", "live"] : ["bad", "Redis is away"];
    case RECONNECTING:
      return ["wait", "reconnecting"];
    case STALE:
      return ["bad", `stale since ${clock(at)} (${duration(Date.now() - at)})`];
    case NEEDS_TOKEN:
      return ["wait", "token needed"];
  }
}
