// Preact and htm bound together. Text goes into text nodes and attributes only: markup from a machine stays text.
import { Component, h, render } from "../../vendor/preact.module.js";
import htm from "../../vendor/htm.module.js";

export const html = htm.bind(h);
export { Component, render };

// Renders again only when one of its properties is another value.
export class Pure extends Component {
  shouldComponentUpdate(next) {
    const now = this.props;
    return Object.keys({ ...now, ...next }).some((key) => key !== "children" && now[key] !== next[key]);
  }
}
