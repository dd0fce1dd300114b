import { html } from "../../ui/html.js";
import { since, Time } from "../../state/time.js";
import { Badge, toneOf } from "../parts/badge.js";
import { ask, COMMANDS } from "../parts/commands.js";
import { programWord } from "../fleet/program.js";

const MARKS = { same: "=", missing: "−", surplus: "+", differs: "≠" };
const WORDS = { same: "as desired", missing: "missing", surplus: "not desired", differs: "differs" };

// Desired and observed side by side, line by line as in a diff; what differs stands first.
export function Diff({ card, generation }) {
  const lines = [...facts(card, generation), ...programs(card)];
  lines.sort((a, b) => (a.mark === "same") - (b.mark === "same"));
  const other = lines.filter((l) => l.mark !== "same").length;
  return html`
    <section class="panel" aria-labelledby="diff-title" id="diff">
      <h2 id="diff-title">Desired and observed <span class="muted small">${other ? `${other} of ${lines.length} lines differ` : "all the same"}</span></h2>
      <table class="diff">
        <thead>
          <tr><th scope="col"><span class="hidden">Differs?</span></th><th scope="col">What</th><th scope="col">Desired</th><th scope="col">Observed</th><th scope="col">Since</th><th scope="col">Restarts</th><th scope="col"><span class="hidden">Commands</span></th></tr>
        </thead>
        <tbody>
          ${lines.map((l) => html`<${Line} key=${l.name} line=${l} id=${card.id} />`)}
        </tbody>
      </table>
    </section>
  `;
}

const Line = ({ line, id }) => html`
  <tr class=${`line-${line.mark}`} data-line=${line.name} data-mark=${line.mark}>
    <td class="diff-mark"><span role="img" aria-label=${WORDS[line.mark]} title=${WORDS[line.mark]}>${MARKS[line.mark]}</span></td>
    <th scope="row">${line.name}</th>
    <td data-label="Desired"><span>${line.desired ?? "–"}</span></td>
    <td data-label="Observed">
      ${line.program ? html`<${State} line=${line} />` : html`<span>${line.observed ?? "–"}</span>`}
      ${line.program?.detail ? html`<div class="muted small">${line.program.detail}</div>` : null}
      ${line.mark === "differs" ? html`<${LastWords} end=${line.program?.last_end} />` : null}
      ${line.program?.port_taken_by ? html`<div class="trouble small">its port is taken by ${line.program.port_taken_by}</div>` : null}
    </td>
    <td data-label="Since" class="small">
      ${line.program?.since_ms ? html`<${Time} at=${line.program.since_ms} words=${since} />` : null}${line.program?.pid ? html`<span class="muted"> pid ${line.program.pid}</span>` : null}
    </td>
    <td data-label="Restarts" class="small">${line.program ? (line.program.restarts ?? 0) : ""}</td>
    <td>${line.program && line.desired ? html`<button class="quiet small" onClick=${() => ask(COMMANDS.program(id, line.name))} aria-label=${`restart ${line.name}`}>restart</button>` : null}</td>
  </tr>
`;

// What the process said last that ended before; how it ended is the drift's to say.
const LastWords = ({ end }) =>
  end?.lines?.length ? html`<pre class="words" aria-label="its last words">${end.lines.join("\n")}</pre>` : null;

// A program that runs, and still is not as desired, is told in the drift's words.
function State({ line }) {
  const word = programWord(line.program);
  if (line.mark !== "differs" || toneOf(word) !== "ok") return html`<${Badge} word=${word} small />`;
  return html`<${Badge} word=${line.told?.toLowerCase() || word} tone="wait" small />`;
}

function facts({ machine, desired }, generation) {
  const line = (name, want, got) => ({
    name,
    desired: want === undefined ? null : String(want),
    observed: got === undefined ? null : String(got),
    mark: want === undefined ? "surplus" : got === undefined ? "missing" : want === got ? "same" : "differs",
  });
  return [
    line("generation", desired && generation, machine?.generation),
    line("GPU slots", desired?.num_gpus, machine?.num_gpus),
    line("status", desired && "ready", machine?.status),
  ];
}

// What a program should be is the drift's word where there is one: it knows.
function programs({ machine, desired, drift }) {
  const wanted = desired?.programs ?? [];
  const reported = machine?.programs ?? {};
  const told = new Map(drift.filter((d) => d.program).map((d) => [d.program, d]));
  return [...new Set([...wanted, ...Object.keys(reported)])].map((name) => {
    const program = reported[name];
    const is = told.get(name);
    const should = wanted.includes(name) ? (is?.desired ?? (once(name) ? "done" : "running")) : null;
    const mark = should === null ? "surplus" : !program ? "missing" : is || !well(program) ? "differs" : "same";
    return { name, program, told: is?.observed, desired: should, observed: program ? undefined : "not there", mark };
  });
}

const once = (name) => name === "shared-setup" || name.endsWith("-installer");
const well = (p) => ["running", "done"].includes(programWord(p));
