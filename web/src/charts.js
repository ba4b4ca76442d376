// The two charts. Their time runs from the left to now, so that the axis stands
// still while the lines move.

import uPlot from "uplot";
import { clock, digits, duration, together } from "./format.js";
import { $, el, setAttribute, setText } from "./dom.js";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** niceEnd is the end of an axis from 0 that v fits in: 1, 2, 4, 5, 8 or 10 of its decade. */
function niceEnd(v) {
  if (!(v > 0)) return 1;
  const decade = 10 ** Math.floor(Math.log10(v));
  return decade * [1, 2, 4, 5, 8, 10].find((m) => v <= m * decade * 1.0001);
}

const isolated = (u, si) => {
  const d = u.data[si];
  return d.flatMap((v, i) => (v != null && d[i - 1] == null && d[i + 1] == null ? [i] : []));
};

/** Chart is what both have in common: a plot, a legend, and reading it by keyboard. */
class Chart {
  constructor(id, kinds) {
    this.root = $(id);
    this.plot = $(".plot", this.root);
    this.kinds = kinds;
    this.legend = kinds.map((kind) => {
      const value = el("b");
      $(".legend", this.root).append(el("li", {}, el("i", { class: `key ${kind.name}` }), el("span", {}, kind.label), value));
      return value;
    });
    this.when = el("li", { class: "when" });
    $(".legend", this.root).append(this.when);
    new ResizeObserver(() => this.fit()).observe(this.plot);
    this.plot.addEventListener("keydown", (e) => this.key(e));
    this.plot.addEventListener("blur", () => this.read(null));
  }

  size() { return { width: Math.max(this.plot.clientWidth, 100), height: Math.max(this.plot.clientHeight, 80) }; }

  fit() { this.u?.setSize(this.size()); }

  /** redraw begins anew, with the colours of now. */
  redraw() {
    this.u?.destroy();
    this.u = null;
    if (this.span) this.show(this.span, this.started);
  }

  options() {
    const ink = css("--muted"), rule = css("--rule");
    const font = `11px ${css("--sans")}`;
    return {
      ...this.size(),
      legend: { show: false },
      padding: [10, 12, 0, 0],
      cursor: { y: false, points: { size: 7, width: 1.5, fill: css("--surface") }, drag: { x: false, y: false } },
      hooks: { setCursor: [(u) => this.tell(u.cursor.idx)] },
      axes: [
        {
          stroke: ink, font, size: 26, gap: 6, grid: { show: false }, ticks: { stroke: rule, size: 4, width: 1 },
          splits: (u) => {
            const n = u.width > 480 ? 4 : 2;
            return Array.from({ length: n + 1 }, (_, i) => u.scales.x.min + ((u.scales.x.max - u.scales.x.min) * i) / n);
          },
          values: (_, splits) => splits.map((s) => {
            if (s === 0) return "now";
            return -s >= 120 ? `−${Math.round(-s / 60)} min` : `−${Math.round(-s)} s`; // minus signs
          }),
        },
        { stroke: ink, font, size: 52, gap: 6, grid: { stroke: rule, width: 1 }, ticks: { show: false }, ...this.axis() },
      ],
    };
  }

  /** show draws a span of a sidecar that was started at a time in seconds since 1970. */
  show(span, started) {
    this.span = span;
    this.started = started;
    const n = span.p50.length;
    const x = Array.from({ length: n }, (_, i) => (i - n + 1) * span.step_seconds);
    const begin = -n * span.step_seconds;
    const data = [x, ...this.data(span)];
    // There is nothing to show of the time before the sidecar started.
    for (let i = 0; i < n && span.end + x[i] <= started; i++) for (const line of data.slice(1)) line[i] = null;
    if (!this.u || this.u.scales.x.min !== begin) {
      this.u?.destroy();
      this.plot.replaceChildren();
      this.u = new uPlot({ ...this.options(), ...this.shape() }, data, this.plot);
    } else this.u.setData(data, false), this.u.redraw(true, true);
    this.u.setScale("x", { min: begin, max: 0 });
    this.u.setScale("y", this.reach(span));
    this.tell(this.u.cursor.idx);
    setAttribute(this.plot, "aria-label", this.sentence(span));
  }

  /** tell shows the values at a step in the legend, by itself those of now. */
  tell(i) {
    if (!this.span) return;
    const last = this.span.p50.length - 1;
    const at = i ?? last;
    this.kinds.forEach((kind, k) => setText(this.legend[k], kind.text(kind.of(this.span)[at])));
    setText(this.when, i == null ? "now" : clock(new Date((this.span.end - (last - at) * this.span.step_seconds) * 1000)));
  }

