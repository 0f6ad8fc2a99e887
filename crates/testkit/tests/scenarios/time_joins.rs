//! ASOF joins and lookup joins over rows inserted in any order and deleted again, compared with models that
//! try every pair.
//!
//! An ASOF JOIN has the answer over all rows that arrived in time, and deletes that did. With EMIT ON WINDOW
//! CLOSE it publishes a result when no other row could be nearer; the result is final. Late rows are counted
//! and change nothing. The join keeps no row that nothing in time could look up.

use std::collections::BTreeMap;

use millstream_engine::{Engine, Session};
use millstream_seeds::Random;
use millstream_testkit::drive::{self, Result, ensure, lines, run, run_all, seeds};

use super::{Scenario, time};

pub const ALL: &[Scenario] = &[
    ("asof_joins_equal_the_model_over_what_came_in_time", || drive::block_on(random())),
    ("windows_above_an_asof_join_close", || drive::block_on(windows())),
    ("rows_look_up_what_is_there_when_they_come", || drive::block_on(look_ups())),
];

/// The delays of the watermarks of both sides in seconds.
const DELAYS: [i64; 2] = [3, 6];

const OPERATORS: [&str; 4] = [">=", ">", "<=", "<"];

/// k, v and ts.
type Row = (Option<i64>, i64, Option<i64>);

fn number(value: Option<i64>) -> String {
    value.map_or("NULL".into(), |value| value.to_string())
}

/// A join of `a` and `b`, whose times are shown as seconds.
#[derive(Clone, Copy)]
struct Join {
    operator: &'static str,
    left: bool,
}

impl Join {
    fn all() -> Vec<Join> {
        let both = |operator: &&'static str| [false, true].map(|left| Join { operator, left });
        OPERATORS.iter().flat_map(both).collect()
    }

    fn sql(self) -> String {
        let seconds = |column: &str, name: &str| {
            format!("(extract(epoch FROM {column}) - 1714521600)::BIGINT AS {name}")
        };
        let kind = if self.left { "LEFT " } else { "" };
        format!(
            "SELECT a.k, a.v, {}, b.v AS bv, {} FROM a {kind}ASOF JOIN b ON a.k = b.k AND a.ts {} b.ts",
            seconds("a.ts", "at"),
            seconds("b.ts", "bat"),
            self.operator
        )
    }

    fn is_backward(self) -> bool {
        self.operator.starts_with('>')
    }

    fn compares(self, mine: i64, theirs: i64) -> bool {
        match self.operator {
            ">=" => mine >= theirs,
            ">" => mine > theirs,
            "<=" => mine <= theirs,
            _ => mine < theirs,
        }
    }

    /// Returns the nearest row of the right side, by comparing all; of several at one time, the one whose
    /// columns sort last.
    fn nearest(self, (k, _, ts): Row, right: &[Row]) -> Option<Row> {
        let (k, ts) = (k?, ts?);
        let found =
            right.iter().filter(|row| row.0 == Some(k) && row.2.is_some_and(|at| self.compares(ts, at)));
        found.copied().max_by_key(|(_, v, at)| (if self.is_backward() { *at } else { at.map(|at| -at) }, *v))
    }

    /// Returns true if a row reaches the operator.
    fn takes(self, side: usize, (k, _, ts): Row) -> bool {
        (self.left && side == 0) || (k.is_some() && ts.is_some())
    }
}

#[derive(Default)]
struct Side {
    /// All rows of the table, including late ones.
    table: Vec<Row>,
    in_time: Vec<Row>,
    newest: Option<i64>,
    /// The late inserts and late deletes.
    late: Vec<Row>,
    /// Inserts and deletes without a time, which are late if only final results are published.
    timeless: Vec<Row>,
}

#[derive(Default)]
struct Model {
    sides: [Side; 2],
    /// The time below which rows are late: the lesser watermark after the last epoch.
    closed: Option<i64>,
}

