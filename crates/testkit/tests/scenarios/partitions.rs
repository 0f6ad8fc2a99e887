//! The watermark of a source with several partitions is their minimum, in whatever order rows arrive, and is
//! the same when the cuts are replayed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_engine::{Engine, Record, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, expect, expect_soon, lines, run, run_all, seeds};
use millstream_testkit::lanes::Lanes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::Machine;
use super::{Scenario, folder};

pub const ALL: &[Scenario] = &[
    ("the_watermark_is_that_of_the_slowest_partition", || drive::block_on(random())),
    ("windows_close_when_a_partition_is_idle", || drive::block_on(idle())),
    ("a_silent_source_advances_through_crashes", || drive::block_on(advancing())),
    ("a_silent_source_advances_with_the_machine_s_clock", || drive::block_on(advancing_by_itself())),
    ("files_that_grow_are_partitions", || drive::block_on(growing())),
    ("files_that_end_are_one_partition", || drive::block_on(ending())),
    ("rows_that_are_far_ahead_are_left_out_again", || drive::block_on(ahead())),
];

/// The delay of the watermark in seconds, and the idle timeout of a partition in milliseconds.
const DELAY: i64 = 3;
const TIMEOUT: i64 = 20;

const LANES: [&str; 4] = ["a", "b", "c", "late"];

const DDL: &[&str] = &[
    "SET clock = 'manual'",
    "CREATE SOURCE s (lane BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts - INTERVAL '3 seconds')
     WITH (connector = 'lanes', source_idle_timeout = '20 ms')",
    "CREATE STREAM closed AS SELECT window_start, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 seconds')
     GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
];

/// A model of a partition.
#[derive(Clone, Debug, Default)]
struct Part {
    newest: Option<i64>,
    since: i64,
    idle: bool,
    ended: bool,
}

/// A model of the watermark.
#[derive(Debug, Default)]
struct Model {
    parts: BTreeMap<&'static str, Part>,
    at: Option<i64>,
}

impl Model {
    /// Returns the minimum over the partitions that may have rows, once each of them had some.
    fn open(&self) -> Option<Option<i64>> {
        self.parts.values().filter(|part| !part.idle && !part.ended).map(|part| part.newest).min()
    }

    /// Runs an epoch at `now`, in milliseconds, with rows and ends of partitions.
    fn epoch(&mut self, now: i64, rows: &BTreeMap<&'static str, Vec<Option<i64>>>, ends: &[&'static str]) {
        for known in &LANES[..3] {
            self.parts.entry(known).or_insert_with(|| Part { since: now, ..Part::default() });
        }
        for (name, rows) in rows.iter().filter(|(_, rows)| !rows.is_empty()) {
            let part = self.parts.entry(name).or_default();
            part.newest = part.newest.max(rows.iter().copied().max().flatten());
            (part.since, part.idle) = (now, false);
        }
        for part in self.parts.values_mut() {
            part.idle |= part.since + TIMEOUT <= now;
        }
        let mut last = None;
        for name in ends {
            let part = self.parts.entry(name).or_default();
            part.ended = true;
            last = last.max(part.newest);
        }
        let newest = self.open().unwrap_or(last);
        self.at = self.at.max(newest.map(|newest| newest - DELAY));
    }

    /// Returns the first time up to `end` at which an idle partition lets the watermark advance.
    fn moves_by(&self, end: i64) -> Option<i64> {
        let times = self.parts.values().filter(|part| !part.idle && !part.ended);
        let mut times: Vec<i64> = times.map(|part| part.since + TIMEOUT).filter(|at| *at <= end).collect();
        times.sort_unstable();
        times.into_iter().find(|at| {
            let mut later = Model { parts: self.parts.clone(), at: self.at };
            later.epoch(*at, &BTreeMap::new(), &[]);
            later.at != self.at
        })
    }
}

