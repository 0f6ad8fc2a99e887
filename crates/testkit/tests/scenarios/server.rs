//! PostgreSQL clients at the server.

use std::future::Future;
use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use millstream_engine::Engine;
use millstream_server::{ListenError, Server, Starting};
use millstream_testkit::drive::{self, Result, ensure, within_a_minute};
use millstream_testkit::wire::{self, Served};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_client_prepares_binds_and_reads", || serve(extended)),
    ("a_statement_that_gets_columns_is_prepared_again", || serve(widened)),
    ("a_client_sends_several_statements", || serve(simple)),
    ("a_portal_is_read_in_steps", || serve(portals)),
    ("errors_have_codes_and_places", || serve(errors)),
    ("a_running_statement_is_cancelled", || serve(cancel)),
    ("changes_come_until_the_reader_goes", || serve(changes)),
    ("rows_are_copied_out_and_in", || serve(copied)),
    ("a_copy_that_breaks_off_leaves_nothing", || serve(broken_off)),
    ("what_is_no_postgres_message_is_refused", || serve(garbage)),
    ("no_bytes_break_the_server", || drive::block_on(broken_conversations())),
    ("where_a_server_may_listen", || drive::block_on(addresses())),
    ("clients_are_told_when_the_server_starts", || drive::block_on(starting())),
    ("clients_are_told_when_the_server_stops", || drive::block_on(stopping())),
    ("who_does_not_log_in_keeps_nobody_out", || serve(silent_clients)),
    ("a_server_that_drains_lets_statements_finish", || {
        drive::block_on(async { within_a_minute("the server to drain", draining()).await? })
    }),
];

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Returns the text of a client's error.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}

/// Runs a scenario against a server on a free port.
pub(super) fn serve<F, Done>(scenario: F) -> Result<()>
where
    F: FnOnce(u16) -> Done + Send + 'static,
    Done: Future<Output = Result<()>> + Send + 'static,
{
    drive::block_on(async move {
        let served = Served::start().await?;
        let result = within_a_minute("the scenario", scenario(served.port)).await.and_then(|done| done);
        served.end().await?;
        result
    })
}

pub(super) async fn connect(port: u16) -> Result<Client> {
    Ok(connect_with_socket(port).await?.0)
}

/// Returns a client and the task that holds its socket. Dropping a client waits for the end of its requests.
pub(super) async fn connect_with_socket(port: u16) -> Result<(Client, JoinHandle<()>)> {
    let config = format!("host=127.0.0.1 port={port} user=tester application_name=scenario");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(text)?;
    Ok((client, tokio::spawn(async { connection.await.unwrap_or_default() })))
}

