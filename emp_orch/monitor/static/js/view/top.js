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
        ${fleet?.paused ? html`<span class="chip warn">paused: ${fleet.paused}</span>` : null}
      </div>
      <div class="top-right">
        <${Reconciler} store=${store} />
        <${Connection} connection=${store.connection} redis=${store.redis} />
      </div>
    </header>
  `;
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
