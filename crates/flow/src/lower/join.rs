//! Join for every join that asks nothing of all rows at once.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::logical_plan::Join as JoinNode;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr};

use super::{Choice, Lowering, closing, keys, unique};
use crate::Result;
use crate::arrangement::By;
use crate::leaf::{Leaf, Slot};
use crate::operator::{Cost, Properties};
use crate::operators::join::{Findable, Join, Parts, Shape};
use crate::sharing::Findables;

impl Lowering<'_> {
    /// Join for `plan`, if it is such a join.
    pub(super) fn join(&mut self, plan: &LogicalPlan, join: &JoinNode) -> Result<Option<usize>> {
        if !keys::is_stable(plan)? {
            return Ok(self.because("an expression that changes from one evaluation to the next"));
        }
        if join.null_aware {
            return Ok(self.because("NOT IN asks for the NULLs of all rows"));
        }
        let Some((by, rest)) = keys::split(join)? else {
            return Ok(self.because("its sides are compared in different types"));
        };
        let sides = [&join.left, &join.right];
        // A row without columns can't be kept by its key.
        if sides.iter().any(|side| side.schema().fields().is_empty()) {
            return Ok(self.because("one side of a join has no columns"));
        }
        let nulls_match = join.null_equality == NullEquality::NullEqualsNull;
        let equal = if nulls_match { Operator::IsNotDistinctFrom } else { Operator::Eq };
        let rest = rest.into_iter().map(|(left, right)| binary_expr(left, equal, right));
        let condition = conjunction(rest.chain(join.filter.clone()));
        let both = match (&condition, join.left.schema().join(join.right.schema())) {
            (None, _) => DFSchema::empty(),
            (Some(_), Ok(both)) => both,
            (Some(_), Err(_)) => return Ok(self.because("two columns of a join share a name")),
        };
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
        let append_only = shape.adds_only() && nodes.iter().all(|node| self.append_only(*node));
        let cost = if by.is_empty() { Cost::Pairs } else { Cost::Delta };
        let key = self.key_of_join(plan, &nodes)?;
        let properties = Properties { schema: shape.schema.clone(), append_only, key, cost };
        let exprs = |at: usize| {
            let side: &LogicalPlan = sides[at];
            by.iter().map(|pair| self.driver.expression(&pair[at], side)).collect::<Result<Vec<_>>>()
        };
        let mut types = Vec::with_capacity(by.len());
        for pair in &by {
            types.push((pair[0].to_string(), pair[0].get_type(join.left.schema())?));
        }
        let parts = Parts {
            detail: detail(join.join_type, &by, equal, condition.as_ref()),
            exprs: [exprs(0)?, exprs(1)?],
            keys: types,
            nulls_match,
            condition: condition.map(|expr| self.driver.expression_over(&expr, &both)).transpose()?,
            properties,
            shape,
            limits: self.limits,
            threads: self.driver.threads().clone(),
        };
        let operator = Join::new(parts)?;
        self.push_join(operator, (plan, join), &nodes, (&by, nulls_match)).map(Some)
    }

    /// The join with what closes its windows, where it has some.
    fn push_join(
        &mut self,
        operator: Join,
        (plan, join): (&LogicalPlan, &JoinNode),
        nodes: &[usize],
        (by, nulls_match): (&[keys::Key], bool),
    ) -> Result<usize> {
        let sides = [&join.left, &join.right];
        let side = |at: usize| self.key_times(by.iter().map(|pair| &pair[at]), sides[at], nodes[at]);
        let times = closing::least(vec![side(0)?, side(1)?]);
        let closes = self.closes(&times);
        // What forgets windows keeps its rows to itself.
        let may_move = if closes { Vec::new() } else { self.may_move(&operator) };
        let shown = |at: usize| by[at].iter().filter_map(|expr| shown_at(expr, plan)).collect::<Vec<usize>>();
        let node = self.push_closing(Box::new(operator), nodes.to_vec(), &times, shown);
        if !closes {
            let passed = self.times_of_join(join, nodes, plan.schema().fields().len());
            self.set_times(node, passed);
        }
        for at in may_move {
            self.findable((node, at), nodes[at], sides[at], by, nulls_match);
        }
        Ok(node)
    }

    /// The sides whose rows may be kept elsewhere; what forgets keys keeps its rows to itself.
    fn may_move(&self, join: &Join) -> Vec<usize> {
        let forgets = self.limits.state_ttl_us.is_some();
        [0, 1].into_iter().filter(|at| !forgets && join.may_move_out(*at)).collect()
    }

    /// Remembers that a side of a join looks for rows by plain columns, as others may.
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

    /// The columns that no two rows of a join share, as those of its sides tell.
    fn key_of_join(&self, plan: &LogicalPlan, nodes: &[usize]) -> Result<Option<Vec<usize>>> {
        let mut leaves = 0;
        let top = plan.clone().map_children(|side| {
            leaves += 1;
            Ok(Transformed::yes(Leaf::plan(leaves - 1, side.schema().clone(), Slot::default())))
        })?;
        Ok(unique::columns(&top.data, &|leaf| self.nodes[*nodes.get(leaf)?].properties().key.clone()))
    }
}

/// Where a plan shows a column of its input.
fn shown_at(expr: &Expr, plan: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => plan.schema().maybe_index_of_column(column),
        _ => None,
    }
}

/// The join as EXPLAIN shows it: `left, t.a = u.a, t.b < u.b`.
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