  key(e) {
    const last = this.span?.p50.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[e.key];
    if (!step || !this.u) return;
    e.preventDefault();
    this.read(Math.min(Math.max((this.at ?? last) + step, 0), last));
  }

  read(i) {
    this.at = i;
    if (!this.u) return;
    this.u.setCursor(i == null ? { left: -10, top: -10 } : { left: this.u.valToPos(this.u.data[0][i], "x"), top: 10 });
  }
}

const classes = [
  { name: "c2", key: "2xx", label: "2xx" },
  { name: "c3", key: "3xx", label: "3xx" },
  { name: "c1", key: "1xx", label: "1xx" },
  { name: "c4", key: "4xx", label: "4xx" },
  { name: "c5", key: "5xx", label: "5xx" },
  { name: "c0", key: "none", label: "no answer" },
].map((c) => ({ ...c, of: (span) => span.rates[c.key], text: (v) => digits(v ?? 0) }));

/** RateChart stacks the status classes, failures on top where they stand out. */
export class RateChart extends Chart {
  constructor() { super("#chart-rate", classes); }

  axis() { return { values: (_, splits) => splits.map((v) => (v >= 1000 ? `${digits(v / 1000)}k` : digits(v))), space: 34 }; }

  data(span) {
    const sum = span.p50.map(() => 0);
    return classes.map((c) => c.of(span).map((v, i) => (sum[i] += v))).reverse();
  }

  reach(span) {
    const top = Math.max(...this.data(span)[0]);
    // It grows at once, and shrinks when half of it is not needed.
    if (!(top <= this.end && top > this.end / 2.5)) this.end = niceEnd(top * 1.05);
    return { min: 0, max: this.end };
  }

  shape() {
    const painted = classes.toReversed();
    return {
      scales: { x: { time: false }, y: { range: (_, min, max) => [min, max] } },
      series: [{}, ...painted.map((c) => ({
        stroke: css(`--${c.name}`), fill: css(`--${c.name}-fill`), width: 1.25, points: { show: false }, paths: uPlot.paths.linear(),
      }))],
      bands: painted.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })),
    };
  }

  sentence(span) {
    const now = classes.filter((c) => c.of(span).some((v) => v > 0)).map((c) => `${c.label} ${digits(c.of(span).at(-1))}`);
    return `Requests a second by status class. ${now.length ? `Now: ${now.join(", ")}.` : "There were none."} The arrow keys read the chart.`;
  }
}

const quantiles = ["p50", "p95", "p99"].map((q) => ({
  name: q, label: q, of: (span) => span[q], text: (v) => together(duration(v)),
}));

/** LatencyChart shows the quantiles on a logarithmic scale. */
export class LatencyChart extends Chart {
  constructor() { super("#chart-latency", quantiles); }

  axis() {
    return {
      values: (_, splits) => splits.map((v) => (v && Math.log10(v) % 1 === 0 ? together(duration(v)) : "")),
      splits: (u) => {
        const out = [];
        for (let v = u.scales.y.min; v <= u.scales.y.max * 1.001; v *= 10) out.push(10 ** Math.round(Math.log10(v)));
        return out;
      },
    };
  }

  data(span) { return quantiles.map((q) => q.of(span).map((v) => v || null)); }

  reach(span) {
    const all = quantiles.flatMap((q) => q.of(span).filter((v) => v > 0));
    const low = all.length ? Math.floor(Math.log10(Math.min(...all))) : 0;
    const high = all.length ? Math.ceil(Math.log10(Math.max(...all) * 1.05)) : 2;
    return { min: 10 ** low, max: 10 ** Math.max(high, low + 2) };
  }

  shape() {
    return {
      scales: { x: { time: false }, y: { distr: 3, range: (_, min, max) => [min, max] } },
      series: [{}, ...quantiles.map((q) => ({
        stroke: css(`--${q.name}`), width: q.name === "p50" ? 2 : 1.5, spanGaps: false,
        points: { show: true, size: 4, fill: css(`--${q.name}`), filter: isolated },
      }))],
      bands: [{ series: [3, 1], fill: css("--latency-fill") }],
    };
  }

  sentence(span) {
    const l = span.latency;
    if (!l.p50) return "Latency. Nothing was measured yet.";
    const text = quantiles.map((q) => `${q.label} ${together(duration(l[q.name]))}`).join(", ");
    return `Latency over the time shown: ${text}. The arrow keys read the chart.`;
  }
}