async fn extended(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let run = |sql: &'static str| client.batch_execute(sql);
    run("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, price DOUBLE PRECISION, ok BOOLEAN, raw BYTEA)")
        .await
        .map_err(|error| said(&error))?;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5)").await.map_err(|e| said(&e))?;
    for id in 0..10_i64 {
        let name = (id % 3 != 0).then(|| format!("n{id}"));
        let price = id as f64 / 4.0;
        let raw = vec![id as u8; 3];
        let count = client.execute(&insert, &[&id, &name, &price, &(id % 2 == 0), &raw]).await;
        ensure(count.map_err(|error| said(&error))? == 1, || "one row was inserted".into())?;
    }
    run("CREATE MATERIALIZED VIEW mv AS SELECT ok, count(*) AS n, sum(price) AS total FROM t GROUP BY ok")
        .await
        .map_err(|error| said(&error))?;
    let rows = client
        .query("SELECT n, total FROM mv WHERE ok = $1", &[&true])
        .await
        .map_err(|error| said(&error))?;
    let found: Vec<(i64, f64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure(found == [(5, 5.0)], || format!("{found:?}"))?;
    let rows = client
        .query(
            "SELECT id, name, raw FROM t WHERE id >= $1 AND name LIKE $2 ORDER BY id LIMIT $3",
            &[&3_i64, &"n%", &2_i64],
        )
        .await
        .map_err(|error| said(&error))?;
    let found: Vec<(i64, Option<String>, Vec<u8>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = vec![(4, Some("n4".to_string()), vec![4; 3]), (5, Some("n5".to_string()), vec![5; 3])];
    ensure(found == expected, || format!("{found:?}"))?;
    let changed = client.execute("UPDATE t SET price = price + $1 WHERE id < $2", &[&1.5, &4_i64]).await;
    ensure(changed.map_err(|error| said(&error))? == 4, || "four rows were changed".into())?;
    let nothing = client.execute("DELETE FROM t WHERE name = $1", &[&None::<String>]).await;
    ensure(nothing.map_err(|error| said(&error))? == 0, || "NULL equals nothing".into())
}

/// A client must not get values of columns or types that its row description lacks.
async fn widened(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let run = |sql: &'static str| client.batch_execute(sql);
    run("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .await
        .map_err(|error| said(&error))?;
    let all = client.prepare("SELECT * FROM t WHERE id = $1").await.map_err(|error| said(&error))?;
    let named = client.prepare("SELECT id FROM t WHERE id = $1").await.map_err(|error| said(&error))?;
    let row = client.query_one(&all, &[&1_i64]).await.map_err(|error| said(&error))?;
    ensure(row.len() == 1, || format!("{row:?}"))?;
    run("ALTER TABLE t ADD COLUMN name TEXT DEFAULT 'x'").await.map_err(|error| said(&error))?;
    let refused = client.query(&all, &[&1_i64]).await.err().map(|error| said(&error)).unwrap_or_default();
    ensure(refused == "0A000 cached plan must not change result type", || format!("it says {refused}"))?;
    let row = client.query_one(&named, &[&1_i64]).await.map_err(|error| said(&error))?;
    ensure(row.len() == 1, || format!("{row:?}"))?;
    let all = client.prepare("SELECT * FROM t WHERE id = $1").await.map_err(|error| said(&error))?;
    let row = client.query_one(&all, &[&1_i64]).await.map_err(|error| said(&error))?;
    ensure(row.get::<_, String>(1) == "x", || format!("{row:?}"))?;

    // Nor of another type. A change isn't made then.
    let add = client.prepare("INSERT INTO t VALUES (2, NULL) RETURNING name").await;
    let add = add.map_err(|error| said(&error))?;
    run("ALTER TABLE t ALTER COLUMN name DROP DEFAULT, ALTER COLUMN name TYPE INT USING 7")
        .await
        .map_err(|error| said(&error))?;
    let refused = client.query(&all, &[&1_i64]).await.err().map(|error| said(&error)).unwrap_or_default();
    ensure(refused == "0A000 cached plan must not change result type", || format!("it says {refused}"))?;
    let refused = client.query(&add, &[]).await.err().map(|error| said(&error)).unwrap_or_default();
    ensure(refused == "0A000 cached plan must not change result type", || format!("it says {refused}"))?;
    let row = client.query_one("SELECT name FROM t", &[]).await.map_err(|error| said(&error))?;
    ensure(row.get::<_, i32>(0) == 7, || format!("{row:?}"))
}

async fn simple(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let sql =
        "CREATE TABLE t (id INT, at TIMESTAMP); INSERT INTO t VALUES (1, '2024-01-02 03:04:05.5'), (2, NULL);
        SELECT id, at, [id, NULL] AS list FROM t ORDER BY id; ";
    let mut seen = Vec::new();
    for message in client.simple_query(sql).await.map_err(|error| said(&error))? {
        seen.push(match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
                values.join(" ")
            }
            SimpleQueryMessage::CommandComplete(count) => format!("done {count}"),
            _ => continue,
        });
    }
    let expected = ["done 0", "done 2", "1 2024-01-02 03:04:05.5 {1,NULL}", "2 NULL {2,NULL}", "done 2"];
    ensure(seen == expected, || format!("{seen:?}"))?;
    // An empty statement is answered, too.
    client.simple_query(" ; -- nothing").await.map_err(|error| said(&error)).map(drop)
}

