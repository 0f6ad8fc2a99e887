//! Completes orderings that a query leaves open, so ties are always broken the same way.
//!
//! | in the query | completed by |
//! | --- | --- |
//! | `ORDER BY … LIMIT`, `DISTINCT ON` | all remaining columns |
//! | `LIMIT` without `ORDER BY` (unless switched off) | all columns |
//! | `OVER (…)` of a function that depends on the order among peers | all remaining columns |
//! | `array_agg`, `string_agg`, `first_value`, `last_value`, `nth_value` | their arguments |
//! | `any_value` | becomes the least value |
//!
//! Rows that tie in all columns are equal, so either may be taken. Never changed: `rank`, `dense_rank`,
//! `percent_rank`, `cume_dist`, and aggregates over RANGE and GROUPS frames: more keys would change a row's
//! peers. `last_value` up to the CURRENT ROW of such a frame is the last of its peers, and is computed within
//! them.
//!
//! Other functions that depend on the order in such a frame sort its rows themselves
//! ([`crate::functions::frame_values`]). Nested values are sorted by their bytes
//! ([`crate::rules::nested_order`]).

use std::any::Any;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Dependency};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, WindowFunction};
use datafusion::logical_expr::logical_plan::{Aggregate, Projection, Window};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Sort, SortExpr, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;
use millstream_delta::has_equal_forms;

use crate::functions::frame_values::{self, FrameValue};
use crate::functions::one_form;
use crate::functions::row_key::row_key;
use crate::relation::RelationTable;
use crate::routines::frames;
use crate::rules::sort_keys::without_repeated;
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug)]
pub struct Orderings;

impl AnalyzerRule for Orderings {
    fn name(&self) -> &str {
        "orderings"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let completed = plan.rewrite_up(|node| match node {
            LogicalPlan::Limit(mut limit) => {
                let input = limited(Arc::unwrap_or_clone(limit.input));
                limit.input = Arc::new(input);
                Ok(Transformed::yes(LogicalPlan::Limit(limit)))
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => {
                Ok(Transformed::yes(LogicalPlan::Sort(complete_sort(sort))))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(complete_distinct(on)))))
            }
            LogicalPlan::Window(window) => windows(window),
            LogicalPlan::Aggregate(aggregate) => aggregates(aggregate),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(completed.data)
    }
}

/// Completes the ordering of a LIMIT's input: that of the Sort below it, or a new one.
fn limited(input: LogicalPlan) -> LogicalPlan {
    match input {
        LogicalPlan::Sort(sort) => LogicalPlan::Sort(complete_sort(sort)),
        // DISTINCT ON returns rows in its own order, which is complete.
        LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => input,
        LogicalPlan::Projection(mut inner) if ordered(&inner.input) => {
            inner.input = Arc::new(limited(Arc::unwrap_or_clone(inner.input)));
            LogicalPlan::Projection(inner)
        }
        LogicalPlan::SubqueryAlias(mut inner) if ordered(&inner.input) => {
            inner.input = Arc::new(limited(Arc::unwrap_or_clone(inner.input)));
            LogicalPlan::SubqueryAlias(inner)
        }
        other => {
            let sort = complete_sort(Sort { expr: Vec::new(), input: Arc::new(other), fetch: None });
            // A single row needs no order, and a plan without orderable columns can't have one.
            if sort.expr.is_empty() { Arc::unwrap_or_clone(sort.input) } else { LogicalPlan::Sort(sort) }
        }
    }
}

/// True if a plan's rows have an order that a LIMIT above it uses.
pub(super) fn ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => true,
        LogicalPlan::Projection(inner) => ordered(&inner.input),
        LogicalPlan::SubqueryAlias(inner) => ordered(&inner.input),
        _ => false,
    }
}

/// True if rows can be sorted by a column of this type.
pub(crate) fn orderable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) | DataType::Union(..) => false,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => orderable(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| orderable(field.data_type())),
        DataType::Dictionary(_, value) => orderable(value),
        _ => true,
    }
}

