//! Join for every join that needs no knowledge of all rows at once.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr};

use super::builder::FlowBuilder;
use super::emit_on_close::{self, KeyTimes, key_times};
use super::interval_bounds::{self, IntervalJoin};
use super::join_side_expiry::times_of_join;
use super::{Lowering, keys, lookup_join, unique_keys};
use crate::event_time::Times;
use crate::leaf::{Leaf, Slot};
use crate::operator::{Cost, Properties};
use crate::operators::join::{Join, JoinSpec, Shape};
use crate::operators::lookup_join::LookupJoin;
use crate::{Driver, Limits, Result};

/// A join with its conditions.
struct Asked<'a> {
    plan: &'a LogicalPlan,
    join: &'a JoinNode,
    /// The equalities.
    by: Vec<keys::Key>,
    /// The further condition on pairs.
    condition: Option<Expr>,
    /// The columns of both sides, if there is a further condition.
    both: DFSchema,
    nulls_match: bool,
}

impl Lowering<'_> {
    /// Returns the cheapest join operator for `plan`.
    pub(super) fn broadcast_or_join(&mut self, plan: &LogicalPlan, join: &JoinNode) -> Result<Option<usize>> {
        if !lookup_join::is_marked(join)?
            && let Some(node) = self.broadcast(plan, join)?
        {
            return Ok(Some(node));
        }
        self.join(plan, join)
    }

    /// Returns Join for `plan`, if it is such a join; LookupJoin if the join asks for it.
    fn join(&mut self, plan: &LogicalPlan, join: &JoinNode) -> Result<Option<usize>> {
        let looks_up = lookup_join::without_mark(join)?;
        let asked = match Asked::of(plan, looks_up.as_ref().unwrap_or(join))? {
            Ok(asked) => asked,
            Err(reason) if looks_up.is_some() => return Err(lookup_join::refused(reason)),
            Err(reason) => return Ok(self.because(reason)),
        };
        let [left, right] = asked.sides();
        let nodes = [self.lower_or_whole(left)?, self.lower_or_whole(right)?];
        if looks_up.is_some() {
            return self.look_up(&asked, nodes).map(Some);
        }
        let shape = asked.shape();
        let keys = asked.times_of_keys(nodes.map(|node| self.builder.times_of(node)), self.driver)?;
        // Rows of windows expire with the windows; rows expire by a condition only if no window closes.
        let may_age = self.limits.state_ttl_us.is_none() && !self.windows.closes(&keys);
        let (interval_bounds, times) = match asked.condition.as_ref().filter(|_| may_age) {
            Some(condition) => {
                let sides = nodes.map(|node| (self.builder.times_of(node), self.builder.append_only(node)));
                IntervalJoin::of(asked.join, condition, sides, self.driver)?.bounds()?
            }
            None => (None, Times::new()),
        };
        let inserts_once = self.limits.on_close && nodes.iter().all(|node| self.builder.append_only(*node));
        let shape = match &interval_bounds {
            Some(bounds) if inserts_once => interval_bounds::shape_on_close(shape, bounds),
            _ => shape,
        };
        let spec = asked.spec(shape, nodes, &self.builder, (self.driver, self.limits))?;
        let operator = Join::new(JoinSpec { interval_bounds, ..spec })?;
        Ok(Some(self.push_join(operator, nodes, &asked, (&keys, times))))
    }

    /// Adds the join, with closing windows if it has some. `times` are the event times by which its rows
    /// expire.
    fn push_join(
        &mut self,
        operator: Join,
        nodes: [usize; 2],
        asked: &Asked<'_>,
        (keys, times): (&KeyTimes, Times),
    ) -> usize {
        let Asked { plan, join, by, nulls_match, .. } = asked;
        let closes = self.windows.closes(keys);
        // A join that forgets keys or windows can't share its rows.
        let forgets = closes || self.limits.state_ttl_us.is_some();
        let may_move: Vec<usize> =
            [0, 1].into_iter().filter(|at| !forgets && operator.may_move_out(*at)).collect();
        let shown = |at: usize| by[at].iter().filter_map(|expr| shown_at(expr, plan)).collect::<Vec<usize>>();
        let node = self.windows.push(&mut self.builder, Box::new(operator), nodes.to_vec(), keys, shown);
        if times.iter().any(Option::is_some) {
            self.builder.set_times(node, times);
        } else if !closes {
            let of_sides = nodes.map(|node| self.builder.times_of(node));
            let passed = times_of_join(join, of_sides, plan.schema().fields().len());
            self.builder.set_times(node, passed);
        }
        for at in may_move {
            if let Some(keys) = asked.plain_keys(at) {
                self.builder.look_up((node, at), nodes[at], &keys, *nulls_match);
            }
        }
        node
    }

    /// Returns LookupJoin for a join that asks for it.
    fn look_up(&mut self, asked: &Asked<'_>, nodes: [usize; 2]) -> Result<usize> {
        // If the query needs only the existence of a match, the optimizer has turned the join into a semi,
        // anti or mark join.
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi};
        if !matches!(asked.join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark) {
            return Err(lookup_join::refused(
                "the enclosing query swaps its sides: put it into a view of its own",
            ));
        }
        if !self.builder.append_only(nodes[0]) {
            return Err(lookup_join::refused(
                "rows of its left side may be deleted or updated, and the rows that such a row matched when \
                 it arrived are no longer known: \
                 make that side APPEND ONLY, or leave FOR SYSTEM_TIME out, so that the result follows both sides",
            ));
        }
        let spec = asked.spec(asked.shape(), nodes, &self.builder, (self.driver, self.limits))?;
        // A row of the left side is emitted when it arrives.
        let mut times = self.builder.times_of(nodes[0]);
        times.resize(asked.plan.schema().fields().len(), None);
        let node = self.builder.push(LookupJoin::new(Join::new(spec)?), nodes.to_vec());
        self.builder.set_times(node, times);
        Ok(node)
    }
}

