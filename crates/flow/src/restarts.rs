//! Tests with two flows of one query, one of which is restarted now and then: their outputs must be the same.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use millstream_delta::{Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_seeds::first_seeds;
use millstream_state::Tables;

use crate::fixture::{Fixture, NAMES, Random, TimesOf, again, change_about, delta, sorted, step};
use crate::{Change, EventTime, Flow, Limits, share_rows};

/// The distance by which rows may be behind the newest one.
const DELAY: i64 = 3;

/// Two flows of one query.
struct Twins<'a> {
    sql: &'a str,
    compile: &'a dyn Fn(&str) -> Flow,
    steady: Flow,
    moving: Flow,
    /// True if rows or keys had no answer.
    failed: bool,
}

impl<'a> Twins<'a> {
    fn new(sql: &'a str, operator: &str, compile: &'a dyn Fn(&str) -> Flow) -> Twins<'a> {
        let twins = Twins { sql, compile, steady: compile(sql), moving: compile(sql), failed: false };
        let text = twins.steady.explain().join("\n");
        assert!(text.contains(operator) && !text.contains("Whole"), "{sql}: {text}");
        twins
    }

    /// Restarts one of the flows.
    fn restart(&mut self) {
        again(&mut self.moving, (self.compile)(self.sql));
    }

    /// Steps both flows.
    fn step(&mut self, cut: &Cut, changes: &[Delta; 2]) -> Change {
        let Twins { sql, steady, moving, .. } = self;
        assert_eq!(steady.is_due(cut), moving.is_due(cut), "{sql}");
        let [one, other] = [&mut *steady, &mut *moving].map(|flow| {
            let of = |name: &Arc<str>| NAMES.iter().position(|known| *known == name.as_ref()).unwrap();
            let given: Vec<&Delta> = flow.relations().iter().map(|name| &changes[of(name)]).collect();
            flow.step(cut, &given).unwrap().with_texts().unwrap()
        });
        let rows = |change: &Change| {
            let net = consolidate(change.rows.clone(), steady.schema().unwrap()).unwrap();
            sorted(&net)
        };
        assert_eq!(rows(&one), rows(&other), "epoch {}, {sql}", cut.epoch);
        assert_eq!(sorted(&one.errors), sorted(&other.errors), "epoch {}, {sql}", cut.epoch);
        let late = |change: &Change| sorted(&Delta::from_iter(change.late.clone()));
        assert_eq!(late(&one), late(&other), "epoch {}, {sql}", cut.epoch);
        assert_eq!((steady.wake_at(), steady.now()), (moving.wake_at(), moving.now()), "{sql}");
        assert_eq!((steady.state_rows(), steady.late()), (moving.state_rows(), moving.late()), "{sql}");
        self.failed |= !one.errors.is_empty();
        one
    }
}

/// Steps queries through random changes and restarts.
fn check(operator: &str, queries: &[&str], seeds: std::ops::Range<u64>) {
    let mut failed = vec![false; queries.len()];
    for seed in seeds {
        let (mut random, fixtures) = (Random(seed), Fixture::new());
        let compile = |sql: &str| fixtures.compile(sql);
        let mut all: Vec<Twins<'_>> = queries.iter().map(|sql| Twins::new(sql, operator, &compile)).collect();
        let mut changing = Fixture::new();
        for epoch in 1..12 {
            // Sometimes before the first row, and sometimes twice.
            for twins in &mut all {
                (0..random.below(3)).for_each(|_| twins.restart());
            }
            let changes = changing.change(&mut random);
            let cut = Cut::new(Epoch(epoch), Timestamp(epoch as i64));
            for twins in &mut all {
                twins.step(&cut, &changes);
            }
        }
        for (at, (sql, twins)) in queries.iter().zip(&all).enumerate() {
            failed[at] |= twins.failed;
            let [one, other] = [&twins.steady, &twins.moving].map(|flow| {
                let meters = flow.operators().into_iter().map(|operator| operator.meter);
                meters
                    .map(|meter| (meter.steps, meter.rows_in, meter.rows_out, meter.errors))
                    .collect::<Vec<_>>()
            });
            assert_eq!(one, other, "{sql}");
        }
    }
    let fails = |sql: &&str| sql.contains("/ ") || sql.contains("DECIMAL");
    assert_eq!(failed, queries.iter().map(fails).collect::<Vec<_>>());
}

