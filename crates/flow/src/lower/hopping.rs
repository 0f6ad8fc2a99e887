//! Aggregates over overlapping windows, computed from panes.
//!
//! HOP and CUMULATE produce a list of windows for each row, which is unnested. If groups are by windows, and
//! nothing else reads them, lowering drops the list: rows go to their panes with their own time in place of
//! the window's, and the operator makes windows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::logical_plan::{
    Aggregate as AggregatePlan, Filter, Projection, SubqueryAlias, Unnest,
};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::emit_on_close::{KeyTimes, key_times};
use super::{Choice, Lowering};
use crate::event_time::{Edge, EventTime, Times};
use crate::operators::aggregate::hopping::{self, Hopping, Hops};
use crate::{Driver, Result};

/// A plan whose rows were in overlapping windows, without these windows.
struct Found {
    /// The same nodes, with the row's own time in place of a window.
    plan: LogicalPlan,
    /// The edge of a window that each column held.
    edges: Vec<Option<Edge>>,
    windows: Windows,
}

/// The call that returned a row's windows.
#[derive(Clone)]
struct Windows {
    call: ScalarFunction,
    hops: Hops,
    /// The call that returned the window's other edge, if any: HOP computes it from the start, CUMULATE from
    /// the time.
    other: Option<ScalarFunction>,
}

/// The result of the search: `None` if there are no such windows, an error text if they have no panes.
type Search = std::result::Result<Option<Found>, String>;

impl Lowering<'_> {
    /// Returns the operator for an aggregate over overlapping windows, or the reason why there is none; the
    /// reason is empty if there are no such windows.
    pub(super) fn hopping(
        &mut self,
        plan: &LogicalPlan,
        node: &AggregatePlan,
    ) -> Result<std::result::Result<usize, String>> {
        let none = || Ok(Err(String::new()));
        if self.choice != Choice::Cheapest {
            return none();
        }
        let found = match search(&node.input)? {
            Ok(Some(found)) => found,
            Ok(None) => return none(),
            Err(reason) => return Ok(Err(reason)),
        };
        let keys = match keys(node, &found)? {
            Ok(keys) if keys.iter().all(Option::is_none) => return none(),
            Ok(keys) => keys,
            Err(reason) => return Ok(Err(reason)),
        };
        let hops = found.windows.hops;
        if !self.limits.on_close {
            return Ok(Err(format!(
                "EMIT CHANGES emits windows as they change: a row counts in up to {} of them",
                hops.windows()
            )));
        }
        let rows = AggregatePlan::try_new(
            Arc::new(found.plan.clone()),
            node.group_expr.clone(),
            node.aggr_expr.clone(),
        )?;
        if let Some(reason) = hopping::refuses(plan, &rows, self.driver)? {
            return Ok(Err(reason));
        }
        let Some(input) = self.lower(&found.plan)? else { return none() };
        let times = found.times(node, &keys, self.builder.times_of(input), self.driver)?;
        let Some(window) = self.windows.window_of(&times) else { return none() };
        if keys[window.column].is_none() {
            return Ok(Err(format!("its groups close by {}", window.name)));
        }
        let columns = found.edges.iter().enumerate();
        let columns = columns.filter_map(|(at, edge)| Some((at, (*edge)?))).collect();
        let hopping = Hopping { hops, columns, keys };
        let append_only = self.builder.append_only(input);
        let operator = match hopping::lower(plan, &rows, hopping, append_only, &window, self.driver)? {
            Ok(operator) => operator,
            Err(reason) => return Ok(Err(reason)),
        };
        let place = self.builder.push(operator, vec![input]);
        self.windows.set_times(&mut self.builder, place, &times, Some(&window), |at| vec![at]);
        Ok(Ok(place))
    }
}

/// Returns the edge of a window that each key holds, or the reason why the keys allow no panes.
fn keys(node: &AggregatePlan, found: &Found) -> Result<std::result::Result<Vec<Option<Edge>>, String>> {
    let windows = found.columns();
    let asks = |expr: &Expr| expr.column_refs().into_iter().any(|column| windows.contains(column));
    let mut keys = Vec::with_capacity(node.group_expr.len());
    for expr in &node.group_expr {
        let edge = found.edge(expr)?;
        if edge.is_none() && asks(expr) {
            return Ok(Err(format!("{expr} is computed from its windows' ends")));
        }
        keys.push(edge);
    }
    if keys.iter().all(Option::is_none) {
        return Ok(Ok(keys));
    }
    if let Some(expr) = node.aggr_expr.iter().find(|expr| asks(expr)) {
        return Ok(Err(format!("{} uses its windows' ends", expr.schema_name())));
    }
    if found.windows.hops.grows() && !keys.contains(&Some(Edge::End)) {
        return Ok(Err("windows of CUMULATE with the same start differ only in their ends".into()));
    }
    Ok(Ok(keys))
}

