// Sources with their partitions and bad rows, and sinks with what they wait for.

import { ask, button, bytes, clock, count, find, identifier, literal, make, number, propose, run, status, table, text, time }
  from "./elements.js";

let chosen = null;
let isLoading = false;

const fillSources = table(find("all-sources"), [["source", text("name")], ["connector", text("connector")], ["status", status],
  ["reason", text("reason")], ["rows", number("rows")], ["rows/s", number("rows_per_second")],
  ["limit, rows/s", (row) => row.rate_limit ?? ""], ["waiting", Object.assign((row) =>
    `${count(row.waiting_rows)} rows, ${bytes(row.waiting_bytes)}`, { isNumber: true })],
  ["restarts", number("restarts")], ["skipped duplicates", number("duplicates")], ["bad rows", Object.assign((row) => (row.bad_rows
    ? button(count(row.bad_rows), () => showBad(row.name), { "data-key": row.name, "aria-label": `${count(row.bad_rows)} bad rows of ${row.name}` })
    : "0"), { isNumber: true })]]);

const fillPartitions = table(find("partitions"), [["source", text("source")], ["partition", text("partition")],
  ["position", number("position", (n) => String(n ?? "–"))], ["end", number("end_position", (n) => String(n ?? "–"))],
  ["lag", number("lag")], ["last record (UTC)", (row) => clock(row.last_record_time)],
  ["behind", Object.assign((row) => (row.last_record_time === null || row.done === "true" || row.lag === 0 ? "–"
    : time(Math.max(0, row.now_ms - row.last_record_time) * 1000)), { isNumber: true })],
  ["watermark (UTC)", (row) => clock(row.watermark)],
  ["", (row) => [row.done === "true" ? "read to its end" : "", row.idle === "true" ? "idle" : ""].filter(Boolean).join(", ")]],
{ empty: "no source has been read" });

const fillSinks = table(find("all-sinks"), [["sink", text("name")], ["target", text("target")], ["status", status],
  ["reason", text("reason")], ["rows", number("rows")], ["epoch", number("epoch", (n) => String(n ?? "–"))],
  ["waiting", Object.assign((row) => (row.waiting_epochs === null ? "–"
    : `${count(row.waiting_epochs)} epochs, ${bytes(row.waiting_bytes)}`), { isNumber: true })], ["delivery", text("delivery")],
  ["", (row) => button("why", () => propose(`EXPLAIN WHY SINK ${identifier(row.name)}`),
    { "aria-label": `Explain why ${row.name}`, "data-key": row.name })]]);

/** Returns BYTEA as text; bytes that are no UTF-8 become �. */
function readable(value) {
  if (!value?.startsWith("\\x")) return value ?? "";
  const pairs = value.slice(2).match(/../g) ?? [];
  return new TextDecoder().decode(Uint8Array.from(pairs, (pair) => parseInt(pair, 16)));
}

/** Shows the first bad rows of a source, each as text. */
async function showBad(name) {
  chosen = name;
  find("bad").hidden = false;
  find("bad-title").textContent = `Bad rows of ${name}`;
  const statement = `SELECT split, position, reason, bytes FROM bad_rows(${literal(name)}) LIMIT 100`;
  const output = find("bad-rows");
  output.replaceChildren(make("p", { class: "note" }, "loading"));
  find("bad-buttons").replaceChildren(
    button("read with SQL", () => propose(`SELECT * FROM bad_rows(${literal(name)});`)),
    button("put back, mended", () => propose(`-- Mend the text, and name as many values as the source has columns.\n`
      + `INSERT INTO ${identifier(name)}\nSELECT (bytes::TEXT)::JSON ->> 'id'\n`
      + `FROM bad_rows(${literal(name)}) WHERE position = 0;`)),
    button("close", () => { find("bad").hidden = true; }));
  let answer;
  try {
    answer = await run(statement);
  } catch (failure) {
    output.replaceChildren(make("p", { class: "error-text" }, failure.message));
    return;
  }
  if (chosen !== name) return;
  if (answer.error) {
    output.replaceChildren(make("p", { class: "error-text" }, answer.error.message));
    return;
  }
  const element = make("table");
  const rows = answer.results[0].rows.map(([split, position, reason, record]) => ({ split, position, reason, record: readable(record) }));
  table(element, [["split", text("split")], ["position", text("position")], ["reason", text("reason")],
    ["record", (row) => make("code", {}, row.record)]])(rows);
  output.replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "bad-title" }, element));
}

async function loadPartitions(now) {
  if (isLoading) return;
  isLoading = true;
  try {
    const { partitions } = await ask("api/partitions");
    fillPartitions(partitions.map((row) => ({ ...row, now_ms: Math.floor(now / 1000) * 1000 })));
    find("partitions-error").textContent = "";
  } catch (failure) {
    find("partitions-error").textContent = failure.message;
  }
  isLoading = false;
}

export const page = {
  update(overview) {
    if (overview.state !== "running") return;
    fillSources(overview.sources);
    fillSinks(overview.sinks);
    loadPartitions(overview.now_ms);
  },
  redraw() {},
};
