import { Component, html } from "../../ui/html.js";
import { Windowed } from "../../ui/windowed.js";
import { Card } from "./card.js";
import { Choice, FilterBar, matches, Search } from "../parts/filters.js";

const CARD_PX = 416;
const GUESS_PX = 420;

const ABSENT = "not reporting";
const order = (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

// What each machine's card shows: desired or reporting, by id. `trouble`: how much it needs a look.
export function cardsOf(store) {
  const ids = new Set([...store.desired.byKey.keys(), ...store.machines.byKey.keys()]);
  const jobs = store.active;
  return [...ids].map((id) => cardOf(store, id, jobs)).sort(order);
}

export function cardOf(store, id) {
  const machine = store.machines.get(id);
  const workers = store.workersBy.of(id);
  const drift = store.driftBy.of(id);
  return {
    id,
    machine,
    desired: store.desired.get(id),
    workers,
    drift,
    jobs: workers.map((w) => w.current_job_id && store.active.get(w.current_job_id)).filter(Boolean),
    status: wordOf(machine, drift),
    trouble: drift.length + (machine?.stale ? 100 : machine ? 0 : 50),
  };
}

// While these stand, what it reported last is of a former life, or of before it stood still.
const FORMER = /^(machine-(missing|booting)|container-(looping|paused|cut-off))$/;

function wordOf(machine, drift) {
  const now = drift.find((d) => FORMER.test(d.kind));
  if (now?.kind === "machine-booting") return now.observed.startsWith("restarting") ? now.observed : "starting";
  return now?.observed ?? machine?.status ?? ABSENT;
}

// All machines, of which only those on the screen are drawn.
export class MachinesView extends Component {
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

  render({ store, filters }, { columns }) {
    const { q, status, worker } = filters;
    const all = cardsOf(store);
    const found = all.filter(
      (c) =>
        (!status || (status === "differs" ? c.drift.length > 0 : c.status === status)) &&
        (!worker || c.workers.some((w) => w.status === worker)) &&
        matches(q, q ? textsOf(c) : []),
    );
    const statuses = [...new Set(all.map((c) => c.status))].sort();
    const words = Object.keys(store.stats.workers.by_status);
    return html`
      <section id="machines" aria-labelledby="machines-title">
        <h1 class="view-title" id="machines-title">Machines</h1>
        <${FilterBar} shown=${found.length} of=${all.length} what="machines">
          <${Search} value=${q} what="machines" />
          <${Choice} name="status" label="Status" value=${status} options=${[["differs", "with differences"], ...statuses.map((s) => [s, s])]} />
          <${Choice} name="worker" label="With a worker that is" value=${worker} options=${words.map((w) => [w, w])} />
        </${FilterBar}>
        <h2 class="hidden">Cards</h2>
        ${found.length ? null : html`<p class="empty panel">${all.length ? "No machine fits these filters." : "No machine is desired, and none reports."}</p>`}
        <${Windowed} items=${found} keyOf=${(c) => c.id} columns=${columns} estimate=${GUESS_PX} gap=${16}
          className=${(whole) => (whole ? "cards" : "card-rows")} row=${this.row} />
      </section>
    `;
  }
}

const textsOf = (c) => [
  c.id,
  c.status,
  c.machine?.host ?? "",
  c.machine?.error ?? "",
  ...Object.keys(c.machine?.programs ?? {}),
  ...c.workers.flatMap((w) => [w.worker_id, w.status, w.current_job_id ?? "", ...Object.keys(w.connector_statuses)]),
];
