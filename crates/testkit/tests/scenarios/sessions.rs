//! Session windows over rows inserted in any order and deleted again. Each has the batch answer as of its
//! closing, and rows for a closed session are late.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::{Engine, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};

use super::{Scenario, time};

pub const ALL: &[Scenario] = &[
    ("sessions_have_the_batch_answer_as_of_their_closing", || drive::block_on(closing())),
    ("a_session_that_is_split_is_not_put_out_again", || drive::block_on(split())),
    ("sessions_without_a_clock_are_those_of_a_batch", || drive::block_on(open())),
    ("what_sessions_keep_goes_when_they_close", || drive::block_on(flat())),
];

/// The delay of the watermark, and the gap between sessions, in seconds.
const DELAY: i64 = 5;
const GAP: i64 = 4;

/// k, ts and v; the order is that of sessions.
type Row = (i64, i64, i64);

/// The expected result, from a model in which a session is only a set of rows less than a gap apart.
#[derive(Default)]
struct Model {
    /// All rows of the table, including late ones.
    table: Vec<Row>,
    /// The rows of open sessions, with their copies.
    open: BTreeMap<Row, i64>,
    /// The open sessions' rows that would be late on their own.
    guests: BTreeSet<Row>,
    watermark: Option<i64>,
    newest: Option<i64>,
    /// The rows of closed sessions as text, each with its session.
    closed: Vec<String>,
    /// Closed sessions as text: the number of rows, and their sum.
    groups: Vec<String>,
    late: i64,
    /// The number of late rows that were guests which a delete isolated.
    turned_away: i64,
}

/// A session, with its rows.
struct Found {
    k: i64,
    start: i64,
    end: i64,
    rows: Vec<(Row, i64)>,
}

/// Returns the sessions of sorted rows.
fn sessions(rows: impl Iterator<Item = (Row, i64)>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (row, copies) in rows {
        let (k, ts, _) = row;
        match found.last_mut().filter(|session| session.k == k && ts < session.end) {
            Some(session) => {
                session.end = ts + GAP;
                session.rows.push((row, copies));
            }
            None => found.push(Found { k, start: ts, end: ts + GAP, rows: vec![(row, copies)] }),
        }
    }
    found
}

impl Found {
    /// Returns the rows as text.
    fn lines(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|((k, ts, v), copies)| {
            let line = format!("{k}|{ts}|{v}|{}|{}", self.start, self.end);
            std::iter::repeat_n(line, *copies as usize)
        })
    }

    fn group(&self) -> String {
        let count: i64 = self.rows.iter().map(|(_, copies)| copies).sum();
        let sum: i64 = self.rows.iter().map(|((_, _, v), copies)| v * copies).sum();
        format!("{}|{}|{}|{count}|{sum}", self.k, self.start, self.end)
    }
}

impl Model {
    fn sessions(&self) -> Vec<Found> {
        sessions(self.open.iter().map(|(row, copies)| (*row, *copies)))
    }

    /// Applies the changes of an epoch.
    fn take(&mut self, deleted: Vec<Row>, inserted: Vec<Row>) {
        let mut net: BTreeMap<Row, i64> = BTreeMap::new();
        deleted.iter().for_each(|row| *net.entry(*row).or_default() -= 1);
        inserted.iter().for_each(|row| *net.entry(*row).or_default() += 1);
        let closed = self.watermark.unwrap_or(i64::MIN / 2);
        let touches = |a: Row, b: Row| a.0 == b.0 && (a.1 - b.1).abs() < GAP;
        // The rows that a new row may touch to be in time.
        let mut there: Vec<Row> = self.open.keys().copied().collect();
        let mut waiting: Vec<(Row, i64)> =
            net.iter().filter(|(_, weight)| **weight > 0).map(|(row, weight)| (*row, *weight)).collect();
        loop {
            let in_time = |(row, _): &(Row, i64)| {
                row.1 + GAP > closed || there.iter().any(|other| touches(*row, *other))
            };
            let (came, rest): (Vec<_>, Vec<_>) = waiting.iter().partition(|row| in_time(row));
            if came.is_empty() {
                break;
            }
            for (row, weight) in came {
                if row.1 + GAP <= closed && !self.open.contains_key(&row) {
                    self.guests.insert(row);
                }
                *self.open.entry(row).or_default() += weight;
                there.push(row);
            }
            waiting = rest;
        }
        self.late += waiting.iter().map(|(_, weight)| weight).sum::<i64>();
        for (row, weight) in net.iter().filter(|(_, weight)| **weight < 0) {
            let copies = self.open.get(row).copied().unwrap_or(0);
            let gone = copies.min(-weight);
            self.late += -weight - gone;
            match copies - gone {
                0 => {
                    self.guests.remove(row);
                    self.open.remove(row)
                }
                left => self.open.insert(*row, left),
            };
        }
        // A delete may have isolated guests, in a session that would have closed already.
        for session in self.sessions() {
            if session.end <= closed && session.rows.iter().all(|(row, _)| self.guests.contains(row)) {
                let left: i64 = session.rows.iter().map(|(_, copies)| copies).sum();
                self.late += left;
                self.turned_away += left;
                self.forget(&session);
            }
        }
        self.newest = inserted.iter().map(|(_, ts, _)| *ts).max().max(self.newest);
        self.watermark = self.newest.map(|newest| newest - DELAY);
        for session in self.sessions() {
            if self.watermark.is_some_and(|at| session.end <= at) {
                self.closed.extend(session.lines());
                self.groups.push(session.group());
                self.forget(&session);
            }
        }
        self.closed.sort();
        self.groups.sort();
    }

