//! Windows of event time: `TUMBLE(orders, ts, INTERVAL '10 seconds')` in a FROM clause, and HOP, CUMULATE,
//! SESSION. [`gap_fill`] fills gaps between times.
//!
//! Each returns its input's rows with the columns `window_start` and `window_end`. A row in several windows
//! appears once for each. TUMBLE, HOP and CUMULATE are functions of a row ([`functions`]), SESSION one of the
//! rows of a key ([`session`]). A window is therefore planned as projections and OVER, which every query
//! supports.
//!
//! Deliberately absent: the closing of windows, which doesn't depend on the rows in them.

mod foreign_syntax;
mod functions;
mod gap_fill;
mod gap_rows;
mod grid;
mod session;
mod syntax;
mod window_time;

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Cast, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF,
    WindowFunctionDefinition, WindowUDF, cast, lit,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, FunctionArg, FunctionArgExpr, ObjectName, TableFactor, TableFunctionArgs,
};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::dml::tree::named_table;
use crate::error::{Error, Result};
use crate::hidden_columns::last_name;
use crate::literals::interval;
pub(crate) use foreign_syntax::rewrite_statement;
pub(crate) use gap_fill::hint as gap_fill_hint;
use grid::{Length, Timeline, WINDOWS_MAX};

/// Returns the scalar functions behind windows, which are in no registry.
pub(crate) fn scalars() -> impl Iterator<Item = Arc<ScalarUDF>> {
    functions::all()
}

/// Returns the window functions behind sessions.
pub(crate) fn sessions() -> [Arc<WindowUDF>; 2] {
    [session::session_start(), session::session_end()]
}

/// The column with a window's start.
pub const WINDOW_START: &str = "window_start";
/// The column with a window's end.
pub const WINDOW_END: &str = "window_end";

/// A function that assigns rows to windows, or fills the gaps between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
    GapFill,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        let kinds = [Kind::Tumble, Kind::Hop, Kind::Cumulate, Kind::Session, Kind::GapFill];
        kinds.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Tumble => "TUMBLE",
            Kind::Hop => "HOP",
            Kind::Cumulate => "CUMULATE",
            Kind::Session => "SESSION",
            Kind::GapFill => "GAP_FILL",
        }
    }

    /// Returns the names of the function's lengths, in their order.
    fn lengths(self) -> &'static [&'static str] {
        match self {
            Kind::Tumble => &["size"],
            Kind::Hop => &["slide", "size"],
            Kind::Cumulate => &["step", "size"],
            Kind::Session => &["gap"],
            Kind::GapFill => &["interval"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Kind::Tumble => "Write TUMBLE(orders, ts, INTERVAL '10 seconds' [, offset]).",
            Kind::Hop => {
                "Write HOP(orders, ts, INTERVAL '5 seconds', INTERVAL '10 seconds' [, offset]): slide, size."
            }
            Kind::Cumulate => {
                "Write CUMULATE(orders, ts, INTERVAL '1 hour', INTERVAL '1 day' [, offset]): step, largest size."
            }
            Kind::Session => "Write SESSION(orders PARTITION BY customer, ts, INTERVAL '30 minutes').",
            Kind::GapFill => {
                "Write GAP_FILL(readings, ts, INTERVAL '1 minute' [, PARTITION_BY(device)] \
                 [, LOCF(a), INTERPOLATE(b), KEEPNULL(c)])."
            }
        }
    }
}

/// Plans windows of event time.
#[derive(Debug)]
pub(crate) struct TimeWindows;

impl RelationPlanner for TimeWindows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if kind(&name).is_some() => {
                let kind = kind(&name).unwrap_or(Kind::Tumble);
                let plan = Call { kind, context }.plan(args.args)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn kind(name: &ObjectName) -> Option<Kind> {
    match name.0.as_slice() {
        [_] => last_name(name).and_then(|name| Kind::of(&name)),
        _ => None,
    }
}

/// Returns the relation whose rows a call assigns to windows, if the input is a name.
pub(crate) fn windowed(name: &ObjectName, args: &TableFunctionArgs) -> Option<ObjectName> {
    kind(name)?;
    match args.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(input)) => relation_name(input),
        _ => None,
    }
}

