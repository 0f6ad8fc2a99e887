//! Plans of prepared queries that are kept from one run to the next.
//!
//! Planning a short query takes longer than answering it, so a query whose plan depends on nothing but the catalog is
//! planned once, with its parameters left open. Other queries are planned anew for each run: those with the time or
//! other functions that change, with parts whose plans depend on values, and with decimal parameters, whose digits count.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use millstream_sql::{Parameters, Query, Result, TokenReader};

use crate::pg;
use crate::point;
use crate::session::{Response, Session};
use crate::settings::Settings;
use crate::statements::{reads_batch, select};

/// A plan, good for one state of the catalog.
#[derive(Clone, Debug)]
struct Kept {
    version: u64,
    plan: LogicalPlan,
    /// The columns of its result as a reader is shown them.
    shown: SchemaRef,
    settings: Settings,
}

/// Where a prepared query keeps its plan.
#[derive(Debug, Default)]
pub(crate) struct KeptPlan(Mutex<Slot>);

#[derive(Clone, Debug, Default)]
enum Slot {
    /// It hasn't run yet.
    #[default]
    Empty,
    /// Its plan isn't always the same.
    Never,
    Full(Box<Kept>),
}

impl Session {
    /// Runs a prepared query by its kept plan; none if it can't be kept.
    pub(crate) async fn run_kept(
        &mut self,
        text: &str,
        types: &[DataType],
        place: &KeptPlan,
    ) -> Result<Option<Response>> {
        self.enter(&TokenReader::new("SELECT")?)?;
        let response = self.try_kept(text, types, place).await;
        self.leave(response)
    }

    async fn try_kept(
        &mut self,
        text: &str,
        types: &[DataType],
        place: &KeptPlan,
    ) -> Result<Option<Response>> {
        let Some(Kept { plan, shown, settings, .. }) = self.kept_plan(text, types, place).await? else {
            return Ok(None);
        };
        let plan = match &self.parameters {
            Some(parameters) => parameters.bind_plan(plan)?,
            None => plan,
        };
        let contents = self.contents(point::asked(&plan)?, false).await?;
        let rows = select::start(&self.shared, &self.shared.planner, plan, contents, &settings).await?;
        Ok(Some(Response::Rows(select::described(self.watched(rows), shown))))
    }

    /// The plan for the catalog as it is now.
    async fn kept_plan(&mut self, text: &str, types: &[DataType], place: &KeptPlan) -> Result<Option<Kept>> {
        let catalog = self.shared.catalog();
        let slot = place.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match slot {
            Slot::Never => return Ok(None),
            Slot::Full(kept) if kept.version == catalog.version => return Ok(Some(*kept)),
            Slot::Empty | Slot::Full(_) => {}
        }
        let (settings, now) = self.settings().await?;
        let declared = Parameters::declared(types.iter().cloned().map(Some).collect());
        let planner = self.shared.planner.at(now.0).with_parameters(Some(Arc::new(declared)));
        let relations = self.one_shot(catalog.clone(), settings.clone());
        let query = planner.query(text, &relations)?;
        let shown = query.shown(&query.schema);
        let kept = Kept { version: catalog.version, plan: query.plan.clone(), shown, settings };
        let kept = can_be_kept(&query, types)?.then_some(kept);
        let slot = kept.clone().map_or(Slot::Never, |kept| Slot::Full(Box::new(kept)));
        *place.0.lock().unwrap_or_else(PoisonError::into_inner) = slot;
        Ok(kept)
    }
}

/// Whether the plan of a query with parameters of these types stays the same whatever their values.
fn can_be_kept(query: &Query, parameters: &[DataType]) -> Result<bool> {
    // PostgreSQL's catalog is another for each session.
    if pg::is_read_by(&query.plan)?
        || parameters.iter().any(DataType::is_decimal)
        || reads_batch(&query.plan)?
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

/// Whether an expression may give another value the next time, or holds a query of its own.
fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..) => {
            true
        }
        _ => false,
    }
}

/// Whether a part of a plan stays as it is when parameters get their values.
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
