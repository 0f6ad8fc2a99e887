//! `WITH RECURSIVE` in a correlated subquery: one recursion for all outer rows.
//!
//! The rows of the recursion carry the domain's values, so rows of one outer row only match rows of the same
//! one. The recursive term's reference to itself reads rows that begin with the domain's columns. Other
//! inputs of the term need not depend on the domain at all.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::RecursiveQuery;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan};

use super::dependent::Dependent;

/// The rows that a recursion has returned so far, as its recursive term reads them.
#[derive(Clone, Debug)]
pub(super) struct WorkTable {
    /// The recursion's name in the query as written.
    name: String,
    /// The scan of the rows, with the domain's columns before their own.
    scan: LogicalPlan,
}

impl WorkTable {
    /// Returns the rows for a scan of this recursion; none for other scans.
    pub(super) fn rows_for(&self, scan: &TableScan) -> Option<&LogicalPlan> {
        (work_table(scan).as_deref() == Some(self.name.as_str())).then_some(&self.scan)
    }

    /// True if a plan reads these rows.
    pub(super) fn is_read_by(&self, plan: &LogicalPlan) -> Result<bool> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            found |= matches!(node, LogicalPlan::TableScan(scan) if self.rows_for(scan).is_some());
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(found)
    }
}

/// Returns the name of the recursion whose rows a scan reads.
fn work_table(scan: &TableScan) -> Option<String> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<CteWorkTable>().map(|table| table.name().to_string())
}

impl Dependent<'_> {
    /// Runs a recursion for each value of the domain.
    pub(super) fn recursive(&self, node: &RecursiveQuery) -> Result<LogicalPlan> {
        let first = self.push(&node.static_term)?;
        let name = self.names.next("outer").table().to_string();
        let fields = first.schema().fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true));
        // A column may have the name of a domain column, so the work table names columns by position.
        let numbered = fields.enumerate().map(|(at, field)| field.with_name(format!("{name}_{at}")));
        let schema = Arc::new(Schema::new(numbered.collect::<Vec<_>>()));
        let source = provider_as_source(Arc::new(CteWorkTable::new(&name, schema)));
        let scan = LogicalPlanBuilder::scan(name.clone(), source, None)?.build()?;
        let work = WorkTable { name: node.name.clone(), scan };
        let within = Dependent { work: self.work.iter().cloned().chain([work]).collect(), ..*self };
        let again = within.push(&node.recursive_term)?;
        LogicalPlanBuilder::from(first).to_recursive_query(name, again, node.is_distinct)?.build()
    }
}
