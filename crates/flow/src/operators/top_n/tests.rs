//! Tests TopN against DataFusion's batch answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};
use millstream_state::Rows;
use tokio::runtime::Runtime;

use crate::fixture::{Random, again, at_once, schema};
use crate::{Choice, Description, Driver, Flow, Limits, Relation};

fn rows(random: &mut Random, count: usize) -> RecordBatch {
    let mut numbers = |bound: u64| -> Vec<Option<i64>> {
        (0..count).map(|_| Some(random.below(bound) as i64).filter(|n| *n != 1)).collect()
    };
    let ids = numbers(30);
    let keys = numbers(4);
    let text: StringArray = numbers(4).iter().map(|n| n.map(|n| format!("t{n}"))).collect();
    // No -0.0: DataFusion's TopK may treat it as 0.0.
    let special = [0.0, 0.0, 2.5, f64::NAN, 1.5, f64::NEG_INFINITY];
    let floats: Float64Array = numbers(6).iter().map(|n| n.map(|n| special[n as usize])).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(Int64Array::from(keys)),
        Arc::new(text),
        Arc::new(floats),
        Arc::new(Int64Array::from(numbers(7))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Table `t`.
struct Fixture {
    runtime: Runtime,
    context: SessionContext,
    input: Rows,
    append_only: bool,
}

impl Fixture {
    fn new(append_only: bool) -> Fixture {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let fixture =
            Fixture { runtime, context: SessionContext::new(), input: Rows::new(schema()), append_only };
        fixture.register();
        fixture
    }

    fn register(&self) {
        let _ = self.context.deregister_table("t").unwrap();
        let table = MemTable::try_new(schema(), vec![self.input.snapshot().batches().unwrap()]).unwrap();
        self.context.register_table("t", Arc::new(table)).unwrap();
    }

    fn compile(&self, sql: &str) -> Flow {
        let state = self.context.state();
        let plan = self.runtime.block_on(millstream_batch::plan(&state, sql)).unwrap();
        let driver = Driver::new(&state, self.runtime.handle().clone());
        let resolve = |scan: &datafusion::logical_expr::TableScan| {
            Some(Relation {
                name: scan.table_name.table().into(),
                schema: schema(),
                columns: (0..schema().fields().len()).collect(),
                append_only: self.append_only,
                key: None,
                about: Description::default(),
                window: None,
                times: Vec::new(),
            })
        };
        let limits = Limits { whole_rows_max: 1, ..Limits::default() };
        Flow::compile(&plan, &resolve, &driver, Choice::Cheapest, limits).unwrap()
    }

    fn at_once(&self, sql: &str, schema: &SchemaRef) -> RecordBatch {
        at_once(&self.runtime, &self.context, sql, schema)
    }

    fn change(&mut self, random: &mut Random) -> Delta {
        let mut delta = Delta::default();
        if self.append_only || random.below(3) > 0 {
            for _ in 0..1 + random.below(2) {
                let count = 1 + random.below(12) as usize;
                delta.push(Chunk::insert(rows(random, count)));
            }
        }
        let there = self.input.snapshot().batches().unwrap();
        if !there.is_empty() && !self.append_only {
            let all = concat_batches(&schema(), &there).unwrap();
            let share = [0, 1, 10][random.below(3) as usize];
            let gone = (0..all.num_rows() as u32).filter(|_| random.below(10) < share);
            let gone = UInt32Array::from_iter_values(gone);
            delta.push(Chunk::delete(take_record_batch(&all, &gone).unwrap()));
            let both = rows(random, 2);
            let both = concat_batches(&schema(), [&both, &both]).unwrap();
            delta.push(Chunk { rows: both, weights: Some(Int64Array::from(vec![-2, 0, 2, 3])) });
        }
        self.input.apply(&delta).unwrap();
        self.register();
        delta
    }
}

/// Steps queries through random changes; their summed output must equal the batch answer.
fn check(queries: &[&str], append_only: bool, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut fixture = Fixture::new(append_only);
        let mut maintained: Vec<(Flow, Delta)> =
            queries.iter().map(|sql| (fixture.compile(sql), Delta::default())).collect();
        for (sql, (flow, _)) in queries.iter().zip(&maintained) {
            let text = flow.explain().join("\n");
            let other = text.contains("PerKey") || text.contains("Whole");
            assert!(text.contains("TopN") && !other, "{sql}: {text}");
        }
        for epoch in 1..15 {
            let change = fixture.change(&mut random);
            for (sql, (flow, sum)) in queries.iter().zip(&mut maintained) {
                let schema = flow.schema().unwrap().clone();
                if random.below(3) == 0 {
                    again(flow, fixture.compile(sql));
                }
                let cut = Cut::new(Epoch(epoch), Timestamp(epoch as i64));
                let put_out = flow.step(&cut, &[&change]).unwrap().rows;
                if sql.starts_with("SELECT id, k, s, f, v FROM t") {
                    let net = consolidate(put_out.clone(), &schema).unwrap();
                    assert_eq!(net.num_rows(), put_out.num_rows(), "no row comes and goes: {sql}");
                }
                sum.append(put_out);
                let mut difference = sum.clone();
                difference.push(Chunk::delete(fixture.at_once(sql, &schema)));
                let difference = consolidate(difference, &schema).unwrap();
                assert!(difference.is_empty(), "seed {seed}, epoch {epoch}, {sql}: {difference:#?}");
                *sum = consolidate(std::mem::take(sum), &schema).unwrap();
                if append_only && sql.contains("LIMIT 5") {
                    assert!(flow.operators()[0].state.rows <= 7, "rows that can't count are kept");
                }
            }
        }
    }
}

const ALL: &str = "id, k, s, f, v";

#[test]
fn limits_follow_inserts_and_deletes() {
    for append_only in [false, true] {
        check(
            &[
                "SELECT id, k, s, f, v FROM t ORDER BY v DESC, id, k, s, f LIMIT 5",
                "SELECT id, k, s, f, v FROM t ORDER BY s NULLS FIRST, f DESC NULLS LAST, id, k, v LIMIT 5 OFFSET 2",
                "SELECT id, k, s, f, v FROM t ORDER BY f, id, k, s, v OFFSET 3",
                "SELECT v + 1 AS w FROM t WHERE k > 0 ORDER BY w LIMIT 40",
                "SELECT v FROM (SELECT v FROM t ORDER BY v LIMIT 9) ORDER BY v DESC LIMIT 3 OFFSET 1",
            ],
            append_only,
            0..5,
        );
    }
}

#[test]
fn row_numbers_are_bounded() {
    let numbered = |by: &str, shown: &str, condition: &str| {
        format!("SELECT {shown} FROM (SELECT *, row_number() OVER ({by}) AS n FROM t) AS x WHERE {condition}")
    };
    let complete = "PARTITION BY k ORDER BY v DESC, id, s, f";
    let queries = [
        numbered(complete, ALL, "n <= 2"),
        numbered(complete, "k, v, n", "n < 3"),
        numbered(complete, "id, n", "n BETWEEN 2 AND 4 AND v <> 3"),
        numbered(complete, "id, v", "n > 1 AND 3 >= n"),
        numbered("PARTITION BY k, s ORDER BY f NULLS FIRST, id, v", "n, f, s", "n = 1"),
        numbered("ORDER BY v, id, k, s, f", "n, v, id", "n <= 3 AND n <> 2"),
        numbered("PARTITION BY k + 1 ORDER BY v * 2, id, k, s, f, v", "k, v", "n <= 1"),
    ];
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    check(&queries, false, 0..3);
    check(&queries, true, 0..2);
}

#[test]
fn ranks_are_bounded() {
    let ranked = |by: &str, shown: &str, condition: &str| {
        format!("SELECT {shown} FROM (SELECT *, rank() OVER ({by}) AS n FROM t) AS x WHERE {condition}")
    };
    let queries = [
        ranked("PARTITION BY k ORDER BY v DESC", ALL, "n <= 2"),
        ranked("PARTITION BY k ORDER BY v", "id, k, s, f, v, n", "n <= 4"),
        ranked("PARTITION BY s ORDER BY f, v", "id, n", "n BETWEEN 2 AND 5"),
        ranked("PARTITION BY k ORDER BY s", "id", "n > 2 AND n < 7"),
        ranked("ORDER BY v", "id, v, n", "n <= 10"),
        ranked("PARTITION BY k", "id, v", "n = 1"),
    ];
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    check(&queries, false, 0..3);
    check(&queries, true, 0..2);
}

#[test]
fn the_first_row_of_each_group_is_found() {
    check(
        &[
            "SELECT DISTINCT ON (k) k, v, s FROM t ORDER BY k, v DESC, id, s, f",
            "SELECT DISTINCT ON (s, k) id, f FROM t ORDER BY s, k, f NULLS FIRST, id, v",
            "SELECT k, last_value(id ORDER BY v, id) AS a FROM t GROUP BY k",
            "SELECT k, last_value(id ORDER BY v, id) AS a, first_value(v ORDER BY v DESC, id DESC) AS b FROM t GROUP BY k",
        ],
        false,
        0..4,
    );
}
