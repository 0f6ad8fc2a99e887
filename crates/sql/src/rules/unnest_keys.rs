//! Forgets the keys of relations under an UNNEST, which repeats their rows.
//!
//! The query engine takes the input's keys for keys of the unnested rows too, and then drops `w` from `GROUP BY id,
//! w` because `id` determines it. Without declared keys it has nothing to take over.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, TableScanBuilder};
use datafusion::optimizer::AnalyzerRule;

use crate::relation::RelationTable;

/// The rule.
#[derive(Debug, Default)]
pub struct UnnestKeys;

impl AnalyzerRule for UnnestKeys {
    fn name(&self) -> &str {
        "unnest_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut unnests = false;
        plan.apply_with_subqueries(|node| {
            unnests |= matches!(node, LogicalPlan::Unnest(_));
            Ok(if unnests { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !unnests {
            return Ok(plan);
        }
        let mut forgot = false;
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(_) => {
                let scan = forget(node)?;
                forgot |= scan.transformed;
                Ok(scan)
            }
            other if forgot => Ok(Transformed::yes(other.recompute_schema()?)),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(plan.data)
    }
}

fn forget(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
    let provider = source_as_provider(&scan.source)?;
    let table = (provider.as_ref() as &dyn Any).downcast_ref::<RelationTable>();
    let Some(table) = table.and_then(RelationTable::without_key) else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let scan = TableScanBuilder::new(scan.table_name, provider_as_source(Arc::new(table)))
        .with_projection(scan.projection)
        .with_filters(scan.filters)
        .with_fetch(scan.fetch)
        .build()?;
    Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
}