async fn portals(port: u16) -> Result<()> {
    let mut client = connect(port).await?;
    client
        .batch_execute(
            "CREATE TABLE t (id INT); INSERT INTO t SELECT i FROM generate_series(1, 1000) AS g(i)",
        )
        .await
        .map_err(|error| said(&error))?;
    let transaction = client.transaction().await.map_err(|error| said(&error))?;
    let portal = transaction.bind("SELECT id FROM t ORDER BY id", &[]).await.map_err(|e| said(&e))?;
    let mut next = 1;
    loop {
        let rows = transaction.query_portal(&portal, 300).await.map_err(|error| said(&error))?;
        for row in &rows {
            ensure(row.get::<_, i32>(0) == next, || format!("row {next} comes next"))?;
            next += 1;
        }
        if rows.is_empty() {
            break;
        }
    }
    ensure(next == 1001, || format!("{next}"))?;
    transaction.commit().await.map_err(|error| said(&error))
}

async fn errors(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let fails = async |sql: &str| match client.simple_query(sql).await {
        Ok(_) => Err(format!("{sql} is taken")),
        Err(error) => Ok(error),
    };
    let error = fails("SELECT 1; SELECT näher FROM nowhere").await?;
    let error = error.as_db_error().ok_or("it is the database's error")?.clone();
    let position = format!("{:?}", error.position());
    ensure(position == "Some(Original(29))", || position)?;
    ensure(error.code().code() == "42P01", || said_of(&error))?;
    // Of statements that take effect together, the failed one is pointed at.
    let error = fails("CREATE TABLE ä (id INT); CREATE VIEW v AS SELECT id, id FROM ä").await?;
    let error = error.as_db_error().ok_or("it is the database's error")?.clone();
    let position = format!("{:?}", error.position());
    ensure(position == "Some(Original(26))", || position)?;
    ensure(error.code().code() == "42701", || said_of(&error))?;
    for (sql, code) in [
        ("SELEC 1", "42601"),
        ("SELECT 1 / 0", "22012"),
        ("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (NULL)", "23502"),
        ("CREATE TABLE t (id INT)", "42P07"),
    ] {
        let error = said(&fails(sql).await?);
        ensure(error.starts_with(code), || format!("{sql}: {error}"))?;
    }
    let error = match client.query("SELECT $1::INT + 1", &[&"x"]).await {
        Ok(_) => return Err("text is taken as a number".into()),
        Err(error) => said(&error),
    };
    ensure(error.contains("error serializing"), || error)?;
    // The connection is as good as before.
    client.simple_query("SELECT 1").await.map(drop).map_err(|error| said(&error))
}

fn said_of(error: &tokio_postgres::error::DbError) -> String {
    format!("{} {}", error.code().code(), error.message())
}

async fn cancel(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let token = client.cancel_token();
    let endless =
        "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 1000000) AS b(y)";
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await
    };
    let (found, cancelled) = tokio::join!(client.simple_query(endless), cancelling);
    cancelled.map_err(|error| said(&error))?;
    let error = found.err().map(|error| said(&error)).ok_or("it came to its end")?;
    ensure(error.starts_with("57014"), || error)?;
    client.simple_query("SELECT 1").await.map(drop).map_err(|error| said(&error))
}

async fn changes(port: u16) -> Result<()> {
    let writer = connect(port).await?;
    let (reader, socket) = connect_with_socket(port).await?;
    writer
        .batch_execute("CREATE TABLE t (id INT); CREATE MATERIALIZED VIEW mv AS SELECT sum(id) AS s FROM t")
        .await
        .map_err(|error| said(&error))?;
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
    let rows = reader.query_raw("SUBSCRIBE mv", none).await.map_err(|error| said(&error))?;
    pin_mut!(rows);
    let first = rows.next().await.ok_or("what is there comes first")?.map_err(|error| said(&error))?;
    let found: Option<i64> = first.get("s");
    ensure(found.is_none(), || format!("{found:?}"))?;
    writer.batch_execute("INSERT INTO t VALUES (4)").await.map_err(|error| said(&error))?;
    let mut values = Vec::new();
    while values.len() < 2 {
        let row = rows.try_next().await.map_err(|error| said(&error))?.ok_or("it goes on")?;
        values.push((row.get::<_, String>("_op"), row.get::<_, Option<i64>>("s")));
    }
    values.sort();
    let expected = [("update_delete".to_string(), None), ("update_insert".to_string(), Some(4))];
    ensure(values == expected, || format!("{values:?}"))?;
    socket.abort();
    // Subscriptions of closed connections end.
    no_subscriptions(&writer).await
}

