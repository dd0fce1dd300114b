import { html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { counted, present, rank, sizeOf } from "../../state/members.js";
import { Badge } from "../parts/badge.js";
import { Card } from "../fleet/card.js";
import { cardOf } from "../fleet/machines.js";

const MAX_CARDS = 6;

// One pool: how many of how many, why, and its members, of which those that need a look come first.
export function PoolPanel({ store, pool }) {
  const { name } = pool;
  const cards = cardsOfPool(store, name);
  const shown = [...cards].sort((a, b) => b.trouble - a.trouble || rankOf(a) - rankOf(b)).slice(0, MAX_CARDS);
  return html`
    <section class="panel pool" data-pool=${name} data-nav tabindex="-1" aria-labelledby=${`pool-${name}`}>
      <h2 id=${`pool-${name}`} class="pool-title">
        <a href=${href("pools", name)} data-open>${name}</a>
        <${Size} store=${store} pool=${pool} />
        <span class="muted small">${jobsOf(pool)}</span>
      </h2>
      <${Why} pool=${pool} />
      <${Counts} store=${store} name=${name} />
      ${cards.length ? html`<div class="cards">${shown.map((c) => html`<${Card} key=${c.id} ...${c} />`)}</div>` : null}
      ${cards.length > shown.length ? html`<p class="more"><a href=${href("pools", name)}>${cards.length - shown.length} more members</a></p>` : null}
    </section>
  `;
}

const rankOf = ({ member, machine }) => rank(member, machine);

export const cardsOfPool = (store, name) => store.membersBy.of(name).map((m) => cardOf(store, m.id));

const jobsOf = ({ waiting, running, wanted }) => (wanted === null ? "" : `${waiting} job${waiting === 1 ? " waits" : "s wait"}, ${running} run${running === 1 ? "s" : ""}`);

// `3 of 0..40, wants 5`.
export function Size({ store, pool }) {
  const there = present(counted(store, pool.name));
  const wants = pool.wanted === null || pool.wanted === pool.there ? "" : `, wants ${pool.wanted}`;
  return html`<span class="pool-size">${there} of ${sizeOf(pool)}${wants}</span>`;
}

// In the leader's words, and in its engine's.
export function Why({ pool }) {
  const { why, coming, engine, wanted } = pool;
  return html`
    <p class="why">${wanted === null ? "No reconciler has looked at it yet." : `${why}${coming}`}</p>
    ${engine ? html`<p class="problem">Its engine says: ${engine}</p>` : null}
    ${pool.origin ? null : html`<p class="note">emp.yaml does not name it any more: its members go.</p>`}
  `;
}

export function Counts({ store, name }) {
  const counts = counted(store, name);
  if (!counts.length) return html`<p class="empty small">It has no members now.</p>`;
  return html`<ul class="pool-counts" aria-label=${`members of ${name} by state`}>
    ${counts.map(
      ([state, count]) => html`<li key=${state} data-state=${state}><a href=${href("pools", name, { status: state })}><${Badge} word=${state} label=${String(count)} small /></a></li>`,
    )}
  </ul>`;
}
