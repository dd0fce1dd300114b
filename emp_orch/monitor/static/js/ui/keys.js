// The keyboard: what `?` lists. Nothing is taken from a field that is being typed into.
import { go, here, setFilter } from "./route.js";
import { ui } from "./dialogs.js";
import { help } from "../views/help.js";

const GO_MS = 1_500;
const PLACES = { o: "overview", d: "drift", m: "machines", p: "pools", j: "jobs", t: "timeline" };

const typing = (target) => target.matches("input, textarea, select, [contenteditable]");
let gone = -Infinity; // when `g` was pressed

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape") return escape(event);
    if (typing(event.target) || ui.dialog) return;
    if (pressed(event.key)) event.preventDefault();
  });
}

// Whether the key meant something.
function pressed(key) {
  const place = performance.now() - gone < GO_MS ? PLACES[key] : undefined;
  gone = key === "g" ? performance.now() : -Infinity;
  if (place) return go(place), true;
  switch (key) {
    case "/":
      return search();
    case "?":
      return ui.open(help), true;
    case "j":
      return step(1);
    case "k":
      return step(-1);
    case "Enter":
      return enter();
    case "t":
      return window.empTheme.toggle(), true;
    default:
      return key === "g";
  }
}

// A dialog closes: here and at once, because the browser hides it first and tells of it later, and the keys in between
// would be lost. In the search field the text goes; from a machine's or a pool's page, back to all.
function escape(event) {
  if (ui.dialog) {
    event.preventDefault();
    return ui.close();
  }
  if (event.target.matches("input[type=search]")) {
    setFilter("q", "");
    event.target.blur();
  } else if (here().id) go(here().view);
}

function search() {
  const field = document.querySelector("input[type=search]");
  field?.focus();
  field?.select();
  return true;
}

function step(by) {
  const rows = [...document.querySelectorAll("[data-nav]")];
  if (!rows.length) return false;
  const at = rows.indexOf(document.activeElement?.closest("[data-nav]"));
  const next = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

function enter() {
  const row = document.activeElement;
  if (!row?.matches("[data-nav]")) return false;
  row.querySelector("[data-open]")?.click();
  return true;
}