/// Waits until there are no subscriptions.
pub(super) async fn no_subscriptions(client: &Client) -> Result<()> {
    for _ in 0..200 {
        let row = client.query_one("SELECT count(*) FROM millstream.subscriptions", &[]).await;
        if row.map_err(|error| said(&error))?.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("a subscription outlives its reader".into())
}

/// Rows of many types, edge cases among them.
const MANY_TYPES: &str = "CREATE TABLE a (id INT, b BOOLEAN, i BIGINT, r REAL, d DOUBLE PRECISION, n NUMERIC(20, 5),
        t TEXT, y BYTEA, da DATE, ts TIMESTAMP(6), tz TIMESTAMPTZ(6), l INT[], w TEXT[], iv INTERVAL);
    INSERT INTO a VALUES
        (1, true, 9223372036854775807, 1.5, 1e300, -0.00001, E'tab\\tline\\nback\\\\ \"q\", ü', '\\x00ff',
            '2024-02-29', '2024-02-29 12:00:00.25', '1969-12-31 23:59:59.999999+00', [1, NULL], ['', 'null', NULL, 'a,b'],
            INTERVAL '1 month 2 days 3 hours'),
        (2, false, 0, 0, 0, 0, '', '', '1970-01-01', '1970-01-01', '1970-01-01 00:00:00+00', [], [], INTERVAL '0 days'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE copy_of (id INT, b BOOLEAN, i BIGINT, r REAL, d DOUBLE PRECISION, n NUMERIC(20, 5),
        t TEXT, y BYTEA, da DATE, ts TIMESTAMP(6), tz TIMESTAMPTZ(6), l INT[], w TEXT[], iv INTERVAL)";

async fn copied(port: u16) -> Result<()> {
    let client = connect(port).await?;
    client.batch_execute(MANY_TYPES).await.map_err(|error| said(&error))?;
    for format in
        ["(FORMAT text)", "(FORMAT csv, HEADER)", "(FORMAT binary)", "(FORMAT csv, DELIMITER '|', QUOTE '!')"]
    {
        client.batch_execute("DELETE FROM copy_of").await.map_err(|error| said(&error))?;
        let out =
            client.copy_out(&format!("COPY a TO STDOUT {format}")).await.map_err(|error| said(&error))?;
        let bytes: Vec<u8> =
            out.map_ok(|bytes| bytes.to_vec()).try_concat().await.map_err(|error| said(&error))?;
        for size in [1, 7, bytes.len()] {
            let sink =
                client.copy_in(&format!("COPY copy_of FROM STDIN {format}")).await.map_err(|e| said(&e))?;
            pin_mut!(sink);
            for chunk in bytes.chunks(size) {
                sink.send(bytes::Bytes::copy_from_slice(chunk)).await.map_err(|error| said(&error))?;
            }
            let count = sink.finish().await.map_err(|error| said(&error))?;
            ensure(count == 3, || format!("{format}: {count} rows"))?;
        }
        let differ = "SELECT count(*) FROM (SELECT * FROM copy_of EXCEPT SELECT * FROM a)";
        let row = client.query_one(differ, &[]).await.map_err(|error| said(&error))?;
        ensure(row.get::<_, i64>(0) == 0, || format!("{format}: what came in is not what went out"))?;
        let row = client.query_one("SELECT count(*) FROM copy_of", &[]).await.map_err(|e| said(&e))?;
        ensure(row.get::<_, i64>(0) == 9, || format!("{format}: {row:?}"))?;
    }
    Ok(())
}

async fn broken_off(port: u16) -> Result<()> {
    let (writer, reader) = (connect(port).await?, connect(port).await?);
    writer.batch_execute("CREATE TABLE t (id INT, v TEXT)").await.map_err(|error| said(&error))?;
    let nothing = async || -> Result<()> {
        let row = reader.query_one("SELECT count(*) FROM t", &[]).await.map_err(|error| said(&error))?;
        ensure(row.get::<_, i64>(0) == 0, || format!("{row:?}"))
    };
    let sink = writer.copy_in("COPY t FROM STDIN").await.map_err(|error| said(&error))?;
    let mut sink = Box::pin(sink);
    sink.send(bytes::Bytes::from("1\ta\n".repeat(50_000))).await.map_err(|error| said(&error))?;
    // A dropped COPY sink tells the server that the COPY failed.
    drop(sink);
    nothing().await?;
    for (rows, expected) in [
        ("1\ta\nx\tb\n", "22P02 COPY, row 2, column \"id\": invalid input for type integer: \"x\""),
        ("1\n", "22P04 COPY, row 1: there are 1 fields where 2 columns were expected: \"v\" has none"),
        ("1\t2\t3\n", "22P04 COPY, row 1: there are more fields than the 2 columns"),
    ] {
        let sink = writer.copy_in("COPY t FROM STDIN").await.map_err(|error| said(&error))?;
        pin_mut!(sink);
        sink.send(bytes::Bytes::from(rows)).await.map_err(|error| said(&error))?;
        let error = sink.finish().await.err().map(|error| said(&error)).ok_or("it is taken")?;
        ensure(error == expected, || error)?;
    }
    nothing().await?;
    // A client that closes its connection without a message.
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
    let copy = b"\0\0\0\x10\0\x03\0\0user\0x\0\0Q\0\0\0\x16COPY t FROM STDIN\0d\0\0\0\x081\ta\n";
    socket.write_all(copy).await.map_err(text)?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(socket);
    tokio::time::sleep(Duration::from_millis(100)).await;
    nothing().await
}

async fn garbage(port: u16) -> Result<()> {
    let send = async |bytes: &[u8]| -> Result<Vec<u8>> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
        socket.write_all(bytes).await.map_err(text)?;
        socket.shutdown().await.map_err(text)?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.map_err(text)?;
        Ok(answer)
    };
    let found = String::from_utf8_lossy(&send(b"GET / HTTP/1.1\r\n\r\n").await?).into_owned();
    ensure(found.contains("08P01") && found.contains("PostgreSQL client"), || found.clone())?;
    let startup = b"\0\0\0\x0d\0\x03\0\0user\0x\0\0";
    let startup = [&(startup.len() as i32).to_be_bytes()[..], &startup[4..]].concat();
    let with = |rest: &[u8]| [&startup[..], rest].concat();
    for (bytes, expected) in [
        (with(b"Z\0\0\0\x04"), "message type 'Z'"),
        (with(b"Q\xff\xff\xff\xff"), "-1 bytes"),
        (with(b"B\0\0\0\x06\0\0S\0\0\0\x04"), "ends before its content"),
        (with(b"Q\0\0\0\x06\xff\0"), "not UTF-8"),
        (with(b"Q\0\0\0\x0cSELECT 1"), "ends before its content"),
        (b"\0\0\0\x11\0\x02\0\0user\0x\0\0\0".to_vec(), "protocol 2.0"),
    ] {
        let found = String::from_utf8_lossy(&send(&bytes).await?).into_owned();
        ensure(found.contains(expected), || format!("{expected}: {found}"))?;
    }
    // If a statement is too long, only that statement is rejected: the connection continues.
    let client = connect(port).await?;
    let long = format!("SELECT '{}'", "x".repeat(100 << 20));
    let error = client.simple_query(&long).await.err().map(|error| said(&error)).ok_or("it is taken")?;
    ensure(error.starts_with("54000") && error.contains("67108864"), || error)?;
    client.simple_query("SELECT 1").await.map_err(|error| said(&error))?;
    // Others are served as before.
    connect(port).await?.simple_query("SELECT 1").await.map(drop).map_err(|error| said(&error))
}

