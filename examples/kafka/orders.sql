-- Joins what Debezium tells of customers with orders by key, both from topics, and keeps the sums in a topic.
-- Run it in the repository: millstream run examples/kafka/orders.sql --set servers=localhost:9092
-- feed.sql fills the topics.

CREATE SOURCE customers (id BIGINT PRIMARY KEY, name TEXT NOT NULL, city TEXT)
WITH (connector = 'kafka', topic = 'shop.customers', bounded = true, properties.bootstrap.servers = :'servers')
FORMAT DEBEZIUM ENCODE JSON;

CREATE SOURCE orders (id BIGINT PRIMARY KEY, customer BIGINT, amount NUMERIC(10, 2))
WITH (connector = 'kafka', topic = 'shop.orders', bounded = true, properties.bootstrap.servers = :'servers')
FORMAT UPSERT ENCODE JSON;

CREATE MATERIALIZED VIEW cities AS
SELECT c.city, count(DISTINCT c.id) AS customers, count(o.id) AS orders, sum(o.amount) AS amount
FROM customers AS c LEFT JOIN orders AS o ON o.customer = c.id
GROUP BY c.city;

CREATE SINK cities_out FROM cities
WITH (connector = 'kafka', topic = 'cities', create = true, properties.bootstrap.servers = :'servers')
FORMAT DEBEZIUM ENCODE JSON;

FLUSH;

SELECT * FROM cities ORDER BY city;

VERIFY cities;
