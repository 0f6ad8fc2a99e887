//! Tests windows from panes with two operators, one of which is restarted now and then: their outputs must be
//! the same. Other tests compare windows with the batch answer of their SQL.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::datatypes::{IntervalMonthDayNano, TimeUnit};
use datafusion::datasource::MemTable;
use millstream_delta::{Epoch, Timestamp};
use millstream_seeds::first_seeds;

use super::*;
use crate::event_time::EventTime;
use crate::fixture::{Files, Fixture, Random, go_on, step_alike};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Second, None), true),
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

/// Returns rows near a time, some of them long before it or without a time.
fn rows(random: &mut Random, now: i64, count: usize) -> RecordBatch {
    let times: TimestampSecondArray = (0..count)
        .map(|_| match random.below(14) {
            0 => None,
            1 => Some(now - 40),
            ago => Some(now - ago as i64 / 2),
        })
        .collect();
    let mut numbers = |bound: u64| -> Vec<Option<i64>> {
        (0..count).map(|_| Some(random.below(bound) as i64).filter(|n| *n != 1)).collect()
    };
    let texts: StringArray = numbers(3).iter().map(|n| n.map(|n| format!("t{n}"))).collect();
    let special = [0.1, 1e16, -0.0, f64::NAN, 1e300, f64::INFINITY];
    let floats: Float64Array = numbers(6).iter().map(|n| n.map(|n| special[n as usize])).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times),
        Arc::new(Int64Array::from(numbers(3))),
        Arc::new(texts),
        Arc::new(floats),
        Arc::new(Int64Array::from(numbers(9))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Returns the operator for an aggregate whose first key is the time, and the columns that it reads.
fn made(fixture: &Fixture, sql: &str, hops: Hops, append_only: bool) -> (HoppingAggregate, Vec<usize>) {
    let (plan, columns, driver) = fixture.aggregate(sql);
    let LogicalPlan::Aggregate(node) = &plan else { panic!("{plan}") };
    let mut keys = vec![None; node.group_expr.len()];
    keys[0] = Some(Edge::End);
    let hopping = Hopping { hops, columns: vec![(0, Edge::End)], keys };
    let time = EventTime::watermark(crate::Called::new("w".into()), schema().field(0).data_type().clone());
    let window = Window { column: 0, name: "ts".into(), time };
    (lower(&plan, node, hopping, append_only, &window, &driver).unwrap().unwrap(), columns)
}

/// Steps an operator, and one that is restarted now and then.
fn run(sql: &str, (step, size, grows): (i64, i64, bool), append_only: bool, seed: u64) {
    let fixture = Fixture::new();
    let table = MemTable::try_new(schema(), vec![vec![]]).unwrap();
    fixture.context().register_table("w", Arc::new(table)).unwrap();
    let seconds = |of: i64| IntervalMonthDayNano { months: 0, days: 0, nanoseconds: of * 1_000_000_000 };
    let lengths = [seconds(step), seconds(size), seconds(1)];
    let hops = Hops::new(schema().field(0).data_type(), lengths, grows).unwrap().unwrap();
    let made = || made(&fixture, sql, hops, append_only);
    let ((mut steady, columns), mut moving) = (made(), made().0);
    let (mut random, mut files) = (Random(seed), Files::default());
    let mut there: VecDeque<RecordBatch> = VecDeque::new();
    let (mut closed, mut failed, mut late) = (0, 0, 0);
    for epoch in 1..=60i64 {
        let mut new = made().0;
        match random.below(5) {
            0 => go_on(&moving, &mut new),
            1 | 2 => {
                files.take(&steady.save_changed().unwrap(), random.below(8) == 0);
                files.go_on(&mut new);
            }
            _ => new = moving,
        }
        moving = new;
        let mut delta = Delta::default();
        if random.below(5) > 0 {
            let count = random.below(12) as usize;
            let batch = rows(&mut random, epoch, count).project(&columns).unwrap();
            there.push_back(batch.clone());
            delta.push(Chunk::insert(batch));
        }
        if !append_only && random.below(4) == 0 {
            there.pop_back().into_iter().for_each(|batch| delta.push(Chunk::delete(batch)));
        }
        // Only the newest batch may be deleted, so a row that is late for its delete was late for its insert,
        // too.
        while there.len() > 1 {
            there.pop_front();
        }
        let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
        cut.watermarks.extend((epoch > 8).then(|| ("w".into(), epoch - epoch % 3 - 7)));
        let output = step_alike([&mut steady, &mut moving], &cut, &delta);
        closed += output.rows.num_rows();
        failed += output.failures.len();
        late += output.late.len();
    }
    assert!(closed > 5 && late > 0, "{closed} rows, {late} times late");
    assert!(!sql.contains('/') || failed > 0, "nothing failed");
}

const QUERIES: [&str; 4] = [
    "SELECT ts, k, s, count(*), count(v), sum(v), bool_or(v > 3), max(v), min(s) FROM w GROUP BY ts, k, s",
    "SELECT ts, k, sum(100 / v), max(f), sum(f), avg(f), bit_and(v), bit_xor(v) FROM w GROUP BY ts, k",
    "SELECT ts, count(*), sum(v), max(s), min(v), bit_or(v) FILTER (WHERE k = 0) FROM w GROUP BY ts",
    "SELECT ts, k FROM w GROUP BY ts, k",
];

#[test]
fn another_one_goes_on_with_the_panes() {
    for (place, windows) in [(4, 10, false), (2, 6, false), (5, 15, true)].into_iter().enumerate() {
        for sql in QUERIES {
            for seed in first_seeds(1, 0..3) {
                run(sql, windows, true, seed + 10 * place as u64);
                run(sql, windows, false, seed + 10 * place as u64);
            }
        }
    }
}
