import { path } from "../../net/api.js";
import { Component, html } from "../../ui/html.js";
import { authorization } from "../../net/token.js";

const SPACING_MS = 500;
const AWAY_MS = 5_000;

// What a running job looks like by now. The API answers as soon as there is another picture than the one shown; an
// image cannot send a token, so the bytes are fetched, and given to the browser as a blob of their type.
export class Preview extends Component {
  constructor() {
    super();
    this.state = { src: null };
    this.tag = null;
  }

  componentDidMount() {
    this.stop = new AbortController();
    this.#follow();
  }

  componentWillUnmount() {
    this.stop.abort();
    clearTimeout(this.later);
    if (this.state.src) URL.revokeObjectURL(this.state.src);
  }

  async #follow() {
    const wait = document.hidden ? SPACING_MS : await this.#ask();
    if (!this.stop.signal.aborted) this.later = setTimeout(() => this.#follow(), wait);
  }

  async #ask() {
    const { signal } = this.stop;
    try {
      const headers = { ...authorization(), ...(this.tag ? { "If-None-Match": this.tag } : {}) };
      const answer = await fetch(path("jobs", this.props.id, "preview"), { headers, signal, cache: "no-store" });
      const type = answer.headers.get("Content-Type");
      if (answer.status === 200) {
        const src = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type }));
        if (signal.aborted) URL.revokeObjectURL(src);
        else this.#show(src, answer.headers.get("ETag"));
      }
      return answer.ok || answer.status === 304 ? SPACING_MS : AWAY_MS;
    } catch {
      return AWAY_MS;
    }
  }

  #show(src, tag) {
    const before = this.state.src;
    this.tag = tag;
    this.setState({ src }, () => before && URL.revokeObjectURL(before));
  }

  render(_, { src }) {
    return src ? html`<img class="preview" src=${src} alt="what the run looks like by now" />` : null;
  }
}
