//! Over for functions over windows of one order.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::logical_plan::Window;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, SortExpr, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition,
};

use super::{Lowering, keys, ordering};
use crate::expressions::cannot_fail;
use crate::operator::{Cost, Properties};
use crate::operators::aggregate;
use crate::operators::over::{Call, Extent, Function, Number, Over, OverSpec, Reach, Running, RunningKind};
use crate::sorted::Ordering;
use crate::{Driver, Result};

/// Functions with a frame, other than aggregates.
const FRAMED: [&str; 3] = ["first_value", "last_value", "nth_value"];

/// The input of a function's computation.
enum Kind {
    Number(Number),
    /// The value of the row at this offset before; the default value.
    Shift(i64, ScalarValue),
    /// Rows near the current row.
    Near(Reach),
    /// The rows from the partition's first on.
    Running(Reach, RunningKind),
    /// All rows of the partition.
    All,
}

impl Lowering<'_> {
    /// Returns Over for a node of window functions. Returns `None` with the reason if Over can't compute it,
    /// or if PartitionRecompute is just as good.
    pub(super) fn over(&mut self, plan: &LogicalPlan, node: &Window) -> Result<Option<usize>> {
        if !keys::is_stable(plan)? {
            return Ok(self.because("an expression that changes from one evaluation to the next"));
        }
        // Rows without columns can't be stored.
        if node.input.schema().fields().is_empty() {
            return Ok(self.because("OVER over rows without columns"));
        }
        let mut functions = Vec::with_capacity(node.window_expr.len());
        for expr in &node.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias() else {
                return Ok(self.because("it is no call of a function"));
            };
            functions.push(*function);
        }
        let Some(first) = functions.first() else { return Ok(self.because("it has no function")) };
        let (partition, order) = (first.params.partition_by.clone(), first.params.order_by.clone());
        let same = |function: &WindowFunction| {
            function.params.partition_by == partition && function.params.order_by == order
        };
        if !functions.iter().all(same) {
            return Ok(self.because("OVER in several orders at once"));
        }
        let mut kinds = Vec::with_capacity(functions.len());
        for function in &functions {
            kinds.push(kind(function, &node.input)?);
        }
        let whole = kinds.iter().position(|kind| matches!(kind, Kind::All));
        let mut why = String::new();
        if let Some(whole) = whole {
            let name = functions[whole].fun.name();
            why = format!("{name} over this frame looks at all rows of a partition");
            if !partition.is_empty() {
                return Ok(self.because(why));
            }
        }
        let calls: Result<Vec<Call>> = kinds
            .into_iter()
            .zip(&functions)
            .map(|(kind, function)| call(kind, function, node, self.driver))
            .collect();
        self.push_over(node, calls?, (&partition, &order), why)
    }

    fn push_over(
        &mut self,
        node: &Window,
        calls: Vec<Call>,
        (partition, order): (&[Expr], &[SortExpr]),
        why: String,
    ) -> Result<Option<usize>> {
        let input = self.lower_or_whole(&node.input)?;
        let key = self.builder.properties(input).key.clone();
        let mut checked = Vec::new();
        for call in node.window_expr.iter().filter_map(window_function) {
            for expr in call.params.args.iter().chain(call.params.filter.as_deref()) {
                if !cannot_fail(expr)? {
                    checked.push(self.driver.expression(expr, &node.input)?);
                }
            }
        }
        let rows = self.builder.properties(input);
        let ordering = ordering::ordering(rows, &node.input, partition, order, self.driver)?;
        let cost = if why.is_empty() { Cost::Delta } else { Cost::Whole };
        let parts = OverSpec {
            threads: self.driver.threads().clone(),
            properties: Properties { key, cost, ..Properties::of(node.schema.inner().clone()) },
            schema: node.input.schema().inner().clone(),
            ordering: Ordering { checked, ..ordering },
            calls,
            detail: detail(node, partition, order),
            partition: partition.iter().map(ToString::to_string).collect(),
            why,
        };
        match Over::new(parts)? {
            Some(operator) => match self.as_of(Box::new(operator), node, input)? {
                Ok(place) => Ok(Some(place)),
                Err(over) => {
                    let (windows, builder) = (&mut self.windows, &mut self.builder);
                    windows.push_partitioned(builder, over, partition, &node.input, input).map(Some)
                }
            },
            None => Ok(self.because("values of some type have no order in bytes")),
        }
    }
}

