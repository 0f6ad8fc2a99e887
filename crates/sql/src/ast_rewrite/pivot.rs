//! PIVOT and UNPIVOT, as in Spark, Oracle, Snowflake and DuckDB.
//!
//! | written | planned as |
//! | --- | --- |
//! | `t PIVOT (sum(x) FOR c IN ('v', 2 AS n)) AS p` | `(SELECT g, sum(x) FILTER (WHERE c = 'v') AS v, sum(x) FILTER (WHERE c = 2) AS n FROM t GROUP BY g) AS p` |
//! | `t UNPIVOT (x FOR k IN (a, b AS 'n')) AS u` | `(SELECT g, r.k, r.x FROM t, LATERAL stack(2, 'a', a, 'n', b) AS r(k, x) WHERE r.x IS NOT NULL) AS u` |
//!
//! `g` are the columns of `t` that the clause doesn't name, so these must be known: those of a relation, or of a subquery
//! whose columns have names.

mod unpivot;

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ExprWithAlias, Function, GroupByExpr, Ident, NullInclusion, ObjectName,
    PivotValueSource, Query, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, Value,
};

use self::unpivot::Unpivot;
use super::limits::has_query;
use super::parsed;
use super::scopes::{self, folded};
use super::whole_rows::{Columns, column_names};
use crate::ast_walk::visit_expressions;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most columns that PIVOT may return for values, as many as a table of PostgreSQL may have.
const VALUE_COLUMNS_MAX: usize = 1_600;

/// The most bytes that the aggregates of PIVOT may have as text, with a copy for each value.
const TEXT_MAX: usize = 1 << 20;

/// The relation that a clause follows.
struct Input {
    table: TableFactor,
    /// The relation's own name, if it has one.
    name: Option<String>,
    columns: Vec<String>,
}

/// The query that replaces a clause, with the names of its columns.
struct Rows {
    query: Box<Query>,
    names: Vec<String>,
}

/// Rewrites PIVOT or UNPIVOT to a subquery.
pub(super) fn rewrite(factor: &mut TableFactor, of_relation: &Columns<'_>) -> Result<()> {
    let (clause, table) = match factor {
        TableFactor::Pivot { table, .. } => ("PIVOT", table),
        TableFactor::Unpivot { table, .. } => ("UNPIVOT", table),
        _ => return Ok(()),
    };
    rewrite(table, of_relation)?;
    let name = scopes::own_name(table);
    let Some(columns) = column_names(table, of_relation) else {
        return Err(unknown_columns(clause, name.as_deref()));
    };
    let nothing = TableFactor::TableFunction { expr: Expr::value(Value::Null), alias: None };
    let (rows, alias) = match std::mem::replace(factor, nothing) {
        TableFactor::Pivot {
            table,
            aggregate_functions,
            value_column,
            value_source,
            default_on_null,
            alias,
        } => {
            if default_on_null.is_some() {
                return Err(Error::unsupported("PIVOT … DEFAULT ON NULL")
                    .hint("Use coalesce in the select list: SELECT coalesce(p.a, 0) …"));
            }
            let pivot = Pivot {
                aggregates: aggregate_functions,
                keys: value_column,
                values: values_of(value_source)?,
            };
            (pivot.rows(Input { table: *table, name: name.clone(), columns })?, alias)
        }
        TableFactor::Unpivot { table, value, name: label, columns: listed, null_inclusion, alias } => {
            let unpivot = Unpivot {
                label: folded(&label),
                values: unpivot::columns_in(&value)?.into_iter().map(folded).collect(),
                listed,
                has_nulls: matches!(null_inclusion, Some(NullInclusion::IncludeNulls)),
            };
            (unpivot.rows(Input { table: *table, name: name.clone(), columns })?, alias)
        }
        other => {
            *factor = other;
            return Ok(());
        }
    };
    let alias = alias.or_else(|| name.map(|name| named(&name))).map(|alias| with_columns(alias, &rows.names));
    *factor = TableFactor::Derived { lateral: false, subquery: rows.query, alias, sample: None };
    Ok(())
}