    fn forget(&mut self, session: &Found) {
        for (row, _) in &session.rows {
            self.open.remove(row);
            self.guests.remove(row);
        }
    }
}

/// Rows beside their sessions, all times in seconds.
const ROWS: &str = "SELECT k, (extract(epoch FROM ts) - 1714521600)::BIGINT AS at, v, \
    (extract(epoch FROM window_start) - 1714521600)::BIGINT AS f, \
    (extract(epoch FROM window_end) - 1714521600)::BIGINT AS t \
    FROM SESSION(t PARTITION BY k, ts, INTERVAL '4 seconds')";

/// The aggregates of each session.
const GROUPS: &str = "SELECT k, (extract(epoch FROM window_start) - 1714521600)::BIGINT AS f, \
    (extract(epoch FROM window_end) - 1714521600)::BIGINT AS t, count(*) AS n, sum(v) AS s \
    FROM SESSION(t PARTITION BY k, ts, INTERVAL '4 seconds') GROUP BY k, window_start, window_end";

async fn closing() -> Result<()> {
    let mut turned_away = 0;
    for seed in seeds(&[0, 1, 8, 9], 0..12) {
        turned_away += run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    ensure(turned_away > 0, || "no delete left rows behind in a session that had closed".into())
}

async fn run_seed(seed: u64) -> Result<i64> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let table = format!(
        "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '{DELAY} seconds')"
    );
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            &table,
            &format!("CREATE MATERIALIZED VIEW so_far AS {ROWS}"),
            &format!("CREATE STREAM closed AS {ROWS} EMIT ON WINDOW CLOSE"),
            &format!("CREATE MATERIALIZED VIEW groups_so_far AS {GROUPS}"),
            &format!("CREATE STREAM groups_closed AS {GROUPS} EMIT ON WINDOW CLOSE"),
        ],
    )
    .await?;
    let (mut random, mut model) = (Random(seed), Model::default());
    // Many rows and deletes near the closing times of sessions.
    let crowded = seed >= 8;
    for epoch in 0..50 {
        let (mut deleted, mut inserted) = (Vec::new(), Vec::new());
        if random.number(2) == 0 {
            let (v, from) = (random.number(6), epoch - random.number(if crowded { 10 } else { 25 }));
            let to = from + 6;
            let (first, last) = (time(from), time(to));
            run(&mut session, &format!("DELETE FROM t WHERE v = {v} AND ts >= {first} AND ts < {last}"))
                .await?;
            let goes = |row: &Row| row.2 == v && (from..to).contains(&row.1);
            deleted.extend(model.table.iter().filter(|row| goes(row)).copied());
            model.table.retain(|row| !goes(row));
        }
        for _ in 0..random.number(6) {
            let late = match crowded {
                true if random.number(2) == 0 => 10,
                false if random.number(5) == 0 => 20,
                _ => 4,
            };
            let row = (random.number(3), epoch + random.number(8) - late, random.number(6));
            let (k, ts, v) = row;
            run(&mut session, &format!("INSERT INTO t VALUES ({k}, {v}, {})", time(ts))).await?;
            inserted.push(row);
        }
        model.table.extend(&inserted);
        model.take(deleted, inserted);
        run(&mut session, "ADVANCE BATCH").await?;
        check(&mut session, &model).await.map_err(|error| format!("epoch {epoch}: {error}"))?;
    }
    let mut once = BTreeSet::new();
    let session_of = |group: &String| group.split('|').take(3).map(String::from).collect::<Vec<_>>();
    ensure(model.groups.iter().all(|group| once.insert(session_of(group))), || {
        format!("a session was put out twice: {:#?}", model.groups)
    })?;
    ensure(model.late > 0 && model.groups.len() > 10, || "nothing was late, or nothing closed".into())?;
    engine.stop().await.map_err(|error| error.to_string())?;
    Ok(model.turned_away)
}

async fn check(session: &mut Session, model: &Model) -> Result<()> {
    let (mut rows, mut groups) = (model.closed.clone(), model.groups.clone());
    for open in model.sessions() {
        rows.extend(open.lines());
        groups.push(open.group());
    }
    rows.sort();
    groups.sort();
    let expected = [
        ("so_far", &rows),
        ("closed", &model.closed),
        ("groups_so_far", &groups),
        ("groups_closed", &model.groups),
    ];
    for (name, expected) in expected {
        let found = lines(session, &format!("SELECT * FROM {name}")).await?;
        ensure(found == *expected, || format!("{name}: {found:#?} is not {expected:#?}"))?;
        let sql = format!(
            "SELECT sum(late_rows) FROM millstream.operators WHERE query = '{name}' AND late_rows IS NOT NULL"
        );
        let late = lines(session, &sql).await?;
        ensure(late == [model.late.to_string()], || {
            format!("{name}: {late:?} late rows, not {}", model.late)
        })?;
    }
    Ok(())
}

