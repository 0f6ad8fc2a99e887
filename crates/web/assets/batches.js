// Spark's page of batches: their times, histograms of these, and one batch with its operators.

import { contextOf, history } from "./charts.js";
import { ask, clock, count, find, make, number, propose, button, table, text, time } from "./elements.js";

const ROWS = 100;
const BUCKETS = 24;

/** The time from which on a running batch is shown, in microseconds. */
const SHOWN_US = 100_000;

const TIMES = [
  { name: "scheduling_delay_us", title: "Scheduling delay" },
  { name: "processing_us", title: "Processing time", limit: () => history.interval && history.interval * 1000 },
  { name: "total_delay_us", title: "Total delay" },
];

for (const shown of TIMES) {
  shown.value = make("span");
  shown.line = make("canvas", { role: "img", class: "timeline" });
  shown.bars = make("canvas", { role: "img", class: "histogram" });
  find("times").append(make("figure", {}, make("figcaption", {}, shown.title, shown.value),
    make("div", { class: "pair" }, shown.line, shown.bars)));
}

const inputs = (row) => {
  const names = Object.entries(row.inputs ?? {}).sort(([, rows], [, more]) => more - rows);
  return names.map(([name, rows]) => `${name}: ${count(rows)}`).join("\n");
};

const link = (row) => row.status ? row.epoch ?? "" : make("a", { href: `#batches/${row.epoch}`, "data-key": row.epoch }, row.epoch);
link.isNumber = true;

const isSlow = (row) => history.interval && row.processing_us > history.interval * 1000;

/** Returns the rows of the batch that is running and of those that wait for it, the last one first. */
function activeRows(active) {
  if (!active || (active.running_us < SHOWN_US && !active.queued_count)) return [];
  const queued = active.queued.map((batch_time) => ({ status: "queued", batch_time })).reverse();
  const more = active.queued_count - active.queued.length;
  if (more > 0) queued.unshift({ status: `${count(more)} more queued` });
  return [...queued, { ...active, status: "running", processing_us: active.running_us, merged_intervals: active.merging }];
}

const note = (row) => {
  if (isSlow(row)) return make("span", { class: "warning-text" }, "longer than batch_interval");
  return "";
};

const fill = table(find("batches"), [["batch", link], ["status", (row) => row.status ?? "completed"],
  ["batch time (UTC)", (row) => (row.batch_time ? clock(row.batch_time) : "")],
  ["input rows", number("input_rows")], ["by source", inputs], ["output rows", number("output_rows")],
  ["scheduling delay", number("scheduling_delay_us", time)], ["processing time", number("processing_us", time)],
  ["total delay", number("total_delay_us", time)], ["merged intervals", number("merged_intervals")],
  ["", note]], { rowClass: (row) => row.status ?? (isSlow(row) ? "slow" : null), empty: "no batch yet" });

/** Returns the values of a share of sorted numbers. */
const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];

function drawTimeline(canvas, values, limit, top) {
  const drawn = contextOf(canvas);
  if (!drawn) return;
  const { context, width, height, color } = drawn;
  const step = width / Math.max(60, values.length);
  const toY = (us) => height - 2 - (us / top) * (height - 18);
  values.forEach((us, at) => {
    context.fillStyle = color(limit && us > limit ? "--bad" : "--first");
    const x = width - (values.length - at) * step;
    context.fillRect(x, toY(us), Math.max(1, step - (step > 3 ? 1 : 0)), height - 2 - toY(us));
  });
  context.fillStyle = color("--soft");
  context.font = "12px system-ui, sans-serif";
  context.fillText(time(top), 2, 11);
  if (limit && limit <= top) {
    context.strokeStyle = color("--bad");
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(0, toY(limit));
    context.lineTo(width, toY(limit));
    context.stroke();
    context.setLineDash([]);
    context.fillText("batch_interval", width - context.measureText("batch_interval").width - 2, toY(limit) - 3);
  }
}

/** Draws how many values are in each of some equal ranges, from the bottom up, beside the timeline. */
function drawHistogram(canvas, values, top) {
  const drawn = contextOf(canvas);
  if (!drawn) return;
  const { context, width, height, color } = drawn;
  const buckets = new Array(BUCKETS).fill(0);
  for (const us of values) buckets[Math.min(BUCKETS - 1, Math.floor((us / top) * BUCKETS))] += 1;
  const most = Math.max(1, ...buckets);
  const tall = (height - 20) / BUCKETS;
  context.font = "12px system-ui, sans-serif";
  buckets.forEach((all, at) => {
    const y = height - 2 - (at + 1) * tall;
    context.fillStyle = color("--second");
    context.fillRect(0, y, all ? Math.max(1, (all / most) * (width - 40)) : 0, Math.max(1, tall - 0.5));
  });
  context.fillStyle = color("--soft");
  context.fillText(`${most} batches`, 2, 11);
}

