import { html } from "../../ui/html.js";
import { Badge } from "../parts/badge.js";

// supervisord's word, except where the health check or the exit status says more.
export function programWord(program) {
  if (!program) return "missing";
  const { state, healthy, exit_status: exit } = program;
  if (state === "EXITED") return exit === 0 ? "done" : `exited ${exit ?? "?"}`;
  if (state === "RUNNING" && healthy === false) return "unhealthy";
  return state.toLowerCase();
}

export const restartsOf = (program) =>
  program?.restarts ? `${program.restarts} restart${program.restarts === 1 ? "" : "s"}` : "";

export function ProgramBadge({ name, program, word }) {
  const title = [program?.pid && `pid ${program.pid}`, program?.detail, restartsOf(program)].filter(Boolean).join(", ");
  return html`<li data-program=${name}><${Badge} word=${word} label=${name} title=${title} small /></li>`;
}
