//! Tests of completed orderings.

use crate::fixture::Tables;

fn tables() -> Tables {
    Tables::new()
        .table(
            "t",
            "(p INT, o INT, x TEXT, y DOUBLE)",
            "VALUES (1, 1, 'c', 1), (1, 1, 'a', 2), (1, 1, 'b', 3), (1, 2, 'd', 4), (2, 1, 'e', 5), (2, 1, 'f', NULL), (2, NULL, 'g', 6)",
        )
        .table("k", "(id INT PRIMARY KEY, o INT, m TEXT)", "VALUES (1, 1, 'z'), (2, 1, 'y'), (3, 1, 'x')")
}

#[test]
fn limits_take_the_first_of_equal_rows_by_all_columns() {
    let tables = tables();
    tables.check("SELECT x FROM t ORDER BY o LIMIT 2", &["a", "b"]);
    tables.check("SELECT x, o FROM t ORDER BY o LIMIT 2", &["a|1", "b|1"]);
    tables.check("SELECT x FROM t ORDER BY p, o OFFSET 1 LIMIT 1", &["b"]);
    tables.check("SELECT * FROM t LIMIT 2", &["1|1|a|2.0", "1|1|b|3.0"]);
    tables.check("SELECT x FROM t OFFSET 5", &["f", "g"]);
    tables.check("SELECT * FROM (SELECT x FROM t ORDER BY o LIMIT 3) LIMIT 1", &["a"]);
    tables.check("SELECT x FROM (SELECT x, o FROM t ORDER BY o) AS s LIMIT 1", &["a"]);
    tables.check("SELECT (SELECT x FROM t ORDER BY o LIMIT 1)", &["a"]);
    tables.check("SELECT id FROM k ORDER BY o LIMIT 1", &["1"]);
    tables.check("SELECT count(*) FROM t LIMIT 1", &["7"]);
}

#[test]
fn a_key_completes_an_ordering_alone() {
    let tables = tables();
    let plan = tables.plan("SELECT * FROM k ORDER BY o LIMIT 1");
    assert!(plan.starts_with("Sort: k.o ASC NULLS LAST, k.id ASC NULLS LAST, fetch=1"), "{plan}");
    let plan = tables.plan("SELECT * FROM k JOIN t ON k.o = t.o ORDER BY k.id LIMIT 1");
    assert!(plan.contains("k.id ASC NULLS LAST") && plan.contains("t.x ASC NULLS LAST"), "{plan}");
}

#[test]
fn distinct_on_keeps_the_first_by_all_columns() {
    let tables = tables();
    tables.check("SELECT DISTINCT ON (p) p, x FROM t", &["1|a", "2|e"]);
    tables.check("SELECT DISTINCT ON (p) p, x FROM t ORDER BY p, o DESC NULLS LAST", &["1|d", "2|e"]);
    tables.check("SELECT DISTINCT ON (p) x FROM t ORDER BY p DESC LIMIT 1", &["e"]);
    tables.check("SELECT DISTINCT ON (p, p) x FROM t ORDER BY p, p DESC, x DESC LIMIT 1", &["d"]);
}

#[test]
fn what_depends_on_the_order_among_peers_has_one() {
    let tables = tables();
    tables.check(
        "SELECT x, row_number() OVER (PARTITION BY p ORDER BY o) FROM t WHERE p = 1",
        &["a|1", "b|2", "c|3", "d|4"],
    );
    tables.check(
        "SELECT x, lag(x) OVER (ORDER BY p) FROM t WHERE o = 1",
        &["a|NULL", "b|a", "c|b", "e|c", "f|e"],
    );
    tables.check("SELECT x, ntile(2) OVER () FROM t WHERE p = 1", &["a|1", "b|1", "c|2", "d|2"]);
    tables.check(
        "SELECT x, first_value(x) OVER (ORDER BY o) FROM t WHERE p = 1",
        &["a|a", "b|a", "c|a", "d|a"],
    );
    tables.check(
        "SELECT x, sum(o) OVER (ORDER BY p ROWS 1 PRECEDING) FROM t WHERE o IS NOT NULL",
        &["a|1", "b|2", "c|2", "d|3", "e|3", "f|2"],
    );
    tables.check("SELECT x, row_number() OVER () AS n FROM t WHERE p = 2", &["e|1", "f|2", "g|3"]);
}

#[test]
fn peers_stay_peers() {
    let tables = tables();
    tables.check(
        "SELECT x, rank() OVER (ORDER BY o), dense_rank() OVER (ORDER BY o) FROM t WHERE p = 1",
        &["a|1|1", "b|1|1", "c|1|1", "d|4|2"],
    );
    tables.check("SELECT x, count(*) OVER (ORDER BY o) FROM t WHERE p = 1", &["a|3", "b|3", "c|3", "d|4"]);
    tables.check(
        "SELECT x, sum(y) OVER (ORDER BY o) FROM t WHERE p = 1",
        &["a|6.0", "b|6.0", "c|6.0", "d|10.0"],
    );
    tables.check(
        "SELECT x, last_value(x) OVER (PARTITION BY p ORDER BY o) FROM t WHERE p = 1",
        &["a|c", "b|c", "c|c", "d|d"],
    );
    tables.check(
        "SELECT x, last_value(x) OVER (ORDER BY o RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t WHERE p = 1",
        &["a|d", "b|d", "c|d", "d|d"],
    );
    tables.check(
        "SELECT x, first_value(x) OVER (ORDER BY o RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t WHERE p = 1",
        &["a|a", "b|a", "c|a", "d|d"],
    );
}

