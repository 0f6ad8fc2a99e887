//! Tests that plans of any content are restored unchanged.

use std::sync::Arc;

use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, exists, when};
use datafusion::scalar::ScalarValue;

use super::*;
use crate::fixture::Tables;

fn tables() -> Tables {
    Tables::new()
        .table(
            "t",
            "(k INT PRIMARY KEY, g TEXT, v BIGINT, x DOUBLE, ts TIMESTAMP, l INT[], d NUMERIC(10,2))",
            "VALUES (1, 'a', 1, 1.5, TIMESTAMP '2024-01-01', [1,2], 1.5)",
        )
        .table("u", "(k INT, w TEXT, ts TIMESTAMP)", "VALUES (1, 'x', TIMESTAMP '2024-01-01')")
        .view("seen", "SELECT k AS \"K k\", g FROM t WHERE v > 1")
}

/// One query for each kind of part in a plan.
const QUERIES: &[&str] = &[
    "SELECT k + 1 AS a, -v, NOT (x > 1), g LIKE 'a\\%%' ESCAPE '\\', g SIMILAR TO 'a|b', g ~* 'x' FROM t",
    "SELECT CASE g WHEN 'a' THEN 1 ELSE 2 END, CASE WHEN v IS NULL THEN x END, k BETWEEN 1 AND 3 FROM t",
    "SELECT g, count(*), sum(x), avg(v), min(x), max(d), stddev(x), count(DISTINCT v) FILTER (WHERE k > 1) FROM t GROUP BY g",
    "SELECT g, v, sum(v) FROM t GROUP BY ROLLUP (g, v)",
    "SELECT g, v, count(*) FROM t GROUP BY GROUPING SETS ((g), (v), ())",
    "SELECT t.k, u.w FROM t JOIN u ON t.k = u.k AND t.v > 3",
    "SELECT * FROM t LEFT JOIN u USING (k)",
    "SELECT * FROM t FULL JOIN u ON t.k IS NOT DISTINCT FROM u.k",
    "SELECT * FROM t WHERE k IN (SELECT k FROM u) AND v NOT IN (SELECT k FROM u) AND EXISTS (SELECT 1 FROM u WHERE u.w = t.g)",
    "SELECT k, (SELECT max(w) FROM u), (SELECT count(*) FROM u WHERE u.k = t.k) FROM t",
    "SELECT DISTINCT ON (g) g, k FROM t ORDER BY g, k DESC",
    "SELECT DISTINCT g FROM t UNION ALL SELECT w FROM u UNION SELECT 'x'",
    "SELECT k FROM t ORDER BY v DESC NULLS LAST LIMIT 3 OFFSET 1",
    "SELECT k, row_number() OVER (PARTITION BY g ORDER BY v), lag(v, 2, 0) IGNORE NULLS OVER (ORDER BY k) FROM t",
    "SELECT k, sum(v) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW), first_value(v) OVER (PARTITION BY g ORDER BY v GROUPS 1 PRECEDING), max(x) OVER (ORDER BY k ROWS 2 PRECEDING) FROM t",
    "SELECT k, sum(v) OVER (ORDER BY k RANGE BETWEEN 10 PRECEDING AND 5 PRECEDING), min(v) OVER (ORDER BY v DESC RANGE BETWEEN 2 FOLLOWING AND 5 FOLLOWING), count(*) OVER (ORDER BY k GROUPS BETWEEN 3 PRECEDING AND 1 PRECEDING), sum(v) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND 0 FOLLOWING) FROM t",
    "SELECT length(g::BYTEA), octet_length(g), INTERVAL '1 day' * x, 2 * INTERVAL '3 hours' FROM t",
    "SELECT k, unnest(l), array_agg(v) OVER (PARTITION BY g ORDER BY k) FROM t",
    "SELECT array_agg(DISTINCT g ORDER BY g), string_agg(g, ',' ORDER BY k), (array_agg(v ORDER BY k))[2] FROM t",
    "SELECT date_part('year', ts), to_char(ts, 'YYYY'), extract(day FROM ts), date_trunc('hour', ts) FROM t",
    "SELECT '{1,2}'::INT[], '1 day 2 hours'::INTERVAL, g::NUMERIC(5,1), TRY_CAST(g AS INT) AS tried, 'a'::VARCHAR(3), 1.5::DECIMAL(30,10) FROM t",
    "SELECT INTERVAL '1 month 3 days', DATE '2024-01-01', TIMESTAMPTZ '2024-01-01 00:00:00+02', X'00ff', [1.5, NULL], {'a': 1, 'b': [NULL]}, MAP {'k': 1} FROM t",
    "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY g ORDER BY ts, x DESC MEASURES a.v AS first, FINAL LAST(b.v, 1) AS last,
       CLASSIFIER() AS c, MATCH_NUMBER() AS m, sum(b.x) AS s, PREV(b.d) AS p
       ALL ROWS PER MATCH WITH UNMATCHED ROWS AFTER MATCH SKIP TO LAST b PATTERN (^ a (b | u){1,3} c?) WITHIN INTERVAL '1 hour'
       SUBSET ab = (a, b) DEFINE a AS v > 0, b AS b.v > PREV(b.v, 2) AND count(ab.*) < 9, u AS u.v + 1 > a.v)",
    "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY k PATTERN (PERMUTE(a, b)) DEFINE a AS x > 9.5)",
    "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY k MEASURES avg(b.v) AS mean, bit_and(b.v) AS bits PATTERN (a b+) DEFINE b AS x > 1)",
    "SELECT avg(ts - ts), avg(INTERVAL '1 day' * v) FROM t GROUP BY g",
    "SELECT json_build_object('k', k) FROM t",
    "WITH RECURSIVE n AS (SELECT k FROM t UNION SELECT k + 1 FROM n WHERE k < 5) SELECT * FROM n",
    "SELECT window_start, count(*) FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY 1",
    "SELECT window_start, window_end, count(*) FROM HOP(t, ts, INTERVAL '1 minute', INTERVAL '10 minutes') GROUP BY 1, 2",
    "SELECT window_start, k, count(*) FROM SESSION(t PARTITION BY k, ts, INTERVAL '1 minute') GROUP BY 1, k",
    "SELECT t.k, u.w FROM t ASOF JOIN u MATCH_CONDITION (t.ts >= u.ts) ON t.k = u.k",
    "SELECT k FROM t WHERE ts > now() - INTERVAL '1 hour'",
    "SELECT \"K k\" AS \"Quoted.Name\", \"seen\".g FROM seen",
    "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v (a, b) JOIN t ON t.k = a",
    "SELECT k FROM t WHERE g = 'a' OR g = 'b' OR v > 3 AND x <> 4",
    "SELECT md5(g), sha256(g), regexp_replace(g, 'a', 'b'), coalesce(g, 'x'), nullif(v, 1), greatest(v, k) FROM t",
];

