import { Component, html } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { Remote } from "../../net/remote.js";
import { absolute, clock, serverNow } from "../../state/time.js";
import { Windowed } from "../../ui/windowed.js";

const TYPES = [
  ...["member_asked", "member_joined", "preempted", "member_removed", "member_forgotten"],
  ...["pool_resized", "scaled", "scale_lifted"],
];
const LIMIT = 500;
const SHOWN = 12;

// Who came and went, and why the size was changed: of the journal, newest first. Read again when the stream tells of
// a member, or the leader of another size.
export function History({ store, name, pool }) {
  const url = `/api/journal?pool=${encodeURIComponent(name)}&type=${TYPES.join(",")}&limit=${LIMIT}`;
  const last = store.events.list.findLast((e) => e.data.pool === name)?.id ?? "";
  const trigger = [last, pool.wanted, pool.there, pool.leaving, pool.order].join(" ");
  return html`
    <section class="panel" id="history" aria-labelledby="history-title">
      <h2 id="history-title">Who came and went</h2>
      <${Remote} url=${url} trigger=${trigger}>
        ${({ data, error }) =>
          !data
            ? html`<p class=${error ? "problem" : "empty"}>${error || "Asking…"}</p>`
            : data.length
              ? html`<${Entries} entries=${data.toReversed()} />`
              : html`<p class="empty">Nobody yet.</p>`}
      </${Remote}>
    </section>
  `;
}

class Entries extends Component {
  constructor() {
    super();
    this.state = { all: false };
    this.more = () => this.setState({ all: true });
  }

  render({ entries }, { all }) {
    const shown = all ? entries : entries.slice(0, SHOWN);
    return html`
      <${Windowed} tag="ol" items=${shown} keyOf=${(e) => e.id} estimate=${32} className=${() => "events long"}
        row=${(e) => html`<${Line} key=${e.id} e=${e} />`} />
      ${shown.length < entries.length ? html`<p class="more"><button class="quiet" onClick=${this.more}>${entries.length - shown.length} more</button></p>` : null}
    `;
  }
}

const Line = ({ e }) => {
  const [what, why] = (WORDS[e.type] ?? (() => [e.type, ""]))(e.data);
  const { machine_id: id } = e.data;
  return html`<li data-entry=${e.type}>
    <time datetime=${e.at} title=${absolute(e.at)}>${when(e.at)}</time>
    <div class="wrap">${id ? html`<a class="strong" href=${href("machines", id)}>${id}</a>${" "}` : null}<b>${what}</b>${why ? html`${" "}<span class="muted">${why}</span>` : null}</div>
  </li>`;
};

const TODAY_MS = 20 * 3_600_000;
const when = (at) => (serverNow() - Date.parse(at) < TODAY_MS ? clock(at) : new Date(at).toLocaleDateString(undefined, { month: "short", day: "numeric" }));

const jobs = (count) => (count ? `; ${count} job${count === 1 ? "" : "s"} went back` : "");
const said = ({ reason, by }) => `${reason || "no reason given"}${by ? ` (by ${by})` : ""}`;

// [what happened, why]
const WORDS = {
  member_asked: ({ reason }) => ["asked for", reason],
  member_joined: ({ how, name }) => [how === "came back" ? "came back" : "joined", name ? `calls itself ${name}` : ""],
  preempted: ({ why, returned }) => ["left in good order", `${why || "it was told to end"}${jobs(returned)}`],
  member_removed: ({ reason }) => ["removed", reason],
  member_forgotten: ({ how, why }) => [`forgotten: ${how}`, why],
  pool_resized: ({ from, to, reason }) => [from === null ? `wants ${to}` : `wants ${to}, not ${from}`, reason],
  scaled: ({ size, ...order }) => [`held at ${size}`, said(order)],
  scale_lifted: (order) => ["follows its queue again", `it was held: ${said(order)}`],
};
