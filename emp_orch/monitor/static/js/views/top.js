import { html } from "../ui/html.js";
import { href, VIEWS } from "../ui/route.js";
import { CONNECTING, LIVE, NEEDS_TOKEN, RECONNECTING, STALE } from "../state/store.js";
import { absolute, clock, duration, since, Time } from "../state/time.js";
import { ui } from "../ui/dialogs.js";
import { ask, COMMANDS } from "./parts/commands.js";
import { help } from "./help.js";

export function Top({ store, route }) {
  const { fleet } = store;
  if (fleet) document.title = title(store.drift.byKey.size, fleet);
  return html`
    <header class="top">
      <div class="brand">
        <a class="home" href=${href("overview")}><img src="/favicon.svg" alt="" width="26" height="26" /><span class="brand-name">emp</span></a>
        ${fleet ? html`<span class="fleet-name" title="fleet">${fleet.name}</span>` : null}
        ${fleet?.generation
          ? html`<span class="chip" title=${`applied ${absolute(fleet.applied_at)}`}>generation ${fleet.generation}</span>`
          : null}
        ${fleet ? html`<${Holds} fleet=${fleet} />` : null}
      </div>
      <nav aria-label="Views">
        ${VIEWS.filter((view) => view !== "pools" || store.pools.byKey.size || route.view === view).map((view) => html`<a key=${view} href=${href(view)} aria-current=${route.view === view ? "page" : undefined}>${view}${view === "drift" && store.drift.byKey.size ? html`${" "}<span class="count">${store.drift.byKey.size}</span>` : null}</a>`)}
      </nav>
      <div class="top-right">
        <${Reconciler} store=${store} />
        ${fleet?.generation ? html`<${Switch} fleet=${fleet} />` : null}
        <button class="quiet icon" onClick=${() => window.empTheme.toggle()} aria-label="Dark or light" title="dark or light (t)">◐</button>
        <button class="quiet icon" onClick=${() => ui.open(help)} aria-label="Keys and words" title="keys and words (?)">?</button>
        <${Connection} connection=${store.connection} redis=${store.redis} heard=${store.redisHeard} />
      </div>
    </header>
  `;
}

// An open breaker is closed by the same word that lifts a pause.
const Switch = ({ fleet }) =>
  fleet.breaker || fleet.overrides.some((o) => o.kind === "pause" && o.scope === "fleet")
    ? html`<button class="primary" data-command="resume-fleet" onClick=${() => ask(COMMANDS.resumeFleet())}>Resume</button>`
    : html`<button class="quiet small" data-command="pause-fleet" onClick=${() => ask(COMMANDS.pauseFleet())} title="let emp repair nothing for a while">pause</button>`;

// What people and policies hold up: the breaker, pauses and drains, a rollout on its way; and what Redis lost.
function Holds({ fleet }) {
  const { breaker, rollout, lost, eviction, alone, refuses, overrides = [] } = fleet;
  return html`
    ${lost ? html`<span class="chip bad" id="lost" role="alert" title=${`${absolute(lost.at)}; ${lost.hint}`}>${lost.reason}</span>` : null}
    ${refuses ? html`<span class="chip bad" id="refuses" role="alert">${refuses}</span>` : null}
    ${eviction ? html`<span class="chip bad" id="eviction" role="alert">${eviction}</span>` : null}
    ${alone ? html`<span class="chip warn" id="alone">${alone}</span>` : null}
    ${breaker
      ? html`<span class="chip bad" id="breaker" role="alert" title=${`since ${absolute(breaker.since)}`}
          >breaker open: ${breaker.reason}${breaker.trying.length ? `; trying ${few(breaker.trying)}` : null}</span
        >`
      : null}
    ${overrides.slice(0, SHOWN).map(
      (o) => html`<span class="chip warn" key=${`${o.kind}:${o.scope}`} data-override=${`${o.kind}:${o.scope}`} title=${`since ${absolute(o.at)}`}
        >${wordOf(o)}${o.scope === "fleet" ? "" : ` ${o.scope}`}: ${o.reason || "no reason given"}${o.by ? ` (by ${o.by})` : ""}</span
      >`,
    )}
    ${overrides.length > SHOWN ? html`<span class="chip warn">${overrides.length - SHOWN} more pauses, drains and sizes</span>` : null}
    ${rollout ? html`<${Rollout} rollout=${rollout} />` : null}
  `;
}

const SHOWN = 4;
const WORDS = { pause: "paused", drain: "drained" };
const wordOf = (o) => (o.kind === "scale" ? `held at ${o.size}:` : (WORDS[o.kind] ?? o.kind));
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

const title = (differences, fleet) => `${differences ? `(${differences}) ` : ""}${fleet.name} · emp`;

// A process names itself host:pid:start; the whole of it is the title.
const leader = (who) => who.match(/:(\d+):\d+$/)?.[1].replace(/^/, "pid ") ?? who.slice(0, 24);

function Reconciler({ store }) {
  const known = store.reconciler;
  if (!known || !store.known) return null;
  if (!known.as_of) return html`<span class="heard bad">no reconciler has reported</span>`;
  return html`<span
    class=${`heard ${known.alive ? "" : "bad"}`}
    id="leader"
    title=${`the reconciler that leads: ${known.leader}, epoch ${known.epoch}, last tick ${absolute(known.as_of)}`}
    ><span class="leader">leader ${leader(known.leader)} · </span>${known.alive ? "ticked " : "reconciler silent for "}<${Time} at=${known.as_of} words=${known.alive ? undefined : since} /></span
  >`;
}

// `status` is read out when it changes; the seconds of a stale page are not.
const Connection = ({ connection, redis, heard }) => {
  const [tone, words] = describe(connection, redis, heard);
  return html`<span class=${`connection tone-${tone}`} id="connection" role="status">
    <span class="dot" aria-hidden="true"></span>${words}
  </span>`;
};

function describe({ phase, since: at }, redis, heard) {
  switch (phase) {
    case CONNECTING:
      return ["wait", "connecting"];
    case LIVE:
      return redis ? ["ok", "live"] : ["bad", heard ? `Redis is away, last heard ${clock(heard)}` : "Redis is away"];
    case RECONNECTING:
      return ["wait", "reconnecting"];
    case STALE:
      return ["bad", html`stale since ${clock(at)}${" "}<span aria-live="off">(<${Time} at=${at} words=${localSince} />)</span>`];
    case NEEDS_TOKEN:
      return ["wait", "token needed"];
  }
}

// When we last heard is by this browser's clock.
const localSince = (at) => duration(Date.now() - at);
