//! MATCH_RECOGNIZE over rows inserted in any order and deleted again. For each pattern, a simple matcher that
//! walks through the rows of a partition gives the expected result.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};

use super::{Scenario, time};

pub const ALL: &[Scenario] =
    &[("matches_are_those_that_a_walk_through_the_rows_finds", || drive::block_on(random()))];

/// The delay of the watermark, and the length of windows, in seconds.
const DELAY: i64 = 5;
const SIZE: i64 = 10;

/// k, ts and v.
type Row = (i64, i64, i64);

/// Maps the times and values of rows to matches: the start of each, and its number of rows.
type Walk = fn(&[(i64, i64)]) -> Vec<(usize, usize)>;

/// A pattern, and its matcher. The matcher gets the rows of a partition, sorted by time and value. It returns
/// the start of each match, and its number of rows.
struct Pattern {
    name: &'static str,
    clause: &'static str,
    walk: Walk,
}

const PATTERNS: &[Pattern] = &[
    Pattern { name: "rise", clause: "PATTERN (a b+) DEFINE b AS v > PREV(v)", walk: rise },
    Pattern {
        name: "pair",
        clause: "AFTER MATCH SKIP TO NEXT ROW PATTERN (a x*? b) WITHIN INTERVAL '7 seconds' DEFINE a AS v = 0, b AS v = 5",
        walk: pair,
    },
    Pattern { name: "sum", clause: "PATTERN (a+) DEFINE a AS sum(a.v) <= 7", walk: sum },
    Pattern {
        name: "valley",
        clause: "AFTER MATCH SKIP TO LAST up PATTERN (down+ up+) DEFINE down AS v < PREV(v), up AS v > PREV(v)",
        walk: valley,
    },
];

fn rise(rows: &[(i64, i64)]) -> Vec<(usize, usize)> {
    let (mut found, mut start) = (Vec::new(), 0);
    while start < rows.len() {
        let mut end = start + 1;
        while end < rows.len() && rows[end].1 > rows[end - 1].1 {
            end += 1;
        }
        if end > start + 1 {
            found.push((start, end - start));
        }
        start = end;
    }
    found
}

fn pair(rows: &[(i64, i64)]) -> Vec<(usize, usize)> {
    let starts = (0..rows.len()).filter(|start| rows[*start].1 == 0);
    let end = |start: &usize| {
        (start + 1..rows.len()).find(|end| rows[*end].1 == 5 && rows[*end].0 < rows[*start].0 + 7)
    };
    starts.filter_map(|start| Some((start, end(&start)? - start + 1))).collect()
}

fn sum(rows: &[(i64, i64)]) -> Vec<(usize, usize)> {
    let (mut found, mut start) = (Vec::new(), 0);
    while start < rows.len() {
        let (mut end, mut total) = (start, 0);
        while end < rows.len() && total + rows[end].1 <= 7 {
            total += rows[end].1;
            end += 1;
        }
        found.push((start, end - start));
        start = end;
    }
    found
}

fn valley(rows: &[(i64, i64)]) -> Vec<(usize, usize)> {
    let falls = |at: usize| at > 0 && at < rows.len() && rows[at].1 < rows[at - 1].1;
    let rises = |at: usize| at > 0 && at < rows.len() && rows[at].1 > rows[at - 1].1;
    let (mut found, mut start) = (Vec::new(), 0);
    while start < rows.len() {
        let mut bottom = start;
        while falls(bottom) {
            bottom += 1;
        }
        let mut end = bottom;
        while rises(end) {
            end += 1;
        }
        if bottom > start && end > bottom {
            found.push((start, end - start));
            start = end - 1;
        } else {
            start += 1;
        }
    }
    found
}

/// Returns the expected output of a pattern: the columns of the partition as text, and then of each match its
/// number, its start and end, its number of rows, and their sum.
fn shown(pattern: &Pattern, partitions: BTreeMap<String, Vec<(i64, i64)>>) -> Vec<String> {
    let mut shown = Vec::new();
    for (partition, mut rows) in partitions {
        rows.sort_unstable();
        for (number, (start, count)) in (pattern.walk)(&rows).into_iter().enumerate() {
            let taken = &rows[start..start + count];
            let sum: i64 = taken.iter().map(|(_, v)| v).sum();
            let (first, last) = (taken[0].0, taken[count - 1].0);
            shown.push(format!("{partition}|{}|{first}|{last}|{count}|{sum}", number + 1));
        }
    }
    shown.sort();
    shown
}

/// Returns a query with the clause over `t`, partitioned by these columns.
fn query(pattern: &Pattern, from: &str, partition: &str) -> String {
    let seconds = |column: &str| format!("(extract(epoch FROM {column}) - 1714521600)::BIGINT");
    let columns: Vec<String> = partition
        .split(", ")
        .map(|name| match name.starts_with("window") {
            true => format!("{} AS {name}", seconds(name)),
            false => name.to_string(),
        })
        .collect();
    format!(
        "SELECT {}, number, {} AS since, {} AS until, n, s FROM {from} MATCH_RECOGNIZE (PARTITION BY {partition} \
         ORDER BY ts, v MEASURES MATCH_NUMBER() AS number, FIRST(ts) AS since, LAST(ts) AS until, count(*) AS n, \
         sum(v) AS s {})",
        columns.join(", "),
        seconds("since"),
        seconds("until"),
        pattern.clause
    )
}

