// The web page in Chromium: node pages.mjs PATH-TO-MILLSTREAM FOLDER-OF-MODULES FOLDER-OF-SCREENSHOTS
// Every page, hostile names and values, an engine that is killed under an open page.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { chromium } from "./launch.mjs";

const [, , program, modules, screenshots] = process.argv;

const WAIT = 30_000;
const work = fs.mkdtempSync(path.join(os.tmpdir(), "millstream-page-"));
fs.mkdirSync(screenshots, { recursive: true });

const HOSTILE = "<script>alert(1)</script>";
const HOSTILE_VIEW = "<img src=x onerror=alert(2)>";
const VALUE = "<b onclick=alert(3)>'\"&amp;</b>";

fs.mkdirSync(path.join(work, "in"));
fs.writeFileSync(path.join(work, "in", "lines.jsonl"), `{"a": 1}\n{"a": "<i>no number</i>"}\n{"a": 2}\n`);
fs.writeFileSync(path.join(work, "app.sql"), `
SET batch_interval = '200 ms';
CREATE SOURCE clicks (n BIGINT, k BIGINT) WITH (connector = 'datagen', rows_per_second = 2000,
  fields.n.kind = 'sequence', fields.k.min = 0, fields.k.max = 99);
CREATE MATERIALIZED VIEW per_key AS SELECT k, count(*) AS n FROM clicks GROUP BY k;
CREATE VIEW odd AS SELECT k, n FROM per_key WHERE k % 2 = 1;
CREATE MATERIALIZED VIEW odds AS SELECT count(*) AS keys, sum(n) AS n FROM odd;
CREATE TABLE "${HOSTILE}" (id BIGINT PRIMARY KEY, v TEXT);
CREATE MATERIALIZED VIEW "${HOSTILE_VIEW}" AS SELECT v, 1 / id AS one FROM "${HOSTILE}";
INSERT INTO "${HOSTILE}" VALUES (0, '${VALUE.replaceAll("'", "''")}');
CREATE SOURCE files (a BIGINT) WITH (connector = 'file', path = '${path.join(work, "in")}/', format = 'json');
CREATE MATERIALIZED VIEW of_files AS SELECT sum(a) AS a FROM files;
CREATE SINK out FROM per_key WITH (connector = 'blackhole');
`);

let server = null;
let log = "";

