//! The machine's clock is set, while an engine runs and while none does. Batches that were due meanwhile run
//! or are skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_delta::Timestamp;
use millstream_engine::{Engine, EngineBuilder, Session};
use millstream_testkit::drive::{
    self, Result, ensure, expect, expect_soon, lines, run, run_all, within_a_minute,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Scenario;
use super::behind::{Door, Gate};
use super::machine::Machine;

pub const ALL: &[Scenario] = &[
    ("missed_batches_are_run_or_skipped_at_a_fixed_pace", || drive::block_on(missed(true))),
    ("missed_batches_are_run_or_skipped_at_auto_pace", || drive::block_on(missed(false))),
    ("batches_missed_while_a_query_lags_are_skipped", || drive::block_on(missed_while_lagging())),
    ("a_clock_that_goes_back_stops_nothing", || drive::block_on(goes_back())),
    ("a_clock_that_leaps_ahead_floods_nothing", || drive::block_on(leaps())),
];

const HOUR_US: i64 = 3_600_000_000;

/// A clock that the test sets.
#[derive(Clone)]
struct Clock {
    time: Arc<AtomicI64>,
    /// True if the clock advances by itself: then `time` is its offset from the machine's.
    goes: bool,
}

impl Clock {
    fn set(&self, time: i64) {
        self.time.store(time, Ordering::Relaxed);
    }

    fn start(&self) -> Result<Machine> {
        let clock = self.clone();
        Machine::start(move || clock.builder())
    }

    fn builder(&self) -> EngineBuilder {
        let clock = self.clone();
        Engine::builder().time_source(move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let by_itself = if clock.goes { since.as_micros() as i64 } else { 0 };
            Timestamp(by_itself + clock.time.load(Ordering::Relaxed))
        })
    }
}

/// Returns midnight of 1 May 2024 plus hours and seconds. From second 3595 of an hour to second 1 of the
/// next, time passes; a jump of more than ten seconds means that the clock was set.
fn at(hours: i64, seconds: i64) -> i64 {
    1_714_521_600_000_000 + hours * HOUR_US + seconds * 1_000_000
}

/// Queries that list the batches as text `hours:count`: one over the rows of each, one over those of the last
/// three hours.
const EACH: &str =
    "SELECT extract(day FROM _batch_time) || ' ' || extract(hour FROM _batch_time) || ':' || n FROM each";
const LAST: &str =
    "SELECT extract(day FROM _batch_time) || ' ' || extract(hour FROM _batch_time) || ':' || n FROM last";

fn objects(fixed: bool) -> Vec<&'static str> {
    let mut objects = vec![
        "CREATE TABLE t (x INT) APPEND ONLY",
        "CREATE STREAM s AS SELECT x FROM t",
        "CREATE STREAM last WITH (retention = '1000 days') AS SELECT count(*) AS n \
         FROM LAST(s, INTERVAL '3 hours', INTERVAL '1 hour') FOR EACH BATCH",
    ];
    if fixed {
        objects.insert(0, "SET batch_interval = '1 hour'");
        objects.push(
            "CREATE STREAM each WITH (retention = '1000 days') AS SELECT count(*) AS n FROM s FOR EACH BATCH",
        );
    }
    objects
}

