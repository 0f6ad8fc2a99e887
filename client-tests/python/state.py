"""What a data directory keeps is read by others: state.py PATH-TO-MILLSTREAM

Lets the program keep tables and views, take two checkpoints, of which the second one has only what has changed, and reads
the Parquet files of both with pyarrow, which pandas reads by, and with DuckDB where that is installed.
"""

import datetime
import decimal
import json
import pathlib
import subprocess
import sys
import tempfile

import pyarrow.parquet

SCRIPT = """
CREATE TABLE orders (id INT PRIMARY KEY, customer TEXT, amount NUMERIC(10, 2), at TIMESTAMPTZ, tags TEXT[]);
CREATE TABLE words (word TEXT);
CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer;
INSERT INTO orders VALUES
  (1, 'a', 1.5, '2026-01-02 03:04:05+00', ['x', 'y']), (2, 'b', 20, '2026-01-02 03:04:06+00', NULL),
  (3, NULL, 7.25, NULL, []), (4, 'a', 2, '2026-01-03 00:00:00+00', [NULL]);
DELETE FROM orders WHERE id = 2;
INSERT INTO words VALUES ('one'), ('two'), ('two'), (NULL), ('gone'), ('gone'), ('gone');
INSERT INTO orders SELECT i, 'customer ' || i, i, NULL, NULL FROM generate_series(1000, 5999) AS g(i);
CHECKPOINT;
DELETE FROM orders WHERE id = 1000;
INSERT INTO orders VALUES (5, 'c', 3, NULL, NULL);
DELETE FROM orders WHERE id BETWEEN 1001 AND 1004;
DELETE FROM words WHERE word = 'gone';
CHECKPOINT;
"""

ORDERS = [
    (1, "a", decimal.Decimal("1.50"), "2026-01-02 03:04:05+00:00", ["x", "y"], 1),
    (3, None, decimal.Decimal("7.25"), None, [], 1),
    (4, "a", decimal.Decimal("2.00"), "2026-01-03 00:00:00+00:00", [None], 1),
    (5, "c", decimal.Decimal("3.00"), None, None, 1),
]


def check(what, found, expected):
    if found != expected:
        sys.exit(f"state: {what}\n  gives    {found}\n  expected {expected}")


def shown(value):
    return str(value) if isinstance(value, datetime.datetime) else value


def newest(checkpoints):
    """The files of the newest checkpoint by what they have, the oldest first: names begin with numbers of one length."""
    manifest = sorted(checkpoints.glob("*.checkpoint"))[-1].read_bytes()
    files = {}
    for name, file, *_ in json.loads(manifest[16:])["parts"]:
        files.setdefault(name, []).append(str(checkpoints / file))
    return files


def kept(files, name):
    """The rows of a table: those that came, with the copies that there are by now."""
    table = pyarrow.concat_tables(pyarrow.parquet.read_table(file) for file in files[name])
    copies = {}
    for file in files.get(f"{name}._counts", []):
        changes = pyarrow.parquet.read_table(file)
        copies.update(zip(changes["_row"].to_pylist(), changes["_weight"].to_pylist()))
    found = [list(row.values()) for row in table.to_pylist()]
    now = [row[:-2] + [copies.get(row[-1], row[-2])] for row in found]
    return [tuple(shown(value) for value in row) for row in now if row[-1] > 0]


DUCKDB = """
WITH counts AS (SELECT * FROM read_parquet($counts, filename = true) QUALIFY row_number() OVER (PARTITION BY _row ORDER BY filename DESC) = 1)
SELECT count(*), sum(amount), count("at") FROM read_parquet($rows) AS r LEFT JOIN counts AS c USING (_row)
WHERE coalesce(c._weight, r._weight) > 0 AND id < 1000
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "app.sql").write_text(SCRIPT)
        command = [sys.argv[1], "--data", "state", "run", "app.sql"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            sys.exit(f"state: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
        checkpoints = place / "state" / "checkpoints"
        files = newest(checkpoints)
        check("files of orders", len(files["table0.orders.rows"]), 2)
        table = pyarrow.parquet.read_table(files["table0.orders.rows"][0])
        check("columns", table.column_names, ["id", "customer", "amount", "at", "tags", "_weight", "_row"])
        orders = kept(files, "table0.orders.rows")
        check("orders", sorted((row for row in orders if row[0] < 1000), key=str), sorted(ORDERS, key=str))
        check("other orders", len(orders) - len(ORDERS), 4995)
        counted = {}
        for word, weight in kept(files, "table1.words.rows"):
            counted[word] = counted.get(word, 0) + weight
        check("words", counted, {"one": 1, "two": 2, None: 1})
        [name] = [name for name in files if name.startswith("query0.totals.flow.") and name.endswith(".keys")]
        keys = {}
        for file, slots in zip(files[name], files[name.removesuffix("keys") + "_slots"], strict=True):
            told = pyarrow.parquet.read_table(slots)
            for slot in told["_slot"].to_pylist():
                keys.pop(slot, None)
            told = pyarrow.parquet.read_table(file)
            keys.update(zip(told["_slot"].to_pylist(), told.column(0).to_pylist()))
        groups = [key for key in keys.values() if key is None or not key.startswith("customer ")]
        check("groups", (sorted(map(str, groups)), len(keys) - len(groups)), (["None", "a", "c"], 4995))
        readers = "pyarrow"
        try:
            import duckdb
        except ImportError:
            duckdb = None
        if duckdb is not None:
            given = {"rows": files["table0.orders.rows"], "counts": files["table0.orders.rows._counts"]}
            found = duckdb.execute(DUCKDB, given).fetchall()
            check("orders in DuckDB", found, [(4, decimal.Decimal("13.75"), 2)])
            readers = "pyarrow and DuckDB"
        print(f"state: read by {readers}")


main()
