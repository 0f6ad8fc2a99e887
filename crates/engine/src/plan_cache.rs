//! Plans of prepared queries, kept between runs.
//!
//! Planning a short query takes longer than executing it. So a query whose plan depends only on the catalog
//! is planned once, with open parameters. These queries are planned for each run: queries with the time or
//! other volatile functions, queries with parts whose plans depend on values, and queries with decimal
//! parameters, whose digits matter.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use millstream_sql::{Parameters, Query, Result, TokenReader};

use crate::files;
use crate::pg;
use crate::pg::OneShot;
use crate::point;
use crate::session::{Response, Session};
use crate::settings::Settings;
use crate::statements::{reads_batch, select};

/// The state that a plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlannedFor {
    catalog_version: u64,
    settings_version: u64,
    search_path: Arc<[String]>,
    time_zone: Option<Arc<str>>,
}

/// A plan, and the state that it is for.
#[derive(Clone, Debug)]
struct CachedPlan {
    planned_for: PlannedFor,
    plan: LogicalPlan,
    /// The columns of its result as a reader sees them.
    shown: SchemaRef,
    settings: Settings,
}

/// The slot for the plan of a prepared query.
#[derive(Debug, Default)]
pub(crate) struct PlanCache(Mutex<Slot>);

#[derive(Clone, Debug, Default)]
enum Slot {
    /// The query hasn't run yet.
    #[default]
    Empty,
    /// The plan can't be kept.
    Never,
    Full(Box<CachedPlan>),
}

impl PlanCache {
    /// Returns the plan for this state, or `Some(None)` if the query must be planned for each run. None: the plan isn't
    /// known.
    fn get(&self, now: &PlannedFor) -> Option<Option<CachedPlan>> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Slot::Never => Some(None),
            Slot::Full(cached) if cached.planned_for == *now => Some(Some(CachedPlan::clone(cached))),
            Slot::Empty | Slot::Full(_) => None,
        }
    }

    /// Keeps a plan. None: the query must be planned for each run.
    fn put(&self, plan: Option<CachedPlan>) {
        let slot = plan.map_or(Slot::Never, |plan| Slot::Full(Box::new(plan)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = slot;
    }
}

/// Runs a prepared query by its kept plan. Returns `None` if the plan can't be kept.
pub(crate) async fn run_cached_plan(
    session: &mut Session,
    text: &str,
    types: &[DataType],
    cache: &PlanCache,
) -> Result<Option<Response>> {
    session.enter(&TokenReader::new("SELECT")?)?;
    let response = try_cached_plan(session, text, types, cache).await;
    session.leave(response)
}

async fn try_cached_plan(
    session: &mut Session,
    text: &str,
    types: &[DataType],
    cache: &PlanCache,
) -> Result<Option<Response>> {
    let Some(CachedPlan { plan, shown, settings, .. }) = cached_plan(session, text, types, cache).await?
    else {
        return Ok(None);
    };
    let plan = match &session.parameters {
        Some(parameters) => parameters.bind_plan(plan)?,
        None => plan,
    };
    let contents = session.contents(point::asked(&plan)?, false).await?;
    let rows = select::start(&session.shared, &session.shared.planner, plan, contents, &settings).await?;
    let response = Response::Rows(select::described(session.watched(rows), shown));
    Ok(Some(response.in_zone(session.variables.time_zone().as_deref())))
}

/// Returns the plan for the current catalog.
async fn cached_plan(
    session: &mut Session,
    text: &str,
    types: &[DataType],
    cache: &PlanCache,
) -> Result<Option<CachedPlan>> {
    let catalog = session.catalog();
    let planned_for = PlannedFor {
        catalog_version: catalog.version,
        settings_version: session.shared.settings_version.load(Ordering::Acquire),
        search_path: catalog.schemas().path().clone(),
        time_zone: session.variables.time_zone(),
    };
    if let Some(known) = cache.get(&planned_for) {
        return Ok(known);
    }
    let (settings, now) = session.settings().await?;
    let declared = Parameters::declared(types.iter().cloned().map(Some).collect());
    let planner =
        session.variables.zoned(&session.shared.planner).at(now.0).with_parameters(Some(Arc::new(declared)));
    let relations = OneShot::of(session, catalog.clone(), settings.clone());
    let query = planner.query(text, &relations)?;
    let shown = query.output_schema(&query.schema);
    let plan = query.plan.clone();
    let cached = CachedPlan { planned_for, plan, shown, settings };
    let cached = can_be_cached(&query, types)?.then_some(cached);
    cache.put(cached.clone());
    Ok(cached)
}

/// Returns true if the query has the same plan for all values of its parameters.
fn can_be_cached(query: &Query, parameters: &[DataType]) -> Result<bool> {
    // PostgreSQL's catalog differs per session, and files change.
    if pg::is_read_by(&query.plan)?
        || parameters.iter().any(DataType::is_decimal)
        || reads_batch(&query.plan)?
        || files::are_read_by(&query.plan)?
    {
        return Ok(false);
    }
    let mut steady = true;
    query.raw.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                steady &= !changes(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    query.plan.apply_with_subqueries(|node| {
        steady &= is_plain(node);
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                steady &= !changes(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(steady)
}

/// Returns true if an expression may change its value between runs, or contains a query.
fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..) => {
            true
        }
        _ => false,
    }
}

/// Returns true if a plan node stays the same when parameters get values.
fn is_plain(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::SubqueryAlias(_) => true,
        LogicalPlan::Limit(limit) => {
            let literal = |bound: &Option<Box<Expr>>| {
                bound.as_ref().is_none_or(|bound| matches!(bound.as_ref(), Expr::Literal(..)))
            };
            literal(&limit.skip) && literal(&limit.fetch)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;

    fn planned_for(catalog_version: u64, settings_version: u64, path: &[&str]) -> PlannedFor {
        let search_path = path.iter().map(ToString::to_string).collect();
        PlannedFor { catalog_version, settings_version, search_path, time_zone: None }
    }

    #[test]
    fn a_plan_is_valid_for_one_version_of_the_catalog_and_the_settings_and_one_path() {
        let (cache, now) = (PlanCache::default(), planned_for(1, 1, &[]));
        assert!(cache.get(&now).is_none());
        cache.put(Some(CachedPlan {
            planned_for: now.clone(),
            plan: LogicalPlanBuilder::empty(true).build().unwrap(),
            shown: Arc::new(arrow::datatypes::Schema::empty()),
            settings: Settings::default(),
        }));
        assert!(cache.get(&now).flatten().is_some());
        let others = [planned_for(2, 1, &[]), planned_for(1, 2, &[]), planned_for(1, 1, &["s"])];
        assert!(others.iter().all(|other| cache.get(other).is_none()));
        cache.put(None);
        assert!(matches!(cache.get(&planned_for(2, 2, &[])), Some(None)));
    }
}
