//! Maintained aggregates against DataFusion's answer over all rows at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_state::Rows;
use tokio::runtime::Runtime;

use crate::{Choice, Driver, Flow, Limits, Relation};

/// A small generator of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Columns of every type that an aggregate may get, named after it.
fn schema() -> SchemaRef {
    use DataType::*;
    let types = [
        ("i8", Int8),
        ("i16", Int16),
        ("i32", Int32),
        ("i64", Int64),
        ("u8", UInt8),
        ("u16", UInt16),
        ("u32", UInt32),
        ("u64", UInt64),
        ("f16", Float16),
        ("f32", Float32),
        ("f64", Float64),
        ("d32", Decimal32(5, 2)),
        ("d64", Decimal64(10, 2)),
        ("d128", Decimal128(12, 2)),
        ("wide", Decimal128(30, 4)),
        ("d256", Decimal256(50, 2)),
        ("b", Boolean),
        ("t", Utf8),
        ("lt", LargeUtf8),
        ("vt", Utf8View),
        ("bin", Binary),
        ("lbin", LargeBinary),
        ("vbin", BinaryView),
        ("date", Date32),
        ("date64", Date64),
        ("time", Time64(TimeUnit::Microsecond)),
        ("ts", Timestamp(TimeUnit::Microsecond, None)),
        ("tz", Timestamp(TimeUnit::Nanosecond, Some("+02:00".into()))),
        ("dur", Duration(TimeUnit::Millisecond)),
        ("months", Interval(IntervalUnit::YearMonth)),
        ("iv", Interval(IntervalUnit::MonthDayNano)),
        ("dict", Dictionary(Box::new(Int16), Box::new(Utf8))),
    ];
    Arc::new(Schema::new(types.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

fn column(data_type: &DataType, numbers: &[Option<i64>]) -> ArrayRef {
    let integers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    let text = || -> ArrayRef {
        let text = |n: &i64| if n % 2 == 0 { format!("{n}") } else { format!("a text of some length {n}") };
        Arc::new(numbers.iter().map(|n| n.as_ref().map(text)).collect::<StringArray>())
    };
    let narrow = || cast(&integers, &DataType::Int32).unwrap();
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let quarters = cast(&integers, &DataType::Float64).unwrap();
            cast(&quarters, data_type).unwrap()
        }
        DataType::Boolean | DataType::Date32 => cast(&narrow(), data_type).unwrap(),
        DataType::Interval(_) => {
            let months = cast(&narrow(), &DataType::Interval(IntervalUnit::YearMonth)).unwrap();
            cast(&months, data_type).unwrap()
        }
        data_type if data_type.is_integer() || data_type.is_temporal() || data_type.is_decimal() => {
            cast(&integers, data_type).unwrap()
        }
        _ => cast(&text(), data_type).unwrap(),
    }
}

fn rows(random: &mut Random, count: usize) -> RecordBatch {
    let columns = schema()
        .fields()
        .iter()
        .map(|field| {
            let range = if field.name() == "k" { 5 } else { 60 };
            let mut number = || match random.below(12) {
                0 => None,
                1 => Some(0),
                _ => Some(random.below(range) as i64),
            };
            let numbers: Vec<_> = (0..count).map(|_| number()).collect();
            column(field.data_type(), &numbers)
        })
        .collect();
    RecordBatch::try_new(schema(), columns).unwrap()
}

struct Fixture {
    runtime: Runtime,
    context: SessionContext,
    input: Rows,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap(),
            context: SessionContext::new(),
            input: Rows::new(schema()),
        };
        fixture.register();
        fixture
    }

    fn register(&self) {
        let _ = self.context.deregister_table("t").unwrap();
        let batches = self.input.snapshot().batches().unwrap();
        let table = MemTable::try_new(schema(), vec![batches]).unwrap();
        self.context.register_table("t", Arc::new(table)).unwrap();
    }

    fn compile(&self, sql: &str, append_only: bool) -> Flow {
        let state = self.context.state();
        let plan = self.runtime.block_on(state.create_logical_plan(sql)).unwrap();
        let plan = state.optimize(&plan).unwrap();
        let driver = Driver::new(&state, self.runtime.handle().clone());
        let columns: Vec<usize> = (0..schema().fields().len()).collect();
        let resolve = |_: &_| {
            Some(Relation { name: "t".into(), schema: schema(), columns: columns.clone(), append_only })
        };
        let limits = Limits { whole_rows_max: 1 };
        let flow = Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap();
        let text = flow.explain().join("\n");
        assert!(text.contains("Aggregate") && !text.contains("Whole"), "{sql}: {text}");
        flow
    }

    fn at_once(&self, sql: &str, schema: &SchemaRef) -> RecordBatch {
        let batches = self.runtime.block_on(async { self.context.sql(sql).await?.collect().await }).unwrap();
        let batches: Vec<_> = batches
            .iter()
            .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap())
            .collect();
        concat_batches(schema, &batches).unwrap()
    }

    /// A random change: new rows, and unless it is append-only some rows that are there taken back.
    fn change(&mut self, random: &mut Random, append_only: bool) -> Delta {
        let mut delta = Delta::default();
        for _ in 0..random.below(3) {
            let count = 1 + random.below(60) as usize;
            delta.push(Chunk::insert(rows(random, count)));
        }
        let there = self.input.snapshot().batches().unwrap();
        if !append_only && !there.is_empty() {
            let all = concat_batches(&schema(), &there).unwrap();
            let share = [0, 1, 10][random.below(3) as usize];
            let gone: Vec<u32> = (0..all.num_rows() as u32).filter(|_| random.below(10) < share).collect();
            delta.push(Chunk::delete(take_record_batch(&all, &UInt32Array::from(gone)).unwrap()));
            // One chunk with weights of both signs, whose sum is nothing.
            let both = rows(random, 3);
            let both = concat_batches(&schema(), [&both, &both]).unwrap();
            delta.push(Chunk { rows: both, weights: Some(Int64Array::from(vec![-2, 1, 0, 2, -1, 0])) });
        }
        self.input.apply(&delta).unwrap();
        self.register();
        delta
    }
}