impl Model {
    /// Returns the changes of an epoch, as statements.
    fn change(&mut self, random: &mut Random, epoch: i64) -> Vec<String> {
        let (mut changes, closed) = (Vec::new(), self.closed);
        let is_late = |(_, _, ts): &Row| ts.zip(closed).is_some_and(|(ts, closed)| ts < closed);
        for (name, side) in ["a", "b"].into_iter().zip(&mut self.sides) {
            if random.number(3) == 0 {
                let (v, from) = (random.number(6), epoch * 2 - random.number(20));
                let to = from + 7;
                let goes = |row: &Row| row.1 == v && row.2.is_none_or(|ts| (from..to).contains(&ts));
                let (first, last) = (time(from), time(to));
                changes.push(format!(
                    "DELETE FROM {name} WHERE v = {v} AND (ts IS NULL OR (ts >= {first} AND ts < {last}))"
                ));
                let (gone, stay): (Vec<Row>, Vec<Row>) = side.table.iter().partition(|row| goes(row));
                side.table = stay;
                side.late.extend(gone.iter().filter(|row| is_late(row)));
                side.timeless.extend(gone.iter().filter(|row| row.2.is_none()));
                side.in_time.retain(|row| !goes(row) || is_late(row));
            }
            let mut rows = Vec::new();
            for _ in 0..random.number(5) {
                let ts = epoch * 2 + random.number(9) - if random.number(5) == 0 { 22 } else { 4 };
                let ts = Some(ts).filter(|_| random.number(14) > 0);
                let k = Some(random.number(2)).filter(|_| random.number(12) > 0);
                let row = (k, random.number(6), ts);
                rows.push(format!("({}, {}, {})", number(k), row.1, ts.map_or("NULL".into(), time)));
                side.table.push(row);
                if is_late(&row) {
                    side.late.push(row)
                } else {
                    side.in_time.push(row)
                }
                side.timeless.extend(ts.is_none().then_some(row));
                side.newest = side.newest.max(ts);
            }
            if !rows.is_empty() {
                changes.push(format!("INSERT INTO {name} VALUES {}", rows.join(", ")));
            }
        }
        changes
    }

    fn pass(&mut self) {
        let marks = [0, 1].map(|at| self.sides[at].newest.map(|newest| newest - DELAYS[at]));
        self.closed = marks[0].zip(marks[1]).map(|(a, b)| a.min(b)).max(self.closed);
    }

    /// Returns the answer over the rows in time; only final results if `finals` is true.
    fn answer(&self, join: Join, finals: bool) -> Vec<String> {
        let passed = |ts: Option<i64>| ts.zip(self.closed).is_some_and(|(ts, closed)| ts < closed);
        let mut answer = Vec::new();
        for row in &self.sides[0].in_time {
            let nearest = join.nearest(*row, &self.sides[1].in_time);
            let is_final = match join.is_backward() {
                true => passed(row.2),
                false => nearest.is_some_and(|(_, _, ts)| passed(ts)),
            };
            if (nearest.is_none() && !join.left) || (finals && !is_final) {
                continue;
            }
            let (v, ts) = nearest.map_or((None, None), |(_, v, ts)| (Some(v), ts));
            let (k, ts, at, v) = (number(row.0), number(ts), number(row.2), number(v));
            answer.push(format!("{k}|{}|{at}|{v}|{ts}", row.1));
        }
        answer.sort();
        answer
    }

    /// Returns the number of rows that something in time could still look up or retract.
    fn kept(&self, join: Join) -> usize {
        let [left, right] = [0, 1].map(|at| {
            let rows = self.sides[at].in_time.iter().filter(|row| join.takes(at, **row));
            rows.copied().collect::<Vec<Row>>()
        });
        let passed = |row: &&Row| row.2.zip(self.closed).is_some_and(|(ts, closed)| ts < closed);
        let open = left.iter().chain(&right).filter(|row| !passed(row)).count();
        let mut last: BTreeMap<Option<i64>, Option<i64>> = BTreeMap::new();
        for (k, _, ts) in right.iter().filter(passed) {
            let at = last.entry(*k).or_default();
            *at = (*ts).max(*at);
        }
        let stays = match join.is_backward() {
            true => right.iter().filter(passed).filter(|(k, _, ts)| last[k] == *ts).count(),
            false => {
                let right: Vec<Row> = right.iter().filter(passed).copied().collect();
                left.iter().filter(passed).filter(|row| join.nearest(**row, &right).is_none()).count()
            }
        };
        open + stays
    }

