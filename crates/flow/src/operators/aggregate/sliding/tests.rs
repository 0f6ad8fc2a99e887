//! Tests windows over random batches against the batch answer over their rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{Chunk, Closes, Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_state::Rows;

use super::super::tests::{Fixture, Random, rows, schema};
use super::{SlidingAggregate, lower};
use crate::fixture::{go_on, step_alike};
use crate::operator::{KeepsResult, Operator, State};
use crate::{BatchWindow, Driver};

/// Returns the operator for the aggregate of a query, and the columns of the table that it reads.
fn operator(fixture: &Fixture, sql: &str, span: BatchWindow) -> (SlidingAggregate, Vec<usize>) {
    let state = fixture.context.state();
    let plan = fixture.runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
    let driver = Driver::new(&state, fixture.runtime.handle().clone());
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            let LogicalPlan::TableScan(scan) = aggregate.input.as_ref() else { panic!("{sql}: {plan}") };
            let columns = scan.projection.clone().unwrap_or_else(|| (0..schema().fields().len()).collect());
            found = Some((lower(node, aggregate, span, &driver).unwrap().unwrap(), columns));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found.unwrap()
}

/// Steps a query through random batches, some of which are empty or missing.
fn check(sql: &str, length: i64, slide: i64, seed: u64) {
    let (mut random, mut restarts) = (Random(seed), Random(seed));
    let mut fixture = Fixture::new();
    let made = |fixture: &Fixture| operator(fixture, sql, BatchWindow { length, slide: Some(slide) });
    let (mut operator, columns) = made(&fixture);
    // The id of grouping sets is no column of the query.
    let schema_of_all = operator.properties().schema.clone();
    let named =
        schema_of_all.fields().iter().enumerate().filter(|(_, field)| field.name() != "__grouping_id");
    let named: Vec<usize> = named.map(|(place, _)| place).collect();
    let result = Arc::new(schema_of_all.project(&named).unwrap());
    let mut batches: Vec<(i64, RecordBatch)> = Vec::new();
    let mut sum = Delta::default();
    let mut quiet = 0;
    for now in 1..=3 * length + 15 {
        let mut delta = Delta::default();
        quiet -= 1;
        if random.below(25) == 0 {
            quiet = random.below(2 * length as u64 + 2) as i64;
        }
        if quiet < 0 && random.below(4) > 0 {
            let count = 1 + random.below(12) as usize;
            let rows = rows(&mut random, count);
            delta.push(Chunk::insert(rows.project(&columns).unwrap()));
            batches.push((now, rows));
        }
        if delta.is_empty() && now % slide != 0 {
            continue;
        }
        if restarts.below(4) == 0 {
            let mut new = made(&fixture).0;
            go_on(&operator, &mut new);
            operator = new;
        }
        let cut = Cut { closes: Closes::All, ..Cut::new(Epoch(now as u64), Timestamp(now)) };
        let output = operator.step(&cut, &[&delta]).unwrap();
        assert!(output.failures.is_empty());
        if now % slide != 0 {
            assert!(output.rows.is_empty());
            continue;
        }
        for Chunk { rows, weights } in output.rows.chunks {
            sum.push(Chunk { rows: rows.project(&named).unwrap(), weights });
        }
        fixture.input = Rows::new(schema());
        for (_, rows) in batches.iter().filter(|(time, _)| *time > now - length) {
            fixture.input.apply(&Delta::of(Chunk::insert(rows.clone()))).unwrap();
        }
        fixture.register();
        let expected = fixture.at_once(sql, &result);
        let mut difference = sum.clone();
        difference.push(Chunk::delete(expected.clone()));
        let difference = consolidate(difference, &result).unwrap();
        assert!(
            difference.is_empty(),
            "{sql} of {length} every {slide}, seed {seed}, at {now}: {difference:#?}"
        );
        let mut content = Delta::of(Chunk::delete(expected));
        operator
            .content(&|_| None)
            .unwrap()
            .unwrap()
            .into_iter()
            .for_each(|rows| content.push(Chunk::insert(rows.project(&named).unwrap())));
        assert!(consolidate(content, &result).unwrap().is_empty(), "{sql}: content at {now}");
        sum = consolidate(sum, &result).unwrap();
    }
}

const SPANS: [(i64, i64); 6] = [(1, 1), (7, 1), (16, 1), (6, 2), (9, 6), (3, 5)];

fn check_spans(sql: &str) {
    for (place, (length, slide)) in SPANS.into_iter().enumerate() {
        check(sql, length, slide, place as u64);
    }
}

#[test]
fn what_subtracts_is_right_for_every_window() {
    check_spans("SELECT i8, count(*), count(t), sum(i64), avg(d128), bool_or(b) FROM t GROUP BY i8");
    check_spans("SELECT count(*), sum(i32), sum(f64), regr_count(f64, f32) FROM t");
}

