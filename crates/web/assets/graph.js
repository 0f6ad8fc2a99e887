// The graph of all objects, and that of a query's operators, with the share of the busy time that each has now.

import { Drawing } from "./drawing.js";
import { ask, button, bytes, clock, count, find, identifier, literal, make, percent, propose, runInto, table, text, time } from "./elements.js";
import { place } from "./layout.js";

const SIZE = { width: 200, height: 46 };
/** Shares are those of this time, in microseconds, or of two readings. */
const NOW_US = 5e6;
const LISTED = 30;

const TONES = { source: "first", table: "first", view: "soft", stream: "second", "materialized view": "good", sink: "second" };

/** What is shown: null for all objects, or the name of a query. */
let shown = null;
let readings = [];
let structure = "";
let overview = null;
let isLoading = false;
let request = null;

/** The second since the start whose shares are shown, or null for now; and the answer about it. */
let moment = null;
let past = null;

const drawing = new Drawing(find("canvas"), { onSelect: showPanel, onOpen: open });

// ---- Shares

const timeOf = (row) => row.time_us ?? 0;

/** Returns the difference of a figure of each row between the oldest and the newest reading, and the time between. */
function differences(rowsOf, keyOf, figures) {
  const [first, last] = [readings[0], readings.at(-1)];
  const before = new Map(rowsOf(first).map((row) => [keyOf(row), row]));
  const elapsed = (last.at_us - first.at_us) / 1e6;
  const now = new Map();
  for (const row of rowsOf(last)) {
    const old = before.get(keyOf(row));
    const of = {};
    for (const figure of figures) {
      const difference = (row[figure] ?? 0) - (old?.[figure] ?? 0);
      // A query that was made anew counts from zero. One that was not there before may be an old one with a new name.
      of[figure] = elapsed > 0 && old ? (difference < 0 ? row[figure] ?? 0 : difference) / elapsed : null;
    }
    now.set(keyOf(row), of);
  }
  let busy = 0;
  for (const of of now.values()) busy += timeOf(of);
  for (const of of now.values()) of.share = busy > 0 ? timeOf(of) / busy : null;
  return { now, busy: elapsed > 0 ? busy / 1e6 : null, elapsed };
}

/** Gives nodes the shares of the moment that was chosen. */
function atMoment(graph) {
  if (moment === null) return graph;
  const own = (past?.busy ?? []).filter((row) => (shown === null ? row.node === null : row.query === shown && row.node !== null));
  const times = new Map(own.map((row) => [shown === null ? row.query : row.node, row.time_us]));
  let all = 0;
  for (const us of times.values()) all += us;
  for (const node of graph.nodes) {
    const us = times.get(node.row ? node.row.node : node.id);
    node.share = past && all > 0 ? (us ?? 0) / all : null;
    node.now = { time_us: past && us !== undefined ? us / past.seconds : null, rows_in: null, rows_out: null };
  }
  return { ...graph, busy: past ? all / 1e6 / past.seconds : null };
}

// ---- Nodes

function objectsGraph() {
  const answer = readings.at(-1);
  const { now, busy, elapsed } = differences((of) => of.loads, (row) => row.query, ["time_us", "rows_in", "rows_out"]);
  const loads = new Map(answer.loads.map((row) => [row.query, row]));
  const facts = new Map();
  for (const list of ["sources", "queries", "sinks"]) for (const row of overview?.[list] ?? []) facts.set(row.name, row);
  const nodes = new Map();
  const edges = [];
  for (const { name, kind } of answer.objects) {
    if (nodes.has(name)) continue;
    const [fact, load, of] = [facts.get(name) ?? {}, loads.get(name), now.get(name)];
    const notes = [kind];
    if (fact.status && fact.status !== "running") notes.push(fact.status);
    if (fact.rows_per_second !== undefined) notes.push(`${count(fact.rows_per_second)} rows/s`);
    else if (of && of.rows_in !== null) notes.push(`${count(of.rows_in)} rows/s in`);
    if (load?.state_bytes) notes.push(bytes(load.state_bytes));
    nodes.set(name, { id: name, title: name, note: notes.join(", "), kind, share: of?.share ?? null, tone: TONES[kind],
      isBad: ["failed", "suspended"].includes(fact.status) || Boolean(fact.errors) || Boolean(load?.errors), ...SIZE, fact,
      load, now: of });
  }
  for (const { name, depends_on: input } of answer.objects) {
    if (input !== null && nodes.has(input)) edges.push({ from: input, to: name });
  }
  return { nodes: [...nodes.values()], edges, busy, elapsed };
}

