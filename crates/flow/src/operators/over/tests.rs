//! Tests Over against DataFusion's batch answer.

use millstream_delta::Delta;

use crate::fixture::{Fixture, again, check, delta, sorted, step};

const COMPLETE: &str = "v DESC, id, s, f";

fn over(calls: &[&str], by: &str) -> Vec<String> {
    calls.iter().map(|call| format!("SELECT id, k, s, f, v, {call} OVER ({by}) AS n FROM t")).collect()
}

fn check_all(queries: &[String], seeds: std::ops::Range<u64>) {
    check("Over [", &queries.iter().map(String::as_str).collect::<Vec<_>>(), seeds);
}

#[test]
fn neighbours_follow_inserts_and_deletes() {
    let calls = [
        "lag(v)",
        "lead(id)",
        "lag(f, 2)",
        "lead(s, 2, 'none')",
        "lag(v, 0)",
        "lag(v, -1, 7)",
        "lead(v, 40, 0)",
        "row_number()",
    ];
    for by in
        [format!("PARTITION BY k ORDER BY {COMPLETE}"), format!("PARTITION BY s, k ORDER BY {COMPLETE}")]
    {
        check_all(&over(&calls, &by), 0..2);
    }
    check_all(&over(&calls, "ORDER BY v, id, k, s, f"), 2..4);
}

#[test]
fn ranks_follow_inserts_and_deletes() {
    let calls = ["rank()", "dense_rank()"];
    for by in
        ["PARTITION BY k ORDER BY v", "PARTITION BY s ORDER BY v DESC, k", "ORDER BY k", "PARTITION BY k"]
    {
        check_all(&over(&calls, by), 0..3);
    }
    check_all(
        &[
            "SELECT id, rank() OVER w AS a, dense_rank() OVER w AS b FROM t WINDOW w AS (ORDER BY v)".into(),
            format!("SELECT id, lag(v) OVER w AS a, row_number() OVER w AS b, lead(v, 3) OVER w AS c FROM t WINDOW w AS (PARTITION BY k ORDER BY {COMPLETE})"),
            "SELECT v, n FROM (SELECT *, dense_rank() OVER (PARTITION BY k ORDER BY v) AS n FROM t) WHERE n <= 2".into(),
            "SELECT v, n FROM (SELECT *, rank() OVER (PARTITION BY k ORDER BY v) AS n FROM t) WHERE n > 2".into(),
        ],
        3..6,
    );
}

#[test]
fn frames_of_rows_slide() {
    let calls =
        ["count(*)", "sum(v)", "min(v)", "max(s)", "first_value(v)", "last_value(s)", "nth_value(id, 2)"];
    let frames = [
        "2 PRECEDING AND CURRENT ROW",
        "1 PRECEDING AND 2 FOLLOWING",
        "3 PRECEDING AND 1 PRECEDING",
        "1 FOLLOWING AND 2 FOLLOWING",
        "CURRENT ROW AND CURRENT ROW",
    ];
    for frame in frames {
        let by = format!("PARTITION BY k ORDER BY {COMPLETE} ROWS BETWEEN {frame}");
        check_all(&over(&calls, &by), 0..1);
        check_all(&over(&calls[1..3], &format!("ORDER BY v, id, k, s, f ROWS BETWEEN {frame}")), 2..3);
    }
}

#[test]
fn frames_from_the_first_row_run() {
    let calls = [
        "count(*)",
        "count(s)",
        "sum(v)",
        "avg(v)",
        "min(v)",
        "max(s)",
        "sum(v) FILTER (WHERE id > 1000)",
        "bool_or(v > 7)",
        "first_value(v)",
        "last_value(s)",
        "nth_value(id, 3)",
        "first_value(s) IGNORE NULLS",
        "last_value(v) IGNORE NULLS",
        "nth_value(s, 2) IGNORE NULLS",
    ];
    for frame in ["CURRENT ROW", "2 FOLLOWING", "1 PRECEDING"] {
        let by = format!("PARTITION BY k ORDER BY {COMPLETE} ROWS BETWEEN UNBOUNDED PRECEDING AND {frame}");
        check_all(&over(&calls, &by), 0..2);
        let by = format!("ORDER BY v, id, k, s, f ROWS BETWEEN UNBOUNDED PRECEDING AND {frame}");
        check_all(&over(&calls, &by), 2..5);
    }
}

