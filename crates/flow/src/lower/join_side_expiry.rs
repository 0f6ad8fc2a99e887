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

use super::{Lowering, keys};
use crate::Result;
use crate::event_time::Times;
use crate::expressions::cannot_fail;
use crate::flow::Node;
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

impl Lowering<'_> {
    /// Returns the event times of a join's columns if only one side has a clock.
    pub(super) fn times_of_join(&self, join: &JoinNode, nodes: &[usize], columns: usize) -> Times {
        let mut times: Times = vec![None; columns];
        for side in [0, 1].into_iter().filter(|side| is_shown_alone(join.join_type, *side)) {
            let has_clock = |side: usize| self.times_of(nodes[side]).iter().any(Option::is_some);
            if has_clock(1 - side) {
                continue;
            }
            let after_left = side == 1 && matches!(join.join_type, JoinType::Inner | JoinType::Right);
            let from = if after_left { join.left.schema().fields().len() } else { 0 };
            for (time, of_side) in times.iter_mut().skip(from).zip(self.times_of(nodes[side])) {
                *time = of_side;
            }
        }
        times
    }

    /// Records that windows close above a join, if there is one: the windows of an expression over the rows
    /// of a plan.
    pub(super) fn closes_above(
        &mut self,
        closing: usize,
        (expr, plan): (&Expr, &LogicalPlan),
        window: &Window,
    ) -> Result<()> {
        let (mut expr, mut plan) = (expr.clone(), plan);
        let join = loop {
            match plan {
                LogicalPlan::Join(join) => break join,
                LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                    let below = keys::push(plan, &expr)?.and_then(|mut below| below.pop());
                    let Some(below) = below else { return Ok(()) };
                    let [input] = plan.inputs()[..] else { return Ok(()) };
                    (expr, plan) = (below, input);
                }
                _ => return Ok(()),
            }
        };
        let Some(node) = self.join_below(closing) else { return Ok(()) };
        let sides = [&join.left, &join.right];
        let of =
            |side: &usize| expr.column_refs().iter().all(|column| sides[*side].schema().has_column(column));
        let side = [0, 1].into_iter().filter(|side| is_shown_alone(join.join_type, *side)).find(of);
        // The expression could fail for a row without a match, for which it is never evaluated otherwise.
        let may = self.limits.state_ttl_us.is_none() && cannot_fail(&expr)?;
        if let Some(side) = side.filter(|_| may) {
            let plan: &LogicalPlan = sides[side];
            let data_type = expr.get_type(plan.schema())?;
            let time = self.driver.expression(&expr, plan)?;
            let window = window.clone();
            self.below.push(Below { closing, join: node, side, time, data_type, window });
        }
        Ok(())
    }

    /// Returns the join below an operator, with only stateless operators between them.
    fn join_below(&self, place: usize) -> Option<usize> {
        let mut place = place;
        loop {
            let Node::Operator { inputs, .. } = &self.nodes[place] else { return None };
            place = *inputs.first()?;
            let Node::Operator { operator, .. } = &self.nodes[place] else { return None };
            match operator.describe().name {
                "Join" if operator.abilities().windows.is_none() => return Some(place),
                "Stateless" => {}
                _ => return None,
            }
        }
    }

    /// Lets joins below windows that close drop the rows that only closed windows could use. A join with
    /// other readers keeps all.
    pub(super) fn let_pass(&mut self) {
        for Below { closing, join, side, time, data_type, window } in std::mem::take(&mut self.below) {
            if !self.only_reaches(join, closing) {
                continue;
            }
            let Node::Operator { inputs, .. } = &self.nodes[join] else { continue };
            let schema = self.nodes[inputs[side]].properties().schema.clone();
            if let Node::Operator { operator, inputs } = self.nodes.remove(join) {
                let operator = JoinSideExpiry::around(
                    operator,
                    (side, schema),
                    (time, data_type),
                    window,
                    self.limits.on_close,
                );
                self.nodes.insert(join, Node::Operator { operator: Box::new(operator), inputs });
            }
            self.findables.iter_mut().for_each(|found| found.sides.retain(|side| side.node != join));
            self.findables.retain(|found| !found.sides.is_empty());
        }
    }

    /// Returns true if all output of a node goes to another one, directly or through stateless operators.
    fn only_reaches(&self, mut from: usize, to: usize) -> bool {
        loop {
            let mut readers = (0..self.nodes.len()).filter(|place| match &self.nodes[*place] {
                Node::Operator { inputs, .. } => inputs.contains(&from),
                Node::Input { .. } => false,
            });
            let (Some(reader), None) = (readers.next(), readers.next()) else { return false };
            if reader == to {
                return true;
            }
            match &self.nodes[reader] {
                Node::Operator { operator, .. } if operator.describe().name == "Stateless" => from = reader,
                _ => return false,
            }
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
