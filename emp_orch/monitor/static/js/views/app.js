import { html } from "../ui/html.js";
import { NEEDS_TOKEN, STALE } from "../state/store.js";
import { ui } from "../ui/dialogs.js";
import { DriftView } from "./drift/drift_view.js";
import { JobsView } from "./jobs/jobs.js";
import { MachinePage } from "./fleet/machine.js";
import { MachinesView } from "./fleet/machines.js";
import { PoolPage } from "./pools/pool.js";
import { PoolsView } from "./pools/pools.js";
import { Overview } from "./overview.js";
import { Timeline } from "./timeline.js";
import { TokenForm } from "./token.js";
import { Top } from "./top.js";

const VIEWS = { overview: Overview, drift: DriftView, machines: MachinesView, pools: PoolsView, jobs: JobsView, timeline: Timeline };

// Of one thing of a view.
const PAGES = { machines: MachinePage, pools: PoolPage };

export function App({ store, past, route, onToken }) {
  const { connection } = store;
  const View = (route.id && PAGES[route.view]) || VIEWS[route.view];
  const body =
    connection.phase === NEEDS_TOKEN
      ? html`<${TokenForm} why=${connection.why} onToken=${onToken} />`
      : store.known
        ? html`<${View} key=${`${route.view}/${route.id}`} store=${store} past=${past} filters=${route.filters} id=${route.id} />`
        : html`<p class="boot">Waiting for the first state…</p>`;
  return html`
    <button class="skip" onClick=${() => document.getElementById("main").focus()}>To the content</button>
    <${Top} store=${store} route=${route} />
    <main id="main" tabindex="-1" class=${connection.phase === STALE ? "stale" : ""}>${body}</main>
    ${ui.dialog ? ui.dialog({ close: () => ui.close(), store }) : null}
    <div id="toast" role="status">${ui.toast ? html`<p class=${`toast tone-${ui.toast.tone}`}>${ui.toast.words}</p>` : null}</div>
  `;
}