async fn random() -> Result<()> {
    for seed in seeds(&[0, 1], 0..8) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn run_seed(seed: u64) -> Result<()> {
    let lanes = Lanes::new(&LANES[..3]);
    let records: Arc<Mutex<Vec<Record>>> = Arc::default();
    let seen = records.clone();
    let engine = Engine::builder().connector(Arc::new(lanes.clone())).recorder(move |record| {
        if let Ok(mut seen) = seen.lock() {
            seen.push(record.clone());
        }
    });
    let engine = engine.start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, DDL).await?;
    let (mut model, mut random, mut now) = (Model::default(), Random(seed), 0);
    let mut history = BTreeMap::new();
    for step in 0..60 {
        let mut rows: BTreeMap<&'static str, Vec<Option<i64>>> = BTreeMap::new();
        for name in LANES {
            let ended = model.parts.get(name).is_some_and(|part| part.ended);
            let silent = random.number(3) > 0 || (name == "late" && step < 20);
            if ended || silent {
                continue;
            }
            let slow = if name == "b" { 10 } else { 0 };
            let mut row = || (random.number(9) > 0).then(|| step * 2 - slow + random.number(8));
            let pushed: Vec<Option<i64>> = (0..=step % 3).map(|_| row()).collect();
            lanes.push(name, &pushed);
            rows.insert(name, pushed);
        }
        let mut ends = Vec::new();
        if step == 45 {
            lanes.end("c");
            ends.push("c");
        }
        if random.number(4) > 0 {
            now += 1;
            run(&mut session, "ADVANCE BATCH").await?;
            model.epoch(now, &rows, &ends);
        } else {
            let end = now + 3 + random.number(40);
            run(&mut session, &format!("ADVANCE TIME TO '1970-01-01 00:00:00.{end:03}'")).await?;
            while now < end {
                now = model.moves_by(end).filter(|at| *at > now).unwrap_or(end);
                model.epoch(now, &rows, &ends);
                (rows, ends) = (BTreeMap::new(), Vec::new());
            }
        }
        check(&mut session, &model).await.map_err(|error| format!("step {step}, {now} ms: {error}"))?;
        let count = records.lock().map_err(|error| error.to_string())?.len();
        history.insert(count, lines(&mut session, WATCHED).await?);
    }
    ensure(model.at > Some(80), || format!("{model:?}"))?;
    engine.stop().await.map_err(|error| error.to_string())?;
    let records = records.lock().map_err(|error| error.to_string())?.clone();
    replay(&lanes, records, &history).await
}

/// A query whose result a replay must reproduce as well.
const WATCHED: &str = "SELECT 'closed' AS what, CAST(window_start AS TEXT) AS w, n FROM closed
    UNION ALL SELECT 'watermark', CAST(watermark('s') AS TEXT), 0";

async fn check(session: &mut Session, model: &Model) -> Result<()> {
    let found = lines(session, "SELECT extract(epoch FROM watermark('s'))::BIGINT").await?;
    let expected = model.at.map_or("NULL".into(), |at| at.to_string());
    ensure(found == [expected.clone()], || {
        format!("the watermark is {found:?}, not {expected}: {model:#?}")
    })?;
    let sql = "SELECT partition, extract(epoch FROM watermark)::BIGINT, idle FROM millstream.source_partitions WHERE idle IS NOT NULL";
    let found = lines(session, sql).await?;
    let open = model.parts.iter().filter(|(_, part)| !part.ended);
    let expected: Vec<String> = open
        .map(|(name, part)| {
            let at = part.newest.map_or("NULL".into(), |newest| (newest - DELAY).to_string());
            format!("{name}|{at}|{}", part.idle)
        })
        .collect();
    ensure(found == expected, || format!("{found:#?} is not {expected:#?}"))
}

