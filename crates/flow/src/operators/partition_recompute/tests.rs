//! Tests fragments maintained key by key against DataFusion's batch answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use millstream_delta::Delta;

use crate::fixture::{Fixture, again, check, check_with, delta, sorted, step};

#[test]
fn over_follows_inserts_and_deletes() {
    check(
        "PerKey",
        &[
            "SELECT id, k, percent_rank() OVER (PARTITION BY k ORDER BY v) AS r FROM t",
            "SELECT id, row_number() OVER (PARTITION BY s, k ORDER BY id, v, f) AS n, count(*) OVER (PARTITION BY k) AS c FROM t",
            "SELECT v, sum(v) OVER (PARTITION BY f) AS x FROM t",
            "SELECT id, min(v) OVER (PARTITION BY s ORDER BY v RANGE BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING) AS x FROM t",
            "SELECT s, cume_dist() OVER (PARTITION BY s, v % 2 ORDER BY k) AS x FROM t WHERE v > 1",
            "SELECT id FROM (SELECT id, percent_rank() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) AS x WHERE n > 0.3",
            "SELECT k, count(*) OVER (PARTITION BY k) AS a, count(*) OVER (PARTITION BY s) AS b FROM t",
        ],
        0..6,
    );
}

#[test]
fn fragments_of_several_nodes_follow_inserts_and_deletes() {
    check(
        "PerKey",
        &[
            "SELECT t.k, approx_distinct(t.v) AS m, max(u.v) AS x FROM t LEFT JOIN u ON t.k = u.k GROUP BY t.k",
            "SELECT t.k, count(*) OVER (PARTITION BY t.k) AS c FROM t LEFT JOIN u ON t.k = u.k AND t.v > u.v",
            "SELECT u.k, count(*) OVER (PARTITION BY u.k) AS c FROM t LEFT JOIN u ON t.k = u.k",
            "SELECT k, approx_distinct(v) AS a, bit_xor(v) AS b, median(f) FILTER (WHERE v > 3) AS c FROM t GROUP BY k",
            "SELECT max(c) AS m, k FROM (SELECT k, v, count(*) OVER (PARTITION BY k, v) AS c FROM t) AS x GROUP BY k",
        ],
        20..26,
    );
}

/// The sum of squares: a user-defined aggregate, which can't retract rows and has no mergeable state that is
/// known here.
#[derive(Debug, Default)]
struct Squares(i64);

impl Accumulator for Squares {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 += values[0].as_primitive::<Int64Type>().iter().flatten().map(|v| v * v).sum::<i64>();
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
}

#[test]
fn aggregates_of_users_follow_inserts_and_deletes() {
    let long = DataType::Int64;
    let squares = create_udaf(
        "squares",
        vec![long.clone()],
        Arc::new(long.clone()),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<Squares>::default())),
        Arc::new(vec![long]),
    );
    let functions = |context: &SessionContext| context.register_udaf(squares.clone());
    check_with(
        "PerKey",
        &functions,
        &[
            "SELECT k, squares(v) AS q, count(*) AS c FROM t GROUP BY k",
            "SELECT s, k, squares(DISTINCT v) AS q FROM t GROUP BY s, k",
            "SELECT id, squares(v) OVER (PARTITION BY k) AS q FROM t",
        ],
        30..34,
    );
}

#[test]
fn a_key_that_fails_has_no_rows_until_it_has_an_answer_again() {
    let fixture = Fixture::new();
    let sql = "SELECT k, sum(10 / v) OVER (PARTITION BY k) AS x FROM t";
    let mut flow = fixture.compile(sql);
    assert!(flow.explain()[0].starts_with("PerKey"), "{:?}", flow.explain());
    let mut changes = |epoch: u64, rows: &[(i64, i64)], weight: i64| {
        again(&mut flow, fixture.compile(sql));
        let change = step(&mut flow, epoch, &[delta(rows, weight), Delta::default()]);
        (sorted(&change.rows), sorted(&change.errors))
    };
    let error = |weight: &str| format!("{weight} (PerKey, division by zero, (2))");
    let first: Vec<(i64, i64)> = (1..100).map(|k| (k, if k == 2 { 0 } else { 5 })).collect();
    let (rows, errors) = changes(1, &first, 1);
    assert_eq!((rows.len(), errors), (98, vec![error("+1")]));
    // Still failing, with more rows; another key continues.
    let (rows, errors) = changes(2, &[(2, 1), (3, 1)], 1);
    assert_eq!((rows, errors), (vec!["+2 (3, 12)".into(), "-1 (3, 2)".into()], vec![]));
    let (rows, errors) = changes(3, &[(2, 0)], -1);
    assert_eq!((rows, errors), (vec!["+1 (2, 10)".into()], vec![error("-1")]));
    let (rows, errors) = changes(4, &[(2, 0), (2, 0)], 1);
    assert_eq!((rows, errors), (vec!["-1 (2, 10)".into()], vec![error("+1")]));
    // A key without rows doesn't fail.
    let (rows, errors) = changes(5, &[(2, 0), (2, 0), (2, 1)], -1);
    assert_eq!((rows, errors), (vec![], vec![error("-1")]));
}

#[test]
fn a_row_whose_key_fails_is_left_out() {
    let fixture = Fixture::new();
    let mut flow = fixture.compile("SELECT v, count(*) OVER (PARTITION BY 10 / v) AS x FROM t");
    let change = step(&mut flow, 1, &[delta(&[(1, 0), (1, 5), (1, 5)], 1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (5, 2)", "+1 (5, 2)"]);
    assert_eq!(change.errors.num_rows(), 1);
    let change = step(&mut flow, 2, &[delta(&[(1, 0), (1, 5)], -1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (5, 1)", "-2 (5, 2)"]);
    assert_eq!(change.errors.chunks[0].weight(0), -1);
}
