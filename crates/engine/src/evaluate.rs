//! INSERT, UPDATE and DELETE outside a transaction: evaluated on the query pool, applied by the loop.
//!
//! A statement reads all tables at one point in time and records their versions. The loop applies its rows
//! only if these tables are unchanged, so each statement sees the ones applied before. The first to be
//! applied wins. The others are evaluated again, after several losses with the tables reserved. The loop
//! itself evaluates a statement of few rows that are found by key, which costs less than two requests to it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use millstream_flow::{Wanted, keys_wanted};
use millstream_sql::{Dml, EXCLUDED, Error, OnConflict, Operation, RETURNED, Result, TableIndex, sqlstate};
use millstream_state::Conflict;

use crate::catalog::{Catalog, Definition};
use crate::engine::Shared;
use crate::event::{Apart, Asked, Evaluated, Event, Modification, Question};
use crate::point::{self, keys_of};
use crate::returning::{Affected, DmlResult, changed_rows, skips_rows};
use crate::run::{check_distinct_keys, part};
use crate::statements::select;
use crate::transaction::Contents;

/// The number of evaluations over a snapshot before the tables are reserved, and the total number.
const SNAPSHOTS_MAX: usize = 3;
const EVALUATIONS_MAX: usize = 8;

/// The maximum number of ON CONFLICT DO UPDATE rows that the loop evaluates.
const LOOP_ROWS_MAX: usize = 256;

/// The maximum number of expressions in a plan that the loop evaluates.
const LOOP_EXPRESSIONS_MAX: usize = 256;

/// Functions that are cheap for all arguments.
const CHEAP: &[&str] =
    &["abs", "coalesce", "nullif", "greatest", "least", "lower", "upper", "round", "floor", "ceil", "length"];

/// Runs a statement that changes rows.
///
/// `catalog` is the one that the statement was planned with.
pub(crate) async fn change_rows(
    shared: &Shared,
    catalog: &Catalog,
    dml: Dml,
    idempotency_key: Option<String>,
) -> Result<DmlResult> {
    let mut reservation = None;
    let by_loop = dml.returning.is_none() && is_found_by_key(&dml, catalog)?;
    let attempts = match takes_rows(&dml, catalog) && !by_loop {
        true => EVALUATIONS_MAX,
        false => 0,
    };
    for attempt in 0..attempts {
        if attempt == SNAPSHOTS_MAX {
            let tables = tables_of(&dml, catalog)?;
            reservation = Some(shared.ask(|reply| Event::Apart(Apart::Reserve { tables, reply })).await?);
        }
        let number = reservation.as_ref().map(|reservation| reservation.number);
        let mut evaluated = evaluate(shared, &dml, catalog, number).await?;
        let returned = returned(shared, &dml, catalog, &mut evaluated).await?;
        let has_read = !evaluated.read.is_empty();
        let (modification, idempotency_key) =
            (Modification::Evaluated(Box::new(evaluated)), idempotency_key.clone());
        match shared.ask(|reply| Event::Modify { modification, idempotency_key, reply }).await {
            Err(error) if has_read && is_conflict(&error) && has_catalog(shared, catalog) => {}
            done => return Ok(DmlResult { count: done?, returned }),
        }
    }
    drop(reservation);
    if attempts > 0 && dml.returning.is_some() {
        let error = format!("the tables that the statement reads were changed {attempts} times meanwhile");
        return Err(Error::external(error).hint("Run it again.").code(sqlstate::SERIALIZATION_FAILURE));
    }
    // Sinks that may not lag have changed a reserved table each time, so the loop evaluates the statement.
    let modification = Modification::Statement(Box::new(dml));
    let count = shared.ask(|reply| Event::Modify { modification, idempotency_key, reply }).await?;
    Ok(DmlResult { count, returned: None })
}

/// True if the catalog is unchanged.
pub(crate) fn has_catalog(shared: &Shared, catalog: &Catalog) -> bool {
    shared.catalog().version == catalog.version
}