/// A row that would be late on its own is in time if it touches an open session. If a delete separates it
/// from that session, its own session has closed already.
async fn split() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let row = |k: i64, v: i64, ts: i64| format!("INSERT INTO t VALUES ({k}, {v}, {})", time(ts));
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
            &format!("CREATE MATERIALIZED VIEW so_far AS {GROUPS}"),
            &format!("CREATE STREAM closed AS {GROUPS} EMIT ON WINDOW CLOSE"),
            &format!("CREATE STREAM closed_rows AS {ROWS} EMIT ON WINDOW CLOSE"),
            &row(0, 0, 6),
            &row(9, 0, 15),
            "ADVANCE BATCH",
        ],
    )
    .await?;
    // The watermark is at 10: the session from 6 to 10 has closed.
    drive::expect(&mut session, "SELECT * FROM closed", &["0|6|10|1|0"]).await?;
    run_all(&mut session, &[&row(0, 1, 8), &row(0, 2, 6), "ADVANCE BATCH"]).await?;
    drive::expect(&mut session, "SELECT * FROM so_far WHERE k = 0", &["0|6|10|1|0", "0|6|12|2|3"]).await?;
    run_all(&mut session, &["DELETE FROM t WHERE v = 1", "ADVANCE BATCH", &row(9, 0, 40), "ADVANCE BATCH"])
        .await?;
    drive::expect(&mut session, "SELECT * FROM so_far WHERE k = 0", &["0|6|10|1|0"]).await?;
    drive::expect(&mut session, "SELECT * FROM closed WHERE k = 0", &["0|6|10|1|0"]).await?;
    drive::expect(&mut session, "SELECT * FROM closed_rows WHERE k = 0", &["0|6|0|6|10"]).await?;
    for view in ["so_far", "closed", "closed_rows"] {
        let sql = format!("SELECT k, v, _weight FROM late_rows('{view}')");
        drive::expect(&mut session, &sql, &["0|2|1"]).await?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Sessions of all rows, including those without a time, with inserts and deletes.
async fn open() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let query = "SELECT * FROM SESSION(t PARTITION BY (k, v % 2), ts, INTERVAL '4 seconds')";
    let alone = "SELECT v, window_end FROM SESSION(t, ts, INTERVAL '2 seconds')";
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (k INT, v INT, ts TIMESTAMP)",
            &format!("CREATE MATERIALIZED VIEW m AS {query}"),
            &format!("CREATE MATERIALIZED VIEW a AS {alone}"),
        ],
    )
    .await?;
    let mut random = Random(11);
    for epoch in 0..60 {
        if random.number(3) == 0 {
            run(&mut session, &format!("DELETE FROM t WHERE v = {}", random.number(8))).await?;
        }
        for _ in 0..random.number(8) {
            let ts = if random.number(10) == 0 { "NULL".into() } else { time(random.number(60)) };
            let (k, v) = (random.number(2), random.number(8));
            run(&mut session, &format!("INSERT INTO t VALUES ({k}, {v}, {ts})")).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        for (name, query) in [("m", query), ("a", alone)] {
            let found = lines(&mut session, &format!("SELECT * FROM {name}")).await?;
            let expected = lines(&mut session, query).await?;
            ensure(found == expected, || format!("epoch {epoch}, {name}: {found:#?} is not {expected:#?}"))?;
        }
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// After a day of event time only the open sessions take memory.
async fn flat() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE t (k INT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') APPEND ONLY",
            &format!("CREATE STREAM closed AS {GROUPS} EMIT ON WINDOW CLOSE"),
        ],
    )
    .await?;
    for hour in 0..24 {
        // Two rows of a key every ten seconds, a second apart.
        let rows = format!(
            "INSERT INTO t SELECT i / 2 % 5, i, TIMESTAMP '2024-05-01 00:00:00' + INTERVAL '{hour} hours' \
             + i * INTERVAL '1 second' FROM generate_series(0, 3599) AS g(i)"
        );
        run_all(&mut session, &[&rows, "ADVANCE BATCH"]).await?;
        let kept =
            lines(&mut session, "SELECT max(state_rows) FROM millstream.operators WHERE late_rows = 0")
                .await?;
        // The watermark is at 59:54, and sessions that end after it have at most ten rows.
        let few = kept.len() == 1 && kept[0].parse().is_ok_and(|kept: i64| kept <= 10);
        ensure(few, || format!("{kept:?} rows after hour {hour}"))?;
    }
    drive::expect(&mut session, "SELECT max(n), min(n) FROM closed", &["2|2"]).await?;
    engine.stop().await.map_err(|error| error.to_string())
}
