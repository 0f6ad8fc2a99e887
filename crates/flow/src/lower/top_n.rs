//! TopN for the first rows of an order: ORDER BY … LIMIT, OVER with a bound on the rank, and the first row of
//! each group.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, WindowFunction};
use datafusion::logical_expr::logical_plan::{
    Aggregate, FetchType, Filter, Limit, Projection, SkipType, Sort, Window,
};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, SortExpr, WindowFunctionDefinition};

use super::emit_on_close::key_times;
use super::{Lowering, keys, ordering};
use crate::Result;
use crate::expressions::cannot_fail;
use crate::leaf::{Leaf, Slot};
use crate::operator::Properties;
use crate::operators::stateless::{Stage, Stateless};
use crate::operators::top_n::{Rank, TopN, TopNSpec};
use crate::sorted::Ordering;

/// The first rows of an order that a plan asks for.
struct TopNRequest<'a> {
    input: &'a LogicalPlan,
    partition: &'a [Expr],
    order: Vec<SortExpr>,
    rank: Rank,
    range: Range<u64>,
    /// The output's schema if its last column is the row number.
    numbered: Option<SchemaRef>,
}

/// A filter on the rank that a Window node gives its rows.
pub(super) struct Ranked<'a> {
    window: &'a Window,
    function: &'a WindowFunction,
    rank: Rank,
    range: Range<u64>,
    /// True if a node above reads the number.
    numbered: bool,
    /// The nodes to apply to the rows afterwards, the first one last.
    above: Vec<LogicalPlan>,
}

impl Lowering<'_> {
    /// Returns TopN for a LIMIT over an order, or an order with a bound.
    pub(super) fn limited(&mut self, plan: &LogicalPlan) -> Result<Option<usize>> {
        let Some((sort, range, between)) = bounded(plan)? else {
            return Ok(self.because("ORDER BY … LIMIT over this has no cheaper operator yet"));
        };
        if !keys::is_stable(&LogicalPlan::Sort(sort.clone()))? {
            return Ok(self.because("an expression that changes from one evaluation to the next"));
        }
        let wanted = TopNRequest {
            input: &sort.input,
            partition: &[],
            order: sort.expr.clone(),
            rank: Rank::Row,
            range,
            numbered: None,
        };
        match self.top_n(wanted)? {
            Some(node) => self.stages(node, &sort.input, &between).map(Some),
            None => Ok(None),
        }
    }

    /// Returns TopN for a filter on a rank, with the nodes above it.
    pub(super) fn ranked(&mut self, ranked: &Ranked<'_>) -> Result<Option<usize>> {
        let Ranked { window, function, rank, ref range, numbered, .. } = *ranked;
        let params = &function.params;
        let wanted = TopNRequest {
            input: &window.input,
            partition: &params.partition_by,
            order: params.order_by.clone(),
            rank,
            range: range.clone(),
            numbered: numbered.then(|| window.schema.inner().clone()),
        };
        let Some(node) = self.top_n(wanted)? else { return Ok(None) };
        let above: Vec<&LogicalPlan> = ranked.above.iter().collect();
        let schema = if numbered { window.schema.clone() } else { window.input.schema().clone() };
        self.stages(node, &Leaf::plan(0, schema, Slot::default()), &above).map(Some)
    }

    /// Returns TopN for an aggregate that asks only for values of the first row of each group: DISTINCT ON.
    pub(super) fn first_of_groups(&mut self, plan: &LogicalPlan, node: &Aggregate) -> Result<Option<usize>> {
        let Some((order, values)) = firsts(node)? else { return Ok(None) };
        let wanted = TopNRequest {
            input: &node.input,
            partition: &node.group_expr,
            order,
            rank: Rank::Row,
            range: 0..1,
            numbered: None,
        };
        let Some(input) = self.top_n(wanted)? else { return Ok(None) };
        let schema = plan.schema().inner().clone();
        let all: Vec<&Expr> = node.group_expr.iter().chain(&values).collect();
        let exprs =
            all.iter().map(|expr| self.driver.expression(expr, &node.input)).collect::<Result<_>>()?;
        let times = key_times(all, &node.input, &self.builder.times_of(input), self.driver)?;
        let times = times.into_iter().map(|(_, time)| time).collect();
        let key = Some((0..node.group_expr.len()).collect());
        let mut operator =
            Stateless::new(node.input.schema().inner().clone(), self.builder.append_only(input));
        operator.push(Stage::Project(exprs, schema.clone()), schema);
        let node = self.builder.push(operator.with_key(key), vec![input]);
        self.builder.set_times(node, times);
        Ok(Some(node))
    }

    fn top_n(&mut self, wanted: TopNRequest<'_>) -> Result<Option<usize>> {
        let TopNRequest { input: plan, partition, order, rank, range, numbered } = wanted;
        let input = self.lower_or_whole(plan)?;
        let schema = plan.schema();
        let place = |expr: &Expr| match expr {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        let key = self.builder.properties(input).key.clone();
        let only_inserts = self.builder.append_only(input);
        let groups: Option<Vec<usize>> = partition.iter().map(place).collect();
        let out_key = match groups {
            Some(groups) if rank == Rank::Row && range.end.saturating_sub(range.start) <= 1 => Some(groups),
            Some(groups) if rank == Rank::Row && numbered.is_some() && key.is_none() => {
                Some(groups.into_iter().chain([schema.fields().len()]).collect())
            }
            _ => key,
        };
        let ordering =
            ordering::ordering(self.builder.properties(input), plan, partition, &order, self.driver)?;
        let names: Vec<String> = partition.iter().map(ToString::to_string).collect();
        let parts = TopNSpec {
            threads: self.driver.threads().clone(),
            properties: Properties {
                key: out_key,
                ..Properties::of(numbered.clone().unwrap_or_else(|| schema.inner().clone()))
            },
            schema: schema.inner().clone(),
            ordering: Ordering { peers: rank == Rank::Peers, ..ordering },
            rank,
            numbered: numbered.is_some(),
            only_inserts,
            detail: detail(rank, &range, &order, &names, numbered.is_some()),
            partition: names,
            range,
        };
        match TopN::new(parts)? {
            Some(operator) => {
                let (windows, builder) = (&mut self.windows, &mut self.builder);
                windows.push_partitioned(builder, Box::new(operator), partition, plan, input).map(Some)
            }
            None => Ok(self.because("values of some type have no order in bytes")),
        }
    }
}