#[test]
fn joins_go_on() {
    check(
        "Join",
        &[
            "SELECT t.id, u.v FROM t FULL JOIN u ON t.k = u.k AND 100 / (t.v + u.v - 4) > 9",
            "SELECT t.id, u.v FROM t LEFT JOIN u ON t.k = 10 / u.v",
            "SELECT t.id, u.v FROM t RIGHT JOIN u ON t.k = u.k AND t.s = u.s AND t.v < u.v",
            "SELECT t.id FROM t LEFT ANTI JOIN u ON t.k = u.k AND t.f = u.f",
            "SELECT t.id FROM t LEFT SEMI JOIN u ON t.k IS NOT DISTINCT FROM u.k",
            "SELECT t.id, u.id FROM t FULL JOIN u ON t.v < u.v AND t.v + 4 > 10 / u.v",
            "SELECT t.id FROM t WHERE t.v IN (SELECT u.v FROM u WHERE u.s <> t.s) OR t.k = 3",
            "SELECT a.id, b.v FROM t AS a FULL JOIN t AS b ON a.k = b.k",
            "SELECT a.id, b.v, c.s FROM u AS a JOIN u AS b ON a.k = b.k LEFT JOIN u AS c ON c.k = b.k AND c.s = 't2'",
        ],
        0..8,
    );
}

#[test]
fn keys_go_on_with_those_that_have_no_answer() {
    check(
        "PerKey",
        &[
            "SELECT k, sum(10 / v) OVER (PARTITION BY k) AS x FROM t",
            "SELECT s, k, percent_rank() OVER (PARTITION BY f, k ORDER BY 10 / v) AS x FROM t",
            "SELECT v, count(*) OVER (PARTITION BY 10 / v) AS x FROM t",
            "SELECT id, array_agg(id) OVER (PARTITION BY s) AS x FROM t",
            "SELECT t.k, approx_distinct(10 / t.v) AS m, max(u.v) AS x FROM t LEFT JOIN u ON t.k = u.k GROUP BY t.k",
        ],
        10..16,
    );
}

#[test]
fn first_rows_go_on() {
    check(
        "TopN",
        &[
            "SELECT id, v FROM t ORDER BY 10 / v, id, k, s, f, v LIMIT 5",
            "SELECT id, v FROM t ORDER BY v DESC NULLS LAST, id, k, s, f LIMIT 4 OFFSET 2",
            "SELECT * FROM (SELECT k, id, rank() OVER (PARTITION BY f ORDER BY v) AS n FROM t) WHERE n < 4",
            "SELECT k, v, n FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC, id, s, f) AS n FROM t) \
             WHERE n <= 3",
        ],
        20..26,
    );
}

#[test]
fn windows_go_on_with_partitions_that_fail() {
    let big = "CAST('9000000000000000000000000000000000000' AS DECIMAL(38, 0))";
    let value = format!("CASE WHEN v = 0 THEN {big} ELSE CAST(v AS DECIMAL(38, 0)) END");
    let failing = |window: &str| format!("SELECT k, v, avg({value}) OVER ({window}) AS x FROM t");
    let of = |call: &str, window: &str| format!("SELECT id, k, v, {call} OVER ({window}) AS x FROM t");
    let queries = [
        failing("PARTITION BY k ORDER BY v DESC, id, s, f"),
        failing("PARTITION BY f, s ORDER BY id, v, k"),
        failing("ORDER BY v DESC, id, k, s, f"),
        of("dense_rank()", "PARTITION BY k ORDER BY v"),
        of("count(*)", "PARTITION BY k ORDER BY v GROUPS BETWEEN 1 PRECEDING AND 2 FOLLOWING"),
        of("sum(f)", "PARTITION BY k ORDER BY v, id, s, f"),
        of("lag(10 / v)", "PARTITION BY k ORDER BY v, id, s, f"),
        of("max(s)", "ORDER BY v, id, k, s, f ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"),
        of("sum(v)", "PARTITION BY k ORDER BY v RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING"),
    ];
    check("Over [", &queries.iter().map(String::as_str).collect::<Vec<_>>(), 30..36);
}