impl<'a> Asked<'a> {
    /// Returns a join with its conditions, or the reason why Join can't compute it.
    fn of(plan: &'a LogicalPlan, join: &'a JoinNode) -> Result<std::result::Result<Asked<'a>, &'static str>> {
        if !keys::is_stable(plan)? {
            return Ok(Err("an expression that changes from one evaluation to the next"));
        }
        if join.null_aware {
            return Ok(Err("NOT IN needs the NULLs of all rows"));
        }
        let Some((by, rest)) = keys::split(join)? else {
            return Ok(Err("its sides are compared in different types"));
        };
        // A row without columns can't be stored by its key.
        if [&join.left, &join.right].iter().any(|side| side.schema().fields().is_empty()) {
            return Ok(Err("one side of a join has no columns"));
        }
        let nulls_match = join.null_equality == NullEquality::NullEqualsNull;
        let equal = equality(nulls_match);
        let rest = rest.into_iter().map(|(left, right)| binary_expr(left, equal, right));
        let condition = conjunction(rest.chain(join.filter.clone()));
        let both = match (&condition, join.left.schema().join(join.right.schema())) {
            (None, _) => DFSchema::empty(),
            (Some(_), Ok(both)) => both,
            (Some(_), Err(_)) => return Ok(Err("two columns of a join share a name")),
        };
        Ok(Ok(Asked { plan, join, by, condition, both, nulls_match }))
    }

    fn sides(&self) -> [&'a LogicalPlan; 2] {
        [&self.join.left, &self.join.right]
    }

    fn shape(&self) -> Shape {
        let sides = self.sides().map(|side| side.schema().inner().clone());
        Shape::of(self.join.join_type, sides, self.plan.schema().inner().clone())
    }

