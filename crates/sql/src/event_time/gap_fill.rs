//! `GAP_FILL(t, ts, INTERVAL '1 minute', PARTITION_BY(k), LOCF(a), INTERPOLATE(b), KEEPNULL(c))` in FROM, as in RisingWave:
//! the rows of a relation, and rows for the times that are missing between them.
//!
//! | planned | as |
//! | --- | --- |
//! | what follows a row | `lead(ts)` and `lead(b)`, `OVER (PARTITION BY k ORDER BY ts)` |
//! | the row itself and the rows up to the next one | the list [`gap_rows`]`(ts, lead(ts), interval, b, lead(b))`, unnested |
//! | `ts`, `b` | a field of an element of that list |
//! | `c` | `CASE WHEN given THEN c END`: only the row itself has it |
//! | other columns | those of the row before the gap |
//!
//! The order of rows at the same time is completed like every order: see [`crate::rules::orderings`].

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result as PlanResult;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_window::lead_lag::lead_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, lit, when,
};
use datafusion::sql::sqlparser::ast::Expr as ExprTree;

use super::grid::Timeline;
use super::{Call, gap_rows, syntax, under};
use crate::ast_rewrite::shorthand;
use crate::error::{Error, Result};
use crate::hidden_columns::last_name;

/// The column with a row's list, and then with an element of it.
const GAP: &str = "!gap";

/// The value of a column in rows that fill a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// That of the row before the gap.
    Carried,
    /// On the way from the row before the gap to the row after it.
    Interpolated,
    Null,
}

/// The decoded arguments of a call.
struct Gaps {
    /// The index of the column with the time.
    time: usize,
    interval: IntervalMonthDayNano,
    keys: Vec<Expr>,
    /// For each column of the input.
    fills: Vec<Fill>,
}

/// Returns what to write in place of a function that is not there; none for other names.
pub(crate) fn hint(name: &str) -> Option<&'static str> {
    match name {
        "locf" | "interpolate" | "keepnull" => Some(
            "It is an argument of GAP_FILL in FROM: \
             GAP_FILL(readings, ts, INTERVAL '1 minute', LOCF(a), INTERPOLATE(b), KEEPNULL(c)).",
        ),
        "time_bucket_gapfill" | "date_bin_gapfill" => Some(
            "Group by time_bucket in a subquery, and fill its gaps in FROM: \
             GAP_FILL((SELECT time_bucket(…) AS ts, avg(a) AS a FROM … GROUP BY 1), ts, INTERVAL '1 minute', LOCF(a)).",
        ),
        "gap_fill" => {
            Some("It belongs into FROM: SELECT * FROM GAP_FILL(readings, ts, INTERVAL '1 minute').")
        }
        _ => None,
    }
}

impl Call<'_> {
    /// Plans GAP_FILL. `rest` are the arguments after the relation.
    pub(super) fn gap_fill(&mut self, input: ExprTree, rest: Vec<ExprTree>) -> Result<LogicalPlan> {
        let count = 1 + rest.len();
        let (keyed, rest): (Vec<ExprTree>, Vec<ExprTree>) =
            rest.into_iter().partition(|argument| syntax::keys(argument).is_some());
        if keyed.len() > 1 {
            return Err(self.wrong("PARTITION_BY is given twice"));
        }
        let mut rest = rest.into_iter();
        let (Some(time), Some(interval)) = (rest.next(), rest.next()) else {
            return Err(self.wrong(format!("it has {count} arguments")));
        };
        let (input, name) = self.input(input)?;
        let schema = Arc::clone(input.schema());
        let text = time.to_string();
        let time = self.column(time, &schema)?;
        let data_type = schema.field(time).data_type();
        if !matches!(data_type, DataType::Timestamp(..)) {
            let found = millstream_delta::sql_type(data_type);
            return Err(self.wrong(format!("{text} is {found}, but a timestamp was expected")));
        }
        let interval = self.interval("interval", interval)?;
        Timeline::new(data_type, IntervalMonthDayNano::ZERO)
            .and_then(|line| line.length("interval", interval))
            .map_err(|error| Error {
                message: format!("{}: {}", self.kind.name(), error.message),
                ..error
            })?;
        let keys = keyed.iter().filter_map(syntax::keys).flatten();
        let keys =
            keys.map(|key| self.context.sql_to_expr(key, &schema)).collect::<PlanResult<Vec<Expr>>>()?;
        let fills = self.fills(rest, time, &keys, &schema)?;
        under(planned(input, &Gaps { time, interval, keys, fills })?, name)
    }

    /// Returns the index of the column that an argument names.
    fn column(&mut self, written: ExprTree, schema: &DFSchema) -> Result<usize> {
        let text = written.to_string();
        match self.context.sql_to_expr(written, schema)? {
            Expr::Column(column) => Ok(schema.index_of_column(&column)?),
            _ => Err(self.wrong(format!("{text} was found, but the name of a column was expected"))),
        }
    }

    /// Decodes the arguments that say how columns are filled.
    fn fills(
        &mut self,
        written: impl Iterator<Item = ExprTree>,
        time: usize,
        keys: &[Expr],
        schema: &DFSchema,
    ) -> Result<Vec<Fill>> {
        let place = |key: &Expr| match key {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        let fixed: Vec<usize> = keys.iter().filter_map(place).chain([time]).collect();
        let mut fills: Vec<Option<Fill>> = vec![None; schema.fields().len()];
        for argument in written {
            let Some((fill, column)) = strategy(&argument) else {
                return Err(self.wrong(format!(
                    "{argument} was found, but LOCF(column), INTERPOLATE(column), KEEPNULL(column) or PARTITION_BY(column, …) was expected"
                )));
            };
            let at = self.column(column, schema)?;
            if fixed.contains(&at) {
                return Err(self.wrong(format!("{argument} fills the time or a column of PARTITION_BY")));
            }
            let data_type = schema.field(at).data_type();
            if fill == Fill::Interpolated && !gap_rows::interpolates(data_type) {
                let found = millstream_delta::sql_type(data_type);
                return Err(self.wrong(format!("{argument} is of {found}, but a number was expected")));
            }
            if fills[at].replace(fill).is_some() {
                return Err(self.wrong(format!("{argument} fills a column that another argument fills")));
            }
        }
        Ok(fills.into_iter().map(|fill| fill.unwrap_or(Fill::Carried)).collect())
    }
}