/// Returns a call of a function of a node.
fn call(kind: Kind, function: &WindowFunction, node: &Window, driver: &Driver) -> Result<Call> {
    let (function, reach) = match kind {
        Kind::Number(number @ Number::Row) => (Function::Number(number), Reach::default()),
        Kind::Number(number) => (Function::Number(number), Reach::peers()),
        Kind::Shift(offset, default) => {
            let rows = Extent::rows(offset.unsigned_abs());
            let reach = match offset > 0 {
                true => Reach { before: rows, after: Extent::default() },
                false => Reach { before: Extent::default(), after: rows },
            };
            let value = driver.expression(&function.params.args[0], &node.input)?;
            let default: ArrayRef = default.to_array()?;
            (Function::Shift { value, offset, default }, reach)
        }
        Kind::Near(reach) => (Function::Near(driver.window(function, &node.input)?), reach),
        Kind::All => (Function::Near(driver.window(function, &node.input)?), Reach::all()),
        Kind::Running(reach, taken) => {
            let call = driver.window(function, &node.input)?;
            let filter = function.params.filter.as_deref();
            let filter = filter.map(|filter| driver.expression(filter, &node.input)).transpose()?;
            (Function::Running(Running { call, filter, taken }), reach)
        }
    };
    Ok(Call { function, reach })
}

fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_function(&alias.expr),
        Expr::WindowFunction(function) => Some(function),
        _ => None,
    }
}

fn detail(node: &Window, partition: &[Expr], order: &[SortExpr]) -> String {
    let calls: Vec<String> = node.window_expr.iter().filter_map(window_function).map(shown).collect();
    let mut text = calls.join(", ");
    if !partition.is_empty() {
        let by: Vec<String> = partition.iter().map(ToString::to_string).collect();
        text = format!("{text} of each {}", by.join(", "));
    }
    if !order.is_empty() {
        let by: Vec<String> = order.iter().map(ToString::to_string).collect();
        text = format!("{text} by {}", by.join(", "));
    }
    text
}

/// Formats a call for people.
fn shown(function: &WindowFunction) -> String {
    let params = &function.params;
    let arguments: Vec<String> = params.args.iter().map(ToString::to_string).collect();
    let mut text = format!("{}({})", function.fun.name(), arguments.join(", "));
    if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        text.push_str(" ignore nulls");
    }
    if let Some(filter) = &params.filter {
        text = format!("{text} filter {filter}");
    }
    let framed = match &function.fun {
        WindowFunctionDefinition::AggregateUDF(_) => true,
        WindowFunctionDefinition::WindowUDF(function) => FRAMED.contains(&function.name()),
    };
    match framed {
        true => format!("{text} {}", frame_text(&params.window_frame)),
        false => text,
    }
}

fn frame_text(frame: &WindowFrame) -> String {
    frame.to_string().to_lowercase()
}

/// Returns the input of a window function's computation.
fn kind(function: &WindowFunction, input: &LogicalPlan) -> Result<Kind> {
    let params = &function.params;
    let ignores_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    if params.distinct {
        return Ok(Kind::All);
    }
    match &function.fun {
        WindowFunctionDefinition::AggregateUDF(aggregate) => {
            let known = !ignores_nulls && aggregate::is_known(aggregate);
            framed(function, input, known.then_some(RunningKind::Aggregate))
        }
        WindowFunctionDefinition::WindowUDF(definition) => match definition.name() {
            "row_number" => Ok(Kind::Number(Number::Row)),
            "rank" => Ok(Kind::Number(Number::Rank)),
            "dense_rank" => Ok(Kind::Number(Number::Dense)),
            name @ ("lag" | "lead") => shifted(function, name, ignores_nulls, input),
            name if FRAMED.contains(&name) => nth(function, name, ignores_nulls, input),
            _ => Ok(Kind::All),
        },
    }
}

/// Returns the input of `lag` and `lead`.
fn shifted(function: &WindowFunction, name: &str, ignores_nulls: bool, input: &LogicalPlan) -> Result<Kind> {
    let args = &function.params.args;
    let literal = |at: usize| match args.get(at) {
        None => Some(None),
        Some(Expr::Literal(value, _)) => Some(Some(value.clone())),
        Some(_) => None,
    };
    let (Some(offset), Some(default), false) = (literal(1), literal(2), ignores_nulls) else {
        return Ok(Kind::All);
    };
    let data_type = args[0].get_type(input.schema())?;
    let offset = match offset.map(|offset| offset.cast_to(&DataType::Int64)).transpose() {
        Ok(None | Some(ScalarValue::Int64(None))) => Some(1),
        Ok(Some(ScalarValue::Int64(Some(offset)))) => Some(offset),
        _ => None,
    };
    let offset = match name {
        "lag" => offset,
        _ => offset.and_then(i64::checked_neg),
    };
    let Some(offset) = offset.filter(|_| data_type != DataType::Null) else { return Ok(Kind::All) };
    let default = match default.filter(|value| !value.data_type().is_null()) {
        Some(value) => value.cast_to(&data_type)?,
        None => ScalarValue::try_from(&data_type)?,
    };
    Ok(Kind::Shift(offset, default))
}

