import { Component, html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { sameItems } from "../../state/same.js";
import { since, Time } from "../../state/time.js";
import { Badge } from "../parts/badge.js";
import { programWord, ProgramBadge } from "./program.js";
import { EXPECTED, LEFT } from "../../state/members.js";
import { Slot } from "./slot.js";

// One machine. Drawn again only when something of its own changed.
export class Card extends Component {
  shouldComponentUpdate(next) {
    const now = this.props;
    return (
      now.machine !== next.machine || now.desired !== next.desired || now.workers !== next.workers ||
      now.drift !== next.drift || now.member !== next.member || !sameItems(now.jobs, next.jobs)
    );
  }

  render({ id, machine, member, desired, workers, drift, jobs, status }) {
    if (!machine || member?.state === LEFT) return html`<${Absent} id=${id} desired=${desired} member=${member} drift=${drift} status=${status} />`;
    return html`
      <article class=${`card ${machine.stale ? "is-stale" : ""}`} data-machine=${id} data-nav tabindex="-1" aria-label=${`machine ${id}`}>
        <header>
          <h3><a href=${href("machines", id)} data-open>${id}</a></h3>
          <${Badge} word=${status} title=${machine.stale ? `last reported ${machine.reported_status}` : ""} />
        </header>
        <${Facts} machine=${machine} member=${member} desired=${desired} />
        <${Trouble} machine=${machine} member=${member} desired=${desired} drift=${drift} />
        <${Slots} machine=${machine} desired=${desired} workers=${workers} jobs=${jobs} />
        <${Programs} machine=${machine} desired=${desired} />
      </article>
    `;
  }
}

export function Facts({ machine, member, desired }) {
  const restarts = Object.values(machine.programs).reduce((n, p) => n + (p.restarts ?? 0), 0);
  const words = [
    machine.host && `on ${machine.host}`,
    desired?.runtime,
    `generation ${machine.generation}`,
    `${restarts} restart${restarts === 1 ? "" : "s"}`,
    `agent ${machine.agent_version}`,
  ].filter(Boolean);
  return html`<p class="facts">
    ${member ? html`<a href=${href("pools", member.pool)}>pool ${member.pool}</a>${" · "}` : null}${member?.name ? `calls itself ${member.name} · ` : null}${machine.stale ? null : html`up <${Time} at=${machine.started_at} words=${since} />${" · "}`}${words.join(" · ")}
  </p>`;
}

export const Trouble = ({ machine, member, desired, drift }) => html`
  ${member ? html`<${Standing} member=${member} />` : null}
  ${machine.stale && member?.state !== LEFT ? html`<p class="problem">Silent: last heard <${Time} at=${machine.last_seen} /></p>` : null}
  ${machine.error ? html`<p class="problem">${machine.error}</p>` : null}
  ${desired ? null : html`<p class="note">${member ? `emp.yaml does not name pool ${member.pool} any more.` : "emp.yaml does not name this machine."}</p>`}
  <${Differences} drift=${drift} />
`;

// What is to be known of a member of a pool that does not just work, or is not there.
export function Standing({ member, silent = false }) {
  const { state, born, joined, leaving, why } = member;
  if (state === LEFT) return html`<p class="note">Left in good order${why ? `: ${why}` : ""}.</p>`;
  if (leaving) return html`<p class="note">On its way out, asked <${Time} at=${leaving} />${why ? `: ${why}` : ""}.</p>`;
  if (state === EXPECTED) return html`<p class="note">Asked for <${Time} at=${born} />; its box has not joined yet.</p>`;
  return silent && joined ? html`<p class="note">Joined <${Time} at=${joined} />; it has not reported yet.</p>` : null;
}

const Differences = ({ drift }) =>
  drift.length
    ? html`<p class="note"><a href=${href("drift", "", { machine: drift[0].machine_id })}>${drift.length} difference${drift.length === 1 ? "" : "s"}</a>: ${drift[0].subject} ${drift[0].observed}${drift.length > 1 ? " …" : ""}</p>`
    : null;

export function Slots({ machine, desired, workers, jobs }) {
  const slots = Math.max(machine.num_gpus, desired?.num_gpus ?? 0, ...workers.map((w) => w.gpu + 1));
  const bySlot = new Map(workers.map((w) => [w.gpu, w]));
  const byId = new Map(jobs.map((j) => [j.job_id, j]));
  const programs = Object.entries(machine.programs);
  return html`<div class="slots">
    ${Array.from({ length: Math.min(slots, 64) }, (_, gpu) => {
      const worker = bySlot.get(gpu);
      const own = programs.filter(([name]) => name.endsWith(`-gpu${gpu}`));
      return html`<${Slot} key=${gpu} gpu=${gpu} info=${machine.gpus.find((g) => g.index === gpu)} worker=${worker}
        job=${worker && byId.get(worker.current_job_id)} programs=${own} />`;
    })}
  </div>`;
}

// Those that belong to no slot: the slots show their own.
function Programs({ machine, desired }) {
  const names = [...new Set([...(desired?.programs ?? []), ...Object.keys(machine.programs)])].filter(
    (name) => !/-gpu\d+$/.test(name) || !machine.programs[name],
  );
  if (!names.length) return null;
  return html`
    <ul class="programs" aria-label=${machine.stale ? "Programs as last reported" : "Programs"}>
      ${machine.stale ? html`<li class="muted small as-reported">as last reported:</li>` : null}
      ${names.map((name) => html`<${ProgramBadge} key=${name} name=${name} program=${machine.programs[name]} word=${programWord(machine.programs[name])} />`)}
    </ul>
  `;
}

const Absent = ({ id, desired, member, drift, status }) => html`
  <article class="card absent" data-machine=${id} data-nav tabindex="-1" aria-label=${`machine ${id}`}>
    <header>
      <h3><a href=${href("machines", id)} data-open>${id}</a></h3>
      <${Badge} word=${status} />
    </header>
    <p class="facts">
      ${member ? html`<a href=${href("pools", member.pool)}>pool ${member.pool}</a>` : null}
      ${desired ? html`${member ? " · " : ""}${desired.runtime} · ${desired.num_gpus} GPU slot${desired.num_gpus === 1 ? "" : "s"}` : null}
      ${desired && !member ? html`${" "}· wanted by <code>${desired.origin}</code>` : null}
    </p>
    ${member ? html`<${Standing} member=${member} silent />` : html`<p class="note">It has never reported, or was forgotten.</p>`}
    <${Differences} drift=${drift} />
  </article>
`;