impl Found {
    /// Returns the columns that held windows.
    fn columns(&self) -> HashSet<Column> {
        let all = self.plan.schema().columns().into_iter().zip(&self.edges);
        all.filter(|(_, edge)| edge.is_some()).map(|(column, _)| column).collect()
    }

    /// Returns the event times of the groups' keys, which hold windows again. `below` are those of the rows'
    /// columns.
    fn times(
        &self,
        node: &AggregatePlan,
        keys: &[Option<Edge>],
        mut below: Times,
        driver: &Driver,
    ) -> Result<KeyTimes> {
        let Some(at) = self.edges.iter().position(Option::is_some) else { return Ok(KeyTimes::new()) };
        let others = key_times(&node.group_expr, &self.plan, &below, driver)?;
        let time = Expr::Column(Column::from(self.plan.schema().qualified_field(at)));
        let over = |call: &ScalarFunction| {
            let rest = call.args.iter().skip(1).cloned();
            let args = std::iter::once(time.clone()).chain(rest).collect();
            Expr::ScalarFunction(ScalarFunction { func: call.func.clone(), args })
        };
        let Windows { call, hops, other } = &self.windows;
        let listed = EventTime::of(&over(call), &self.plan, &below, driver)?.map(EventTime::item);
        if !hops.grows() {
            below[at].clone_from(&listed);
        }
        let other = match other {
            Some(other) => EventTime::of(&over(other), &self.plan, &below, driver)?,
            None => None,
        };
        let (start, end) = if hops.grows() { (other, listed) } else { (listed, other) };
        let of = |((name, time), edge): ((String, Option<EventTime>), &Option<Edge>)| match edge {
            Some(Edge::Start) => (name, start.clone()),
            Some(Edge::End) => (name, end.clone()),
            None => (name, time),
        };
        Ok(others.into_iter().zip(keys).map(of).collect())
    }

    /// Returns the edge of a window that an expression held, if any.
    fn edge(&self, expr: &Expr) -> Result<Option<Edge>> {
        match expr {
            Expr::Alias(alias) => self.edge(&alias.expr),
            Expr::Column(column) => Ok(self.edges[self.plan.schema().index_of_column(column)?]),
            _ => Ok(None),
        }
    }
}

/// Searches below an aggregate for the node that puts rows into windows.
fn search(plan: &LogicalPlan) -> Result<Search> {
    match plan {
        LogicalPlan::Unnest(unnest) => unnested(unnest),
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input, |found| {
            let plan = SubqueryAlias::try_new(Arc::new(found.plan), alias.alias.clone())?;
            Ok(Ok(Some(Found { plan: LogicalPlan::SubqueryAlias(plan), ..found })))
        }),
        LogicalPlan::Filter(filter) => below(&filter.input, |found| {
            let windows = found.columns();
            if filter.predicate.column_refs().into_iter().any(|column| windows.contains(column)) {
                return Ok(Err(format!("{} uses its windows' ends", filter.predicate)));
            }
            let plan = Filter::try_new(filter.predicate.clone(), Arc::new(found.plan))?;
            Ok(Ok(Some(Found { plan: LogicalPlan::Filter(plan), ..found })))
        }),
        LogicalPlan::Projection(projection) => below(&projection.input, |found| projected(projection, found)),
        _ => Ok(Ok(None)),
    }
}

fn below(plan: &LogicalPlan, then: impl FnOnce(Found) -> Result<Search>) -> Result<Search> {
    match search(plan)? {
        Ok(Some(found)) => then(found),
        other => Ok(other),
    }
}

