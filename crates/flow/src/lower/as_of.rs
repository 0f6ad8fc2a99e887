//! ASOF JOIN: recognises the OVER functions that find its nearest rows, and derives the event time of both
//! sides.
//!
//! The SQL planner rewrites it to a union of both sides in one order of time. A window function finds the
//! last row of the right side there. The internal columns have names that no query can use.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::logical_plan::Window;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator as Op, SortExpr};
use datafusion::physical_expr::expressions::Literal;
use millstream_state::KeyIndex;

use super::Lowering;
use super::builder::FlowBuilder;
use crate::dag::Node;
use crate::event_time::{EventTime, Times};
use crate::operator::Operator;
use crate::operators::emit_on_close::{AsOf, Settled, Way, Window as Closes};
use crate::{Driver, Result};

/// The columns by which both sides are ordered.
const TIME: &str = "!time";
const SIDE: &str = "!side";

/// The parts of an ASOF JOIN in a node.
struct Found<'a> {
    way: Way,
    partition: &'a [Expr],
    time: &'a Expr,
    side: &'a Expr,
    /// The number that marks the right side.
    right: ScalarValue,
}

impl Lowering<'_> {
    /// Returns the AsOf operator if a function of the node finds the last row of the right side of an ASOF
    /// JOIN; else returns `operator` unchanged.
    pub(super) fn as_of(
        &mut self,
        operator: Box<dyn Operator>,
        node: &Window,
        input: usize,
    ) -> Result<std::result::Result<usize, Box<dyn Operator>>> {
        let Some(found) = found(node) else { return Ok(Err(operator)) };
        let times = self.builder.times_of(input);
        let clock = place(found.time, &node.input).and_then(|at| times[at].clone());
        let settled = match clock {
            _ if self.limits.state_ttl_us.is_some() => Err("it has a state_ttl".to_string()),
            None => Err(found.without_clock(&node.input, input, &self.builder).to_string()),
            Some(time) => found.settled(&node.input, time, self.driver)?,
        };
        if let Err(why) = &settled {
            self.windows.lack(format!(
                "emits the rows of an ASOF JOIN that the watermark of both its sides has passed, but {why}: \
                 declare it on the table or source, as in WATERMARK FOR ts AS ts - INTERVAL '5 seconds'"
            ));
        }
        let closes = settled.is_ok();
        let (way, on_close) = (found.way, self.limits.on_close);
        let name = found.partition.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let operator = Box::new(AsOf::around(operator, way, name, settled, on_close)?);
        if !closes {
            let partition = found.partition;
            let (windows, builder) = (&mut self.windows, &mut self.builder);
            return windows.push_partitioned(builder, operator, partition, &node.input, input).map(Ok);
        }
        let place = self.builder.push_boxed(operator, vec![input]);
        if way.backward {
            self.builder.set_times(place, times_above(&found, node, &times));
        }
        Ok(Ok(place))
    }
}

impl Found<'_> {
    /// Returns the rule by which rows expire, or the reason why none do. `time` is the event time of both sides.
    fn settled(
        &self,
        input: &LogicalPlan,
        time: EventTime,
        driver: &Driver,
    ) -> Result<std::result::Result<Settled, String>> {
        let schema = input.schema();
        let expression = |expr: &Expr| driver.expression(expr, input);
        let mut keys = Vec::with_capacity(self.partition.len());
        for key in self.partition {
            keys.push((expression(key)?, key.get_type(schema)?));
        }
        if keys.is_empty() {
            let one = ScalarValue::Int8(Some(0));
            let data_type = one.data_type();
            keys.push((Arc::new(Literal::new(one)), data_type));
        }
        if KeyIndex::new(keys.iter().map(|(_, data_type)| data_type.clone()).collect()).is_err() {
            return Ok(Err("its keys have a type that can't be compared for equality".to_string()));
        }
        Ok(Ok(Settled {
            window: Closes { column: 0, name: TIME.into(), time },
            schema: schema.inner().clone(),
            time: (expression(self.time)?, self.time.get_type(schema)?),
            side: (expression(self.side)?, self.right.cast_to(&self.side.get_type(schema)?)?),
            keys,
        }))
    }

    /// Returns the side whose time has no watermark, as a reason.
    fn without_clock(&self, plan: &LogicalPlan, input: usize, builder: &FlowBuilder) -> &'static str {
        let (Node::Operator { inputs, .. }, Some(at)) = (&builder.nodes()[input], place(self.time, plan))
        else {
            return "its sides' times have no watermark";
        };
        let has = |side: usize| {
            inputs.get(side).and_then(|node| builder.times_of(*node).get(at)?.clone()).is_some()
        };
        match (has(0), has(1)) {
            (false, true) => "the time of its left side has no watermark",
            (true, false) => "the time of its right side has no watermark",
            _ => "the times of its sides have no watermark",
        }
    }
}

/// Returns the event times of the result: of the time column, and of the left side's column that is that
/// time.
fn times_above(found: &Found<'_>, node: &Window, times: &Times) -> Times {
    let mut above: Times = vec![None; node.schema.fields().len()];
    let Some(at) = place(found.time, &node.input) else { return above };
    above[at].clone_from(&times[at]);
    let mut left: &LogicalPlan = &node.input;
    while let LogicalPlan::Union(_) | LogicalPlan::SubqueryAlias(_) = left {
        left = left.inputs()[0];
    }
    if let LogicalPlan::Projection(left) = left {
        let time = left.expr[at].clone().unalias();
        for (column, expr) in left.expr.iter().enumerate() {
            if expr.clone().unalias() == time {
                above[column].clone_from(&times[at]);
            }
        }
    }
    above
}

fn place(expr: &Expr, plan: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => plan.schema().maybe_index_of_column(column),
        _ => None,
    }
}

fn found(node: &Window) -> Option<Found<'_>> {
    let [call] = &node.window_expr[..] else { return None };
    let call = window_function(call)?;
    let params = &call.params;
    if call.fun.name() != "last_value" || params.null_treatment != Some(NullTreatment::IgnoreNulls) {
        return None;
    }
    let (time, side) = match &params.order_by[..] {
        [time, side, ..] if is(&time.expr, TIME) && is(&side.expr, SIDE) => (time, &side.expr),
        _ => return None,
    };
    let [Expr::Case(row)] = &params.args[..] else { return None };
    let (Some((when, _)), None, None) = (row.when_then_expr.first(), &row.expr, &row.else_expr) else {
        return None;
    };
    let Expr::BinaryExpr(BinaryExpr { left, op: Op::Eq, right }) = when.as_ref() else { return None };
    let (true, Expr::Literal(right, _)) = (is(left, SIDE), right.as_ref()) else { return None };
    let SortExpr { expr: time, asc: backward, .. } = time;
    // Rows with equal times match if rows of the right side come first.
    let meets = *right == ScalarValue::Int8(Some(0));
    let way = Way { backward: *backward, meets };
    Some(Found { way, partition: &params.partition_by, time, side, right: right.clone() })
}

fn is(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_function(&alias.expr),
        Expr::WindowFunction(function) => Some(function),
        _ => None,
    }
}
