//! Tests that rows enter and leave exactly when the batch answer at that time says so, and that nothing
//! happens in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp, consolidate};

use crate::Flow;
use crate::fixture::{Fixture, NAMES, Random, again, delta, sorted};

/// A column of the fixture's tables as a time in microseconds.
const VALUE: &str = "arrow_cast(v, 'Timestamp(Microsecond, None)')";

/// The time of the epoch, of the same type.
const NOW: &str = "arrow_cast(epoch_time(), 'Timestamp(Microsecond, None)')";

fn fixture(clock: &Arc<AtomicI64>) -> Fixture {
    let (fixture, clock) = (Fixture::new(), clock.clone());
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let function = move |_: &[ColumnarValue]| {
        let nanos = clock.load(Ordering::Relaxed) * 1000;
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(nanos), Some("+00:00".into()))))
    };
    fixture.context().register_udf(create_udf(
        "epoch_time",
        Vec::new(),
        time,
        Volatility::Volatile,
        Arc::new(function),
    ));
    fixture
}

fn step(flow: &mut Flow, now: i64, changes: &[Delta; 2]) -> Delta {
    let of = |name: &Arc<str>| &changes[NAMES.iter().position(|known| *known == name.as_ref()).unwrap()];
    let names = flow.relations().to_vec();
    let inputs: Vec<&Delta> = names.iter().map(of).collect();
    flow.step(&Cut::new(Epoch(now as u64), Timestamp(now)), &inputs).unwrap().rows
}

#[test]
fn rows_come_and_go_with_the_batch_answer() {
    let clock = Arc::new(AtomicI64::new(0));
    let queries = [
        format!("SELECT * FROM t WHERE {VALUE} > {NOW} - INTERVAL '3 microseconds'"),
        format!("SELECT * FROM t WHERE {VALUE} >= {NOW} - INTERVAL '3 microseconds'"),
        format!("SELECT * FROM t WHERE {VALUE} < {NOW} - INTERVAL '1 microsecond'"),
        format!("SELECT * FROM t WHERE {VALUE} <= date_trunc('microsecond', {NOW})"),
        format!("SELECT k, count(*), sum(id) FROM t WHERE {VALUE} <= {NOW} GROUP BY k"),
    ];
    for seed in 0..4 {
        let (mut random, mut fixture) = (Random(seed), fixture(&clock));
        let compiled = queries.iter().map(|sql| (fixture.compile(sql), Delta::default()));
        let mut maintained: Vec<(Flow, Delta)> = compiled.collect();
        for (sql, (flow, _)) in queries.iter().zip(&maintained) {
            let text = flow.explain().join("\n");
            assert!(text.contains("TemporalFilter") && !text.contains("Whole"), "{sql}: {text}");
            assert!(!flow.is_timeless());
        }
        for now in 0..40 {
            clock.store(now, Ordering::Relaxed);
            let quiet = now > 0 && random.below(3) > 0;
            let changes =
                if quiet { [Delta::default(), Delta::default()] } else { fixture.change(&mut random) };
            for (sql, (flow, sum)) in queries.iter().zip(&mut maintained) {
                let schema = flow.schema().unwrap().clone();
                if random.below(3) == 0 {
                    again(flow, fixture.compile(sql));
                }
                let due = flow.is_due(&Cut::new(Epoch(now as u64), Timestamp(now)));
                if !quiet || due {
                    assert!(flow.wake_at().is_none_or(|time| time.0 >= now || due));
                    sum.append(step(flow, now, &changes));
                }
                let mut difference = sum.clone();
                difference.push(Chunk::delete(fixture.at_once(sql, &schema)));
                let difference = consolidate(difference, &schema).unwrap();
                assert!(difference.is_empty(), "seed {seed}, at {now}, {sql}: {difference:#?}");
                *sum = consolidate(std::mem::take(sum), &schema).unwrap();
            }
        }
    }
}

#[test]
fn a_row_that_is_past_leaves_no_trace() {
    let clock = Arc::new(AtomicI64::new(0));
    let fixture = fixture(&clock);
    let mut flow = fixture.compile(&format!("SELECT k, v FROM t WHERE {VALUE} > {NOW}"));
    let at = |flow: &mut Flow, now: i64, t: Delta| {
        again(flow, fixture.compile(&format!("SELECT k, v FROM t WHERE {VALUE} > {NOW}")));
        sorted(&step(flow, now, &[t, Delta::default()]))
    };
    assert_eq!(at(&mut flow, 5, delta(&[(1, 3), (2, 7)], 1)), ["+1 (2, 7)"]);
    assert_eq!((flow.state_rows(), flow.wake_at()), (1, Some(Timestamp(7))));
    // The delete of a row that has left changes nothing, even in the epoch in which the row leaves.
    assert_eq!(at(&mut flow, 6, delta(&[(1, 3)], -1)), [""; 0]);
    assert_eq!(at(&mut flow, 9, delta(&[(2, 7)], -1)), ["-1 (2, 7)"]);
    assert_eq!((flow.state_rows(), flow.wake_at()), (0, None));
}

#[test]
fn what_has_passed_stays_so_after_a_restart_with_a_clock_that_is_put_back() {
    let clock = Arc::new(AtomicI64::new(0));
    let fixture = fixture(&clock);
    for condition in [format!("{VALUE} > {NOW}"), format!("{VALUE} <= {NOW}")] {
        let sql = format!("SELECT k, v FROM t WHERE {condition}");
        let [mut steady, mut moving] = [(); 2].map(|()| fixture.compile(&sql));
        let times =
            [(20, vec![(1, 15), (1, 30)], 1), (10, vec![(2, 12), (2, 25)], 1), (11, vec![(1, 30)], -1)];
        for (now, rows, weight) in times {
            let changes = [delta(&rows, weight), Delta::default()];
            let [one, other] = [&mut steady, &mut moving].map(|flow| sorted(&step(flow, now, &changes)));
            assert_eq!(one, other, "{sql}");
            again(&mut moving, fixture.compile(&sql));
            assert_eq!((steady.wake_at(), steady.state_rows()), (moving.wake_at(), moving.state_rows()));
        }
    }
}

#[test]
fn far_times_are_found_exactly() {
    let clock = Arc::new(AtomicI64::new(0));
    let fixture = fixture(&clock);
    let day = format!("SELECT v FROM t WHERE {VALUE} < date_trunc('day', {NOW}) - INTERVAL '1 hour'");
    let mut flow = fixture.compile(&day);
    let hour = 3_600_000_000;
    step(&mut flow, 17, &[delta(&[(1, 23 * hour), (1, 1000 * 24 * hour + 5)], 1), Delta::default()]);
    // The bound is 23:00 of each day from the start of the next day on.
    assert_eq!(flow.wake_at(), Some(Timestamp(48 * hour)));
    again(&mut flow, fixture.compile(&day));
    step(&mut flow, 48 * hour, &[Delta::default(), Delta::default()]);
    assert_eq!(flow.wake_at(), Some(Timestamp(1001 * 24 * hour)));
    assert_eq!(flow.state_rows(), 1);
}
