"use strict";

// Names and values come from users of the engine: they go into the page as text, never as HTML.

const HOUR = 3600;
const BATCHES = 100;
const COLUMNS = ["epochs", "rows_in", "rows_out", "processing_us", "processing_max_us", "scheduling_max_us",
  "total_max_us"];
const SAMPLES = ["at", "state_bytes", "spilled_bytes", "resident_bytes", "checkpoint_age_ms"];

const find = (id) => document.getElementById(id);

/** Returns an element with attributes and children; texts become text nodes. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key === "click") element.addEventListener("click", value);
    else element.setAttribute(key, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

// ---- Formats

function count(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 1e9) return (n / 1e9).toFixed(2) + " G";
  if (n >= 1e6) return (n / 1e6).toFixed(2) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return Number.isInteger(n) ? String(n) : n.toFixed(1);
}

function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return (unit ? n.toFixed(1) : String(n)) + " " + units[unit];
}

function time(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return Math.round(us) + " µs";
  if (us < 1e6) return (us / 1e3).toFixed(1) + " ms";
  if (us < 60e6) return (us / 1e6).toFixed(2) + " s";
  if (us < 3600e6) return (us / 60e6).toFixed(1) + " min";
  return (us / 3600e6).toFixed(1) + " h";
}

const clock = (ms) => (ms === null || ms === undefined ? "–" : new Date(ms).toISOString().replace("T", " ").slice(0, 23));

// ---- The history: an hour, in arrays of fixed length

const history = { began: null, next: 0, after: 0, interval: null, limit: null, seconds: {}, samples: {}, batches: [] };

function forget() {
  history.next = 0;
  history.after = 0;
  history.batches = [];
  for (const name of COLUMNS) history.seconds[name] = [];
  for (const name of SAMPLES) history.samples[name] = [];
}
forget();

/** Takes in an answer. Returns false if the engine is another one than before, which must be asked for everything. */
function absorb(answer) {
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
  for (const name of SAMPLES) history.samples[name] = history.samples[name].slice(-HOUR / 5);
  history.next = next;
  history.interval = answer.interval_ms ?? null;
  history.limit = answer.memory?.limit_bytes ?? null;
  if (answer.batches?.length) {
    history.batches = answer.batches.concat(history.batches).slice(0, BATCHES);
    history.after = history.batches[0].epoch;
  }
  return true;
}

// ---- Charts

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

for (const chart of CHARTS) {
  chart.value = make("span");
  chart.canvas = make("canvas", { role: "img" });
  const legend = make("p", { class: "legend" });
  chart.series.forEach(([name], at) => legend.append(make("span", { class: at ? "second" : "first" }, name)));
  find("charts").append(make("figure", {}, make("figcaption", {}, chart.title, chart.value), chart.canvas, legend));
}

function draw(chart) {
  // A short history fills the chart, too.
  const span = Math.max(60, Math.min(Number(find("span").value), history.seconds.epochs.length));
  const { canvas } = chart;
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const style = getComputedStyle(document.documentElement);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
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
  context.strokeStyle = style.getPropertyValue("--line");
  context.strokeRect(0, height - 1.5, width, 0);
  context.fillStyle = style.getPropertyValue("--soft");
  context.font = "12px system-ui, sans-serif";
  context.fillText(chart.format(top), 2, 11);
  if (limit && limit <= top) {
    context.setLineDash([2, 3]);
    context.strokeStyle = style.getPropertyValue("--bad");
    context.beginPath();
    context.moveTo(0, toY(limit));
    context.lineTo(width, toY(limit));
    context.stroke();
    context.fillText(chart.limited, width - context.measureText(chart.limited).width - 2, toY(limit) - 3);
  }
  series.forEach(([, points], at) => {
    context.setLineDash(at ? [5, 3] : []);
    context.lineWidth = 1.5;
    context.strokeStyle = style.getPropertyValue(at ? "--second" : "--first");
    context.beginPath();
    points.forEach(([x, y], point) => (point ? context.lineTo(toX(x), toY(y)) : context.moveTo(toX(x), toY(y))));
    context.stroke();
  });
  context.setLineDash([]);
  const now = series.map(([name, points]) => `${name} ${chart.format(points.length ? points.at(-1)[1] : null)}`);
  chart.value.textContent = now.join(", ");
  canvas.setAttribute("aria-label", `${chart.title}: ${now.join(", ")}; at most ${chart.format(highest)}`);
}

