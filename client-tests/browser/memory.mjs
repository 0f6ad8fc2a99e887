// The memory of open pages over time: node memory.mjs PATH-TO-MILLSTREAM FOLDER-OF-MODULES [MINUTES]
// Prints each minute, for each page, the JavaScript heap in KiB after a collection and the number of DOM nodes, and the resident
// memory of the server in MiB.

import fs from "node:fs";

import { withPage } from "./launch.mjs";

const [, , program, modules, minutes = "60"] = process.argv;

const PAGES = ["overview", "batches", "graph", "sources", "state"];

const SCRIPT = `
SET batch_interval = '200 ms';
CREATE SOURCE orders (id BIGINT, customer BIGINT, cents BIGINT) WITH (connector = 'datagen', rows_per_second = 2000,
  fields.id.kind = 'sequence', fields.customer.min = 0, fields.customer.max = 499, fields.cents.min = 100, fields.cents.max = 9999);
CREATE MATERIALIZED VIEW by_customer AS SELECT customer, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW top_customers AS SELECT customer, cents FROM by_customer ORDER BY cents DESC LIMIT 10;
CREATE SINK report FROM by_customer WITH (connector = 'blackhole');
`;

await withPage(program, modules, SCRIPT, async (browser, address, server) => {
  const open = [];
  for (const name of PAGES) {
    const page = await browser.newPage();
    await page.goto(new URL(`#${name}`, address).href);
    const tools = await page.context().newCDPSession(page);
    await tools.send("HeapProfiler.enable");
    await tools.send("Performance.enable");
    open.push({ name, tools });
  }
  console.log(["minute", ...PAGES.flatMap((name) => [`${name} KiB`, "nodes"]), "server MiB"].join("\t"));
  const begun = Date.now();
  for (let minute = 0; minute <= Number(minutes); minute += 1) {
    await new Promise((resolve) => setTimeout(resolve, begun + minute * 60_000 - Date.now()));
    const row = [minute];
    for (const { tools } of open) {
      await tools.send("HeapProfiler.collectGarbage");
      const { metrics } = await tools.send("Performance.getMetrics");
      const value = (name) => metrics.find((metric) => metric.name === name).value;
      row.push(Math.round(value("JSHeapUsedSize") / 1024), value("Nodes"));
    }
    const resident = /VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${server.pid}/status`, "utf8"))[1];
    console.log([...row, Math.round(resident / 1024)].join("\t"));
  }
});
process.exit(0);