function redraw() {
  for (const shown of TIMES) {
    const values = history.batches.map((batch) => batch[shown.name]).reverse();
    const sorted = [...values].sort((a, b) => a - b);
    const limit = shown.limit?.();
    const highest = Math.max(1, sorted.at(-1) ?? 1);
    const top = limit && limit < 4 * highest ? Math.max(highest, limit * 1.05) : highest;
    drawTimeline(shown.line, values, limit, top);
    drawHistogram(shown.bars, values, top);
    const text = values.length ? `median ${time(quantile(sorted, 0.5))}, 99 % ${time(quantile(sorted, 0.99))}, most ${
      time(sorted.at(-1))}` : "";
    shown.value.textContent = text;
    shown.line.setAttribute("aria-label", `${shown.title} of the last ${values.length} batches: ${text}`);
    shown.bars.setAttribute("aria-label", `Histogram of the ${shown.title.toLowerCase()} of ${values.length} batches`);
  }
}

// ---- One batch

const fillOperators = table(find("batch-operators"), [["query", text("query")], ["node", number("node")],
  ["operator", text("operator")], ["time", number("time_us", time)],
  ["share", Object.assign((row) => row.share, { isNumber: true })], ["rows in", number("rows_in")],
  ["rows out", number("rows_out")],
  ["", (row) => make("a", { href: `#graph/${encodeURIComponent(row.query)}`, "aria-label": `Graph of ${row.query}` }, "graph")]],
{ empty: "the engine keeps the operators of the last 1,000 epochs that took measurable time" });

async function showBatch(epoch) {
  const facts = find("batch-facts");
  find("batch-title").textContent = `Batch ${epoch}`;
  facts.replaceChildren(make("p", { class: "note" }, "loading"));
  fillOperators([]);
  let answer;
  try {
    answer = await ask(`api/batch?epoch=${encodeURIComponent(epoch)}`);
  } catch (failure) {
    facts.replaceChildren(make("p", { class: "error-text" }, failure.message));
    return;
  }
  if (location.hash !== `#batches/${epoch}`) return;
  const { batch, operators } = answer;
  const known = history.batches.find((of) => of.epoch === answer.epoch);
  if (!batch && !known) {
    facts.replaceChildren(make("p", { class: "null" }, "The engine keeps the last 1,000 epochs; this one is not among them."));
    return;
  }
  const row = { ...known, ...batch };
  const list = [["batch time (UTC)", clock(row.batch_time)], ["scheduling delay", time(row.scheduling_delay_us)],
    ["processing time", time(row.processing_us)], ["total delay", time(row.total_delay_us)],
    ["input rows", count(row.input_rows)], ["output rows", count(row.output_rows)],
    ["merged intervals", count(row.merged_intervals)]];
  const inputs = known?.inputs ?? JSON.parse(batch.inputs ?? "{}");
  for (const [name, rows] of Object.entries(inputs)) list.push([`rows of ${name}`, count(rows)]);
  facts.replaceChildren(make("dl", {}, ...list.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
  if (isSlow(row)) facts.append(make("p", { class: "warning-text" }, "The processing time is longer than batch_interval."));
  const total = row.processing_us || 1;
  fillOperators(operators.map((operator) => ({ ...operator, share: Math.round((operator.time_us / total) * 100) + " %" })));
}

for (const [id, epoch] of [["batch-before", -1], ["batch-after", 1]]) {
  find(id).addEventListener("click", () => {
    const now = Number(location.hash.split("/")[1]);
    if (now + epoch > 0) location.hash = `#batches/${now + epoch}`;
  });
}
find("batch-query").append(button("ask with SQL", () => {
  const epoch = Number(location.hash.split("/")[1]);
  propose(`SELECT * FROM millstream.epoch_operators WHERE epoch = ${epoch} ORDER BY time_us DESC;`);
}));

export const page = {
  show(rest) {
    const isOne = /^\d+$/.test(rest);
    find("batch").hidden = !isOne;
    find("all-batches").hidden = isOne;
    if (isOne) showBatch(rest);
  },
  update() {
    if (find("all-batches").hidden) return;
    fill([...activeRows(history.active), ...history.batches.slice(0, ROWS)], history.interval);
    redraw();
  },
  redraw,
};
