import { html, Pure } from "../../ui/html.js";
import { href } from "../../ui/route.js";
import { serverNow, span, Time } from "../../state/time.js";
import { ui } from "../../ui/dialogs.js";
import { story } from "./story.js";

const SHOWN = 6;
const RECENT_MS = 15 * 60_000;

// What went lately, and how long it took.
export class HealedPanel extends Pure {
  render({ healed }) {
    const shown = healed.slice(0, SHOWN).filter((h) => serverNow() - h.at < RECENT_MS);
    if (!shown.length) return null;
    return html`
      <section class="panel" aria-labelledby="healed-title">
        <h2 id="healed-title"><a href=${href("timeline")}>Healed</a> <span class="muted small">in the last 15 minutes</span></h2>
        <${HealedList} healed=${shown} />
      </section>
    `;
  }
}

export const HealedList = ({ healed }) => html`
  <ol class="healed" aria-label="Recently healed">
    ${healed.map(
      (h) => html`<li key=${`${h.key} ${h.at}`} data-healed=${h.key}>
        <span class="tick" aria-hidden="true">✓</span>
        <span>
          <button class="quiet strong" onClick=${() => ui.open(story(h.key))}>${h.subject}</button>${" "}
          <span class="kind">${h.kind}</span> healed ${Number.isFinite(h.took_ms) ? `after ${span(h.took_ms)}` : ""}
        </span>
        <span class="muted small nowrap"><${Time} at=${h.at} /></span>
      </li>`,
    )}
  </ol>
`;
