//! The keys of a plan node: its output rows for one value of a key depend only on its input rows for that
//! value.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::logical_plan::{Aggregate, Join, Window};
use datafusion::logical_expr::{
    Expr, ExprSchemable, GroupingSet, LogicalPlan, Signature, Volatility, WindowFunctionDefinition,
};
use millstream_state::KeyIndex;

use crate::Result;
use crate::expressions::cannot_fail;

/// One expression of a key, in terms of each input of a node.
pub(super) type Key = Vec<Expr>;

/// Returns the key expressions of a node that relates several rows, as many as there are. If there are none,
/// returns the reason.
pub(super) fn own(plan: &LogicalPlan) -> Result<std::result::Result<Vec<Key>, &'static str>> {
    let (keys, none) = match plan {
        LogicalPlan::Window(window) => {
            let keys = partition(window).into_iter().map(|expr| vec![expr]).collect();
            (keys, "OVER without a PARTITION BY in common needs all rows")
        }
        LogicalPlan::Aggregate(aggregate) => {
            let keys = groups(aggregate).into_iter().map(|expr| vec![expr]).collect();
            let none = match aggregate.group_expr[..] {
                [] => "an aggregate without GROUP BY needs all rows",
                _ => "GROUPING SETS with nothing in common need all rows",
            };
            (keys, none)
        }
        LogicalPlan::Join(join) if join.null_aware => {
            return Ok(Err("NOT IN needs the NULLs of all rows"));
        }
        LogicalPlan::Join(join) => (pairs(join)?, "a join without an equality needs all rows"),
        _ => (Vec::new(), "it needs all rows"),
    };
    let mut usable = Vec::with_capacity(keys.len());
    for key in keys {
        if is_usable(&key, plan.inputs())? {
            usable.push(key);
        }
    }
    Ok(if usable.is_empty() { Err(none) } else { Ok(usable) })
}

/// Rewrites a key expression over a node's output to expressions over its inputs, if the node is independent
/// by it.
pub(super) fn push(plan: &LogicalPlan, expr: &Expr) -> Result<Option<Key>> {
    Ok(match plan {
        LogicalPlan::Projection(node) => {
            substitute(expr, &node.schema, |at| node.expr.get(at).cloned())?.map(|expr| vec![expr])
        }
        LogicalPlan::SubqueryAlias(node) => {
            let below = |at| Some(Expr::Column(Column::from(node.input.schema().qualified_field(at))));
            substitute(expr, &node.schema, below)?.map(|expr| vec![expr])
        }
        LogicalPlan::Filter(_) => Some(vec![expr.clone()]),
        LogicalPlan::Window(node) => {
            let inner = expr.column_refs().iter().all(|column| node.input.schema().has_column(column));
            (inner && is_made_of(expr, &partition(node))).then(|| vec![expr.clone()])
        }
        LogicalPlan::Aggregate(node) => {
            let groups = groups(node);
            let below = |at| node.group_expr.get(at).filter(|group| groups.contains(group)).cloned();
            substitute(expr, &node.schema, below)?.map(|expr| vec![expr])
        }
        LogicalPlan::Join(node) if !node.null_aware => {
            let pairs = pairs(node)?;
            pairs.into_iter().find(|pair| {
                let side = match node.join_type {
                    JoinType::Inner => return pair.contains(expr),
                    JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => 0,
                    JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => 1,
                    JoinType::Full => return false,
                };
                pair[side] == *expr
            })
        }
        _ => None,
    })
}

/// Returns the expressions by which all window functions of a node are partitioned.
fn partition(window: &Window) -> Vec<Expr> {
    let mut common: Option<Vec<Expr>> = None;
    for expr in &window.window_expr {
        let Some(function) = window_function(expr) else { return Vec::new() };
        let by = &function.params.partition_by;
        common = Some(match common {
            None => distinct(by),
            Some(common) => common.into_iter().filter(|expr| by.contains(expr)).collect(),
        });
    }
    common.unwrap_or_default()
}

fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_function(&alias.expr),
        Expr::WindowFunction(function) => Some(function),
        _ => None,
    }
}

