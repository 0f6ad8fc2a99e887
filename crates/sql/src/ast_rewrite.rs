//! Rewrites a parsed statement where DataFusion's planner has a gap, and refuses clauses that it would
//! ignore.
//!
//! | written | planned as | because |
//! | --- | --- | --- |
//! | `ARRAY[a, b]`, `[a, b]` | `make_array(a, b)` | elements of a literal can't refer to outer rows or to WITH |
//! | `FETCH FIRST n ROWS ONLY` | `LIMIT n` | DataFusion doesn't plan it |
//! | `EXISTS (… ORDER BY … LIMIT n)` | `EXISTS (…)` | neither matters, and not every such subquery is planned |
//! | `(a, b) IN (SELECT …)` | EXISTS of an equal row, NULL if one may be | only single values are planned |
//! | `a JOIN b USING (k)` | a join in parentheses | a planner of ours merges its columns, [`crate::using_joins`] |
//! | `a IS DISTINCT FROM b AND c` | `(a IS DISTINCT FROM b) AND c` | the parser takes AND into its right side |
//! | `x::UUID`, `x::JSON`, `x::VARCHAR(3)` | a function that checks or cuts the text | Arrow has no such types |
//! | `INTERVAL '1-2'`, `INTERVAL 'P1D'` | `INTERVAL '14 mons'` | DataFusion can't parse it |
//! | `x AT TIME ZONE 'Europe/Berlin'` | `timezone('Europe/Berlin', x)` | the result would keep the zone |
//! | `x ~ '\my'`, `x SIMILAR TO 'a%'`, `substring(s FROM 'a.')`, `@ x` | other patterns, functions | see [`patterns`] |
//! | `pg_catalog.f(x)`, `a OPERATOR(pg_catalog.+) b` | `f(x)`, `a + b` | functions and operators have no schemas |
//! | `ARRAY(SELECT x)`, `'t'::regclass` | an aggregate, a function | DataFusion doesn't plan them, see [`postgres`] |
//! | `t FOR SYSTEM_TIME AS OF 17` | `system_time_as_of('t', 'epoch', 17)` | it would be ignored, see [`crate::system_time`] |
//! | `a.x` in a subquery, of an outer table `a` | `public.a.x` | a column `a` of the subquery would come first |
//! | `a ^ b` | `power(a, b)` | DataFusion has `^` for XOR |
//! | `to_char(1.5, '9.9')` | `to_char(CAST('1.5' AS NUMERIC(2, 1)), '9.9')` | 1.5 would be a float, see [`exact_literals`] |
//! | `extract(century FROM t)`, OVERLAPS | functions | DataFusion lacks them, see [`times`] |
//! | `mode() WITHIN GROUP (ORDER BY x)` and others | functions of `array_agg` | see [`ordered_sets`] |
//! | `SELECT generate_series(1, 3)` | `SELECT unnest(generate_series(1, 3))` | see [`set_returning`] |
//! | `FROM 'a.csv'` | `FROM read_file('a.csv') AS a` | see [`files`] |
//! | `LATERAL VIEW explode(a) t AS x`, `posexplode(a)` | a subquery over UNNEST in FROM | see [`generators`] |
//! | `t PIVOT (sum(x) FOR c IN (1, 2))`, UNPIVOT | a subquery with GROUP BY, or over UNNEST | see [`pivot`] |
//! | `transform(a, x -> x.f)` | `transform(a, x -> get_field(x, 'f'))` | `x.f` would be a column |
//! | `mod(a, b)` and others | `a % b` | DataFusion lacks them, see [`shorthand`] |
//!
//! DataFusion would silently ignore TABLESAMPLE, hints after a table and LIMIT BY: they are refused.