#[test]
fn peers_share_a_frame() {
    let calls = ["count(*)", "sum(v)", "avg(id)", "max(v)"];
    let bounds = [
        "UNBOUNDED PRECEDING AND CURRENT ROW",
        "CURRENT ROW AND CURRENT ROW",
        "UNBOUNDED PRECEDING AND 2 FOLLOWING",
        "2 PRECEDING AND 1 FOLLOWING",
        "1 FOLLOWING AND 3 FOLLOWING",
        "3 PRECEDING AND 1 PRECEDING",
        "UNBOUNDED PRECEDING AND 1 PRECEDING",
        "0 PRECEDING AND 0 FOLLOWING",
        "1 PRECEDING AND 0 PRECEDING",
    ];
    for bound in bounds {
        for unit in ["GROUPS", "RANGE"] {
            check_all(&over(&calls, &format!("PARTITION BY k ORDER BY v {unit} BETWEEN {bound}")), 0..1);
            check_all(
                &over(&calls[..2], &format!("ORDER BY v DESC NULLS LAST {unit} BETWEEN {bound}")),
                2..3,
            );
        }
    }
    check_all(&over(&calls, "PARTITION BY k ORDER BY v"), 0..4);
    check_all(&over(&calls, "ORDER BY s, k"), 0..4);
}

#[test]
fn all_rows_of_one_partition_are_looked_at_where_they_must_be() {
    let calls = ["percent_rank()", "cume_dist()", "ntile(3)", "sum(v)", "row_number()"];
    check_all(&over(&calls, "ORDER BY v, id, k, s, f"), 0..3);
    check_all(&over(&["count(*)", "max(v)"], ""), 0..3);
    check_all(
        &over(&["sum(v)"], "ORDER BY v, id, k, s, f ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"),
        0..3,
    );
}

#[test]
fn a_partition_that_fails_has_no_rows_until_it_has_an_answer_again() {
    let fixture = Fixture::new();
    let big = "CAST('9000000000000000000000000000000000000' AS DECIMAL(38, 0))";
    let value = format!("CASE WHEN v = 0 THEN {big} ELSE CAST(v AS DECIMAL(38, 0)) END");
    let window = "OVER (PARTITION BY k ORDER BY v DESC, id, s, f)";
    let sql = format!("SELECT k, v, count(*) {window} AS n, avg({value}) {window} AS x FROM t");
    let mut flow = fixture.compile(&sql);
    assert!(flow.explain().join("\n").contains("Over ["), "{:?}", flow.explain());
    let mut epoch = 0;
    let mut changes = |rows: &[(i64, i64)], weight: i64| {
        epoch += 1;
        again(&mut flow, fixture.compile(&sql));
        let change = step(&mut flow, epoch, &[delta(rows, weight), Delta::default()]);
        let errors: Vec<i64> = change.errors.chunks.iter().map(|chunk| chunk.weight(0)).collect();
        (sorted(&change.rows), errors)
    };
    assert_eq!(changes(&[(1, 5), (2, 5), (2, 0)], 1), (vec!["+1 (1, 5, 1, 5.0000)".into()], vec![1]));
    // Still failing, with more rows; another partition continues.
    assert_eq!(changes(&[(2, 7), (1, 3)], 1), (vec!["+1 (1, 3, 2, 4.0000)".into()], vec![]));
    let both = vec!["+1 (2, 5, 2, 6.0000)".to_string(), "+1 (2, 7, 1, 7.0000)".into()];
    assert_eq!(changes(&[(2, 0)], -1), (both.clone(), vec![-1]));
    let gone = both.iter().map(|row| row.replace('+', "-")).collect();
    assert_eq!(changes(&[(2, 0), (2, 1)], 1), (gone, vec![1]));
    // A partition without rows doesn't fail.
    assert_eq!(changes(&[(2, 0), (2, 1), (2, 5), (2, 7)], -1), (vec![], vec![-1]));
}

#[test]
fn a_row_whose_argument_fails_is_left_out() {
    let fixture = Fixture::new();
    let mut flow =
        fixture.compile("SELECT v, lag(10 / v) OVER (PARTITION BY k ORDER BY v, id, s, f) AS x FROM t");
    let change = step(&mut flow, 1, &[delta(&[(1, 0), (1, 5), (1, 2)], 1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (2, NULL)", "+1 (5, 5)"]);
    assert_eq!(change.errors.num_rows(), 1);
    let change = step(&mut flow, 2, &[delta(&[(1, 0), (1, 2)], -1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (5, NULL)", "-1 (2, NULL)", "-1 (5, 5)"]);
    assert_eq!(change.errors.chunks[0].weight(0), -1);
}
