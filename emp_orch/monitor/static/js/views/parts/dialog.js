import { Component, html } from "../../ui/html.js";

// A modal dialog of the browser's own: it keeps the focus, and Escape closes it.
export class Dialog extends Component {
  constructor() {
    super();
    this.hold = (element) => (this.element = element);
  }

  componentDidMount() {
    this.before = document.activeElement;
    this.element.showModal();
  }

  componentWillUnmount() {
    if (this.before?.isConnected) this.before.focus();
  }

  render({ title, close, children, wide }) {
    const outside = (event) => event.target === this.element && close();
    return html`<dialog ref=${this.hold} class=${wide ? "wide-dialog" : ""} aria-labelledby="dialog-title" onClose=${close} onClick=${outside}>
      <div class="dialog-body">
        <header>
          <h2 id="dialog-title">${title}</h2>
          <button class="quiet close" onClick=${close} aria-label="Close">✕</button>
        </header>
        ${children}
      </div>
    </dialog>`;
  }
}