fn ascending(expression: Expr) -> SortExpr {
    SortExpr::new(expression, true, false)
}

/// Returns the sort keys that complete an ordering of a plan's rows: the columns of its key, or all columns,
/// except known ones.
pub(crate) fn missing(plan: &LogicalPlan, known: &[&Expr]) -> Vec<SortExpr> {
    let schema = plan.schema();
    let column = |at: usize| Expr::Column(Column::from(schema.qualified_field(at)));
    let all = || (0..schema.fields().len()).collect();
    let wanted: Vec<usize> = key(plan).unwrap_or_else(all);
    let keys = wanted.into_iter().flat_map(|at| decided(column(at), schema.field(at).data_type()));
    keys.filter(|key| !known.contains(&key)).map(ascending).collect()
}

/// Returns the keys that order all values of an expression. The first one ignores the sign of a NaN, which
/// depends on the processor; then -0.0 sorts below 0.0. Nested values are sorted by their bytes.
fn decided(expression: Expr, data_type: &DataType) -> Vec<Expr> {
    let keys = match orderable(data_type) && has_equal_forms(data_type) {
        true => vec![one_form::call(expression.clone()), expression],
        false => vec![expression],
    };
    match data_type.is_nested() {
        true => keys.into_iter().map(row_key).collect(),
        false => keys,
    }
}

/// For a `min` or `max` of a nested value, returns the value and its sort key.
fn nested_extreme(name: &str, arguments: &[Expr], schema: &DFSchema) -> Option<(Expr, SortExpr)> {
    let ([value], "min" | "max") = (arguments, name) else { return None };
    value.get_type(schema).is_ok_and(|found| found.is_nested()).then_some(())?;
    Some((value.clone(), SortExpr::new(row_key(value.clone()), name == "min", false)))
}

/// Returns a plan's unique key if it is certain: above a table with a key, through nodes that keep each row
/// at most once. (Dependencies that DataFusion infers through other nodes are not relied on.)
fn key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    certain(plan).then_some(())?;
    let width = plan.schema().fields().len();
    let dependencies = plan.schema().functional_dependencies();
    let found = dependencies.iter().find(|dependence| {
        dependence.mode == Dependency::Single
            && !dependence.nullable
            && dependence.target_indices.len() == width
    })?;
    Some(found.source_indices.clone())
}

fn certain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => source_as_provider(&scan.source)
            .is_ok_and(|provider| (provider.as_ref() as &dyn Any).is::<RelationTable>()),
        LogicalPlan::Filter(inner) => certain(&inner.input),
        LogicalPlan::SubqueryAlias(inner) => certain(&inner.input),
        LogicalPlan::Projection(inner) => certain(&inner.input),
        LogicalPlan::Sort(inner) => certain(&inner.input),
        LogicalPlan::Limit(inner) => certain(&inner.input),
        _ => false,
    }
}

fn complete_sort(mut sort: Sort) -> Sort {
    let known: Vec<&Expr> = sort.expr.iter().map(|key| &key.expr).collect();
    let more = missing(&sort.input, &known);
    sort.expr.extend(more);
    sort
}

fn complete_distinct(mut on: DistinctOn) -> DistinctOn {
    let mut known: Vec<Expr> = Vec::with_capacity(on.on_expr.len());
    for expr in std::mem::take(&mut on.on_expr) {
        if !known.contains(&expr) {
            known.push(expr);
        }
    }
    on.on_expr = known;
    let mut order = on.sort_expr.take().unwrap_or_default();
    for key in &mut order {
        // A key that names an item of the select list has an alias, but is the same column.
        key.expr = key.expr.clone().unalias();
    }
    without_repeated(&mut order);
    if order.is_empty() {
        order.extend(on.on_expr.iter().cloned().map(ascending));
    }
    let known: Vec<&Expr> = order.iter().map(|key| &key.expr).collect();
    let more = missing(&on.input, &known);
    order.extend(more);
    on.sort_expr = Some(order);
    on
}