fn detail(
    rank: Rank,
    range: &Range<u64>,
    order: &[SortExpr],
    partition: &[String],
    numbered: bool,
) -> String {
    let what = match rank {
        Rank::Row => "rows",
        Rank::Peers => "ranks",
    };
    let which = match range {
        Range { start, end: u64::MAX } => format!("from {} on", start + 1),
        Range { start, end } if start >= end => "none".into(),
        Range { start, end } => format!("{} to {end}", start + 1),
    };
    let order: Vec<String> = order.iter().map(ToString::to_string).collect();
    let mut text = format!("{what} {which}");
    if !order.is_empty() {
        text = format!("{text} by {}", order.join(", "));
    }
    if !partition.is_empty() {
        text = format!("{text} of each {}", partition.join(", "));
    }
    if numbered {
        text.push_str(", numbered");
    }
    text
}

/// An order, the range of its rows, and the nodes to apply to these, the first one last.
type Bounded<'a> = (&'a Sort, Range<u64>, Vec<&'a LogicalPlan>);

fn bounded(plan: &LogicalPlan) -> Result<Option<Bounded<'_>>> {
    let (mut below, range) = match plan {
        LogicalPlan::Limit(limit) => {
            let Some(range) = bounds(limit)? else { return Ok(None) };
            (limit.input.as_ref(), range)
        }
        other => (other, 0..u64::MAX),
    };
    let mut between = Vec::new();
    loop {
        match below {
            LogicalPlan::Sort(sort) => {
                let end = sort.fetch.map_or(u64::MAX, |fetch| fetch as u64).min(range.end);
                return Ok(Some((sort, range.start..end, between)));
            }
            // A row outside of the range must not cause a failure.
            LogicalPlan::Projection(node) if keys::is_infallible(below)? => {
                between.push(below);
                below = &node.input;
            }
            LogicalPlan::SubqueryAlias(node) => below = &node.input,
            _ => return Ok(None),
        }
    }
}

