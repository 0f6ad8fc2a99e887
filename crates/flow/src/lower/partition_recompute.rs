//! PartitionRecompute for a plan node that relates several rows, with as much of the surrounding plan as has the same
//! key.
//!
//! The node determines the key: the expressions by which it joins, partitions or groups. The fragment takes
//! in filters and projections above it that can't fail. Below it takes in every node that is independent by
//! the key, too, and has no cheaper operator. The plan below the fragment is lowered by itself and becomes an
//! input.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::emit_on_close::{self, KeyTimes, key_times};
use super::session::is_session;
use super::{Lowering, external, holds_subquery, keys, reads_relations, top_n, unique_keys};
use crate::Result;
use crate::dag::Node;
use crate::expressions::cannot_fail;
use crate::leaf::{Leaf, Slot};
use crate::operator::{Cost, Properties};
use crate::operators::aggregate;
use crate::operators::partition_recompute::{PartitionInput, PartitionRecompute, PartitionRecomputeSpec};

/// A fragment under construction.
#[derive(Default)]
struct Fragment {
    /// For each expression of the first node's key, true if the whole fragment is independent by it.
    alive: Vec<bool>,
    leaves: Vec<Part>,
    /// True if inserted input rows never remove output rows.
    only_adds: bool,
}

/// A leaf of a fragment.
struct Part {
    plan: LogicalPlan,
    slot: Slot,
    /// Each expression of the first node's key over the leaf's rows; only for live expressions.
    keys: Vec<Option<Expr>>,
}

/// The lowered form of a leaf: an operator, and the columns of its rows that are kept.
struct Input {
    node: usize,
    schema: SchemaRef,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
    times: KeyTimes,
    /// The numbers of the leaves that read it, and their slots.
    leaves: Vec<usize>,
    slots: Vec<Slot>,
}

/// Returns the place of a node's key column above some nodes, the lowest last, if it is still there.
fn shown_above(key: &keys::Key, plan: &LogicalPlan, above: &[&LogicalPlan]) -> Option<usize> {
    let mut place = match (plan, &key[..]) {
        (LogicalPlan::Aggregate(node), [group]) => node.group_expr.iter().position(|expr| expr == group)?,
        (_, [Expr::Column(column), ..]) => plan.schema().maybe_index_of_column(column)?,
        _ => return None,
    };
    for node in above.iter().rev() {
        if let LogicalPlan::Projection(projection) = node {
            let is_it = |expr: &Expr| match expr.clone().unalias() {
                Expr::Column(column) => {
                    projection.input.schema().maybe_index_of_column(&column) == Some(place)
                }
                _ => false,
            };
            place = projection.expr.iter().position(is_it)?;
        }
    }
    Some(place)
}

/// Returns true if a plan node relates several rows, and may have a key.
pub(super) fn is_keyed(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Window(_) | LogicalPlan::Join(_) | LogicalPlan::Aggregate(_))
}

/// Returns true if the node is a PartitionRecompute, whose fragment contains the nodes that were offered to it.
pub(super) fn is_one(node: &Node) -> bool {
    matches!(node, Node::Operator { operator, .. } if operator.describe().name == PartitionRecompute::NAME)
}

/// Returns how many of these nodes, the lowest last, may join the fragment of a plan below them. For a
/// partition's list of matches this includes the unnest, so only changed matches are emitted.
pub(super) fn fused(above: &[&LogicalPlan], below: &LogicalPlan) -> Result<usize> {
    let lists = aggregate::gives_matches(below);
    let mut count = 0;
    for plan in above.iter().rev() {
        if (matches!(plan, LogicalPlan::Unnest(_)) && !lists) || !keys::is_infallible(plan)? {
            break;
        }
        count += 1;
    }
    Ok(count)
}

