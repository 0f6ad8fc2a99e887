//! Joins below windows that close: the event time of their output, and the rows that can't matter any more.
//!
//! A join with a relation without a clock, such as customers, has the clock of its other side: a later change
//! of the customers is late for closed windows. So only the other side's rows of open windows matter.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::builder::FlowBuilder;
use super::keys;
use crate::Driver;
use crate::Result;
use crate::dag::Node;
use crate::event_time::Times;
use crate::expressions::cannot_fail;
use crate::operators::emit_on_close::{JoinSideExpiry, Window};

/// A join one of whose sides may drop rows with their windows.
pub(super) struct Below {
    /// The node that closes the windows.
    closing: usize,
    join: usize,
    side: usize,
    time: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    window: Window,
}

/// A join of a plan, and an expression over its output.
pub(super) struct JoinOf<'a> {
    join: &'a JoinNode,
    expr: Expr,
}

/// Returns the event times of a join's columns if only one side has a clock. `of_sides` are the event times of the
/// columns of both sides.
pub(super) fn times_of_join(join: &JoinNode, of_sides: [Times; 2], columns: usize) -> Times {
    let mut times: Times = vec![None; columns];
    for side in [0, 1].into_iter().filter(|side| is_shown_alone(join.join_type, *side)) {
        if of_sides[1 - side].iter().any(Option::is_some) {
            continue;
        }
        let after_left = side == 1 && matches!(join.join_type, JoinType::Inner | JoinType::Right);
        let from = if after_left { join.left.schema().fields().len() } else { 0 };
        for (time, of_side) in times.iter_mut().skip(from).zip(&of_sides[side]) {
            time.clone_from(of_side);
        }
    }
    times
}

/// Returns the join below a plan, with an expression over the plan's rows as one over the join's output. `None` if other
/// nodes than projections, filters and aliases are between them, or if the expression has no such form.
pub(super) fn join_of<'a>(expr: &Expr, plan: &'a LogicalPlan) -> Result<Option<JoinOf<'a>>> {
    let (mut expr, mut plan) = (expr.clone(), plan);
    loop {
        match plan {
            LogicalPlan::Join(join) => return Ok(Some(JoinOf { join, expr })),
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                let below = keys::push(plan, &expr)?.and_then(|mut below| below.pop());
                let Some(below) = below else { return Ok(None) };
                let [input] = plan.inputs()[..] else { return Ok(None) };
                (expr, plan) = (below, input);
            }
            _ => return Ok(None),
        }
    }
}

impl JoinOf<'_> {
    /// Returns the side that may drop rows with the windows of the expression, if there is one. `nodes` are the node
    /// that closes the windows, and the join's.
    pub(super) fn below(
        self,
        (closing, node): (usize, usize),
        window: &Window,
        driver: &Driver,
    ) -> Result<Option<Below>> {
        let JoinOf { join, expr } = self;
        let sides = [&join.left, &join.right];
        let of =
            |side: &usize| expr.column_refs().iter().all(|column| sides[*side].schema().has_column(column));
        let side = [0, 1].into_iter().filter(|side| is_shown_alone(join.join_type, *side)).find(of);
        // The expression could fail for a row without a match, for which it is never evaluated otherwise.
        let may = cannot_fail(&expr)?;
        let Some(side) = side.filter(|_| may) else { return Ok(None) };
        let plan: &LogicalPlan = sides[side];
        let data_type = expr.get_type(plan.schema())?;
        let time = driver.expression(&expr, plan)?;
        Ok(Some(Below { closing, join: node, side, time, data_type, window: window.clone() }))
    }
}

impl Below {
    /// Lets the join drop the rows that only closed windows could use. A join with other readers keeps all.
    pub(super) fn expire(self, builder: &mut FlowBuilder, on_close: bool) {
        let Below { closing, join, side, time, data_type, window } = self;
        if !only_reaches(builder.nodes(), join, closing) {
            return;
        }
        let Node::Operator { inputs, .. } = &builder.nodes()[join] else { return };
        let schema = builder.properties(inputs[side]).schema.clone();
        builder.wrap_join(join, |operator| {
            Box::new(JoinSideExpiry::around(operator, (side, schema), (time, data_type), window, on_close))
        });
    }
}

/// Returns the join below an operator, with only stateless operators between them.
pub(super) fn join_below(nodes: &[Node], mut place: usize) -> Option<usize> {
    loop {
        let Node::Operator { inputs, .. } = &nodes[place] else { return None };
        place = *inputs.first()?;
        let Node::Operator { operator, .. } = &nodes[place] else { return None };
        match operator.describe().name {
            "Join" if operator.abilities().windows.is_none() => return Some(place),
            "Stateless" => {}
            _ => return None,
        }
    }
}

/// Returns true if all output of a node goes to another one, directly or through stateless operators.
fn only_reaches(nodes: &[Node], mut from: usize, to: usize) -> bool {
    loop {
        let mut readers = (0..nodes.len()).filter(|place| match &nodes[*place] {
            Node::Operator { inputs, .. } => inputs.contains(&from),
            Node::Input { .. } => false,
        });
        let (Some(reader), None) = (readers.next(), readers.next()) else { return false };
        if reader == to {
            return true;
        }
        match &nodes[reader] {
            Node::Operator { operator, .. } if operator.describe().name == "Stateless" => from = reader,
            _ => return false,
        }
    }
}

/// Returns true if every output row of a join contains a row of this side, and doesn't depend on the absence
/// of a match.
fn is_shown_alone(kind: JoinType, side: usize) -> bool {
    use JoinType::*;
    match kind {
        Inner => true,
        Left | LeftSemi | LeftAnti | LeftMark => side == 0,
        Right | RightSemi | RightAnti | RightMark => side == 1,
        Full => false,
    }
}