#[test]
fn few_rows_beside_many_go_on() {
    check(
        "Broadcast",
        &[
            "SELECT t.id, 10 / (t.v - c.x) AS q FROM t JOIN (VALUES (1), (3)) AS c(x) ON t.v > c.x - 2",
            "SELECT t.id, 10 / (t.v - q.m) AS x FROM t JOIN (SELECT min(v) AS m FROM u) AS q ON 10 / t.v >= q.m",
        ],
        40..46,
    );
}

#[test]
fn recursive_queries_go_on() {
    check(
        "Recursion",
        &[
            "WITH RECURSIVE r(x) AS (SELECT k FROM u UNION SELECT t.v FROM t JOIN r ON t.k = x) SELECT x FROM r",
            "WITH RECURSIVE r(a) AS (SELECT v FROM u UNION ALL SELECT a - 1 FROM r WHERE a > 0) SELECT a FROM r",
            "WITH RECURSIVE r(a) AS (SELECT v FROM u UNION SELECT 10 / t.v FROM t JOIN r ON t.k = r.a) SELECT a FROM r",
        ],
        50..56,
    );
}

/// Returns damaged copies of saved state, with missing or additional parts, and true for each that a load
/// must refuse.
fn damaged(kept: &Tables) -> Vec<(Tables, bool)> {
    let mut all = Vec::new();
    for (name, batches) in kept.tables() {
        let batches = &batches.get().unwrap()[..];
        let first = &batches[0];
        let less: Vec<usize> = (0..first.num_columns() - 1).collect();
        let more: Vec<usize> = (0..first.num_columns()).chain([0]).collect();
        let turned: Vec<usize> = (0..first.num_columns()).rev().collect();
        let some = |columns: Vec<usize>| vec![first.project(&columns).unwrap()];
        let others = [
            (Vec::new(), false),
            (vec![first.slice(0, 1)], false),
            ([batches, batches].concat(), false),
            (some(turned), false),
            (vec![nulls(first)], false),
            (some(less), true),
            (some(more), true),
        ];
        all.extend(others.into_iter().map(|(batches, shows)| {
            let mut other = kept.clone();
            other.take(name).unwrap();
            other.put(name, batches);
            (other, shows)
        }));
    }
    for (name, number) in kept.numbers() {
        let [mut without, mut negative] = [kept.clone(), kept.clone()];
        without.take_number(name).unwrap();
        negative.put_number(name, -1 - number);
        all.extend([(without, true), (negative, false)]);
    }
    all
}

fn nulls(rows: &RecordBatch) -> RecordBatch {
    let columns = rows.columns().iter().map(|column| new_null_array(column.data_type(), column.len()));
    let fields = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect()).unwrap()
}

#[test]
fn what_does_not_fit_is_an_error_and_no_panic() {
    let queries = [
        "SELECT t.id, u.v FROM t FULL JOIN u ON t.k = u.k AND t.v < u.v",
        "SELECT t.id FROM t LEFT SEMI JOIN u ON t.k = u.k",
        "SELECT a.id, b.v FROM t AS a FULL JOIN t AS b ON a.k = b.k",
        "SELECT t.id, u.id FROM t JOIN u ON t.v < u.v",
        "SELECT k, sum(10 / v) OVER (PARTITION BY k) AS x FROM t",
        "SELECT id, v FROM t ORDER BY v DESC NULLS LAST, id, k, s, f LIMIT 4",
        "SELECT k, sum(CASE WHEN v = 0 THEN 9223372036854775807 ELSE v END) OVER (PARTITION BY k ORDER BY v, id, s, f) AS x \
         FROM t",
        "SELECT t.id FROM t JOIN (VALUES (1), (3)) AS c(x) ON t.v > c.x",
        "WITH RECURSIVE r(x) AS (SELECT k FROM u UNION SELECT t.v FROM t JOIN r ON t.k = x) SELECT x FROM r",
    ];
    let (mut random, fixture) = (Random(7), Fixture::new());
    for sql in queries {
        let mut changing = Fixture::new();
        let mut flow = fixture.compile(sql);
        let changes = (1..6).map(|_| changing.change(&mut random)).collect::<Vec<_>>();
        for (epoch, changes) in (1..).zip(&changes) {
            step(&mut flow, epoch, changes);
        }
        let kept = flow.save().unwrap();
        for (damaged, shows) in damaged(&kept) {
            let loaded = fixture.compile(sql).load(damaged.clone(), &[]);
            assert!(loaded.is_err() || !shows, "{sql}: {damaged:#?}");
        }
        fixture.compile(sql).load(kept, &[]).unwrap();
    }
}

