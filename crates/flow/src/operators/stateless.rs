//! Projection, filter and unnest: stages that need only the row itself.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::logical_plan::Unnest as UnnestPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use millstream_delta::{Chunk, Cut, Delta, under_schema};

use crate::driver::evaluate;
use crate::failing_rows::{FailingRows, StageOver};
use crate::failure::{Failure, keep};
use crate::leaf::{LeafExec, Slot};
use crate::operator::{
    Abilities, Content, Description, KeepsResult, NoState, Operator, Output, Properties, RowByRow,
};
use crate::parallelism::Threads;
use crate::point_lookup::Wanted;
use crate::{Driver, Error, Result};

/// Runs a chain of stages over each chunk. Each row keeps its weight.
#[derive(Debug)]
pub struct Stateless {
    properties: Properties,
    stages: Vec<Arc<StageOver>>,
    /// The threads that run over several chunks.
    threads: Threads,
}

/// The output for one chunk.
#[derive(Default)]
struct Ran {
    chunks: Vec<Chunk>,
    failing: Vec<FailingRows>,
    failures: Vec<Failure>,
}

/// One stage of the chain.
#[derive(Debug)]
pub enum Stage {
    /// Keeps the rows for which the condition is true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes the columns of a new schema.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// Keeps some columns.
    Columns(Vec<usize>, SchemaRef),
    /// Makes one row of each element of lists.
    Unnest(Box<Unnest>),
}

impl Stateless {
    /// Returns an operator without stages over input of `schema`.
    pub fn new(schema: SchemaRef, append_only: bool) -> Stateless {
        Stateless {
            properties: Properties { append_only, hands_on: true, ..Properties::of(schema) },
            stages: Vec::new(),
            threads: Threads::one(),
        }
    }

    /// Returns the operator with these threads, which run over the chunks of a large change in parallel.
    pub(crate) fn on_threads(mut self, threads: Threads) -> Stateless {
        self.threads = threads;
        self
    }

    /// Returns the operator with this unique key of its input.
    pub fn with_key(mut self, key: Option<Vec<usize>>) -> Stateless {
        self.properties.key = key;
        self
    }

    /// Adds a stage at the end, which outputs rows of `schema`.
    pub fn push(&mut self, stage: Stage, schema: SchemaRef) {
        self.properties.key = self.properties.key.take().and_then(|key| stage.key_after(&key));
        self.properties.hands_on &= stage.hands_on();
        if let (Stage::Columns(columns, _), true) = (&stage, self.stages.is_empty()) {
            let mut columns = columns.clone();
            columns.sort_unstable();
            self.properties.columns_read = Some(vec![columns]);
        }
        let input = std::mem::replace(&mut self.properties.schema, schema);
        self.stages.push(Arc::new(StageOver::new(stage, input)));
    }

    fn run(&self, chunk: &Chunk) -> Result<Ran> {
        run_stages(&self.stages, chunk)
    }
}

/// Returns the rows that a chain of stages makes of all rows of its input.
pub(crate) fn content_through(stages: &[Arc<StageOver>], rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut content = Vec::with_capacity(rows.len());
    for rows in rows {
        let ran = run_stages(stages, &Chunk::insert(rows))?;
        content.extend(ran.chunks.into_iter().map(|chunk| chunk.rows));
    }
    Ok(content)
}

/// Runs a chain of stages over a chunk.
fn run_stages(stages: &[Arc<StageOver>], chunk: &Chunk) -> Result<Ran> {
    let mut ran = Ran { chunks: vec![chunk.clone()], ..Ran::default() };
    for (number, stage) in stages.iter().enumerate() {
        let (mut after, mut failing) = (Vec::with_capacity(ran.chunks.len()), Vec::new());
        for chunk in ran.chunks.into_iter().filter(|chunk| chunk.rows.num_rows() > 0) {
            after.append(&mut stage.run(chunk, &mut failing, &mut ran.failures)?);
        }
        ran.chunks = after;
        if !failing.is_empty() {
            ran.failing.push(FailingRows::of(number, stage, failing)?);
        }
    }
    Ok(ran)
}

/// Returns the input rows of a chain of stages that make the wanted output rows, and perhaps others.
pub(crate) fn row_wanted(stages: &[Arc<StageOver>], wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    for stage in stages.iter().rev() {
        wanted = wanted
            .into_iter()
            .filter_map(|(column, values)| Some((stage.stage().column_before(column)?, values)))
            .collect();
    }
    wanted
}