async fn missed(fixed: bool) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    for (skips, checkpoint) in [(false, false), (true, false), (false, true), (true, true)] {
        let clock = Clock { time: Arc::new(AtomicI64::new(at(0, 3595))), goes: false };
        let mut machine = clock.start()?;
        let mut session = machine.session();
        run_all(&mut session, &objects(fixed)).await?;
        if skips {
            run(&mut session, "SET missed_batches = 'skip'").await?;
        }
        run(&mut session, "INSERT INTO t VALUES (1), (2)").await?;
        clock.set(at(1, 1));
        expect_soon(&mut session, LAST, &["1 1:2"]).await?;
        if checkpoint {
            run(&mut session, "CHECKPOINT").await?;
        }
        // More intervals pass than may be pending while it runs.
        machine.crash_at(|| clock.set(at(25, 3595)), &mut random).await?;
        let mut session = machine.session();
        // Run again, as a repeated script does.
        let pace = if fixed { "SET batch_interval = '1 hour'" } else { "SET batch_interval = 'auto'" };
        run_all(&mut session, &[pace, "SET max_queued_batches = 10"]).await?;
        let mut expected: Vec<String> = vec!["1 1:2".into()];
        if !skips {
            let hours = (2..=25)
                .map(|hour| format!("{} {}:{}", 1 + hour / 24, hour % 24, if hour < 4 { 2 } else { 0 }));
            expected.extend(hours);
        }
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        let check = async |session: &mut Session, sql: &str, expected: &[String]| {
            let expected = sorted(expected.to_vec());
            expect_soon(session, sql, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        check(&mut session, LAST, &expected).await?;
        run(&mut session, "INSERT INTO t VALUES (3)").await?;
        clock.set(at(26, 1));
        expected.push("2 2:1".into());
        check(&mut session, LAST, &expected).await?;
        for _ in 0..2 {
            if fixed {
                // Rows are in the batch in which they arrived.
                let by_batch: Vec<String> = expected
                    .iter()
                    .map(|line| match line.as_str() {
                        "1 2:2" | "1 3:2" => line.replace(":2", ":0"),
                        _ => line.clone(),
                    })
                    .collect();
                check(&mut session, EACH, &by_batch).await?;
            }
            machine.crash(&mut random).await?;
            session = machine.session();
            check(&mut session, LAST, &expected).await?;
        }
    }
    Ok(())
}

/// The batches that are due before a leap of the clock run once the query has time; those that it leaps over don't.
async fn missed_while_lagging() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(2);
    for (crashes, checkpoint) in [(false, false), (true, false), (false, true), (true, true)] {
        let clock = Clock { time: Arc::new(AtomicI64::new(at(0, 3595))), goes: false };
        let gate = Gate::default();
        let of_engine = (clock.clone(), gate.clone());
        let mut machine = Machine::start(move || {
            of_engine.0.builder().step_apart(1).scalar_function(of_engine.1.function("gate"))
        })?;
        let mut session = machine.session();
        let objects = [
            "SET parallelism = 8",
            "SET missed_batches = 'skip'",
            "CREATE TABLE t (x BIGINT) APPEND ONLY",
            "CREATE STREAM last WITH (retention = '1000 days') AS SELECT gate(count(*)) AS n \
             FROM LAST(t, INTERVAL '3 hours', INTERVAL '1 hour') FOR EACH BATCH",
            "INSERT INTO t VALUES (1), (2)",
            "FLUSH",
        ];
        run_all(&mut session, &objects).await?;
        gate.set(Door::Closed);
        clock.set(at(1, 1));
        drive::until("the batch of 01:00 to begin", || gate.waiting() > 0).await?;
        clock.set(at(25, 3595));
        run(&mut session, "INSERT INTO t VALUES (3)").await?;
        gate.set(Door::Open);
        if checkpoint {
            within_a_minute("CHECKPOINT", run(&mut session, "CHECKPOINT")).await??;
        }
        if crashes {
            machine.crash(&mut random).await?;
            session = machine.session();
        }
        expect_soon(&mut session, LAST, &["1 1:2"]).await?;
        clock.set(at(26, 1));
        expect_soon(&mut session, LAST, &["1 1:2", "2 2:1"]).await?;
    }
    Ok(())
}

/// Checks that batch times rise, whatever the clock does.
async fn times_rise(session: &mut Session) -> Result<()> {
    let falls = "SELECT count(*) FROM (SELECT _batch_time AS t, lag(_batch_time) OVER (ORDER BY _batch_id, _batch_time) AS b \
                 FROM ticks) WHERE b >= t";
    expect(session, falls, &["0"]).await
}

async fn number(session: &mut Session, sql: &str) -> Result<i64> {
    let found = lines(session, sql).await?;
    found.first().and_then(|line| line.parse().ok()).ok_or_else(|| format!("{sql} gives {found:?}"))
}