/// Steps queries over tables with advancing times in `id`; returns the number of late rows.
fn check_by_time(operator: &str, queries: &[String], of: &[&str], on_close: bool, seed: u64) -> u64 {
    let (mut random, fixture, mut all) = (Random(seed), Fixture::new(), Fixture::new());
    let looked_up = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))));
    fixture.context().register_udf(create_udf(
        "looked_up",
        vec![DataType::Int64; 2],
        DataType::Boolean,
        Volatility::Stable,
        Arc::new(looked_up),
    ));
    let limits = Limits { whole_rows_max: 1, on_close, ..Limits::default() };
    let times =
        |name: &Arc<str>| vec![(0, EventTime::watermark(crate::Called::new(name.clone()), DataType::Int64))];
    let times: TimesOf<'_> = if operator == "Join" { &times } else { &|_| Vec::new() };
    let compile = |sql: &str| fixture.compile_of(sql, limits, times, of);
    let mut twins: Vec<Twins<'_>> = queries.iter().map(|sql| Twins::new(sql, operator, &compile)).collect();
    let mut watermarks: [Option<i64>; 2] = [None, None];
    for epoch in 1..=24 {
        let changes = [0, 1].map(|table| {
            let there = all.all(table);
            change_about(&mut random, epoch / 2, (!of.contains(&NAMES[table])).then_some(&there))
        });
        all.apply(&changes);
        let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
        for table in 0..2 {
            if random.below(3) > 0 {
                watermarks[table] = Some(epoch / 2 - DELAY).max(watermarks[table]);
            }
            cut.watermarks.extend(watermarks[table].map(|at| (NAMES[table].into(), at)));
        }
        for twins in &mut twins {
            if random.below(3) == 0 {
                twins.restart();
            }
            twins.step(&cut, &changes);
        }
    }
    twins.iter().filter_map(|twins| twins.steady.late()).sum()
}

#[test]
fn rows_that_go_by_time_go_on() {
    let bounds = [
        "t.k = u.k AND t.id <= u.id + 3 AND u.id <= t.id + 2",
        "t.k = u.k AND t.id <= u.id + 10 / u.v AND u.id <= t.id + 2",
        "t.id <= u.id + 3 AND u.id <= t.id + 2 AND 100 / (t.v + u.v - 4) > 9",
        "t.k = u.k AND t.id <= u.id + 3",
    ];
    let mut late = 0;
    for (at, kind) in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"]
        .iter()
        .enumerate()
    {
        let right = if kind.contains("LEFT ") && *kind != "LEFT JOIN" { "" } else { ", u.id AS x, u.v AS y" };
        let queries: Vec<String> =
            bounds.iter().map(|by| format!("SELECT t.id, t.v{right} FROM t {kind} u ON {by}")).collect();
        for (more, of) in [&[][..], &["t"], &["u"], &["t", "u"]].into_iter().enumerate() {
            late += check_by_time("Join", &queries, of, false, (10 * at + more) as u64);
        }
        // Unmatched rows are emitted when they expire.
        late += check_by_time("Join", &queries[..3], &["t", "u"], true, at as u64);
    }
    assert!(late > 0);
}

/// The rows seen so far, over append-only inputs.
#[test]
fn recursive_queries_over_rows_that_only_come_go_on() {
    let queries = [
        "WITH RECURSIVE r(x) AS (SELECT k FROM u UNION SELECT t.v FROM t JOIN r ON t.k = x) SELECT x FROM r",
        "WITH RECURSIVE r(x, s) AS (SELECT k, s FROM u UNION SELECT 10 / t.v, t.s FROM t JOIN r ON t.k = x) SELECT x, s FROM r",
    ];
    for seed in first_seeds(2, 0..4) {
        check_by_time("Recursion", &queries.map(str::to_string), &["t", "u"], false, seed);
    }
}

