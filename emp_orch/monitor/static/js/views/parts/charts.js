import { Component, html } from "../../ui/html.js";
import { clock } from "../../state/time.js";
import { watch } from "../../state/ticks.js";

const MIN_SPAN_S = 120;
const HEIGHT_PX = 150;
const CHARTS = [
  { id: "drift", title: "Differences", of: (past) => past.drift(), series: [["differences", "bad"]], steps: true },
  { id: "heals", title: "Time to heal, seconds", of: (past) => past.heals(), series: [["seconds", "ok"]], points: true, lately: "last" },
  { id: "throughput", title: "Jobs ended a minute", of: (past) => past.throughput(), series: [["jobs", "busy"]] },
  { id: "queue", title: "Queue", of: (past) => past.queue(), series: [["waiting", "wait"], ["running", "busy"]], steps: true },
];

export const Charts = ({ past }) => html`
  <section aria-label="Charts" class="charts" id="charts">
    ${CHARTS.map((chart) => html`<${Chart} key=${chart.id} chart=${chart} past=${past} />`)}
  </section>
`;

// uPlot is fetched when a chart is first drawn.
// `past` is what `chart.of` makes its figures of.
export class Chart extends Component {
  constructor() {
    super();
    this.hold = (element) => (this.element = element);
    this.state = { points: 0, last: "" };
    this.remake = () => {
      this.plot?.destroy();
      this.plot = null;
      this.update();
    };
    this.resize = () => this.plot?.setSize({ width: this.element.clientWidth, height: HEIGHT_PX });
  }

  async componentDidMount() {
    this.mounted = true;
    this.stop = watch(() => this.update());
    addEventListener("resize", this.resize);
    addEventListener("emp-theme", this.remake);
    this.uPlot = (await import("../../../vendor/uPlot.esm.js")).default;
    this.update();
  }

  componentWillUnmount() {
    this.mounted = false;
    this.stop();
    removeEventListener("resize", this.resize);
    removeEventListener("emp-theme", this.remake);
    this.plot?.destroy();
  }

  update() {
    if (!this.mounted || !this.uPlot) return;
    const { chart, past } = this.props;
    const data = chart.of(past);
    const text = summary(data, chart);
    if (data[0].length !== this.state.points || text !== this.state.last) this.setState({ points: data[0].length, last: text });
    if (!data[0].length) return;
    if (this.plot) this.plot.setData(data);
    else this.plot = new this.uPlot(options(chart, this.element, this.uPlot), data, this.element);
  }

  render({ chart }, { points, last }) {
    return html`<figure class="panel chart" data-chart=${chart.id}>
      <figcaption>${chart.title} <span class="muted small">${points ? last : "nothing yet"}</span></figcaption>
      <div ref=${this.hold} class="plot" role="img" aria-label=${`${chart.title}: ${points ? last : "nothing yet"}`}></div>
    </figure>`;
  }
}

const summary = ([times, ...rows], { series, lately = "now" }) =>
  times.length ? `${lately} ${rows.map((row, i) => `${number(row.at(-1))}${series.length > 1 ? ` ${series[i][0]}${i ? " (dashed)" : ""}` : ""}`).join(", ")}` : "";

const number = (value) => (value === null || value === undefined ? "unknown" : String(Math.round(value * 10) / 10));

// A canvas knows no custom properties: what they stand for here and now is asked of an element.
function colour(element, name) {
  element.style.color = `var(--${name})`;
  const found = getComputedStyle(element).color;
  element.style.color = "";
  return found;
}

function options({ series, steps, points }, element, uPlot) {
  const axis = { stroke: colour(element, "muted"), grid: { stroke: colour(element, "line"), width: 1 }, ticks: { show: false }, size: 44 };
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { y: false },
    scales: { x: { range: (_, low, high) => [Math.min(low, high - MIN_SPAN_S), high] }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, (high ?? 1) * 1.1)] } },
    axes: [{ ...axis, size: 28, space: 78, values: (_, at, __, ___, step) => at.map((s) => clock(s * 1000).slice(0, step < 60 ? 8 : 5)) }, axis],
    series: [
      {},
      ...series.map(([label, tone], i) => ({
        label,
        stroke: colour(element, tone),
        width: 2,
        dash: i ? [6, 4] : undefined,
        ...(steps ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
        ...(points ? { paths: () => null, points: { show: true, size: 7, fill: colour(element, tone) } } : { points: { show: false } }),
      })),
    ],
  };
}