function operatorsGraph() {
  const answer = readings.at(-1);
  const { now, busy, elapsed } = differences((of) => of.operators, (row) => row.node, ["time_us", "rows_in", "rows_out"]);
  const known = new Set(answer.operators.map((row) => row.node));
  const nodes = answer.operators.map((row) => {
    const of = now.get(row.node);
    const notes = [row.detail ?? row.cost ?? ""];
    if (row.state_bytes) notes.unshift(bytes(row.state_bytes));
    return { id: `operator ${row.node}`, title: row.operator, note: notes.filter(Boolean).join(", "), kind: "operator",
      share: of.share, tone: row.operator === "Input" ? "first" : row.cost === "whole" ? "bad"
        : row.cost === "touched keys" ? "warn" : "good", isBad: row.errors > 0, ...SIZE, row, now: of };
  });
  const inputsOf = (row) => (row.inputs === null ? [] : row.inputs.split(", ")).filter((node) => known.has(Number(node)));
  const edges = answer.operators.flatMap((row) => inputsOf(row).map((node) => ({ from: `operator ${node}`, to: `operator ${row.node}` })));
  return { nodes, edges, busy, elapsed };
}

// ---- The page

const fillList = table(find("graph-list"), [["object", (node) => button(node.title, () => drawing.select(drawing.byId.get(node.id) ?? null), { "data-key": node.id })],
  ["busy", Object.assign((node) => percent(node.share), { isNumber: true })], ["", (node) => node.kind]],
{ empty: "nothing has run" });

async function render() {
  if (!readings.length) return;
  const { nodes, edges, busy, elapsed } = atMoment(shown === null ? objectsGraph() : operatorsGraph());
  // An edge of a table of two columns may be there twice.
  const seen = new Set();
  const unique = edges.filter(({ from, to }) => {
    const key = JSON.stringify([from, to]);
    return from !== to && !seen.has(key) && seen.add(key);
  });
  const key = JSON.stringify([shown, nodes.map((node) => node.id), unique]);
  const old = drawing.byId;
  if (key === structure) {
    for (const node of nodes) {
      const { x, y, fitted } = old.get(node.id);
      Object.assign(node, { x, y, fitted });
    }
    drawing.set(nodes, drawing.edges.map(({ from, to, points }) => ({ from, to, points })));
  } else {
    const of = shown;
    await place(nodes, unique);
    if (of !== shown) return;
    structure = key;
    drawing.set(nodes, unique);
    drawing.fit();
  }
  const when = moment === null ? `the last ${elapsed.toFixed(1)} s` : `${past?.seconds} s around the chosen moment`;
  const load = busy === null ? "measuring" : `operators were busy ${percent(busy)} of ${when}`;
  find("graph-facts").textContent = `${nodes.length} ${shown === null ? "objects" : "operators"}, ${load}`;
  const sorted = [...nodes].sort((a, b) => (b.share ?? 0) - (a.share ?? 0)).slice(0, LISTED);
  fillList(sorted.map(({ title, kind, share, id, row }) => ({ title: row ? `${title} (node ${row.node})` : title, kind, share, id })));
  const hottest = sorted.find((node) => node.share > 0);
  find("canvas").setAttribute("aria-label", `Graph of ${nodes.length} ${shown === null ? "objects" : "operators"}. ${
    hottest ? `Busiest: ${hottest.title}, ${percent(hottest.share)} of the busy time. ` : ""}Arrows select a node, Enter opens it, `
    + "plus and minus zoom, shift with arrows moves.");
  if (drawing.selected) refreshPanel(drawing.selected);
}

