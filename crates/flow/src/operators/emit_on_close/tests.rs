//! Tests with out-of-order rows and deletes: the result is the answer over rows in time, and the others are
//! emitted as late.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_seeds::first_seeds;

use crate::event_time::{BatchTime, Edge, EventTime};
use crate::failure::keep;
use crate::fixture::{Fixture, NAMES, Random, TimesOf, again, change_about, rows, sorted};
use crate::{Change, Flow, Limits};

/// The distance by which rows may be behind the newest one.
const DELAY: i64 = 3;

/// Queries by windows that end at `id`, which each query shows as `w`; first the operator whose windows
/// close.
const QUERIES: &[(&str, &str)] = &[
    ("Aggregate", "SELECT id AS w, k, count(*) AS n, sum(v) AS s FROM t GROUP BY id, k"),
    ("Aggregate", "SELECT DISTINCT id AS w, k FROM t"),
    (
        "TopN",
        "SELECT id AS w, k, v FROM (SELECT id, k, v, row_number() OVER (PARTITION BY id, k ORDER BY v) AS r FROM t) \
         WHERE r <= 2",
    ),
    (
        "TopN",
        "SELECT id AS w, v, r FROM (SELECT id, v, rank() OVER (PARTITION BY id ORDER BY v) AS r FROM t) WHERE r <= 2",
    ),
    ("Over", "SELECT id AS w, k, v, sum(v) OVER (PARTITION BY id ORDER BY v) AS s FROM t"),
    ("Over", "SELECT id AS w, v, dense_rank() OVER (PARTITION BY k, id ORDER BY v) AS r FROM t"),
    ("PerKey", "SELECT id AS w, v, max(v) OVER (PARTITION BY id) AS most FROM t"),
    ("Aggregate", "SELECT id AS w, array_agg(v ORDER BY v) AS items FROM t GROUP BY id"),
    ("Join", "SELECT t.id AS w, t.k AS a, u.k AS b FROM t JOIN u ON t.id = u.id"),
    ("Join", "SELECT t.id AS w, t.k AS a, u.k AS b FROM t LEFT JOIN u ON t.id = u.id AND t.k < u.k"),
    (
        "Join",
        "SELECT coalesce(t.id, u.id) AS w, t.v AS a, u.v AS b FROM t FULL JOIN u ON t.id = u.id AND t.k = u.k",
    ),
    ("Join", "SELECT id AS w, k FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.id = t.id AND u.k = t.k)"),
    ("Join", "SELECT id AS w, k FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id AND u.k > t.k)"),
    (
        "TopN",
        "SELECT w, k, n FROM (SELECT w, k, n, row_number() OVER (PARTITION BY w ORDER BY n DESC, k) AS r \
         FROM (SELECT id AS w, k, count(*) AS n FROM t GROUP BY id, k)) WHERE r <= 1",
    ),
    ("Aggregate", "SELECT t.id AS w, count(*) AS n FROM t JOIN u ON t.id = u.id GROUP BY t.id"),
    ("AsOf", NEAREST),
    ("AsOf", NEAREST_OF_ALL),
];

/// An ASOF JOIN as it is planned: for each row of `t` the last row of `u` up to it.
const NEAREST: &str = "SELECT \"!time\" AS w, k, v, last_value(CASE WHEN \"!side\" = arrow_cast(0, 'Int8') \
    THEN named_struct('v', v) END) IGNORE NULLS OVER (PARTITION BY k ORDER BY \"!time\", \"!side\", v) AS nearest \
    FROM (SELECT id AS \"!time\", arrow_cast(1, 'Int8') AS \"!side\", k, v FROM t \
          UNION ALL SELECT id, arrow_cast(0, 'Int8'), k, v FROM u)";

