// What node-postgres does at the server. NODE_PATH says where `pg` and `pg-cursor` are; PGHOST and PGPORT, where it listens.
const assert = require('node:assert');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');

async function main() {
  const client = new Client();
  await client.connect();
  await client.query('CREATE TABLE orders (id INT PRIMARY KEY, item TEXT, price DOUBLE PRECISION, at TIMESTAMPTZ)');
  await client.query(
    'CREATE MATERIALIZED VIEW by_item AS SELECT item, count(*) AS n, sum(price) AS total FROM orders GROUP BY item');
  const at = new Date('2024-01-02T03:04:05.678Z');
  for (const [id, item, price] of [[1, 'tea', 2.5], [2, 'tea', 3.5], [3, null, 1]]) {
    const done = await client.query('INSERT INTO orders VALUES ($1, $2, $3, $4)', [id, item, price, at]);
    assert.equal(done.rowCount, 1);
  }
  const found = await client.query('SELECT n, total FROM by_item WHERE item = $1', ['tea']);
  assert.deepEqual(found.rows, [{ n: '2', total: 6 }]);
  const row = (await client.query('SELECT * FROM orders WHERE id = $1', [3])).rows[0];
  assert.deepEqual(row, { id: 3, item: null, price: 1, at });

  // Named statements are prepared once.
  const named = { name: 'by-id', text: 'SELECT item FROM orders WHERE id = $1' };
  for (const [id, item] of [[1, 'tea'], [3, null]]) {
    assert.equal((await client.query({ ...named, values: [id] })).rows[0].item, item);
  }

  await client.query('BEGIN');
  await client.query('DELETE FROM orders WHERE id = 1');
  assert.equal((await client.query('SELECT count(*) AS n FROM orders')).rows[0].n, '2');
  await client.query('ROLLBACK');
  assert.equal((await client.query('SELECT count(*) AS n FROM orders')).rows[0].n, '3');

  await assert.rejects(client.query('SELECT nowhere FROM orders'), { code: '42703' });

  // A cursor reads a result in steps.
  const cursor = client.query(new Cursor('SELECT i FROM generate_series(1, 25) AS g(i)'));
  let read = 0;
  for (let rows = await cursor.read(10); rows.length > 0; rows = await cursor.read(10)) read += rows.length;
  assert.equal(read, 25);
  await cursor.close();
  await client.end();

  const pool = new Pool({ max: 4 });
  const counts = await Promise.all(Array.from({ length: 20 }, () => pool.query('SELECT count(*) AS n FROM orders')));
  assert.ok(counts.every(({ rows }) => rows[0].n === '3'));
  await pool.end();
  console.log('node-postgres: as expected');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