    fn late(&self, join: Join, finals: bool) -> usize {
        let of = |at: usize| {
            let timeless = self.sides[at].timeless.iter().filter(|_| finals);
            self.sides[at].late.iter().chain(timeless).filter(|row| join.takes(at, **row)).count()
        };
        of(0) + of(1)
    }
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
    run(&mut session, "SET clock = 'manual'").await?;
    for (name, delay) in ["a", "b"].iter().zip(DELAYS) {
        let watermark = format!("WATERMARK FOR ts AS ts - INTERVAL '{delay} seconds'");
        run(&mut session, &format!("CREATE TABLE {name} (k INT, v INT, ts TIMESTAMP, {watermark})")).await?;
    }
    for (at, join) in Join::all().into_iter().enumerate() {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW so_far_{at} AS {}", join.sql())).await?;
        run(&mut session, &format!("CREATE STREAM final_{at} AS {} EMIT ON WINDOW CLOSE", join.sql()))
            .await?;
    }
    let (mut random, mut model) = (Random(seed), Model::default());
    for epoch in 0..40 {
        for sql in model.change(&mut random, epoch) {
            run(&mut session, &sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        model.pass();
        check(&mut session, &model).await.map_err(|error| format!("epoch {epoch}: {error}"))?;
    }
    let enough = |join: Join| model.late(join, false) > 5 && model.answer(join, true).len() > 10;
    ensure(Join::all().into_iter().all(enough), || "nothing was late, or nothing final".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}

async fn check(session: &mut Session, model: &Model) -> Result<()> {
    for (at, join) in Join::all().into_iter().enumerate() {
        for (name, finals) in [("so_far", false), ("final", true)] {
            let view = format!("{name}_{at}");
            let found = lines(session, &format!("SELECT * FROM {view}")).await?;
            let expected = model.answer(join, finals);
            ensure(found == expected, || format!("{view}, {}: {found:#?} is not {expected:#?}", join.sql()))?;
            let sql = format!(
                "SELECT late_rows, state_rows FROM millstream.operators WHERE operator = 'AsOf' AND query = '{view}'"
            );
            let found = lines(session, &sql).await?;
            let (late, kept) = (model.late(join, finals), model.kept(join));
            let as_expected = match finals {
                false => found == [format!("{late}|{kept}")],
                true => found.len() == 1 && found[0].starts_with(&format!("{late}|")),
            };
            ensure(as_expected, || format!("{view}: {found:?}, not {late} late and {kept} kept"))?;
        }
    }
    Ok(())
}

/// The left side's time has the watermark of both sides above the join, so that windows over it close. A day
/// of event time leaves nothing in memory but open windows.
async fn windows() -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let watermark = "WATERMARK FOR ts AS ts - INTERVAL '5 seconds'";
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            &format!("CREATE TABLE trades (id INT, symbol INT, ts TIMESTAMP, {watermark}) APPEND ONLY"),
            &format!("CREATE TABLE quotes (symbol INT, ts TIMESTAMP, price INT, {watermark}) APPEND ONLY"),
            "CREATE VIEW priced AS SELECT t.id, t.symbol, t.ts, q.price FROM trades t ASOF JOIN quotes q \
             ON t.symbol = q.symbol AND t.ts >= q.ts",
            "CREATE STREAM per_minute AS SELECT window_start, symbol, count(*) AS n, sum(price) AS s \
             FROM TUMBLE(priced, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, symbol EMIT ON WINDOW CLOSE",
        ],
    )
    .await?;
    for hour in 0..24 {
        // A trade every second, and a quote every ten, whose price is the number of the ten seconds.
        let from = format!("TIMESTAMP '2024-05-01 00:00:00' + INTERVAL '{hour} hours'");
        let quotes = format!(
            "INSERT INTO quotes SELECT s, {from} + i * INTERVAL '10 seconds', {hour} * 360 + i \
             FROM generate_series(0, 359) AS g(i), generate_series(0, 2) AS h(s)"
        );
        let trades = format!(
            "INSERT INTO trades SELECT {hour} * 3600 + i, i % 3, {from} + i * INTERVAL '1 second' \
             FROM generate_series(0, 3599) AS g(i)"
        );
        run_all(&mut session, &[&quotes, &trades, "ADVANCE BATCH"]).await?;
        let sql = "SELECT state_rows FROM millstream.operators WHERE operator = 'AsOf'";
        let kept = lines(&mut session, sql).await?;
        // The quotes' watermark is at 59:45: 15 trades, 3 quotes from then on, and 3 before.
        ensure(kept == ["21"], || format!("{kept:?} rows after hour {hour}"))?;
    }
    // The last minute is open. 20 trades of a symbol per minute, whose prices are those of six quotes.
    drive::expect(&mut session, "SELECT count(*), min(n), max(n) FROM per_minute", &["4317|20|20"]).await?;
    let batch = "SELECT window_start, symbol, count(*) AS n, sum(price) AS s \
        FROM TUMBLE(priced, ts, INTERVAL '1 minute') WHERE window_end < TIMESTAMP '2024-05-02' GROUP BY window_start, symbol";
    let (found, expected) =
        (lines(&mut session, "SELECT * FROM per_minute").await?, lines(&mut session, batch).await?);
    ensure(found == expected, || "windows above the join differ from the batch".into())?;
    engine.stop().await.map_err(|error| error.to_string())
}