fn bounds(limit: &Limit) -> Result<Option<Range<u64>>> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Ok(None);
    };
    let start = skip as u64;
    Ok(Some(start..fetch.map_or(u64::MAX, |fetch| start.saturating_add(fetch as u64))))
}

/// Recognises a filter on ranks in these nodes, the lowest last, and the Window node below them.
pub(super) fn ranks<'a>(chain: &[&'a LogicalPlan], below: &'a LogicalPlan) -> Result<Option<Ranked<'a>>> {
    let LogicalPlan::Window(window) = below else { return Ok(None) };
    let (above, filter, projection) = match chain {
        [above @ .., LogicalPlan::Filter(filter)] => (above, filter, None),
        [above @ .., LogicalPlan::Filter(filter), LogicalPlan::Projection(node)] => {
            (above, filter, Some(node))
        }
        _ => return Ok(None),
    };
    let Some((function, rank)) = rank(window) else { return Ok(None) };
    let number = window.schema.fields().len() - 1;
    let number = match projection {
        None => Some(number),
        Some(projection) => passed(projection, number),
    };
    let Some(number) = number else { return Ok(None) };
    let is_number = |expr: &Expr| match expr {
        Expr::Column(column) => filter.input.schema().maybe_index_of_column(column) == Some(number),
        _ => false,
    };
    let (mut range, mut rest) = (0..u64::MAX, Vec::new());
    for part in split_conjunction(&filter.predicate) {
        match bound(part, &is_number) {
            Some(bound) => range = range.start.max(bound.start)..range.end.min(bound.end),
            None => rest.push(part.clone()),
        }
    }
    let asks = |expr: &Expr| expr.exists(|part| Ok(is_number(part)));
    let mut numbered = false;
    for expr in &rest {
        numbered |= asks(expr)?;
        if !cannot_fail(expr)? {
            return Ok(None);
        }
    }
    if range.end == u64::MAX || !keys::is_stable(below)? {
        return Ok(None);
    }
    let nearest = match above.last() {
        Some(LogicalPlan::Projection(nearest)) => Some(nearest),
        _ => None,
    };
    numbered |= match nearest {
        Some(nearest) => {
            nearest.expr.iter().map(asks).collect::<datafusion::common::Result<Vec<_>>>()?.contains(&true)
        }
        None => true,
    };
    let range = range.start..range.end.max(range.start);
    let mut nodes: Vec<LogicalPlan> = above.iter().map(|node| (*node).clone()).collect();
    let input = match numbered {
        true => filter.input.clone(),
        false => Arc::new(Leaf::plan(0, window.input.schema().clone(), Slot::default())),
    };
    let filtered = match conjunction(rest) {
        Some(rest) => Arc::new(LogicalPlan::Filter(Filter::try_new(rest, input.clone())?)),
        None => input.clone(),
    };
    if !numbered && let Some(nearest) = nodes.pop() {
        nodes.push(nearest.map_children(|_| Ok(Transformed::yes(filtered.as_ref().clone())))?.data);
    }
    if !Arc::ptr_eq(&input, &filtered) {
        nodes.push(Arc::unwrap_or_clone(filtered));
    }
    if let (true, Some(_), Some(node)) = (numbered, projection, chain.last()) {
        nodes.push((*node).clone());
    }
    Ok(Some(Ranked { window, function, rank, range, numbered, above: nodes }))
}

