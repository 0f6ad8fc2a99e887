"""What Python's clients do at the server; PGHOST and PGPORT say where it listens. A missing one is skipped, aloud."""

import asyncio
import datetime
import decimal
import importlib.util
import os
import sys
import threading

PORT = os.environ["PGPORT"]
URL = f"postgresql://tester@127.0.0.1:{PORT}/millstream"
UTC = datetime.timezone.utc
AT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def expect(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def psycopg():
    import psycopg
    from psycopg import sql

    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE p3 (id INT PRIMARY KEY, t TEXT, n NUMERIC(12, 3), at TIMESTAMPTZ(6), d DATE, l INT[],"
            " b BYTEA, ok BOOLEAN, f DOUBLE PRECISION, i INTERVAL)"
        )
        rows = [
            (1, "tea", decimal.Decimal("1.250"), AT, datetime.date(2024, 2, 29), [1, None], b"\x00\xff", True, 1e300,
             datetime.timedelta(days=1, hours=2)),
            (2, None, None, None, None, None, None, None, None, None),
        ]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO p3 VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", rows)
        for binary in (False, True):
            cursor = connection.execute("SELECT * FROM p3 WHERE id >= %s ORDER BY id", (1,), binary=binary)
            expect(cursor.fetchall(), rows)
        # COPY in and out.
        with connection.cursor() as cursor:
            with cursor.copy("COPY p3 (id, t) FROM STDIN") as copy:
                for id in range(10, 1010):
                    copy.write_row((id, f"row {id}"))
            with cursor.copy("COPY (SELECT id, t FROM p3 WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
                expect(list(copy.rows())[0], ("1000", "row 1000"))
        expect(connection.execute("SELECT count(*) FROM p3").fetchone(), (1002,))
        try:
            connection.execute("SELECT * FROM nowhere")
            raise AssertionError("nowhere is somewhere")
        except psycopg.errors.UndefinedTable:
            pass
        expect(connection.execute(sql.SQL("SELECT {}").format(sql.Literal("it's"))).fetchone(), ("it's",))

    # Statements that are prepared on the server, more than are kept: the oldest are given up by DEALLOCATE.
    with psycopg.connect(URL, autocommit=True, prepare_threshold=0) as connection:
        connection.prepared_max = 2
        for number in range(6):
            expect(connection.execute(f"SELECT {number} + %s::INT", (1,)).fetchone(), (number + 1,))
        expect(connection.execute("SELECT count(*) FROM p3 WHERE id >= %s", (1000,)).fetchone(), (10,))

    with psycopg.connect(URL) as connection:
        with connection.transaction():
            connection.execute("INSERT INTO p3 (id) VALUES (5000)")
            expect(connection.execute("SELECT count(*) FROM p3").fetchone(), (1003,))
        connection.execute("DELETE FROM p3")
        connection.rollback()
        expect(connection.execute("SELECT count(*) FROM p3").fetchone(), (1003,))
        # A cursor of the server's.
        with connection.cursor("steps") as cursor:
            cursor.execute("SELECT id FROM p3 ORDER BY id")
            expect([row[0] for row in cursor.fetchmany(3)], [1, 2, 10])
            expect(len(cursor.fetchall()), 1000)

    # Changes as they happen, until the reader has seen enough.
    with psycopg.connect(URL, autocommit=True) as reader, psycopg.connect(URL, autocommit=True) as writer:
        writer.execute("CREATE TABLE ticks (v INT)")
        seen = []

        def follow():
            for row in reader.cursor().stream("SELECT v FROM ticks EMIT CHANGES LIMIT 3"):
                seen.append(row[-1])

        thread = threading.Thread(target=follow)
        thread.start()
        for v in range(3):
            writer.execute("INSERT INTO ticks VALUES (%s)", (v,))
        thread.join(30)
        expect(sorted(seen), [0, 1, 2])


def psycopg2():
    import psycopg2
    from psycopg2.extras import execute_values

    connection = psycopg2.connect(URL)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE p2 (id INT PRIMARY KEY, t TEXT)")
    with connection, connection.cursor() as cursor:
        execute_values(cursor, "INSERT INTO p2 VALUES %s", [(id, f"row {id}") for id in range(100)])
        cursor.execute("SELECT t FROM p2 WHERE id = %s", (42,))
        expect(cursor.fetchone(), ("row 42",))
    connection.close()


def asyncpg():
    import asyncpg

    async def run():
        connection = await asyncpg.connect(URL)
        await connection.execute("CREATE TABLE ap (id BIGINT PRIMARY KEY, t TEXT, n NUMERIC(12, 3), at TIMESTAMPTZ(6), l INT[])")
        await connection.executemany(
            "INSERT INTO ap VALUES ($1, $2, $3, $4, $5)",
            [(id, f"row {id}", decimal.Decimal(id), AT, [id]) for id in range(50)],
        )
        row = await connection.fetchrow("SELECT * FROM ap WHERE id = $1", 7)
        expect(tuple(row), (7, "row 7", decimal.Decimal("7.000"), AT, [7]))
        expect(await connection.fetchval("SELECT $1::INT + 1", 41), 42)
        async with connection.transaction():
            await connection.execute("DELETE FROM ap WHERE id = 0")
            expect([row["id"] async for row in connection.cursor("SELECT id FROM ap ORDER BY id")][:2], [1, 2])
        # A statement that changes rows and returns them; arrays whose type the server finds out.
        rows = await connection.fetch("INSERT INTO ap (id, t) VALUES ($1, $2), (7, 'x') ON CONFLICT DO NOTHING RETURNING id, t", 600, "new")
        expect([tuple(row) for row in rows], [(600, "new")])
        expect(await connection.fetchval("UPDATE ap SET t = t || '!' WHERE id = ANY($1) RETURNING t", [600]), "new!")
        deleted = await connection.prepare("DELETE FROM ap WHERE id = $1 RETURNING *")
        await connection.execute("ALTER TABLE ap ADD COLUMN more INT")
        try:
            await deleted.fetch(600)
            raise AssertionError("the result has a column more")
        except asyncpg.exceptions.FeatureNotSupportedError:
            pass
        expect(await connection.fetchval("SELECT count(*) FROM ap WHERE id = ANY($1)", [600, 601]), 1)
        expect(await connection.execute("DELETE FROM ap WHERE id = 600"), "DELETE 1")
        await connection.copy_records_to_table("ap", records=[(1000, "x", None, AT, None)], columns=["id", "t", "n", "at", "l"])
        expect(await connection.fetchval("SELECT count(*) FROM ap"), 50)
        await connection.close()

    asyncio.run(run())


def sqlalchemy():
    import sqlalchemy as sa

    for driver in ("psycopg", "psycopg2", "asyncpg"):
        if driver == "asyncpg" or importlib.util.find_spec(driver) is None:
            continue
        engine = sa.create_engine(URL.replace("postgresql", f"postgresql+{driver}"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"CREATE TABLE sa_{driver} (id INT PRIMARY KEY, t TEXT NOT NULL, n NUMERIC(10, 2))"))
            connection.execute(sa.text(f"CREATE MATERIALIZED VIEW sa_view_{driver} AS SELECT count(*) AS n FROM sa_{driver}"))
        inspector = sa.inspect(engine)
        expect(f"sa_{driver}" in inspector.get_table_names(), True)
        columns = {column["name"]: column for column in inspector.get_columns(f"sa_{driver}")}
        expect(list(columns), ["id", "t", "n"])
        expect((columns["id"]["nullable"], columns["t"]["nullable"], columns["n"]["nullable"]), (False, False, True))
        expect(str(columns["n"]["type"]), "NUMERIC(10, 2)")
        expect(inspector.get_pk_constraint(f"sa_{driver}")["constrained_columns"], ["id"])
        expect(f"sa_view_{driver}" in inspector.get_materialized_view_names(), True)
        table = sa.Table(f"sa_{driver}", sa.MetaData(), autoload_with=engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(table), [{"id": id, "t": f"row {id}", "n": id} for id in range(10)])
        with engine.connect() as connection:
            found = connection.execute(sa.select(table.c.t).where(table.c.id == 7)).scalar_one()
            expect(found, "row 7")


def adbc():
    import adbc_driver_postgresql.dbapi as dbapi

    with dbapi.connect(URL) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT CAST(i AS BIGINT) AS id, 'row' AS t FROM generate_series(1, 1000) AS g(i)")
            table = cursor.fetch_arrow_table()
            expect((table.num_rows, table.column_names), (1000, ["id", "t"]))


CLIENTS = [("psycopg", psycopg), ("psycopg2", psycopg2), ("asyncpg", asyncpg), ("sqlalchemy", sqlalchemy),
           ("adbc_driver_postgresql", adbc)]

for module, client in CLIENTS:
    if importlib.util.find_spec(module) is None:
        print(f"{client.__name__}: skipped, {module} is not installed")
        if os.environ.get("CLIENTS") == "all":
            sys.exit(1)
        continue
    client()
    print(f"{client.__name__}: as expected")