    /// Returns the event times of the keys, by those of the columns of both sides.
    fn times_of_keys(&self, times: [Times; 2], driver: &Driver) -> Result<KeyTimes> {
        let exprs = |at: usize| self.by.iter().map(move |pair| &pair[at]);
        let side = |at: usize| key_times(exprs(at), self.sides()[at], &times[at], driver);
        Ok(emit_on_close::least(vec![side(0)?, side(1)?]))
    }

    /// Returns the places of a side's columns by which the join looks its rows up; `None` if the key has
    /// other expressions.
    fn plain_keys(&self, at: usize) -> Option<Vec<usize>> {
        let schema = self.sides()[at].schema();
        let place = |pair: &keys::Key| match &pair[at] {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        self.by.iter().map(place).collect()
    }

    /// Returns the parts of the join's operator.
    fn spec(
        &self,
        shape: Shape,
        nodes: [usize; 2],
        builder: &FlowBuilder,
        (driver, limits): (&Driver, Limits),
    ) -> Result<JoinSpec> {
        let Asked { plan, join, by, condition, both, nulls_match } = self;
        let sides = self.sides();
        let append_only = shape.adds_only() && nodes.iter().all(|node| builder.append_only(*node));
        let cost = if by.is_empty() { Cost::Pairs } else { Cost::Delta };
        let key = key_of_join(plan, nodes.map(|node| builder.properties(node)))?;
        let properties = Properties { append_only, key, cost, ..Properties::of(shape.schema.clone()) };
        let exprs = |at: usize| {
            by.iter().map(|pair| driver.expression(&pair[at], sides[at])).collect::<Result<Vec<_>>>()
        };
        let mut types = Vec::with_capacity(by.len());
        for pair in by {
            types.push((pair[0].to_string(), pair[0].get_type(join.left.schema())?));
        }
        let condition_of = |expr: &Expr| driver.expression_over(expr, both);
        Ok(JoinSpec {
            detail: detail(join.join_type, by, equality(*nulls_match), condition.as_ref()),
            exprs: [exprs(0)?, exprs(1)?],
            keys: types,
            nulls_match: *nulls_match,
            condition: condition.as_ref().map(condition_of).transpose()?,
            properties,
            shape,
            limits,
            interval_bounds: None,
            threads: driver.threads().clone(),
        })
    }
}

/// Returns columns that together are unique in a join's output, derived from the sides' keys.
fn key_of_join(plan: &LogicalPlan, sides: [&Properties; 2]) -> Result<Option<Vec<usize>>> {
    let mut leaves = 0;
    let top = plan.clone().map_children(|side| {
        leaves += 1;
        Ok(Transformed::yes(Leaf::plan(leaves - 1, side.schema().clone(), Slot::default())))
    })?;
    Ok(unique_keys::columns(&top.data, &|leaf| sides.get(leaf)?.key.clone()))
}

/// Returns the place of an input's column in a plan's output.
fn shown_at(expr: &Expr, plan: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => plan.schema().maybe_index_of_column(column),
        _ => None,
    }
}

fn equality(nulls_match: bool) -> Operator {
    if nulls_match { Operator::IsNotDistinctFrom } else { Operator::Eq }
}

/// Formats the join for EXPLAIN: `left, t.a = u.a, t.b < u.b`.
fn detail(kind: JoinType, by: &[keys::Key], equal: Operator, condition: Option<&Expr>) -> String {
    let kind = match kind {
        JoinType::Inner => "inner",
        JoinType::Left => "left",
        JoinType::Right => "right",
        JoinType::Full => "full",
        JoinType::LeftSemi => "left semi",
        JoinType::RightSemi => "right semi",
        JoinType::LeftAnti => "left anti",
        JoinType::RightAnti => "right anti",
        JoinType::LeftMark => "left mark",
        JoinType::RightMark => "right mark",
    };
    let by = by.iter().map(|pair| format!("{} {equal} {}", pair[0], pair[1]));
    let all: Vec<String> =
        std::iter::once(kind.to_string()).chain(by).chain(condition.map(Expr::to_string)).collect();
    all.join(", ")
}