/// Handles a projection over rows in windows.
fn projected(projection: &Projection, mut found: Found) -> Result<Search> {
    let windows = found.columns();
    let (mut exprs, mut edges) = (Vec::new(), Vec::new());
    for (at, expr) in projection.expr.iter().enumerate() {
        let (qualifier, field) = projection.schema.qualified_field(at);
        let edge = found.edge(expr)?;
        let end = match (edge, call_of(expr)) {
            (None, Some(call)) if found.is_end(call)? => Some(call.clone()),
            _ => None,
        };
        match (edge, end) {
            (Some(edge), _) => {
                exprs.push(expr.clone());
                edges.push(Some(edge));
            }
            (None, Some(end)) => {
                let time = end.args[0].clone();
                exprs.push(time.alias_qualified(qualifier.cloned(), field.name().clone()));
                edges.push(Some(Edge::End));
                found.windows.other = Some(end);
            }
            (None, None) if expr.column_refs().into_iter().any(|column| windows.contains(column)) => {
                return Ok(Err(format!("{} is computed from its windows' ends", field.name())));
            }
            (None, None) => {
                exprs.push(expr.clone());
                edges.push(None);
            }
        }
    }
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(found.plan))?);
    Ok(Ok(Some(Found { plan, edges, windows: found.windows })))
}

impl Found {
    /// Returns true if a call returns the end of the window whose start is its first argument.
    fn is_end(&self, call: &ScalarFunction) -> Result<bool> {
        let Windows { call: windows, hops, .. } = &self.windows;
        let same = match (&call.args[..], &windows.args[..]) {
            ([_, size, offset], [_, _, of_size, of_offset]) => size == of_size && offset == of_offset,
            _ => false,
        };
        let begins = || Ok::<_, crate::Error>(self.edge(&call.args[0])? == Some(Edge::Start));
        Ok(call.name() == "hop_end" && !hops.grows() && same && begins()?)
    }
}

/// Returns the call that an expression consists of.
fn call_of(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::ScalarFunction(call) => Some(call),
        _ => None,
    }
}

/// Handles the unnesting of the windows of HOP or CUMULATE.
fn unnested(unnest: &Unnest) -> Result<Search> {
    let LogicalPlan::Projection(projection) = unnest.input.as_ref() else { return Ok(Ok(None)) };
    let [(at, _)] = &unnest.list_type_columns[..] else { return Ok(Ok(None)) };
    let in_order = unnest.dependency_indices.iter().copied().eq(0..projection.expr.len());
    let Some(call) = call_of(&projection.expr[*at]) else { return Ok(Ok(None)) };
    let grows = match call.name() {
        "hop_starts" => false,
        "cumulate_ends" => true,
        _ => return Ok(Ok(None)),
    };
    let [time, step, size, offset] = &call.args[..] else { return Ok(Ok(None)) };
    let (Some(lengths), true) = (lengths([step, size, offset]), in_order) else { return Ok(Ok(None)) };
    let hops = match Hops::new(&time.get_type(projection.input.schema())?, lengths, grows) {
        Ok(Some(hops)) => hops,
        Ok(None) => return Ok(Ok(None)),
        Err(reason) => return Ok(Err(reason)),
    };
    let is_start = |expr: &Expr| {
        let start = call_of(expr).filter(|call| grows && call.name() == "tumble_start");
        start.is_some_and(|start| start.args[..] == [time.clone(), size.clone(), offset.clone()])
    };
    let other = projection.expr.iter().find(|expr| is_start(expr)).and_then(call_of).cloned();
    let (mut exprs, mut edges) = (Vec::new(), Vec::new());
    for (place, expr) in projection.expr.iter().enumerate() {
        let edge = match place == *at {
            true if grows => Some(Edge::End),
            true => Some(Edge::Start),
            false => is_start(expr).then_some(Edge::Start),
        };
        let (qualifier, field) = unnest.schema.qualified_field(place);
        exprs.push(match edge {
            Some(_) => time.clone().alias_qualified(qualifier.cloned(), field.name().clone()),
            None => expr.clone(),
        });
        edges.push(edge);
    }
    let plan = Projection::try_new(exprs, projection.input.clone())?;
    let same = plan.schema.columns() == unnest.schema.columns();
    let windows = Windows { call: call.clone(), hops, other };
    Ok(Ok(same.then_some(Found { plan: LogicalPlan::Projection(plan), edges, windows })))
}

fn lengths(args: [&Expr; 3]) -> Option<[IntervalMonthDayNano; 3]> {
    let of = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(length), _) => *length,
        _ => None,
    };
    let [step, size, offset] = args.map(of);
    Some([step?, size?, offset?])
}