/// Completes the columns of an alias that names only the first ones.
fn with_columns(mut alias: TableAlias, names: &[String]) -> TableAlias {
    if !alias.columns.is_empty() {
        let rest = names.iter().skip(alias.columns.len());
        let column = |name: &String| TableAliasColumnDef { name: quoted(name), data_type: None };
        alias.columns.extend(rest.map(column).collect::<Vec<_>>());
    }
    alias
}

/// Returns the subquery that replaces PIVOT or UNPIVOT; none if there is an error.
pub(super) fn as_subquery(factor: &TableFactor, of_relation: &Columns<'_>) -> Option<TableFactor> {
    let mut rewritten = factor.clone();
    rewrite(&mut rewritten, of_relation).ok()?;
    matches!(rewritten, TableFactor::Derived { .. }).then_some(rewritten)
}

fn unknown_columns(clause: &str, name: Option<&str>) -> Error {
    let over = name.map_or_else(|| "rows".to_string(), |name| format!("\"{name}\""));
    Error::unsupported(format!("{clause} over {over}, whose columns are not known here,")).hint(format!(
        "Check the name, or put the rows into a subquery with named columns: FROM (SELECT a, b + 1 AS c FROM …) AS s {clause} (…)."
    ))
}

/// Returns the values in the IN of PIVOT.
fn values_of(source: PivotValueSource) -> Result<Vec<ExprWithAlias>> {
    let what = match source {
        PivotValueSource::List(values) => return Ok(values),
        PivotValueSource::Any(_) => "PIVOT … IN (ANY)",
        PivotValueSource::Subquery(_) => "PIVOT … IN (SELECT …)",
    };
    Err(Error::unsupported(what).hint("List the values: they are the columns of the result."))
}

/// A PIVOT clause.
struct Pivot {
    aggregates: Vec<ExprWithAlias>,
    /// The expressions after FOR.
    keys: Vec<Expr>,
    values: Vec<ExprWithAlias>,
}

impl Pivot {
    /// Builds the query over this input.
    fn rows(&self, input: Input) -> Result<Rows> {
        let aggregates: Vec<&Function> =
            self.aggregates.iter().map(|aggregate| function_of(&aggregate.expr)).collect::<Result<_>>()?;
        self.check()?;
        let parts = self.aggregates.iter().map(|aggregate| &aggregate.expr).chain(&self.keys);
        let used: HashSet<String> = parts.flat_map(|part| used_columns(part, &input)).collect();
        let mut names: Vec<String> =
            input.columns.iter().filter(|column| !used.contains(*column)).cloned().collect();
        let grouped: Vec<Expr> = names.iter().map(|name| Expr::Identifier(quoted(name))).collect();
        let mut items: Vec<SelectItem> = grouped.iter().cloned().map(SelectItem::UnnamedExpr).collect();
        for value in &self.values {
            let condition = self.condition(&value.expr)?;
            for (function, written) in aggregates.iter().zip(&self.aggregates) {
                let name = self.column_name(value, function, written.alias.as_ref());
                let expr = filtered(function, &condition);
                items.push(SelectItem::ExprWithAlias { expr, alias: quoted(&name) });
                names.push(name);
            }
        }
        refuse_duplicates("PIVOT", &names)?;
        let query = select(input.table, items, |select| {
            select.group_by = GroupByExpr::Expressions(grouped, Vec::new());
        })?;
        Ok(Rows { query, names })
    }

