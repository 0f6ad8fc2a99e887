-- Writes the texts of examples/data/books, and the change feeds of examples/data/feed, to topics.
-- Run it in the repository: millstream run examples/kafka/feed.sql --set servers=localhost:9092

CREATE SOURCE lines WITH (connector = 'file', path = 'examples/data/books', format = 'text', bounded = true);
CREATE SOURCE customers WITH (connector = 'file', path = 'examples/data/feed/customers.json', format = 'text', bounded = true);
CREATE SOURCE orders WITH (connector = 'file', path = 'examples/data/feed/orders.json', format = 'text', bounded = true);

-- `create` makes the topic if it isn't there. A message is a line.
CREATE SINK lines_out FROM lines
WITH (connector = 'kafka', topic = 'lines', create = true, format = 'text', properties.bootstrap.servers = :'servers');

CREATE SINK customers_out FROM customers
WITH (connector = 'kafka', topic = 'shop.customers', create = true, format = 'text', properties.bootstrap.servers = :'servers');

CREATE SINK orders_out FROM orders
WITH (connector = 'kafka', topic = 'shop.orders', create = true, format = 'text', properties.bootstrap.servers = :'servers');

FLUSH;

SELECT name, rows, status FROM millstream.sinks ORDER BY name;