/** Starts the server and returns the address of its page. The second start has the first one's. */
async function start(address = "127.0.0.1:0") {
  const isFirst = address.endsWith(":0");
  log = "";
  const words = ["--data", path.join(work, "state"), "server", "--listen", "127.0.0.1:0", "--ui", address];
  server = spawn(program, [...words, ...(isFirst ? [path.join(work, "app.sql")] : [])], { stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [server.stdout, server.stderr]) stream.on("data", (text) => { log += text; });
  await until("the server's address", () => /listening on/.test(log) && /the web page is at/.test(log));
  return /the web page is at (\S+)/.exec(log)[1];
}

async function until(what, condition) {
  const end = Date.now() + WAIT;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > end) throw new Error(`no ${what} within ${WAIT / 1000} s; the server said: ${log}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

let page;
const complaints = [];
let mayFail = false;

const text = (selector) => page.locator(selector).innerText();
const says = (selector, pattern) => until(`${pattern} in ${selector}`, async () => pattern.test(await text(selector)));
const goto = (hash) => page.evaluate((to) => { location.hash = to; }, hash);
let pictures = 0;
const picture = async (name) => {
  pictures += 1;
  await page.screenshot({ path: path.join(screenshots, `${String(pictures).padStart(2, "0")}-${name}.png`), fullPage: true });
};
const fits = async (name) => {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(over <= 0, `${name} is ${over} pixels wider than the window`);
};

/** Runs a statement on the SQL page and waits for its end. */
async function sql(statement) {
  await page.locator(".cm-content").click();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.insertText(statement);
  await page.keyboard.press("Escape");
  await page.locator("#run").click();
  await says("#outcome", /done|failed/);
}

const trials = {
  async overview(address) {
    const answer = await page.goto(address);
    const policy = answer.headers()["content-security-policy"];
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    await says("#state", /^running$/);
    await says("#sources", /clicks/);
    await says("#queries", /per_key/);
    assert.ok((await text("#queries")).includes(HOSTILE_VIEW), "the hostile name is not shown as text");
    assert.ok((await text("#health")).includes("division by zero"), "health doesn't name the failing view");
    assert.match(await page.locator("#charts canvas").first().getAttribute("aria-label"), /Rows a second/);
    await picture("overview");
  },

  async batches() {
    await goto("#batches");
    await says("#batches", /completed[^]*clicks: \d/);
    await picture("batches");
    await page.locator("#batches a").first().click();
    await says("#batch-title", /^Batch \d+$/);
    await says("#batch-facts", /processing time/);
    await says("#batch-operators", /per_key/);
    await picture("batch");
  },

  async graph() {
    await goto("#graph");
    await says("#graph-facts", /9 objects, operators were busy/);
    const nodes = await page.evaluate(() => globalThis.millstreamDrawing.nodes.map(({ title }) => title));
    assert.ok(nodes.includes(HOSTILE) && nodes.includes("odd") && nodes.includes("out"), nodes.join(", "));
    const edges = await page.evaluate(() => globalThis.millstreamDrawing.edges.map(({ from, to }) => `${from} > ${to}`));
    for (const edge of ["clicks > per_key", "odd > odds", "per_key > odd", "per_key > out", `${HOSTILE} > ${HOSTILE_VIEW}`]) {
      assert.ok(edges.includes(edge), `no edge ${edge} in ${edges.join(", ")}`);
    }
    await says("#graph-list", /per_key\s+\d/);
    await page.locator("#graph-list button", { hasText: "per_key" }).click();
    await says("#panel-facts", /share of the busy time now/);
    await page.locator("#panel-buttons button", { hasText: "EXPLAIN WHY" }).click();
    await says("#panel-output", /nothing holds it back/);
    await page.locator("#panel-buttons button", { hasText: "EXPLAIN ANALYZE" }).click();
    await says("#panel-output", /Aggregate/);
    await page.locator("#panel-buttons button", { hasText: "VERIFY" }).click();
    await says("#panel-output", /per_key/);
    await picture("graph");
    await page.locator("#panel-buttons a", { hasText: "operators" }).click();
    await says("#graph-title", /Operators of per_key/);
    await says("#graph-facts", /operators, operators were busy/);
    // By keyboard: an arrow selects a node.
    await page.locator("#canvas").focus();
    await page.keyboard.press("ArrowRight");
    await says("#panel-facts", /cost class/);
    await picture("operators");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#panel").isVisible(), false);
    // An earlier moment, of operators and of all objects.
    const back = (seconds) => page.locator("#moment").evaluate((element, ago) => {
      element.value = String(-ago);
      element.dispatchEvent(new Event("input"));
    }, seconds);
    await page.waitForTimeout(1500);
    await back(2);
    await says("#moment-text", /^20\d\d-.* UTC$/);
    await says("#graph-facts", /5 s around the chosen moment/);
    await goto("#graph");
    await says("#graph-title", /^Query graph$/);
    await says("#graph-facts", /9 objects, operators were busy .* 5 s around the chosen moment/);
    await says("#graph-list", /per_key\s+\d/);
    await picture("graph-moment");
    await page.locator("#moment-now").click();
    await says("#graph-facts", /of the last/);
  },

  async sources() {
    await goto("#sources");
    await says("#all-sources", /clicks/);
    await says("#partitions", /lines\.jsonl/);
    await says("#all-sinks", /blackhole/);
    await page.locator("#all-sources button").first().click();
    await says("#bad-rows", /<i>no number<\/i>/);
    await picture("sources");
  },

  async state() {
    await goto("#state");
    await says("#state-queries", /per_key/);
    await says("#state-queries", /\/min/);
    await says("#state-operators", /Aggregate/);
    await page.locator("#state-queries tr", { hasText: "per_key" }).locator("button").click();
    await says("#bound-output", /grows with the distinct values of k/);
    await picture("state");
  },

  async statements() {
    await goto("#sql");
    await page.locator(".cm-content").waitFor();
    await sql(`SELECT * FROM "${HOSTILE}"; SELECT 1 AS one; SELECT 'é', nowhere`);
    const results = await text("#results");
    assert.ok(results.includes(VALUE), `the hostile value is not shown as text: ${results}`);
    assert.match(results, /42703/);
    assert.equal(await page.locator(".cm-mistake").innerText(), "nowhere");
    await picture("sql");
    await page.locator(".cm-content").click();
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("SELECT * FROM per_k");
    await says(".cm-tooltip-autocomplete", /per_key/);
    await picture("completion");
    await page.keyboard.press("Escape");
    await sql("SELECT g, 'v' || g AS v FROM generate_series(1, 50000) x(g) ORDER BY g");
    await says("#results .note", /50\.0 k rows/);
    assert.ok(await page.locator("#results tr").count() < 100, "the grid has an element for each row");
    await until("last row", async () => {
      await page.locator("#results .scroll").evaluate((element) => { element.scrollTop = element.scrollHeight; });
      return /v50000/.test(await text("#results .grid"));
    });
    await says("#results .note", /SELECT 50000/);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#results button", { hasText: "CSV" }).click()]);
    const saved = fs.readFileSync(await download.path(), "utf8").split("\r\n");
    assert.deepEqual([saved[0], saved[50_000], saved.length], ["g,v", "50000,v50000", 50_002]);
    assert.match(await page.locator("#statements li").first().textContent(), /generate_series/);
  },

  async million() {
    const heap = () => page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
    const before = await heap();
    await sql("SELECT g, 'v' || g AS v, g % 7 AS k FROM generate_series(1, 1000000) x(g) ORDER BY g");
    await says("#results .note", /^1\.00 M rows, SELECT 1000000$/);
    const scroll = page.locator("#results .scroll");
    const to = (share) => scroll.evaluate((element, part) => { element.scrollTop = part * element.scrollHeight; }, share);
    for (const share of [0.1, 0.5, 0.93, 0.25, 0.75]) {
      await to(share);
      await until("the rows in sight", async () => {
        const rows = await page.locator("#results tbody tr:not([aria-hidden])").allInnerTexts();
        const first = rows.map((row) => Number(row.split("\t")[0])).find((number) => number > 0) ?? 0;
        return rows.length > 10 && rows.every((row) => /^\d+\tv\d+\t\d$/.test(row)) && Math.abs(first / 1e6 - share) < 0.01;
      });
    }
    await to(1);
    await until("the last row", async () => /v1000000\b/.test(await text("#results .grid")));
    // Where the scroll bar is coarse, a key still moves by one row.
    await scroll.focus();
    const first = async () => Number(await page.locator("#results tbody tr:not([aria-hidden])").first().getAttribute("aria-rowindex"));
    const at = await first();
    await page.keyboard.press("ArrowUp");
    await until("one row up", async () => await first() === at - 1);
    assert.ok(await page.locator("#results tr").count() < 100, "the grid has an element for each row");
    const grown = (await heap() - before) / 1e6;
    assert.ok(grown < 60, `the page has taken ${grown} MB for a million rows`);
    await picture("million");
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#results button", { hasText: "Parquet" }).click()]);
    const saved = fs.readFileSync(await download.path());
    assert.deepEqual([saved.subarray(0, 4).toString(), saved.subarray(-4).toString()], ["PAR1", "PAR1"]);
    // The server reads its own file.
    const file = path.join(work, "saved.parquet");
    fs.copyFileSync(await download.path(), file);
    await sql(`CREATE SOURCE saved WITH (connector = 'file', path = '${file}', format = 'parquet');
      CREATE MATERIALIZED VIEW of_saved AS SELECT count(*) AS n, sum(g) AS s FROM saved`);
    assert.match(await text("#outcome"), /^done/, await text("#results"));
    await until("the saved rows", async () => {
      await sql("SELECT s FROM of_saved");
      return /500000500000/.test(await text("#results"));
    });
    await sql("DROP MATERIALIZED VIEW of_saved; DROP SOURCE saved");
  },

  async charts() {
    await sql(`SELECT "${HOSTILE}".v || g AS name, g * g AS square, 100 - g AS rest FROM "${HOSTILE}", generate_series(1, 20) x(g)`);
    await page.locator("#results button", { hasText: "chart" }).click();
    await page.locator("svg.plot").waitFor();
    assert.equal(await page.locator("svg.plot rect").count(), 40);
    assert.ok((await page.locator("svg.plot title").first().textContent()).includes(VALUE), "the hostile value is not text");
    await picture("chart-bar");
    await page.locator(".plotted button", { hasText: "line" }).click();
    assert.equal(await page.locator("svg.plot path").count(), 2);
    await page.locator(".plotted button", { hasText: "scatter" }).click();
    assert.equal(await page.locator("svg.plot circle").count(), 40);
    await page.locator(".plotted select").selectOption({ label: "square" });
    await picture("chart-scatter");
    assert.match(await page.locator("svg.plot").getAttribute("aria-label"), /^scatter chart of square, rest by square, 20 rows$/);
    await page.locator("#results button", { hasText: "chart" }).click();
    assert.equal(await page.locator("svg.plot").count(), 0);
    await sql("SELECT TIMESTAMPTZ '2026-01-01' + g * INTERVAL '1 hour' AS at, sin(g / 20.0) AS v FROM generate_series(1, 500) x(g)");
    await page.locator("#results button", { hasText: "chart" }).click();
    await page.locator("svg.plot path").waitFor();
    assert.match(await page.locator("svg.plot path").getAttribute("d"), /^M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){499}$/);
    await picture("chart-line");
  },

  async live() {
    await page.locator(".cm-content").click();
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.insertText("SELECT k, n FROM per_key WHERE k < 5;");
    await page.keyboard.press("Escape");
    await page.locator("#live").click();
    await says("#outcome", /^live$/);
    await says("#results .note", /^5 rows, live/);
    const cell = page.locator("#results tbody td").nth(1);
    await until("change in place", async () => /^\d+$/.test(await cell.innerText()));
    const before = await cell.innerText();
    await until("change in place", async () => await cell.innerText() !== before);
    await until("flash", async () => await page.locator("#results td.flash").count() > 0);
    await picture("live");
    await page.locator("#cancel").click();
    await says("#outcome", /^cancelled$/);
    // The figures of operators, again and again.
    await page.locator(".cm-content").click();
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.insertText("EXPLAIN ANALYZE per_key;");
    await page.keyboard.press("Escape");
    await page.locator("#live").click();
    await says("#results .note", /^live, answer [3-9]$/);
    assert.match(await text("#results .grid"), /Aggregate/);
    await until("flash", async () => await page.locator("#results td.flash").count() > 0);
    await picture("live-explain");
    await page.locator("#cancel").click();
    await says("#outcome", /^cancelled$/);
  },

  async looks() {
    for (const [scheme, width] of [["dark", 1300], ["dark", 420], ["light", 420]]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 900 });
      for (const name of ["overview", "batches", "graph", "sources", "state", "sql"]) {
        await goto(`#${name}`);
        await page.locator(`#page-${name}`).waitFor();
        await page.waitForTimeout(400);
        await fits(`${name} in a window of ${width} pixels`);
        await picture(`${name}-${scheme}-${width}`);
      }
    }
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 1300, height: 1000 });
  },

  async killed(address) {
    await goto("#overview");
    await says("#state", /^running$/);
    mayFail = true;
    server.kill("SIGKILL");
    await says("#state", /disconnected: stale since \d\d:\d\d:\d\d/);
    assert.ok(!(await text("#health")).includes("keeps up"), "the page still says that it keeps up");
    await picture("killed");
    await start(new URL(address).host);
    await says("#state", /^running$/);
    await says("#queries", /per_key/);
    await page.waitForTimeout(1500);
    mayFail = false;
    await says("#health", /division by zero/);
    await picture("back");
  },
};

const browser = await chromium(modules);
let failed = null;
try {
  const address = await start();
  const context = await browser.newContext({ viewport: { width: 1300, height: 1000 } });
  page = await context.newPage();
  page.on("dialog", (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("pageerror", (error) => complaints.push(`an error: ${error.stack}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !mayFail) complaints.push(`the console: ${message.text()}`);
  });
  for (const [name, trial] of Object.entries(trials)) {
    try {
      await trial(address);
    } catch (error) {
      await picture(`failed-${name}`).catch(() => {});
      throw new Error(`${name}: ${error.message}`, { cause: error });
    }
    assert.deepEqual(complaints, [], name);
  }
} catch (error) {
  failed = error;
}
await browser.close();
server?.kill("SIGKILL");
fs.rmSync(work, { recursive: true, force: true });
if (failed) {
  console.error(failed);
  process.exit(1);
}
console.log(`browser: ${Object.keys(trials).length} trials as expected, ${pictures} screenshots in ${screenshots}`);
process.exit(0);
