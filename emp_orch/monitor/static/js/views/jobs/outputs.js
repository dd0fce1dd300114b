import { call, path } from "../../net/api.js";
import { Component, html } from "../../ui/html.js";
import { Artifacts } from "./artifacts.js";

// What a job made, asked for at a click.
export class Outputs extends Component {
  constructor() {
    super();
    this.state = { outputs: null, why: "" };
    this.show = async () => {
      try {
        this.setState({ outputs: (await call(path("jobs", this.props.id, "artifacts"))).data });
      } catch (error) {
        this.setState({ why: error.message });
      }
    };
  }

  render({ id }, { outputs, why }) {
    if (why) return html`<div class="muted small">${why}</div>`;
    if (!outputs) return html`<button class="quiet small" onClick=${this.show} title=${`what job ${id} made`}>outputs</button>`;
    return html`<div class="outputs small"><${Artifacts} outputs=${outputs} /></div>`;
  }
}
