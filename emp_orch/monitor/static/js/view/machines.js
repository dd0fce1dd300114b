import { html, Pure } from "../html.js";
import { absolute, ago } from "../time.js";
import { Badge } from "./badge.js";
import { Slot } from "./slot.js";

export function Machines({ state }) {
  const desired = new Map(state.fleet.machines.map((m) => [m.id, m]));
  const reported = new Map(state.machines.map((m) => [m.machine_id, m]));
  const workers = new Map(state.workers.map((w) => [w.worker_id, w]));
  const ids = [...new Set([...desired.keys(), ...reported.keys()])];
  return html`
    <section aria-labelledby="machines-title" id="machines">
      <h2 id="machines-title" class="section-title">Machines <span class="count">${ids.length}</span></h2>
      ${ids.length ? null : html`<p class="empty panel">No machine is desired, and none reports.</p>`}
      <div class="cards">
        ${ids.map((id) => card(id, reported.get(id), desired.get(id), workers))}
      </div>
    </section>
  `;
}

function card(id, machine, desired, workers) {
  if (!machine) return html`<${Absent} key=${id} id=${id} desired=${desired} />`;
  const own = machine.workers.map((w) => workers.get(w)).filter(Boolean);
  return html`<${Card} key=${id} machine=${machine} want=${JSON.stringify(desired ?? null)} own=${own}
    workersKey=${own.map(identity).join()} ageTick=${machine.stale ? ago(machine.last_seen) : ""} />`;
}

// Workers keep their identity while unchanged; a card is drawn again only when one of its own changed.
const identities = new WeakMap();
let nextIdentity = 1;
function identity(object) {
  if (!identities.has(object)) identities.set(object, nextIdentity++);
  return identities.get(object);
}

class Card extends Pure {
  shouldComponentUpdate(next) {
    return ["machine", "want", "workersKey", "ageTick"].some((key) => this.props[key] !== next[key]);
  }

  render({ machine, want, own }) {
    const desired = JSON.parse(want);
    const slots = Math.max(machine.num_gpus, desired?.num_gpus ?? 0);
    const bySlot = new Map(own.map((w) => [w.gpu, w]));
    return html`
      <article class=${`card ${machine.stale ? "is-stale" : ""}`} data-machine=${machine.machine_id}>
        <header>
          <h3>${machine.machine_id}</h3>
          <${Badge} word=${machine.status} title=${machine.stale ? `last reported ${machine.reported_status}` : ""} />
        </header>
        <p class="facts">${facts(machine, desired)}</p>
        ${machine.stale
          ? html`<p class="problem">Silent: last heard ${ago(machine.last_seen)} (${absolute(machine.last_seen)})</p>`
          : null}
        ${machine.error ? html`<p class="problem">${machine.error}</p>` : null}
        ${desired ? null : html`<p class="note">emp.yaml does not name this machine.</p>`}
        <div class="slots">
          ${Array.from({ length: slots }, (_, gpu) => html`<${Slot} key=${gpu} gpu=${gpu} info=${machine.gpus.find((g) => g.index === gpu)} worker=${bySlot.get(gpu)} />`)}
        </div>
        <${Programs} machine=${machine} desired=${desired} />
      </article>
    `;
  }
}

function facts(machine, desired) {
  return [
    machine.host && `on ${machine.host}`,
    desired?.runtime,
    `${machine.num_gpus} GPU slot${machine.num_gpus === 1 ? "" : "s"}`,
    `generation ${machine.generation}`,
    `agent ${machine.agent_version}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

// supervisord's word, except where the health check or the exit status says more.
function programWord(program) {
  const { state, healthy, exit_status: exit } = program;
  if (state === "EXITED") return exit === 0 ? "done" : `exited ${exit ?? "?"}`;
  if (state === "RUNNING" && healthy === false) return "unhealthy";
  return state.toLowerCase();
}

function Programs({ machine, desired }) {
  const wanted = desired?.programs ?? [];
  const names = [...new Set([...wanted, ...Object.keys(machine.programs)])];
  return html`
    <ul class="programs" aria-label=${machine.stale ? "Programs as last reported" : "Programs"}>
      ${machine.stale ? html`<li class="muted small as-reported">as last reported:</li>` : null}
      ${names.map((name) => {
        const program = machine.programs[name];
        const word = program ? programWord(program) : "missing";
        const restarts = program?.restarts ? ` · ${program.restarts} restart${program.restarts === 1 ? "" : "s"}` : "";
        const title = [program?.pid && `pid ${program.pid}`, program?.detail].filter(Boolean).join(", ");
        return html`<li key=${name} data-program=${name}>
          <${Badge} word=${word} label=${name} title=${title + restarts} small />
        </li>`;
      })}
    </ul>
  `;
}

const Absent = ({ id, desired }) => html`
  <article class="card absent" data-machine=${id}>
    <header>
      <h3>${id}</h3>
      <${Badge} word="not reporting" />
    </header>
    <p class="facts">
      ${desired.runtime} · ${desired.num_gpus} GPU slot${desired.num_gpus === 1 ? "" : "s"} · wanted by <code>${desired.origin}</code>
    </p>
    <p class="note">It has never reported, or was forgotten.</p>
  </article>
`;
