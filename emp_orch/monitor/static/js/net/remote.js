// Something of the API beside the stream: asked for at once, again when `trigger` changes, and every `every` ms while
// somebody looks. Never more often than once a second. `children` draws {data, more, error, reload}.
import { call } from "./api.js";
import { Component } from "../ui/html.js";

const SPACING_MS = 1_000;

export class Remote extends Component {
  constructor() {
    super();
    this.state = { data: null, more: null, error: "" };
    this.asked = 0;
    this.reload = this.reload.bind(this);
  }

  componentDidMount() {
    this.mounted = true;
    this.#ask();
    if (this.props.every) this.timer = setInterval(() => document.hidden || this.missing || this.#ask(), this.props.every);
  }

  componentWillUnmount() {
    this.mounted = false;
    clearInterval(this.timer);
    clearTimeout(this.later);
  }

  componentDidUpdate(before) {
    if (before.url !== this.props.url) this.#ask();
    else if (before.trigger !== this.props.trigger) this.reload();
  }

  reload() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.#ask(), Math.max(0, this.asked + SPACING_MS - Date.now()));
  }

  async #ask() {
    const { url } = this.props;
    this.asked = Date.now();
    try {
      const told = await call(url);
      this.missing = false;
      if (this.mounted && url === this.props.url) this.setState({ data: told.data, more: told, error: "" });
    } catch (error) {
      if (!this.mounted || url !== this.props.url) return;
      // What is not there is not asked for over and over.
      this.missing = error.status === 404;
      this.setState({ error: error.message });
    }
  }

  render({ children }, state) {
    const draw = Array.isArray(children) ? children[0] : children;
    return draw({ ...state, reload: this.reload });
  }
}
