// Elements, formats and requests of all pages. Names and values come from users of the engine: they go into the page as
// text, never as HTML.

export const find = (id) => document.getElementById(id);

/** Returns an element with attributes and children; texts become text nodes. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "class") element.className = value;
    else if (key === "click") element.addEventListener("click", value);
    else element.setAttribute(key, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

export const button = (text, click, attributes = {}) => make("button", { type: "button", click, ...attributes }, text);

/** Returns a function that runs `draw` in the next frame, once however often it is called before. */
export function oncePerFrame(draw) {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      draw();
    });
  };
}

// ---- Formats

const isNothing = (value) => value === null || value === undefined;

export function count(n) {
  if (isNothing(n)) return "–";
  if (n >= 1e9) return (n / 1e9).toFixed(2) + " G";
  if (n >= 1e6) return (n / 1e6).toFixed(2) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return Number.isInteger(n) ? String(n) : n.toFixed(1);
}

export function bytes(n) {
  if (isNothing(n)) return "–";
  if (n < 0) return "−" + bytes(-n);
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return (unit ? n.toFixed(1) : String(Math.round(n))) + " " + units[unit];
}

export function time(us) {
  if (isNothing(us)) return "–";
  if (us < 1000) return Math.round(us) + " µs";
  if (us < 1e6) return (us / 1e3).toFixed(1) + " ms";
  if (us < 60e6) return (us / 1e6).toFixed(2) + " s";
  if (us < 3600e6) return (us / 60e6).toFixed(1) + " min";
  return (us / 3600e6).toFixed(1) + " h";
}

export function percent(share) {
  if (isNothing(share)) return "–";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return (share > 0 && share < 0.0995 ? (share * 100).toFixed(1) : Math.round(share * 100)) + " %";
}

export const clock = (ms) => (isNothing(ms) ? "–" : new Date(ms).toISOString().replace("T", " ").slice(0, 23));

// ---- SQL

export const identifier = (name) => '"' + name.replaceAll('"', '""') + '"';
export const literal = (text) => "'" + text.replaceAll("'", "''") + "'";

let proposing = () => {};
/** Sets what happens to a proposed statement. */
export const onProposal = (action) => { proposing = action; };
/** Puts a statement into the SQL page; the user runs it. */
export const propose = (statement) => proposing(statement);

// ---- Requests

/** Returns the JSON of a path of the page, or throws the reason. */
export async function ask(path, signal) {
  const signals = [AbortSignal.timeout(10000), ...(signal ? [signal] : [])];
  const answer = await fetch(path, { signal: AbortSignal.any(signals) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

/** Sends JSON to a path of the page and returns the answer, or throws the reason. */
export async function post(path, body, signal) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

/** Runs statements and returns their results. */
export const run = async (sql, signal) => (await post("api/sql", { sql }, signal)).json();

/** Returns the lines of an error; the second one points at its position. */
export function errorText(error, sql) {
  const lines = [`${error.sqlstate}: ${error.message}`];
  if (error.position) {
    const before = [...sql].slice(0, error.position - 1).join("");
    const line = before.split("\n").length;
    const column = [...before.slice(before.lastIndexOf("\n") + 1)].length;
    lines.push(`line ${line}, column ${column + 1}:`, sql.split("\n")[line - 1], " ".repeat(column) + "^");
  }
  if (error.hint) lines.push(error.hint);
  return lines.join("\n");
}

// ---- Tables

const STATUS_CLASS = { failed: "error-text", suspended: "error-text", restarting: "warning-text",
  retrying: "warning-text", behind: "warning-text", paused: "warning-text" };
export const status = (row) => make("span", { class: STATUS_CLASS[row.status] ?? "" }, row.status ?? "");
export const text = (name) => (row) => row[name] ?? "";
export const number = (name, format = count) => Object.assign((row) => format(row[name]), { isNumber: true });

/** Returns a function that fills a table with rows, if they have changed. `columns` has titles and functions of a row. */
export function table(element, columns, { rowClass = () => null, empty = "none" } = {}) {
  let shown;
  return (rows, more) => {
    const key = JSON.stringify([rows, more]);
    if (shown === key) return;
    shown = key;
    // The focus must not be lost.
    const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const cell = (name, of, child) => make(name, of.isNumber ? { class: "number" } : {}, child);
    const head = make("tr", {}, ...columns.map(([title, of]) => {
      const th = cell("th", of, title);
      th.scope = "col";
      return th;
    }));
    const body = rows.map((row) => make("tr", { class: rowClass(row) }, ...columns.map(([, of]) => cell("td", of, of(row)))));
    if (!rows.length) body.push(make("tr", {}, make("td", { colspan: columns.length, class: "null" }, empty)));
    element.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    if (focused !== undefined) element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  };
}

/** Returns true if a type is one of numbers, which are aligned to the right. */
export const isNumberType = (type) => /^(SMALLINT|INT|BIGINT|REAL|DOUBLE|NUMERIC|DECIMAL)/.test(type);

/** Returns a table of a result's first rows. */
export function resultTable(result) {
  const isNumber = result.types.map(isNumberType);
  const head = make("tr", {}, ...result.columns.map((name, at) =>
    make("th", { scope: "col", title: result.types[at], class: isNumber[at] ? "number" : null }, name)));
  const body = result.rows.map((row) => make("tr", {}, ...row.map((value, at) =>
    value === null ? make("td", { class: "null" }, "NULL")
      : make("td", { class: isNumber[at] ? "number" : null }, value))));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

/** Returns a button that shows a result below it: the answer to a statement. */
export function runInto(output, sql) {
  output.replaceChildren(make("p", { class: "note", role: "status" }, "running ", make("code", {}, sql)));
  output.pending?.abort();
  const pending = new AbortController();
  output.pending = pending;
  return run(sql, pending.signal).then(({ results, error }) => {
    if (output.pending !== pending) return;
    const parts = [make("p", { class: "bar" }, make("code", {}, sql),
      button("to the SQL page", () => propose(sql)))];
    for (const result of results) {
      for (const notice of result.notices) parts.push(make("p", { class: "notice" }, notice));
      if (result.columns) parts.push(result.rows.length ? resultTable(result) : make("p", { class: "null" }, "no rows"));
      if (result.is_cut) parts.push(make("p", { class: "note" }, `Only the first ${result.rows.length} rows.`));
    }
    if (error) parts.push(make("pre", { class: "error-text" }, errorText(error, sql)));
    output.replaceChildren(...parts);
  }, (failure) => {
    if (failure.name !== "AbortError") output.replaceChildren(make("p", { class: "error-text" }, failure.message));
  });
}
