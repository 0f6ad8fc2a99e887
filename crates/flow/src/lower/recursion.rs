//! Recursion for a recursive query whose term is linear: the answer to all rows is the sum of the answers to
//! each row.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::logical_plan::RecursiveQuery;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use millstream_state::KeyIndex;

use super::{Lowering, Relation, external, holds_subquery, keys};
use crate::operator::{Cost, Description, Properties};
use crate::operators::partition_recompute::PartitionRecompute;
use crate::operators::recursion::{Recursion, RecursionSpec};
use crate::{Flow, Limits, Result};

/// The term's name for its working table; no relation of a catalog has this name.
const WORKING_TABLE: &str = "";

impl Lowering<'_> {
    /// Returns Recursion for `plan`, if it is such a query.
    pub(super) fn recursion(&mut self, plan: &LogicalPlan, node: &RecursiveQuery) -> Result<Option<usize>> {
        if let Some(reason) = unfit(plan, node)? {
            return Ok(self.because(reason));
        }
        let start = self.lower_or_whole(&node.static_term)?;
        let Some((mut term, others)) = self.term(node, self.builder.append_only(start))? else {
            return Ok(None);
        };
        let append_only = self.builder.append_only(start) && term.append_only()?;
        if node.is_distinct && !append_only {
            let recomputes =
                |operator: &crate::Explained| operator.title.starts_with(PartitionRecompute::NAME);
            if !only_adds(&node.recursive_term, &node.name) || term.operators().iter().any(recomputes) {
                return Ok(self.because(
                    "UNION in a recursive query can't retract rows of a term that tests for absent rows",
                ));
            }
        }
        if self.builder.append_only(start) && !append_only {
            // A row of the working table is deleted as soon as the row that it follows from is.
            let Some((again, _)) = self.term(node, false)? else { return Ok(None) };
            term = again;
        }
        let mut inputs = vec![start];
        let reads = term
            .relations()
            .iter()
            .map(|name| {
                let relation = others.get(name.as_ref())?;
                inputs.push(self.builder.input(relation.clone(), self.batchwise));
                Some(inputs.len() - 1)
            })
            .collect();
        let schema = node.schema.inner().clone();
        let key = node.is_distinct.then(|| (0..schema.fields().len()).collect());
        let parts = RecursionSpec {
            properties: Properties { append_only, key, ..Properties::of(schema) },
            name: node.name.clone(),
            distinct: node.is_distinct,
            term,
            reads,
            limits: self.limits,
        };
        Ok(Some(self.builder.push(Recursion::new(parts)?, inputs)))
    }

    /// Returns the recursive term as a flow, and the relations that it reads beside the working table; `None`
    /// if it needs an operator that recomputes.
    fn term(
        &mut self,
        node: &RecursiveQuery,
        append_only: bool,
    ) -> Result<Option<(Flow, HashMap<String, Relation>)>> {
        let others: RefCell<HashMap<String, Relation>> = RefCell::default();
        let resolve = |scan: &TableScan| {
            if let Some(schema) =
                work_table(scan).filter(|(name, _)| *name == node.name).map(|(_, schema)| schema)
            {
                return Some(Relation {
                    name: WORKING_TABLE.into(),
                    columns: (0..schema.fields().len()).collect(),
                    schema,
                    append_only,
                    key: None,
                    about: Description::default(),
                    window: None,
                    times: Vec::new(),
                });
            }
            let relation = Relation { window: None, times: Vec::new(), ..(self.resolve)(scan)? };
            others.borrow_mut().insert(relation.name.to_string(), relation.clone());
            Some(relation)
        };
        // Retracting a row repeats the derivation of its insert, so the term must not forget anything.
        let limits = Limits { state_ttl_us: None, on_close: false, ..self.limits };
        let term = Flow::compile(&node.recursive_term, &resolve, self.driver, self.choice, limits)?;
        if term.cost() >= Cost::Few {
            self.because("a part of the recursive term needs all rows");
            return Ok(None);
        }
        Ok(Some((term, others.into_inner())))
    }
}

/// Returns the reason why a recursive query can't be maintained round by round over new rows, if any.
fn unfit(plan: &LogicalPlan, node: &RecursiveQuery) -> Result<Option<&'static str>> {
    let (mut found, mut reads) = (None, 0);
    plan.apply_with_subqueries(|part| {
        if let LogicalPlan::TableScan(scan) = part
            && let Some(table) = work_table(scan)
        {
            if table.0 == node.name {
                reads += 1;
            } else {
                found = Some("it is part of another recursive query");
            }
        }
        if part.contains_outer_reference() {
            found = Some("it is part of a correlated query");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    node.recursive_term.apply(|part| {
        if holds_subquery(part).map_err(external)?.is_some() {
            found = Some("its recursive term holds a subquery");
        } else if !keys::is_stable(part).map_err(external)? {
            found = Some("an expression that changes from one evaluation to the next");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found.is_none() && (reads != 1 || !is_linear(&node.recursive_term, &node.name)) {
        found = Some("its recursive term is not linear: what follows from a row depends on other rows");
    }
    let types: Vec<DataType> = node.schema.fields().iter().map(|field| field.data_type().clone()).collect();
    // Under UNION DataFusion treats 0.0 and -0.0 as different rows.
    let distinct = types.iter().all(|data_type| !data_type.is_nested() && !data_type.is_floating());
    if found.is_none() && node.is_distinct && (!distinct || KeyIndex::new(types).is_err()) {
        found = Some("its rows can't be identified by their columns");
    }
    Ok(found)
}

/// Returns true if the answer of a plan that reads the working table once is the sum of its answers to each
/// row.
fn is_linear(plan: &LogicalPlan, name: &str) -> bool {
    use JoinType::*;
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => reading(plan, name).is_some_and(|input| is_linear(input, name)),
        LogicalPlan::Join(join) => {
            let left = reads(&join.left, name);
            let each = match join.join_type {
                Inner => true,
                Left | LeftSemi | LeftAnti | LeftMark => left,
                Right | RightSemi | RightAnti | RightMark => !left,
                Full => false,
            };
            each && reading(plan, name).is_some_and(|input| is_linear(input, name))
        }
        _ => false,
    }
}

/// Returns true if each output row of a linear plan follows from one row of the working table and exists as
/// long as that row does. So no insert replaces a derivation by another one.
fn only_adds(plan: &LogicalPlan, name: &str) -> bool {
    let adds = match plan {
        LogicalPlan::TableScan(_) => return true,
        LogicalPlan::Join(join) => join.join_type == JoinType::Inner,
        _ => true,
    };
    adds && reading(plan, name).is_some_and(|input| only_adds(input, name))
}

/// Returns the input that reads the working table.
fn reading<'a>(plan: &'a LogicalPlan, name: &str) -> Option<&'a LogicalPlan> {
    plan.inputs().into_iter().find(|input| reads(input, name))
}

fn reads(plan: &LogicalPlan, name: &str) -> bool {
    plan.exists(|part| match part {
        LogicalPlan::TableScan(scan) => Ok(work_table(scan).is_some_and(|(table, _)| table == name)),
        _ => Ok(false),
    })
    .unwrap_or(false)
}

/// Returns the name and the columns of the working table, if a scan reads it.
fn work_table(scan: &TableScan) -> Option<(String, SchemaRef)> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = provider.downcast_ref::<CteWorkTable>()?;
    Some((table.name().to_string(), table.schema()))
}
