-- Two change feeds, joined and added up, and kept so while both go on.
-- Run it in the repository: millstream run examples/change_feed.sql

-- What Debezium tells of a table: each line says what became of one row. The source keeps the current rows by their key.
-- `bounded` ends it with the files that are there now; without it the source goes on with what comes.
CREATE SOURCE customers (id BIGINT PRIMARY KEY, name TEXT NOT NULL, city TEXT)
WITH (connector = 'file', path = 'examples/data/feed/customers.json', bounded = true) FORMAT DEBEZIUM ENCODE JSON;

-- Rows by key: a row takes the place of the one with its key, and {"_op": "delete", "id": 12} deletes it.
CREATE SOURCE orders (id BIGINT PRIMARY KEY, customer BIGINT, amount NUMERIC(10, 2))
WITH (connector = 'file', path = 'examples/data/feed/orders.json', bounded = true) FORMAT UPSERT ENCODE JSON;

-- Queries over feeds are queries over tables that change: any of them can be maintained.
CREATE MATERIALIZED VIEW cities AS
SELECT c.city, count(DISTINCT c.id) AS customers, count(o.id) AS orders, sum(o.amount) AS amount
FROM customers AS c LEFT JOIN orders AS o ON o.customer = c.id
GROUP BY c.city;

-- Waits until everything has been taken in.
FLUSH;

SELECT * FROM customers ORDER BY id;

SELECT * FROM cities ORDER BY city;

-- What was to be deleted, but isn't there.
SELECT position, reason, CAST(bytes AS STRING) AS record FROM bad_rows('orders');

-- The answer is that of a batch over the current rows: no row differs.
VERIFY cities;
