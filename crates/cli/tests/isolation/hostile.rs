//! Statements that use all resources they can get, and clients that measure the effect on others.

// Any failure ends the test or the bench, and the server with it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::zombie_processes, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// Maximum time for an answer; a longer one is an error.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tables and views for the hostile statements and the measuring clients.
const TABLES: &[&str] = &[
    "CREATE TABLE sm (a BIGINT, b BIGINT)",
    "CREATE TABLE big (id BIGINT PRIMARY KEY, g BIGINT, v BIGINT)",
    "CREATE TABLE o (x BIGINT)",
    "CREATE TABLE victim (id BIGINT PRIMARY KEY, v BIGINT)",
    "CREATE TABLE events (k BIGINT, v BIGINT)",
    "CREATE MATERIALIZED VIEW unrelated AS SELECT k, count(*) AS n, sum(v) AS s FROM events GROUP BY k",
];

/// A running server; dropping this kills it.
pub struct Server {
    /// The process.
    pub child: Child,
    address: (String, u16),
}

impl Server {
    /// Starts the program on a free port, in a directory of its own.
    pub fn start(program: &Path, place: &Path) -> Server {
        Server::start_with(program, place, |_| {})
    }

    /// Starts the program like [`Server::start`], with further settings of the command.
    pub fn start_with(program: &Path, place: &Path, more: impl FnOnce(&mut Command)) -> Server {
        let told: PathBuf = place.join("told.txt");
        let output = std::fs::File::create(&told).unwrap();
        let mut command = Command::new(program);
        command.args(["server", "--listen", "127.0.0.1:0", "--ui", "none"]).current_dir(place);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        more(&mut command);
        let child = command.spawn().unwrap();
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(&told).unwrap();
            let after = text.split_once("listening on 127.0.0.1:").map(|(_, after)| after.to_string());
            let port: Option<String> =
                after.map(|after| after.chars().take_while(char::is_ascii_digit).collect());
            if let Some(port) = port.filter(|port| !port.is_empty()) {
                return Server { child, address: ("127.0.0.1".into(), port.parse().unwrap()) };
            }
            assert!(began.elapsed() < PATIENCE, "it doesn't listen: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Opens a connection.
    pub async fn client(&self) -> Client {
        let (host, port) = &self.address;
        let config = format!("host={host} port={port} user=millstream dbname=millstream");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// True if the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The amount of data for the hostile statements.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rows of the table that is joined with itself.
    pub pairs: u64,
    /// Rows of the table that is sorted and updated.
    pub rows: u64,
}

/// Creates and fills the tables.
pub async fn prepare(client: &Client, scale: Scale) {
    let Scale { pairs, rows } = scale;
    for sql in TABLES {
        client.batch_execute(sql).await.unwrap();
    }
    for sql in [
        format!("INSERT INTO sm SELECT i, i FROM generate_series(1, {pairs}) g(i)"),
        format!(
            "INSERT INTO big SELECT i, i % 1000, i * 7919 % 1000003 FROM generate_series(1, {rows}) g(i)"
        ),
        "INSERT INTO victim SELECT i, i FROM generate_series(1, 1000) g(i)".to_string(),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
}

/// Returns statements that each would keep a processor busy for minutes, or fail.
pub fn hostile() -> Vec<String> {
    let long = "x".repeat(10 << 20);
    let columns: Vec<String> = (0..2000).map(|column| format!("v + {column} AS c{column}")).collect();
    let terms = vec!["(v * 7 + 3) % 11 > 2"; 300].join(" AND ");
    let list: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    vec![
        "CREATE MATERIALIZED VIEW cc AS SELECT count(*) FROM sm x JOIN sm y ON x.b < y.b AND x.a + y.a = 17".into(),
        "CREATE MATERIALIZED VIEW cd AS SELECT count(*) FROM sm x, sm y, sm z WHERE x.a + y.a + z.a = 5".into(),
        "INSERT INTO o SELECT 1 FROM generate_series(1, 100000000000) g(i) WHERE i = -1".into(),
        "INSERT INTO o SELECT x.a FROM sm x, sm y WHERE x.a * y.b = -1".into(),
        "UPDATE big SET v = v + 1".into(),
        "UPDATE big SET v = (SELECT count(*) FROM sm WHERE a < 0) + v WHERE g >= 0".into(),
        "DELETE FROM big USING sm WHERE big.id + sm.a = -5".into(),
        "SELECT count(DISTINCT g), count(DISTINCT v), count(DISTINCT id) FROM big".into(),
        "SELECT count(*) FROM big x JOIN big y ON x.v < y.v".into(),
        "SELECT * FROM big x, big y ORDER BY x.v + y.v LIMIT 10".into(),
        "SELECT id, g, v, row_number() OVER (ORDER BY v DESC, id) FROM big ORDER BY v % 977, id".into(),
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000000) SELECT max(n) FROM r"
            .into(),
        "SELECT count(*) FROM big WHERE regexp_like(repeat(v::text, 50), '(a|b|[0-9]+)*([0-9]{1,50}x){3}')".into(),
        format!("SELECT length('{long}') + count(*) FROM sm WHERE '{long}' LIKE '%y%' || a::text || '%z'"),
        format!("SELECT {} FROM big ORDER BY c7", columns.join(", ")),
        format!("SELECT count(*) FROM big WHERE {terms}"),
        format!("SELECT count(*) FROM big WHERE v IN ({})", list.join(", ")),
        "SELECT string_agg(x.v::text, ',' ORDER BY y.v) FROM big x JOIN big y ON x.g = y.g".into(),
        "SELECT sum(sqrt(i::double) * ln(i::double)) FROM generate_series(1, 10000000000) g(i)".into(),
        "SELECT array_agg(v ORDER BY v) FROM big GROUP BY g ORDER BY 1".into(),
    ]
}

/// The durations of an operation.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Returns the number of durations.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the quantile of the durations.
    pub fn at(&self, share: f64) -> Duration {
        let mut times = self.0.clone();
        times.sort();
        let place = (times.len().saturating_sub(1)) as f64 * share;
        times.get(place as usize).copied().unwrap_or_default()
    }
}

/// Latencies that other sessions measured.
#[derive(Debug, Default)]
pub struct Seen {
    /// `SELECT 1`.
    pub select: Times,
    /// A row by its key.
    pub point: Times,
    /// An INSERT of one row.
    pub insert: Times,
    /// From an INSERT to its effect on a view of its own.
    pub view: Times,
}

impl Seen {
    /// Returns each with its name.
    pub fn all(&self) -> [(&'static str, &Times); 4] {
        [
            ("SELECT 1", &self.select),
            ("point read", &self.point),
            ("INSERT of a row", &self.insert),
            ("epoch of an unrelated view", &self.view),
        ]
    }
}

async fn timed<T>(what: &str, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> (T, Duration) {
    let began = Instant::now();
    let done = tokio::time::timeout(PATIENCE, work).await;
    let done = done.unwrap_or_else(|_| panic!("{what}: no answer for {PATIENCE:?}"));
    (done.unwrap_or_else(|error| panic!("{what}: {error:?}")), began.elapsed())
}

/// Measures repeatedly for `time`, in sessions of their own.
pub async fn measure(server: &Server, time: Duration, first: i64) -> Seen {
    let (reads, writes) = (server.client().await, server.client().await);
    let reading = async {
        let (mut select, mut point) = (Times::default(), Times::default());
        let end = Instant::now() + time;
        let mut key = 0;
        while Instant::now() < end {
            let (_, took) = timed("SELECT 1", reads.simple_query("SELECT 1")).await;
            select.add(took);
            key = key % 1000 + 1;
            let sql = format!("SELECT v FROM victim WHERE id = {key}");
            let (_, took) = timed("a point read", reads.simple_query(&sql)).await;
            point.add(took);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (select, point)
    };
    let writing = async {
        let (mut insert, mut view) = (Times::default(), Times::default());
        let end = Instant::now() + time;
        let mut next = first;
        while Instant::now() < end {
            next += 1;
            let sql = format!("INSERT INTO victim VALUES ({next}, 1)");
            let (_, took) = timed("an INSERT", writes.simple_query(&sql)).await;
            insert.add(took);
            let began = Instant::now();
            let sql = format!("INSERT INTO events VALUES ({next}, 1)");
            timed("an INSERT", writes.simple_query(&sql)).await;
            let sql = format!("SELECT n FROM unrelated WHERE k = {next}");
            let (rows, _) = timed("a read of a view", writes.query(&sql, &[])).await;
            assert_eq!(rows.len(), 1, "a session reads what it has written");
            view.add(began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (insert, view)
    };
    let ((select, point), (insert, view)) = tokio::join!(reading, writing);
    Seen { select, point, insert, view }
}
