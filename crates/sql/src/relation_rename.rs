//! Makes plans over a renamed relation read it under its new name.
//!
//! A scan of `t`, now called `u`, becomes `u AS t`. Expressions over its columns stay as they are, and two
//! scans are equal only if they read the same relation.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result as PlanResult, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, SubqueryAlias, TableScan};

use crate::batches::{BatchQuery, WindowOf};
use crate::error::Result;
use crate::planner::Query;
use crate::relation::{RelationTable, relation_of};
use crate::tree_rewrite::TreeRewrite;

/// Returns the new name of a relation; none if the name is unchanged.
pub type Rename<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns a plan that reads renamed relations under their new names.
pub fn rename_relations(plan: &LogicalPlan, rename: Rename<'_>) -> Result<LogicalPlan> {
    let plan = plan.clone().rewrite_up(|node| {
        let scan = match node {
            LogicalPlan::TableScan(scan) => scan,
            LogicalPlan::SubqueryAlias(alias) => return under_one_alias(alias),
            other => return Ok(Transformed::no(other)),
        };
        let Some(provider) = relation_of(&scan) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let table = provider.downcast_ref::<RelationTable>();
        match table.and_then(|table| Some(table.called(rename(table.name())?))) {
            Some(table) => scan_of(scan, table).map(Transformed::yes),
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    })?;
    Ok(plan.data)
}

/// Removes an alias of a scan that another alias hides, so plans don't grow with each rename.
fn under_one_alias(alias: SubqueryAlias) -> PlanResult<Transformed<LogicalPlan>> {
    let scan = match alias.input.as_ref() {
        LogicalPlan::SubqueryAlias(inner) => inner.input.clone(),
        _ => return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias))),
    };
    match scan.as_ref() {
        // The relation got its old name back.
        LogicalPlan::TableScan(found) if found.table_name == alias.alias => {
            Ok(Transformed::yes(Arc::unwrap_or_clone(scan)))
        }
        LogicalPlan::TableScan(_) => {
            SubqueryAlias::try_new(scan, alias.alias).map(LogicalPlan::SubqueryAlias).map(Transformed::yes)
        }
        _ => Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias))),
    }
}

/// Returns the same scan of a relation under its new name.
fn scan_of(scan: TableScan, table: RelationTable) -> PlanResult<LogicalPlan> {
    let (before, now) = (scan.table_name.clone(), TableReference::bare(table.name()));
    let schema = scan.projected_schema.as_ref().clone().replace_qualifier(now.clone());
    let filters = scan.filters.iter().map(|filter| {
        let column = |expr: Expr| match expr {
            Expr::Column(mut column) if column.relation.as_ref() == Some(&before) => {
                column.relation = Some(now.clone());
                Ok(Transformed::yes(Expr::Column(column)))
            }
            other => Ok(Transformed::no(other)),
        };
        filter.clone().rewrite_up(column).map(|filter| filter.data)
    });
    let scan = TableScan {
        filters: filters.collect::<PlanResult<_>>()?,
        projected_schema: Arc::new(schema),
        table_name: now.clone(),
        source: provider_as_source(Arc::new(table)),
        ..scan
    };
    let scan = LogicalPlan::TableScan(scan);
    // The relation got its old name back.
    if before == now {
        return Ok(scan);
    }
    SubqueryAlias::try_new(Arc::new(scan), before).map(LogicalPlan::SubqueryAlias)
}

impl BatchQuery {
    /// Returns the same query over renamed relations. Its windows keep their names.
    pub fn rename_relations(&self, rename: Rename<'_>) -> Result<BatchQuery> {
        let mut query = self.clone();
        query.query.rename(rename)?;
        for window in &mut query.windows {
            match &mut window.of {
                WindowOf::Relation(name) => *name = rename(name).unwrap_or_else(|| name.clone()),
                WindowOf::Query(below) => **below = below.rename_relations(rename)?,
            }
        }
        Ok(query)
    }
}

impl Query {
    fn rename(&mut self, rename: Rename<'_>) -> Result<()> {
        self.plan = rename_relations(&self.plan, rename)?;
        self.raw = rename_relations(&self.raw, rename)?;
        for name in &mut self.reads {
            *name = rename(name).unwrap_or_else(|| name.clone());
        }
        self.reads.sort_unstable();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;
    use crate::relation::bind;

    /// Returns the distinct relations that a plan scans.
    fn scans(plan: &LogicalPlan) -> Vec<String> {
        let mut names = Vec::new();
        let bound = bind(plan.clone(), &mut |name, schema| {
            names.push(name.to_string());
            Ok(Arc::new(RelationTable::new(name.into(), schema.clone(), None)))
        });
        bound.unwrap();
        names.dedup();
        names
    }

    #[test]
    fn a_plan_reads_a_relation_under_its_new_name_and_gives_the_same_columns() {
        let tables = Tables::new().table("t", "(a INT)", "");
        let text =
            "SELECT t.a FROM t WHERE t.a > 1 AND EXISTS (SELECT 1 FROM t AS other WHERE other.a < t.a)";
        let query = tables.planner.query(text, &tables).unwrap();
        let rename = |name: &str| (name == "t").then(|| "u".to_string());
        let after = rename_relations(&query.plan, &rename).unwrap();
        assert_eq!(after.schema(), query.plan.schema());
        let shown = after.display_indent().to_string();
        assert!(shown.contains("TableScan: u") && !shown.contains("TableScan: t"), "{shown}");
        assert_eq!(scans(&after), ["u"]);
        // Two plans over different relations that had one name at different times aren't equal.
        assert_ne!(after, query.plan);
        let back = rename_relations(&after, &|name: &str| (name == "u").then(|| "t".to_string())).unwrap();
        assert_eq!(scans(&back), ["t"]);
        assert_eq!(back.schema(), query.plan.schema());
        let third = rename_relations(&after, &|name: &str| (name == "u").then(|| "v".to_string())).unwrap();
        assert_eq!(scans(&third), ["v"]);
        let aliases = |plan: &LogicalPlan| plan.display_indent().to_string().matches("SubqueryAlias").count();
        assert_eq!(aliases(&third), aliases(&after));
    }
}
