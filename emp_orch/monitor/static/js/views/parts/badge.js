import { html } from "../../ui/html.js";

// Every state has its own word and each tone its own mark; the colour only helps.
const TONES = {
  ok: ["ready", "idle", "running", "completed", "done"],
  busy: ["busy", "active", "in_progress", "assigned"],
  wait: ["starting", "configuring", "initializing", "stopping", "draining", "backoff", "pending", "paused", "not probed", "expected", "leaving"],
  bad: ["error", "fatal", "failed", "unhealthy", "timeout", "unworkable", "missing", "silent"],
};
const TONE_OF = new Map(Object.entries(TONES).flatMap(([tone, words]) => words.map((word) => [word, tone])));
const MARKS = { ok: "✓", busy: "▶", wait: "…", bad: "✕", off: "○" };

export const toneOf = (word) => TONE_OF.get(word.toLowerCase()) ?? (/^(exited|restarting|not running|cut off)/.test(word) ? "bad" : "off");

export const Badge = ({ word, label, title, small, tone = toneOf(word) }) => html`
  <span class=${`badge tone-${tone} ${small ? "small" : ""}`} title=${title}>
    <span class="mark" aria-hidden="true">${MARKS[tone]}</span>${label ? html`<span class="badge-label">${label}</span>${" "}` : null}
    <span class="badge-word">${word.replace("_", " ")}</span>
  </span>`;
