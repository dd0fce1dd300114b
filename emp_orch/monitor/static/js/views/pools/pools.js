import { html } from "../../ui/html.js";
import { PoolPanel } from "./panel.js";

// All pools.
export const PoolsView = ({ store }) => html`
  <h1 class="view-title">Pools</h1>
  ${store.pools.list.length ? null : html`<p class="empty panel">emp.yaml names no pool.</p>`}
  <div class="wide">${store.pools.list.map((pool) => html`<${PoolPanel} key=${pool.name} store=${store} pool=${pool} />`)}</div>
`;