fn relation_name(input: &ExprTree) -> Option<ObjectName> {
    match input {
        ExprTree::Identifier(name) => Some(ObjectName::from(vec![name.clone()])),
        ExprTree::CompoundIdentifier(names) => Some(ObjectName::from(names.clone())),
        _ => None,
    }
}

/// A call, and the context that plans its arguments.
struct Call<'a> {
    kind: Kind,
    context: &'a mut dyn RelationPlannerContext,
}

/// The lengths of a call, and its offset.
struct Lengths {
    written: Vec<IntervalMonthDayNano>,
    offset: IntervalMonthDayNano,
}

impl Call<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: {what}", self.kind.name())).hint(self.kind.usage())
    }

    fn plan(&mut self, arguments: Vec<FunctionArg>) -> Result<LogicalPlan> {
        let mut arguments = arguments.into_iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            other => Err(self.wrong(format!("an argument {other} was not expected"))),
        });
        let input = arguments.next().ok_or_else(|| self.wrong("it has no arguments"))??;
        let mut rest = arguments.collect::<Result<Vec<ExprTree>>>()?;
        if self.kind == Kind::GapFill {
            return self.gap_fill(input, rest);
        }
        let keys = rest.first().filter(|_| self.kind == Kind::Session).and_then(syntax::keys);
        if keys.is_some() {
            rest.remove(0);
        }
        let wanted = 1 + self.kind.lengths().len();
        let optional = usize::from(self.kind != Kind::Session);
        if rest.len() < wanted || rest.len() > wanted + optional {
            return Err(self.wrong(format!("it has {} arguments", 1 + rest.len())));
        }
        let (input, name) = self.input(input)?;
        if let Some(taken) = [WINDOW_START, WINDOW_END]
            .into_iter()
            .find(|name| input.schema().fields().iter().any(|field| field.name() == name))
        {
            return Err(self
                .wrong(format!("its input has a column \"{taken}\" already"))
                .hint("Read it from a subquery that gives that column another name."));
        }
        let time = self.time(rest.remove(0), input.schema())?;
        let lengths = self.lengths(rest, &time, input.schema())?;
        let keys = keys.into_iter().flatten().map(|key| self.context.sql_to_expr(key, input.schema()));
        let keys = keys.collect::<PlanResult<Vec<Expr>>>()?;
        let plan = self.windows(input, time, keys, &lengths)?;
        under(plan, name)
    }

    /// Plans a call's input, and returns the name that qualifies its columns.
    fn input(&mut self, input: ExprTree) -> Result<(LogicalPlan, Option<TableReference>)> {
        if let Some(name) = relation_name(&input) {
            let reference = self.context.object_name_to_table_reference(name.clone())?;
            let plan = self.context.plan(named_table(name))?;
            return Ok((plan, Some(TableReference::bare(reference.table()))));
        }
        let factor = match input {
            ExprTree::Subquery(subquery) => {
                TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }
            }
            ExprTree::Function(function) => {
                let name = function.name.clone();
                syntax::table_function(function.name, function.args)
                    .ok_or_else(|| self.wrong(format!("{name} is no relation")))?
            }
            other => {
                return Err(self.wrong(format!("its first argument is {other}, but a relation was expected")));
            }
        };
        Ok((self.context.plan(factor)?, None))
    }

    /// Plans the time of a row.
    fn time(&mut self, written: ExprTree, schema: &DFSchema) -> Result<Expr> {
        let text = written.to_string();
        let time = self.context.sql_to_expr(written, schema)?;
        match time.get_type(schema)? {
            DataType::Timestamp(..) => Ok(time),
            DataType::Date32 | DataType::Date64 => {
                Ok(cast(time, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)))
            }
            other => {
                let found = millstream_delta::sql_type(&other);
                Err(self.wrong(format!("{text} is {found}, but a timestamp was expected")))
            }
        }
    }

    fn lengths(&mut self, written: Vec<ExprTree>, time: &Expr, schema: &DFSchema) -> Result<Lengths> {
        let names = self.kind.lengths();
        let mut intervals = Vec::with_capacity(written.len());
        for (at, expr) in written.into_iter().enumerate() {
            intervals.push(self.interval(names.get(at).unwrap_or(&"offset"), expr)?);
        }
        let offset = if intervals.len() > names.len() { intervals.pop() } else { None };
        let offset = offset.unwrap_or(IntervalMonthDayNano::ZERO);
        let named =
            |error: Error| Error { message: format!("{}: {}", self.kind.name(), error.message), ..error };
        let line = Timeline::new(&time.get_type(schema)?, offset).map_err(named)?;
        let length = |(interval, name): (&IntervalMonthDayNano, &&str)| {
            line.length(&format!("{name} of a window"), *interval)
        };
        let checked = intervals.iter().zip(names).map(length);
        let checked = checked.collect::<Result<Vec<Length>>>().map_err(named)?;
        if let [short, long] = checked[..] {
            let (ratio, exact) = line.ratio(long, short).map_err(named)?;
            if ratio > WINDOWS_MAX {
                return Err(
                    self.wrong(format!("each row would be in {ratio} windows, of {WINDOWS_MAX} at most"))
                );
            }
            if self.kind == Kind::Cumulate && (!exact || ratio == 0) {
                return Err(self.wrong("the largest size is not a multiple of the step"));
            }
        }
        Ok(Lengths { written: intervals, offset })
    }

    fn interval(&mut self, name: &str, written: ExprTree) -> Result<IntervalMonthDayNano> {
        let text = written.to_string();
        let wrong = |call: &Self| call.wrong(format!("the {name} is {text}, but an interval was expected"));
        interval(written, self.context).ok_or_else(|| wrong(self))
    }

    fn windows(
        &self,
        input: LogicalPlan,
        time: Expr,
        keys: Vec<Expr>,
        lengths: &Lengths,
    ) -> Result<LogicalPlan> {
        let literal = |interval| lit(ScalarValue::IntervalMonthDayNano(Some(interval)));
        let with = |first: Expr, lengths_of: &[IntervalMonthDayNano]| -> Vec<Expr> {
            let lengths_of = lengths_of.iter().copied().map(literal);
            std::iter::once(first).chain(lengths_of).chain([literal(lengths.offset)]).collect()
        };
        let written = &lengths.written;
        let columns = |plan: &LogicalPlan| -> Vec<Expr> {
            plan.schema().columns().into_iter().map(Expr::Column).collect()
        };
        let plan = match self.kind {
            Kind::Tumble => {
                let start = functions::tumble_start(with(time.clone(), written)).alias(WINDOW_START);
                let end = functions::tumble_end(with(time, written)).alias(WINDOW_END);
                let all = columns(&input).into_iter().chain([start, end]);
                LogicalPlanBuilder::from(input).project(all.collect::<Vec<_>>())?
            }
            Kind::Hop => {
                let starts = functions::hop_starts(with(time, written)).alias(WINDOW_START);
                let all: Vec<Expr> = columns(&input).into_iter().chain([starts]).collect();
                let unnested = LogicalPlanBuilder::from(input)
                    .project(all)?
                    .unnest_column(Column::from_name(WINDOW_START))?
                    .build()?;
                let start = Expr::Column(Column::from_name(WINDOW_START));
                let end = functions::hop_end(with(start, &written[1..])).alias(WINDOW_END);
                let all = columns(&unnested).into_iter().chain([end]);
                LogicalPlanBuilder::from(unnested).project(all.collect::<Vec<_>>())?
            }
            Kind::Cumulate => {
                let start = functions::tumble_start(with(time.clone(), &written[1..])).alias(WINDOW_START);
                let ends = functions::cumulate_ends(with(time, written)).alias(WINDOW_END);
                let all: Vec<Expr> = columns(&input).into_iter().chain([start, ends]).collect();
                LogicalPlanBuilder::from(input).project(all)?.unnest_column(Column::from_name(WINDOW_END))?
            }
            Kind::GapFill => return Err(Error::bug("GAP_FILL assigns no windows")),
            Kind::Session => {
                let over = |function| -> PlanResult<Expr> {
                    let arguments = vec![time.clone(), literal(written[0])];
                    Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), arguments))
                        .partition_by(keys.clone())
                        .order_by(vec![time.clone().sort(true, false)])
                        .build()
                };
                let (start, end) = (over(session::session_start())?, over(session::session_end())?);
                let before = columns(&input);
                let named = [start.clone().alias(WINDOW_START), end.clone().alias(WINDOW_END)];
                LogicalPlanBuilder::from(input)
                    .window([start, end])?
                    .project(before.into_iter().chain(named).collect::<Vec<_>>())?
            }
        };
        Ok(plan.build()?)
    }
}

