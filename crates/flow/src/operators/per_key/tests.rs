//! Fragments maintained key by key against DataFusion's answer over all rows at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_state::Rows;
use tokio::runtime::Runtime;

use crate::{Choice, Description, Driver, Flow, Limits, Relation};

/// A small generator of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn rows(random: &mut Random, count: usize) -> RecordBatch {
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

/// Tables `t` and `u`.
struct Fixture {
    runtime: Runtime,
    context: SessionContext,
    inputs: [Rows; 2],
}

const NAMES: [&str; 2] = ["t", "u"];

impl Fixture {
    fn new() -> Fixture {
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

    fn compile(&self, sql: &str) -> Flow {
        let state = self.context.state();
        let plan = self.runtime.block_on(state.create_logical_plan(sql)).unwrap();
        let plan = state.optimize(&plan).unwrap();
        let driver = Driver::new(&state, self.runtime.handle().clone());
        let resolve = |scan: &datafusion::logical_expr::TableScan| {
            let columns = (0..schema().fields().len()).collect();
            let name = scan.table_name.table().into();
            Some(Relation {
                name,
                schema: schema(),
                columns,
                append_only: false,
                key: None,
                about: Description::default(),
                window: None,
            })
        };
        let limits = Limits { whole_rows_max: 1, ..Limits::default() };
        Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap()
    }

    fn at_once(&self, sql: &str, schema: &SchemaRef) -> RecordBatch {
        let batches = self.runtime.block_on(async { self.context.sql(sql).await?.collect().await }).unwrap();
        let batches: Vec<_> = batches
            .iter()
            .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap())
            .collect();
        concat_batches(schema, &batches).unwrap()
    }