mod arrays;
mod catalog_rows;
mod exact_literals;
pub(crate) mod files;
mod generators;
mod grouping_places;
mod json;
mod json_table;
mod lambda_fields;
mod limits;
pub(crate) mod multiranges;
mod ordered_sets;
mod others;
mod others_by_literal;
mod outer;
mod patterns;
mod pivot;
mod postgres;
mod precedence;
mod row_values;
mod rows_from;
mod scopes;
mod set_returning;
pub(crate) mod shorthand;
mod shorthand_others;
mod shorthand_sketches;
mod shorthand_spark;
mod spark_forms;
mod subquery_names;
mod text_search;
mod times;
mod values;
mod whole_rows;
mod with_names;
mod xml;

pub(crate) use postgres::{bare, parsed};
pub(crate) use row_values::times as times_of_rows;
pub(crate) use set_returning::refuse as refuse_set_returning;

pub(crate) use crate::dialect::calls::call;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value,
    VisitorMut,
};

use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::system_time;
use crate::using_joins;

/// A function that only queries that run once have.
const RUNS_ONCE: &str = "regproc_text";

/// Rewrites a statement in place. Functions for which `known` is true are the user's own. `columns` returns those of a
/// relation.
pub(crate) fn rewrite_statement(
    statement: &mut Statement,
    known: &dyn Fn(&str) -> bool,
    columns: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<()> {
    system_time::rewrite(statement)?;
    with_names::tell_apart(statement);
    outer::qualify(statement);
    subquery_names::rename_duplicates(statement, known(RUNS_ONCE));
    postgres::show_names(statement, known);
    match walk_mut(statement, &mut RewriteStatement { known, columns, with: Vec::new(), merged: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor.
struct RewriteStatement<'a> {
    known: &'a dyn Fn(&str) -> bool,
    columns: &'a whole_rows::Columns<'a>,
    /// The WITH queries seen so far, with their columns if these are known.
    with: Vec<(String, Option<Vec<String>>)>,
    /// The number of joins with USING seen so far.
    merged: usize,
}

impl RewriteStatement<'_> {
    /// Returns the columns of a WITH query or a relation, if they are known.
    fn columns_of(&self, name: &str) -> Option<Vec<String>> {
        match self.with.iter().rev().find(|(known, _)| known == name) {
            Some((_, columns)) => columns.clone(),
            None => (self.columns)(name),
        }
    }
}

impl VisitorMut for RewriteStatement<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            let known = whole_rows::columns_of_with(table, &|name: &str| self.columns_of(name));
            self.with.push(known);
        }
        values::same_casts(query);
        if let Err(error) = set_returning::rewrite_query(query) {
            return ControlFlow::Break(error);
        }
        if let Err(error) = limits::rewrite(query) {
            return ControlFlow::Break(error);
        }
        let Some(fetch) = query.fetch.take() else { return ControlFlow::Continue(()) };
        let count = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".into(), false)));
        query.limit_clause = match query.limit_clause.take() {
            None => Some(LimitClause::LimitOffset { limit: Some(count), offset: None, limit_by: Vec::new() }),
            Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
                Some(LimitClause::LimitOffset { limit: Some(count), offset, limit_by })
            }
            given => given,
        };
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if let Err(error) = generators::into_from(select).and_then(|()| set_returning::rewrite_select(select))
        {
            return ControlFlow::Break(error);
        }
        using_joins::nest_select(select, &mut self.merged);
        spark_forms::fill_grouping_id(select);
        grouping_places::resolve(select);
        shorthand::name_columns(select);
        let columns = |name: &str| self.columns_of(name);
        if let Err(error) = whole_rows::name_columns(select, &columns) {
            return ControlFlow::Break(error);
        }
        json::name_values(select, &columns);
        subquery_names::name_subqueries(select);
        subquery_names::name_fields(select);
        postgres::tell_apart(select, (self.known)(RUNS_ONCE));
        ControlFlow::Continue(())
    }

    /// Two columns that differ as written may be the same expression now.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        postgres::tell_apart(select, (self.known)(RUNS_ONCE));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        using_joins::nest_factor(factor, &mut self.merged);
        if let Err(error) = pivot::rewrite(factor, &|name: &str| self.columns_of(name)) {
            return ControlFlow::Break(error);
        }
        if let Err(error) = files::rewrite(factor) {
            return ControlFlow::Break(error);
        }
        if let Err(error) = json_table::rewrite(factor)
            .and_then(|()| json::table_function(factor))
            .and_then(|()| xml::table_function(factor))
            .and_then(|()| generators::table_function(factor))
        {
            return ControlFlow::Break(error);
        }
        if let Err(error) = rows_from::rewrite(factor) {
            return ControlFlow::Break(error);
        }
        text_search::table_function(factor);
        postgres::table_function(factor);
        let refused = match factor {
            TableFactor::Table { with_hints, .. } if !with_hints.is_empty() => Some("WITH (…) after a table"),
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                Some("TABLESAMPLE")
            }
            TableFactor::Table { with_ordinality: true, .. }
            | TableFactor::Function { with_ordinality: true, .. }
            | TableFactor::UNNEST { with_ordinality: true, .. } => {
                Some("WITH ORDINALITY of this function, or of several arrays,")
            }
            TableFactor::Table { partitions, .. } if !partitions.is_empty() => {
                Some("PARTITION (…) after a table")
            }
            _ => None,
        };
        match refused {
            Some(what) => ControlFlow::Break(Error::unsupported(what)),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        let rewritten = postgres::rewrite_expression(expression);
        let rewritten = rewritten.and_then(|()| times::rewrite_expression(expression));
        if let Err(error) = rewritten.and_then(|()| patterns::rewrite_expression(expression)) {
            return ControlFlow::Break(error);
        }
        others::rewrite_expression(expression);
        match expression {
            Expr::Array(array) => *expression = make_array(std::mem::take(&mut array.elem)),
            Expr::Exists { subquery, .. } => any_row(subquery),
            Expr::Lambda(lambda) => lambda_fields::name_fields(lambda),
            Expr::IsNull(_) | Expr::IsNotNull(_) => row_values::test_fields(expression),
            Expr::InSubquery { .. } => return done(row_values::rewrite_expression(expression)),
            Expr::Function(function) => {
                exact_literals::rewrite(function);
                match ordered_sets::rewrite(function) {
                    Ok(Some(rewritten)) => {
                        *expression = rewritten;
                        return ControlFlow::Continue(());
                    }
                    Ok(None) => {}
                    Err(error) => return ControlFlow::Break(error),
                }
                let known = (self.known)(&function.name.to_string().to_lowercase());
                let aggregate = if known { None } else { json::aggregate(function) };
                xml::name_xpath(function);
                if let Some(expanded) = aggregate.or_else(|| shorthand::expand(function, known)) {
                    *expression = expanded;
                }
            }
            Expr::AnyOp { left, compare_op, right, .. } => {
                if let Some(compared) = compare_elements(left, compare_op, right, false) {
                    *expression = compared;
                }
            }
            Expr::AllOp { left, compare_op, right } => {
                if let Some(compared) = compare_elements(left, compare_op, right, true) {
                    *expression = compared;
                }
            }
            Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } => {
                *expression = call("power", vec![left.as_ref().clone(), right.as_ref().clone()]);
            }
            Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::UnaryOp { .. }
            | Expr::BinaryOp { .. } => {
                if let Err(error) = row_values::compare(expression) {
                    return ControlFlow::Break(error);
                }
                precedence::settle(expression);
            }
            _ => return done(values::rewrite_expression(expression)),
        }
        ControlFlow::Continue(())
    }
}

