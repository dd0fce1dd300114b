import { html } from "../../ui/html.js";
import { ui } from "../../ui/dialogs.js";

// A click copies it. Where the browser has no clipboard for us, the text can still be selected.
export function Copy({ text, what }) {
  if (!text) return html`<span class="muted">–</span>`;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      ui.say(`copied ${text}`);
    } catch {
      ui.say(`this browser does not let a page copy: ${text}`, "wait");
    }
  };
  return html`<button class="quiet mono" onClick=${copy} title=${`copy this ${what}`}>${text}</button>`;
}
