//! Changes of the watermark of an existing source or table.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{Delta, Timestamp};
use millstream_sql::{Error, RelationTable, Result};

use super::compile::Scope;
use super::query::RunningQuery;
use super::sources::Sources;
use super::tables::BaseTables;
use super::watermarks::column::TimeColumn;
use super::watermarks::{Watched, Watermarks};
use crate::catalog::{Catalog, Definition, Object, Runs};
use crate::error;
use crate::settings::Settings;

impl Scope<'_> {
    /// Returns an error if a query depends on the watermark that would be removed: one that reads its column.
    pub(super) fn check_alter(&self, altered: &Object) -> Result<()> {
        let Some(object) = self.catalog.find(&altered.name) else {
            return Err(Error::invalid(format!("there is no relation \"{}\"", altered.name)));
        };
        let Some(before) = TimeColumn::of(&object.definition) else { return Ok(()) };
        // Another delay changes when windows close, not which windows.
        if TimeColumn::of(&altered.definition).is_some_and(|after| after.name() == before.name()) {
            return Ok(());
        }
        let name = altered.name.as_ref();
        let users = users_of(self.catalog, name, before.name())?;
        let temporary = |query: &&RunningQuery| {
            query.role.is_temporary() && !query.is_per_batch() && query.reads_from(name)
        };
        let user = match (users.first(), self.queries.iter().find(temporary)) {
            (Some(user), _) => format!("{} \"{}\"", user.definition.kind(), user.name),
            (None, Some(_)) => "a query that is being followed".into(),
            (None, None) => return Ok(()),
        };
        let column = before.name();
        Err(Error::invalid(format!(
            "{} \"{name}\" can't lose the watermark of \"{column}\": {user} reads that column, and its windows may close \
             by it",
            object.definition.kind()
        ))
        .hint("Drop what reads it first, and create that again afterwards. Another delay can be set at any time."))
    }
}

impl Watermarks {
    /// Applies another watermark, or none, from the next epoch on.
    pub(super) fn alter(
        &mut self,
        sources: &mut Sources,
        tables: &BaseTables,
        settings: &Settings,
        now: Timestamp,
        object: &Arc<Object>,
    ) {
        let column = TimeColumn::of(&object.definition);
        if let Some(source) = sources.get_mut(&object.name) {
            source.times.set_column(column.clone());
        }
        let before = self.remove(&object.name);
        if let (Some(column), Some(mut watched)) = (column, Watched::of(&object.definition)) {
            match before.filter(|before| before.column.name() == column.name()) {
                Some(before) => watched.marks = before.marks,
                None => watched.brought = newest_held(tables, sources, self, settings, now, object, &column),
            }
            self.insert(object.name.clone(), watched);
        }
        self.plan_moves(settings);
    }
}

/// Returns the newest time among the rows of a table. None for a source, and for a table whose connector reads several
/// partitions side by side: the slowest one counts, and nobody knows the partitions of the rows that are held.
fn newest_held(
    tables: &BaseTables,
    sources: &Sources,
    watermarks: &Watermarks,
    settings: &Settings,
    now: Timestamp,
    object: &Object,
    column: &TimeColumn,
) -> Option<i64> {
    let (name, is_table) = (&object.name, object.definition.kind() == "table");
    if !is_table || sources.get(name).is_some_and(|source| source.side_by_side().is_some()) {
        return None;
    }
    let rows = tables.get(name)?.published().batches().map_err(error::arrow);
    let latest = watermarks.event_time_max(settings, now);
    let newest = rows.and_then(|rows| column.newest_of(&Delta::from_iter(rows), latest));
    newest.unwrap_or_else(|reason| {
        tracing::warn!(relation = %name, reason = %reason, "its watermark can't be moved");
        None
    })
}

/// Returns the objects whose maintained queries read a column of a relation.
fn users_of(catalog: &Catalog, name: &str, column: &str) -> Result<Vec<Arc<Object>>> {
    let mut users = Vec::new();
    for object in catalog.objects() {
        let plan = match &object.definition {
            Definition::MaterializedView { plan, .. }
            | Definition::Stream { query: Runs::Maintained { plan, .. }, .. }
            | Definition::Sink { query: Some(Runs::Maintained { plan, .. }), .. }
            | Definition::SinkInto { query: plan, .. } => plan,
            _ => continue,
        };
        if reads(plan, name, column)? {
            users.push(object.clone());
        }
    }
    Ok(users)
}

/// Returns true if a plan reads a column of a relation.
fn reads(plan: &LogicalPlan, name: &str, column: &str) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(provider) = millstream_sql::relation_of(scan)
            && let Some(table) = provider.downcast_ref::<RelationTable>()
            && table.name() == name
        {
            found |= scan.projected_schema.fields().iter().any(|field| field.name() == column);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
