import { html } from "../html.js";
import { Drift } from "./drift.js";
import { Events } from "./events.js";
import { Jobs } from "./jobs.js";
import { Machines } from "./machines.js";
import { Summary } from "./summary.js";
import { TokenForm } from "./token.js";
import { Top } from "./top.js";
import { NEEDS_TOKEN, STALE } from "../store.js";

export function App({ store, onToken }) {
  const { state, connection } = store;
  const body =
    connection.phase === NEEDS_TOKEN
      ? html`<${TokenForm} why=${connection.why} onToken=${onToken} />`
      : state
        ? html`<${Page} store=${store} />`
        : html`<p class="boot">Waiting for the first state…</p>`;
  return html`
    <${Top} store=${store} />
    <main class=${connection.phase === STALE ? "stale" : ""}>${body}</main>
  `;
}

const Page = ({ store }) => html`
  <${Summary} store=${store} />
  <div class="columns">
    <div class="wide">
      <${Drift} drift=${store.state.drift} healed=${store.healed} />
      <${Machines} state=${store.state} />
    </div>
    <aside class="side">
      <${Jobs} jobs=${store.state.jobs} />
      <${Events} events=${store.events} />
    </aside>
  </div>
`;
