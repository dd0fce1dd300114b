import { Component, html } from "../html.js";
import { authorization, TOKEN } from "../token.js";

// What a job made, asked for at a click. Behind a token a plain link would be refused, so there are only names then.
export class Outputs extends Component {
  constructor() {
    super();
    this.state = { outputs: null, why: "" };
    this.show = this.show.bind(this);
  }

  async show() {
    try {
      const answer = await fetch(`/api/jobs/${encodeURIComponent(this.props.id)}/artifacts`, { headers: authorization() });
      const { success, data, error } = await answer.json();
      this.setState(success ? { outputs: data, why: data.length ? "" : "It made no files." } : { why: error });
    } catch {
      this.setState({ why: "The API does not answer." });
    }
  }

  render({ id }, { outputs, why }) {
    if (why) return html`<div class="muted small">${why}</div>`;
    if (!outputs) return html`<button class="quiet small" onClick=${this.show} title=${`what job ${id} made`}>outputs</button>`;
    const name = (o) =>
      sessionStorage.getItem(TOKEN) ? o.name : html`<a href=${o.url} target="_blank" rel="noopener">${o.name}</a>`;
    return html`<ul class="outputs small">
      ${outputs.map((o) => html`<li key=${o.name}>${name(o)}</li>`)}
    </ul>`;
  }
}
