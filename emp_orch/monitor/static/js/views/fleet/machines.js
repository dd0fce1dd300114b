import { Component, html } from "../../ui/html.js";
import { Windowed } from "../../ui/windowed.js";
import { Card } from "./card.js";
import { Choice, FilterBar, matches, Search } from "../parts/filters.js";
import { EXPECTED, LEAVING, LEFT, memberState, SILENT } from "../../state/members.js";

const CARD_PX = 416;
const GUESS_PX = 420;

const ABSENT = "not reporting";
const order = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

// What each machine's card shows: desired or reporting, by id. `trouble`: how much it needs a look.
export function cardsOf(store) {
  const ids = new Set([...store.desired.byKey.keys(), ...store.machines.byKey.keys(), ...store.members.byKey.keys()]);
  const jobs = store.active;
  return [...ids].map((id) => cardOf(store, id, jobs)).sort(order);
}

export function cardOf(store, id) {
  const machine = store.machines.get(id);
  const workers = store.workersBy.of(id);
  const drift = store.driftBy.of(id);
  const member = store.members.get(id);
  const state = member && memberState(member, machine);
  return {
    id,
    machine,
    member,
    desired: store.desired.get(id),
    workers,
    drift,
    jobs: workers.map((w) => w.current_job_id && store.active.get(w.current_job_id)).filter(Boolean),
    status: AWAY.has(state) ? state : wordOf(machine, drift),
    trouble: UNTROUBLED.has(state) ? 0 : drift.length + (machine?.stale ? 100 : machine ? 0 : 50),
  };
}

// What is said of a member of a pool rather than what it reported last; and of whom nobody need look.
const AWAY = new Set([LEFT, LEAVING, EXPECTED, SILENT]);
const UNTROUBLED = new Set([LEFT, LEAVING, EXPECTED]);

// While these stand, what it reported last is of a former life, or of before it stood still.
const FORMER = /^(machine-(missing|booting)|container-(looping|paused|cut-off))$/;

function wordOf(machine, drift) {
  const now = drift.find((d) => FORMER.test(d.kind));
  if (now?.kind === "machine-booting") return now.observed.startsWith("restarting") ? now.observed : "starting";
  return now?.observed ?? machine?.status ?? ABSENT;
}

// Cards, of which only those on the screen are drawn.
export class Cards extends Component {
  constructor() {
    super();
    this.state = { columns: 1 };
    this.fit = () => {
      const columns = Math.max(1, Math.floor((this.base?.parentElement?.clientWidth ?? innerWidth) / CARD_PX));
      if (columns !== this.state.columns) this.setState({ columns });
    };
    this.row = (cards, whole) => {
      const drawn = (c) => html`<${Card} key=${c.id} ...${c} />`;
      return whole ? drawn(cards) : html`<div class="cards" key=${cards[0].id}>${cards.map(drawn)}</div>`;
    };
  }

  componentDidMount() {
    addEventListener("resize", this.fit);
    this.fit();
  }

  componentWillUnmount() {
    removeEventListener("resize", this.fit);
  }

  render({ cards }, { columns }) {
    return html`<${Windowed} items=${cards} keyOf=${(c) => c.id} columns=${columns} estimate=${GUESS_PX} gap=${16}
      className=${(whole) => (whole ? "cards" : "card-rows")} row=${this.row} />`;
  }
}

// Whether a card passes the filters that stand in the address.
export const passes = ({ q, status, worker, pool }) => (c) =>
  (!status || (status === "differs" ? c.drift.length > 0 : c.status === status)) &&
  (!worker || c.workers.some((w) => w.status === worker)) &&
  (!pool || (pool === NO_POOL ? !c.member : c.member?.pool === pool)) &&
  matches(q, q ? textsOf(c) : []);

const NO_POOL = "-";

export const statusOptions = (cards) => [["differs", "with differences"], ...[...new Set(cards.map((c) => c.status))].sort().map((s) => [s, s])];

// All machines, members of pools too.
export function MachinesView({ store, filters }) {
  const { q, status, worker, pool } = filters;
  const all = cardsOf(store);
  const found = all.filter(passes(filters));
  const words = Object.keys(store.stats.workers.by_status);
  const pools = store.pools.list.map((p) => [p.name, p.name]);
  return html`
    <section id="machines" aria-labelledby="machines-title">
      <h1 class="view-title" id="machines-title">Machines</h1>
      <${FilterBar} shown=${found.length} of=${all.length} what="machines">
        <${Search} value=${q} what="machines" />
        <${Choice} name="status" label="Status" value=${status} options=${statusOptions(all)} />
        <${Choice} name="worker" label="With a worker that is" value=${worker} options=${words.map((w) => [w, w])} />
        ${pools.length ? html`<${Choice} name="pool" label="Pool" value=${pool} options=${[...pools, [NO_POOL, "none"]]} />` : null}
      </${FilterBar}>
      <h2 class="hidden">Cards</h2>
      ${found.length ? null : html`<p class="empty panel">${all.length ? "No machine fits these filters." : "No machine is desired, and none reports."}</p>`}
      <${Cards} cards=${found} />
    </section>
  `;
}

const textsOf = (c) => [
  c.id,
  c.status,
  c.member?.pool ?? "",
  c.member?.name ?? "",
  c.machine?.host ?? "",
  c.machine?.error ?? "",
  ...Object.keys(c.machine?.programs ?? {}),
  ...c.workers.flatMap((w) => [w.worker_id, w.status, w.current_job_id ?? "", ...Object.keys(w.connector_statuses)]),
];
