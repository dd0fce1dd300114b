import { html } from "../../ui/html.js";
import { Remote } from "../../net/remote.js";
import { clock, span, Time, until } from "../../state/time.js";
import { Copy } from "../parts/copy.js";
import { Dialog } from "../parts/dialog.js";

// One drift by its key: what stands, what was decided and tried, former times.
export const story =
  (key) =>
  ({ close }) => {
    const parts = key.split("/");
    // A subject may hold a slash, a kind and a machine's id do not.
    const url = `/api/drift/${[parts[0], parts[1], parts.slice(2).join("/")].map(encodeURIComponent).join("/")}`;
    return html`<${Dialog} title=${parts.slice(2).join("/") || key} close=${close} wide>
      <${Remote} url=${url} every=${2_000}>
        ${({ data, error }) =>
          data ? html`<${Story} s=${data} />` : html`<p class=${error ? "problem" : "muted"}>${error || "Asking…"}</p>`}
      </${Remote}>
    </${Dialog}>`;
  };

const Story = ({ s }) => html`
  <div id="story">
    <p class="facts-line"><span class="kind">${s.kind}</span> on ${s.machine_id} · <${Copy} text=${s.last.origin} what="place in emp.yaml" /></p>
    <p class="values big">
      <span class="want">${s.last.desired}</span> <span class="arrow">→</span> <span class="got">${s.last.observed}</span>
    </p>
    <p>${s.last.cause}</p>
    ${s.last_words?.length ? html`<pre class="words" aria-label="its last words">${s.last_words.join("\n")}</pre>` : null}
    <p>
      ${s.stands
        ? html`<b>Stands</b> since <${Time} at=${s.last.opened} />. ${[s.action, s.held].filter(Boolean).join(": ")}
            ${s.next_attempt ? html`${" "}Next attempt <${Time} at=${s.next_attempt} words=${until} />.` : null}`
        : html`<b>Healed</b> <${Time} at=${s.last.closed} />${s.last.healed_after_ms === null ? "" : `, after ${span(s.last.healed_after_ms)}`}.`}
    </p>
    ${s.can_do.length ? html`<h3>What you can do</h3><ul class="plain">${s.can_do.map((w) => html`<li key=${w}>${w}</li>`)}</ul>` : null}
    <h3>What was decided and tried</h3>
    <${Steps} o=${s.last} />
    ${s.earlier.length
      ? html`<h3>Earlier: ${s.times - 1} time${s.times === 2 ? "" : "s"}</h3>
          <ul class="plain">
            ${s.earlier.map(
              (o) => html`<li key=${o.opened}><${Time} at=${o.opened} />: ${o.observed}${o.healed_after_ms === null ? "" : `, healed after ${span(o.healed_after_ms)}`}</li>`,
            )}
          </ul>`
      : null}
  </div>
`;

function Steps({ o }) {
  const steps = [
    ...o.decisions.map((d) => ({ at: d.at, words: `decided: ${d.decision}` })),
    ...o.tries.map((t) => ({
      at: t.begun,
      words: `${t.text} – ${t.outcome || "under way"}${t.error ? `: ${t.error}` : ""}${t.hint ? ` (${t.hint})` : ""}`,
    })),
  ].sort((a, b) => Date.parse(a.at) - Date.parse(b.at));
  if (!steps.length) return html`<p class="muted">Nothing yet.</p>`;
  return html`<ol class="steps">
    ${steps.map((s, i) => html`<li key=${i}><span class="muted small">${clock(s.at)}</span> <span>${s.words}</span></li>`)}
  </ol>`;
}