fn maintained(tables: &Tables, sql: &str) -> crate::Result<BatchQuery> {
    let mut query = tables.planner.query(sql, tables)?;
    tables.planner.continuous(&mut query)?;
    Ok(BatchQuery::maintained(query.plan, query.schema, query.reads))
}

fn store(tables: &Tables, query: &BatchQuery) -> Result<Vec<u8>, String> {
    tables.planner.store(query, tables)
}

#[test]
fn plans_come_back_as_they_were() {
    let tables = tables();
    let mut wrong = Vec::new();
    for sql in QUERIES {
        let query = match maintained(&tables, sql) {
            Err(error) => {
                wrong.push(format!("{sql}: {}", error.message));
                continue;
            }
            Ok(query) => query,
        };
        match store(&tables, &query) {
            Err(reason) => wrong.push(format!("{sql}: {reason}")),
            Ok(bytes) => {
                let read = tables.planner.restore(&bytes, &tables).unwrap();
                assert_eq!(read.query.plan, query.query.plan, "{sql}");
                let shown = |query: &BatchQuery| query.query.plan.display_indent_schema().to_string();
                assert_eq!(shown(&read), shown(&query), "{sql}");
                assert_eq!(read.query.schema, query.query.schema, "{sql}");
                assert_eq!(read.query.reads, query.query.reads, "{sql}");
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn queries_of_batches_have_clocks_of_their_own() {
    let tables = tables();
    let sql = "SELECT a.k, now() FROM LAST(LAST(t, INTERVAL '30 s', INTERVAL '10 s'), INTERVAL '60 s') a \
               JOIN CHANGES(u) USING (k)";
    let query = tables.planner.batch_query(sql, &tables).unwrap();
    let read = tables.planner.restore(&store(&tables, &query).unwrap(), &tables).unwrap();
    let windows = |query: &BatchQuery| {
        let window = |window: &Window| (window.name.clone(), window.kind);
        query.windows.iter().map(window).collect::<Vec<_>>()
    };
    assert_eq!(windows(&read), windows(&query));
    assert_eq!(read.query.reads, query.query.reads);
    let clock = read.clock.unwrap();
    assert!(Some(&clock) != query.clock.as_ref());
    let text = read.query.plan.display_indent().to_string();
    assert_eq!(text, query.query.plan.display_indent().to_string());
    assert!(text.contains("batch_time()"), "{text}");
}

#[test]
fn a_long_chain_is_no_deep_one_and_a_deep_plan_is_not_kept() {
    let tables = tables();
    let query = maintained(&tables, "SELECT -v AS a FROM t").unwrap();
    let (plan, schema) = (query.query.plan, query.query.schema);
    let of = |expression: Expr| {
        let plan = LogicalPlanBuilder::from(plan.clone()).project([expression]).unwrap().build().unwrap();
        BatchQuery::maintained(plan, schema.clone(), Vec::new())
    };
    let one = || Expr::Literal(ScalarValue::Int64(Some(1)), None);
    assert!(store(&tables, &of((0..150).fold(one(), |chain, _| chain + one()))).is_ok());
    let list = |of: Expr| Expr::InList(InList::new(Box::new(one()), vec![one(), of], false));
    let deep = (0..150).fold(one(), |of, _| list(of));
    assert_eq!(store(&tables, &of(deep)).unwrap_err(), "what is nested deeper than 64 levels");
}

/// Engines plan on threads with stacks of 2 MiB, of which they use some themselves.
#[test]
fn the_deepest_plan_that_is_kept_takes_little_of_the_stack() {
    let run = || {
        let tables = tables();
        let query = maintained(&tables, "SELECT -v AS a FROM t").unwrap();
        let schema = query.query.schema.clone();
        let one = || Expr::Literal(ScalarValue::Int64(Some(1)), None);
        let project = |of: &LogicalPlan, expression: Expr| {
            LogicalPlanBuilder::from(of.clone()).project([expression]).unwrap().build().unwrap()
        };
        let store_all = |make: &dyn Fn(usize) -> LogicalPlan| {
            let kept = |depth: &usize| {
                let query = BatchQuery::maintained(make(*depth), schema.clone(), Vec::new());
                store(&tables, &query).is_ok()
            };
            (1..80).take_while(kept).count()
        };
        let plan = &query.query.plan;
        let lists = |depth| {
            let list = |of, _| Expr::InList(InList::new(Box::new(one()), vec![one(), of], false));
            project(plan, (0..depth).fold(one(), list))
        };
        let cases = |depth| {
            let case = |of, _| when(one().eq(one()), of).otherwise(one()).unwrap();
            project(plan, (0..depth).fold(one(), case))
        };
        let queries = |depth| {
            let query = |of: LogicalPlan, _| {
                LogicalPlanBuilder::from(plan.clone()).filter(exists(Arc::new(of))).unwrap().build().unwrap()
            };
            (0..depth).fold(plan.clone(), query)
        };
        let aliases = |depth| {
            let alias = |of, _| LogicalPlanBuilder::from(of).alias("a").unwrap().build().unwrap();
            (0..depth).fold(plan.clone(), alias)
        };
        [store_all(&lists), store_all(&cases), store_all(&queries), store_all(&aliases)]
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    let kept = thread.join().unwrap();
    assert!(kept.iter().all(|depth| (25..64).contains(depth)), "{kept:?}");
}

#[test]
fn what_is_damaged_is_an_error() {
    let tables = tables();
    let query = maintained(&tables, "SELECT g, sum(v) + 1 AS s FROM t WHERE k > 2 GROUP BY g").unwrap();
    let bytes = store(&tables, &query).unwrap();
    let restore = |bytes: &[u8]| tables.planner.restore(bytes, &tables);
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_err(), "cut to {length}");
    }
    let head = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize + 4;
    let text = String::from_utf8(bytes[4..head].to_vec()).unwrap().replace("\"format\":1", "\"format\":9");
    let other = [&bytes[..4], text.as_bytes(), &bytes[head..]].concat();
    assert_eq!(restore(&other).unwrap_err(), "its format is 9, and this version reads format 1");
}