async fn evaluate(
    shared: &Shared,
    dml: &Dml,
    catalog: &Catalog,
    reservation: Option<u64>,
) -> Result<Evaluated> {
    let mut evaluated =
        Evaluated { dml: dml.clone(), rows: Vec::new(), updated: None, read: Vec::new(), reservation };
    evaluated.rows = run_over_staged(shared, &dml.query.plan, None, &mut evaluated).await?;
    evaluated.rows.iter().try_for_each(|rows| dml.check(rows))?;
    let Some(OnConflict::DoUpdate(query)) = &dml.on_conflict else { return Ok(evaluated) };
    let Some((schema, key)) = keyed_table(catalog, &dml.table) else { return Ok(evaluated) };
    let named = |error: Error| Error { message: format!("table \"{}\": {error}", dml.table), ..error };
    let rows = part(&evaluated.rows, 0, schema).map_err(named)?;
    let wanted = keys_of(&rows, key);
    let by_loop = rows.num_rows() <= LOOP_ROWS_MAX && !wanted.is_empty() && is_cheap(&query.plan)?;
    if by_loop && dml.returning.is_none() {
        return Ok(evaluated);
    }
    check_distinct_keys(&rows, key).map_err(named)?;
    let excluded = Given { name: EXCLUDED, rows: &rows, table: &dml.table, wanted };
    let updated = run_over_staged(shared, &query.plan, Some(excluded), &mut evaluated).await?;
    updated.iter().try_for_each(|rows| dml.check_update(rows))?;
    evaluated.updated = Some(updated);
    Ok(evaluated)
}

/// Evaluates the RETURNING clause of a statement, if it has one.
async fn returned(
    shared: &Shared,
    dml: &Dml,
    catalog: &Catalog,
    evaluated: &mut Evaluated,
) -> Result<Option<Vec<RecordBatch>>> {
    let Some(returning) = &dml.returning else { return Ok(None) };
    let (key, of_table) = match catalog.find(&dml.table).map(|object| &object.definition) {
        Some(Definition::Table { key, intake, .. }) => (key.as_slice(), intake.on_conflict),
        Some(Definition::Source { spec, table: Some(_), .. }) if !spec.key.is_empty() => {
            let what = "RETURNING of an INSERT into a table with a connector and a primary key";
            return Err(Error::unsupported(what)
                .hint("The rows that it replaces or skips are known only later: leave RETURNING out."));
        }
        _ => (&[] as &[usize], Conflict::Fail),
    };
    refuse_unknown_rows(dml)?;
    let named = |error: Error| Error { message: format!("table \"{}\": {error}", dml.table), ..error };
    let place = usize::from(dml.operation == Operation::Update);
    let rows = part(&evaluated.rows, place, &dml.columns).map_err(named)?;
    let updated = evaluated.updated.as_ref().map(|updated| part(updated, 1, &dml.columns));
    let updated = updated.transpose().map_err(named)?;
    let mut existing = None;
    if let Some(query) = returning.existing.as_ref().filter(|_| skips_rows(dml, of_table)) {
        let wanted = keys_of(&rows, key);
        let excluded = Given { name: EXCLUDED, rows: &rows, table: &dml.table, wanted };
        existing = Some(run_over_staged(shared, &query.plan, Some(excluded), evaluated).await?);
    }
    let (updated, existing) = (updated.as_ref(), existing.as_deref());
    let affected = Affected { rows: &rows, updated, existing, of_table };
    let changed = changed_rows(dml, key, &affected)?;
    let given = Given { name: RETURNED, rows: &changed, table: RETURNED, wanted: Wanted::new() };
    run_over_staged(shared, &returning.query.plan, Some(given), evaluated).await.map(Some)
}

/// Fails if a RETURNING clause would return rows that the loop skips for a UNIQUE constraint.
pub(crate) fn refuse_unknown_rows(dml: &Dml) -> Result<()> {
    let skips = dml.returning.is_some() && matches!(dml.on_conflict, Some(OnConflict::DoNothing));
    match skips && TableIndex::all(&dml.columns).iter().any(TableIndex::is_unique) {
        false => Ok(()),
        true => Err(Error::unsupported("RETURNING with ON CONFLICT DO NOTHING in a table with UNIQUE")
            .hint("The rows that it skips are known only later: leave RETURNING out.")),
    }
}

