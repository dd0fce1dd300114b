// Where the page is: `#/machines/ID?q=text`. Views and their filters are links, and back goes back.
// Pools are a view of fleets that have some.
export const VIEWS = ["overview", "drift", "machines", "pools", "jobs", "timeline"];

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, id = ""] = path.split("/").map(decoded);
  return { view: VIEWS.includes(view) ? view : "overview", id, filters: Object.fromEntries(new URLSearchParams(query)) };
}

export function href(view, id = "", filters = {}) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value)).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${query ? `?${query}` : ""}`;
}

export const here = () => parse(location.hash);

// At once: the browser tells of another hash only later, and who types fast means the view that comes.
export function go(view, id, filters) {
  history.pushState(null, "", href(view, id, filters));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

// Changing a filter is no step to go back to.
export function setFilter(name, value) {
  const { view, id, filters } = here();
  history.replaceState(null, "", href(view, id, { ...filters, [name]: value }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
