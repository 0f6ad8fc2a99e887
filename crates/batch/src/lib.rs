//! The batch answer of a query, by DataFusion alone, for tests and benchmarks that compare with it.
//!
//! A crate of its own, since each crate that awaits DataFusion's planner compiles it: that takes a minute. The futures are
//! boxed for the same reason.
//!
//! Deliberately absent: functions, rules and types of Millstream. A context has those that its caller registers.

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Returns the optimized plan of a query.
pub fn plan<'a>(state: &'a SessionState, sql: &'a str) -> BoxFuture<'a, Result<LogicalPlan>> {
    async move { state.optimize(&state.create_logical_plan(sql).await?) }.boxed()
}

/// Plans a statement. A statement that defines something is executed.
pub fn frame<'a>(context: &'a SessionContext, sql: &'a str) -> BoxFuture<'a, Result<DataFrame>> {
    context.sql(sql).boxed()
}

/// Returns all rows of a statement.
pub fn answer<'a>(context: &'a SessionContext, sql: &'a str) -> BoxFuture<'a, Result<Vec<RecordBatch>>> {
    async move { frame(context, sql).await?.collect().await }.boxed()
}