/// The same without a key, for the last row before.
const NEAREST_OF_ALL: &str = "SELECT \"!time\" AS w, k, v, last_value(CASE WHEN \"!side\" = arrow_cast(1, 'Int8') \
    THEN named_struct('v', v) END) IGNORE NULLS OVER (ORDER BY \"!time\", \"!side\", v) AS nearest \
    FROM (SELECT id AS \"!time\", arrow_cast(0, 'Int8') AS \"!side\", k, v FROM t \
          UNION ALL SELECT id, arrow_cast(1, 'Int8'), k, v FROM u)";

/// The same for the first row of `u` from the row on.
const NEXT: &str = "SELECT \"!time\" AS w, k, v, last_value(CASE WHEN \"!side\" = arrow_cast(0, 'Int8') \
    THEN named_struct('v', v) END) IGNORE NULLS \
    OVER (PARTITION BY k ORDER BY \"!time\" DESC, \"!side\", v) AS nearest \
    FROM (SELECT id AS \"!time\", arrow_cast(1, 'Int8') AS \"!side\", k, v FROM t WHERE id IS NOT NULL \
          UNION ALL SELECT id, arrow_cast(0, 'Int8'), k, v FROM u WHERE id IS NOT NULL)";

/// A query and its expected result.
struct Maintained {
    sql: &'static str,
    flow: Flow,
    sum: Delta,
    /// The rows that were in time.
    taken: Fixture,
    /// The lower bound of open windows.
    closed: Option<i64>,
    on_close: bool,
    /// True if the flow keeps the whole result.
    kept: bool,
    /// True if somebody reads the changes.
    read: bool,
}

/// Returns the event time of a table: windows end at `id`.
fn end(name: &Arc<str>) -> Vec<(usize, EventTime)> {
    let mut time = EventTime::watermark(crate::Called::new(name.clone()), DataType::Int64);
    time.edge = Some(Edge::End);
    vec![(0, time)]
}

/// Returns the largest time among inserted rows.
fn newest(chunk: &Chunk) -> Option<i64> {
    let ids = chunk.rows.column(0).as_primitive::<Int64Type>();
    ids.iter().flatten().filter(|_| chunk.weights.is_none()).max()
}

fn limits(on_close: bool) -> Limits {
    Limits { whole_rows_max: 1, on_close, ..Limits::default() }
}

fn maintained(on_close: bool) -> Vec<Maintained> {
    let of = |(operator, sql): &(&str, &'static str)| {
        let taken = Fixture::new();
        let mut flow = taken.compile_over(sql, limits(on_close), &end);
        let kept = flow.keep_result();
        let text = flow.explain().join("\n");
        let open = if *operator == "AsOf" { "above the watermark" } else { "the open " };
        assert!(text.contains(operator) && text.contains(open) && !text.contains("Whole"), "{text}");
        Maintained { sql, flow, sum: Delta::default(), taken, closed: None, on_close, kept, read: true }
    };
    // A row that waits for the next row is emitted after its window has closed.
    QUERIES.iter().chain((!on_close).then_some(&("AsOf", NEXT))).map(of).collect()
}

impl Maintained {
    /// Returns the rows of a delta that are in time, and those that are late.
    fn split(&self, delta: &Delta) -> [Delta; 2] {
        [false, true].map(|wanted| {
            let mut some = Delta::default();
            for chunk in &delta.chunks {
                let is_late = chunk.rows.column(0).as_primitive::<Int64Type>().iter().map(|id| match id {
                    Some(id) => self.closed.is_some_and(|closed| id < closed),
                    None => self.on_close,
                });
                let mask: BooleanArray = is_late.map(|is_late| Some(is_late == wanted)).collect();
                some.push(keep(chunk, &mask).unwrap());
            }
            some
        })
    }

    /// Replaces the flow by another one now and then, as after a restart.
    fn restart(&mut self, random: &mut Random, times: TimesOf<'_>) {
        if random.below(3) == 0 {
            let mut other = self.taken.compile_over(self.sql, limits(self.on_close), times);
            assert_eq!(other.keep_result(), self.kept);
            again(&mut self.flow, other);
        }
    }