async function load() {
  if (isLoading) return;
  isLoading = true;
  request = new AbortController();
  const of = shown;
  try {
    const path = of === null ? "api/graph" : `api/graph?query=${encodeURIComponent(of)}`;
    const answer = await ask(path, request.signal);
    if (of === shown && answer.at_us !== readings.at(-1)?.at_us) {
      // The engine is another one than before, or the page was away.
      const since = answer.at_us - (readings.at(-1)?.at_us ?? 0);
      if (since < 0 || since > 2 * NOW_US) readings = [];
      readings.push(answer);
      while (readings.length > 2 && answer.at_us - readings[1].at_us >= NOW_US) readings.shift();
      await render();
      find("graph-error").textContent = "";
    }
  } catch (failure) {
    if (of === shown && failure.name !== "AbortError") find("graph-error").textContent = failure.message;
  }
  isLoading = false;
}

function open(node) {
  if (shown === null && node.load) location.hash = `#graph/${encodeURIComponent(node.title)}`;
}

// ---- The panel

let panelOf = null;

const row = (name, value) => [make("dt", {}, name), make("dd", {}, value)];

function factsOf(node) {
  const of = node.now ?? {};
  const list = [[`share of the busy time ${moment === null ? "now" : "then"}`, percent(node.share)]];
  if (node.row) {
    const operator = node.row;
    list.push(["time, a second", time(of.time_us)], ["rows in, a second", count(of.rows_in)], ["rows out, a second", count(of.rows_out)],
      ["cost class", operator.cost ?? "–"], ["key", operator.key ?? "–"], ["state key", operator.state_key ?? "–"],
      ["state", `${count(operator.state_rows)} rows, ${bytes(operator.state_bytes)}`], ["spilled", bytes(operator.spilled_bytes)],
      ["errors", count(operator.errors)], ["late rows", count(operator.late_rows)], ["steps", count(operator.epochs)],
      ["rows in, in all", count(operator.rows_in)], ["rows out, in all", count(operator.rows_out)], ["time, in all", time(operator.time_us)],
      ["shared by", operator.shared_by ?? "–"], ["detail", operator.detail ?? "–"]);
    return list;
  }
  const { fact, load } = node;
  list.push(["kind", node.kind]);
  if (fact.status) list.push(["status", fact.status]);
  if (fact.reason) list.push(["reason", fact.reason]);
  if (fact.rows !== undefined) list.push(["rows", count(fact.rows)]);
  if (load) {
    list.push(["time, a second", time(of.time_us)], ["rows in, a second", count(of.rows_in)], ["operators", count(load.operators)],
      ["state", bytes(load.state_bytes)], ["errors", count(load.errors)], ["late rows", count(load.late_rows)]);
  }
  if (fact.bad_rows !== undefined) list.push(["bad rows", count(fact.bad_rows)], ["waiting rows", count(fact.waiting_rows)]);
  if (fact.waiting_epochs !== undefined) list.push(["waiting epochs", count(fact.waiting_epochs)]);
  return list;
}

/** Returns the statements about an object, with their names. */
function statementsOf(name, kind) {
  const [as, text] = [identifier(name), literal(name)];
  const word = kind.toUpperCase();
  if (["materialized view", "stream", "sink"].includes(kind)) {
    const list = [["EXPLAIN ANALYZE", `EXPLAIN ANALYZE ${word} ${as} FOR '2 seconds'`], ["EXPLAIN WHY", `EXPLAIN WHY ${word} ${as}`],
      ["EXPLAIN (STATE)", `EXPLAIN (STATE) ${word} ${as}`]];
    if (kind !== "sink") list.push(["VERIFY", `VERIFY ${as}`]);
    list.push(["late rows", `SELECT * FROM millstream.late_rows WHERE query = ${text} LIMIT 100`],
      ["errors", `SELECT * FROM millstream.errors WHERE query = ${text} LIMIT 100`], ["statement", `SHOW CREATE ${word} ${as}`]);
    return list;
  }
  if (kind === "source") {
    return [["partitions", `SELECT * FROM millstream.source_partitions WHERE source = ${text}`],
      ["bad rows", `SELECT * FROM bad_rows(${text}) LIMIT 100`], ["statement", `SHOW CREATE SOURCE ${as}`]];
  }
  return [["columns", `DESCRIBE ${as}`], ["statement", `SHOW CREATE ${word} ${as}`]];
}