impl Lowering<'_> {
    /// Returns PartitionRecompute for `plan` and the nodes above it, the lowest last; `None` if it has no key. `why` is
    /// the reason why it has no cheaper operator.
    pub(super) fn per_key(
        &mut self,
        plan: &LogicalPlan,
        above: &[&LogicalPlan],
        why: &str,
    ) -> Result<Option<usize>> {
        if !keys::is_stable(plan)? {
            return Ok(self.because("an expression that changes from one evaluation to the next"));
        }
        let own = match keys::own(plan)? {
            Ok(own) => own,
            Err(reason) => return Ok(self.because(reason)),
        };
        let mut fragment = Fragment { alive: vec![true; own.len()], leaves: Vec::new(), only_adds: true };
        let mut top =
            self.with_inputs(plan, &own.iter().cloned().map(Some).collect::<Vec<_>>(), &mut fragment)?;
        for node in above.iter().rev() {
            top = (*node).clone().map_children(|_| Ok(Transformed::yes(top.clone())))?.data;
        }
        let named = |at: &usize| fragment.alive[*at];
        let names: Vec<String> = (0..own.len()).filter(named).map(|at| own[at][0].to_string()).collect();
        let inputs = self.inputs(fragment.leaves, &fragment.alive)?;
        let append_only =
            fragment.only_adds && inputs.iter().all(|input| self.builder.append_only(input.node));
        let key = unique_keys::columns(&top, &|leaf| {
            let input = inputs.iter().find(|input| input.leaves.contains(&leaf))?;
            self.builder.properties(input.node).key.clone()
        });
        let matches = aggregate::gives_matches(plan);
        let types = inputs.first().map(|input| input.types.clone()).unwrap_or_default();
        let times = emit_on_close::least(inputs.iter().map(|input| input.times.clone()).collect());
        let nodes = inputs.iter().map(|input| input.node).collect();
        let arrangements =
            inputs.into_iter().map(|input| PartitionInput::new(input.schema, input.keys, input.slots));
        let schema = top.schema().inner().clone();
        let parts = PartitionRecomputeSpec {
            properties: Properties { append_only, key, cost: Cost::Keys, ..Properties::of(schema) },
            keys: names.into_iter().zip(types).collect(),
            inputs: arrangements.collect(),
            plan: self.driver.plan(&top)?,
            one_row: fragment.alive.iter().all(|alive| *alive)
                && !above.iter().any(|node| matches!(node, LogicalPlan::Unnest(_)))
                && matches!(plan, LogicalPlan::Aggregate(node) if !matches!(node.group_expr[..], [Expr::GroupingSet(_)])),
            why: why.into(),
            bound: if matches { "windows with a watermark in PARTITION BY would bound it" } else { "" },
        };
        let operator = PartitionRecompute::new(parts, self.driver)?;
        if matches && !self.windows.closes(&times) {
            self.windows.lack(
                "needs windows, but MATCH_RECOGNIZE has none in its PARTITION BY: FROM TUMBLE(…) MATCH_RECOGNIZE \
                 (PARTITION BY window_start, window_end …), over a column with a watermark"
                    .into(),
            );
        }
        let own: Vec<&keys::Key> = (0..own.len()).filter(named).map(|at| &own[at]).collect();
        let shown = |at: usize| shown_above(own[at], plan, above).into_iter().collect::<Vec<usize>>();
        Ok(Some(self.windows.push(&mut self.builder, Box::new(operator), nodes, &times, shown)))
    }

    /// Returns the node over the parts of the fragment below it. `own` are the key's expressions over each of
    /// its inputs.
    fn with_inputs(
        &mut self,
        plan: &LogicalPlan,
        own: &[Option<keys::Key>],
        fragment: &mut Fragment,
    ) -> Result<LogicalPlan> {
        fragment.only_adds &= adds_only(plan)?;
        let mut place = 0;
        let node = plan.clone().map_children(|input| {
            let keys: Vec<Option<Expr>> =
                own.iter().map(|key| key.as_ref().map(|key| key[place].clone())).collect();
            place += 1;
            let grown = self.grow(&input, &keys, fragment).map_err(external)?;
            Ok(Transformed::yes(match grown {
                Some(grown) => grown,
                None => fragment.leaf(input, keys),
            }))
        })?;
        Ok(node.data)
    }

    /// Returns the plan as a part of the fragment, if it is independent by its key and has no cheaper
    /// operator. The key loses expressions that this plan can't support, but not those that both sides of a
    /// join support.
    fn grow(
        &mut self,
        plan: &LogicalPlan,
        keys: &[Option<Expr>],
        fragment: &mut Fragment,
    ) -> Result<Option<LogicalPlan>> {
        if !reads_relations(plan, self.resolve)? || holds_subquery(plan)?.is_some() || !keys::is_stable(plan)?
        {
            return Ok(None);
        }
        if asks_for_ranks(plan)? || is_session(plan) {
            return Ok(None);
        }
        let passes = match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                keys::is_infallible(plan)?
            }
            _ => false,
        };
        if !passes && !is_keyed(plan) {
            return Ok(None);
        }
        let Some((below, alive)) = pushed(plan, keys, &fragment.alive)? else { return Ok(None) };
        if passes {
            let [input] = plan.inputs()[..] else { return Ok(None) };
            let keys: Vec<Option<Expr>> =
                below.into_iter().map(|key| key.and_then(|mut key| key.pop())).collect();
            let before = std::mem::replace(&mut fragment.alive, alive);
            let Some(grown) = self.grow(input, &keys, fragment)? else {
                fragment.alive = before;
                return Ok(None);
            };
            return Ok(Some(plan.clone().map_children(|_| Ok(Transformed::yes(grown.clone())))?.data));
        }
        let count = |alive: &[bool]| alive.iter().filter(|alive| **alive).count();
        let own = keys::own(plan)?.map_or(0, |own| own.len());
        if count(&alive) < count(&fragment.alive) && count(&alive) < own {
            return Ok(None);
        }
        if matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Join(_)) && self.is_cheaper(plan)? {
            return Ok(None);
        }
        fragment.alive = alive;
        Ok(Some(self.with_inputs(plan, &below, fragment)?))
    }

    /// Returns true if an aggregate or a join has an operator of its own.
    fn is_cheaper(&mut self, plan: &LogicalPlan) -> Result<bool> {
        Ok(match self.lower(plan)? {
            Some(node) => self.builder.properties(node).cost == Cost::Delta,
            None => false,
        })
    }

    /// Lowers the leaves: returns their operators, the columns that the fragment keeps, and the types of its
    /// key. Leaves that read the same rows by the same key share them.
    fn inputs(&mut self, leaves: Vec<Part>, alive: &[bool]) -> Result<Vec<Input>> {
        let mut inputs: Vec<Input> = Vec::with_capacity(leaves.len());
        for (leaf, Part { plan, slot, keys }) in leaves.into_iter().enumerate() {
            let exprs: Vec<Expr> =
                keys.into_iter().zip(alive).filter(|(_, alive)| **alive).filter_map(|(key, _)| key).collect();
            let schema = plan.schema();
            let types =
                exprs.iter().map(|key| key.get_type(schema)).collect::<std::result::Result<_, _>>()?;
            let keys = exprs.iter().map(|key| self.driver.expression(key, &plan)).collect::<Result<_>>()?;
            let node = self.lower_or_whole(&plan)?;
            let times = key_times(&exprs, &plan, &self.builder.times_of(node), self.driver)?;
            match inputs.iter_mut().find(|input| input.node == node && input.keys == keys) {
                Some(input) => {
                    input.leaves.push(leaf);
                    input.slots.push(slot);
                }
                None => {
                    let schema = schema.inner().clone();
                    let (leaves, slots) = (vec![leaf], vec![slot]);
                    inputs.push(Input { node, schema, keys, types, times, leaves, slots });
                }
            }
        }
        Ok(inputs)
    }
}