    fn step(&mut self, cut: &Cut, changes: &[Delta; 2]) {
        let named = |name: &Arc<str>| NAMES.iter().position(|known| *known == name.as_ref()).unwrap();
        let tables: Vec<usize> = self.flow.relations().iter().map(named).collect();
        let split = changes.each_ref().map(|delta| self.split(delta));
        let given: Vec<&Delta> = tables.iter().map(|table| &changes[*table]).collect();
        let Change { rows, errors, late, .. } =
            self.flow.step_for(cut, &given, self.read).unwrap().with_texts().unwrap();
        assert!(errors.is_empty());
        assert!(!self.on_close || rows.is_append_only(), "{}", self.sql);
        let count = |delta: &Delta| -> u64 {
            let of = |chunk: &Chunk| {
                (0..chunk.rows.num_rows()).map(|row| chunk.weight(row).unsigned_abs()).sum::<u64>()
            };
            delta.chunks.iter().map(of).sum()
        };
        let expected: u64 = tables.iter().map(|table| count(&split[*table][1])).sum();
        let weights =
            late.iter().flat_map(|late| late.column(4).as_primitive::<Int64Type>().values().to_vec());
        assert_eq!(weights.map(i64::unsigned_abs).sum::<u64>(), expected, "{}: late rows", self.sql);
        let [[t, _], [u, _]] = split;
        self.taken.apply(&[t, u]);
        self.sum.append(rows);
        let marks = tables.iter().map(|table| cut.watermark(NAMES[*table]));
        self.closed = marks.reduce(|one, other| one.zip(other).map(|(one, other)| one.min(other))).flatten();
        self.check(cut.epoch);
    }

    fn check(&mut self, epoch: Epoch) {
        let schema = self.flow.schema().unwrap().clone();
        let sql = match (self.on_close, self.closed) {
            (true, closed) => {
                format!("SELECT * FROM ({}) WHERE w < {}", self.sql, closed.unwrap_or(-1000))
            }
            (false, _) => self.sql.into(),
        };
        let expected = Delta::insert(self.taken.at_once(&sql, &schema));
        let expected = sorted(&consolidate(expected, &schema).unwrap());
        if self.kept {
            let content = Delta::from_iter(self.flow.content().unwrap().unwrap());
            assert_eq!(sorted(&consolidate(content, &schema).unwrap()), expected, "epoch {epoch}, {sql}");
        }
        if self.read {
            self.sum = consolidate(std::mem::take(&mut self.sum), &schema).unwrap();
            assert_eq!(sorted(&self.sum), expected, "epoch {epoch}, {sql}");
        }
    }

    /// Returns the number of rows in time of open windows.
    fn open_rows(&self) -> usize {
        let open = |table: usize| {
            let all = self.taken.all(table);
            let ids = all.column(0).as_primitive::<Int64Type>().clone();
            ids.iter().filter(|id| id.is_none_or(|id| self.closed.is_none_or(|closed| id >= closed))).count()
        };
        open(0) + open(1)
    }
}

fn run(seed: u64, on_close: bool, read: bool) {
    let (mut random, mut restarts) = (Random(seed), Random(seed + 1000));
    let mut all = Fixture::new();
    let mut queries = maintained(on_close);
    assert!(queries.iter().filter(|query| query.kept).count() > 3 || on_close);
    queries.retain(|query| read || query.kept);
    queries.iter_mut().for_each(|query| query.read = read);
    let mut watermarks: [Option<i64>; 2] = [None, None];
    for epoch in 1..=24 {
        let changes = [0, 1].map(|table| change_about(&mut random, epoch / 2, Some(&all.all(table))));
        all.apply(&changes);
        let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
        for (table, delta) in changes.iter().enumerate() {
            let newest = delta.chunks.iter().filter_map(newest).max();
            watermarks[table] = newest.map(|newest| newest - DELAY).max(watermarks[table]);
            cut.watermarks.extend(watermarks[table].map(|at| (NAMES[table].into(), at)));
        }
        for query in &mut queries {
            query.restart(&mut restarts, &end);
            query.step(&cut, &changes);
        }
    }
    for query in queries {
        let (kept, open) = (query.flow.state_rows(), query.open_rows());
        assert!(kept <= 4 * open + 40, "{}: {kept} rows are kept, {open} are open", query.sql);
        let late = query.flow.operators().iter().filter_map(|operator| operator.late).sum::<u64>();
        assert!(late > 0, "{}: nothing was late", query.sql);
    }
}