/// Each row has the content of the right side at the end of its epoch.
async fn look_ups() -> Result<()> {
    for seed in seeds(&[0, 1], 0..4) {
        look_ups_of(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

async fn look_ups_of(seed: u64) -> Result<()> {
    let engine = Engine::start().map_err(|error| error.to_string())?;
    let mut session = engine.session();
    let select = |kind: &str, on: &str| {
        format!(
            "SELECT o.id, o.k, r.v FROM o {kind} JOIN r FOR SYSTEM_TIME AS OF PROCTIME() AS r ON o.k = r.k {on}"
        )
    };
    let views = [("", ""), ("LEFT", ""), ("", "AND o.id % 3 <> r.v"), ("LEFT", "AND o.id % 3 <> r.v")];
    run_all(
        &mut session,
        &[
            "SET clock = 'manual'",
            "CREATE TABLE o (id INT, k INT) APPEND ONLY",
            "CREATE TABLE r (k INT, v INT)",
        ],
    )
    .await?;
    for (at, (kind, on)) in views.iter().enumerate() {
        run(&mut session, &format!("CREATE MATERIALIZED VIEW v{at} AS {}", select(kind, on))).await?;
    }
    let mut random = Random(seed);
    let mut rates: Vec<(Option<i64>, i64)> = Vec::new();
    let mut expected = vec![Vec::<String>::new(); views.len()];
    let mut id = 0;
    for epoch in 0..40 {
        let mut orders = Vec::new();
        for _ in 0..random.number(4) {
            orders.push((id, Some(random.number(4)).filter(|_| random.number(8) > 0)));
            id += 1;
        }
        let rows: Vec<String> = orders.iter().map(|(id, k)| format!("({id}, {})", number(*k))).collect();
        let insert_orders = (!rows.is_empty()).then(|| format!("INSERT INTO o VALUES {}", rows.join(", ")));
        // Orders arrive before or after the rates of their epoch, which makes no difference.
        let first = random.number(2) == 0;
        let mut changes: Vec<String> = insert_orders.clone().into_iter().filter(|_| first).collect();
        if random.number(3) == 0 {
            let v = random.number(3);
            changes.push(format!("DELETE FROM r WHERE v = {v}"));
            rates.retain(|rate| rate.1 != v);
        }
        for _ in 0..random.number(3) {
            let rate = (Some(random.number(4)).filter(|_| random.number(8) > 0), random.number(3));
            changes.push(format!("INSERT INTO r VALUES ({}, {})", number(rate.0), rate.1));
            rates.push(rate);
        }
        changes.extend(insert_orders.into_iter().filter(|_| !first));
        for sql in &changes {
            run(&mut session, sql).await?;
        }
        run(&mut session, "ADVANCE BATCH").await?;
        for (at, (kind, on)) in views.iter().enumerate() {
            for order in &orders {
                expected[at].extend(found_by(*order, &rates, *kind == "LEFT", !on.is_empty()));
            }
            expected[at].sort();
            let found = lines(&mut session, &format!("SELECT * FROM v{at}")).await?;
            ensure(found == expected[at], || {
                format!("epoch {epoch}, v{at}: {found:#?} is not {:#?}", expected[at])
            })?;
        }
    }
    engine.stop().await.map_err(|error| error.to_string())
}

/// Returns the matches of a row as text: all rates of its key. If `differs` is true, omits those equal to the
/// row's number modulo 3.
fn found_by(
    (id, k): (i64, Option<i64>),
    rates: &[(Option<i64>, i64)],
    left: bool,
    differs: bool,
) -> Vec<String> {
    let matches = |rate: &&(Option<i64>, i64)| k.is_some() && rate.0 == k && (!differs || id % 3 != rate.1);
    let line = |v: Option<i64>| format!("{id}|{}|{}", number(k), number(v));
    let mut found: Vec<String> = rates.iter().filter(matches).map(|rate| line(Some(rate.1))).collect();
    found.extend((found.is_empty() && left).then(|| line(None)));
    found
}