function refreshPanel(node) {
  const list = JSON.stringify(factsOf(node));
  if (panelOf?.facts === list) return;
  panelOf.facts = list;
  find("panel-facts").replaceChildren(...factsOf(node).flatMap(([name, value]) => row(name, value)));
}

function showPanel(node) {
  const panel = find("panel");
  panel.hidden = !node;
  if (!node) {
    panelOf = null;
    return;
  }
  if (panelOf?.id === node.id) return;
  panelOf = { id: node.id, facts: "" };
  find("panel-title").textContent = node.row ? `${node.row.operator} (node ${node.row.node})` : node.title;
  refreshPanel(node);
  const output = find("panel-output");
  output.pending?.abort();
  output.replaceChildren();
  const [name, kind] = node.row ? [shown, kindOf(shown)] : [node.title, node.kind];
  const buttons = statementsOf(name, kind).map(([title, sql]) => button(title, () => runInto(output, sql)));
  if (shown === null && node.load) {
    buttons.unshift(make("a", { class: "button", href: `#graph/${encodeURIComponent(node.title)}` }, "operators"));
  }
  find("panel-buttons").replaceChildren(...buttons);
}

const kindOf = (name) => overview?.queries?.find((row) => row.name === name)?.kind
  ?? (overview?.sinks?.some((row) => row.name === name) ? "sink" : "source");

find("panel-close").addEventListener("click", () => {
  drawing.select(null);
  find("canvas").focus();
});
find("graph-why").addEventListener("click", () => propose(shown === null ? "EXPLAIN WHY;" : `EXPLAIN WHY ${identifier(shown)};`));
// ---- The moment

let momentRequest = null;
let momentTimer = null;

async function loadMoment() {
  momentRequest?.abort();
  momentRequest = new AbortController();
  const of = moment;
  try {
    const answer = await ask(`api/busy?second=${of}`, momentRequest.signal);
    if (of !== moment) return;
    past = answer;
    await render();
  } catch (failure) {
    if (failure.name !== "AbortError") find("graph-error").textContent = failure.message;
  }
}

function chooseMoment() {
  const ago = -Number(find("moment").value);
  past = null;
  clearTimeout(momentTimer);
  if (ago === 0 || !overview) {
    find("moment").value = "0";
    moment = null;
    momentRequest?.abort();
    render();
  } else {
    const now = Math.floor((overview.now_ms - overview.began_ms) / 1000);
    moment = Math.max(0, now - ago);
    momentTimer = setTimeout(loadMoment, 120);
  }
  const at = moment === null ? "now" : `${clock(overview.began_ms + 1000 * moment).slice(0, 19)} UTC`;
  find("moment-text").textContent = at;
  find("moment").setAttribute("aria-valuetext", at);
  find("moment-now").hidden = moment === null;
}

find("moment").addEventListener("input", chooseMoment);
find("moment-now").addEventListener("click", () => {
  find("moment").value = "0";
  chooseMoment();
  find("moment").focus();
});

find("zoom-in").addEventListener("click", () => drawing.zoomBy(1.25));
find("zoom-out").addEventListener("click", () => drawing.zoomBy(0.8));
find("zoom-fit").addEventListener("click", () => drawing.fit());

export const page = {
  show(rest) {
    const wanted = rest === "" ? null : rest;
    if (wanted !== shown || !readings.length) {
      request?.abort();
      isLoading = false;
      shown = wanted;
      readings = [];
      structure = "";
      drawing.selected = null;
      showPanel(null);
      drawing.set([], []);
      find("graph-facts").textContent = "loading";
    }
    find("graph-title").textContent = shown === null ? "Query graph" : `Operators of ${shown}`;
    find("graph-back").hidden = shown === null;
    load();
  },
  update(answer) {
    // The engine is another one than before: its seconds are others.
    if (overview && overview.began_ms !== answer.began_ms && moment !== null) find("moment-now").click();
    overview = answer;
    const up = Math.floor((answer.now_ms - answer.began_ms) / 1000);
    if (moment === null) find("moment").min = String(-Math.max(1, Math.min(3600, up)));
    load();
  },
  redraw: () => drawing.redraw(),
};

/** For measurements: the drawing. */
globalThis.millstreamDrawing = drawing;