/// A second engine that replays the cuts has the same watermark and the same closed windows after each.
async fn replay(lanes: &Lanes, records: Vec<Record>, history: &BTreeMap<usize, Vec<String>>) -> Result<()> {
    let engine = Engine::builder().connector(Arc::new(lanes.clone())).start();
    let engine = engine.map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(&mut session, DDL).await?;
    for (number, record) in records.into_iter().enumerate() {
        engine.replay(record).await.map_err(|error| error.to_string())?;
        let Some(expected) = history.get(&(number + 1)) else { continue };
        let found = lines(&mut session, WATCHED).await?;
        ensure(found == *expected, || {
            format!("epoch {} again: {found:#?} is not {expected:#?}", number + 1)
        })?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// With the machine's clock, an idle partition lets windows close without another row.
async fn idle() -> Result<()> {
    for pace in ["auto", "20 ms"] {
        let lanes = Lanes::new(&["a", "b"]);
        let engine = Engine::builder().connector(Arc::new(lanes.clone())).start();
        let engine = engine.map_err(|error| error.to_string())?;
        let mut session = engine.session();
        run(&mut session, &format!("SET batch_interval = '{pace}'")).await?;
        let source = DDL[1].replace("20 ms", "300 ms");
        run_all(&mut session, &[&source, DDL[2]]).await?;
        lanes.push("b", &[Some(5)]);
        expect_soon(
            &mut session,
            "SELECT count(*) FROM millstream.source_partitions WHERE watermark IS NOT NULL",
            &["1"],
        )
        .await?;
        expect(&mut session, "SELECT watermark('s') IS NULL", &["true"]).await?;
        tokio::time::sleep(Duration::from_millis(150)).await;
        lanes.push("b", &[Some(25)]);
        expect_soon(&mut session, "SELECT n FROM closed", &["1"]).await?;
        expect(
            &mut session,
            "SELECT partition, idle FROM millstream.source_partitions",
            &["a|true", "b|false"],
        )
        .await?;
        let why = lines(&mut session, "EXPLAIN WHY closed").await?;
        let idle = "s|partition a is idle and ignored: its last row arrived at ";
        let held = "s|partition b holds the watermark back: its newest row is of ";
        for wanted in [idle, held] {
            ensure(why.iter().any(|line| line.starts_with(wanted)), || {
                format!("{wanted}… is not in {why:?}")
            })?;
        }
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// With `source_idle_timeout_action = 'advance'`, an engine that crashes between rows and silences has the watermark and the
/// closed windows of one that runs on.
async fn advancing() -> Result<()> {
    for seed in seeds(&[0, 1], 0..8) {
        advancing_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn advancing_seed(seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let lanes = Lanes::new(&["a", "b"]);
    let read = lanes.clone();
    let builder = move || Engine::builder().connector(Arc::new(read.clone()));
    let steady = builder().start().map_err(|error| error.to_string())?;
    let mut machine = Machine::start(builder)?;
    machine.set_interval(&mut random).await?;
    let source = DDL[1].replace("'20 ms'", "'5 seconds', source_idle_timeout_action = 'advance'");
    for statement in [DDL[0], source.as_str(), DDL[2]] {
        run(&mut machine.session(), statement).await?;
        run(&mut steady.session(), statement).await?;
    }
    let mut now = 0;
    for step in 0..30 {
        if random.random_range(0..3) == 0 {
            let lane = ["a", "b"][random.random_range(0..2)];
            lanes.push(lane, &[Some(now + random.random_range(0..5))]);
        }
        now += random.random_range(1..9);
        let advance = format!("ADVANCE TIME TO '1970-01-01 00:{:02}:{:02}'", now / 60, now % 60);
        run(&mut machine.session(), &advance).await?;
        run(&mut steady.session(), &advance).await?;
        if random.random_range(0..3) == 0 {
            machine.crash(&mut random).await?;
        }
        let found = lines(&mut machine.session(), WATCHED).await?;
        let expected = lines(&mut steady.session(), WATCHED).await?;
        ensure(found == expected, || format!("step {step}, {now} s: {found:#?} is not {expected:#?}"))?;
    }
    expect(&mut machine.session(), "SELECT count(*) > 0 FROM closed", &["true"]).await?;
    steady.stop().await.map_err(|error| error.to_string())?;
    machine.engine.stop().await.map_err(|error| error.to_string())
}

/// With the machine's clock, windows of a source without rows close, and later rows for them are late.
async fn advancing_by_itself() -> Result<()> {
    for pace in ["auto", "20 ms"] {
        let lanes = Lanes::new(&["a"]);
        let engine = Engine::builder().connector(Arc::new(lanes.clone())).start();
        let engine = engine.map_err(|error| error.to_string())?;
        let mut session = engine.session();
        run(&mut session, &format!("SET batch_interval = '{pace}'")).await?;
        let source = DDL[1].replace("'20 ms'", "'100 ms', source_idle_timeout_action = 'advance'");
        run_all(&mut session, &[&source, DDL[2]]).await?;
        let first = "SELECT n FROM closed WHERE window_start < TIMESTAMP '1970-01-01 00:00:10'";
        // The watermark is 1 second before the end of the window.
        lanes.push("a", &[Some(2), Some(12)]);
        expect_soon(&mut session, first, &["1"]).await?;
        expect(&mut session, "SELECT watermark('s') >= TIMESTAMP '1970-01-01 00:00:10'", &["true"]).await?;
        lanes.push("a", &[Some(3)]);
        expect_soon(&mut session, "SELECT count(*) FROM late_rows('closed')", &["1"]).await?;
        expect(&mut session, first, &["1"]).await?;
        engine.stop().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn append(folder: &Path, name: &str, text: &str) -> Result<()> {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(name));
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| error.to_string())
}

fn source(folder: &Path, options: &str) -> String {
    format!(
        "CREATE SOURCE s (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', \
         format = 'csv', header = false, poll_interval = '1 ms', source_idle_timeout = '20 ms', {options})",
        folder.display()
    )
}

/// Advances until the source has taken this number of rows.
async fn taken(session: &mut Session, rows: u64) -> Result<()> {
    for _ in 0..2000 {
        run(session, "ADVANCE BATCH").await?;
        let found = lines(session, "SELECT rows FROM millstream.sources").await?;
        if found == [rows.to_string()] {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(format!("{rows} rows don't come"))
}

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s";

/// Growing files are read side by side: a listed file that is not begun yet holds the watermark back as well.
async fn growing() -> Result<()> {
    let folder = folder()?;
    append(folder.path(), "a.csv", "x,2024-05-01 00:00:10\ny,2024-05-01 00:00:50\n")?;
    append(folder.path(), "b.csv", "x,2024-05-01 00:00:20\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = source(folder.path(), "tail = true");
    let source = source.replace("'20 ms'", "'1 hour'");
    run_all(&mut session, &["SET clock = 'manual'", "SET max_batch_rows = 1", &source, VIEW]).await?;
    taken(&mut session, 2).await?;
    expect(&mut session, "SELECT watermark('s') IS NULL", &["true"]).await?;
    taken(&mut session, 3).await?;
    expect(&mut session, "SELECT watermark('s')", &["2024-05-01T00:00:20"]).await?;
    append(folder.path(), "a.csv", "z,2024-05-01 00:00:55\n")?;
    taken(&mut session, 4).await?;
    expect(&mut session, "SELECT watermark('s')", &["2024-05-01T00:00:20"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Files that are read whole come one after another. They form one partition, and later files don't hold the
/// watermark back.
async fn ending() -> Result<()> {
    let folder = folder()?;
    for (name, at) in [("a.csv", 10), ("b.csv", 20), ("c.csv", 30)] {
        append(folder.path(), name, &format!("x,2024-05-01 00:00:{at}\n"))?;
    }
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = source(folder.path(), "bounded = true");
    run_all(&mut session, &["SET clock = 'manual'", "SET max_batch_rows = 1", &source, VIEW]).await?;
    for (rows, at) in [(1, 10), (2, 20), (3, 30)] {
        taken(&mut session, rows).await?;
        expect(&mut session, "SELECT watermark('s')", &[&format!("2024-05-01T00:00:{at}")]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// A row ahead of its time is a bad row, for queries created later, too.
async fn ahead() -> Result<()> {
    let folder = folder()?;
    append(
        folder.path(),
        "a.csv",
        "x,2024-05-01 00:00:10\ny,2200-01-01 00:00:00\nz,2024-05-01 00:00:30\nw,\n",
    )?;
    append(folder.path(), "b.csv", "v,2201-01-01 00:00:00\nu,2202-01-01 00:00:00\nt,2024-05-01 00:00:20\n")?;
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let source = source(folder.path(), "bounded = true");
    let view = |name: &str| format!("CREATE MATERIALIZED VIEW {name} AS SELECT k FROM s");
    run_all(&mut session, &[&source, &view("before")]).await?;
    expect_soon(&mut session, "SELECT count(*) FROM before", &["4"]).await?;
    // This holds whatever the setting is by then.
    run(&mut session, "SET event_time_ahead_max = NULL").await?;
    run(&mut session, &view("after")).await?;
    for name in ["before", "after"] {
        expect(&mut session, &format!("SELECT k FROM {name}"), &["t", "w", "x", "z"]).await?;
    }
    expect(&mut session, "SELECT watermark('s')", &["2024-05-01T00:00:30"]).await?;
    let bad = "SELECT CAST(bytes AS STRING) FROM bad_rows('s') WHERE reason LIKE '%event_time_ahead_max%'";
    let expected = ["u", "v", "y"].map(String::from);
    let found: Vec<String> = lines(&mut session, bad).await?;
    let keys: Vec<String> = found.iter().filter_map(|row| row.get(6..7)).map(String::from).collect();
    ensure(keys.len() == 3 && expected.iter().all(|key| keys.contains(key)), || format!("{found:?}"))?;
    ensure(lines(&mut session, "VERIFY after").await?.is_empty(), || "VERIFY finds a difference".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}
