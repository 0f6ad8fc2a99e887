//! The web page, over HTTP as programs speak it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_engine::Engine;
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, run, run_all, within_a_minute};
use millstream_web::Page;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("a_page_says_that_the_engine_starts", || drive::block_on(starting())),
    ("a_page_shows_an_engine", || drive::block_on(shown())),
    ("a_page_refuses_other_sites", || drive::block_on(refused())),
    ("a_page_shows_hostile_names_as_text", || drive::block_on(hostile())),
    ("a_page_runs_statements", || drive::block_on(statements())),
    ("a_closed_connection_cancels_its_statement", || drive::block_on(cancelled())),
    ("a_page_has_many_readers", || drive::block_on(many())),
    ("metrics_are_open_metrics", || drive::block_on(metrics())),
];

/// An engine with its page.
pub(super) struct Watched {
    pub(super) page: Page,
    pub(super) engine: Engine,
}

/// An answer of the page.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).map_err(|error| format!("{error} in {}", self.body))
    }
}

async fn bound() -> Result<Page> {
    Page::bind("127.0.0.1:0").await.map_err(|error| error.to_string())
}

pub(super) async fn watched() -> Result<Watched> {
    let page = bound().await?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    page.attach(engine.clone());
    Ok(Watched { page, engine })
}

/// Sends a text and returns the answer, up to the end of the connection.
pub(super) async fn send(page: &Page, text: &str) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(page.address()).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&all).into_owned())
    };
    let all = within_a_minute("an answer", exchange).await?.map_err(|error| error.to_string())?;
    let (head, body) = all.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {all}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect();
    Ok(Answer { status, headers, body: body.to_string() })
}

