import { html, Pure } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { Time, until } from "../../state/time.js";
import { ui } from "../../ui/dialogs.js";
import { forAPerson } from "../../state/verdict.js";
import { Windowed } from "../../ui/windowed.js";
import { Copy } from "../parts/copy.js";
import { story } from "./story.js";

export function DriftPanel({ drift, max }) {
  return html`
    <section class="panel" aria-labelledby="drift-title" id="drift">
      <h2 id="drift-title"><a href=${href("drift")}>Drift</a> <span class="count">${drift.length}</span></h2>
      <${DriftTable} drift=${drift.slice(0, max)} empty="Nothing differs." />
      ${drift.length > max
        ? html`<p class="more"><a href=${href("drift")}>${drift.length - max} more differences</a></p>`
        : null}
    </section>
  `;
}

const COLUMNS = ["Subject", "Desired → observed", "Since", "Cause", "What emp does", "From"];

export function DriftTable({ drift, empty }) {
  if (!drift.length) return html`<p class="empty">${empty}</p>`;
  return html`<table class="drift" aria-rowcount=${drift.length + 1}>
    <thead>
      <tr>
        ${COLUMNS.map((name) => html`<th scope="col" key=${name}>${name}</th>`)}
      </tr>
    </thead>
    <${Windowed} tag="tbody" items=${drift} keyOf=${(d) => d.key} estimate=${72} row=${(d) => html`<${Row} key=${d.key} d=${d} />`} />
  </table>`;
}

class Row extends Pure {
  render({ d }) {
    return html`
      <tr data-key=${d.key} data-nav tabindex="-1">
        <td data-label="Subject">
          <button class="quiet subject" data-open onClick=${() => ui.open(story(d.key))} title="what was decided and tried">${d.subject}</button>
          <div class="muted small">
            ${d.machine_id === d.subject ? null : html`<a href=${href("machines", d.machine_id)}>${d.machine_id}</a>${" · "}`}<span class="kind">${d.kind}</span>
          </div>
        </td>
        <td data-label="Desired → observed" class="values">
          <span class="want">${d.desired}</span> <span class="arrow" role="img" aria-label="but is">→</span>${" "}
          <span class="got">${d.observed}</span>
        </td>
        <td data-label="Since" class="nowrap"><${Time} at=${d.since} /></td>
        <td data-label="Cause"><div>${d.cause}</div></td>
        <td data-label="Action"><${Action} d=${d} /></td>
        <td data-label="From" class="nowrap"><${Copy} text=${d.origin} what="place in emp.yaml" /></td>
      </tr>
    `;
  }
}

// A plan's line is "verb resource  (effect): cause  [origin]"; machine, cause and origin stand beside it already.
function deed({ action, machine_id: machine, subject }) {
  const [, what, effect] = action.match(/^(.*?)  \(([^)]*)\)/) ?? [];
  if (!what) return action;
  const short = subject === machine ? what : what.replace(` ${machine} `, " ");
  return what.startsWith(effect) ? short : `${short} (${effect})`;
}

function Action({ d }) {
  const attempts = d.attempts ? `${d.attempts} attempt${d.attempts === 1 ? "" : "s"}` : "";
  return html`<div>
    ${d.action ? html`<div title=${d.action}>${deed(d)}</div>` : null}
    ${d.held ? html`<div class=${forAPerson(d.held) ? "trouble strong" : d.action ? "held" : ""}>${d.held}</div>` : null}
    ${!d.action && !d.held ? html`<div class="muted">nothing: it is shown only</div>` : null}
    ${d.failed ? html`<div class="trouble small">last attempt: ${d.failed}</div>` : null}
    ${attempts || d.next_attempt
      ? html`<div class="muted small">
          ${attempts}${attempts && d.next_attempt ? " · " : null}${d.next_attempt ? html`next <${Time} at=${d.next_attempt} words=${until} />` : null}
        </div>`
      : null}
  </div>`;
}