#[test]
fn changes_are_those_of_what_was_in_time() {
    first_seeds(2, 0..4).for_each(|seed| run(seed, false, true));
    (4..6).for_each(|seed| run(seed, false, false));
}

#[test]
fn windows_come_once_when_they_close() {
    first_seeds(2, 10..14).for_each(|seed| run(seed, true, true));
}

/// Queries over a join of `t`, whose windows close, with `u`, which has no clock.
const JOINED: &[&str] = &[
    "SELECT t.id AS w, u.v AS a, count(*) AS n FROM t JOIN u ON t.k = u.k GROUP BY t.id, u.v",
    "SELECT t.id AS w, sum(u.v) AS s, count(*) AS n FROM t LEFT JOIN u ON t.k = u.k AND t.v < u.v GROUP BY t.id",
    "SELECT id AS w, count(*) AS n FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k) GROUP BY id",
    "SELECT t.id AS w, max(u.v) AS most FROM u RIGHT JOIN t ON t.k = u.k GROUP BY t.id",
];

/// Checks that each window has the answer as of its closing, whatever changes in `u` later; of `t` only open
/// windows are kept.
fn run_joined(seed: u64, sql: &'static str, on_close: bool) {
    let times = |name: &Arc<str>| match name.as_ref() {
        "t" => end(name),
        _ => Vec::new(),
    };
    let (mut random, mut restarts) = (Random(seed), Random(seed + 1000));
    let (mut all, taken) = (Fixture::new(), Fixture::new());
    let mut flow = taken.compile_over(sql, limits(on_close), &times);
    let kept = flow.keep_result();
    let text = flow.explain().join("\n");
    assert!(text.contains("only open windows"), "{text}");
    let mut query =
        Maintained { sql, flow, sum: Delta::default(), taken, closed: None, on_close, kept, read: true };
    let schema = query.flow.schema().unwrap().clone();
    let mut last = Delta::default();
    let mut watermark = None;
    for epoch in 1..=24 {
        let changes = [0, 1].map(|table| change_about(&mut random, epoch / 2, Some(&all.all(table))));
        all.apply(&changes);
        let newest = changes[0].chunks.iter().filter_map(newest).max();
        watermark = newest.map(|newest| newest - DELAY).max(watermark);
        let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
        cut.watermarks.extend(watermark.map(|at| ("t".into(), at)));
        let given: Vec<&Delta> =
            query.flow.relations().iter().map(|name| &changes[usize::from(name.as_ref() == "u")]).collect();
        let [in_time, _] = query.split(&changes[0]);
        query.restart(&mut restarts, &times);
        query.sum.append(query.flow.step(&cut, &given).unwrap().rows);
        query.taken.apply(&[in_time, changes[1].clone()]);
        let (from, to) = (query.closed.unwrap_or(-1000), watermark.unwrap_or(-1000));
        let closing = format!("SELECT * FROM ({sql}) WHERE w >= {from} AND w < {to}");
        last.push(Chunk::insert(query.taken.at_once(&closing, &schema)));
        query.closed = watermark;
        let mut expected = last.clone();
        if !on_close {
            let open = format!("SELECT * FROM ({sql}) WHERE w >= {to} OR w IS NULL");
            expected.push(Chunk::insert(query.taken.at_once(&open, &schema)));
        }
        query.sum = consolidate(std::mem::take(&mut query.sum), &schema).unwrap();
        let expected = consolidate(expected, &schema).unwrap();
        assert_eq!(sorted(&query.sum), sorted(&expected), "seed {seed}, epoch {epoch}, {sql}");
        if kept {
            let content = Delta::from_iter(query.flow.content().unwrap().unwrap());
            let content = consolidate(content, &schema).unwrap();
            assert_eq!(sorted(&content), sorted(&expected), "seed {seed}, epoch {epoch}, {sql}");
        }
        let (kept, open) = (query.flow.state_rows(), query.open_rows());
        assert!(
            kept <= 2 * open + all.all(1).num_rows() + 100,
            "{sql}: {kept} rows are kept, {open} are open"
        );
    }
}