/// Qualifies the columns of a call by the name of its input, if that has one.
fn under(plan: LogicalPlan, name: Option<TableReference>) -> Result<LogicalPlan> {
    match name {
        Some(name) => Ok(LogicalPlanBuilder::from(plan).alias(name)?.build()?),
        None => Ok(plan),
    }
}

/// Rewrites windows in the tokens of a query to forms that the parser takes.
pub(crate) fn rewrite(found: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    syntax::rewrite(foreign_syntax::rewrite(found))
}

/// Evaluates a constant expression as an interval.
pub(crate) fn interval(
    written: ExprTree,
    context: &mut dyn RelationPlannerContext,
) -> Option<IntervalMonthDayNano> {
    interval_value(context.sql_to_expr(written, &DFSchema::empty()).ok()?)
}

/// Converts a constant expression to an interval.
pub(crate) fn interval_value(expr: Expr) -> Option<IntervalMonthDayNano> {
    if let Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) = &expr {
        return interval::read(text).ok();
    }
    let to = DataType::Interval(IntervalUnit::MonthDayNano);
    match constant(Expr::Cast(Cast::new(Box::new(expr), to)))? {
        ScalarValue::IntervalMonthDayNano(length) => length,
        _ => None,
    }
}

/// Evaluates a constant expression.
pub(crate) fn constant(expression: Expr) -> Option<ScalarValue> {
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    match simplifier.simplify(expression) {
        Ok(Expr::Literal(value, _)) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "s",
                "(k TEXT, ts TIMESTAMP, z TIMESTAMPTZ)",
                "VALUES ('a', '2024-05-01 00:00:01', '2024-05-01 00:00:01+00'), ('a', '2024-05-01 00:00:09', NULL),
                 ('b', '2024-05-01 00:00:25', NULL), ('c', NULL, NULL)",
            )
            .table("t", "(k TEXT, at TIMESTAMP)", "VALUES ('a', '2024-05-01 00:00:03')")
            .view("late", "SELECT k, ts FROM s WHERE ts > TIMESTAMP '2024-05-01 00:00:05'")
    }

    const SHOWN: &str = "to_char(window_start, '%H:%M:%S') AS f, to_char(window_end, '%H:%M:%S') AS t";

    #[track_caller]
    fn check(from: &str, expected: &[&str]) {
        tables().check(&format!("SELECT k, {SHOWN} FROM {from}"), expected);
    }

    #[test]
    fn rows_stand_beside_their_windows() {
        let tumbling = ["a|00:00:00|00:00:10", "a|00:00:00|00:00:10", "b|00:00:20|00:00:30", "c|NULL|NULL"];
        check("TUMBLE(s, ts, INTERVAL '10 seconds')", &tumbling);
        check("tumble(s, s.ts, '10 seconds') AS w", &tumbling);
        check("TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND))", &tumbling);
        check(
            "TABLE(TUMBLE(DATA => TABLE s, SIZE => INTERVAL '10' SECOND, TIMECOL => DESCRIPTOR(ts))) w",
            &tumbling,
        );
        check(
            "TUMBLE((SELECT * FROM s WHERE k = 'b'), ts, INTERVAL '10 s', INTERVAL '6 s')",
            &["b|00:00:16|00:00:26"],
        );
        check("TUMBLE(late, ts, INTERVAL '10 seconds')", &tumbling[1..3]);
        check(
            "HOP(t, at, INTERVAL '2 seconds', INTERVAL '5 seconds')",
            &["a|00:00:00|00:00:05", "a|00:00:02|00:00:07", "a|23:59:58|00:00:03"][..2],
        );
        check(
            "CUMULATE(t, at, INTERVAL '2 seconds', INTERVAL '6 seconds')",
            &["a|00:00:00|00:00:04", "a|00:00:00|00:00:06"],
        );
    }

    #[test]
    fn sessions_are_those_of_a_key() {
        check(
            "SESSION(s PARTITION BY k, ts, INTERVAL '9 seconds')",
            &["a|00:00:01|00:00:18", "a|00:00:01|00:00:18", "b|00:00:25|00:00:34", "c|NULL|NULL"],
        );
        // A row exactly one gap after another is in the next session.
        check(
            "SESSION(s PARTITION BY (k, upper(k)), ts, INTERVAL '8 seconds')",
            &["a|00:00:01|00:00:09", "a|00:00:09|00:00:17", "b|00:00:25|00:00:33", "c|NULL|NULL"],
        );
        check(
            "SESSION(s, ts, INTERVAL '17 seconds')",
            &["a|00:00:01|00:00:42", "a|00:00:01|00:00:42", "b|00:00:01|00:00:42", "c|NULL|NULL"],
        );
    }

    #[test]
    fn windows_are_relations_like_others() {
        let tables = tables();
        tables.check(
            "SELECT s.k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 s') GROUP BY s.k, window_start",
            &["a|2", "b|1", "c|1"],
        );
        tables.check(
            "SELECT s.k FROM TUMBLE(s, ts, INTERVAL '10 s') JOIN TUMBLE(t, at, INTERVAL '10 s')
             ON s.window_start = t.window_start AND s.k = t.k",
            &["a", "a"],
        );
        tables.check(
            "SELECT count(*) AS n FROM TUMBLE((SELECT window_start AS x FROM TUMBLE(s, ts, '10 s')), x, '1 min')",
            &["4"],
        );
    }

    #[track_caller]
    fn refused(from: &str, expected: &str) {
        let tables = tables();
        let error = tables.planner.query(&format!("SELECT * FROM {from}"), &tables).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
    }

    #[test]
    fn what_is_wrong_with_windows_is_said() {
        refused("TUMBLE(s, ts)", "TUMBLE: it has 2 arguments");
        refused("TUMBLE(s, k, '1 s')", "TUMBLE: k is TEXT, but a timestamp was expected");
        refused("TUMBLE(s, ts, '0 s')", "TUMBLE: the size of a window must be above zero");
        refused("HOP(s, ts, '-1 s', '1 s')", "HOP: the slide of a window must be above zero");
        refused("TUMBLE(s, ts, 3)", "TUMBLE: the size is 3, but an interval was expected");
        refused("TUMBLE(s, ts, k)", "TUMBLE: the size is k, but an interval was expected");
        refused(
            "HOP(s, ts, '1 s', '1 month')",
            "HOP: the lengths of a window are given in different kinds of units",
        );
        refused("HOP(s, ts, '1 us', '1 day')", "windows, of 100000 at most");
        refused(
            "CUMULATE(s, ts, '7 s', '1 min')",
            "CUMULATE: the largest size is not a multiple of the step",
        );
        refused("SESSION(s PARTITION BY nope, ts, '1 s')", "nope");
        refused("SESSION(nope PARTITION BY k, ts, '1 s')", "relation \"nope\" not found");
        refused("TUMBLE(TUMBLE(s, ts, '1 s'), ts, '1 min')", "has a column \"window_start\" already");
        refused("TUMBLE(1, ts, '1 s')", "its first argument is 1, but a relation was expected");
    }
}