/// Decodes an argument such as `LOCF(a)`.
fn strategy(argument: &ExprTree) -> Option<(Fill, ExprTree)> {
    let ExprTree::Function(function) = argument else { return None };
    let fill = match last_name(&function.name)?.as_str() {
        "locf" => Fill::Carried,
        "interpolate" => Fill::Interpolated,
        "keepnull" => Fill::Null,
        _ => return None,
    };
    let mut arguments = shorthand::arguments(function)?;
    (arguments.len() == 1).then(|| (fill, arguments.remove(0)))
}

/// Returns the name of a column with a value of the next row.
fn next_name(number: usize) -> String {
    format!("!next_{number}")
}

/// Plans the rows, with those that fill gaps.
fn planned(input: LogicalPlan, gaps: &Gaps) -> PlanResult<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    let column = |at: usize| Expr::Column(Column::from(schema.qualified_field(at)));
    let columns = || (0..schema.fields().len()).map(column);
    let line: Vec<usize> = (0..gaps.fills.len()).filter(|at| gaps.fills[*at] == Fill::Interpolated).collect();
    let lead = |at: usize| -> PlanResult<Expr> {
        let function = WindowFunctionDefinition::WindowUDF(lead_udwf());
        Expr::from(WindowFunction::new(function, vec![column(at)]))
            .partition_by(gaps.keys.clone())
            .order_by(vec![column(gaps.time).sort(true, false)])
            .build()
    };
    let read = std::iter::once(gaps.time).chain(line.iter().copied());
    let leads = read.map(lead).collect::<PlanResult<Vec<Expr>>>()?;
    let named = leads.iter().enumerate().map(|(number, lead)| lead.clone().alias(next_name(number)));
    let items: Vec<Expr> = columns().chain(named).collect();
    let next = |number: usize| Expr::Column(Column::from_name(next_name(number)));
    let interval = lit(ScalarValue::IntervalMonthDayNano(Some(gaps.interval)));
    let mut arguments = vec![column(gaps.time), next(0), interval];
    for (number, at) in line.iter().enumerate() {
        arguments.extend([column(*at), next(number + 1)]);
    }
    let list = gap_rows::function().call(arguments).alias(GAP);
    let lists: Vec<Expr> = columns().chain([list]).collect();
    LogicalPlanBuilder::from(input)
        .window(leads)?
        .project(items)?
        .project(lists)?
        .unnest_column(Column::from_name(GAP))?
        .project(filled(&schema, gaps, &line)?)?
        .build()
}

