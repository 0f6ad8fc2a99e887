//! Network sources: servers, clients, programs and brokers that connect, break and reconnect.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::Engine;
use millstream_testkit::broker::{Broker, Database};
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, until, within_a_minute,
};

use super::Scenario;

pub const ALL: &[Scenario] = &[
    ("lines_of_a_server_that_comes_and_goes", || drive::block_on(server())),
    ("clients_are_one_source", || drive::block_on(clients())),
    ("a_fast_client_is_slowed", || drive::block_on(fast_client())),
    ("twenty_sources_progress_with_one_thread", || drive::block_on(twenty())),
    ("a_program_ends_with_the_engine", || drive::block_on(program())),
    ("what_a_broker_delivers_again_counts_once", || drive::block_on(reliable())),
    ("a_source_that_asks_for_no_acknowledgement_gets_none", || drive::block_on(unreliable())),
    ("a_batch_that_is_sent_again_is_written_once", || drive::block_on(database())),
];

fn io(error: std::io::Error) -> String {
    error.to_string()
}

fn engine(error: millstream_engine::Error) -> String {
    error.to_string()
}

/// Returns a server on a free port, and the port.
fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io)?;
    let port = listener.local_addr().map_err(io)?.port();
    Ok((listener, port))
}

const STATUS: &str = "SELECT status FROM millstream.sources";

async fn server() -> Result<()> {
    let (listener, port) = listen()?;
    let engine = Engine::start().map_err(engine)?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            &format!("CREATE SOURCE lines WITH (connector = 'socket', host = '127.0.0.1', port = {port})"),
            "CREATE MATERIALIZED VIEW words AS SELECT w, count(*) AS n \
             FROM lines, UNNEST(string_to_array(line, ' ')) AS u(w) GROUP BY w",
        ],
    )
    .await?;
    let (mut stream, _) = listener.accept().map_err(io)?;
    stream.write_all(b"hello world\nhello").map_err(io)?;
    expect_soon(&mut session, "SELECT * FROM words", &["hello|1", "world|1"]).await?;
    expect(&mut session, STATUS, &["running"]).await?;
    // The end of the connection ends the line; then the server is gone.
    drop((stream, listener));
    expect_soon(&mut session, "SELECT * FROM words", &["hello|2", "world|1"]).await?;
    expect_soon(&mut session, STATUS, &["restarting"]).await?;
    let again = "SELECT reason LIKE '127.0.0.1:% could not connect: % (attempt %)' FROM millstream.sources";
    expect_soon(&mut session, again, &["true"]).await?;
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(io)?;
    let (mut stream, _) = listener.accept().map_err(io)?;
    stream.write_all(b"world\n").map_err(io)?;
    expect_soon(&mut session, "SELECT * FROM words", &["hello|2", "world|2"]).await?;
    expect(&mut session, STATUS, &["running"]).await?;
    expect(&mut session, "SELECT restarts > 0, reason FROM millstream.sources", &["true|NULL"]).await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(self::engine)?;
    // The source has closed its connection.
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(io)?;
    let end = std::io::Read::read(&mut stream, &mut [0]).map_err(io)?;
    ensure(end == 0, || "the connection is still open".into())
}

async fn clients() -> Result<()> {
    let (listener, port) = listen()?;
    drop(listener);
    let engine = Engine::start().map_err(engine)?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            &format!(
                "CREATE SOURCE orders (id INT, amount INT) WITH (connector = 'socket', mode = 'listen', \
                 port = {port}, format = 'csv')"
            ),
            "CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(amount) AS total FROM orders",
        ],
    )
    .await?;
    let mut open = Vec::new();
    for client in 0..10 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(io)?;
        for order in 0..100 {
            stream.write_all(format!("{order},{client}\n").as_bytes()).map_err(io)?;
        }
        stream.write_all(b"what\n").map_err(io)?;
        if client % 2 == 0 {
            open.push(stream);
        }
    }
    expect_soon(&mut session, "SELECT * FROM totals", &["1000|4500"]).await?;
    expect_soon(&mut session, "SELECT rows, bad_rows FROM millstream.sources", &["1000|10"]).await?;
    let bad = lines(&mut session, "SELECT DISTINCT CAST(bytes AS STRING) FROM bad_rows('orders')").await?;
    ensure(bad == ["what"], || format!("bad rows are {bad:?}"))?;
    expect(&mut session, "SELECT count(DISTINCT split) FROM bad_rows('orders')", &["10"]).await?;
    run(&mut session, "DROP SOURCE orders CASCADE").await?;
    // The port is free again once the source has closed it.
    until("the port to be free", || TcpListener::bind(("127.0.0.1", port)).is_ok()).await
}