/// Returns the expressions by which all groups of a node are grouped.
fn groups(aggregate: &Aggregate) -> Vec<Expr> {
    match &aggregate.group_expr[..] {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
            let Some((first, rest)) = sets.split_first() else { return Vec::new() };
            let common = |expr: &&Expr| rest.iter().all(|set| set.contains(expr));
            distinct(&first.iter().filter(common).cloned().collect::<Vec<_>>())
        }
        [Expr::GroupingSet(_)] => Vec::new(),
        exprs => distinct(exprs),
    }
}

/// Returns the equalities of a join whose sides have the same type.
fn pairs(join: &Join) -> Result<Vec<Key>> {
    let mut pairs: Vec<Key> = Vec::with_capacity(join.on.len());
    for (left, right) in &join.on {
        let pair = vec![left.clone(), right.clone()];
        let types = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
        if types.0 == types.1 && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// The equalities that serve as keys, and the others.
type Equalities = (Vec<Key>, Vec<(Expr, Expr)>);

/// Returns the equalities of a join that serve as keys, and those to check pair by pair; `None` if one
/// compares two types.
pub(super) fn split(join: &Join) -> Result<Option<Equalities>> {
    let (mut by, mut rest) = (Vec::new(), Vec::new());
    for (left, right) in &join.on {
        if left.get_type(join.left.schema())? != right.get_type(join.right.schema())? {
            return Ok(None);
        }
        let pair = vec![left.clone(), right.clone()];
        if by.contains(&pair) {
            continue;
        }
        match is_usable(&pair, [&*join.left, &*join.right])? {
            true => by.push(pair),
            false => rest.push((left.clone(), right.clone())),
        }
    }
    Ok(Some((by, rest)))
}

fn distinct(exprs: &[Expr]) -> Vec<Expr> {
    let mut all: Vec<Expr> = Vec::with_capacity(exprs.len());
    for expr in exprs {
        let expr = expr.clone().unalias();
        if !all.contains(&expr) {
            all.push(expr);
        }
    }
    all
}

/// Returns true if an expression can be a key: it reads the row, is not volatile, and has a type that can be
/// indexed.
fn is_usable<'a>(key: &[Expr], inputs: impl IntoIterator<Item = &'a LogicalPlan>) -> Result<bool> {
    for (expr, input) in key.iter().zip(inputs) {
        if expr.column_refs().is_empty() || expr.is_volatile() {
            return Ok(false);
        }
        let data_type: DataType = expr.get_type(input.schema())?;
        if KeyIndex::new(vec![data_type]).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns true if an expression is one of these, or computed from these alone.
fn is_made_of(expr: &Expr, keys: &[Expr]) -> bool {
    let is_key = |column: &&Column| keys.iter().any(|key| matches!(key, Expr::Column(key) if key == *column));
    keys.contains(expr) || (!expr.column_refs().is_empty() && expr.column_refs().iter().all(is_key))
}

/// Replaces each column of `schema` in the expression; `None` if a column has no replacement.
fn substitute(expr: &Expr, schema: &DFSchema, by: impl Fn(usize) -> Option<Expr>) -> Result<Option<Expr>> {
    let mut complete = true;
    let substituted = expr.clone().transform_down(|part| {
        let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
        match schema.maybe_index_of_column(column).and_then(&by) {
            Some(expr) => Ok(Transformed::new(expr.unalias(), true, TreeNodeRecursion::Jump)),
            None => {
                complete = false;
                Ok(Transformed::new(part, false, TreeNodeRecursion::Stop))
            }
        }
    })?;
    Ok(complete.then_some(substituted.data))
}

/// Returns true if the node's own expressions are not volatile.
pub(super) fn is_stable(plan: &LogicalPlan) -> Result<bool> {
    let mut stable = true;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            let signature: Option<&Signature> = match expr {
                Expr::ScalarFunction(function) => Some(function.func.signature()),
                Expr::AggregateFunction(function) => Some(function.func.signature()),
                Expr::WindowFunction(function) => Some(match &function.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => function.signature(),
                    WindowFunctionDefinition::WindowUDF(function) => function.signature(),
                }),
                _ => None,
            };
            stable &= signature.is_none_or(|signature| signature.volatility != Volatility::Volatile);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(stable)
}

/// Returns true if no expression of the node can fail for any row. Then it doesn't matter if a failure would
/// concern a row or a key.
pub(super) fn is_infallible(plan: &LogicalPlan) -> Result<bool> {
    let mut infallible = true;
    plan.apply_expressions(|expr| {
        infallible &= cannot_fail(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(infallible)
}