#[test]
fn a_join_lets_rows_go_with_their_windows() {
    for seed in first_seeds(2, 20..23) {
        for sql in JOINED {
            run_joined(seed, sql, false);
            run_joined(seed, sql, true);
        }
    }
}

/// Tests windows that end at batch times, which time alone closes: a restarted flow wakes up at the same
/// times.
fn run_by_batches(seed: u64, sql: &str, on_close: bool) -> usize {
    let ends = |_: &Arc<str>| {
        let mut time = EventTime::batch(BatchTime::End);
        time.edge = Some(Edge::End);
        vec![(0, time)]
    };
    let fixture = Fixture::new();
    let compile = || fixture.compile_over(sql, limits(on_close), &ends);
    let (mut first, mut second) = (compile(), compile());
    let schema = first.schema().unwrap().clone();
    let mut random = Random(seed);
    let (mut now, mut woken) = (0, 0);
    for epoch in 1..60 {
        if random.below(3) == 0 {
            again(&mut second, compile());
        }
        let wake_at = first.wake_at();
        assert_eq!(wake_at, second.wake_at(), "seed {seed}, epoch {epoch}, {sql}");
        now = match wake_at.filter(|_| random.below(2) == 0) {
            Some(at) => at.0,
            None => now + 1 + random.below(4) as i64,
        };
        let cut = Cut::new(Epoch(epoch), Timestamp(now));
        assert_eq!(first.is_due(&cut), second.is_due(&cut));
        woken += usize::from(wake_at == Some(cut.now) && first.is_due(&cut));
        let count = random.below(4) as usize;
        let ends = (0..count).map(|_| (now + random.below(8) as i64) * 1000 - random.below(700) as i64);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ends));
        let others = rows(&mut random, count);
        let columns = std::iter::once(ids).chain(others.columns()[1..].iter().cloned());
        let delta = Delta::insert(RecordBatch::try_new(crate::fixture::schema(), columns.collect()).unwrap());
        let [one, other] =
            [&mut first, &mut second].map(|flow| flow.step(&cut, &[&delta]).unwrap().with_texts().unwrap());
        let put_out = |change: Change| sorted(&consolidate(change.rows, &schema).unwrap());
        assert_eq!((&one.late, sorted(&one.errors)), (&other.late, sorted(&other.errors)), "{sql}");
        assert_eq!(put_out(one), put_out(other), "seed {seed}, epoch {epoch}, {sql}");
        assert_eq!(first.state_rows(), second.state_rows());
    }
    woken
}

#[test]
fn windows_of_batches_close_when_they_would_have() {
    let queries = [
        "SELECT id AS w, k, count(*) AS n FROM t GROUP BY id, k",
        "SELECT id AS w, median(10 / v) AS m FROM t GROUP BY id",
        "SELECT id AS w, 10 / v AS q, sum(100 / (v - 3)) AS s FROM t GROUP BY id, 10 / v",
        "SELECT id AS w, k, v, sum(10 / v) OVER (PARTITION BY id ORDER BY v) AS s FROM t",
    ];
    for sql in queries {
        for on_close in [false, true] {
            let woken: usize = (0..3).map(|seed| run_by_batches(seed, sql, on_close)).sum();
            assert!(woken > 20, "{sql}: {woken}");
        }
    }
}
