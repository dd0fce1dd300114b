import { html } from "../html.js";

// Every state has its own word; the colour only helps.
const TONES = {
  ok: ["ready", "idle", "running", "completed", "done"],
  busy: ["busy", "active", "in_progress", "assigned"],
  wait: ["starting", "configuring", "initializing", "stopping", "draining", "backoff", "pending", "paused", "not probed"],
  bad: ["error", "fatal", "failed", "unhealthy", "timeout", "unworkable", "missing"],
};
const TONE_OF = new Map(Object.entries(TONES).flatMap(([tone, words]) => words.map((word) => [word, tone])));

export const toneOf = (word) => TONE_OF.get(word.toLowerCase()) ?? "off";

export const Badge = ({ word, label, title, small }) => html`
  <span class=${`badge tone-${toneOf(word)} ${small ? "small" : ""}`} title=${title}>
    <span class="dot" aria-hidden="true"></span>${label ? html`<span class="badge-label">${label}</span>${" "}` : null}
    <span class="badge-word">${word.replace("_", " ")}</span>
  </span>`;