/// Returns the columns of the result. `line` are the interpolated ones.
fn filled(schema: &DFSchema, gaps: &Gaps, line: &[usize]) -> PlanResult<Vec<Expr>> {
    let part = |name: &str| get_field(Expr::Column(Column::from_name(GAP)), name);
    let mut items = Vec::with_capacity(gaps.fills.len());
    for (at, fill) in gaps.fills.iter().enumerate() {
        let (qualifier, field) = schema.qualified_field(at);
        let column = Expr::Column(Column::from((qualifier, field)));
        let value = match (fill, line.iter().position(|interpolated| *interpolated == at)) {
            _ if at == gaps.time => part(gap_rows::TIME),
            (_, Some(number)) => part(&gap_rows::value_name(number)),
            (Fill::Null, None) => when(part(gap_rows::GIVEN), column).end()?,
            (Fill::Carried | Fill::Interpolated, None) => {
                items.push(column);
                continue;
            }
        };
        items.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table(
            "r",
            "(k TEXT, ts TIMESTAMP, n INT, x DOUBLE, p NUMERIC(6, 2), s TEXT)",
            "VALUES ('a', '2024-05-01 00:00:00', 10, 1, 1.00, 'u'), ('a', '2024-05-01 00:00:03', 21, 2.5, 2.00, 'v'),
                    ('b', '2024-05-01 00:00:01', 5, NULL, NULL, NULL), ('b', '2024-05-01 00:00:02', 4, 1, 1, 'w'),
                    ('c', NULL, 1, 1, 1, 'x')",
        )
    }

    fn sql(columns: &str, rest: &str) -> String {
        let call = format!("GAP_FILL(r, ts, INTERVAL '1 second', PARTITION_BY(k){rest})");
        format!("SELECT k, to_char(ts, '%S') AS t, {columns} FROM {call}")
    }

    #[test]
    fn columns_are_filled_as_written() {
        let tables = tables();
        tables.check(
            &sql("n, s", ""),
            &["a|00|10|u", "a|01|10|u", "a|02|10|u", "a|03|21|v", "b|01|5|NULL", "b|02|4|w", "c|NULL|1|x"],
        );
        tables.check(
            &sql("n, x, p, s", ", INTERPOLATE(n), INTERPOLATE(x), interpolate(r.p), KEEPNULL(s)"),
            &[
                "a|00|10|1.0|1.00|u",
                "a|01|13|1.5|1.33|NULL",
                "a|02|16|2.0|1.67|NULL",
                "a|03|21|2.5|2.00|v",
                "b|01|5|NULL|NULL|NULL",
                "b|02|4|1.0|1.00|w",
                "c|NULL|1|1.0|1.00|x",
            ],
        );
    }

    #[test]
    fn gaps_are_relations_like_others() {
        let tables = tables();
        tables.check(
            "WITH q AS (SELECT * FROM r WHERE k = 'a') SELECT count(*), sum(g.n) FROM GAP_FILL(q PARTITION BY k, ts, '1 second') AS g",
            &["4|51"],
        );
        tables.check("SELECT count(r.n) FROM GAP_FILL(TABLE r, DESCRIPTOR(ts), INTERVAL '1' SECOND)", &["5"]);
        tables.check(
            "SELECT count(*) FROM GAP_FILL((SELECT ts FROM r), ts, INTERVAL '500 ms') AS g(at)",
            &["8"],
        );
    }

    #[track_caller]
    fn refused(call: &str, expected: &str) {
        let tables = tables();
        let error = tables.planner.query(&format!("SELECT * FROM {call}"), &tables).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
    }

    #[test]
    fn wrong_calls_are_explained() {
        refused("GAP_FILL(r, ts)", "GAP_FILL: it has 2 arguments");
        refused("GAP_FILL(r, n, '1 s')", "GAP_FILL: n is INT, but a timestamp was expected");
        refused("GAP_FILL(r, ts, 3)", "GAP_FILL: the interval is 3, but an interval was expected");
        refused("GAP_FILL(r, ts, '0 s')", "GAP_FILL: the interval must be above zero");
        refused("GAP_FILL(r, ts, '1 month 1 day')", "GAP_FILL: the interval mixes months with days or hours");
        refused(
            "GAP_FILL(r, ts, '1 s', INTERPOLATE(s))",
            "GAP_FILL: INTERPOLATE(s) is of TEXT, but a number",
        );
        refused("GAP_FILL(r, ts, '1 s', LOCF(n + 1))", "was found, but the name of a column was expected");
        refused("GAP_FILL(r, ts, '1 s', avg(n))", "GAP_FILL: avg(n) was found, but LOCF(column)");
        refused("GAP_FILL(r, ts, '1 s', LOCF(n), KEEPNULL(n))", "fills a column that another argument fills");
        refused("GAP_FILL(r, ts, '1 s', LOCF(ts))", "fills the time or a column of PARTITION_BY");
        refused("GAP_FILL(nope, ts, '1 s')", "relation \"nope\" not found");
        let gap = "(SELECT TIMESTAMP '2024-01-01' AS ts UNION ALL SELECT TIMESTAMP '2025-01-01')";
        let tables = tables();
        let hint = |sql: &str| tables.planner.query(sql, &tables).unwrap_err().hint.unwrap_or_default();
        assert!(hint("SELECT locf(n) FROM r").starts_with("It is an argument of GAP_FILL in FROM"));
        assert!(hint("SELECT time_bucket_gapfill('1 s', ts) FROM r").starts_with("Group by time_bucket"));
        let query = format!("SELECT count(*) FROM GAP_FILL({gap}, ts, INTERVAL '1 microsecond')");
        let query = tables.planner.query(&query, &tables).unwrap();
        let error = tables.execute(&query.plan, &|batch| vec![batch]).unwrap_err();
        assert!(error.to_string().contains("GAP_FILL would make a value of"), "{error}");
    }
}