/// Replaces calls in a Window node. A projection above restores the names of changed calls.
fn windows(window: Window) -> Result<Transformed<LogicalPlan>> {
    let mut calls = Vec::with_capacity(window.window_expr.len());
    let mut changed = false;
    for call in &window.window_expr {
        // A call whose text changed with its types has an alias. Names are restored below.
        let call = call.clone().unalias();
        let completed = match &call {
            Expr::WindowFunction(function) => complete_window(function, &window.input),
            _ => None,
        };
        changed |= completed.is_some();
        calls.push(completed.unwrap_or(call));
    }
    match changed {
        false => Ok(Transformed::no(LogicalPlan::Window(window))),
        true => with_calls(window, calls),
    }
}

/// Replaces the calls of a window, under their old names.
pub(super) fn with_calls(window: Window, calls: Vec<Expr>) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(&window.input);
    let mut items: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for (call, at) in calls.iter().zip(items.len()..) {
        let (qualifier, field) = window.schema.qualified_field(at);
        let column = Expr::Column(Column::from_name(call.schema_name().to_string()));
        items.push(column.alias_qualified(qualifier.cloned(), field.name()));
    }
    let mut different: Vec<Expr> = Vec::with_capacity(calls.len());
    for call in calls {
        if !different.contains(&call) {
            different.push(call);
        }
    }
    // Calls that were equal may differ now: each ordering becomes a node of its own.
    let plan = LogicalPlanBuilder::window_plan(Arc::unwrap_or_clone(input), different)?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?)))
}

/// The order of rows that a window function depends on.
enum Depends {
    /// None that distinguishes peers.
    Not,
    /// The order of all rows of the partition.
    OnOrder,
    /// The last (or first) of the current row's peers.
    OnPeers,
    /// The order of the rows in the frame, which contains only whole groups of peers.
    InFrame,
}

fn depends(function: &WindowFunction) -> Depends {
    let params = &function.params;
    let frame = &params.window_frame;
    let (start, end) = (&frame.start_bound, &frame.end_bound);
    let plain = params.null_treatment != Some(NullTreatment::IgnoreNulls);
    let by_rows = frame.units == WindowFrameUnits::Rows;
    let whole = start.is_unbounded() && end.is_unbounded();
    let (starts_free, ends_free) = (free(start), free(end));
    match function.fun.name() {
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" => Depends::Not,
        "row_number" | "ntile" | "lag" | "lead" => Depends::OnOrder,
        "any_value" => Depends::InFrame,
        _ if by_rows || (whole && params.order_by.is_empty()) => Depends::OnOrder,
        "first_value" if start.is_unbounded() && ends_free && plain => Depends::OnOrder,
        "first_value" if matches!(start, WindowFrameBound::CurrentRow) && ends_free && plain => {
            Depends::OnPeers
        }
        "last_value" if end.is_unbounded() && starts_free && plain => Depends::OnOrder,
        "last_value" if matches!(end, WindowFrameBound::CurrentRow) && starts_free && plain => {
            Depends::OnPeers
        }
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" if whole => Depends::OnOrder,
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" => Depends::InFrame,
        _ => Depends::Not,
    }
}

/// True if a bound is not a distance.
pub(super) fn free(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::CurrentRow) || bound.is_unbounded()
}

/// True if the order of rows has no effect: the frame is the whole partition and the function ignores order.
fn ignores_order(function: &WindowFunction) -> bool {
    let frame = &function.params.window_frame;
    let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    whole
        && matches!(
            function.fun.name(),
            "sum"
                | "avg"
                | "count"
                | "min"
                | "max"
                | "bool_and"
                | "bool_or"
                | "bit_and"
                | "bit_or"
                | "bit_xor"
                | "median"
        )
}