/// More than the operating system buffers for a connection, and the time for which a client tries to write
/// more.
const HELD_BYTES_MAX: usize = 40 << 20;
const WRITING: Duration = Duration::from_secs(3);

async fn fast_client() -> Result<()> {
    let (listener, port) = listen()?;
    drop(listener);
    let engine = Engine::start().map_err(engine)?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            &format!(
                "CREATE SOURCE lines WITH (connector = 'socket', mode = 'listen', port = {port}, \
                 source_rate_limit = 100)"
            ),
            "CREATE MATERIALIZED VIEW v AS SELECT count(*) > 0 AS some FROM lines",
        ],
    )
    .await?;
    let writing = std::thread::spawn(move || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        let block = "a line of thirty two characters\n".repeat(2048);
        let (began, mut written) = (Instant::now(), 0);
        while began.elapsed() < WRITING && written < 2 * HELD_BYTES_MAX {
            written += stream.write(block.as_bytes()).unwrap_or(0);
        }
        Ok(written)
    });
    expect_soon(&mut session, "SELECT * FROM v", &["true"]).await?;
    expect_soon(&mut session, STATUS, &["throttled"]).await?;
    until("the client to be slowed", || writing.is_finished()).await?;
    let written = writing.join().map_err(|_| "the client panicked".to_string())?.map_err(io)?;
    ensure(written < HELD_BYTES_MAX, || format!("{written} bytes were taken of a source that is throttled"))
}

async fn twenty() -> Result<()> {
    let engine = Engine::start().map_err(engine)?;
    let mut session = engine.session();
    run_all(&mut session, &["SET parallelism = 1", "SET max_batch_rows = 2000"]).await?;
    for place in 0..20 {
        let with = match place % 4 {
            0 => "(connector = 'exec', command = 'yes')",
            1 => "(line TEXT) WITH (connector = 'datagen')",
            2 => "(line TEXT) WITH (connector = 'datagen', rows_per_second = 100000)",
            _ => "(connector = 'exec', restart = 'always', command = 'echo again')",
        };
        let with = if with.starts_with("(c") { format!("WITH {with}") } else { with.to_string() };
        run(&mut session, &format!("CREATE SOURCE s{place} {with}")).await?;
        let view = format!("CREATE MATERIALIZED VIEW v{place} AS SELECT count(*) AS n FROM s{place}");
        run(&mut session, &view).await?;
    }
    // Clients that flood leave room for those that send little.
    let all: Vec<String> = (0..20).map(|place| format!("SELECT n >= 3 AS some FROM v{place}")).collect();
    let all = format!("SELECT count(*) FROM ({}) AS v WHERE some", all.join(" UNION ALL "));
    expect_soon(&mut session, &all, &["20"]).await?;
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(self::engine)
}

async fn program() -> Result<()> {
    let engine = Engine::start().map_err(engine)?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE SOURCE s WITH (connector = 'exec', shell = true, command = 'echo $$; sleep 600 & wait')",
            "CREATE MATERIALIZED VIEW v AS SELECT line FROM s",
        ],
    )
    .await?;
    expect_soon(&mut session, "SELECT count(*) FROM v", &["1"]).await?;
    let process = lines(&mut session, "SELECT line FROM v").await?.concat();
    within_a_minute("the engine to stop", engine.stop()).await?.map_err(self::engine)?;
    // The program gets a signal when the engine stops. On a busy machine it takes a moment to end and to be
    // reaped.
    let stat = std::path::PathBuf::from(format!("/proc/{process}/stat"));
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..200 {
        if gone() || cfg!(not(target_os = "linux")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("process {process} outlives the engine by ten seconds"))
}