fn done(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn text(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_string()))
}

/// Drops clauses that don't affect whether a query has rows.
fn any_row(query: &mut Query) {
    // PostgreSQL takes EXISTS (SELECT FROM t), without columns.
    if let SetExpr::Select(select) = query.body.as_mut()
        && select.projection.is_empty()
    {
        select.projection.push(SelectItem::UnnamedExpr(Expr::value(Value::Number("1".into(), false))));
    }
    let keeps_a_row = |limit: &Expr| match limit {
        Expr::Value(value) => {
            matches!(&value.value, Value::Number(count, _) if count.parse::<u64>().is_ok_and(|n| n > 0))
        }
        _ => false,
    };
    let distinct_on = matches!(query.body.as_ref(), SetExpr::Select(select) if select.distinct.is_some());
    match &query.limit_clause {
        None if !distinct_on => query.order_by = None,
        Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, .. }) if keeps_a_row(limit) => {
            query.limit_clause = None;
            if !distinct_on {
                query.order_by = None;
            }
        }
        _ => {}
    }
}

/// Builds the comparison of a value with all elements of an array; none for a subquery.
fn compare_elements(value: &Expr, operator: &BinaryOperator, array: &Expr, all: bool) -> Option<Expr> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let compares = matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq);
    if !compares || matches!(array, Expr::Subquery(_)) {
        return None;
    }
    // The function is `functions::postgres::quantified`.
    let name = format!("{operator} {}", if all { "all" } else { "any" });
    Some(call(&name, vec![value.clone(), array.clone()]))
}