impl Operator for Stateless {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let stages: Vec<String> = self.stages.iter().map(|stage| stage.stage().describe()).collect();
        Description { name: "Stateless", detail: stages.join("; "), ..Description::default() }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let rows: usize = inputs.iter().map(|delta| delta.num_rows()).sum();
        let run = |chunk: Chunk| self.run(&chunk);
        let done = match self.threads.cuts(rows) && !self.properties.hands_on {
            true => self.threads.spread(self.threads.pieces(inputs), run),
            false => inputs.iter().flat_map(|delta| &delta.chunks).cloned().map(run).collect(),
        };
        let mut output = Output::default();
        for ran in done {
            let ran = ran?;
            ran.chunks.into_iter().for_each(|chunk| output.rows.push(chunk));
            output.failures.extend(ran.failures);
            ran.failing.into_iter().for_each(|failing| failing.add_to(&mut output.failing));
        }
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { row_by_row: Some(self), result: Some(self), ..Abilities::default() }
    }
}

impl NoState for Stateless {}

impl KeepsResult for Stateless {
    fn content_wanted(&self, wanted: &Wanted, input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        let wanted = row_wanted(&self.stages, wanted);
        self.content(&|place| input(place, &wanted))
    }

    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content {
        Some(input(0)?.and_then(|rows| content_through(&self.stages, rows)))
    }
}

impl RowByRow for Stateless {
    fn run_rows(&self, rows: &Chunk) -> Result<Vec<Chunk>> {
        self.run(rows).map(|ran| ran.chunks)
    }

    fn stages(&self) -> &[Arc<StageOver>] {
        &self.stages
    }
}

impl Stage {
    pub(crate) fn run(&self, chunk: Chunk) -> Result<Chunk> {
        match self {
            Stage::Filter(_) | Stage::Project(..) => {
                let values = evaluate(self.exprs(), &chunk.rows)?;
                self.combine(chunk, values)
            }
            Stage::Columns(columns, schema) => {
                let rows = under_schema(&chunk.rows.project(columns)?, schema)?;
                Ok(Chunk { rows, weights: chunk.weights })
            }
            Stage::Unnest(unnest) => unnest.run(chunk),
        }
    }

    /// Returns the output rows, given the values of the expressions that the stage evaluates for each row.
    pub(crate) fn combine(&self, chunk: Chunk, values: Vec<ArrayRef>) -> Result<Chunk> {
        match self {
            Stage::Filter(_) => {
                let mask = values.first().and_then(|values| values.as_boolean_opt());
                let mask = mask.ok_or_else(|| Error::Bug("a filter gave no booleans".into()))?;
                let mask = if mask.null_count() > 0 { &prep_null_mask_filter(mask) } else { mask };
                keep(&chunk, mask)
            }
            Stage::Project(_, schema) => {
                let options = RecordBatchOptions::new().with_row_count(Some(chunk.rows.num_rows()));
                let rows = RecordBatch::try_new_with_options(schema.clone(), values, &options)?;
                Ok(Chunk { rows, weights: chunk.weights })
            }
            Stage::Columns(..) | Stage::Unnest(_) => {
                Err(Error::Bug("the stage evaluates no expressions".into()))
            }
        }
    }

    /// Returns the expressions that the stage evaluates for each row.
    pub(crate) fn exprs(&self) -> &[Arc<dyn PhysicalExpr>] {
        match self {
            Stage::Filter(condition) => std::slice::from_ref(condition),
            Stage::Project(exprs, _) => exprs,
            Stage::Columns(..) | Stage::Unnest(_) => &[],
        }
    }

    /// Returns true if each row becomes one row, and none fails.
    pub(crate) fn hands_on(&self) -> bool {
        match self {
            Stage::Project(exprs, _) => exprs.iter().all(|expr| expr.downcast_ref::<Column>().is_some()),
            Stage::Columns(..) => true,
            Stage::Filter(_) | Stage::Unnest(_) => false,
        }
    }

    /// Returns the places of a key's columns after this stage, if all of them are still there.
    fn key_after(&self, key: &[usize]) -> Option<Vec<usize>> {
        let place = |column: &usize| match self {
            Stage::Filter(_) => Some(*column),
            Stage::Project(exprs, _) => exprs
                .iter()
                .position(|expr| expr.downcast_ref::<Column>().is_some_and(|expr| expr.index() == *column)),
            Stage::Columns(columns, _) => columns.iter().position(|kept| kept == column),
            Stage::Unnest(_) => None,
        };
        match self {
            Stage::Unnest(_) => None,
            _ => key.iter().map(place).collect(),
        }
    }

