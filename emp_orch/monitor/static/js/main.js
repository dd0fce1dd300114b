import { html, render } from "./html.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { serverNow } from "./time.js";
import { App } from "./view/app.js";

const TICK_MS = 1_000;

const store = new Store();
const stream = new Stream(store);
const root = document.getElementById("app");
let scheduled = false;

function draw() {
  scheduled = false;
  store.forgetOldHealed(serverNow());
  render(html`<${App} store=${store} onToken=${(token) => stream.useToken(token)} />`, root);
}

// At most once a frame, and not at all while nobody looks.
function schedule() {
  if (scheduled || document.hidden) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

root.replaceChildren();
store.subscribe(schedule);
document.addEventListener("visibilitychange", schedule);
setInterval(schedule, TICK_MS);
draw();
stream.start();