async fn broken_conversations() -> Result<()> {
    // To run fresh ones by hand: `millstream-testkit fuzz-wire MINUTES`.
    within_a_minute("the conversations", wire::fuzz::fuzz(1, 200, None)).await?.map(drop)
}

async fn addresses() -> Result<()> {
    let engine = Engine::start().map_err(text)?;
    let first = Server::bind("127.0.0.1:0", engine.clone()).await.map_err(text)?;
    let again = Server::bind(&first.address().to_string(), engine.clone()).await;
    ensure(matches!(again, Err(ListenError::Taken(_))), || "a port is given twice".into())?;
    let open = Server::bind("0.0.0.0:0", engine.clone()).await;
    ensure(matches!(open, Err(ListenError::Open(_))), || "all are let in".into())?;
    let none = Server::bind("nowhere", engine.clone()).await;
    ensure(matches!(none, Err(ListenError::Address { .. })), || "a word is an address".into())?;
    engine.stop().await.map_err(text)
}

async fn stopping() -> Result<()> {
    let engine = Engine::start().map_err(text)?;
    let server = Server::bind("127.0.0.1:0", engine.clone()).await.map_err(text)?;
    let port = server.address().port();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    let client = connect(port).await?;
    client.batch_execute("CREATE TABLE t (id INT)").await.map_err(|error| said(&error))?;
    let following = client.simple_query("SELECT * FROM t EMIT CHANGES");
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stop);
        serving.await
    };
    let (found, served) = tokio::join!(following, stopping);
    served.map_err(text)?;
    let error = found.err().map(|error| said(&error)).ok_or("it came to its end")?;
    ensure(error.starts_with("57P01"), || error)?;
    engine.stop().await.map_err(text)
}