    /// Returns the input column that an output column is an unchanged copy of, if it is one.
    fn column_before(&self, column: usize) -> Option<usize> {
        match self {
            Stage::Filter(_) => Some(column),
            Stage::Project(exprs, _) => exprs.get(column)?.downcast_ref::<Column>().map(Column::index),
            Stage::Columns(columns, _) => columns.get(column).copied(),
            Stage::Unnest(_) => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Stage::Filter(condition) => format!("filter {condition}"),
            Stage::Project(exprs, _) => {
                let exprs: Vec<String> = exprs.iter().map(ToString::to_string).collect();
                format!("project {}", exprs.join(", "))
            }
            Stage::Columns(_, schema) => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                format!("columns {}", names.join(", "))
            }
            Stage::Unnest(unnest) => format!("unnest {}", unnest.names.join(", ")),
        }
    }
}

/// Reusable unnest plans. Weights pass through as an additional last column.
#[derive(Debug)]
pub struct Unnest {
    names: Vec<String>,
    node: UnnestPlan,
    /// Idle plans, without weights and with them; each reads one chunk at a time.
    kept: [Mutex<Vec<PreparedUnnest>>; 2],
    schema: SchemaRef,
    driver: Driver,
}

#[derive(Debug)]
struct PreparedUnnest {
    slot: Slot,
    input: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
}

impl Unnest {
    /// Returns the reusable form of `unnest`.
    pub fn new(unnest: &UnnestPlan, driver: &Driver) -> Result<Unnest> {
        let unnest = Unnest {
            names: unnest.exec_columns.iter().map(|column| column.name.clone()).collect(),
            node: unnest.clone(),
            kept: Default::default(),
            schema: unnest.schema.inner().clone(),
            driver: driver.clone(),
        };
        for weighted in [false, true] {
            unnest.put_back(weighted, unnest.plan(weighted)?);
        }
        Ok(unnest)
    }

    fn plan(&self, weighted: bool) -> Result<PreparedUnnest> {
        let (mut input, mut output) = (self.node.input.schema().inner().clone(), self.schema.clone());
        if weighted {
            (input, output) = (with_weight(&input), with_weight(&output));
        }
        let slot = Slot::default();
        let lists = self
            .node
            .list_type_columns
            .iter()
            .map(|(index, list)| ListUnnest { index_in_input_schema: *index, depth: list.depth });
        let plan = UnnestExec::new(
            Arc::new(LeafExec::new(input.clone(), slot.clone())),
            lists.collect(),
            self.node.struct_type_columns.clone(),
            output,
            self.node.options.clone(),
        )?;
        Ok(PreparedUnnest { slot, input, plan: Arc::new(plan) })
    }

    fn take(&self, weighted: bool) -> Result<PreparedUnnest> {
        let kept = self.kept[usize::from(weighted)].lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| self.plan(weighted), Ok)
    }

    fn put_back(&self, weighted: bool, kept: PreparedUnnest) {
        self.kept[usize::from(weighted)].lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    fn run(&self, chunk: Chunk) -> Result<Chunk> {
        let mut columns = chunk.rows.columns().to_vec();
        let weighted = chunk.weights.is_some();
        columns.extend(chunk.weights.map(|weights| Arc::new(weights) as ArrayRef));
        let kept = self.take(weighted)?;
        kept.slot.fill(vec![RecordBatch::try_new(kept.input.clone(), columns)?]);
        let batches = self.driver.run(&kept.plan);
        kept.slot.fill(Vec::new());
        let schema = kept.plan.schema();
        self.put_back(weighted, kept);
        let mut batches = batches?;
        let rows = match (batches.pop(), batches.is_empty()) {
            (Some(only), true) => only,
            (last, _) => concat_batches(&schema, batches.iter().chain(&last))?,
        };
        let width = self.schema.fields().len();
        let weights = rows.columns().get(width).map(|weights| weights.as_primitive::<Int64Type>().clone());
        Ok(Chunk { rows: self.strip(&rows)?, weights })
    }

    fn strip(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = rows.columns()[..self.schema.fields().len()].to_vec();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

fn with_weight(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("weight of the row", DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}
