// A long list of which only what can be seen is in the document. Rows may be of any height: one that was drawn is
// measured, the others are guessed. With `columns`, so many things stand in a row. Short lists are drawn whole.
import { Component, html } from "./html.js";

const WHOLE = 40;
const MARGIN_PX = 400;

export class Windowed extends Component {
  constructor() {
    super();
    this.heights = new Map();
    this.state = { from: 0, to: 12 };
    this.look = this.look.bind(this);
    this.hold = (element) => (this.element = element);
  }

  componentDidMount() {
    addEventListener("scroll", this.look, { passive: true, capture: true });
    addEventListener("resize", this.look);
    this.look();
  }

  componentWillUnmount() {
    removeEventListener("scroll", this.look, { capture: true });
    removeEventListener("resize", this.look);
  }

  componentDidUpdate() {
    this.look();
  }

  rows() {
    const { items, columns } = this.props;
    if (!columns) return items;
    return Array.from({ length: Math.ceil(items.length / columns) }, (_, i) => items.slice(i * columns, (i + 1) * columns));
  }

  key(row) {
    return this.props.keyOf(Array.isArray(row) ? row[0] : row);
  }

  height(row) {
    return this.heights.get(this.key(row)) ?? this.props.estimate;
  }

  look() {
    if (!this.element || this.props.items.length <= WHOLE) return;
    const rows = this.rows();
    this.measure(rows);
    const top = -this.element.getBoundingClientRect().top - MARGIN_PX;
    const bottom = top + innerHeight + 2 * MARGIN_PX;
    let at = 0;
    let from = 0;
    let to = 0;
    for (const [i, row] of rows.entries()) {
      if (at < top) from = i;
      if (at < bottom) to = i + 1;
      else break;
      at += this.height(row);
    }
    if (from !== this.state.from || to !== this.state.to) this.setState({ from, to });
  }

  measure(rows) {
    const drawn = [...this.element.children].slice(1, -1);
    drawn.forEach((element, i) => {
      const row = rows[this.state.from + i];
      if (row !== undefined && element.offsetHeight) this.heights.set(this.key(row), element.offsetHeight + (this.props.gap ?? 0));
    });
  }

  render({ items, row, tag = "div", id, className, label }, { from, to }) {
    const whole = items.length <= WHOLE;
    const rows = whole ? items : this.rows();
    const sum = (list) => list.reduce((px, r) => px + this.height(r), 0);
    const spacer = (px) => html`<${tag === "tbody" ? "tr" : "div"} aria-hidden="true" class="spacer" style=${{ height: `${px}px` }} />`;
    const shown = whole ? rows : rows.slice(from, to);
    return html`<${tag} ref=${this.hold} id=${id} class=${className?.(whole)} aria-label=${label}>
      ${whole ? null : spacer(sum(rows.slice(0, from)))}
      ${shown.map((r) => row(r, whole))}
      ${whole ? null : spacer(sum(rows.slice(to)))}
    </${tag}>`;
  }
}