/// Returns an engine with a broker that has `sent` messages.
fn with_broker(sent: u64, break_after: u64, reliable: bool) -> Result<(Engine, Broker)> {
    let broker = Broker::default();
    {
        let mut messages = broker.messages();
        (messages.sent, messages.break_after, messages.reliable) = (sent, break_after, reliable);
    }
    let engine = Engine::builder().connector(Arc::new(broker.clone())).start().map_err(engine)?;
    Ok((engine, broker))
}

const COUNTED: &str = "SELECT n, total FROM counted";

async fn broker_statements(session: &mut millstream_engine::Session) -> Result<()> {
    run_all(
        session,
        &[
            "CREATE SOURCE s WITH (connector = 'broker')",
            "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, sum(n) AS total FROM s",
        ],
    )
    .await
}

async fn reliable() -> Result<()> {
    let (engine, broker) = with_broker(101, 5, true)?;
    let mut session = engine.session();
    broker_statements(&mut session).await?;
    for _ in 0..100 {
        let acknowledged = broker.messages().acknowledged;
        let taken = lines(&mut session, "SELECT n FROM counted").await?.concat();
        let taken: u64 = taken.parse().unwrap_or(0);
        ensure(acknowledged <= taken, || format!("{acknowledged} were acknowledged, {taken} taken in"))?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    expect_soon(&mut session, COUNTED, &["101|5050"]).await?;
    // An odd last message arrives alone, and then again with those that follow it up to the next boundary.
    broker.messages().break_after = 0;
    until("all to be acknowledged", || broker.messages().acknowledged == 101).await?;
    let (breaks, delivered) = {
        let messages = broker.messages();
        (messages.breaks, messages.delivered)
    };
    ensure(breaks > 2, || format!("the connection broke {breaks} times only"))?;
    let again = lines(&mut session, "SELECT duplicates FROM millstream.sources").await?.concat();
    ensure(delivered - 101 == again.parse().unwrap_or(u64::MAX), || {
        format!("{delivered} messages were delivered, {again} are counted as duplicates")
    })?;
    expect(&mut session, "SELECT restarts > 0, rows FROM millstream.sources", &["true|101"]).await?;
    expect(&mut session, COUNTED, &["101|5050"]).await
}

async fn unreliable() -> Result<()> {
    let (engine, broker) = with_broker(40, 0, false)?;
    let mut session = engine.session();
    broker_statements(&mut session).await?;
    expect_soon(&mut session, COUNTED, &["40|780"]).await?;
    run(&mut session, "FLUSH").await?;
    let acknowledged = broker.messages().acknowledged;
    ensure(acknowledged == 0, || format!("{acknowledged} were acknowledged"))
}

async fn database() -> Result<()> {
    let database = Database::default();
    database.content().lose_answer_after = 3;
    let engine = Engine::builder().connector(Arc::new(database.clone())).start().map_err(engine)?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "CREATE SOURCE q (n BIGINT) WITH (connector = 'queue')",
            "CREATE SINK k AS SELECT n FROM q WITH (connector = 'database')",
        ],
    )
    .await?;
    for batch in 1..=20 {
        run(&mut session, &format!("INSERT INTO q VALUES ({batch}), (1000)")).await?;
    }
    until("all batches to be written", || database.content().sums.len() == 20).await?;
    let content = database.content();
    let sums: Vec<i64> = content.sums.values().copied().collect();
    ensure(sums == (1001..=1020).collect::<Vec<i64>>(), || format!("the sums are {sums:?}"))?;
    let (opened, begun) = (content.opened, content.begun);
    ensure(begun > 20 && opened < begun / 2, || format!("{begun} transactions on {opened} connections"))
}
