// Times relative to the server's clock: this browser's may be wrong.
import { Component, html } from "../ui/html.js";
import { watch } from "./ticks.js";

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

// Short spans to the tenth: what healed in 0.3 s did not heal in no time.
export const span = (ms) => (ms < 10_000 ? `${(Math.max(0, ms) / 1000).toFixed(1)} s` : duration(ms));

const msOf = (at) => (typeof at === "number" ? at : Date.parse(at));
export const since = (at) => duration(serverNow() - msOf(at));
export const ago = (at) => `${since(at)} ago`;

export function until(at) {
  const ms = msOf(at) - serverNow();
  return ms <= 0 ? "now" : `in ${duration(ms)}`;
}

export function clock(at) {
  const d = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export const absolute = (at) => new Date(at).toLocaleString();

// A time in words that goes on by itself, with the absolute one as its title. `words`: ago, since or until.
export class Time extends Component {
  componentDidMount() {
    this.stop = watch(() => {
      const { at, words = ago } = this.props;
      if (words(at) !== this.shown) this.setState({});
    });
  }

  componentWillUnmount() {
    this.stop();
  }

  render({ at, words = ago }) {
    this.shown = words(at);
    const ms = msOf(at);
    if (Number.isNaN(ms)) return html`<span>at an unknown time</span>`;
    return html`<time datetime=${new Date(ms).toISOString()} title=${absolute(ms)}>${this.shown}</time>`;
  }
}
