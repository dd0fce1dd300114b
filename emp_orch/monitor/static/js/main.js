import { History } from "./state/history.js";
import { html, render } from "./ui/html.js";
import { listen } from "./ui/keys.js";
import { here } from "./ui/route.js";
import { Store } from "./state/store.js";
import { Stream } from "./net/stream.js";
import { serverNow } from "./state/time.js";
import { ui } from "./ui/dialogs.js";
import { App } from "./views/app.js";

// Changes come in bursts: this long they are gathered before the page is drawn again.
const SPACING_MS = 100;

const store = new Store();
const stream = new Stream(store);
const past = new History(store, serverNow);
const root = document.getElementById("app");
let scheduled = false;
let drawn = 0;

function draw() {
  scheduled = false;
  drawn = performance.now();
  render(html`<${App} store=${store} past=${past} route=${here()} onToken=${(token) => stream.useToken(token)} />`, root);
}

// Not at all while nobody looks: what came meanwhile is drawn on return.
function schedule() {
  if (scheduled || document.hidden) return;
  scheduled = true;
  const wait = drawn + SPACING_MS - performance.now();
  if (wait > 0) setTimeout(() => requestAnimationFrame(frame), wait);
  else requestAnimationFrame(frame);
}

// It may come when the tab has been hidden meanwhile.
function frame() {
  scheduled = false;
  if (!document.hidden) draw();
}

root.replaceChildren();
store.subscribe(schedule);
// What somebody does shows at once.
ui.onChange = draw;
addEventListener("hashchange", draw);
document.addEventListener("visibilitychange", () => {
  // A frame that was asked for before the tab was hidden may come late or never, and draws nothing then.
  scheduled = false;
  schedule();
});
// For whoever opens the browser's console.
window.emp = { store };
listen();
draw();
stream.start();
