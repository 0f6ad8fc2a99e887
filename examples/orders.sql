-- A join that stays right while both of its sides change.
-- Run it anywhere: millstream run examples/orders.sql

CREATE TABLE customers (id INT PRIMARY KEY, name TEXT, city TEXT);

CREATE TABLE orders (id INT PRIMARY KEY, customer INT, amount DECIMAL(10, 2));

-- Every customer with what they ordered; those without orders too.
CREATE MATERIALIZED VIEW totals AS
SELECT c.id, c.name, c.city, count(o.id) AS orders, coalesce(sum(o.amount), 0) AS amount
FROM customers AS c LEFT JOIN orders AS o ON o.customer = c.id
GROUP BY c.id, c.name, c.city;

-- A query over a maintained query.
CREATE MATERIALIZED VIEW cities AS
SELECT city, count(*) AS customers, sum(amount) AS amount,
       rank() OVER (ORDER BY sum(amount) DESC) AS place
FROM totals GROUP BY city;

INSERT INTO customers VALUES
  (1, 'Ada', 'London'), (2, 'Blaise', 'Paris'), (3, 'Carl', 'Göttingen'), (4, 'Sophie', 'Paris');

INSERT INTO orders VALUES (10, 1, 25.00), (11, 1, 17.50), (12, 2, 99.90), (13, 3, 5.25);

SELECT * FROM totals ORDER BY id;

SELECT * FROM cities ORDER BY place, city;

-- Ada moves: her orders move with her.
UPDATE customers SET city = 'Paris' WHERE name = 'Ada';

-- The large order of Blaise is cancelled.
DELETE FROM orders WHERE id = 12;

-- A row with a known key replaces the row that was there.
INSERT INTO orders VALUES (13, 3, 52.50), (14, 4, 10.00);

SELECT * FROM totals ORDER BY id;

SELECT * FROM cities ORDER BY place, city;

-- What the same question gives when it is asked once: no rows differ.
SELECT c.id, count(o.id) AS orders, coalesce(sum(o.amount), 0) AS amount
FROM customers AS c LEFT JOIN orders AS o ON o.customer = c.id GROUP BY c.id
EXCEPT
SELECT id, orders, amount FROM totals;
