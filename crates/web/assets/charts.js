// The history of an hour, in arrays of fixed length, and its charts.

import { bytes, count, find, make, time } from "./elements.js";

const HOUR = 3600;
const BATCHES = 1000;
const COLUMNS = ["epochs", "rows_in", "rows_out", "processing_us", "processing_max_us", "scheduling_max_us",
  "total_max_us"];
const SAMPLES = ["at", "state_bytes", "spilled_bytes", "resident_bytes", "checkpoint_age_ms"];

export const history = { began: null, next: 0, after: 0, interval: null, limit: null, seconds: {}, samples: {}, batches: [] };

function forget() {
  history.next = 0;
  history.after = 0;
  history.batches = [];
  for (const name of COLUMNS) history.seconds[name] = [];
  for (const name of SAMPLES) history.samples[name] = [];
}
forget();

/** Takes in an answer. Returns false if the engine is another one than before, which must be asked for everything. */
export function absorb(answer) {
  if (history.began !== null && history.began !== answer.began_ms) {
    forget();
    history.began = answer.began_ms;
    return false;
  }
  history.began = answer.began_ms;
  const { from, next } = answer.history;
  const isNext = from === history.next || history.seconds.epochs.length === 0;
  if (!isNext) for (const name of COLUMNS) history.seconds[name] = [];
  for (const name of COLUMNS) {
    history.seconds[name] = history.seconds[name].concat(answer.history[name]).slice(-HOUR);
  }
  const last = history.samples.at.at(-1) ?? -1;
  answer.samples.at.forEach((at, row) => {
    if (at > last) for (const name of SAMPLES) history.samples[name].push(answer.samples[name][row]);
  });
  for (const name of SAMPLES) history.samples[name] = history.samples[name].slice(-HOUR / 10);
  history.next = next;
  history.interval = answer.interval_ms ?? null;
  history.limit = answer.memory?.limit_bytes ?? null;
  history.active = answer.active ?? null;
  if (answer.batches?.length) {
    history.batches = answer.batches.concat(history.batches).slice(0, BATCHES);
    history.after = history.batches[0].epoch;
  }
  return true;
}

const perSecond = (name) => () => history.seconds[name];
const sampled = (name) => () => history.samples[name];
const mean = () => history.seconds.processing_us.map((us, at) => us / (history.seconds.epochs[at] || 1));

const CHARTS = [
  { title: "Rows a second", format: count, series: [["in", perSecond("rows_in")], ["out", perSecond("rows_out")]] },
  { title: "Epochs a second", format: count, series: [["epochs", perSecond("epochs")]] },
  { title: "Processing time", format: time, series: [["longest", perSecond("processing_max_us")], ["mean", mean]],
    limit: () => history.interval && history.interval * 1000, limited: "batch_interval" },
  { title: "Delay", format: time,
    series: [["total", perSecond("total_max_us")], ["scheduling", perSecond("scheduling_max_us")]] },
  { title: "State", format: bytes, samples: true,
    series: [["in memory", sampled("state_bytes")], ["spilled", sampled("spilled_bytes")]],
    limit: () => history.limit, limited: "memory_limit" },
  { title: "Memory of the process", format: bytes, samples: true, series: [["resident", sampled("resident_bytes")]] },
  { title: "Age of the checkpoint", format: (ms) => time(ms === null ? null : ms * 1000), samples: true,
    series: [["age", sampled("checkpoint_age_ms")]] },
];

/** Puts the charts into the page. */
export function addCharts() {
  for (const chart of CHARTS) {
    chart.value = make("span");
    chart.canvas = make("canvas", { role: "img" });
    const legend = make("p", { class: "legend" });
    chart.series.forEach(([name], at) => legend.append(make("span", { class: at ? "second" : "first" }, name)));
    find("charts").append(make("figure", {}, make("figcaption", {}, chart.title, chart.value), chart.canvas, legend));
  }
}

/** Returns the context of a canvas in CSS pixels, cleared, with its size; null if it isn't shown. */
export function contextOf(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  return { context, width, height, color: (name) => style.getPropertyValue(name) };
}

function draw(chart) {
  // A short history fills the chart, too.
  const span = Math.max(60, Math.min(Number(find("span").value), history.seconds.epochs.length));
  const { canvas } = chart;
  const drawn = contextOf(canvas);
  if (!drawn) return;
  const { context, width, height, color } = drawn;
  const end = history.next;
  const first = end - history.seconds.epochs.length;
  const series = chart.series.map(([name, values]) => {
    const all = values();
    const points = all.map((y, at) => [chart.samples ? history.samples.at[at] : first + at, y]);
    return [name, points.filter(([x, y]) => x >= end - span && y !== null)];
  });
  const highest = Math.max(1, ...series.flatMap(([, points]) => points.map(([, y]) => y)));
  const limit = chart.limit?.();
  // A limit far above the values would press them flat.
  const top = limit && limit < 4 * highest ? Math.max(highest, limit) : highest;
  const toX = (x) => width - ((end - x) / span) * width;
  const toY = (y) => height - 2 - (y / top) * (height - 18);
  context.strokeStyle = color("--line");
  context.strokeRect(0, height - 1.5, width, 0);
  context.fillStyle = color("--soft");
  context.font = "12px system-ui, sans-serif";
  context.fillText(chart.format(top), 2, 11);
  if (limit && limit <= top) {
    context.setLineDash([2, 3]);
    context.strokeStyle = color("--bad");
    context.beginPath();
    context.moveTo(0, toY(limit));
    context.lineTo(width, toY(limit));
    context.stroke();
    context.fillText(chart.limited, width - context.measureText(chart.limited).width - 2, toY(limit) - 3);
  }
  series.forEach(([, points], at) => {
    context.setLineDash(at ? [5, 3] : []);
    context.lineWidth = 1.5;
    context.strokeStyle = color(at ? "--second" : "--first");
    context.beginPath();
    points.forEach(([x, y], point) => (point ? context.lineTo(toX(x), toY(y)) : context.moveTo(toX(x), toY(y))));
    context.stroke();
  });
  context.setLineDash([]);
  const now = series.map(([name, points]) => `${name} ${chart.format(points.length ? points.at(-1)[1] : null)}`);
  chart.value.textContent = now.join(", ");
  canvas.setAttribute("aria-label", `${chart.title}: ${now.join(", ")}; at most ${chart.format(highest)}`);
}

export const drawAll = () => CHARTS.forEach(draw);