/// Waits until this number of batches has run.
async fn goes_on(session: &mut Session, batches: i64) -> Result<()> {
    let before = number(session, "SELECT count(*) FROM ticks").await?;
    within_a_minute("batches to be run", async {
        while number(session, "SELECT count(*) FROM ticks").await? < before + batches {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times_rise(session).await
    })
    .await?
}

async fn goes_back() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(2);
    for (pace, ticks) in [
        ("100 ms", "SELECT count(*) AS n FROM s FOR EACH BATCH"),
        ("auto", "SELECT count(*) AS n FROM LAST(s, INTERVAL '300 ms', INTERVAL '100 ms') FOR EACH BATCH"),
    ] {
        let clock = Clock { time: Arc::default(), goes: true };
        let mut machine = clock.start()?;
        let mut session = machine.session();
        run_all(
            &mut session,
            &[
                &format!("SET batch_interval = '{pace}'"),
                "CREATE TABLE t (x INT, ts TIMESTAMPTZ) APPEND ONLY",
                "CREATE STREAM s AS SELECT x FROM t",
                &format!("CREATE STREAM ticks WITH (retention = '1000 days') AS {ticks}"),
                "CREATE MATERIALIZED VIEW recent AS SELECT x FROM t WHERE ts > now() - INTERVAL '400 ms'",
            ],
        )
        .await?;
        goes_on(&mut session, 3).await?;
        clock.set(-2 * HOUR_US);
        for x in 0..2 {
            run(&mut session, &format!("INSERT INTO t SELECT {x}, now()")).await?;
            goes_on(&mut session, 5).await?;
            // Rows become old after an instant, as if the clock had not been set.
            expect_soon(&mut session, "SELECT count(*) FROM recent", &["0"]).await?;
        }
        machine.crash_at(|| clock.set(-4 * HOUR_US), &mut random).await?;
        let mut session = machine.session();
        goes_on(&mut session, 5).await?;
        run(&mut session, "INSERT INTO t SELECT 3, now()").await?;
        goes_on(&mut session, 5).await?;
        let ahead = "SELECT max(_batch_time) > now() + INTERVAL '1 minute' FROM ticks";
        expect(&mut session, ahead, &["false"]).await?;
    }
    Ok(())
}

async fn leaps() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(3);
    for (pace, missed, rows) in [("auto", "run", true), ("auto", "skip", false), ("1 hour", "run", true)] {
        let clock = Clock { time: Arc::new(AtomicI64::new(at(0, 3595))), goes: false };
        let mut machine = clock.start()?;
        let mut session = machine.session();
        let setting = format!("SET missed_batches = '{missed}'");
        run_all(&mut session, &[&format!("SET batch_interval = '{pace}'"), &setting]).await?;
        run_all(&mut session, &objects(false)).await?;
        run(&mut session, "INSERT INTO t VALUES (1)").await?;
        clock.set(at(1, 1));
        expect_soon(&mut session, LAST, &["1 1:1"]).await?;
        clock.set(at(5 * 24, 3595));
        // Each of the 119 hours between, or none of them.
        let expected = if rows { "120" } else { "1" };
        expect_soon(&mut session, "SELECT count(*) FROM last", &[expected]).await?;
        run(&mut session, "INSERT INTO t VALUES (2)").await?;
        clock.set(at(5 * 24 + 1, 1));
        expect_soon(&mut session, "SELECT n FROM last ORDER BY _batch_time DESC LIMIT 1", &["1"]).await?;
        let before = lines(&mut session, LAST).await?;
        machine.crash(&mut random).await?;
        expect(&mut machine.session(), LAST, &before.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    flood().await
}

/// Half a million due batches delay nobody, and can be cancelled.
async fn flood() -> Result<()> {
    let clock = Clock { time: Arc::new(AtomicI64::new(at(0, 0))), goes: false };
    let machine = clock.start()?;
    let mut session = machine.session();
    run_all(
        &mut session,
        &[
            "SET batch_interval = '1 second'",
            "CREATE TABLE t (x INT) APPEND ONLY",
            "CREATE STREAM s AS SELECT x FROM t",
            "CREATE STREAM ticks WITH (retention = '1 second') AS SELECT sum(x) AS n FROM s FOR EACH BATCH",
        ],
    )
    .await?;
    clock.set(at(1, 0));
    run(&mut session, "INSERT INTO t VALUES (1)").await?;
    clock.set(at(5 * 24, 0));
    for x in 0..20 {
        within_a_minute("an INSERT", run(&mut session, &format!("INSERT INTO t VALUES ({x})"))).await??;
    }
    let running = "SELECT max(_batch_time) < TIMESTAMPTZ '2024-05-05 23:00:00Z' FROM ticks";
    ensure(lines(&mut session, running).await? != ["false"], || "half a million were run at once".into())?;
    run(&mut session, "SET missed_batches = 'skip'").await?;
    run(&mut session, "INSERT INTO t VALUES (7)").await?;
    clock.set(at(5 * 24, 10));
    let newest = "SELECT max(_batch_time) >= TIMESTAMPTZ '2024-05-06 00:00:00Z' FROM ticks";
    expect_soon(&mut session, newest, &["true"]).await
}
