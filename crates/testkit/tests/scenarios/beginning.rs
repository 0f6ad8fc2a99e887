//! Backfill over changing inputs: queries converge to the batch answer, whatever is cancelled, altered,
//! renamed or dropped meanwhile, and through crashes.

use std::path::Path;
use std::time::Duration;

use millstream_engine::{Engine, Session};
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Scenario;
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("queries_begin_while_their_inputs_change", || drive::block_on(through_crashes(None))),
    ("queries_begin_apart_while_their_inputs_change", || drive::block_on(through_crashes(Some(1)))),
];

/// Queries over `t`, a table with a key, `s`, a source of files, and `q`, a view of `t`.
const QUERIES: &[&str] = &[
    "SELECT v, count(*) AS n, sum(k) AS s, max(k) AS m FROM t GROUP BY v",
    "SELECT x.k, y.k AS other FROM t x JOIN t y ON x.k < y.k AND x.v = y.v",
    "SELECT x.k, y.n FROM t x JOIN s y ON x.v < y.n",
    "SELECT n % 3 AS g, count(*) AS c FROM s GROUP BY n % 3",
    "SELECT count(*) AS c, sum(n) AS s FROM s",
    "SELECT q.v, q.n, s.n AS of_s FROM q JOIN s ON q.v = s.n",
    "SELECT n FROM s WHERE n > 2",
    "SELECT k, v FROM t WHERE v > 1",
    "SELECT v, k FROM t ORDER BY v, k LIMIT 3",
];

/// The query of sinks into tables.
const KEPT: &str = "SELECT k, v FROM t WHERE v > 2";

/// The query of a view whose windows close, over `timed`, where no row is late.
const CLOSING: &str = "SELECT date_trunc('minute', ts) AS w, count(*) AS n FROM timed GROUP BY date_trunc('minute', ts) EMIT ON WINDOW CLOSE";