    /// Fails if the clause would become too large, or has subqueries, which would be copied.
    fn check(&self) -> Result<()> {
        let columns = self.values.len().saturating_mul(self.aggregates.len());
        if columns > VALUE_COLUMNS_MAX {
            return Err(Error::invalid(format!(
                "PIVOT returns {columns} columns for its values, but at most {VALUE_COLUMNS_MAX} are allowed"
            ))
            .code(sqlstate::STATEMENT_TOO_COMPLEX));
        }
        let in_copies = || self.aggregates.iter().map(|aggregate| &aggregate.expr).chain(&self.keys);
        if in_copies().any(has_query) {
            return Err(Error::unsupported("a subquery in an aggregate or in the FOR of PIVOT")
                .hint("Compute it in a subquery in FROM, and name it there."));
        }
        for value in &self.values {
            refuse_variable(&value.expr)?;
        }
        let length = |part: &Expr| part.to_string().len();
        let tests = self.keys.iter().map(length).sum::<usize>().saturating_mul(self.aggregates.len());
        let once = self.aggregates.iter().map(|aggregate| length(&aggregate.expr)).sum::<usize>();
        let values = self.values.iter().map(|value| length(&value.expr)).sum::<usize>();
        let all = once.saturating_add(tests).saturating_mul(self.values.len());
        let all = all.saturating_add(values.saturating_mul(self.aggregates.len()));
        if all > TEXT_MAX {
            return Err(Error::invalid(format!(
                "the aggregates of PIVOT, written for each value, would have {all} bytes, but at most {TEXT_MAX} are allowed"
            ))
            .hint("Compute their arguments in a subquery in FROM, and name them there.")
            .code(sqlstate::STATEMENT_TOO_COMPLEX));
        }
        Ok(())
    }

