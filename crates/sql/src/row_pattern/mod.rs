//! Row patterns: `FROM ticker MATCH_RECOGNIZE (PARTITION BY … ORDER BY … MEASURES … PATTERN (a b+) DEFINE
//! …)`, the SQL standard's row pattern recognition (ISO/IEC 19075-5).
//!
//! The clause becomes an aggregate grouped by the partition's columns ([`function`]). It returns a list of
//! output rows, which is unnested above. So the clause works wherever GROUP BY does, in a batch and in a
//! continuous query. Matches are inserted, updated and deleted as the rows of their partition change.
//!
//! - [`syntax`] rewrites the text to the form that the parser reads.
//! - [`terms`] finds the parts of expressions that refer to a match; [`compile`] makes expressions physical.
//! - [`pattern`] and [`search`] find matches; [`partition`] computes their output.
//! - [`codec`] encodes a clause for a stored plan.
//!
//! Deliberately absent: the standard's WINDOW clause with a PATTERN, and the time at which a match is final.

mod clause;
mod codec;
mod compile;
mod function;
mod partition;
mod pattern;
mod plan;
mod search;
mod syntax;
mod terms;

use std::fmt;

use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::TableFactor;

pub(crate) use clause::Planned;
pub use function::MATCH_ROWS;
pub(crate) use function::planned_in;
pub(crate) use syntax::rewrite;

use crate::planner::Planner;

/// Plans MATCH_RECOGNIZE.
pub(crate) struct RowPatterns {
    planner: Planner,
}

impl RowPatterns {
    /// Creates a planner for clauses whose expressions this planner resolves.
    pub(crate) fn new(planner: Planner) -> RowPatterns {
        RowPatterns { planner }
    }
}

impl fmt::Debug for RowPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowPatterns")
    }
}

impl RelationPlanner for RowPatterns {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        if !matches!(relation, TableFactor::MatchRecognize { .. }) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let (plan, alias) = plan::plan(&self.planner, relation, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    /// Creates tables with the prices of Oracle's example, and with letters.
    fn tables() -> Tables {
        let prices = [12, 17, 19, 21, 25, 12, 15, 20, 24, 25, 19, 15, 25, 25, 14, 12, 14, 24, 23, 22];
        let prices: Vec<String> =
            prices.iter().zip(1..).map(|(price, day)| format!("('ACME', {day}, {price})")).collect();
        Tables::new()
            .table("ticker", "(symbol TEXT, day INT, price INT)", &format!("VALUES {}", prices.join(", ")))
            .table(
                "l",
                "(g INT, n INT, v TEXT, ts TIMESTAMP)",
                "VALUES (1, 1, 'A', '2024-01-01 00:00:01'), (1, 2, 'B', '2024-01-01 00:00:02'),
                 (1, 3, 'B', '2024-01-01 00:00:05'), (1, 4, 'C', '2024-01-01 00:00:06'),
                 (1, 5, 'A', '2024-01-01 00:00:10'), (1, 6, 'B', '2024-01-01 00:00:11'),
                 (1, 7, 'C', '2024-01-01 00:00:15'), (1, 8, 'A', NULL)",
            )
    }

    /// Checks the matches of a pattern of the letters a, b and c.
    #[track_caller]
    fn letters(clauses: &str, pattern: &str, expected: &[&str]) {
        let named = ["a", "b", "c"].into_iter().filter(|name| pattern.contains(name));
        let defined: Vec<String> = named.map(|name| format!("{name} AS v = upper('{name}')")).collect();
        let (clauses, within) = clauses.split_once("WITHIN").unwrap_or((clauses, ""));
        let within = if within.is_empty() { String::new() } else { format!("WITHIN {within}") };
        let (order, defined) = (if within.is_empty() { "n" } else { "ts" }, defined.join(", "));
        tables().check(
            &format!(
                "SELECT * FROM l MATCH_RECOGNIZE (ORDER BY {order} {clauses} PATTERN ({pattern}) {within} DEFINE {defined})"
            ),
            expected,
        );
    }

    #[test]
    fn a_fall_and_a_rise() {
        let v = |skip: &str| {
            format!(
                "SELECT * FROM ticker MATCH_RECOGNIZE (
                     PARTITION BY symbol ORDER BY day
                     MEASURES strt.day AS start_day, LAST(down.day) AS bottom_day, LAST(up.day) AS end_day
                     ONE ROW PER MATCH {skip}
                     PATTERN (strt down+ up+)
                     DEFINE down AS down.price < PREV(down.price), up AS up.price > PREV(up.price)) AS mr"
            )
        };
        let tables = tables();
        let to_last = ["ACME|10|12|13", "ACME|14|16|18", "ACME|5|6|10"];
        tables.check(&v("AFTER MATCH SKIP TO LAST up"), &to_last);
        tables.check(&v("AFTER MATCH SKIP TO up"), &to_last);
        tables.check(&v(""), &["ACME|11|12|13", "ACME|14|16|18", "ACME|5|6|10"]);
    }