impl Fragment {
    fn leaf(&mut self, plan: LogicalPlan, keys: Vec<Option<Expr>>) -> LogicalPlan {
        let slot = Slot::default();
        let leaf = Leaf::plan(self.leaves.len(), plan.schema().clone(), slot.clone());
        self.leaves.push(Part { plan, slot, keys });
        leaf
    }
}

/// The expressions of a key over each input of a node, and for each expression true if it is left.
type Pushed = (Vec<Option<keys::Key>>, Vec<bool>);

/// Rewrites the key over the inputs of a node as far as possible; `None` if no expression is left.
fn pushed(plan: &LogicalPlan, keys: &[Option<Expr>], alive: &[bool]) -> Result<Option<Pushed>> {
    // Below a filter the key would be evaluated for rows that the filter drops, and may fail for them.
    let filters = match plan {
        LogicalPlan::Filter(_) => true,
        LogicalPlan::Join(join) => join.filter.is_some(),
        _ => false,
    };
    let mut below = Vec::with_capacity(keys.len());
    for (key, alive) in keys.iter().zip(alive) {
        let key = key.as_ref().filter(|_| *alive);
        let pushed = match key {
            Some(key) if !filters || cannot_fail(key)? => keys::push(plan, key)?,
            _ => None,
        };
        // A constant doesn't identify a row.
        below.push(pushed.filter(|key| key.iter().all(|expr| !expr.column_refs().is_empty())));
    }
    let alive: Vec<bool> = below.iter().map(Option::is_some).collect();
    Ok(alive.contains(&true).then_some((below, alive)))
}

/// Returns true if the plan asks for the first ranks of a partition, which TopN computes.
fn asks_for_ranks(plan: &LogicalPlan) -> Result<bool> {
    let (mut chain, mut below) = (Vec::new(), plan);
    loop {
        let input = match below {
            LogicalPlan::Projection(node) => &node.input,
            LogicalPlan::Filter(node) => &node.input,
            LogicalPlan::SubqueryAlias(node) => &node.input,
            _ => return Ok(top_n::ranks(&chain, below)?.is_some()),
        };
        chain.push(below);
        below = input;
    }
}

/// Returns true if inserted rows of a node's inputs never remove rows of its output.
fn adds_only(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Join(join) => {
            matches!(join.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi)
                && join.filter.as_ref().map_or(Ok(true), cannot_fail)?
        }
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => true,
        _ => false,
    })
}
