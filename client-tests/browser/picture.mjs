// The picture of the page in README.md: node picture.mjs PATH-TO-MILLSTREAM FOLDER-OF-MODULES OUT.png

import { withPage } from "./launch.mjs";

const [, , program, modules, out] = process.argv;

const SCRIPT = `
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
`;

await withPage(program, modules, SCRIPT, async (browser, address) => {
  const page = await browser.newPage({ viewport: { width: 1120, height: 640 } });
  await page.goto(address);
  await page.waitForTimeout(Number(process.env.SECONDS_SHOWN ?? 75) * 1000);
  await page.screenshot({ path: out });
});
process.exit(0);