/// Returns the input of `first_value`, `last_value` and `nth_value`.
fn nth(function: &WindowFunction, name: &str, ignores_nulls: bool, input: &LogicalPlan) -> Result<Kind> {
    let n = match function.params.args.get(1) {
        _ if name == "first_value" => Some(1),
        Some(Expr::Literal(value, _)) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) => u64::try_from(n).ok().filter(|n| *n > 0),
            _ => None,
        },
        _ => None,
    };
    let frame = &function.params.window_frame;
    let last = name == "last_value";
    if last && !ignores_nulls && frame.start_bound.is_unbounded() {
        // The frame's first row doesn't matter.
        return Ok(match framed(function, input, Some(RunningKind::LastValid))? {
            Kind::Running(mut reach, _) => {
                reach.before.rows = reach.before.rows.max(1);
                Kind::Near(reach)
            }
            other => other,
        });
    }
    let taken = match n {
        _ if last => Some(RunningKind::LastValid),
        Some(n) => Some(RunningKind::Nth(n, ignores_nulls)),
        None => None,
    };
    framed(function, input, taken)
}

/// Returns the input of a function over a frame: rows near the current one, perhaps with a state of all rows
/// since the first, or all rows.
fn framed(function: &WindowFunction, input: &LogicalPlan, taken: Option<RunningKind>) -> Result<Kind> {
    let params = &function.params;
    let frame = &params.window_frame;
    if params.order_by.is_empty() && frame.units != WindowFrameUnits::Rows {
        return Ok(Kind::All);
    }
    let distances = [&frame.start_bound, &frame.end_bound].into_iter().any(|bound| match bound {
        WindowFrameBound::CurrentRow => false,
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => !value.is_null(),
    });
    if frame.units == WindowFrameUnits::Range && distances && !measures(&params.order_by, frame, input)? {
        return Ok(Kind::All);
    }
    let peers = if frame.units == WindowFrameUnits::Rows { Reach::default() } else { Reach::peers() };
    let (mut start, mut end) = (peers.clone(), peers);
    extend(&mut start, frame.units, &frame.start_bound);
    extend(&mut end, frame.units, &frame.end_bound);
    Ok(match (frame.start_bound.is_unbounded(), frame.end_bound.is_unbounded(), taken) {
        (_, true, _) | (true, _, None) => Kind::All,
        (true, false, Some(taken)) => Kind::Running(end, taken),
        (false, false, _) => {
            start.and(&end);
            Kind::Near(start)
        }
    })
}

/// Extends the reach to a frame's bound.
fn extend(reach: &mut Reach, units: WindowFrameUnits, bound: &WindowFrameBound) {
    let (extent, value) = match bound {
        WindowFrameBound::CurrentRow => return,
        WindowFrameBound::Preceding(value) => (&mut reach.before, value),
        WindowFrameBound::Following(value) => (&mut reach.after, value),
    };
    match (units, value) {
        (_, value) if value.is_null() => extent.all = true,
        (WindowFrameUnits::Rows, ScalarValue::UInt64(Some(rows))) => extent.rows = *rows,
        (WindowFrameUnits::Groups, ScalarValue::UInt64(Some(groups))) => extent.groups = Some(*groups),
        (WindowFrameUnits::Range, value) => extent.values.push(value.clone()),
        _ => extent.all = true,
    }
}

/// Returns true if the values within a distance of another value are found by adding and subtracting the
/// distance.
fn measures(order: &[SortExpr], frame: &WindowFrame, input: &LogicalPlan) -> Result<bool> {
    let [sort] = order else { return Ok(false) };
    let data_type = sort.expr.get_type(input.schema())?;
    let zoned = matches!(data_type, DataType::Timestamp(_, Some(_)));
    let dated = matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    Ok([&frame.start_bound, &frame.end_bound].into_iter().all(|bound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => match value {
            value if value.is_null() => true,
            ScalarValue::IntervalMonthDayNano(Some(length)) => {
                dated
                    && length.months == 0
                    && length.nanoseconds >= 0
                    && (length.days == 0 || (length.days > 0 && !zoned))
            }
            value => data_type.is_integer() && value.data_type() == data_type,
        },
    }))
}