/// Runs a statement's query over the rows left by earlier statements, and records their versions in `by`.
async fn run_over_staged(
    shared: &Shared,
    plan: &LogicalPlan,
    given: Option<Given<'_>>,
    by: &mut Evaluated,
) -> Result<Vec<RecordBatch>> {
    let mut relations = point::asked(plan)?;
    if let Some(given) = &given {
        relations.retain(|asked| asked.name.as_ref() != given.name);
        let scans = point::scans_of(plan, given.table)?;
        for asked in relations.iter_mut().filter(|asked| asked.name.as_ref() == given.table) {
            // Rows of other keys don't conflict.
            asked.wanted = if scans == 1 { given.wanted.clone() } else { Wanted::new() };
        }
    }
    let mut contents = Contents::new();
    if !relations.is_empty() {
        let names: Vec<Arc<str>> = relations.iter().map(|asked| asked.name.clone()).collect();
        let reservation = by.reservation;
        let staged =
            shared.ask(|reply| Event::Apart(Apart::ReadStaged { relations, reservation, reply })).await?;
        by.read.extend(staged.versions);
        for (name, content) in names.into_iter().zip(staged.relations) {
            contents.insert(name.to_string(), content.batches().await?);
        }
    }
    if let Some(given) = given {
        contents.insert(given.name.to_string(), vec![given.rows.clone()]);
    }
    let (mut settings, now) = shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
    // Of two rows with the same key the last may win, so the order must be deterministic.
    settings.parallelism = 1;
    let planner = shared.planner.at(now.0).in_order();
    select::collect(shared, &planner, plan.clone(), contents, &settings).await
}

/// The rows of a relation of the statement's own, and a table that is read only by their keys.
struct Given<'a> {
    name: &'static str,
    rows: &'a RecordBatch,
    table: &'a str,
    wanted: Wanted,
}

/// True if a statement failed because rows that it had read were changed.
pub(crate) fn is_conflict(error: &Error) -> bool {
    error.code == Some(sqlstate::SERIALIZATION_FAILURE)
}

/// True unless the loop refuses the statement whatever its rows are.
fn takes_rows(dml: &Dml, catalog: &Catalog) -> bool {
    match catalog.find(&dml.table).map(|object| &object.definition) {
        Some(Definition::Table { .. }) => true,
        Some(Definition::Source { .. }) => dml.operation == Operation::Insert,
        _ => false,
    }
}

fn keyed_table<'a>(catalog: &'a Catalog, name: &str) -> Option<(&'a SchemaRef, &'a [usize])> {
    match &catalog.find(name)?.definition {
        Definition::Table { schema, key, .. } if !key.is_empty() => Some((schema, key)),
        _ => None,
    }
}

/// True if a statement changes only rows of given keys, and its evaluation is cheap.
fn is_found_by_key(dml: &Dml, catalog: &Catalog) -> Result<bool> {
    let Some((_, key)) = keyed_table(catalog, &dml.table) else { return Ok(false) };
    if dml.on_conflict.is_some() || !is_cheap(&dml.query.plan)? {
        return Ok(false);
    }
    let asked = point::asked(&dml.query.plan)?;
    let [asked] = asked.as_slice() else { return Ok(false) };
    let found = || keys_wanted(&asked.wanted, key.iter().copied());
    Ok(asked.name.as_ref() == dml.table && found().is_some_and(|keys| keys.is_ok()))
}

/// True if a plan is cheap over few rows, whatever their values.
fn is_cheap(plan: &LogicalPlan) -> Result<bool> {
    let (mut cheap, mut count) = (true, 0);
    plan.apply_with_subqueries(|node| {
        cheap &= matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::TableScan(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::EmptyRelation(_)
        );
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                count += 1;
                cheap &= match expr {
                    Expr::ScalarFunction(function) => CHEAP.contains(&function.name()),
                    Expr::Like(_) | Expr::SimilarTo(_) => false,
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => false,
                    _ => true,
                };
                Ok(if cheap { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if cheap { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(cheap && count <= LOOP_EXPRESSIONS_MAX)
}

/// Returns the relations that a statement reads, including those of its ON CONFLICT DO UPDATE and RETURNING.
pub(crate) fn asked_by(dml: &Dml) -> Result<Vec<Asked>> {
    let mut asked = point::asked(&dml.query.plan)?;
    if let Some(OnConflict::DoUpdate(query)) = &dml.on_conflict {
        asked.extend(point::asked(&query.plan)?);
    }
    if let Some(returning) = &dml.returning {
        asked.extend(point::asked(&returning.query.plan)?);
    }
    Ok(asked)
}

/// Returns the tables that a statement reads and changes. They are reserved together, so that no deadlock
/// occurs.
fn tables_of(dml: &Dml, catalog: &Catalog) -> Result<Vec<Arc<str>>> {
    let target: Arc<str> = dml.table.as_str().into();
    let tables = asked_by(dml)?.into_iter().map(|asked| asked.name).chain([target]);
    let is_table = |name: &Arc<str>| {
        catalog.find(name).is_some_and(|object| matches!(object.definition, Definition::Table { .. }))
    };
    Ok(tables.filter(is_table).collect())
}