fn complete_window(function: &WindowFunction, input: &LogicalPlan) -> Option<Expr> {
    let params = &function.params;
    if let Some((value, key)) = nested_extreme(function.fun.name(), &params.args, input.schema()) {
        let mut completed = function.clone();
        completed.params.null_treatment = Some(NullTreatment::IgnoreNulls);
        take_in_frame(&mut completed, FrameValue::Nth(1), value, vec![key]);
        return Some(Expr::WindowFunction(Box::new(completed)));
    }
    let known: Vec<&Expr> =
        params.partition_by.iter().chain(params.order_by.iter().map(|key| &key.expr)).collect();
    let more = missing(input, &known);
    if frames::is_of_user(&function.fun) {
        return of_user(function, more);
    }
    let least = function.fun.name() == "any_value";
    if (more.is_empty() && !least) || ignores_order(function) {
        return None;
    }
    let mut completed = function.clone();
    let params = &mut completed.params;
    match depends(function) {
        Depends::Not => return None,
        Depends::InFrame => {
            // The order determines the rows of a ROWS frame.
            if params.window_frame.units == WindowFrameUnits::Rows {
                params.order_by.extend(more.iter().cloned());
            }
            sort_in_frame(&mut completed, more, input)?;
        }
        Depends::OnOrder => {
            params.order_by.extend(more);
            let frame = &params.window_frame;
            if frame.units == WindowFrameUnits::Range && !(free(&frame.start_bound) && free(&frame.end_bound))
            {
                // A distance applies to one sort key only. Functions that get here ignore their frame.
                params.window_frame = WindowFrame::new(Some(true));
            }
        }
        Depends::OnPeers => {
            let peers = std::mem::take(&mut params.order_by);
            params.partition_by.extend(peers.into_iter().map(|key| key.expr));
            params.order_by = more;
            params.window_frame = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Following(ScalarValue::UInt64(None)),
            );
        }
    }
    Some(Expr::WindowFunction(Box::new(completed)))
}

/// Completes a user-defined aggregate. Rows of a ROWS frame arrive in order; peers are sorted on arrival.
fn of_user(function: &WindowFunction, more: Vec<SortExpr>) -> Option<Expr> {
    let WindowFunctionDefinition::AggregateUDF(inner) = &function.fun else { return None };
    let mut completed = function.clone();
    let params = &mut completed.params;
    let mut keys = Vec::new();
    if params.window_frame.units == WindowFrameUnits::Rows {
        params.order_by.extend(more);
    } else {
        keys = params.order_by.iter().cloned().chain(more).collect();
    }
    let framed = frames::framed(Arc::clone(inner), keys.iter().map(options).collect());
    params.args.extend(keys.into_iter().map(|key| key.expr));
    completed.fun = WindowFunctionDefinition::AggregateUDF(framed);
    Some(Expr::WindowFunction(Box::new(completed)))
}

fn options(key: &SortExpr) -> SortOptions {
    SortOptions { descending: !key.asc, nulls_first: key.nulls_first }
}

/// Replaces a function over a frame by one of ours, which sorts the frame's rows itself.
fn sort_in_frame(function: &mut WindowFunction, more: Vec<SortExpr>, input: &LogicalPlan) -> Option<()> {
    let name = function.fun.name().to_string();
    let literal = |at: usize| match function.params.args.get(at) {
        Some(Expr::Literal(value, _)) => Some(value.clone()),
        _ => None,
    };
    let taken = match name.as_str() {
        "first_value" | "any_value" => FrameValue::Nth(1),
        "last_value" => FrameValue::Nth(-1),
        "nth_value" => FrameValue::Nth(i64::try_from(literal(1)?.cast_to(&DataType::Int64).ok()?).ok()?),
        "array_agg" => FrameValue::Array,
        "string_agg" => FrameValue::Text(literal(1)?.try_as_str()?.unwrap_or_default().to_string()),
        _ => return None,
    };
    let mut keys: Vec<SortExpr> = function.params.order_by.iter().cloned().chain(more).collect();
    // Takes the least value, or all distinct values in their own order.
    if name == "any_value" || function.params.distinct {
        let value = function.params.args.first()?;
        let data_type = value.get_type(input.schema()).ok().filter(orderable)?;
        keys = decided(value.clone(), &data_type).into_iter().map(ascending).collect();
    }
    if name == "any_value" {
        function.params.null_treatment = Some(NullTreatment::IgnoreNulls);
    }
    let value = function.params.args.first()?.clone();
    take_in_frame(function, taken, value, keys);
    Some(())
}