#[derive(Default)]
struct Model {
    /// All rows of the table.
    rows: Vec<Row>,
    /// The rows in time for windows: inserted, and not deleted, before their window closed.
    in_time: Vec<Row>,
    newest: Option<i64>,
    watermark: Option<i64>,
    late: u64,
}

impl Model {
    /// Returns the changes of an epoch, as statements.
    fn change(&mut self, random: &mut Random, epoch: i64) -> Vec<String> {
        let mut changes = Vec::new();
        let closed = self.watermark.unwrap_or(i64::MIN);
        let is_late = |row: &Row| window(row) + SIZE <= closed;
        // A row deleted and inserted again in one epoch has not changed.
        let mut late: BTreeMap<Row, i64> = BTreeMap::new();
        if random.number(2) == 0 {
            let (v, from) = (random.number(6), epoch - random.number(25));
            let to = from + 8;
            let (first, last) = (time(from), time(to));
            changes.push(format!("DELETE FROM t WHERE v = {v} AND ts >= {first} AND ts < {last}"));
            let goes = |row: &Row| row.2 == v && (from..to).contains(&row.1);
            let gone = self.rows.iter().filter(|row| goes(row) && is_late(row));
            gone.for_each(|row| *late.entry(*row).or_default() -= 1);
            self.rows.retain(|row| !goes(row));
            self.in_time.retain(|row| !goes(row) || is_late(row));
        }
        for _ in 0..random.number(9) {
            let behind = if random.number(5) == 0 { 25 } else { 4 };
            let row = (random.number(2), epoch + random.number(9) - behind, random.number(6));
            changes.push(format!("INSERT INTO t VALUES ({}, {}, {})", row.0, time(row.1), row.2));
            self.rows.push(row);
            match is_late(&row) {
                true => *late.entry(row).or_default() += 1,
                false => self.in_time.push(row),
            }
            self.newest = self.newest.max(Some(row.1));
        }
        self.late += late.values().map(|weight| weight.unsigned_abs()).sum::<u64>();
        changes
    }

    fn by_key(&self) -> BTreeMap<String, Vec<(i64, i64)>> {
        let mut partitions: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
        for (k, ts, v) in &self.rows {
            partitions.entry(k.to_string()).or_default().push((*ts, *v));
        }
        partitions
    }

    /// Returns the partitions by window; only closed windows if `closed` is true.
    fn by_window(&self, closed: bool) -> BTreeMap<String, Vec<(i64, i64)>> {
        let mut partitions: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
        for row in &self.in_time {
            let start = window(row);
            if !closed || self.watermark.is_some_and(|at| start + SIZE <= at) {
                let name = format!("{start}|{}|{}", start + SIZE, row.0);
                partitions.entry(name).or_default().push((row.1, row.2));
            }
        }
        partitions
    }
}

/// Returns the start of a row's window.
fn window(row: &Row) -> i64 {
    row.1.div_euclid(SIZE) * SIZE
}

async fn random() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        run_seed(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn run_seed(seed: u64) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let table = format!(
        "CREATE TABLE t (k INT, ts TIMESTAMP, v INT, WATERMARK FOR ts AS ts - INTERVAL '{DELAY} seconds')"
    );
    run_all(&mut session, &["SET clock = 'manual'", &table]).await?;
    let windows = format!("TUMBLE(t, ts, INTERVAL '{SIZE} seconds')");
    for pattern in PATTERNS {
        let name = pattern.name;
        let all = query(pattern, "t", "k");
        let windowed = query(pattern, &windows, "window_start, window_end, k");
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name} AS {all}")).await?;
        run(&mut session, &format!("CREATE MATERIALIZED VIEW {name}_so_far AS {windowed}")).await?;
        run(&mut session, &format!("CREATE STREAM {name}_closed AS {windowed} EMIT ON WINDOW CLOSE")).await?;
    }
    let (mut random, mut model) = (Random(seed), Model::default());
    for epoch in 0..60 {
        for sql in model.change(&mut random, epoch) {
            run(&mut session, &sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        model.watermark = model.newest.map(|newest| newest - DELAY).max(model.watermark);
        check(&mut session, &model).await.map_err(|error| format!("epoch {epoch}: {error}"))?;
    }
    ensure(model.late > 5, || "nothing was late".into())?;
    for pattern in PATTERNS {
        let closed = shown(pattern, model.by_window(true)).len();
        ensure(closed > 1, || format!("{}: {closed} matches in closed windows", pattern.name))?;
    }
    engine.stop().await.map_err(|error| error.to_string())
}

async fn check(session: &mut Session, model: &Model) -> Result<()> {
    for pattern in PATTERNS {
        let name = pattern.name;
        let expected = [
            (name.to_string(), shown(pattern, model.by_key()), false),
            (format!("{name}_so_far"), shown(pattern, model.by_window(false)), true),
            (format!("{name}_closed"), shown(pattern, model.by_window(true)), true),
        ];
        for (view, expected, in_windows) in expected {
            let found = lines(session, &format!("SELECT * FROM {view}")).await?;
            ensure(found == expected, || format!("{view}: {found:#?} is not {expected:#?}"))?;
            if in_windows {
                let late = lines(
                    session,
                    &format!("SELECT coalesce(sum(abs(_weight)), 0) FROM late_rows('{view}')"),
                )
                .await?;
                ensure(late == [model.late.to_string()], || {
                    format!("{view}: {late:?} late rows, not {}", model.late)
                })?;
            }
        }
    }
    Ok(())
}
