// The SQL page: statements, their results as they arrive, live queries, the texts that were run before.

import { makeEditor } from "./editor.js";
import { button, count, errorText, find, make, onProposal, post } from "./elements.js";
import { csv, Grid, LiveRows } from "./grid.js";
import { PagedRows } from "./pages.js";
import { choice, Plot } from "./plot.js";

const HISTORY = "millstream.statements";
const HISTORY_MAX = 100;
const LIVE_MAX = 20_000;
const RESULTS_MAX = 50;

let editor = null;
let waitingText = null;
let running = null;

async function open() {
  if (editor) return editor;
  editor = makeEditor(find("editor"), "Statements, separated by semicolons; Ctrl+Enter runs them", runSql);
  try {
    editor = await editor;
  } catch (failure) {
    editor = null;
    find("outcome").textContent = `the editor can't be loaded: ${failure.message}`;
    throw failure;
  }
  if (waitingText !== null) editor.set(waitingText);
  waitingText = null;
  return editor;
}

onProposal((statement) => {
  waitingText = statement;
  location.hash = "#sql";
  page.show();
});

// ---- History

function statements() {
  try {
    const kept = JSON.parse(localStorage.getItem(HISTORY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((text) => typeof text === "string") : [];
  } catch {
    return [];
  }
}

function remember(sql) {
  // Secrets don't belong on the disk of the browser.
  if (/password|passwd|secret|token|credential|access_key|sasl|jaas|private_key|:\/\/[^\s/]*:[^\s@]*@/i.test(sql)) return;
  const kept = [sql, ...statements().filter((text) => text !== sql)].slice(0, HISTORY_MAX);
  try {
    localStorage.setItem(HISTORY, JSON.stringify(kept));
  } catch {
    // Without room, or where the browser keeps nothing, there is no history.
  }
  showHistory();
}

function showHistory() {
  const list = find("statements");
  const use = (text) => button(text.length > 200 ? text.slice(0, 200) + "…" : text, () => {
    editor.set?.(text);
    editor.focus?.();
  });
  const kept = statements();
  list.replaceChildren(...(kept.length ? kept.map((text) => make("li", {}, use(text))) : [make("li", { class: "null" }, "none yet")]));
}
find("forget").addEventListener("click", () => {
  localStorage.removeItem(HISTORY);
  showHistory();
});

// ---- Results

/** Saves bytes as a file. */
function save(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A result with rows that is being received. */
class Result {
  constructor({ columns, types, is_endless: isEndless }) {
    this.isLive = isEndless;
    const operation = columns.indexOf("_op");
    const hasOperation = isEndless && operation >= 0 && operation <= 1;
    const skipped = hasOperation ? operation + 1 : 0;
    this.columns = columns.slice(skipped);
    this.types = types.slice(skipped);
    this.grid = new Grid(this.columns, this.types, isEndless && !hasOperation);
    this.live = isEndless ? new LiveRows(skipped, hasOperation ? operation : null, LIVE_MAX) : null;
    this.rows = [];
    this.paged = isEndless ? null : new PagedRows(() => this.grid.setPaged(this.paged));
    if (this.paged) this.paged.onFailure = (reason) => { this.note.textContent += `; ${reason}`; };
    this.changes = 0;
    this.note = make("p", { class: "note" });
    const label = (text) => ({ "aria-label": `Save the rows as ${text}` });
    this.exports = [button("CSV", () => this.save("csv"), label("CSV"))];
    if (!isEndless) this.exports.push(button("Parquet", () => this.save("parquet"), { ...label("Parquet"), disabled: "" }));
    if (choice(this.columns, this.types)) this.exports.push(button("chart", () => this.plot()));
    this.plotted = make("div");
    this.element = make("section", { class: "result", "aria-label": "Result" }, this.grid.element,
      make("div", { class: "bar" }, this.note, ...this.exports), this.plotted);
    this.show();
  }

  add(rows) {
    if (this.live) {
      this.changes += rows.length;
      const { rows: now, changed } = this.live.apply(rows);
      this.rows = now;
      this.grid.set(this.rows, changed);
    } else {
      this.paged.add(rows);
      this.grid.setPaged(this.paged);
    }
    this.show();
  }

  /** Takes the number of rows so far. */
  counted(rows) {
    this.paged.length = Math.max(rows, this.paged.length);
    this.show();
  }

  end(end) {
    if (this.paged) {
      this.paged.result = end.result;
      this.paged.length = end.rows;
      this.grid.setPaged(this.paged);
      for (const each of this.exports) each.disabled = false;
    }
    this.show(end);
  }

  show(end) {
    const parts = [`${count(this.paged ? this.paged.length : this.rows.length)} rows`];
    if (this.isLive) parts.push(`live, ${count(this.changes)} changes`);
    if (this.live?.isCut) parts.push(`only ${count(LIVE_MAX)} rows are shown`);
    if (end?.is_cut && !this.isLive) parts.push("cut: the server keeps 4 GB of results");
    if (end) parts.push(end.tag);
    this.note.textContent = parts.join(", ");
  }

  async save(format) {
    if (!this.paged?.result) {
      save(new Blob([csv(this.columns, this.paged ? this.paged.first : this.rows)], { type: "text/csv" }), "result.csv");
      return;
    }
    const before = this.note.textContent;
    this.note.textContent = `saving as ${format} …`;
    try {
      const answer = await post("api/result/save", { result: this.paged.result, format });
      save(await answer.blob(), `result.${format}`);
      this.note.textContent = before;
    } catch (failure) {
      this.note.textContent = `${before}; not saved: ${failure.message}`;
    }
  }

  /** Shows or hides a chart of the first rows. */
  plot() {
    if (this.plotted.firstChild) {
      this.plotted.replaceChildren();
      return;
    }
    const rowsOf = async (from, wanted) => (this.paged ? this.paged.range(from, wanted) : this.rows.slice(from, from + wanted));
    const chart = new Plot(this.columns, this.types, rowsOf);
    this.plotted.replaceChildren(chart.element);
    chart.load().catch((failure) => { chart.note.textContent = failure.message; });
  }

  drop() {
    this.paged?.drop();
  }
}

const notices = (all) => all.map((notice) => make("p", { class: "notice" }, notice));

/** Calls `take` for each line of an answer. */
async function eachLine(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = value.split("\n");
    if (lines.length === 1) {
      rest.push(value);
      continue;
    }
    lines[0] = rest.join("") + lines[0];
    rest = [lines.pop()];
    for (const line of lines) if (line) take(JSON.parse(line));
  }
}

/** The results on the page. */
let shown = [];

function dropResults() {
  for (const result of shown) result.drop();
  shown = [];
}
addEventListener("pagehide", dropResults);

/** Receives the answer to statements into the page. */
class Receiver {
  constructor(sql, from) {
    Object.assign(this, { sql, from, result: null, hasFailed: false, milliseconds: null, results: 0 });
  }

  append(...elements) {
    const all = find("results");
    all.append(...elements);
    while (all.children.length > 4 * RESULTS_MAX) all.firstChild.remove();
  }

  take(line) {
    if (line.begin) {
      this.result = new Result(line.begin);
      shown.push(this.result);
      while (shown.length > 4 * RESULTS_MAX) shown.shift().drop();
      this.append(this.result.element);
      if (line.begin.is_endless) find("outcome").textContent = "live";
    } else if (line.rows) {
      this.result.add(line.rows);
    } else if (line.count) {
      this.result.counted(line.count);
    } else if (line.end) {
      this.append(...notices(line.end.notices));
      this.result.end(line.end);
    } else if (line.done) {
      this.append(...notices(line.done.notices), make("p", { class: "note" }, line.done.tag));
    } else if (line.error) {
      this.fail(line.error);
    } else if (line.milliseconds !== undefined) {
      this.milliseconds = line.milliseconds;
    }
  }

  fail(error) {
    this.hasFailed = true;
    this.append(make("pre", { class: "error-text" }, errorText(error, this.sql)));
    if (error.position) {
      // The position counts characters, the editor units of UTF-16.
      editor.mark(this.from + [...this.sql].slice(0, error.position - 1).join("").length);
    }
  }
}

/** Returns EXPLAIN ANALYZE of a name with the time that one answer is of; null for other texts. */
function explained(sql) {
  const text = sql.trim().replace(/[;\s]+$/, "");
  if (!/^EXPLAIN\s+ANALYZE\s+(?!SELECT\b|WITH\b|VALUES\b|\()/i.test(text)) return null;
  return /\sFOR\s/i.test(text) ? text : `${text} FOR '1 second'`;
}

/** Runs a statement again and again, and shows its answer in place, until it is cancelled. */
async function refresh(sql, signal) {
  let [grid, before] = [null, []];
  const note = make("p", { class: "note" });
  for (let number = 1; ; number += 1) {
    const { results, error } = await (await post("api/sql", { sql }, signal)).json();
    if (error) {
      find("results").append(make("pre", { class: "error-text" }, errorText(error, sql)));
      throw new Error(error.message);
    }
    const { columns, types, rows } = results[0];
    if (!grid) {
      grid = new Grid(columns, types);
      find("results").append(make("section", { class: "result", "aria-label": "Result" }, grid.element, note));
      find("outcome").textContent = "live";
    }
    const changed = new Map();
    rows.forEach((row, at) => {
      const places = row.flatMap((value, column) => (value === before[at]?.[column] ? [] : [column]));
      if (number > 1 && places.length) changed.set(row, before[at] ? places : null);
    });
    before = rows;
    grid.set(rows, changed);
    note.textContent = `live, answer ${number}`;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function runSql(live = false) {
  const { sql: chosen, from } = editor.chosen();
  const sql = live ? chosen.replace(/[;\s]+$/, "") + "\nEMIT CHANGES" : chosen;
  if (running || !chosen.trim()) return;
  running = new AbortController();
  for (const id of ["run", "live"]) find(id).disabled = true;
  find("cancel").disabled = false;
  find("outcome").textContent = "running";
  dropResults();
  find("results").replaceChildren();
  editor.mark(null);
  remember(chosen);
  const receiver = new Receiver(sql, from);
  const again = live ? explained(chosen) : null;
  try {
    if (again) await refresh(again, running.signal);
    const answer = await post("api/sql/stream", { sql }, running.signal);
    await eachLine(answer, (line) => receiver.take(line));
    find("outcome").textContent = receiver.milliseconds === null ? "failed: the answer has no end; the engine may have ended"
      : `${receiver.hasFailed ? "failed" : "done"} in ${receiver.milliseconds} ms`;
  } catch (failure) {
    find("outcome").textContent = failure.name === "AbortError" ? "cancelled" : `failed: ${failure.message}`;
  }
  // An answer that was not read to its end would go on.
  running.abort();
  running = null;
  for (const id of ["run", "live"]) find(id).disabled = false;
  find("cancel").disabled = true;
}

find("run").addEventListener("click", () => runSql());
find("live").addEventListener("click", () => runSql(true));
find("cancel").addEventListener("click", () => running?.abort());
showHistory();

export const page = {
  async show() {
    const opened = await open();
    if (waitingText !== null) opened.set(waitingText);
    waitingText = null;
    opened.focus();
  },
  update() {},
  redraw() {},
};