    /// Random changes of both tables: new rows, and rows that are there taken back.
    fn change(&mut self, random: &mut Random) -> [Delta; 2] {
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

fn cut(epoch: u64) -> Cut {
    Cut::new(Epoch(epoch), Timestamp(epoch as i64))
}

fn step(flow: &mut Flow, epoch: u64, changes: &[Delta; 2]) -> crate::Change {
    let inputs: Vec<&Delta> = flow
        .relations()
        .iter()
        .map(|name| &changes[NAMES.iter().position(|known| *known == name.as_ref()).unwrap()])
        .collect();
    flow.step(&cut(epoch), &inputs).unwrap()
}

/// Steps queries through random changes; what they have put out must equal the answer at once.
fn check(queries: &[&str], seeds: std::ops::Range<u64>) {
    check_with(&|_| (), queries, seeds);
}

/// The same with functions of a user.
fn check_with(functions: &dyn Fn(&SessionContext), queries: &[&str], seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut fixture = Fixture::new();
        functions(&fixture.context);
        let mut maintained: Vec<(Flow, Delta)> =
            queries.iter().map(|sql| (fixture.compile(sql), Delta::default())).collect();
        for (sql, (flow, _)) in queries.iter().zip(&maintained) {
            let text = flow.explain().join("\n");
            assert!(text.contains("PerKey") && !text.contains("Whole"), "{sql}: {text}");
        }
        for epoch in 1..10 {
            let changes = fixture.change(&mut random);
            for (sql, (flow, sum)) in queries.iter().zip(&mut maintained) {
                let schema = flow.schema().unwrap().clone();
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

#[test]
fn over_follows_inserts_and_deletes() {
    check(
        &[
            "SELECT id, k, rank() OVER (PARTITION BY k ORDER BY v) AS r FROM t",
            "SELECT id, row_number() OVER (PARTITION BY s, k ORDER BY id, v, f) AS n, count(*) OVER (PARTITION BY k) AS c FROM t",
            "SELECT v, sum(v) OVER (PARTITION BY f) AS x FROM t",
            "SELECT id, min(v) OVER (PARTITION BY s ORDER BY v RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) AS x FROM t",
            "SELECT s, dense_rank() OVER (PARTITION BY s, v % 2 ORDER BY k) AS x FROM t WHERE v > 1",
            "SELECT id FROM (SELECT id, rank() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) AS x WHERE n <= 2",
            "SELECT k, count(*) OVER (PARTITION BY k) AS a, count(*) OVER (PARTITION BY s) AS b FROM t",
        ],
        0..6,
    );
}

#[test]
fn joins_follow_inserts_and_deletes() {
    let kinds = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let conditions = ["t.k = u.k", "t.k = u.k AND t.s = u.s", "t.k = u.k AND t.v < u.v", "t.k + 1 = u.v"];
    let mut all: Vec<String> = Vec::new();
    for kind in kinds {
        for condition in conditions {
            all.push(format!("SELECT t.id, t.k, u.id, u.v FROM t {kind} u ON {condition}"));
        }
    }
    for kind in ["LEFT SEMI", "LEFT ANTI", "RIGHT SEMI", "RIGHT ANTI"] {
        for condition in conditions {
            let side = if kind.starts_with("LEFT") { "t" } else { "u" };
            all.push(format!("SELECT {side}.id, {side}.v FROM t {kind} JOIN u ON {condition}"));
        }
    }
    all.push("SELECT a.id, b.v FROM t AS a JOIN t AS b ON a.k = b.k AND a.v > b.v".into());
    all.push("SELECT t.id, u.v FROM t JOIN u ON (t.k IS NOT DISTINCT FROM u.k)".into());
    check(&all.iter().map(String::as_str).collect::<Vec<_>>(), 10..16);
}

#[test]
fn fragments_of_several_nodes_follow_inserts_and_deletes() {
    check(
        &[
            "SELECT t.k, median(t.v) AS m, max(u.v) AS x FROM t LEFT JOIN u ON t.k = u.k GROUP BY t.k",
            "SELECT t.k, count(*) OVER (PARTITION BY t.k) AS c FROM t LEFT JOIN u ON t.k = u.k AND t.v > u.v",
            "SELECT u.k, count(*) OVER (PARTITION BY u.k) AS c FROM t LEFT JOIN u ON t.k = u.k",
            "SELECT t.id FROM t WHERE t.v > (SELECT min(u.v) FROM u WHERE u.k = t.k)",
            "SELECT t.id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v > t.v) OR t.s = 't2'",
            "SELECT t.id FROM t WHERE t.k IN (SELECT max(u.k) FROM u GROUP BY u.s)",
            "SELECT a.id, x.m FROM t AS a JOIN (SELECT k, max(v) AS m FROM u GROUP BY k) AS x ON a.k = x.k",
            "SELECT k FROM t INTERSECT SELECT k FROM u",
            "SELECT k, s FROM t EXCEPT SELECT k, s FROM u",
            "SELECT k, approx_distinct(v) AS a, bit_xor(v) AS b, median(f) FILTER (WHERE v > 3) AS c FROM t GROUP BY k",
            "SELECT t.id, u.id, b.v FROM t JOIN u ON t.k = u.k JOIN t AS b ON b.k = u.k AND b.s = u.s",
            "SELECT t.id, u.id, b.v FROM t JOIN u ON t.k = u.k LEFT JOIN t AS b ON b.v = u.v",
            "SELECT max(c) AS m, k FROM (SELECT k, v, count(*) OVER (PARTITION BY k, v) AS c FROM t) AS x GROUP BY k",
        ],
        20..26,
    );
}

/// The sum of squares: a user's aggregate, which can't take rows back and has no state to merge that is known here.
#[derive(Debug, Default)]
struct Squares(i64);

impl Accumulator for Squares {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 += values[0].as_primitive::<Int64Type>().iter().flatten().map(|v| v * v).sum::<i64>();
        Ok(())
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
}

#[test]
fn aggregates_of_users_follow_inserts_and_deletes() {
    let long = DataType::Int64;
    let squares = create_udaf(
        "squares",
        vec![long.clone()],
        Arc::new(long.clone()),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<Squares>::default())),
        Arc::new(vec![long]),
    );
    let functions = |context: &SessionContext| context.register_udaf(squares.clone());
    check_with(
        &functions,
        &[
            "SELECT k, squares(v) AS q, count(*) AS c FROM t GROUP BY k",
            "SELECT s, k, squares(DISTINCT v) AS q FROM t GROUP BY s, k",
            "SELECT id, squares(v) OVER (PARTITION BY k) AS q FROM t",
        ],
        30..34,
    );
}

/// One table of `k` and `v`.
fn delta(rows: &[(i64, i64)], weight: i64) -> Delta {
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

fn sorted(delta: &Delta) -> Vec<String> {
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

#[test]
fn a_key_that_fails_has_no_rows_until_it_has_an_answer_again() {
    let fixture = Fixture::new();
    let sql = "SELECT k, sum(10 / v) OVER (PARTITION BY k) AS x FROM t";
    let mut flow = fixture.compile(sql);
    assert!(flow.explain()[0].starts_with("PerKey"), "{:?}", flow.explain());
    let mut changes = |epoch: u64, rows: &[(i64, i64)], weight: i64| {
        let change = step(&mut flow, epoch, &[delta(rows, weight), Delta::default()]);
        (sorted(&change.rows), sorted(&change.errors))
    };
    let error = |weight: &str| format!("{weight} (PerKey, division by zero, (2))");
    let first: Vec<(i64, i64)> = (1..100).map(|k| (k, if k == 2 { 0 } else { 5 })).collect();
    let (rows, errors) = changes(1, &first, 1);
    assert_eq!((rows.len(), errors), (98, vec![error("+1")]));
    // Still failing, with more rows; another key goes on.
    let (rows, errors) = changes(2, &[(2, 1), (3, 1)], 1);
    assert_eq!((rows, errors), (vec!["+2 (3, 12)".into(), "-1 (3, 2)".into()], vec![]));
    let (rows, errors) = changes(3, &[(2, 0)], -1);
    assert_eq!((rows, errors), (vec!["+1 (2, 10)".into()], vec![error("-1")]));
    let (rows, errors) = changes(4, &[(2, 0), (2, 0)], 1);
    assert_eq!((rows, errors), (vec!["-1 (2, 10)".into()], vec![error("+1")]));
    // A key without rows doesn't fail.
    let (rows, errors) = changes(5, &[(2, 0), (2, 0), (2, 1)], -1);
    assert_eq!((rows, errors), (vec![], vec![error("-1")]));
}

#[test]
fn whether_a_key_fails_does_not_depend_on_others() {
    let fixture = Fixture::new();
    // The query engine looks at the right side of AND for all rows, unless few of them pass the left side.
    let sql = "SELECT t.k, u.v FROM t LEFT JOIN u ON t.k = u.k AND t.v <> 0 AND 10 / t.v > u.v";
    let mut flow = fixture.compile(sql);
    let mut rows = vec![(2, 0); 20];
    rows.extend([(1, 0), (1, 5)]);
    let change = step(&mut flow, 1, &[delta(&rows, 1), delta(&[(1, 1), (2, 1)], 1)]);
    assert_eq!(change.errors.num_rows(), 0);
    let mut expected = vec!["+1 (1, 1)", "+1 (1, NULL)"];
    expected.extend(vec!["+1 (2, NULL)"; 20]);
    assert_eq!(sorted(&change.rows), expected);
    let change = step(&mut flow, 2, &[delta(&[(1, 10)], 1), Delta::default()]);
    assert_eq!((sorted(&change.rows), change.errors.num_rows()), (vec!["+1 (1, NULL)".to_string()], 0));
}

#[test]
fn a_row_whose_key_fails_is_left_out() {
    let fixture = Fixture::new();
    let mut flow = fixture.compile("SELECT v, count(*) OVER (PARTITION BY 10 / v) AS x FROM t");
    let change = step(&mut flow, 1, &[delta(&[(1, 0), (1, 5), (1, 5)], 1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (5, 2)", "+1 (5, 2)"]);
    assert_eq!(change.errors.num_rows(), 1);
    let change = step(&mut flow, 2, &[delta(&[(1, 0), (1, 5)], -1), Delta::default()]);
    assert_eq!(sorted(&change.rows), ["+1 (5, 1)", "-2 (5, 2)"]);
    assert_eq!(change.errors.chunks[0].weight(0), -1);
}