#[test]
fn different_needs_over_one_window_are_kept_apart_and_names_stay() {
    let tables = tables();
    let sql = "SELECT x, rank() OVER w AS r, row_number() OVER w, row_number() OVER w + 1 AS n, count(*) OVER w \
               FROM t WHERE p = 1 WINDOW w AS (ORDER BY o)";
    tables.check(sql, &["a|1|1|2|3", "b|1|2|3|3", "c|1|3|4|3", "d|4|4|5|4"]);
    let query = tables.planner.query("SELECT row_number() OVER (ORDER BY o) FROM t", &tables).unwrap();
    let name = query.schema.field(0).name();
    assert_eq!(
        name,
        "row_number() ORDER BY [t.o ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    );
}

#[test]
fn aggregates_that_depend_on_order_have_one() {
    let tables = tables();
    tables.check("SELECT p, array_agg(x) FROM t GROUP BY p", &["1|[a, b, c, d]", "2|[e, f, g]"]);
    tables.check("SELECT string_agg(x, ',' ORDER BY o DESC NULLS LAST) FROM t WHERE p = 1", &["d,a,b,c"]);
    tables.check("SELECT string_agg(x, ',') FROM t", &["a,b,c,d,e,f,g"]);
    tables.check(
        "SELECT array_agg(DISTINCT o), string_agg(DISTINCT x, '-') FROM t WHERE p = 1",
        &["[1, 2]|a-b-c-d"],
    );
    tables.check("SELECT first_value(x), last_value(x), nth_value(x, 2) FROM t", &["a|g|b"]);
    tables.check("SELECT first_value(x ORDER BY o) FROM t", &["a"]);
    tables.check("SELECT p, any_value(x) FROM t GROUP BY p", &["1|a", "2|e"]);
    tables.check("SELECT array_agg(x) FILTER (WHERE o = 1), count(*) FROM t", &["[a, b, c, e, f]|7"]);
    let query =
        tables.planner.query("SELECT array_agg(x), first_value(y ORDER BY o) FROM t", &tables).unwrap();
    let names: Vec<&str> = query.schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["array_agg(t.x)", "first_value(t.y) ORDER BY [t.o ASC NULLS LAST]"]);
}

#[test]
fn grouping_sets_keep_their_columns() {
    let tables = tables();
    tables.check(
        "SELECT p, array_agg(x), grouping(p) FROM t WHERE o = 1 GROUP BY ROLLUP(p)",
        &["1|[a, b, c]|0", "2|[e, f]|0", "NULL|[a, b, c, e, f]|1"],
    );
}

#[test]
fn what_cannot_be_ordered_is_left_aside() {
    let tables = tables();
    tables.check("SELECT MAP {1: p} AS m, x FROM t ORDER BY p DESC LIMIT 1", &["{1: 2}|e"]);
    tables.check("SELECT MAP {1: 2} AS m LIMIT 1", &["{1: 2}"]);
}

#[test]
fn functions_that_ignore_their_frame_may_have_any() {
    let over = "OVER (ORDER BY o RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)";
    tables().check(
        &format!("SELECT x, row_number() {over}, count(*) {over} FROM t WHERE p = 1"),
        &["a|1|3", "b|2|3", "c|3|3", "d|4|4"],
    );
}

#[test]
fn any_type_that_can_be_ordered_is() {
    let tables = tables();
    for (value, expected) in [
        ("[x]", "[a]"),
        ("named_struct('v', x)", "{v: a}"),
        ("x = 'a'", "false"),
        ("x::BYTEA", "61"),
        ("y::NUMERIC(5, 2)", "1.00"),
        ("DATE '2024-01-01' + p", "2024-01-02"),
        ("CASE WHEN p = 1 THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END", "1 days"),
        ("TIMESTAMP '2024-01-01' - TIMESTAMP '2023-01-01'", "PT31536000S"),
        ("NULL", "NULL"),
        ("p::SMALLINT", "1"),
        ("y::REAL", "1.0"),
    ] {
        tables.check(&format!("SELECT v FROM (SELECT {value} AS v FROM t) LIMIT 1"), &[expected]);
    }
    tables.check("SELECT array_agg([x]) FROM t WHERE p = 2", &["[[e], [f], [g]]"]);
    tables.check("SELECT array_agg(named_struct('v', x)) FROM t WHERE p = 2", &["[{v: e}, {v: f}, {v: g}]"]);
}

#[test]
fn nested_columns_order_too() {
    let tables = Tables::new().table("n", "(a INT[], s INT)", "VALUES ([2], 1), ([1, 2], 1), (NULL, 1)");
    tables.check("SELECT a FROM n LIMIT 1", &["[1, 2]"]);
    tables.check("SELECT named_struct('v', a) AS q, s FROM n ORDER BY s LIMIT 1", &["{v: [1, 2]}|1"]);
}