fn take_in_frame(function: &mut WindowFunction, taken: FrameValue, value: Expr, keys: Vec<SortExpr>) {
    let frame = frame_values::function(function.fun.name(), taken, keys.iter().map(options).collect());
    function.fun = WindowFunctionDefinition::AggregateUDF(frame);
    function.params.args = std::iter::once(value).chain(keys.into_iter().map(|key| key.expr)).collect();
}

/// Replaces calls in an Aggregate node. A projection above restores the names of changed calls.
fn aggregates(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(aggregate.input.schema());
    let mut changed = false;
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for call in &aggregate.aggr_expr {
        let completed = call.clone().rewrite_up(|part| match part {
            Expr::AggregateFunction(function) => complete_aggregate(function, &schema),
            other => Ok(Transformed::no(other)),
        })?;
        changed |= completed.transformed;
        calls.push(completed.data);
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let first = aggregate.schema.fields().len() - calls.len();
    let mut items: Vec<Expr> =
        (0..first).map(|at| Expr::Column(Column::from(aggregate.schema.qualified_field(at)))).collect();
    let mut different: Vec<Expr> = Vec::with_capacity(calls.len());
    for (at, call) in calls.into_iter().enumerate() {
        let (qualifier, field) = aggregate.schema.qualified_field(first + at);
        let column = Expr::Column(Column::from_name(call.schema_name().to_string()));
        items.push(column.alias_qualified(qualifier.cloned(), field.name()));
        if !different.contains(&call) {
            different.push(call);
        }
    }
    let node = LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, different)?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(node))?)))
}

fn complete_aggregate(mut function: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let name = function.func.name();
    if let Some((_, key)) = nested_extreme(name, &function.params.args, schema) {
        function.func = first_value_udaf();
        function.params.order_by = vec![key];
        function.params.null_treatment = Some(NullTreatment::IgnoreNulls);
        function.params.distinct = false;
        return Ok(Transformed::yes(Expr::AggregateFunction(function)));
    }
    if name == "any_value" {
        let simple = function.params.args.first().map(|argument| argument.get_type(schema)).transpose()?;
        if simple.is_some_and(|found| !found.is_nested()) {
            function.func = min_udaf();
            function.params.order_by.clear();
            function.params.null_treatment = None;
            return Ok(Transformed::yes(Expr::AggregateFunction(function)));
        }
        // DataFusion's `any_value` ignores an order.
        function.func = first_value_udaf();
        function.params.null_treatment = Some(NullTreatment::IgnoreNulls);
    }
    let name = function.func.name();
    if !matches!(name, "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value") {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    }
    let mut more = Vec::new();
    for argument in &function.params.args {
        let data_type = argument.get_type(schema)?;
        if matches!(argument, Expr::Literal(..)) || (function.params.distinct && !orderable(&data_type)) {
            continue;
        }
        // The arguments of DISTINCT are canonical already, and must be sorted by themselves.
        let keys = match function.params.distinct {
            true => vec![argument.clone()],
            false => decided(argument.clone(), &data_type),
        };
        let known = |key: &Expr| function.params.order_by.iter().any(|known| known.expr == *key);
        more.extend(keys.into_iter().filter(|key| !known(key)).map(ascending));
    }
    let repeated = without_repeated(&mut function.params.order_by);
    match more.is_empty() && !repeated {
        true => Ok(Transformed::no(Expr::AggregateFunction(function))),
        false => {
            function.params.order_by.extend(more);
            Ok(Transformed::yes(Expr::AggregateFunction(function)))
        }
    }
}

#[cfg(test)]
mod tests;
