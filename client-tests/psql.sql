-- What psql does: statements, errors, its own commands, COPY both ways.
\set ON_ERROR_STOP off
CREATE TABLE orders (id INT PRIMARY KEY, item TEXT NOT NULL, price NUMERIC(10, 2), at TIMESTAMP);
CREATE MATERIALIZED VIEW by_item AS SELECT item, count(*) AS n, sum(price) AS total FROM orders GROUP BY item;
CREATE VIEW cheap AS SELECT * FROM orders WHERE price < 2;
INSERT INTO orders VALUES (1, 'tea', 2.5, '2024-01-01'), (2, 'tea', 3, NULL), (3, 'milk', 1.25, '2024-02-29 12:00:00.5');
SELECT * FROM orders ORDER BY id;
SELECT * FROM by_item ORDER BY item;
\x on
SELECT * FROM orders WHERE id = 3;
\x off
SELECT nowhere FROM orders;
SELECT 1 / 0;
\copy orders (id, item, price) FROM STDIN WITH (FORMAT csv)
4,"milk, cold",1.5
5,juice,
\.
COPY (SELECT * FROM by_item ORDER BY item) TO STDOUT (FORMAT csv, HEADER);
BEGIN;
DELETE FROM orders WHERE id = 1;
SELECT count(*) FROM orders;
ROLLBACK;
SELECT count(*) FROM orders;
PREPARE by_id (INT) AS SELECT item FROM orders WHERE id = $1;
EXECUTE by_id (3);
\dt
\dv
\dm
\d orders
\d by_item
\dn
\d nowhere
\l
