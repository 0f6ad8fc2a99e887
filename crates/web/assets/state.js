// The state of queries and operators, how it grows while the page is open, and the checkpoints.

import { ask, button, bytes, clock, find, identifier, make, number, runInto, table, text, time } from "./elements.js";

/** The state of each query and operator when the page first saw it. */
const first = new Map();
const FIRST_MAX = 5000;

let isLoading = false;
let overview = null;

/** Returns the growth since the page first saw a row, as bytes a minute; null within the first seconds. */
function growth(key, size) {
  const now = performance.now();
  const seen = first.get(key);
  if (!seen) {
    if (first.size >= FIRST_MAX) first.clear();
    first.set(key, { size, at: now });
    return null;
  }
  const minutes = (now - seen.at) / 60_000;
  return minutes < 0.05 ? null : (size - seen.size) / minutes;
}

const shownGrowth = Object.assign((row) => (row.growth === null ? "–" : `${row.growth > 0 ? "+" : ""}${bytes(row.growth)}/min`),
  { isNumber: true });

function kindOf(name) {
  const query = overview?.queries?.find((row) => row.name === name);
  if (query) return query.kind.toUpperCase();
  return overview?.sinks?.some((row) => row.name === name) ? "SINK" : null;
}

const bound = (row) => (kindOf(row.query) === null ? "" : button("what bounds it", () => {
  find("bound").hidden = false;
  find("bound-title").textContent = `State of ${row.query}`;
  runInto(find("bound-output"), `EXPLAIN (STATE) ${kindOf(row.query)} ${identifier(row.query)}`);
}, { "data-key": `bound ${row.query}`, "aria-label": `what bounds it: the state of ${row.query}` }));

const fillQueries = table(find("state-queries"), [["query", text("query")], ["rows", number("state_rows")],
  ["in memory", number("state_bytes", bytes)], ["spilled", number("spilled_bytes", bytes)], ["growth", shownGrowth], ["", bound]],
{ empty: "no query keeps state" });

const fillOperators = table(find("state-operators"), [["query", text("query")], ["node", number("node")], ["operator", text("operator")],
  ["key", text("state_key")], ["rows", number("state_rows")], ["in memory", number("state_bytes", bytes)],
  ["spilled", number("spilled_bytes", bytes)], ["growth", shownGrowth], ["shared by", text("shared_by")]],
{ empty: "no operator keeps state" });

const fillCheckpoints = table(find("checkpoints"), [["complete (UTC)", (row) => clock(row.at)], ["epoch", number("epoch", String)],
  ["epochs stopped for", number("stopped_us", time)], ["took", number("duration_us", time)], ["written", number("bytes", bytes)],
  ["whole size", number("named_bytes", bytes)], ["reason", (row) => make("span", { class: "error-text" }, row.reason ?? "")]],
{ empty: "no checkpoint since the start" });

async function load() {
  if (isLoading) return;
  isLoading = true;
  try {
    const { queries, operators, checkpoints } = await ask("api/state");
    const size = (row) => row.state_bytes + row.spilled_bytes;
    fillQueries(queries.filter((row) => size(row) > 0)
      .map((row) => ({ ...row, growth: growth(JSON.stringify([row.query]), size(row)) })));
    fillOperators(operators.map((row) => ({ ...row, growth: growth(JSON.stringify([row.query, row.node]), size(row)) })));
    fillCheckpoints(checkpoints);
    find("state-error").textContent = "";
  } catch (failure) {
    find("state-error").textContent = failure.message;
  }
  isLoading = false;
}

find("bound-close").addEventListener("click", () => { find("bound").hidden = true; });

export const page = {
  update(answer) {
    overview = answer;
    if (answer.state !== "running") return;
    const { memory } = answer;
    find("state-facts").textContent = `State: ${bytes(memory.state_bytes)} in memory, ${bytes(memory.spilled_bytes)} spilled; memory_limit: ${
      memory.limit_bytes === null ? "none" : bytes(memory.limit_bytes)}. Growth is since this page was opened.`;
    load();
  },
  redraw() {},
};
