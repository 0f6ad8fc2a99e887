//! The parts of the web page, over HTTP as the page itself asks.

use std::time::Duration;

use millstream_testkit::drive::{self, Result, ensure, expect_soon, run, run_all, within_a_minute};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Scenario;
use super::web::{JSON, Watched, get, posted_to, send, watched};

pub const ALL: &[Scenario] = &[
    ("a_page_has_a_graph_of_objects_and_operators", || drive::block_on(graph())),
    ("a_page_has_batches_with_their_inputs", || drive::block_on(batches())),
    ("a_page_has_partitions_state_and_checkpoints", || drive::block_on(parts())),
    ("a_page_streams_the_changes_of_a_query", || drive::block_on(streamed())),
    ("a_page_sends_long_results_in_pieces", || drive::block_on(long())),
    ("a_page_has_the_busy_times_of_a_moment", || drive::block_on(moment())),
    ("a_page_that_ends_tells_its_readers", || drive::block_on(ended())),
    ("a_page_leaves_clients_that_send_too_slowly", || drive::block_on(slow())),
    ("a_browser_keeps_the_files_of_a_page", || drive::block_on(kept())),
];

/// Returns the rows of an answer that have a text in a column.
fn having<'a>(rows: &'a Value, column: &str, text: &str) -> Vec<&'a Value> {
    rows.as_array().map_or_else(Vec::new, |rows| rows.iter().filter(|row| row[column] == text).collect())
}

async fn graph() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    run_all(
        &mut engine.session(),
        &[
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)",
            "CREATE VIEW w AS SELECT v FROM t",
            "CREATE MATERIALIZED VIEW \"a&b\" AS SELECT v, count(*) AS n FROM w GROUP BY v",
            "CREATE TABLE u (v BIGINT PRIMARY KEY, n BIGINT)",
            "CREATE SINK k INTO u FROM \"a&b\"",
            "INSERT INTO t VALUES (1, 1), (2, 1)",
        ],
    )
    .await?;
    expect_soon(&mut engine.session(), "SELECT n FROM u", &["2"]).await?;
    let all = get(&page, "/api/graph").await?.json()?;
    for (name, kind, input) in [
        ("t", "table", Value::Null),
        ("w", "view", json!("t")),
        ("a&b", "materialized view", json!("w")),
        ("k", "sink", json!("a&b")),
        ("u", "table", json!("k")),
    ] {
        let found = having(&all["objects"], "name", name);
        ensure(found.iter().any(|row| row["kind"] == kind && row["depends_on"] == input), || {
            format!("{name}: {found:?}")
        })?;
    }
    let loads = having(&all["loads"], "query", "a&b");
    ensure(loads.len() == 1 && loads[0]["rows_in"].as_u64() == Some(2), || format!("{loads:?}"))?;
    ensure(loads[0]["time_us"].is_u64() && loads[0]["state_bytes"].as_u64() > Some(0), || {
        format!("{loads:?}")
    })?;
    let one = get(&page, "/api/graph?query=a%26b").await?.json()?;
    let operators = one["operators"].as_array().ok_or("no operators")?;
    ensure(operators.len() as u64 == loads[0]["operators"].as_u64().unwrap_or_default(), || one.to_string())?;
    ensure(operators.iter().any(|row| row["operator"] == "Aggregate"), || one.to_string())?;
    let none = get(&page, "/api/graph?query=nowhere").await?.json()?;
    ensure(none["operators"] == json!([]), || none.to_string())?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn batches() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    run_all(
        &mut engine.session(),
        &[
            "CREATE TABLE t (id BIGINT PRIMARY KEY)",
            "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t",
            "INSERT INTO t VALUES (1), (2), (3)",
        ],
    )
    .await?;
    // The listener hears of an epoch after it.
    let mut found = Value::Null;
    for _ in 0..600 {
        let overview = get(&page, "/api/overview").await?.json()?;
        let batches = overview["batches"].as_array().ok_or("no batches")?;
        if let Some(batch) = batches.iter().find(|batch| batch["inputs"] == json!({ "t": 3 })) {
            found = batch.clone();
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure(found["input_rows"] == 3, || found.to_string())?;
    let one = get(&page, &format!("/api/batch?epoch={}", found["epoch"])).await?.json()?;
    ensure(one["batch"]["input_rows"] == 3, || one.to_string())?;
    ensure(!having(&one["operators"], "query", "v").is_empty(), || one.to_string())?;
    let none = get(&page, "/api/batch?epoch=1000000").await?.json()?;
    ensure(none["batch"] == Value::Null && none["operators"] == json!([]), || none.to_string())?;
    let wrong = get(&page, "/api/batch?epoch=x").await?;
    ensure(wrong.status == 400 && wrong.body.contains("epoch is \"x\""), || wrong.body)?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn parts() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    run_all(
        &mut engine.session(),
        &[
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 30, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW v AS SELECT n % 3 AS k, count(*) AS c FROM n GROUP BY n % 3",
        ],
    )
    .await?;
    expect_soon(&mut engine.session(), "SELECT sum(c) FROM v", &["30"]).await?;
    let partitions = get(&page, "/api/partitions").await?.json()?;
    let found = having(&partitions["partitions"], "source", "n");
    ensure(found.len() == 1 && found[0]["position"] == 30, || partitions.to_string())?;
    let state = get(&page, "/api/state").await?.json()?;
    let found = having(&state["queries"], "query", "v");
    ensure(found.len() == 1 && found[0]["state_bytes"].as_u64() > Some(0), || state.to_string())?;
    ensure(!having(&state["operators"], "operator", "Aggregate").is_empty(), || state.to_string())?;
    ensure(state["checkpoints"] == json!([]), || state.to_string())?;
    engine.stop().await.map_err(|error| error.to_string())?;
    let stopped = get(&page, "/api/graph").await?;
    ensure(stopped.status == 503 && stopped.body.contains("has stopped"), || stopped.body)
}

/// The JSON objects of a streamed answer, line by line.
struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Returns the next object; `None` at the end. The sizes of chunks and the headers have no braces.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            let mut line = String::new();
            let read = within_a_minute("a line", self.0.read_line(&mut line)).await?;
            if read.map_err(|error| error.to_string())? == 0 {
                return Ok(None);
            }
            if line.starts_with('{') {
                return serde_json::from_str(&line).map(Some).map_err(|error| format!("{error} in {line}"));
            }
        }
    }
}

