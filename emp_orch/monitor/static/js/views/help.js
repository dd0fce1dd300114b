import { html } from "../ui/html.js";
import { Dialog } from "./parts/dialog.js";

const KEYS = [
  ["/", "search"],
  ["j  k", "next and previous row or card"],
  ["Enter", "open it"],
  ["Esc", "close the dialog, empty the search, leave a machine's or a pool's page"],
  ["g o", "overview"],
  ["g d", "drift"],
  ["g m", "machines"],
  ["g p", "pools"],
  ["g j", "jobs"],
  ["g t", "timeline"],
  ["t", "dark or light"],
  ["?", "this"],
];

export const help = ({ close }) => html`
  <${Dialog} title="Keys and words" close=${close}>
    <dl class="keys">
      ${KEYS.map(([keys, what]) => html`<div key=${keys}><dt>${keys.split("  ").map((k) => html`<kbd>${k}</kbd>`)}</dt><dd>${what}</dd></div>`)}
    </dl>
    <p class="muted">
      Drift is a difference between emp.yaml and what runs. emp removes it by itself, unless it says what holds it: a pause,
      a budget, the breaker. A click on a subject tells its story: what was decided and tried.
    </p>
    <p class="muted">Times count on by the server's clock; hover for the absolute one. Filters stand in the address: send it to somebody.</p>
  </${Dialog}>
`;