fn make_array(elements: Vec<Expr>) -> Expr {
    call("make_array", elements)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2), (3, 4), (5, 6)")
    }

    #[test]
    fn fetch_is_a_limit() {
        let tables = tables();
        tables.check("SELECT a FROM t ORDER BY a FETCH FIRST 2 ROWS ONLY", &["1", "3"]);
        tables.check("SELECT a FROM t ORDER BY a OFFSET 1 ROWS FETCH NEXT ROW ONLY", &["3"]);
        tables.fails(
            "SELECT a FROM t FETCH FIRST 1 ROWS WITH TIES",
            "WITH TIES needs an ORDER BY: it says which rows are equal",
        );
        tables.fails("SELECT a FROM t LIMIT 1 FETCH FIRST 1 ROWS ONLY", "both LIMIT and FETCH are given");
    }

    #[test]
    fn elements_of_arrays_see_what_other_expressions_see() {
        let tables = tables();
        tables.check("SELECT [a, b], ARRAY[[a], [7]] FROM t WHERE a = 1", &["[1, 2]|[[1], [7]]"]);
        tables.check("SELECT n FROM t, UNNEST([a, b]) AS x(n) WHERE n < 3", &["1", "2"]);
        tables.check("WITH x AS (SELECT 9 AS n) SELECT [(SELECT n FROM x)]", &["[9]"]);
        let query = tables.planner.query("SELECT [a] FROM t", &tables).unwrap();
        assert_eq!(query.schema.field(0).name(), "make_array(t.a)");
    }

    #[test]
    fn values_may_stand_in_in() {
        let tables = tables();
        tables.check("SELECT a FROM t WHERE a IN (VALUES (3), (5), (3))", &["3", "5"]);
        tables.check("SELECT a FROM t WHERE a NOT IN (VALUES (3))", &["1", "5"]);
        tables.check("SELECT a, a IN (VALUES (3), (NULL)) FROM t", &["1|NULL", "3|true", "5|NULL"]);
        tables.check("SELECT a FROM t WHERE (a, b) IN (VALUES (3, 4), (5, 7))", &["3"]);
    }

    #[test]
    fn whether_rows_exist_needs_no_order() {
        let tables = tables();
        for tail in ["", " LIMIT 1", " ORDER BY y.b", " ORDER BY y.b LIMIT 2", " FETCH FIRST ROW ONLY"] {
            tables.check(
                &format!("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM t AS y WHERE y.a = t.b - 1{tail})"),
                &["1", "3", "5"],
            );
        }
        tables.check("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM t AS y LIMIT 0)", &[]);
        tables.check("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM t AS y OFFSET 3)", &[]);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let tables = tables();
        tables.fails("SELECT * FROM t WITH (NOLOCK)", "WITH (…) after a table is not supported yet");
        tables.fails("SELECT * FROM t TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE is not supported yet");
        tables.fails("SELECT * FROM t LIMIT 1 BY a", "LIMIT … BY is not supported yet");
    }
}