async fn through_crashes(apart: Option<u64>) -> Result<()> {
    for seed in seeds(&[0, 1, 2], 0..8) {
        through_crashes_seed(seed, apart).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn through_crashes_seed(seed: u64, apart: Option<u64>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let folder = super::folder()?;
    let mut machine = Machine::start(move || match apart {
        Some(epochs) => Engine::builder().step_apart(epochs),
        None => Engine::builder(),
    })?;
    machine.set_interval(&mut random).await?;
    super::write(folder.path(), "0.csv", "1\n2\n3\n")?;
    let source = format!(
        "CREATE SOURCE s (n INT) WITH (connector = 'file', path = '{}', format = 'csv', header = false)",
        folder.path().display()
    );
    let made = [
        "CREATE TABLE t (k INT PRIMARY KEY, v INT)",
        "CREATE TABLE timed (n INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 day')",
        &source,
        "CREATE MATERIALIZED VIEW q AS SELECT v, count(*) AS n FROM t GROUP BY v",
        "CREATE MATERIALIZED VIEW of_s AS SELECT count(*) AS n FROM s",
    ];
    run_all(&mut machine.session(), &made).await?;
    // For backfill within the loop, the rows must exceed its limit for one step.
    let rows = if apart.is_some() { 20 } else { 600 };
    let fill = format!("INSERT INTO t SELECT g, g % 5 FROM generate_series(1, {rows}) x(g)");
    run_all(&mut machine.session(), &[&fill, "FLUSH"]).await?;
    let mut made = 0;
    for round in 0..4 {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::default());
        let writing = tokio::spawn(write_until(
            machine.session(),
            folder.path().to_path_buf(),
            (seed * 100 + round, rows),
            stop.clone(),
        ));
        for _ in 0..4 {
            made += 1;
            begin(&machine, made, &mut random).await?;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drive::within_a_minute("the writer", writing).await?.map_err(|error| error.to_string())??;
        if random.random_range(0..2) == 0 {
            check(&machine).await?;
        }
        match apart {
            None => machine.crash(&mut random).await?,
            Some(_) => machine.crash_at(|| {}, &mut random).await?,
        }
        check(&machine).await?;
    }
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// Creates an object, or begins to and cancels.
async fn begin(machine: &Machine, number: usize, random: &mut SmallRng) -> Result<()> {
    let query = QUERIES[random.random_range(0..QUERIES.len())];
    let sql = match random.random_range(0..7) {
        0 | 1 => format!("CREATE MATERIALIZED VIEW view_{number} AS {query}"),
        2 => {
            let query = random.random_range(0..2);
            format!("CREATE STREAM stream_{number}_{query} AS {}", QUERIES[query])
        }
        3 => format!("CREATE MATERIALIZED VIEW view_{number} AS {CLOSING}"),
        4 => {
            run(&mut machine.session(), &format!("CREATE TABLE sink_{number}_has (k INT, v INT)")).await?;
            format!("CREATE SINK sink_{number} INTO sink_{number}_has AS {KEPT}")
        }
        5 => format!(
            "BEGIN; CREATE MATERIALIZED VIEW view_{number} AS {query}; CREATE VIEW plain_{number} AS SELECT count(*) AS n \
             FROM view_{number}; CREATE MATERIALIZED VIEW next_{number} AS SELECT n FROM plain_{number}; COMMIT"
        ),
        _ => {
            let mut session = machine.session();
            let views = "SELECT name FROM millstream.materialized_views WHERE name LIKE 'view%'";
            match lines(&mut session, views).await?.first() {
                Some(view) => format!("ALTER MATERIALIZED VIEW {view} AS {query}"),
                None => return Ok(()),
            }
        }
    };
    let mut session = machine.session();
    let statements: Vec<String> = sql.split(';').map(|text| text.trim().to_string()).collect();
    let doing = async move {
        for sql in &statements {
            let done = run(&mut session, sql).await;
            // Its columns differ, or others read it.
            if let Err(error) = done
                && !sql.starts_with("ALTER")
            {
                return Err(format!("{sql}: {error}"));
            }
        }
        Ok(())
    };
    if random.random_range(0..3) > 0 {
        return drive::within_a_minute("a query to begin", doing).await?;
    }
    let patience = Duration::from_micros(random.random_range(0..4000));
    tokio::time::timeout(patience, doing).await.unwrap_or(Ok(()))
}

/// Changes the inputs until it is stopped.
async fn write_until(
    mut session: Session,
    folder: std::path::PathBuf,
    (seed, rows): (u64, i32),
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut files = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let (k, v) = (random.random_range(0..rows * 2), random.random_range(0..6));
        let sql = match random.random_range(0..6) {
            0 => format!("DELETE FROM t WHERE k % 7 = {v}"),
            1 => format!("UPDATE t SET v = {v} WHERE k > {k}"),
            2 => format!("INSERT INTO timed VALUES ({k}, {})", super::time(i64::from(k))),
            3 => {
                files += 1;
                write_file(&folder, seed, files, v)?;
                continue;
            }
            _ => format!("INSERT INTO t VALUES ({k}, {v}) ON CONFLICT DO UPDATE SET v = {v}"),
        };
        run(&mut session, &sql).await.map_err(|error| format!("{sql}: {error}"))?;
    }
    Ok(())
}

fn write_file(folder: &Path, seed: u64, number: usize, v: i32) -> Result<()> {
    if number > 20 {
        std::thread::sleep(Duration::from_millis(1));
        return Ok(());
    }
    super::write(folder, &format!("{seed}_{number}.csv"), &format!("{v}\n{number}\n"))
}

/// Checks that every object equals its query.
async fn check(machine: &Machine) -> Result<()> {
    let mut session = machine.session();
    run(&mut session, "FLUSH").await?;
    let of = |kind: &str| format!("SELECT name, status FROM millstream.{kind} ORDER BY name");
    for line in lines(&mut session, &of("materialized_views")).await? {
        let name = running(&line)?;
        let differs = lines(&mut session, &format!("VERIFY {name}")).await?;
        ensure(differs.is_empty(), || format!("{name}: {differs:?}"))?;
    }
    for line in lines(&mut session, &of("streams")).await? {
        let name = running(&line)?;
        let query = name.rsplit('_').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        equal(&mut session, &format!("SELECT * FROM {name}"), QUERIES.get(query).unwrap_or(&"")).await?;
    }
    for sink in lines(&mut session, "SELECT name FROM millstream.sinks ORDER BY name").await? {
        equal(&mut session, &format!("SELECT * FROM {sink}_has"), KEPT).await?;
    }
    Ok(())
}

fn running(line: &str) -> Result<&str> {
    let (name, status) = line.split_once('|').unwrap_or((line, ""));
    ensure(status == "running" || status == "behind", || format!("{name} is {status}"))?;
    Ok(name)
}

/// Checks that both queries return the same rows.
async fn equal(session: &mut Session, one: &str, other: &str) -> Result<()> {
    for (one, other) in [(one, other), (other, one)] {
        let sql = format!("SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))");
        let found = lines(session, &sql).await?;
        ensure(found == ["0"], || format!("{found:?} rows of {one} aren't in {other}"))?;
    }
    Ok(())
}