async fn stream(watched: &Watched, sql: &str) -> Result<Lines> {
    let address = watched.page.address();
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let body = json!({ "sql": sql }).to_string();
    let request = posted_to("/api/sql/stream", &address.to_string(), JSON, &body);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    Ok(Lines(BufReader::new(stream)))
}

async fn streamed() -> Result<()> {
    let watched = watched().await?;
    let mut session = watched.engine.session();
    run_all(
        &mut session,
        &["CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, '<b>')"],
    )
    .await?;
    let mut lines = stream(&watched, "SELECT 1 AS one; SUBSCRIBE t").await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(lines.next().await?.ok_or("the answer ended")?);
    }
    ensure(seen[0]["begin"]["columns"] == json!(["one"]), || format!("{seen:?}"))?;
    ensure(seen[1]["rows"] == json!([["1"]]) && seen[2]["end"]["tag"] == "SELECT 1", || format!("{seen:?}"))?;
    ensure(seen[3]["begin"]["is_endless"] == true, || format!("{seen:?}"))?;
    ensure(seen[4]["rows"][0][1] == "insert" && seen[4]["rows"][0][3] == "<b>", || format!("{seen:?}"))?;
    run(&mut session, "UPDATE t SET v = 'c'").await?;
    let change = lines.next().await?.ok_or("the answer ended")?;
    ensure(change["rows"][1][1] == "update_insert" && change["rows"][1][3] == "c", || change.to_string())?;
    let jobs = "SELECT count(*) FROM millstream.jobs WHERE \"user\" = 'millstream_page'";
    expect_soon(&mut session, jobs, &["1"]).await?;
    drop(lines);
    expect_soon(&mut session, jobs, &["0"]).await?;
    let Watched { page, engine } = watched;
    let wrong = send(&page, &posted_to("/api/complete", &page.address().to_string(), JSON, "{}")).await?;
    ensure(wrong.status == 400, || wrong.body)?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn long() -> Result<()> {
    let watched = watched().await?;
    let statements = "SELECT g FROM generate_series(1, 250000) x(g) ORDER BY g; SELECT nowhere";
    let mut lines = stream(&watched, statements).await?;
    let (mut rows, mut last) = (0, Vec::new());
    while let Some(line) = lines.next().await? {
        rows += line["rows"].as_array().map_or(0, Vec::len);
        if line["rows"].is_null() && line["count"].is_null() {
            last.push(line);
        }
    }
    ensure(rows == 1000, || format!("{rows} rows"))?;
    let end = &last[1]["end"];
    ensure(last.len() == 4 && end["is_cut"] == false && end["rows"].as_u64() == Some(250_000), || {
        format!("{last:?}")
    })?;
    ensure(last[2]["error"]["sqlstate"] == "42703" && last[3]["milliseconds"].is_u64(), || {
        format!("{last:?}")
    })?;
    // All rows are read in parts, and saved.
    let name = end["result"].as_str().ok_or("no result")?;
    let host = watched.page.address().to_string();
    let ask = async |path: &str, body: Value| {
        send(&watched.page, &posted_to(path, &host, JSON, &body.to_string())).await
    };
    let part = ask("/api/result/rows", json!({ "result": name, "from": 249_998, "count": 10 })).await?;
    ensure(part.json()?["rows"] == json!([["249999"], ["250000"]]), || part.body.clone())?;
    let saved = ask("/api/result/save", json!({ "result": name, "format": "csv" })).await?;
    let is_whole = saved.body.contains("g\r\n1\r\n2\r\n") && saved.body.contains("\r\n250000\r\n");
    ensure(is_whole, || format!("{} bytes", saved.body.len()))?;
    let wrong = ask("/api/result/save", json!({ "result": name, "format": "<b>" })).await?;
    ensure(wrong.status == 400 && wrong.body.contains("expected csv or parquet"), || wrong.body.clone())?;
    // A result may have rows without columns.
    let mut none = stream(&watched, "SELECT FROM generate_series(1, 3) x(g)").await?;
    let mut kinds = Vec::new();
    while let Some(line) = none.next().await? {
        kinds.extend(line.as_object().and_then(|line| line.keys().next()).cloned());
    }
    let is_known = kinds == ["begin", "rows", "end", "milliseconds"] || kinds[0] == "error";
    ensure(is_known, || format!("{kinds:?}"))?;
    // Results are found by POST and by their names only.
    let refused = get(&watched.page, "/api/result/rows").await?;
    ensure(refused.status == 405, || refused.body.clone())?;
    ask("/api/result/drop", json!({ "result": name })).await?;
    let gone = ask("/api/result/rows", json!({ "result": name, "from": 0, "count": 1 })).await?;
    ensure(gone.status == 404 && gone.body.contains("no longer kept"), || gone.body.clone())?;
    watched.engine.stop().await.map_err(|error| error.to_string())
}

