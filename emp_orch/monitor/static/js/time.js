// Times relative to the server's clock: this browser's may be wrong.
let offsetMs = 0;

export function setServerTime(text) {
  const at = Date.parse(text);
  if (!Number.isNaN(at)) offsetMs = at - Date.now();
}

export const serverNow = () => Date.now() + offsetMs;

export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const since = (text) => duration(serverNow() - Date.parse(text));
export const ago = (text) => `${since(text)} ago`;

export function until(text) {
  const ms = Date.parse(text) - serverNow();
  return ms <= 0 ? "now" : `in ${duration(ms)}`;
}

export function clock(at) {
  const d = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export const absolute = (text) => new Date(text).toLocaleString();
