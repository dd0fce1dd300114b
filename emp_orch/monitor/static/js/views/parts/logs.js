import { Component, html } from "../../ui/html.js";
import { Remote } from "../../net/remote.js";

const LINES = 200;
const FOLLOW_MS = 2_000;
// Others the API does not take.
const NAME = /^[A-Za-z0-9-]+$/;

// The end of one log, followed while its tab is looked at.
export class Logs extends Component {
  constructor() {
    super();
    this.state = { follow: true };
    this.toggle = (event) => this.setState({ follow: event.target.checked });
  }

  render({ component }, { follow }) {
    return html`
      <section class="panel" aria-labelledby="log-title" id="log">
        <h2 id="log-title">Log <span class="muted small">${component}</span>
          <label class="follow small"><input type="checkbox" checked=${follow} onChange=${this.toggle} /> follow</label>
        </h2>
        ${NAME.test(component) ? this.log(component, follow) : html`<p class="empty">A machine of such a name has no log here.</p>`}
      </section>
    `;
  }

  log(component, follow) {
    return html`
      <${Remote} key=${follow} url=${`/api/logs/${encodeURIComponent(component)}?lines=${LINES}`} every=${follow ? FOLLOW_MS : 0}>
          ${({ data, error, reload }) =>
            data
              ? html`<${Lines} lines=${data.lines} />`
              : html`<p class="empty">${error || "Asking…"} ${error ? html`<button class="quiet" onClick=${reload}>look again</button>` : null}</p>`}
        </${Remote}>
    `;
  }
}

class Lines extends Component {
  constructor() {
    super();
    this.hold = (element) => (this.element = element);
  }

  shouldComponentUpdate(next) {
    return next.lines.at(-1) !== this.props.lines.at(-1) || next.lines.length !== this.props.lines.length;
  }

  componentDidMount() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  // Whoever has scrolled up to read is left there.
  getSnapshotBeforeUpdate() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < 40;
  }

  componentDidUpdate(_, __, atEnd) {
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  render({ lines }) {
    return html`<pre ref=${this.hold} class="log" tabindex="0" aria-label="log lines">${lines.join("\n") || "It is empty."}</pre>`;
  }
}