/// The busy times of an earlier moment name queries and operators.
async fn moment() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE TABLE t (id BIGINT)",
            "CREATE MATERIALIZED VIEW m AS SELECT id % 3 AS k, count(*) AS n FROM t GROUP BY id % 3",
            "INSERT INTO t SELECT g FROM generate_series(1, 20000) x(g)",
        ],
    )
    .await?;
    let is_of = |rows: &[&Value], has_node: bool| rows.iter().any(|row| row["node"].is_u64() == has_node);
    for _ in 0..100 {
        let all = get(&page, "/api/busy?second=1").await?.json()?;
        let rows = having(&all["busy"], "query", "m");
        if is_of(&rows, true) && is_of(&rows, false) {
            ensure(rows.iter().all(|row| row["time_us"].as_u64() > Some(0)), || all.to_string())?;
            let later = get(&page, "/api/busy?second=3000").await?.json()?;
            ensure(later["busy"] == json!([]) && later["seconds"].is_u64(), || later.to_string())?;
            return engine.stop().await.map_err(|error| error.to_string());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err("the busy times have no row of the view".into())
}

async fn ended() -> Result<()> {
    let watched = watched().await?;
    let mut session = watched.engine.session();
    run(&mut session, "CREATE TABLE t (id BIGINT)").await?;
    let mut followed = stream(&watched, "SUBSCRIBE t").await?;
    followed.next().await?.ok_or("no begin")?;
    let long =
        "SELECT max((a.g * b.g) % 7) FROM generate_series(1, 100000) a(g), generate_series(1, 10000000) b(g)";
    let mut long = stream(&watched, long).await?;
    let jobs = "SELECT count(*) FROM millstream.jobs WHERE \"user\" = 'millstream_page'";
    expect_soon(&mut session, jobs, &["2"]).await?;
    // A page that drains ends what has no end, and begins nothing.
    watched.page.drain();
    let end = followed.next().await?.ok_or("no reason")?;
    ensure(end["error"]["sqlstate"] == "57P01", || end.to_string())?;
    let host = watched.page.address().to_string();
    let body = json!({ "sql": "SELECT 1" }).to_string();
    for path in ["/api/sql", "/api/sql/stream"] {
        let refused = send(&watched.page, &posted_to(path, &host, JSON, &body)).await?;
        ensure(refused.status == 503 && refused.body.contains("is stopping"), || refused.body.clone())?;
    }
    get(&watched.page, "/api/overview").await?.json()?;
    expect_soon(&mut session, jobs, &["1"]).await?;
    // A page that stops ends everything, and says so.
    let Watched { page, engine } = watched;
    let begin = long.next().await?.ok_or("no begin")?;
    ensure(begin["begin"].is_object(), || begin.to_string())?;
    let (end, ()) = futures::join!(long.next(), page.stop());
    let end = end?.ok_or("no reason")?;
    ensure(end["error"]["sqlstate"] == "57P01", || end.to_string())?;
    expect_soon(&mut session, jobs, &["0"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Half a head, or half a body, doesn't keep a connection.
async fn slow() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let host = page.address().to_string();
    let head = "GET / HTTP/1.1\r\nHost: ".to_string();
    let body = posted_to("/api/sql", &host, JSON, "{\"sql\": \"SELECT 1\"}");
    for part in [head.as_str(), &body[..body.len() - 4]] {
        let mut stream = TcpStream::connect(page.address()).await.map_err(|error| error.to_string())?;
        stream.write_all(part.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        let end = within_a_minute("the end", stream.read_to_string(&mut answer)).await?;
        ensure(end.is_ok() && (answer.is_empty() || answer.contains(" 408 ")), || answer.clone())?;
    }
    get(&page, "/healthz").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn kept() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let first = get(&page, "/app.js").await?;
    let tag = first.headers.get("etag").ok_or("no tag")?;
    ensure(first.headers.get("cache-control").is_some_and(|value| value == "no-cache"), || {
        format!("{:?}", first.headers)
    })?;
    let host = page.address();
    let again =
        format!("GET /app.js HTTP/1.1\r\nHost: {host}\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
    let again = send(&page, &again).await?;
    ensure(again.status == 304 && again.body.is_empty(), || format!("{} {}", again.status, again.body))?;
    let figures = get(&page, "/api/overview").await?;
    ensure(figures.headers.get("cache-control").is_some_and(|value| value == "no-store"), || {
        format!("{:?}", figures.headers)
    })?;
    engine.stop().await.map_err(|error| error.to_string())
}