    #[test]
    fn all_rows_are_shown_where_asked() {
        letters(
            "MEASURES MATCH_NUMBER() AS m, CLASSIFIER() AS c, count(*) AS so_far, FINAL count(*) AS rows,
             FINAL LAST(b.n) AS b ALL ROWS PER MATCH",
            "a b+ {- c -}",
            &[
                "1|1|a|1|4|3|1|A|2024-01-01T00:00:01",
                "2|1|b|2|4|3|1|B|2024-01-01T00:00:02",
                "3|1|b|3|4|3|1|B|2024-01-01T00:00:05",
                "5|2|a|1|3|6|1|A|2024-01-01T00:00:10",
                "6|2|b|2|3|6|1|B|2024-01-01T00:00:11",
            ],
        );
        let short = |mode: &str| {
            format!(
                "SELECT n, m, c FROM l MATCH_RECOGNIZE (ORDER BY n MEASURES MATCH_NUMBER() AS m, CLASSIFIER() AS c
                 ALL ROWS PER MATCH {mode} PATTERN (b*) DEFINE b AS v = 'B') WHERE n < 5"
            )
        };
        let shown = ["1|1|NULL", "2|2|b", "3|2|b", "4|3|NULL"];
        tables().check(&short(""), &shown);
        tables().check(&short("OMIT EMPTY MATCHES"), &shown[1..3]);
        let unmatched = short("WITH UNMATCHED ROWS").replace("(b*)", "(b+)");
        tables().check(&unmatched, &["1|NULL|NULL", "2|1|b", "3|1|b", "4|NULL|NULL"]);
    }

    #[test]
    fn the_search_goes_on_where_it_is_told() {
        let found = |skip: &str, pattern: &str, expected: &[&str]| {
            letters(&format!("MEASURES FIRST(n) AS f, LAST(n) AS t {skip}"), pattern, expected);
        };
        found("", "(a | b)+", &["1|3", "5|6", "8|8"]);
        found("AFTER MATCH SKIP TO NEXT ROW", "(a | b)+", &["1|3", "2|3", "3|3", "5|6", "6|6", "8|8"]);
        found("AFTER MATCH SKIP PAST LAST ROW", "a b+ c a", &["1|5"]);
        found("AFTER MATCH SKIP TO LAST a", "a b+ c a", &["1|5", "5|8"]);
        found("AFTER MATCH SKIP TO FIRST b", "a b+ c a", &["1|5", "5|8"]);
        tables().fails(
            "SELECT * FROM l MATCH_RECOGNIZE (ORDER BY n AFTER MATCH SKIP TO FIRST a PATTERN (a b) DEFINE a AS v = 'A')",
            "MATCH_RECOGNIZE: AFTER MATCH SKIP TO FIRST a leads to the row where the match began, which \
             would repeat the match forever\nHINT: Skip to a later variable, TO NEXT ROW or PAST LAST ROW.",
        );
    }

    #[test]
    fn a_match_is_in_time() {
        let spans = "MEASURES FIRST(n) AS f, LAST(n) AS t";
        letters(spans, "a b+ c", &["1|4", "5|7"]);
        letters(&format!("{spans} WITHIN INTERVAL '6 seconds'"), "a b+ c", &["1|4", "5|7"]);
        letters(&format!("{spans} WITHIN INTERVAL '5 seconds'"), "a b+ c", &[]);
        letters(&format!("{spans} WITHIN '5 seconds'"), "a b+", &["1|3", "5|6"]);
        letters(&format!("{spans} WITHIN '4 seconds'"), "a b+", &["1|2", "5|6"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fails = |clauses: &str, expected: &str| {
            let tables = tables();
            let sql = format!("SELECT * FROM l MATCH_RECOGNIZE ({clauses})");
            let error = tables.planner.query(&sql, &tables).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        };
        fails("PATTERN (a) DEFINE b AS TRUE", "DEFINE names \"b\", which is no variable of PATTERN");
        fails("PATTERN (a) DEFINE a AS n", "DEFINE a AS … is INT, but a condition was expected");
        fails("PATTERN (a) DEFINE a AS TRUE, a AS TRUE", "DEFINE defines \"a\" twice");
        fails("PATTERN (a) DEFINE a AS x.n > 1", "x.n names \"x\", which is no variable of PATTERN");
        fails("PATTERN (a) DEFINE a AS nope > 1", "nope");
        fails(
            "PATTERN (a b) DEFINE a AS PREV(a.n + b.n) > 1",
            "one value is computed from rows of \"a\" and of \"b\"",
        );
        fails(
            "PATTERN (a) DEFINE a AS FINAL LAST(n) > 1",
            "FINAL last can't be used before the match is complete",
        );
        fails("PATTERN (a) DEFINE a AS PREV(n, n) > 1", "prev goes n rows");
        fails("PATTERN (a) DEFINE a AS PREV(PREV(n)) > 1", "prev is nested in another expression");
        fails("PATTERN (a) DEFINE a AS n > (SELECT 1)", "a subquery in DEFINE or MEASURES");
        fails("PATTERN (a) DEFINE a AS random() > 0.5", "random() in MATCH_RECOGNIZE");
        fails("PATTERN (a{2,1}) DEFINE a AS TRUE", "allows no number of rows");
        fails("PATTERN (a{1000}{1000}) DEFINE a AS TRUE", "has two quantifiers");
        fails("PATTERN ((a{1000}){1000}) DEFINE a AS TRUE", "longer than 20000 steps");
        fails("AFTER MATCH SKIP TO b PATTERN (a) DEFINE a AS TRUE", "AFTER MATCH SKIP names \"b\"");
        fails("PATTERN (a) SUBSET a = (a) DEFINE a AS TRUE", "the name \"a\" of the SUBSET is already used");
        fails("PATTERN (a) SUBSET u = (b) DEFINE a AS TRUE", "SUBSET names \"b\"");
        fails("PATTERN (a) WITHIN INTERVAL '1 s' DEFINE a AS TRUE", "ORDER BY has no timestamp first");
        fails("ORDER BY ts PATTERN (a) WITHIN 3 DEFINE a AS TRUE", "WITHIN 3, but an interval was expected");
        fails("MEASURES n AS x, n AS x PATTERN (a) DEFINE a AS TRUE", "there are two columns \"x\"");
        fails(
            "PARTITION BY n + 1 PATTERN (a) DEFINE a AS TRUE",
            "PARTITION BY n + 1, but a column was expected",
        );
        fails(
            "ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN ({- a -}) DEFINE a AS TRUE",
            "WITH UNMATCHED ROWS",
        );
    }
}
