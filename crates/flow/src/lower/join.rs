//! Join for every join that needs no knowledge of all rows at once.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr};

use super::emit_on_close::KeyTimes;
use super::{Choice, Lowering, emit_on_close, keys, lookup_join, unique_keys};
use crate::Result;
use crate::arrangement::By;
use crate::event_time::Times;
use crate::leaf::{Leaf, Slot};
use crate::operator::{Cost, Properties};
use crate::operators::join::{Join, JoinSpec, Shape};
use crate::operators::lookup_join::LookupJoin;
use crate::sharing::{Findable, Findables};

/// The conditions of a join.
struct Asked {
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
        let join = looks_up.as_ref().unwrap_or(join);
        let asked = match self.asked(plan, join)? {
            Ok(asked) => asked,
            Err(reason) if looks_up.is_some() => return Err(lookup_join::refused(reason)),
            Err(reason) => return Ok(self.because(reason)),
        };
        let sides = [&join.left, &join.right];
        let mut nodes = Vec::with_capacity(2);
        for side in sides {
            nodes.push(match self.lower(side)? {
                Some(node) => node,
                None => self.whole(side, Choice::Cheapest)?,
            });
        }
        let shape = Shape::of(
            join.join_type,
            sides.map(|side| side.schema().inner().clone()),
            plan.schema().inner().clone(),
        );
        if looks_up.is_some() {
            return self.look_up(plan, join, (asked, shape), nodes).map(Some);
        }
        let keys = self.times_of_keys(join, &asked.by, &nodes)?;
        // Rows of windows expire with the windows; rows expire by a condition only if no window closes.
        let may_age = self.limits.state_ttl_us.is_none() && !self.closes(&keys);
        let (interval_bounds, times) = match asked.condition.as_ref().filter(|_| may_age) {
            Some(condition) => self.interval_bounds(join, condition, [nodes[0], nodes[1]])?,
            None => (None, Times::new()),
        };
        let shape = self.shape_by_time(shape, interval_bounds.as_ref(), &nodes);
        let parts = JoinSpec { interval_bounds, ..self.parts(plan, join, (&asked, shape), &nodes)? };
        self.push_join(Join::new(parts)?, (plan, join), &nodes, &asked, (&keys, times)).map(Some)
    }

    /// Returns the event times of a join's keys.
    fn times_of_keys(&self, join: &JoinNode, by: &[keys::Key], nodes: &[usize]) -> Result<KeyTimes> {
        let sides = [&join.left, &join.right];
        let side = |at: usize| self.key_times(by.iter().map(|pair| &pair[at]), sides[at], nodes[at]);
        Ok(emit_on_close::least(vec![side(0)?, side(1)?]))
    }

    /// Adds the join, with closing windows if it has some. `times` are the event times by which its rows
    /// expire.
    fn push_join(
        &mut self,
        operator: Join,
        (plan, join): (&LogicalPlan, &JoinNode),
        nodes: &[usize],
        asked: &Asked,
        (keys, times): (&KeyTimes, Times),
    ) -> Result<usize> {
        let Asked { by, nulls_match, .. } = asked;
        let sides = [&join.left, &join.right];
        let closes = self.closes(keys);
        // A join that forgets windows can't share its rows.
        let may_move = if closes { Vec::new() } else { self.may_move(&operator) };
        let shown = |at: usize| by[at].iter().filter_map(|expr| shown_at(expr, plan)).collect::<Vec<usize>>();
        let node = self.push_closing(Box::new(operator), nodes.to_vec(), keys, shown);
        if times.iter().any(Option::is_some) {
            self.set_times(node, times);
        } else if !closes {
            let passed = self.times_of_join(join, nodes, plan.schema().fields().len());
            self.set_times(node, passed);
        }
        for at in may_move {
            self.findable((node, at), nodes[at], sides[at], by, *nulls_match);
        }
        Ok(node)
    }

    /// Returns the conditions of a join, or the reason why Join can't compute it.
    fn asked(&self, plan: &LogicalPlan, join: &JoinNode) -> Result<std::result::Result<Asked, &'static str>> {
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
        Ok(Ok(Asked { by, condition, both, nulls_match }))
    }

    /// Returns the parts of a join's operator.
    fn parts(
        &self,
        plan: &LogicalPlan,
        join: &JoinNode,
        (asked, shape): (&Asked, Shape),
        nodes: &[usize],
    ) -> Result<JoinSpec> {
        let Asked { by, condition, both, nulls_match } = asked;
        let sides: [&LogicalPlan; 2] = [&join.left, &join.right];
        let append_only = shape.adds_only() && nodes.iter().all(|node| self.append_only(*node));
        let cost = if by.is_empty() { Cost::Pairs } else { Cost::Delta };
        let key = self.key_of_join(plan, nodes)?;
        let properties = Properties { append_only, key, cost, ..Properties::of(shape.schema.clone()) };
        let exprs = |at: usize| {
            by.iter().map(|pair| self.driver.expression(&pair[at], sides[at])).collect::<Result<Vec<_>>>()
        };
        let mut types = Vec::with_capacity(by.len());
        for pair in by {
            types.push((pair[0].to_string(), pair[0].get_type(join.left.schema())?));
        }
        let condition_of = |expr: &Expr| self.driver.expression_over(expr, both);
        Ok(JoinSpec {
            detail: detail(join.join_type, by, equality(*nulls_match), condition.as_ref()),
            exprs: [exprs(0)?, exprs(1)?],
            keys: types,
            nulls_match: *nulls_match,
            condition: condition.as_ref().map(condition_of).transpose()?,
            properties,
            shape,
            limits: self.limits,
            interval_bounds: None,
            threads: self.driver.threads().clone(),
        })
    }

    /// Returns LookupJoin for a join that asks for it.
    fn look_up(
        &mut self,
        plan: &LogicalPlan,
        join: &JoinNode,
        (asked, shape): (Asked, Shape),
        nodes: Vec<usize>,
    ) -> Result<usize> {
        // If the query needs only the existence of a match, the optimizer has turned the join into a semi,
        // anti or mark join.
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi};
        if !matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark) {
            return Err(lookup_join::refused(
                "the enclosing query swaps its sides: put it into a view of its own",
            ));
        }
        if !self.append_only(nodes[0]) {
            return Err(lookup_join::refused(
                "rows of its left side may be deleted or updated, and the rows that such a row matched when \
                 it arrived are no longer known: \
                 make that side APPEND ONLY, or leave FOR SYSTEM_TIME out, so that the result follows both sides",
            ));
        }
        let parts = self.parts(plan, join, (&asked, shape), &nodes)?;
        // A row of the left side is emitted when it arrives.
        let mut times = self.times_of(nodes[0]);
        times.resize(plan.schema().fields().len(), None);
        let node = self.push(LookupJoin::new(Join::new(parts)?), nodes);
        self.set_times(node, times);
        Ok(node)
    }

    /// Returns the sides whose rows may be in a shared arrangement; a join that forgets keys can't share.
    fn may_move(&self, join: &Join) -> Vec<usize> {
        let forgets = self.limits.state_ttl_us.is_some();
        [0, 1].into_iter().filter(|at| !forgets && join.may_move_out(*at)).collect()
    }

    /// Records that a side of a join looks rows up by plain columns, so that it may share an arrangement.
    fn findable(
        &mut self,
        (node, at): (usize, usize),
        input: usize,
        plan: &LogicalPlan,
        by: &[keys::Key],
        nulls_match: bool,
    ) {
        let known = self.columns.iter().find(|(_, node)| **node == input).map(|(of, _)| of.clone());
        let (input, columns) = known.unwrap_or_else(|| {
            let count = self.nodes[input].properties().schema.fields().len();
            (input, (0..count).collect())
        });
        let place = |pair: &keys::Key| match &pair[at] {
            Expr::Column(column) => plan.schema().maybe_index_of_column(column).map(|at| columns[at]),
            _ => None,
        };
        let Some(keys) = by.iter().map(place).collect::<Option<Vec<usize>>>() else { return };
        let by = By { keys, nulls_match };
        let side = Findable { node, at, columns };
        match self.findables.iter_mut().find(|found| found.input == input && found.by == by) {
            Some(found) => found.sides.push(side),
            None => self.findables.push(Findables { input, by, sides: vec![side], kept: None }),
        }
    }

    /// Returns columns that together are unique in a join's output, derived from the sides' keys.
    fn key_of_join(&self, plan: &LogicalPlan, nodes: &[usize]) -> Result<Option<Vec<usize>>> {
        let mut leaves = 0;
        let top = plan.clone().map_children(|side| {
            leaves += 1;
            Ok(Transformed::yes(Leaf::plan(leaves - 1, side.schema().clone(), Slot::default())))
        })?;
        Ok(unique_keys::columns(&top.data, &|leaf| self.nodes[*nodes.get(leaf)?].properties().key.clone()))
    }
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
