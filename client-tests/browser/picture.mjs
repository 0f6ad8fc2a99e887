// The picture of the page in README.md: node picture.mjs PATH-TO-MILLSTREAM FOLDER-OF-MODULES OUT.png

import { spawn } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [, , program, modules, out] = process.argv;
const require = createRequire(path.resolve(modules, "index.js"));
const { chromium } = require("playwright-core");
const packaged = path.resolve(modules, "@sparticuz/chromium/build/esm/index.js");
const binary = (await import(pathToFileURL(packaged))).default;

const work = fs.mkdtempSync(path.join(os.tmpdir(), "millstream-picture-"));
fs.writeFileSync(path.join(work, "app.sql"), `
SET batch_interval = '500 ms';
CREATE SOURCE orders (id BIGINT, customer BIGINT, cents BIGINT) WITH (connector = 'datagen', rows_per_second = 4000,
  fields.id.kind = 'sequence', fields.customer.min = 0, fields.customer.max = 499, fields.cents.min = 100, fields.cents.max = 9999);
CREATE TABLE customers (id BIGINT PRIMARY KEY, city TEXT);
INSERT INTO customers SELECT g, 'city ' || (g % 12) FROM generate_series(0, 499) x(g);
CREATE MATERIALIZED VIEW by_customer AS SELECT customer, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW by_city AS SELECT city, sum(orders) AS orders, sum(cents) AS cents
  FROM by_customer JOIN customers ON customer = id GROUP BY city;
CREATE MATERIALIZED VIEW top_cities AS SELECT city, cents FROM by_city ORDER BY cents DESC LIMIT 3;
CREATE SINK report FROM by_city WITH (connector = 'blackhole');
`);

const server = spawn(program, ["--data", path.join(work, "state"), "server", "--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0",
  path.join(work, "app.sql")], { stdio: ["ignore", "pipe", "pipe"] });
let log = "";
for (const stream of [server.stdout, server.stderr]) stream.on("data", (text) => { log += text; });
const browser = await chromium.launch({ executablePath: await binary.executablePath(), args: binary.args, headless: true });
try {
  while (!/listening on/.test(log)) {
    if (server.exitCode !== null) throw new Error(`the server ended: ${log}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const page = await browser.newPage({ viewport: { width: 1120, height: 640 } });
  await page.goto(/the web page is at (\S+)/.exec(log)[1]);
  await page.waitForTimeout(Number(process.env.SECONDS_SHOWN ?? 75) * 1000);
  await page.screenshot({ path: out });
} finally {
  await browser.close();
  server.kill("SIGKILL");
  fs.rmSync(work, { recursive: true, force: true });
}
process.exit(0);
