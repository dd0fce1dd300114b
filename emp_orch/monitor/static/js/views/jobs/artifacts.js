import { Component, html } from "../../ui/html.js";
import { authorization } from "../../net/token.js";

// Shown in place; SVG holds scripts, and everything else is a download.
const SHOWN = /^image\/(png|jpeg|gif|webp|avif|bmp)$/;
const MAX_SHOWN_BYTES = 20 * 1024 * 1024;

const size = (bytes) => (bytes < 1024 ? `${bytes} B` : bytes < 1024 ** 2 ? `${Math.round(bytes / 1024)} KiB` : `${(bytes / 1024 ** 2).toFixed(1)} MiB`);

export const Artifacts = ({ outputs }) =>
  outputs.length
    ? html`<ul class="artifacts">${outputs.map((o) => html`<${Artifact} key=${`${o.name} ${o.sha256}`} o=${o} />`)}</ul>`
    : html`<p class="empty">It made no files.</p>`;

// An image or a link cannot send a token: then the bytes are fetched, and given to the browser as a blob of its type.
class Artifact extends Component {
  constructor() {
    super();
    this.state = { src: null, error: "" };
    this.save = async () => {
      const src = this.state.src ?? (await this.blob());
      if (!src) return;
      const link = Object.assign(document.createElement("a"), { href: src, download: this.props.o.name });
      link.click();
    };
  }

  get shown() {
    const { o } = this.props;
    return SHOWN.test(o.content_type) && o.size <= MAX_SHOWN_BYTES;
  }

  // Only ever a path of this API: what is fetched with the token goes nowhere else.
  get url() {
    const { url } = this.props.o;
    return url.startsWith("/api/jobs/") ? url : "";
  }

  componentDidMount() {
    if (this.shown && authorization().Authorization) this.blob();
  }

  componentWillUnmount() {
    if (this.made) URL.revokeObjectURL(this.made);
  }

  async blob() {
    try {
      const answer = await fetch(this.url, { headers: authorization() });
      if (!answer.ok) throw new Error((await answer.json()).error);
      const type = this.shown ? this.props.o.content_type : "application/octet-stream";
      this.made = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type }));
      this.setState({ src: this.made });
      return this.made;
    } catch (error) {
      this.setState({ error: error.message });
      return null;
    }
  }

  render({ o }, { src, error }) {
    const token = Boolean(authorization().Authorization);
    const from = token ? src : this.url;
    return html`<li data-artifact=${o.name}>
      ${this.shown && from ? html`<img src=${from} alt=${o.name} loading="lazy" />` : null}
      <div class="wrap">
        ${token ? html`<button class="quiet" onClick=${this.save}>${o.name}</button>` : html`<a href=${this.url} target="_blank" rel="noopener">${o.name}</a>`}
        <span class="muted small"> ${o.content_type} · ${size(o.size)}</span>
      </div>
      ${error ? html`<p class="problem">${error}</p>` : null}
    </li>`;
  }
}