const drawAll = () => CHARTS.forEach(draw);
find("span").addEventListener("change", drawAll);
window.addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

// ---- Tables

/** Puts a statement into the box; the user runs it. */
function propose(statement) {
  find("text").value = statement;
  find("text").focus();
  find("sql").scrollIntoView();
}

const identifier = (name) => '"' + name.replaceAll('"', '""') + '"';
const why = (kind, name) =>
  make("button", { type: "button", "aria-label": `Explain why ${name}`,
    click: () => propose(`EXPLAIN WHY ${kind} ${identifier(name)}`) }, "why");

const STATUS_CLASS = { failed: "error-text", suspended: "error-text", restarting: "warning-text",
  retrying: "warning-text", behind: "warning-text", paused: "warning-text" };
const status = (row) => make("span", { class: STATUS_CLASS[row.status] ?? "" }, row.status ?? "");
const text = (name) => (row) => row[name] ?? "";
const number = (name, format = count) => Object.assign((row) => format(row[name]), { isNumber: true });

const TABLES = {
  batches: [["batch", number("epoch", String)], ["batch time (UTC)", (row) => clock(row.batch_time)],
    ["input rows", number("input_rows")], ["output rows", number("output_rows")],
    ["scheduling delay", number("scheduling_delay_us", time)], ["processing time", number("processing_us", time)],
    ["total delay", number("total_delay_us", time)], ["merged intervals", number("merged_intervals")]],
  sources: [["source", text("name")], ["connector", text("connector")], ["status", status], ["reason", text("reason")],
    ["rows", number("rows")], ["rows/s", number("rows_per_second")], ["bad rows", number("bad_rows")],
    ["waiting rows", number("waiting_rows")], ["waiting bytes", number("waiting_bytes", bytes)],
    ["restarts", number("restarts")]],
  queries: [["name", text("name")], ["kind", text("kind")], ["status", status], ["reason", text("reason")],
    ["rows", number("rows")], ["state", number("state_bytes", bytes)], ["errors", number("errors")],
    ["", (row) => why(row.kind.toUpperCase(), row.name)]],
  sinks: [["sink", text("name")], ["target", text("target")], ["status", status], ["reason", text("reason")],
    ["rows", number("rows")], ["waiting epochs", number("waiting_epochs")],
    ["waiting bytes", number("waiting_bytes", bytes)], ["delivery", text("delivery")],
    ["", (row) => why("SINK", row.name)]],
};

const shown = {};

