//! Limits the rounds of recursive queries, which DataFusion runs for as long as a round returns rows.
//!
//! Each recursive query of a physical plan gets a counter. Its first term sets the counter to zero and every
//! round increments it, so a nested recursion is limited each time it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::limits::Limits;

/// Returns the plan with limits: its recursive queries fail with [`crate::Error::Limit`] after
/// `recursion_max` rounds, or if one round returns more than `output_rows_max` rows. Plans without recursion
/// are unchanged.
pub fn bound_recursion(plan: Arc<dyn ExecutionPlan>, limits: &Limits) -> Result<Arc<dyn ExecutionPlan>> {
    let bounded = plan.transform_up(|node| {
        let Some(query) = node.downcast_ref::<RecursiveQueryExec>() else { return Ok(Transformed::no(node)) };
        let counter = Arc::new(Counter {
            query: query.name().to_string(),
            limits: *limits,
            rounds: AtomicUsize::default(),
        });
        let part = |input: &Arc<dyn ExecutionPlan>, first| -> Arc<dyn ExecutionPlan> {
            Arc::new(RoundsExec { input: input.clone(), first, counter: counter.clone() })
        };
        let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let children = vec![part(query.static_term(), true), part(query.recursive_term(), false)];
        Ok(Transformed::yes(node.replace_children(children, anew)?))
    })?;
    Ok(bounded.data)
}

/// The number of rounds of a recursive query.
#[derive(Debug)]
struct Counter {
    query: String,
    limits: Limits,
    rounds: AtomicUsize,
}

impl Counter {
    fn begin(&self) {
        self.rounds.store(0, Ordering::Relaxed);
    }

    fn count_round(&self) -> Result<()> {
        let max = self.limits.recursion_max;
        if self.rounds.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        Err(limit(endless(&self.query, max)))
    }

    fn check_rows(&self, rows: usize) -> Result<()> {
        let max = self.limits.output_rows_max;
        if rows <= max {
            return Ok(());
        }
        Err(limit(format!(
            "a round of the recursive query \"{}\" produces more than {max} rows, which is output_rows_max: \
             add a condition that ends it, or SET output_rows_max higher",
            self.query
        )))
    }
}

/// Returns the message for a recursive query that doesn't end.
pub(crate) fn endless(query: &str, max: usize) -> String {
    format!(
        "the recursive query \"{query}\" has not ended after {max} rounds, which is recursion_max: add a \
         condition that ends it, or SET recursion_max higher"
    )
}

fn limit(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(crate::Error::Limit(message)))
}

/// A term of a recursive query, whose runs are counted.
#[derive(Debug)]
struct RoundsExec {
    input: Arc<dyn ExecutionPlan>,
    /// True for the term that begins the recursion.
    first: bool,
    counter: Arc<Counter>,
}

impl DisplayAs for RoundsExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoundsExec")
    }
}

impl ExecutionPlan for RoundsExec {
    fn name(&self) -> &str {
        "RoundsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(RoundsExec { input, first: self.first, counter: self.counter.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match self.first {
            true => self.counter.begin(),
            false => self.counter.count_round()?,
        }
        let (counter, mut rows) = (self.counter.clone(), 0);
        let stream = self.input.execute(partition, context)?;
        let schema = stream.schema();
        let counted = stream.map(move |batch| {
            let batch = batch?;
            rows += batch.num_rows();
            counter.check_rows(rows)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
