// Filters of a view; they stand in the address, so that a link shows the same.
import { html } from "../../ui/html.js";
import { here, href, setFilter } from "../../ui/route.js";

// Whether every word of `q` stands in one of the texts.
export function matches(q, texts) {
  if (!q) return true;
  const all = texts.join("\n").toLowerCase();
  return q.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

export const FilterBar = ({ shown, of, what, children }) => html`
  <div class="filters" role="search">
    ${children}
    <span class="muted small" role="status" id="shown">${shown === of ? `${of} ${what}` : `${shown} of ${of} ${what}`}</span>
    ${shown === of ? null : html`<a class="small" href=${href(here().view, here().id)}>show all</a>`}
  </div>
`;

export const Search = ({ value = "", what }) => html`
  <input type="search" placeholder="Search  /" aria-label=${`Search ${what}`} value=${value}
    autocomplete="off" spellcheck=${false} onInput=${(e) => setFilter("q", e.target.value)} />
`;

// `options`: [value, words]; `all`: the words for none. A value that is chosen and no more there stays in the list.
export function Choice({ name, label, value = "", options, all = "all" }) {
  const known = options.some(([v]) => v === value) || !value ? options : [...options, [value, value]];
  return html`<label class="choice">
    <span class="small muted">${label}</span>
    <select value=${value} onChange=${(e) => setFilter(name, e.target.value)} data-filter=${name}>
      <option value="" selected=${!value}>${all}</option>
      ${known.map(([v, words]) => html`<option key=${v} value=${v} selected=${v === value}>${words}</option>`)}
    </select>
  </label>`;
}
