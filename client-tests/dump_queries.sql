SELECT * FROM customers ORDER BY id;
SELECT * FROM products ORDER BY id;
SELECT *, span @> 3 AS has FROM orders ORDER BY status DESC;
SELECT * FROM best ORDER BY customer;
SELECT 'nowhere'::email;
INSERT INTO orders (customer) VALUES (2) RETURNING id, status;
INSERT INTO products (sku, price, body) VALUES ('C3', 7, 'Fat cats') RETURNING id, full_price, words;
INSERT INTO lines VALUES (3, 3, 4);
SELECT * FROM best ORDER BY customer;
SELECT nextval('invoice'), vat(100);
\d orders
\dT
