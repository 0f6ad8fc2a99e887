// A chart of a result: lines, bars or points, as SVG.

import { button, count, isNumberType, make } from "./elements.js";

const SIZE = { width: 900, height: 340, left: 70, right: 14, top: 12, bottom: 46 };
const ROWS_MAX = 5000;
const BARS_MAX = 60;
const SERIES_MAX = 4;
const KINDS = ["line", "bar", "scatter"];

const svg = (name, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const isTimeType = (type) => /^(TIMESTAMP|DATE)/.test(type);

/** Returns a number for a value; a time becomes milliseconds since 1970. */
function numberOf(value, type) {
  if (value === null || value === undefined) return null;
  const number = isTimeType(type) ? Date.parse(value.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00")) : Number(value);
  return Number.isFinite(number) ? number : null;
}

/** Returns round numbers between two. */
function ticks(least, most) {
  const raw = (most - least) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
  const found = [];
  for (let at = Math.ceil(least / step) * step; at <= most + step / 1e6; at += step) found.push(at);
  return found;
}

function bounds(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  if (least > most) return null;
  return least === most ? [least - 1, most + 1] : [least, most];
}

const shortTime = (ms, span) => {
  const text = new Date(ms).toISOString();
  return span > 3 * 86_400_000 ? text.slice(0, 10) : text.slice(11, span > 600_000 ? 16 : 19);
};
const shortNumber = (value) => (Math.abs(value) >= 10_000 ? count(value) : String(Number(value.toPrecision(6))));

/** Returns the first choice for a result: the kind, the column of the x axis, the columns of numbers; or null. */
export function choice(columns, types) {
  const numbers = types.flatMap((type, at) => (isNumberType(type) ? [at] : []));
  if (!numbers.length) return null;
  const time = types.findIndex(isTimeType);
  const other = types.findIndex((type) => !isNumberType(type));
  if (time >= 0) return { kind: "line", x: time, series: numbers.slice(0, SERIES_MAX) };
  if (other >= 0) return { kind: "bar", x: other, series: numbers.slice(0, SERIES_MAX) };
  if (numbers.length === 1) return { kind: "line", x: -1, series: numbers };
  return { kind: "line", x: numbers[0], series: numbers.slice(1, SERIES_MAX + 1) };
}

function axes(scaleY, [low, high], labels) {
  const parts = [];
  for (const at of ticks(low, high)) {
    const y = scaleY(at);
    parts.push(svg("line", { class: "rule", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y, y2: y }),
      svg("text", { x: SIZE.left - 6, y: y + 4, "text-anchor": "end" }, shortNumber(at)));
  }
  for (const { x, text } of labels) {
    parts.push(svg("text", { x, y: SIZE.height - SIZE.bottom + 18, "text-anchor": "middle" }, text));
  }
  return parts;
}

/** Returns the drawing of rows. */
export function plot({ kind, x, series }, columns, types, rows) {
  const shown = kind === "bar" ? rows.slice(0, BARS_MAX) : rows;
  const values = series.map((at) => shown.map((row) => numberOf(row[at], types[at])));
  const range = bounds(values.flat().concat(kind === "bar" ? [0] : []));
  if (!shown.length || !range) return make("p", { class: "null" }, "there are no numbers to draw");
  const [low, high] = range;
  const inner = { width: SIZE.width - SIZE.left - SIZE.right, height: SIZE.height - SIZE.top - SIZE.bottom };
  const scaleY = (value) => SIZE.top + (1 - (value - low) / (high - low)) * inner.height;
  const names = series.map((at) => columns[at]).join(", ");
  const title = `${kind} chart of ${names}${x >= 0 ? ` by ${columns[x]}` : ""}, ${shown.length} rows`;
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": title });
  if (kind === "bar") {
    const band = inner.width / shown.length;
    const width = Math.max(1, (band * 0.8) / series.length);
    const every = Math.ceil(shown.length / 12);
    const name = (row, at) => (x < 0 ? String(at + 1) : (row[x] ?? "NULL"));
    const short = (text) => (text.length > 14 ? text.slice(0, 13) + "…" : text);
    const labels = shown.flatMap((row, at) => (at % every ? [] : [{ x: SIZE.left + (at + 0.5) * band, text: short(name(row, at)) }]));
    root.append(...axes(scaleY, range, labels));
    values.forEach((column, number) => column.forEach((value, at) => {
      if (value === null) return;
      const [top, bottom] = [scaleY(Math.max(value, 0)), scaleY(Math.min(value, 0))];
      root.append(svg("rect", { class: `series-${number}`, x: SIZE.left + at * band + band * 0.1 + number * width, y: top, width,
        height: Math.max(1, bottom - top) }, svg("title", {}, `${name(shown[at], at)}: ${columns[series[number]]} ${value}`)));
    }));
    return root;
  }
  const isNumeric = x >= 0 && (isNumberType(types[x]) || isTimeType(types[x]));
  const places = shown.map((row, at) => (isNumeric ? numberOf(row[x], types[x]) : at + 1));
  const across = bounds(places);
  if (!across) return make("p", { class: "null" }, "there are no numbers to draw");
  const span = across[1] - across[0];
  const scaleX = (value) => SIZE.left + ((value - across[0]) / span) * inner.width;
  const isTime = x >= 0 && isTimeType(types[x]);
  const at = isTime ? [0, 1, 2, 3, 4].map((part) => across[0] + (span * (part + 0.5)) / 5) : ticks(...across);
  root.append(...axes(scaleY, range, at.map((value) => ({ x: scaleX(value), text: isTime ? shortTime(value, span) : shortNumber(value) }))));
  values.forEach((column, number) => {
    const points = column.flatMap((value, row) => (value === null || places[row] === null ? [] : [[places[row], value]]));
    if (kind === "line") {
      points.sort((one, other) => one[0] - other[0]);
      const path = points.map(([px, py], row) => `${row ? "L" : "M"}${scaleX(px).toFixed(1)} ${scaleY(py).toFixed(1)}`).join("");
      root.append(svg("path", { class: `series-${number}`, d: path }));
    } else {
      for (const [px, py] of points) root.append(svg("circle", { class: `series-${number}`, cx: scaleX(px).toFixed(1), cy: scaleY(py).toFixed(1), r: 2.5 }));
    }
  });
  return root;
}

/** A chart below a result, with its choices. `rows` returns a promise of the first rows. */
export class Plot {
  constructor(columns, types, rowsOf) {
    Object.assign(this, { columns, types, rowsOf, rows: [], chosen: choice(columns, types) });
    this.drawing = make("div");
    this.note = make("p", { class: "note", role: "status" });
    this.kinds = KINDS.map((kind) => button(kind, () => this.choose({ kind }), { "data-kind": kind }));
    this.element = make("figure", { class: "plotted" }, make("div", { class: "bar" }, ...this.kinds, this.axis()), this.drawing, this.legend(), this.note);
  }

  axis() {
    const select = make("select", { "aria-label": "Column of the x axis" }, make("option", { value: "-1" }, "row number"),
      ...this.columns.map((name, at) => make("option", { value: at }, name)));
    select.value = String(this.chosen.x);
    select.addEventListener("change", () => this.choose({ x: Number(select.value) }));
    return make("label", {}, "x ", select);
  }

  legend() {
    const name = (at, number) => make("span", { class: `series-${number}` }, this.columns[at]);
    return make("p", { class: "plot-legend" }, ...this.chosen.series.map(name));
  }

  choose(change) {
    Object.assign(this.chosen, change);
    this.draw();
  }

  async load() {
    this.rows = [];
    for (let from = 0; from < ROWS_MAX; from += 1000) {
      const rows = await this.rowsOf(from, 1000);
      this.rows.push(...rows);
      if (rows.length < 1000) break;
    }
    this.draw();
  }

  draw() {
    const { kind } = this.chosen;
    for (const other of this.kinds) other.setAttribute("aria-pressed", other.dataset.kind === kind);
    this.drawing.replaceChildren(plot(this.chosen, this.columns, this.types, this.rows));
    const most = kind === "bar" ? BARS_MAX : ROWS_MAX;
    this.note.textContent = this.rows.length >= most ? `the first ${count(most)} rows` : "";
  }
}
