import { html } from "../html.js";
import { absolute, duration, since, until } from "../time.js";

export function Drift({ drift, healed }) {
  return html`
    <section class="panel" aria-labelledby="drift-title" id="drift">
      <h2 id="drift-title">Drift <span class="count">${drift.length}</span></h2>
      ${drift.length
        ? html`<table class="drift">
            <thead>
              <tr>
                <th scope="col">Subject</th>
                <th scope="col">Desired → observed</th>
                <th scope="col">Since</th>
                <th scope="col">Cause</th>
                <th scope="col">What emp does</th>
                <th scope="col">From</th>
              </tr>
            </thead>
            <tbody>
              ${drift.map((d) => html`<${Row} key=${d.key} d=${d} />`)}
            </tbody>
          </table>`
        : html`<p class="empty">Nothing differs.</p>`}
      ${healed.length ? html`<${Healed} healed=${healed} />` : null}
    </section>
  `;
}

const Row = ({ d }) => html`
  <tr data-key=${d.key}>
    <td data-label="Subject">
      <div class="subject">${d.subject}</div>
      <div class="muted small">
        ${d.machine_id === d.subject ? null : html`<span>${d.machine_id} · </span>`}<span class="kind">${d.kind}</span>
      </div>
    </td>
    <td data-label="Desired → observed" class="values">
      <span class="want">${d.desired}</span> <span class="arrow" aria-label="but is">→</span>${" "}
      <span class="got">${d.observed}</span>
    </td>
    <td data-label="Since" class="nowrap" title=${absolute(d.since)}>${since(d.since)}</td>
    <td data-label="Cause">${d.cause}</td>
    <td data-label="Action"><${Action} d=${d} /></td>
    <td data-label="From" class="nowrap"><code>${d.origin || "–"}</code></td>
  </tr>
`;

function Action({ d }) {
  const attempts = d.attempts ? `${d.attempts} attempt${d.attempts === 1 ? "" : "s"}` : "";
  const next = d.next_attempt ? `next ${until(d.next_attempt)}` : "";
  return html`<div>
    ${d.action ? html`<div>${d.action}</div>` : null}
    ${d.held ? html`<div class=${d.action ? "held" : ""}>${d.held}</div>` : null}
    ${attempts || next ? html`<div class="muted small">${[attempts, next].filter(Boolean).join(" · ")}</div>` : null}
  </div>`;
}

const Healed = ({ healed }) => html`
  <ul class="healed" aria-label="Recently healed">
    ${healed.map(
      ({ drift, at }) => html`<li key=${drift.key}>
        <span class="tick" aria-hidden="true">✓</span>
        <span><b>${drift.subject}</b> <span class="kind">${drift.kind}</span> healed after ${duration(at - Date.parse(drift.since))}</span>
      </li>`,
    )}
  </ul>
`;