#[test]
fn look_ups_go_on() {
    let queries = [
        "SELECT t.id, u.id AS x, u.v FROM t JOIN u ON t.k = u.k AND looked_up(t.id, u.id)",
        "SELECT t.id, u.id AS x, u.v FROM t LEFT JOIN u ON t.k = u.k AND t.v < u.v AND looked_up(t.id, u.id)",
        "SELECT t.id, u.id AS x, u.v FROM t LEFT JOIN u ON t.k = 10 / u.v AND 10 / t.v < u.v AND looked_up(t.id, u.id)",
        "SELECT t.id FROM t LEFT SEMI JOIN u ON t.k = u.k AND looked_up(t.id, u.id)",
    ];
    for seed in first_seeds(2, 0..4) {
        check_by_time("LookUp", &queries.map(str::to_string), &["t"], false, seed);
    }
}

/// Shared arrangements are saved with each flow, and can be shared again.
#[test]
fn flows_that_shared_rows_share_them_again() {
    let fixture = Fixture::new();
    let queries = [
        "SELECT t.id, u.v FROM t JOIN u ON t.k = u.k",
        "SELECT t.k, t.v, u.v FROM t LEFT JOIN u ON t.k = u.k",
    ];
    let compile = |sql: &str| fixture.compile(sql);
    let mut all = queries.map(|sql| Twins::new(sql, "Join", &compile));
    let share = |all: &mut [Twins<'_>; 2], epoch: u64, content: &[Delta; 2]| {
        for at in [0, 1] {
            let name = NAMES[at];
            let place = |flow: &Flow| {
                let named = |found: &crate::Shareable<'_>| *flow.relations()[found.relation] == *name;
                flow.shareable().iter().find(|found| named(found)).map(|found| found.place).unwrap()
            };
            let places = all.each_ref().map(|twins| place(&twins.moving));
            let [one, other] = &mut *all;
            let mut readers = [(&mut one.moving, places[0]), (&mut other.moving, places[1])];
            assert!(share_rows(&mut readers, epoch, Some(&content[at])).unwrap().is_some());
        }
    };
    let change = |all: &mut [Twins<'_>; 2], epoch: u64, t: Delta, u: Delta| {
        let (cut, changes) = (Cut::new(Epoch(epoch), Timestamp(epoch as i64)), [t, u]);
        all.iter_mut().map(|twins| twins.step(&cut, &changes).rows.num_rows()).sum::<usize>()
    };
    let none = Delta::default;
    let content = [delta(&[(1, 2), (2, 5), (3, 9)], 1), delta(&[(1, 7), (1, 8)], 1)];
    change(&mut all, 1, content[0].clone(), content[1].clone());
    share(&mut all, 1, &content);
    change(&mut all, 2, delta(&[(1, 2)], -1), delta(&[(2, 7), (4, 8)], 1));
    let kept = all.each_ref().map(|twins| twins.moving.save().unwrap());
    for (twins, kept) in all.iter_mut().zip(kept) {
        assert!(kept.tables().any(|(name, _)| name.starts_with("found-")));
        let mut new = compile(twins.sql);
        new.load(kept, &[]).unwrap();
        assert!(new.shareable().iter().all(|found| found.shared.is_none()));
        assert_eq!(new.state_rows(), twins.steady.state_rows());
        twins.moving = new;
    }
    assert!(change(&mut all, 3, none(), delta(&[(2, 1), (3, 1)], 1)) > 0);
    let content = [delta(&[(2, 5), (3, 9)], 1), delta(&[(1, 7), (1, 8), (2, 7), (4, 8), (2, 1), (3, 1)], 1)];
    share(&mut all, 3, &content);
    assert!(change(&mut all, 4, delta(&[(4, 4)], 1), delta(&[(2, 7)], -1)) > 0);
    // A flow that shares an arrangement before it loads ends up with only the saved rows.
    let mut new = compile(all[1].sql);
    let shared = all[1]
        .moving
        .shareable()
        .iter()
        .find(|found| *all[1].moving.relations()[found.relation] == *"u")
        .map(|found| found.place)
        .unwrap();
    let mut readers = [(&mut all[1].moving, shared), (&mut new, shared)];
    assert!(share_rows(&mut readers, 4, None).unwrap().is_some());
    new.load(all[1].moving.save().unwrap(), &[]).unwrap();
    all[1].moving = new;
    assert!(change(&mut all, 5, delta(&[(4, 4), (3, 9)], -1), none()) > 0);
    assert!(change(&mut all, 6, delta(&[(4, 4)], 1), delta(&[(4, 8), (2, 1)], -1)) > 0);
}