    /// Returns the condition for the rows of a value.
    fn condition(&self, value: &Expr) -> Result<Expr> {
        let values = match value {
            Expr::Tuple(values) if self.keys.len() > 1 => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        if values.len() != self.keys.len() {
            let (keys, has) = (self.keys.len(), values.len());
            return Err(Error::invalid(format!(
                "PIVOT compares {keys} columns after FOR, but the value {value} has {has}"
            )));
        }
        let tests = self.keys.iter().zip(values).map(|(key, value)| is_equal(key, value));
        tests
            .reduce(|left, right| binary(left, BinaryOperator::And, right))
            .ok_or_else(|| Error::bug("PIVOT without an expression after FOR"))
    }

    /// Returns the name of a column: that of the value, and of the aggregate if there are several.
    fn column_name(&self, value: &ExprWithAlias, aggregate: &Function, alias: Option<&Ident>) -> String {
        let of_value = value.alias.as_ref().map_or_else(|| text_of(&value.expr), folded);
        if self.aggregates.len() == 1 {
            return of_value;
        }
        let of_aggregate = alias.map_or_else(
            || {
                let name = ObjectName::from(vec![Ident::new(aggregate.name.to_string().to_lowercase())]);
                Function { name, ..aggregate.clone() }.to_string()
            },
            folded,
        );
        format!("{of_value}_{of_aggregate}")
    }
}

/// Returns the call of an aggregate.
fn function_of(aggregate: &Expr) -> Result<&Function> {
    match aggregate {
        Expr::Function(function) if function.over.is_none() => Ok(function),
        other => Err(Error::invalid(format!("PIVOT takes calls of aggregates, not {other}"))),
    }
}

/// Fails if a value in IN isn't a constant.
fn refuse_variable(value: &Expr) -> Result<()> {
    if !scopes::has_columns(value) && !has_query(value) {
        return Ok(());
    }
    Err(Error::invalid(format!("PIVOT takes constants in IN, not {value}"))
        .hint("Texts are written in single quotes: 'a'."))
}

/// Returns the columns of the input that an expression names.
fn used_columns(expression: &Expr, input: &Input) -> Vec<String> {
    let mut used = Vec::new();
    let _ = visit_expressions(expression, |part| {
        match part {
            Expr::Identifier(name) => used.push(folded(name)),
            Expr::CompoundIdentifier(names) => used.extend(column_in(names, input)),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    used
}

/// Returns the column in a name such as `x`, `t.x` or `public.t.x`; a field's name is that of its struct.
fn column_in(names: &[Ident], input: &Input) -> Option<String> {
    let names: Vec<String> = names.iter().map(folded).collect();
    let qualifier = names.iter().position(|name| Some(name) == input.name.as_ref());
    let place = qualifier.map(|at| at + 1).filter(|at| *at < names.len()).unwrap_or(0);
    names.into_iter().nth(place)
}

/// Returns an aggregate of the rows for which a condition holds.
fn filtered(aggregate: &Function, condition: &Expr) -> Expr {
    let mut function = aggregate.clone();
    let condition = match function.filter.take() {
        Some(given) => binary(nested(*given), BinaryOperator::And, condition.clone()),
        None => condition.clone(),
    };
    function.filter = Some(Box::new(condition));
    Expr::Function(function)
}

fn is_equal(key: &Expr, value: &Expr) -> Expr {
    let key = nested(key.clone());
    if is_null(value) {
        Expr::IsNull(Box::new(key))
    } else {
        binary(key, BinaryOperator::Eq, nested(value.clone()))
    }
}

fn is_null(value: &Expr) -> bool {
    match value {
        Expr::Value(value) => matches!(value.value, Value::Null),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_null(inner),
        _ => false,
    }
}

/// Returns the text of a constant, without quotes.
fn text_of(value: &Expr) -> String {
    match value {
        Expr::Value(value) => {
            let text = value.value.clone().into_string();
            text.unwrap_or_else(|| value.value.to_string().to_lowercase())
        }
        Expr::TypedString(typed) => {
            typed.value.value.clone().into_string().unwrap_or_else(|| typed.value.to_string())
        }
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => text_of(inner),
        Expr::Tuple(values) => values.iter().map(text_of).collect::<Vec<_>>().join("_"),
        other => other.to_string(),
    }
}

fn refuse_duplicates(clause: &str, names: &[String]) -> Result<()> {
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!("{clause} returns two columns \"{name}\""))
            .hint("Give one of them another name.")
            .code(sqlstate::DUPLICATE_COLUMN)),
    }
}

/// Builds `SELECT items FROM table`, with changes.
fn select(
    table: TableFactor,
    items: Vec<SelectItem>,
    change: impl FnOnce(&mut Select),
) -> Result<Box<Query>> {
    let Ok(Statement::Query(mut query)) = parsed("SELECT 1 FROM t") else {
        return Err(Error::bug("a query wasn't parsed"));
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::bug("a query without a select"));
    };
    select.projection = items;
    if let Some(from) = select.from.first_mut() {
        from.relation = table;
    }
    change(select);
    Ok(query)
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: quoted(name), columns: Vec::new(), at: None }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn nested(expression: Expr) -> Expr {
    Expr::Nested(Box::new(expression))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    const INPUT: &str = "(SELECT region, quarter, amount FROM sales)";

    fn tables() -> Tables {
        Tables::new().table(
            "sales",
            "(id INT, region TEXT, quarter INT, amount INT)",
            "VALUES (1, 'n', 1, 10), (2, 'n', 1, 5), (3, 'n', 2, 7), (4, 's', 1, 1), (5, 's', NULL, 2)",
        )
    }

    fn names(sql: &str) -> Vec<String> {
        let tables = tables();
        let query =
            tables.planner.query(sql, &tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        query.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn each_value_is_a_column() {
        let tables = tables();
        let sql = format!(
            "SELECT * FROM {INPUT} PIVOT (sum(amount) FOR quarter IN (1, 2 AS second, NULL AS Later))"
        );
        tables.check(&sql, &["n|15|7|NULL", "s|1|NULL|2"]);
        assert_eq!(names(&sql), ["region", "1", "second", "later"]);
        // Without other columns there is one row.
        tables.check(
            "SELECT * FROM (SELECT quarter, amount FROM sales) PIVOT (max(amount) FOR quarter IN (1, 9))",
            &["10|NULL"],
        );
        tables.check(
            "SELECT * FROM (SELECT quarter FROM sales WHERE id > 9) PIVOT (count(*) FOR quarter IN (1)) AS p",
            &["0"],
        );
        tables.check(
            "SELECT * FROM sales PIVOT (sum(amount) FILTER (WHERE id > 1) FOR quarter IN (1, 2)) AS p",
            &["n|5|7", "s|1|NULL"],
        );
        tables.check(
            "SELECT sales.region, n FROM sales PIVOT (sum(amount + 0 * sales.id) FOR quarter + 1 IN (2 AS n))",
            &["n|15", "s|1"],
        );
    }

    #[test]
    fn several_aggregates_and_columns() {
        let tables = tables();
        let sql = format!(
            "SELECT * FROM {INPUT} PIVOT (sum(amount) AS total, COUNT(*) FOR quarter IN (1 AS q1, 2 AS q2))"
        );
        tables.check(&sql, &["n|15|2|7|1", "s|1|1|NULL|0"]);
        assert_eq!(names(&sql), ["region", "q1_total", "q1_count(*)", "q2_total", "q2_count(*)"]);
        let sql = format!(
            "SELECT * FROM {INPUT} PIVOT (sum(amount) FOR (region, quarter) IN (('n', 1), ('s', NULL) AS late))"
        );
        tables.check(&sql, &["15|2"]);
        assert_eq!(names(&sql), ["n_1", "late"]);
    }

    #[test]
    fn pivoted_rows_are_a_relation() {
        let tables = tables();
        let pivot = "PIVOT (sum(amount) FOR quarter IN (1, 2))";
        tables.check(&format!("SELECT p.r, p.b FROM {INPUT} {pivot} AS p(r, a, b) WHERE a > 5"), &["n|7"]);
        tables.check(&format!("SELECT p.r, p.\"2\" FROM {INPUT} {pivot} AS p(r) WHERE \"1\" > 5"), &["n|7"]);
        tables.check(
            &format!("SELECT p.region, s.id FROM {INPUT} {pivot} AS p JOIN sales s ON s.amount = p.\"2\""),
            &["n|3"],
        );
        tables.check(
            &format!("WITH i AS {INPUT} SELECT n FROM i PIVOT (sum(amount) FOR region IN ('n', 's')) WHERE quarter = 2"),
            &["7"],
        );
        tables.check(
            "WITH i AS (SELECT * FROM sales) SELECT * FROM (SELECT * FROM i WHERE id < 4) PIVOT (sum(amount) FOR quarter IN (1, 2))",
            &["1|n|10|NULL", "2|n|5|NULL", "3|n|NULL|7"],
        );
    }

    #[test]
    fn wrong_clauses_are_explained() {
        let tables = tables();
        let fails = |clause: &str, error: &str| tables.fails(&format!("SELECT * FROM {clause}"), error);
        fails(
            "sales PIVOT (sum(amount) FOR quarter IN (ANY))",
            "PIVOT … IN (ANY) is not supported yet\nHINT: List the values: they are the columns of the result.",
        );
        fails(
            "sales PIVOT (sum(amount) FOR quarter IN (SELECT 1))",
            "PIVOT … IN (SELECT …) is not supported yet\nHINT: List the values: they are the columns of the result.",
        );
        fails(
            "sales PIVOT (sum(amount) FOR quarter IN (1) DEFAULT ON NULL (0))",
            "PIVOT … DEFAULT ON NULL is not supported yet\nHINT: Use coalesce in the select list: SELECT coalesce(p.a, 0) …",
        );
        fails(
            "generate_series(1, 3) PIVOT (count(*) FOR value IN (1))",
            "PIVOT over \"generate_series\", whose columns are not known here, is not supported yet\nHINT: Check the name, or put \
             the rows into a subquery with named columns: FROM (SELECT a, b + 1 AS c FROM …) AS s PIVOT (…).",
        );
        fails(
            "sales PIVOT (sum(amount) FOR quarter IN (region))",
            "PIVOT takes constants in IN, not region\nHINT: Texts are written in single quotes: 'a'.",
        );
        fails(
            "sales PIVOT (sum(amount) FOR quarter IN (1, 1))",
            "PIVOT returns two columns \"1\"\nHINT: Give one of them another name.",
        );
        fails(
            "sales PIVOT (sum(amount) FOR (region, quarter) IN (1))",
            "PIVOT compares 2 columns after FOR, but the value 1 has 1",
        );
        let values: Vec<String> = (0..1_601).map(|value| value.to_string()).collect();
        fails(
            &format!("sales PIVOT (sum(amount) FOR quarter IN ({}))", values.join(", ")),
            "PIVOT returns 1601 columns for its values, but at most 1600 are allowed",
        );
    }
}