#[test]
fn what_is_put_together_is_right_for_every_window() {
    check_spans("SELECT i8, max(i64), min(t), max(b), spread(i64), sum(i64) FROM t GROUP BY i8");
    check_spans("SELECT min(f64), max(vbin), array_agg(i16 ORDER BY i16) FROM t");
    check_spans("SELECT b, array_agg(i16 ORDER BY i16), string_agg(t, ',' ORDER BY t) FROM t GROUP BY b");
}

#[test]
fn filters_and_grouping_sets_are_in_windows_too() {
    check_spans(
        "SELECT b, max(i64) FILTER (WHERE i8 > 20), sum(i8) FILTER (WHERE u8 > 20) FROM t GROUP BY b",
    );
    check_spans("SELECT b, u8, max(i64), count(*) FROM t GROUP BY ROLLUP (b, u8)");
    check_spans("SELECT b, u8 FROM t GROUP BY b, u8");
}

#[test]
fn only_values_are_kept_and_nothing_of_what_left() {
    let fixture = Fixture::new();
    let sql = "SELECT b, max(i64), sum(f64) FROM t GROUP BY b";
    let (mut operator, columns) = operator(&fixture, sql, BatchWindow { length: 50, slide: None });
    let mut random = Random(3);
    let mut sizes = Vec::new();
    for now in 1..=400 {
        let rows = rows(&mut random, 500).project(&columns).unwrap();
        let delta = if now <= 300 { Delta::of(Chunk::insert(rows)) } else { Delta::default() };
        let cut = Cut { closes: Closes::All, ..Cut::new(Epoch(now as u64), Timestamp(now)) };
        operator.step(&cut, &[&delta]).unwrap();
        sizes.push((operator.state_rows(), operator.state_bytes()));
    }
    // true, false and NULL, in the result and in each pane.
    assert_eq!(sizes[200].0, 3 + 3 * 50);
    assert!(sizes[290].1 < 150_000, "{sizes:?}");
    assert_eq!(sizes[399].0, 0);
}

#[test]
fn its_description_says_what_is_subtracted() {
    let fixture = Fixture::new();
    let span = BatchWindow { length: 3_600_000_000, slide: Some(90_000_000) };
    let (operator, _) = operator(&fixture, "SELECT b, max(i64), sum(f64) FROM t GROUP BY b", span);
    let description = operator.describe();
    assert_eq!(
        description.detail,
        "max(t.i64), sum(t.f64) by b@2 over the last 1h every 1m 30s; leaving panes subtracted from sum(t.f64)"
    );
    assert_eq!(description.growth.text(), "bounded: the window's 40 panes");
}

/// Steps two operators, one of which is restarted now and then; returns the numbers of inserted and deleted
/// failures.
fn run_alike(sql: &str, span: BatchWindow, seed: u64) -> [usize; 2] {
    let fixture = Fixture::new();
    let ((mut steady, columns), mut moving) =
        (operator(&fixture, sql, span), operator(&fixture, sql, span).0);
    let (mut random, mut counts) = (Random(seed), [0, 0]);
    for now in 1..=70 {
        if random.below(3) == 0 {
            let mut new = operator(&fixture, sql, span).0;
            go_on(&moving, &mut new);
            moving = new;
        }
        let mut delta = Delta::default();
        if random.below(4) > 0 {
            let count = random.below(4) as usize;
            delta.push(Chunk::insert(rows(&mut random, count).project(&columns).unwrap()));
        }
        let closes = if random.below(5) == 0 { Closes::None } else { Closes::All };
        let cut = Cut { closes, ..Cut::new(Epoch(now as u64), Timestamp(now)) };
        let output = step_alike([&mut steady, &mut moving], &cut, &delta);
        output.failures.iter().for_each(|failure| counts[usize::from(failure.weight < 0)] += 1);
    }
    counts
}

#[test]
fn another_one_goes_on_with_the_window() {
    let queries = [
        "SELECT picky(i64), count(*) FROM t",
        "SELECT b, picky(i64), max(t), sum(f64) FROM t GROUP BY b",
        "SELECT b, sum(100 / i8), min(i16), array_agg(i16 ORDER BY i16) FROM t GROUP BY b",
        "SELECT b, u8 % 2, avg(big), max(1 / i8) FROM t GROUP BY ROLLUP (b, u8 % 2)",
    ];
    for sql in queries {
        let spans = SPANS.map(|(length, slide)| BatchWindow { length, slide: Some(slide) });
        let spans = spans.into_iter().chain([BatchWindow { length: 9, slide: None }]);
        let counts: Vec<[usize; 2]> = spans.zip(0..).map(|(span, seed)| run_alike(sql, span, seed)).collect();
        for place in [0, 1] {
            assert!(counts.iter().any(|counts| counts[place] > 0), "{sql}: {counts:?}");
        }
    }
}