/// Returns the only function of a Window node, if it is a rank.
fn rank(window: &Window) -> Option<(&WindowFunction, Rank)> {
    let [call] = &window.window_expr[..] else { return None };
    let call = if let Expr::Alias(alias) = call { alias.expr.as_ref() } else { call };
    let Expr::WindowFunction(function) = call else { return None };
    let WindowFunctionDefinition::WindowUDF(definition) = &function.fun else { return None };
    let number = window.schema.fields().last()?.data_type();
    match (definition.name(), number) {
        ("row_number", DataType::UInt64 | DataType::Int64) => Some((function, Rank::Row)),
        ("rank", DataType::UInt64 | DataType::Int64) => Some((function, Rank::Peers)),
        _ => None,
    }
}

/// Returns the place of a column after a projection that only drops columns.
fn passed(projection: &Projection, place: usize) -> Option<usize> {
    let schema = projection.input.schema();
    let places: Option<Vec<usize>> = projection
        .expr
        .iter()
        .map(|expr| match expr {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        })
        .collect();
    places?.iter().position(|at| *at == place)
}

/// Returns the range of numbers, minus 1, that satisfy a condition.
fn bound(condition: &Expr, is_number: &dyn Fn(&Expr) -> bool) -> Option<Range<u64>> {
    let upto = |bound: i128| u64::try_from(bound.max(0)).unwrap_or(u64::MAX);
    match condition {
        Expr::BinaryExpr(binary) => {
            let (operator, bound) = match (is_number(&binary.left), is_number(&binary.right)) {
                (true, false) => (binary.op, whole(&binary.right)?),
                (false, true) => (binary.op.swap()?, whole(&binary.left)?),
                _ => return None,
            };
            match operator {
                Operator::Eq => Some(upto(bound - 1)..upto(bound)),
                Operator::Lt => Some(0..upto(bound - 1)),
                Operator::LtEq => Some(0..upto(bound)),
                Operator::Gt => Some(upto(bound)..u64::MAX),
                Operator::GtEq => Some(upto(bound - 1)..u64::MAX),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated && is_number(&between.expr) => {
            Some(upto(whole(&between.low)? - 1)..upto(whole(&between.high)?))
        }
        _ => None,
    }
}

fn whole(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int64(Some(value)) => Some((*value).into()),
        ScalarValue::UInt64(Some(value)) => Some((*value).into()),
        ScalarValue::Int32(Some(value)) => Some((*value).into()),
        ScalarValue::UInt32(Some(value)) => Some((*value).into()),
        _ => None,
    }
}

/// Returns the order and the values that an aggregate takes from the first row of each group.
fn firsts(node: &Aggregate) -> Result<Option<(Vec<SortExpr>, Vec<Expr>)>> {
    let grouped = !node.group_expr.is_empty() && !matches!(node.group_expr[..], [Expr::GroupingSet(_)]);
    if !grouped || node.aggr_expr.is_empty() || !keys::is_stable(&LogicalPlan::Aggregate(node.clone()))? {
        return Ok(None);
    }
    let mut order: Option<Vec<SortExpr>> = None;
    let mut values = Vec::with_capacity(node.aggr_expr.len());
    for call in &node.aggr_expr {
        let Expr::AggregateFunction(call) = call.clone().unalias() else { return Ok(None) };
        let Some((value, by)) = first(call) else { return Ok(None) };
        if *order.get_or_insert_with(|| by.clone()) != by || !cannot_fail(&value)? {
            return Ok(None);
        }
        values.push(value);
    }
    Ok(order.map(|order| (order, values)))
}

/// Returns the value that a call takes from the first row of an order, and that order.
fn first(call: AggregateFunction) -> Option<(Expr, Vec<SortExpr>)> {
    let mut params = call.params;
    let plain = !params.distinct
        && params.filter.is_none()
        && params.null_treatment != Some(NullTreatment::IgnoreNulls)
        && !params.order_by.is_empty();
    match call.func.name() {
        _ if !plain => return None,
        "first_value" => {}
        "last_value" => {
            for sort in &mut params.order_by {
                (sort.asc, sort.nulls_first) = (!sort.asc, !sort.nulls_first);
            }
        }
        _ => return None,
    }
    match <[Expr; 1]>::try_from(params.args) {
        Ok([value]) => Some((value, params.order_by)),
        Err(_) => None,
    }
}
