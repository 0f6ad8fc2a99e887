//! The only place where a DataFusion plan is planned and driven to completion.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion::common::DFSchema;
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner, create_window_expr};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::guard::{as_written, guarded, guarded_expr};
use crate::leaf::LeafPlanner;
use crate::limits::Limits;
use crate::parallelism::Threads;
use crate::recursion::bound_recursion;
use crate::{Error, Result, interrupt};

/// Plans fragments of queries once and runs them again and again, on one partition.
///
/// DataFusion's sorts and merges spawn tasks, so a plan runs within a tokio runtime. The caller must not be
/// one of its workers.
#[derive(Clone, Debug)]
pub struct Driver {
    state: Arc<SessionState>,
    task: Arc<TaskContext>,
    handle: Handle,
    limits: Limits,
    threads: Threads,
}

impl Driver {
    /// Returns a driver with the functions and settings of `state`, which spawns tasks on the runtime of
    /// `handle`.
    pub fn new(state: &SessionState, handle: Handle) -> Driver {
        let config: SessionConfig = state.config().clone().with_target_partitions(1);
        let mut state = state.clone();
        *state.config_mut() = config;
        let task = state.task_ctx();
        Driver { state: Arc::new(state), task, handle, limits: Limits::default(), threads: Threads::one() }
    }

    /// Returns the same driver with these limits: its runs fail if they exceed them.
    pub fn bounded(&self, limits: Limits) -> Driver {
        Driver { limits, ..self.clone() }
    }

    /// Sets the number of threads that operators made with this driver, or with a clone of it, may use
    /// together. Applies to existing operators too.
    pub fn set_threads(&self, threads: NonZeroUsize) {
        self.threads.set(threads);
    }

    /// Returns the same driver with a lower bound, in rows, for cutting a change into pieces for several
    /// threads. Tests use a low bound to compare results.
    pub fn spread_from(&self, rows: usize) -> Driver {
        Driver { threads: self.threads.over_from(rows), ..self.clone() }
    }

    /// Returns the threads that operators may use.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Plans an optimised logical plan, without optimising it again.
    pub fn plan(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(LeafPlanner)]);
        let plan = guarded(plan.clone())?;
        let plan = self.handle.block_on(planner.create_physical_plan(&plan, self.state.as_ref()))?;
        Ok(bound_recursion(plan, &self.limits)?)
    }

    /// Plans an expression over rows of `plan`.
    pub fn expression(&self, expr: &Expr, plan: &LogicalPlan) -> Result<Arc<dyn PhysicalExpr>> {
        self.expression_over(expr, plan.schema())
    }

    /// Plans an expression over rows of a schema.
    pub fn expression_over(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        let context = PhysicalPlanningContext::default();
        let expr = guarded_expr(expr.clone(), schema)?;
        Ok(as_written(create_physical_expr(&expr, schema, self.state.execution_props(), &context)?)?)
    }

    /// Plans a call of an aggregate function over rows of `plan`.
    pub fn aggregate(&self, call: &Expr, plan: &LogicalPlan) -> Result<Arc<AggregateFunctionExpr>> {
        let (schema, props) = (plan.schema(), self.state.execution_props());
        let context = PhysicalPlanningContext::default();
        let builder = LoweredAggregateBuilder::new(call, schema, schema.as_arrow(), props, &context);
        Ok(builder.build()?.aggregate)
    }

    /// Plans a call of a window function over rows of `plan`.
    pub fn window(&self, call: &WindowFunction, plan: &LogicalPlan) -> Result<Arc<dyn WindowExpr>> {
        let context = PhysicalPlanningContext::default();
        let call = guarded_expr(Expr::WindowFunction(Box::new(call.clone())), plan.schema())?;
        Ok(create_window_expr(&call, plan.schema(), self.state.execution_props(), &context)?)
    }

    /// Runs a physical plan to its end. The plan's leaves hold their current batches; the state of earlier
    /// runs is reset first. A run that returns more than `output_rows_max` rows is stopped.
    pub fn run(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let plan = reset_plan_states(plan.clone())?;
        self.handle.block_on(async {
            let mut stream = execute_stream(plan, self.task.clone())?;
            let (mut batches, mut rows) = (Vec::new(), 0);
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                interrupt::check()?;
                rows += batch.num_rows();
                self.limits.check_output(rows)?;
                batches.push(batch);
            }
            Ok::<_, Error>(batches)
        })
    }
}

/// Returns the values of some expressions for every row.
pub(crate) fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let count = rows.num_rows();
    exprs.iter().map(|expr| Ok(expr.evaluate(rows)?.into_array(count)?)).collect()
}