fn cut(epoch: u64) -> Cut {
    Cut { epoch: Epoch(epoch), now: Timestamp(epoch as i64), positions: Vec::new() }
}

/// Steps queries through random changes; what they have put out and what they say they hold must equal the
/// answer at once.
fn check(queries: &[String], append_only: bool, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut fixture = Fixture::new();
        let mut maintained: Vec<(Flow, Delta)> =
            queries.iter().map(|sql| (fixture.compile(sql, append_only), Delta::default())).collect();
        for epoch in 1..12 {
            let delta = if epoch == 1 && seed % 2 == 0 {
                Delta::default()
            } else {
                fixture.change(&mut random, append_only)
            };
            for (sql, (flow, sum)) in queries.iter().zip(&mut maintained) {
                let schema = flow.schema().unwrap().clone();
                let output = flow.step(&cut(epoch), &[&delta]).unwrap().rows;
                assert!(output.is_append_only() || !flow.append_only().unwrap());
                sum.append(output);
                let expected = fixture.at_once(sql, &schema);
                let mut difference = sum.clone();
                difference.push(Chunk::delete(expected.clone()));
                let difference = consolidate(difference, &schema).unwrap();
                assert!(difference.is_empty(), "seed {seed}, epoch {epoch}, {sql}: {difference:#?}");
                // Where a projection comes last, nothing is kept.
                if let Some(kept) = flow.content() {
                    let mut content = Delta::of(Chunk::delete(expected));
                    kept.unwrap().into_iter().for_each(|rows| content.push(Chunk::insert(rows)));
                    let content = consolidate(content, &schema).unwrap();
                    assert!(content.is_empty(), "seed {seed}, epoch {epoch}, {sql}: content {content:#?}");
                }
                *sum = consolidate(std::mem::take(sum), &schema).unwrap();
            }
        }
    }
}

/// The queries that use calls of `functions` over `columns`, grouped in several ways and with a filter.
fn queries(functions: &[&str], columns: &[&str]) -> Vec<String> {
    let call = |function: &str, column: &str| format!("{function}({column}) AS {function}_{column}");
    let filtered = |function: &str, column: &str| {
        format!("{function}({column}) FILTER (WHERE i8 > 20) AS {function}_{column}_f")
    };
    let all: Vec<String> = functions
        .iter()
        .flat_map(|function| columns.iter().map(move |column| (*function, *column)))
        .flat_map(|(function, column)| [call(function, column), filtered(function, column)])
        .collect();
    let all = all.join(", ");
    vec![
        format!("SELECT {all} FROM t"),
        format!("SELECT b, {all}, count(*) AS n FROM t GROUP BY b"),
        format!("SELECT t, i32 % 3 AS i, {all} FROM t WHERE i16 > 5 GROUP BY t, i32 % 3"),
    ]
}

const SUMMED: [&str; 16] = [
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "f32", "f64", "d32", "d64", "d128", "wide",
    "d256",
];

#[test]
fn counts_and_sums_follow_inserts_and_deletes() {
    let mut all = queries(&["sum"], &SUMMED);
    all.extend(queries(&["sum"], &["dur", "months", "iv"]));
    all.extend(queries(&["count"], &["i8", "t", "dict", "f64"]));
    all.push("SELECT sum(1000 / i64) FILTER (WHERE i64 > 0), sum(i64) FROM t".into());
    all.push("SELECT count(*), count(1), count(i8, t), count(NULL), count(*) FILTER (WHERE b) FROM t".into());
    check(&all, false, 0..6);
}

#[test]
fn averages_follow_inserts_and_deletes() {
    check(&queries(&["avg"], &["i32", "f64", "d32", "d64", "d128", "wide", "d256", "dur"]), false, 10..14);
}

#[test]
fn least_and_greatest_values_follow_inserts() {
    let names = ["months", "iv"];
    let schema = schema();
    let columns: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .filter(|name| !names.contains(name))
        .collect();
    check(&queries(&["min", "max"], &columns), true, 20..23);
}

#[test]
fn groups_of_every_type_and_none_follow_inserts_and_deletes() {
    let mut all: Vec<String> = schema()
        .fields()
        .iter()
        .map(|field| format!("SELECT {0}, count(*) FROM t GROUP BY {0}", field.name()))
        .collect();
    all.push("SELECT DISTINCT t, i8, dict FROM t".into());
    all.push("SELECT f64, d128, count(i8) FROM t GROUP BY f64, d128".into());
    check(&all, false, 30..32);
    check(&["SELECT DISTINCT t, b FROM t".into()], true, 32..36);
}