/** Fills a table, if its rows have changed. */
function fill(id, rows) {
  const key = JSON.stringify([rows, history.interval]);
  if (shown[id] === key) return;
  const table = find(id);
  // The focus in a table must not be lost.
  if (shown[id] !== undefined && table.contains(document.activeElement)) return;
  shown[id] = key;
  const columns = TABLES[id];
  const cell = (name, of, child) => make(name, of.isNumber ? { class: "number" } : {}, child);
  const head = make("tr", {}, ...columns.map(([title, of]) => {
    const th = cell("th", of, title);
    th.scope = "col";
    return th;
  }));
  const body = rows.map((row) => {
    const isSlow = id === "batches" && history.interval && row.processing_us > history.interval * 1000;
    return make("tr", isSlow ? { class: "slow", title: "longer than batch_interval" } : {},
      ...columns.map(([, of]) => cell("td", of, of(row))));
  });
  if (!rows.length) body.push(make("tr", {}, make("td", { colspan: columns.length, class: "null" }, "none")));
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

function showHealth(problems) {
  const key = JSON.stringify(problems);
  const list = find("health");
  if (shown.health === key || (shown.health !== undefined && list.contains(document.activeElement))) return;
  shown.health = key;
  if (!problems.length) {
    list.replaceChildren(make("li", { class: "good" }, make("b", {}, "good"), "It keeps up; nothing has failed."));
    return;
  }
  list.replaceChildren(...problems.map((problem) => {
    const item = make("li", { class: problem.level }, make("b", {}, problem.level),
      make("span", {}, problem.object, " ", problem.reason));
    if (problem.statement) {
      item.append(make("code", {}, problem.statement),
        make("button", { type: "button", click: () => propose(problem.statement) }, "use"));
    }
    return item;
  }));
}

// ---- Polling

function showState(message, isBad) {
  const state = find("state");
  if (state.textContent !== message) state.textContent = message;
  state.className = isBad ? "bad" : "";
}

async function poll() {
  const answer = await fetch(`api/overview?since=${history.next}&after=${history.after}`,
    { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(await answer.text());
  const overview = await answer.json();
  if (!absorb(overview)) return poll();
  showState(overview.state === "running" ? "running" : overview.health[0]?.reason ?? "no engine",
    overview.state !== "running");
  const up = time((overview.now_ms - overview.began_ms) * 1000);
  const statements = overview.statements === undefined ? "" : `, ${overview.statements} statements running`;
  find("facts").textContent = `version ${overview.version}, up ${up}${statements}`;
  showHealth(overview.health);
  if (overview.state === "running") {
    fill("batches", history.batches);
    for (const id of ["sources", "queries", "sinks"]) fill(id, overview[id]);
  }
  drawAll();
}

async function pollForEver() {
  for (;;) {
    let pause = 1000;
    if (!document.hidden) {
      try {
        await poll();
      } catch {
        showState("disconnected, trying again", true);
        pause = 2000;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// ---- SQL

let running = null;

function showResult(result) {
  const parts = (result.notices ?? []).map((notice) => make("p", { class: "warning-text" }, notice));
  if (result.columns) {
    const isNumber = result.types.map((type) => /^(SMALLINT|INT|BIGINT|REAL|DOUBLE|NUMERIC|DECIMAL)/.test(type));
    const head = make("tr", {}, ...result.columns.map((name, at) => make("th", { scope: "col",
      title: result.types[at], class: isNumber[at] ? "number" : "" }, name)));
    const body = result.rows.map((row) => make("tr", {}, ...row.map((value, at) =>
      value === null ? make("td", { class: "null" }, "NULL")
        : make("td", { class: isNumber[at] ? "number" : "" }, value))));
    parts.push(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows" },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))));
    if (result.is_endless) parts.push(make("p", { class: "note" }, "The result has no end: these are its first rows."));
    else if (result.is_cut) parts.push(make("p", { class: "note" }, `Only the first ${result.rows.length} rows.`));
  }
  if (result.tag) parts.push(make("p", { class: "note" }, result.tag));
  return parts;
}

function showError(error, sql) {
  const lines = [`${error.sqlstate}: ${error.message}`];
  if (error.position) {
    const before = [...sql].slice(0, error.position - 1).join("");
    const line = before.split("\n").length;
    const column = [...before.slice(before.lastIndexOf("\n") + 1)].length;
    lines.push(`line ${line}, column ${column + 1}:`, sql.split("\n")[line - 1], " ".repeat(column) + "^");
  }
  if (error.hint) lines.push(error.hint);
  return make("pre", { class: "error-text" }, lines.join("\n"));
}

async function runSql() {
  const sql = find("text").value;
  if (running || !sql.trim()) return;
  running = new AbortController();
  find("run").disabled = true;
  find("cancel").disabled = false;
  find("outcome").textContent = "running";
  find("results").replaceChildren();
  try {
    const answer = await fetch("api/sql", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sql }), signal: running.signal });
    if (!answer.ok) throw new Error(await answer.text());
    const { results, error, milliseconds } = await answer.json();
    find("results").replaceChildren(...results.flatMap(showResult));
    if (error) find("results").append(showError(error, sql));
    find("outcome").textContent = `${error ? "failed" : "done"} in ${milliseconds} ms`;
  } catch (failure) {
    find("outcome").textContent = failure.name === "AbortError" ? "cancelled" : `failed: ${failure.message}`;
  }
  running = null;
  find("run").disabled = false;
  find("cancel").disabled = true;
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  runSql();
});
find("cancel").addEventListener("click", () => running?.abort());
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    runSql();
  }
});

pollForEver();