async fn draining() -> Result<()> {
    let engine = Engine::start().map_err(text)?;
    let server = Server::bind("127.0.0.1:0", engine.clone()).await.map_err(text)?;
    let port = server.address().port();
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let drained = async move {
        let _ = drained.await;
    };
    let serving = tokio::spawn(server.run_until(drained, std::future::pending()));
    let (client, idle) = (connect(port).await?, connect(port).await?);
    let silent = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
    client.batch_execute("CREATE TABLE t (id INT)").await.map_err(|error| said(&error))?;
    let follower = connect(port).await?;
    let following =
        tokio::spawn(async move { follower.simple_query("SELECT * FROM t EMIT CHANGES").await.map(drop) });
    let sink = client.copy_in("COPY t FROM STDIN").await.map_err(|error| said(&error))?;
    let mut sink = Box::pin(sink);
    sink.send(bytes::Bytes::from("1\n")).await.map_err(|error| said(&error))?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(drain);
    // Endless results and idle clients are ended at once.
    let error = following.await.map_err(text)?.err().map(|error| said(&error)).ok_or("it came to its end")?;
    ensure(error.starts_with("57P01"), || error)?;
    while !idle.is_closed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The server no longer listens.
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A COPY in progress completes.
    sink.send(bytes::Bytes::from("2\n")).await.map_err(|error| said(&error))?;
    let count = sink.as_mut().finish().await.map_err(|error| said(&error))?;
    ensure(count == 2, || format!("{count} rows"))?;
    ensure(client.batch_execute("SELECT 1").await.is_err(), || "a new statement is accepted".into())?;
    serving.await.map_err(text)?;
    drop(silent);
    engine.stop().await.map_err(text)
}

async fn silent_clients(port: u16) -> Result<()> {
    let mut silent = Vec::new();
    for _ in 0..270 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?);
    }
    connect(port).await?.batch_execute("SELECT 1").await.map_err(|error| said(&error))?;
    // The first connection has made room for the last.
    let mut told = Vec::new();
    silent[0].read_to_end(&mut told).await.map_err(text)?;
    let told = String::from_utf8_lossy(&told);
    ensure(told.contains("53300") && told.contains("have not logged in"), || told.into_owned())
}

/// The port is open before the engine has recovered.
async fn starting() -> Result<()> {
    let starting = Starting::bind("127.0.0.1:0").await.map_err(text)?;
    let port = starting.address().port();
    for _ in 0..2 {
        let config = format!("host=127.0.0.1 port={port} user=tester");
        match tokio_postgres::connect(&config, NoTls).await {
            Ok(_) => return Err("a client was admitted before the engine had started".into()),
            Err(error) => {
                ensure(said(&error) == "57P03 the database system is starting up", || said(&error))?
            }
        }
    }
    // A client that says nothing keeps nobody out.
    let silent = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
    let engine = Engine::start().map_err(text)?;
    let server = starting.with(engine.clone()).await.map_err(text)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async { drop(stopped.await) }));
    let client = connect(port).await?;
    client.batch_execute("SELECT 1").await.map_err(|error| said(&error))?;
    drop((client, silent, stop));
    within_a_minute("the server to stop", serving).await?.map_err(text)?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(text)
}
