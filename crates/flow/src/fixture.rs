//! Test fixture: tables that change at random, and queries whose summed output must equal the batch answer.

mod files;

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};
pub(crate) use millstream_seeds::Random;
use millstream_seeds::first_seeds;
use millstream_state::{Batches, Rows, Tables};
use tokio::runtime::Runtime;

use crate::operator::{Operator, Output};
use crate::{Choice, Description, Driver, EventTime, Flow, Limits, Relation};
pub(crate) use files::Files;

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

pub(crate) fn rows(random: &mut Random, count: usize) -> RecordBatch {
    let mut numbers = |bound: u64| -> Vec<Option<i64>> {
        (0..count).map(|_| Some(random.below(bound) as i64).filter(|n| *n != 1)).collect()
    };
    let ids = numbers(1 << 40);
    let keys = numbers(5);
    let text: StringArray = numbers(4).iter().map(|n| n.map(|n| format!("t{n}"))).collect();
    let floats = numbers(6);
    let special = [0.0, 0.0, -0.0, f64::NAN, 1.5, f64::INFINITY];
    let floats: Float64Array = floats.iter().map(|n| n.map(|n| special[n as usize])).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(Int64Array::from(keys)),
        Arc::new(text),
        Arc::new(floats),
        Arc::new(Int64Array::from(numbers(9))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The columns of a table with event times.
pub(crate) type TimesOf<'a> = &'a dyn Fn(&Arc<str>) -> Vec<(usize, EventTime)>;

/// Tables `t` and `u`.
pub(crate) struct Fixture {
    runtime: Runtime,
    context: SessionContext,
    inputs: [Rows; 2],
}

pub(crate) const NAMES: [&str; 2] = ["t", "u"];

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let fixture = Fixture {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap(),
            context: SessionContext::new(),
            inputs: [Rows::new(schema()), Rows::new(schema())],
        };
        fixture.register();
        fixture
    }

    fn register(&self) {
        for (name, input) in NAMES.iter().zip(&self.inputs) {
            let _ = self.context.deregister_table(*name).unwrap();
            let table = MemTable::try_new(schema(), vec![input.snapshot().batches().unwrap()]).unwrap();
            self.context.register_table(*name, Arc::new(table)).unwrap();
        }
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    pub(crate) fn compile(&self, sql: &str) -> Flow {
        self.compile_within(sql, Limits { whole_rows_max: 1, ..Limits::default() })
    }

    pub(crate) fn compile_within(&self, sql: &str, limits: Limits) -> Flow {
        self.compile_over(sql, limits, &|_| Vec::new())
    }

    /// Compiles a query over tables with event times.
    pub(crate) fn compile_over(&self, sql: &str, limits: Limits, times: TimesOf<'_>) -> Flow {
        self.compile_of(sql, limits, times, &[])
    }

    /// Compiles a query over tables with event times, some of which are append-only.
    pub(crate) fn compile_of(
        &self,
        sql: &str,
        limits: Limits,
        times: TimesOf<'_>,
        append_only: &[&str],
    ) -> Flow {
        let state = self.context.state();
        let plan = self.runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
        // Small changes are spread over several threads, too.
        let driver = Driver::new(&state, self.runtime.handle().clone());
        let driver = driver.spread_from(8);
        driver.set_threads(NonZeroUsize::new(2).unwrap());
        let resolve = |scan: &datafusion::logical_expr::TableScan| {
            let columns = (0..schema().fields().len()).collect();
            let name: Arc<str> = scan.table_name.table().into();
            let times = times(&name);
            Some(Relation {
                name,
                schema: schema(),
                columns,
                append_only: append_only.contains(&scan.table_name.table()),
                key: None,
                about: Description::default(),
                window: None,
                times,
            })
        };
        Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap()
    }

    /// Returns the aggregate of a query over a table, the table's columns that it reads, and a driver.
    pub(crate) fn aggregate(&self, sql: &str) -> (LogicalPlan, Vec<usize>, Driver) {
        let state = self.context.state();
        let plan = self.runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
        let mut found = None;
        plan.apply(|node| {
            if let LogicalPlan::Aggregate(aggregate) = node {
                let LogicalPlan::TableScan(scan) = aggregate.input.as_ref() else { panic!("{plan}") };
                found = Some((node.clone(), scan.projection.clone().unwrap()));
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        let (plan, columns) = found.unwrap();
        (plan, columns, Driver::new(&state, self.runtime.handle().clone()))
    }

    pub(crate) fn at_once(&self, sql: &str, schema: &SchemaRef) -> RecordBatch {
        at_once(&self.runtime, &self.context, sql, schema)
    }

    /// Changes both tables.
    pub(crate) fn apply(&mut self, changes: &[Delta; 2]) {
        for (input, delta) in self.inputs.iter_mut().zip(changes) {
            input.apply(delta).unwrap();
        }
        self.register();
    }

    /// Returns all rows of a table.
    pub(crate) fn all(&self, table: usize) -> RecordBatch {
        concat_batches(&schema(), &self.inputs[table].snapshot().batches().unwrap()).unwrap()
    }

    /// Changes both tables at random: inserts new rows and deletes existing ones.
    pub(crate) fn change(&mut self, random: &mut Random) -> [Delta; 2] {
        let changes = [0, 1].map(|table| {
            let mut delta = Delta::default();
            if random.below(3) > 0 {
                let count = 1 + random.below(12) as usize;
                delta.push(Chunk::insert(rows(random, count)));
            }
            let there = self.inputs[table].snapshot().batches().unwrap();
            if !there.is_empty() {
                let all = concat_batches(&schema(), &there).unwrap();
                let share = [0, 1, 10][random.below(3) as usize];
                let gone = (0..all.num_rows() as u32).filter(|_| random.below(10) < share);
                let gone = UInt32Array::from_iter_values(gone);
                delta.push(Chunk::delete(take_record_batch(&all, &gone).unwrap()));
                let both = rows(random, 2);
                let both = concat_batches(&schema(), [&both, &both]).unwrap();
                delta.push(Chunk { rows: both, weights: Some(Int64Array::from(vec![-2, 0, 2, 3])) });
            }
            self.inputs[table].apply(&delta).unwrap();
            delta
        });
        self.register();
        changes
    }
}

/// Returns new rows with times near `now`, and perhaps deletes of existing rows.
pub(crate) fn change_about(random: &mut Random, now: i64, all: Option<&RecordBatch>) -> Delta {
    let count = random.below(9) as usize;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter((0..count).map(|_| match random.below(12) {
        0 => None,
        1 => Some(now - 8),
        ago => Some(now - ago as i64 / 3),
    })));
    let new = rows(random, count);
    let columns = std::iter::once(ids).chain(new.columns()[1..].iter().cloned()).collect();
    let mut delta = Delta::insert(RecordBatch::try_new(schema(), columns).unwrap());
    if let Some(all) = all {
        let share = [0, 1, 3][random.below(3) as usize];
        let gone = (0..all.num_rows() as u32).filter(|_| random.below(20) < share);
        delta.push(Chunk::delete(take_record_batch(all, &UInt32Array::from_iter_values(gone)).unwrap()));
    }
    delta
}

/// Returns the batch answer over all rows.
pub(crate) fn at_once(
    runtime: &Runtime,
    context: &SessionContext,
    sql: &str,
    schema: &SchemaRef,
) -> RecordBatch {
    let batches = runtime.block_on(millstream_batch::answer(context, sql)).unwrap();
    let batches: Vec<_> = batches
        .iter()
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap())
        .collect();
    concat_batches(schema, &batches).unwrap()
}

pub(crate) fn cut(epoch: u64) -> Cut {
    Cut::new(Epoch(epoch), Timestamp(epoch as i64))
}

impl crate::Change {
    /// Returns the change with all errors as texts.
    pub(crate) fn with_texts(mut self) -> crate::Result<crate::Change> {
        for crate::FailingRows { stage, rows } in std::mem::take(&mut self.failing) {
            self.errors.append(stage.errors(&rows)?);
        }
        Ok(self)
    }
}

pub(crate) fn step(flow: &mut Flow, epoch: u64, changes: &[Delta; 2]) -> crate::Change {
    step_for(flow, epoch, changes, true)
}

pub(crate) fn step_for(flow: &mut Flow, epoch: u64, changes: &[Delta; 2], read: bool) -> crate::Change {
    let inputs: Vec<Delta> = flow
        .relations()
        .iter()
        .map(|name| changes[NAMES.iter().position(|known| *known == name.as_ref()).unwrap()].clone())
        .collect();
    flow.step_for(&cut(epoch), &inputs.iter().collect::<Vec<_>>(), read).unwrap().with_texts().unwrap()
}

/// Steps queries, each of which must have an operator, through random changes. Their summed output must equal
/// the batch answer.
pub(crate) fn check(operator: &str, queries: &[&str], seeds: std::ops::Range<u64>) {
    check_with(operator, &|_| (), queries, seeds);
}

/// Does the same as [`check`] with user-defined functions.
pub(crate) fn check_with(
    operator: &str,
    functions: &dyn Fn(&SessionContext),
    queries: &[&str],
    seeds: std::ops::Range<u64>,
) {
    for seed in first_seeds(2, seeds) {
        let mut random = Random(seed);
        let mut fixture = Fixture::new();
        functions(&fixture.context);
        let mut maintained: Vec<(Flow, Delta)> =
            queries.iter().map(|sql| (fixture.compile(sql), Delta::default())).collect();
        for (sql, (flow, _)) in queries.iter().zip(&maintained) {
            let text = flow.explain().join("\n");
            assert!(text.contains(operator) && !text.contains("Whole"), "{sql}: {text}");
        }
        for epoch in 1..10 {
            let changes = fixture.change(&mut random);
            for (sql, (flow, sum)) in queries.iter().zip(&mut maintained) {
                let schema = flow.schema().unwrap().clone();
                if random.below(3) == 0 {
                    again(flow, fixture.compile(sql));
                }
                sum.append(step(flow, epoch, &changes).rows);
                let mut difference = sum.clone();
                difference.push(Chunk::delete(fixture.at_once(sql, &schema)));
                let difference = consolidate(difference, &schema).unwrap();
                assert!(difference.is_empty(), "seed {seed}, epoch {epoch}, {sql}: {difference:#?}");
                *sum = consolidate(std::mem::take(sum), &schema).unwrap();
            }
        }
    }
}

/// Replaces a flow by a new flow of the same query that loads its state, as after a restart. The new flow
/// must save the same state.
pub(crate) fn again(flow: &mut Flow, mut new: Flow) {
    let kept = flow.save().unwrap();
    new.load(kept.clone(), &[]).unwrap();
    if flow.shareable().iter().all(|found| found.shared.is_none()) {
        assert_eq!(shown(&kept), shown(&new.save().unwrap()), "{}", flow.explain().join("\n"));
        assert_eq!(flow.state_rows(), new.state_rows(), "{}", flow.explain().join("\n"));
    }
    assert_eq!(flow.wake_at(), new.wake_at(), "{}", flow.explain().join("\n"));
    assert_eq!(counters(flow), counters(&new));
    *flow = new;
}

/// Returns saved state, line by line.
fn shown(kept: &Tables) -> Vec<String> {
    let row = |(name, row): (&str, String)| format!("{name}: {row}");
    let rows = |(name, batches): (&str, &Batches)| -> Vec<String> {
        sorted(&Delta::from_iter(batches.get().unwrap().into_owned()))
            .into_iter()
            .map(|text| row((name, text)))
            .collect()
    };
    let mut lines: Vec<String> = kept.tables().flat_map(rows).collect();
    lines.extend(kept.numbers().map(|(name, number)| row((name, number.to_string()))));
    lines.extend(kept.texts().map(|(name, text)| row((name, text.to_string()))));
    lines
}

/// Returns the counters that operators report.
fn counters(flow: &Flow) -> Vec<String> {
    let of = |operator: crate::explain::Explained| {
        format!(
            "{}: {:?}, {:?}, {:?}",
            operator.title, operator.state.forgotten, operator.late, operator.waiting
        )
    };
    flow.operators().into_iter().map(of).collect()
}

/// Does the same as [`again`] for a single operator.
pub(crate) fn go_on(operator: &dyn Operator, new: &mut dyn Operator) {
    let mut kept = operator.save().unwrap();
    new.load(&mut kept).unwrap();
    assert_eq!(kept.left(), None);
    assert_eq!(operator.state_rows(), new.state_rows());
    assert_eq!(operator.abilities().wake_at(), new.abilities().wake_at());
}

/// Steps two operators whose outputs must be equal; returns the first one's output.
pub(crate) fn step_alike(all: [&mut dyn Operator; 2], cut: &Cut, delta: &Delta) -> Output {
    let [one, other] = all;
    assert_eq!(one.abilities().is_due(cut), other.abilities().is_due(cut));
    let outputs = [one.step(cut, &[delta]).unwrap(), other.step(cut, &[delta]).unwrap()];
    let told = |output: &Output, schema: &SchemaRef| {
        let rows = sorted(&consolidate(output.rows.clone(), schema).unwrap());
        let mut failures: Vec<String> = output.failures.iter().map(|of| format!("{of:?}")).collect();
        failures.sort();
        let late: Vec<_> = output.late.iter().map(|late| (late.count(), late.watermark.clone())).collect();
        (rows, failures, late)
    };
    let schema = one.properties().schema.clone();
    assert_eq!(told(&outputs[0], &schema), told(&outputs[1], &schema), "{cut:?}");
    let content = |operator: &dyn Operator| {
        let rows = operator.abilities().content(&|_| None).map(Result::unwrap);
        rows.map(|rows| sorted(&Delta::from_iter(rows)))
    };
    let kept = |operator: &dyn Operator| {
        let abilities = operator.abilities();
        let waiting = (abilities.wake_at(), abilities.waiting(), abilities.late());
        (content(operator), operator.state_rows(), waiting)
    };
    assert_eq!(kept(one), kept(other), "{cut:?}");
    let [output, _] = outputs;
    output
}

/// Returns a delta of one table with columns `k` and `v`.
pub(crate) fn delta(rows: &[(i64, i64)], weight: i64) -> Delta {
    let count = rows.len();
    let column = |of: fn(&(i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of)));
    let nothing = |data_type| arrow::array::new_null_array(&data_type, count);
    let columns: Vec<ArrayRef> = vec![
        nothing(DataType::Int64),
        column(|row| row.0),
        nothing(DataType::Utf8),
        nothing(DataType::Float64),
        column(|row| row.1),
    ];
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    Delta::of(Chunk { rows, weights: Some(Int64Array::from(vec![weight; count])) })
}

pub(crate) fn sorted(delta: &Delta) -> Vec<String> {
    let mut all = Vec::new();
    for chunk in &delta.chunks {
        for row in 0..chunk.rows.num_rows() {
            let text = crate::failure::row_text(&chunk.rows, row).unwrap();
            all.push(format!("{:+} {text}", chunk.weight(row)));
        }
    }
    all.sort();
    all
}
