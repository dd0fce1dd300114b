import { Component, html } from "../../ui/html.js";
import { clock, span } from "../../state/time.js";

// The last start of a machine, step by step with durations, from its events.
export class Startup extends Component {
  shouldComponentUpdate(next) {
    return next.id !== this.props.id || next.boot !== this.props.boot || next.events !== this.props.events;
  }

  render({ id, events }) {
    const rows = lastStart(events.filter((e) => e.data.machine_id === id));
    return html`
      <section class="panel" aria-labelledby="startup-title" id="startup">
        <h2 id="startup-title">Start-up ${rows.total === null ? null : html`<span class="muted small">ready after ${span(rows.total)}</span>`}</h2>
        ${rows.steps.length
          ? html`<ol class="startup">
              ${rows.steps.map(
                (s, i) => html`<li key=${i} class=${`startup-${s.type}`}>
                  <span class="muted small">${clock(s.at)}</span>
                  <span>${s.words}</span>
                  <span class="small nowrap">${s.took === null ? "under way" : span(s.took)}</span>
                  <progress max=${rows.whole} value=${s.took ?? rows.whole} aria-hidden="true"></progress>
                </li>`,
              )}
            </ol>`
          : html`<p class="empty">The events that are kept do not go back to its start.</p>`}
      </section>
    `;
  }
}

const STARTING = new Set(["machine_startup", "startup_step", "service_started", "startup_complete"]);

// A step lasts until the next begins, and steps of services, which begin together, until all of them have; a service took
// as long as since its step began.
function lastStart(events) {
  const told = events.filter((e) => STARTING.has(e.type)).map((e) => ({ ...e, ms: Date.parse(e.at) }));
  const from = told.findLastIndex((e) => e.type === "machine_startup" && e.data.phase === "starting");
  const start = from < 0 ? [] : told.slice(from);
  const end = start.find((e) => e.type === "startup_complete") ?? start.find((e) => e.data.phase === "ready");
  const begun = start.filter((e) => e.type === "startup_step");
  const steps = start
    .filter((e) => e.type === "startup_step" || e.type === "service_started")
    .map((e) => {
      if (e.type === "startup_step") {
        const next = begun.find((s) => s.ms > e.ms && !(ofServices(s) && ofServices(e))) ?? end;
        return { type: "step", at: e.at, words: words(e.data.step), took: next ? next.ms - e.ms : null };
      }
      const step = begun.findLast((s) => s.ms <= e.ms) ?? start[0];
      return { type: "service", at: e.at, words: `${e.data.service} up`, took: e.ms - step.ms };
    });
  const total = end ? end.ms - start[0].ms : null;
  return { steps, total, whole: total ?? Math.max(1, ...steps.map((s) => s.took ?? 0)) };
}

const ofServices = (e) => String(e.data.step).endsWith("_services_starting");

const words = (step = "") => String(step).replace(/_starting$/, "").replaceAll("_", " ");
