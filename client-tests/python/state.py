"""What a data directory keeps is read by others: state.py PATH-TO-MILLSTREAM

Lets the program keep tables and views, take a checkpoint, and reads the Parquet files of that with pyarrow, which
pandas reads by, and with DuckDB where that is installed.
"""

import datetime
import decimal
import glob
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
INSERT INTO words VALUES ('one'), ('two'), ('two'), (NULL);
CHECKPOINT;
"""

ORDERS = [
    (1, "a", decimal.Decimal("1.50"), "2026-01-02 03:04:05+00:00", ["x", "y"], 1),
    (3, None, decimal.Decimal("7.25"), None, [], 1),
    (4, "a", decimal.Decimal("2.00"), "2026-01-03 00:00:00+00:00", [None], 1),
]


def check(what, found, expected):
    if found != expected:
        sys.exit(f"state: {what}\n  gives    {found}\n  expected {expected}")


def shown(value):
    return str(value) if isinstance(value, datetime.datetime) else value


def rows(table):
    """The rows of an Arrow table, in the order of their texts."""
    lines = zip(*(column.to_pylist() for column in table.columns))
    return sorted((tuple(shown(value) for value in line) for line in lines), key=str)


def newest(checkpoints, name):
    """The file of a part of the newest checkpoint; their names begin with numbers of one length."""
    files = sorted(glob.glob(str(checkpoints / f"*-{name}.parquet")))
    if not files:
        sys.exit(f"state: no file is called …-{name}.parquet in {sorted(path.name for path in checkpoints.iterdir())}")
    return files[-1]


def main():
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "app.sql").write_text(SCRIPT)
        command = [sys.argv[1], "--data", "state", "run", "app.sql"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            sys.exit(f"state: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
        checkpoints = place / "state" / "checkpoints"
        orders = newest(checkpoints, "table0.orders.rows")
        table = pyarrow.parquet.read_table(orders)
        check("columns", table.column_names, ["id", "customer", "amount", "at", "tags", "_weight"])
        check("orders", rows(table), sorted(ORDERS, key=str))
        words = pyarrow.parquet.read_table(newest(checkpoints, "table1.words.rows"))
        counted = {}
        for word, weight in rows(words):
            counted[word] = counted.get(word, 0) + weight
        check("words", counted, {"one": 1, "two": 2, None: 1})
        groups = pyarrow.parquet.read_table(newest(checkpoints, "query0.totals.flow.*.keys"))
        check("groups", sorted(map(str, groups.column(0).to_pylist())), ["None", "a"])
        readers = "pyarrow"
        try:
            import duckdb
        except ImportError:
            duckdb = None
        if duckdb is not None:
            found = duckdb.sql(f"SELECT count(*), sum(amount), count(\"at\") FROM read_parquet('{orders}')").fetchall()
            check("orders in DuckDB", found, [(3, decimal.Decimal("10.75"), 2)])
            readers = "pyarrow and DuckDB"
        print(f"state: read by {readers}")


main()