pub(super) async fn get(page: &Page, path: &str) -> Result<Answer> {
    send(page, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", page.address())).await
}

pub(super) fn posted(host: &str, more: &str, body: &str) -> String {
    posted_to("/api/sql", host, more, body)
}

pub(super) fn posted_to(path: &str, host: &str, more: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub(super) const JSON: &str = "Content-Type: application/json\r\n";

pub(super) async fn sql(page: &Page, sql: &str) -> Result<Value> {
    let body = json!({ "sql": sql }).to_string();
    let answer = send(page, &posted(&page.address().to_string(), JSON, &body)).await?;
    ensure(answer.status == 200, || format!("{sql}: {} {}", answer.status, answer.body))?;
    answer.json()
}

async fn expect_status(page: &Page, path: &str, status: u16, part: &str) -> Result<Answer> {
    let answer = get(page, path).await?;
    ensure(answer.status == status && answer.body.contains(part), || {
        format!("{path}: {} {}, expected {status} with {part}", answer.status, answer.body)
    })?;
    Ok(answer)
}

async fn starting() -> Result<()> {
    let page = bound().await?;
    expect_status(&page, "/healthz", 200, "alive").await?;
    expect_status(&page, "/readyz", 503, "starting").await?;
    expect_status(&page, "/metrics", 200, "\nmillstream_ready 0\n").await?;
    let overview = get(&page, "/api/overview").await?.json()?;
    ensure(overview["state"] == "absent" && overview["health"][0]["level"] == "error", || {
        overview.to_string()
    })?;
    let early = posted(&page.address().to_string(), JSON, "{\"sql\": \"SELECT 1\"}");
    let answer = send(&page, &early).await?;
    ensure(answer.status == 503 && answer.body.contains("starting"), || answer.body)?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    page.attach(engine.clone());
    expect_status(&page, "/readyz", 200, "ready").await?;
    expect_status(&page, "/metrics", 200, "\nmillstream_ready 1\n").await?;
    engine.stop().await.map_err(|error| error.to_string())?;
    expect_status(&page, "/readyz", 503, "has stopped").await?;
    expect_status(&page, "/healthz", 200, "alive").await?;
    let address = page.address();
    drop(page);
    let mut closed = TcpStream::connect(address).await.is_err();
    for _ in 0..1000 {
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        closed = TcpStream::connect(address).await.is_err();
    }
    ensure(closed, || "the page that was dropped still listens".to_string())
}

async fn shown() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 30, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW per AS SELECT n % 3 AS k, count(*) AS c FROM n GROUP BY n % 3",
            "CREATE TABLE t (id BIGINT PRIMARY KEY)",
            "CREATE MATERIALIZED VIEW broken AS SELECT 1 / id AS one FROM t",
            "CREATE SINK k FROM per WITH (connector = 'blackhole')",
            "INSERT INTO t VALUES (0), (1)",
            "PAUSE SINK k",
        ],
    )
    .await?;
    expect_soon(&mut session, "SELECT sum(c) FROM per", &["30"]).await?;
    let mut rows_in = 0;
    let mut overview = Value::Null;
    for _ in 0..600 {
        overview = get(&page, "/api/overview").await?.json()?;
        let seconds = overview["history"]["rows_in"].as_array().ok_or("no rows_in")?;
        rows_in = seconds.iter().filter_map(Value::as_u64).sum();
        if rows_in >= 32 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure(rows_in == 32, || format!("{rows_in} rows in: {overview}"))?;
    let health = overview["health"].as_array().ok_or("no health")?;
    for (object, statement) in [
        ("materialized view \"broken\"", "SELECT * FROM millstream.errors WHERE query = 'broken'"),
        ("sink \"k\"", "RESUME SINK \"k\""),
    ] {
        let found = health.iter().find(|problem| problem["object"] == object);
        ensure(found.is_some_and(|problem| problem["statement"] == statement), || format!("{health:?}"))?;
        run(&mut session, statement).await?;
    }
    for (list, name) in [("sources", "n"), ("queries", "broken"), ("queries", "per"), ("sinks", "k")] {
        let rows = overview[list].as_array().ok_or("no list")?;
        ensure(rows.iter().any(|row| row["name"] == name), || format!("{list}: {rows:?}"))?;
    }
    // A later question gets only what is new.
    let (next, epoch) = (&overview["history"]["next"], &overview["batches"][0]["epoch"]);
    ensure(epoch.as_u64().is_some_and(|epoch| epoch > 0), || overview["batches"].to_string())?;
    let later = get(&page, &format!("/api/overview?since={next}&after={epoch}")).await?.json()?;
    ensure(later["history"]["from"].as_u64() >= next.as_u64() && later["batches"] == json!([]), || {
        later.to_string()
    })?;
    expect_status(&page, "/api/overview?since=x", 400, "since is \"x\"").await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn refused() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let own = page.address().to_string();
    let index = expect_status(&page, "/", 200, "<!doctype html>").await?;
    for path in [
        "/app.js",
        "/vendor-editor.js",
        "/style.css",
        "/metrics",
        "/api/overview",
        "/readyz",
        "/nowhere",
        "/api/sql",
    ] {
        let answer = get(&page, path).await?;
        for (name, part) in
            [("content-security-policy", "frame-ancestors 'none'"), ("x-content-type-options", "nosniff")]
        {
            let value = answer.headers.get(name);
            ensure(value.is_some_and(|value| value.contains(part)), || format!("{path}: {name}: {value:?}"))?;
        }
    }
    for elsewhere in ["http://", "https://", "<style", "onclick", "<script>"] {
        ensure(!index.body.contains(elsewhere), || format!("the page has {elsewhere}"))?;
    }
    let ask = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for (host, status) in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:9999", 200),
        ("[::1]:1", 200),
        ("10.0.0.1", 403),
    ] {
        let answer = send(&page, &ask(host)).await?;
        ensure(answer.status == status, || format!("{host}: {} {}", answer.status, answer.body))?;
    }
    let create = json!({ "sql": "CREATE TABLE hacked (id BIGINT)" }).to_string();
    let foreign = format!("{JSON}Origin: http://evil.example\r\n");
    for (host, more, status) in [
        (own.as_str(), foreign.as_str(), 403),
        (&own, "Content-Type: application/json\r\nOrigin: null\r\n", 403),
        (&own, "Content-Type: text/plain\r\n", 415),
        (&own, "Content-Type: application/x-www-form-urlencoded\r\n", 415),
        (&own, "", 415),
        ("evil.example", JSON, 403),
    ] {
        let answer = send(&page, &posted(host, more, &create)).await?;
        ensure(answer.status == status, || format!("{host} {more}: {} {}", answer.status, answer.body))?;
    }
    for body in ["", "{", "[]", "{\"sql\": 1}"] {
        let answer = send(&page, &posted(&own, JSON, body)).await?;
        ensure(answer.status == 400, || format!("{body}: {} {}", answer.status, answer.body))?;
    }
    expect_status(&page, "/api/sql?sql=CREATE%20TABLE%20hacked%20(id%20BIGINT)", 405, "POST").await?;
    expect_status(&page, "/nowhere", 404, "no such page").await?;
    expect(&mut engine.session(), "SELECT count(*) FROM millstream.tables", &["0"]).await?;
    let same = format!("{JSON}Origin: http://{own}\r\n");
    let answer = send(&page, &posted(&own, &same, &create)).await?;
    ensure(answer.status == 200, || answer.body)?;
    expect(&mut engine.session(), "SELECT name FROM millstream.tables", &["hacked"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

const HOSTILE: &str = "<script>alert(1)</script>\"'\\ \u{202e}é";

async fn hostile() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let quoted = format!("\"{}\"", HOSTILE.replace('"', "\"\""));
    let value = HOSTILE.replace('\'', "''");
    let script = format!(
        "CREATE TABLE t ({quoted} TEXT); INSERT INTO t VALUES ('{value}');
         CREATE MATERIALIZED VIEW {quoted} AS SELECT {quoted}, 1 / (length({quoted}) - length({quoted})) AS n FROM t;
         SELECT * FROM t; SELECT * FROM \"no such <b>\""
    );
    let all = sql(&page, &script).await?;
    let rows = &all["results"][3];
    ensure(rows["columns"] == json!([HOSTILE]) && rows["rows"] == json!([[HOSTILE]]), || all.to_string())?;
    ensure(all["error"]["message"].as_str().is_some_and(|message| message.contains("no such <b>")), || {
        all["error"].to_string()
    })?;
    let overview = get(&page, "/api/overview").await?;
    // A browser that opens the answer shows it as text.
    ensure(overview.headers.get("content-type").is_some_and(|kind| kind == "application/json"), || {
        format!("{:?}", overview.headers)
    })?;
    let overview = overview.json()?;
    ensure(overview["queries"][0]["name"] == HOSTILE, || overview["queries"].to_string())?;
    let statement = overview["health"][0]["statement"].as_str().ok_or("no statement")?.to_string();
    let errors = sql(&page, &statement).await?;
    ensure(errors["results"][0]["rows"][0][0] == HOSTILE, || errors.to_string())?;
    let why = sql(&page, &format!("EXPLAIN WHY MATERIALIZED VIEW {quoted}")).await?;
    ensure(why["error"] == Value::Null, || why.to_string())?;
    let text = get(&page, "/metrics").await?.body;
    let labels = samples(&text)?;
    ensure(labels.iter().any(|(_, labels)| labels.get("query").is_some_and(|name| name == HOSTILE)), || {
        text.clone()
    })?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn statements() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let all = sql(&page, "CREATE TABLE t (id BIGINT PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").await?;
    ensure(all["error"] == Value::Null && all["results"][2]["tag"] == "INSERT 0 1", || all.to_string())?;
    // The session ended with its transaction open.
    let all = sql(&page, "SELECT count(*) FROM t; SELECT nowhere; SELECT 1").await?;
    ensure(all["results"][0]["rows"] == json!([["0"]]), || all.to_string())?;
    ensure(all["error"]["sqlstate"] == "42703" && all["error"]["position"] == 32, || all.to_string())?;
    let all =
        sql(&page, "INSERT INTO t SELECT g FROM generate_series(1, 5000) x(g); SELECT * FROM t").await?;
    let rows = all["results"][1]["rows"].as_array().ok_or("no rows")?;
    ensure(rows.len() == 1000 && all["results"][1]["is_cut"] == true, || all["error"].to_string())?;
    let all = sql(&page, "CREATE TABLE t (id BIGINT)").await?;
    ensure(all["error"]["sqlstate"] == "42P07", || all.to_string())?;
    let all = sql(&page, "COPY t TO STDOUT").await?;
    ensure(all["error"]["sqlstate"] == "0A000", || all.to_string())?;
    engine.stop().await.map_err(|error| error.to_string())
}

const JOBS: &str = "SELECT \"user\" FROM millstream.jobs WHERE statement LIKE 'INSERT%'";

async fn cancelled() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (n BIGINT)").await?;
    let slow = "INSERT INTO t SELECT max((a.g * b.g) % 7) FROM generate_series(1, 100000) a(g), \
                generate_series(1, 10000000) b(g)";
    let body = json!({ "sql": slow }).to_string();
    let mut stream = TcpStream::connect(page.address()).await.map_err(|error| error.to_string())?;
    let request = posted(&page.address().to_string(), JSON, &body);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    expect_soon(&mut session, JOBS, &["millstream_page"]).await?;
    // It doesn't end by itself.
    tokio::time::sleep(Duration::from_millis(500)).await;
    expect(&mut session, JOBS, &["millstream_page"]).await?;
    drop(stream);
    expect_soon(&mut session, JOBS, &[]).await?;
    expect(&mut session, "SELECT count(*) FROM t", &["0"]).await?;
    // A page that ends cancels, too.
    let mut stream = TcpStream::connect(page.address()).await.map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    expect_soon(&mut session, JOBS, &["millstream_page"]).await?;
    drop(page);
    expect_soon(&mut session, JOBS, &[]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn many() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    run_all(&mut engine.session(), &["CREATE TABLE t (id BIGINT PRIMARY KEY)", "INSERT INTO t VALUES (7)"])
        .await?;
    let page = std::sync::Arc::new(page);
    let asked = (0..50).map(|at| {
        let page = page.clone();
        tokio::spawn(async move {
            match at % 5 {
                0 => {
                    sql(&page, "SELECT * FROM t").await.map(|all| all["results"][0]["rows"] == json!([["7"]]))
                }
                1 => get(&page, "/metrics").await.map(|answer| answer.body.ends_with("# EOF\n")),
                2 => get(&page, "/readyz").await.map(|answer| answer.status == 200),
                3 => get(&page, "/").await.map(|answer| answer.status == 200),
                _ => get(&page, "/api/overview").await?.json().map(|all| all["state"] == "running"),
            }
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        let right = asked.await.map_err(|error| error.to_string())??;
        ensure(right, || "an answer is wrong".to_string())?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn metrics() -> Result<()> {
    let Watched { page, engine } = watched().await?;
    run_all(
        &mut engine.session(),
        &[
            "SET batch_interval = '50 ms'",
            "CREATE SOURCE n (n BIGINT) WITH (connector = 'datagen', rows = 30, fields.n.kind = 'sequence')",
            "CREATE MATERIALIZED VIEW \"a\\b\" AS SELECT n % 3 AS k, count(*) AS c FROM n GROUP BY n % 3",
            "CREATE STREAM s AS SELECT n FROM n",
            "CREATE SINK k FROM s WITH (connector = 'blackhole')",
        ],
    )
    .await?;
    expect_soon(&mut engine.session(), "SELECT sum(c) FROM \"a\\b\"", &["30"]).await?;
    let answer = get(&page, "/metrics").await?;
    let kind = answer.headers.get("content-type").cloned().unwrap_or_default();
    ensure(kind.starts_with("application/openmetrics-text"), || kind)?;
    let found = samples(&answer.body)?;
    let has = |name: &str, label: &str, value: &str| {
        found.iter().any(|(of, labels)| of == name && labels.get(label).is_some_and(|of| of == value))
    };
    for (name, label, value) in [
        ("millstream_source_rows_total", "source", "n"),
        ("millstream_query_state_bytes", "query", "a\\b"),
        ("millstream_query_status", "query", "s"),
        ("millstream_sink_up", "sink", "k"),
        ("millstream_epoch_processing_seconds_bucket", "le", "+Inf"),
    ] {
        ensure(has(name, label, value), || format!("no {name} of {value} in\n{}", answer.body))?;
    }
    let begin = "millstream_source_rows_total{source=\"n\"} ";
    let rows = answer.body.lines().find_map(|line| line.strip_prefix(begin)?.parse::<u64>().ok());
    ensure(rows.is_some_and(|rows| rows >= 30), || answer.body.clone())?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// A sample: its name and its labels.
type Sample = (String, BTreeMap<String, String>);

/// Parses a text of OpenMetrics line by line and returns its samples.
fn samples(text: &str) -> Result<Vec<Sample>> {
    let mut families: BTreeSet<String> = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut samples: Vec<Sample> = Vec::new();
    let mut has_ended = false;
    for line in text.strip_suffix('\n').ok_or("the last line has no end")?.split('\n') {
        ensure(!has_ended, || format!("after # EOF: {line}"))?;
        if line == "# EOF" {
            has_ended = true;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').ok_or(line)?;
            ensure(families.insert(name.to_string()), || format!("twice: {line}"))?;
            ensure(["counter", "gauge", "histogram", "info"].contains(&of), || line.to_string())?;
            (family, kind) = (name.to_string(), of.to_string());
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').ok_or(line)?;
            ensure(name == family && name.ends_with(&format!("_{unit}")), || line.to_string())?;
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            ensure(rest.split_once(' ').is_some_and(|(name, _)| name == family), || line.to_string())?;
        } else {
            let sample = sample(line)?;
            let suffix =
                sample.0.strip_prefix(&family).ok_or_else(|| format!("{line} is not of {family}"))?;
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            ensure(suffixes.contains(&suffix), || format!("{line} in a {kind}"))?;
            ensure(!samples.contains(&sample), || format!("twice: {line}"))?;
            samples.push(sample);
        }
    }
    ensure(has_ended && !samples.is_empty(), || "no # EOF at the end".to_string())?;
    Ok(samples)
}

/// Parses `name{label="value",…} 1.5`.
fn sample(line: &str) -> Result<Sample> {
    let wrong = || format!("this is no sample: {line}");
    let end = line.find(['{', ' ']).ok_or_else(wrong)?;
    let is_name = line[..end].chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    ensure(is_name && end > 0, wrong)?;
    let mut labels = BTreeMap::new();
    let mut rest = line[end..].chars();
    if line[end..].starts_with('{') {
        rest.next();
        loop {
            let label: String = rest.by_ref().take_while(|c| *c != '=').collect();
            ensure(rest.next() == Some('"'), wrong)?;
            let mut value = String::new();
            loop {
                match rest.next().ok_or_else(wrong)? {
                    '"' => break,
                    '\\' => value.push(match rest.next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        _ => return Err(wrong()),
                    }),
                    c => value.push(c),
                }
            }
            ensure(labels.insert(label, value).is_none(), wrong)?;
            match rest.next() {
                Some(',') => {}
                Some('}') => break,
                _ => return Err(wrong()),
            }
        }
    }
    let number = rest.as_str().strip_prefix(' ').ok_or_else(wrong)?;
    ensure(number.parse::<f64>().is_ok(), wrong)?;
    Ok((line[..end].to_string(), labels))
}
