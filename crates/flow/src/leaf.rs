//! The input of a reusable plan: a leaf whose batches are set before each run.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, Result, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use millstream_delta::under_schema;

/// The batches that the next run reads, shared by the leaf and its writer.
#[derive(Clone, Debug, Default)]
pub struct Slot(Arc<Mutex<Vec<RecordBatch>>>);

impl Slot {
    /// Sets the batches that the next run reads.
    pub fn fill(&self, batches: Vec<RecordBatch>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = batches;
    }

    fn batches(&self) -> Vec<RecordBatch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A leaf of a logical plan that represents the output of an operator.
#[derive(Clone, Debug)]
pub struct Leaf {
    id: usize,
    schema: DFSchemaRef,
    slot: Slot,
}

impl Leaf {
    /// Returns a leaf with the columns and qualifiers of `schema`. Leaves of one plan have different ids.
    pub fn plan(id: usize, schema: DFSchemaRef, slot: Slot) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Leaf { id, schema, slot }) })
    }

    /// Returns the leaf's number.
    pub fn id(&self) -> usize {
        self.id
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Leaf) -> bool {
        self.id == other.id && self.schema == other.schema
    }
}

impl Eq for Leaf {}

impl Hash for Leaf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Leaf) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal).or_else(|| self.id.partial_cmp(&other.id))
    }
}

impl UserDefinedLogicalNodeCore for Leaf {
    fn name(&self) -> &str {
        "Leaf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf: {}", self.id)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Leaf> {
        Ok(self.clone())
    }
}

/// Plans [`Leaf`]s.
#[derive(Debug)]
pub struct LeafPlanner;

#[async_trait]
impl ExtensionPlanner for LeafPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let node: &dyn Any = node.as_any();
        Ok(node.downcast_ref::<Leaf>().map(|leaf| {
            Arc::new(LeafExec::new(leaf.schema.inner().clone(), leaf.slot.clone())) as Arc<dyn ExecutionPlan>
        }))
    }
}

/// Returns the plan with other slots: each leaf's slot is replaced by its partner in `slots`.
pub fn with_slots(plan: &Arc<dyn ExecutionPlan>, slots: &[(&Slot, &Slot)]) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.clone().transform_up(|node| {
        let Some(leaf) = node.downcast_ref::<LeafExec>() else { return Ok(Transformed::no(node)) };
        let other = slots.iter().find(|(slot, _)| Arc::ptr_eq(&slot.0, &leaf.slot.0));
        let (_, other) = other.ok_or_else(|| internal_datafusion_err!("a leaf reads a slot of its own"))?;
        Ok(Transformed::yes(Arc::new(LeafExec::new(leaf.schema.clone(), (*other).clone())) as _))
    })?;
    Ok(plan.data)
}

/// Reads the batches of a [`Slot`], as one partition. It reports no statistics, so no rule replaces a count
/// by a constant.
#[derive(Debug)]
pub struct LeafExec {
    slot: Slot,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl LeafExec {
    /// Returns a leaf that reads `slot`, whose batches have `schema`.
    pub fn new(schema: SchemaRef, slot: Slot) -> LeafExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        LeafExec { slot, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for LeafExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafExec")
    }
}

impl ExecutionPlan for LeafExec {
    fn name(&self) -> &str {
        "LeafExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // The optimised plan may declare a column NOT NULL that is nullable in the batches, so their schema
        // is replaced.
        let batches = self
            .slot
            .batches()
            .into_iter()
            .map(|batch| under_schema(&batch, &self.schema))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Box::pin(MemoryStream::try_new(batches, self.schema.clone(), None)?))
    }
}
