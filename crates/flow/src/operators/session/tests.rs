//! Tests that restarted sessions give the same answers as others. Whole queries test that the answers are
//! right.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::physical_expr::expressions::Column;
use millstream_delta::{Chunk, Epoch, Timestamp, consolidate};
use millstream_seeds::first_seeds;

use super::*;
use crate::fixture::{Random, sorted};

/// The minimum distance of rows of different sessions, and the distance by which rows may be behind the
/// newest one.
const GAP: i64 = 4;
const DELAY: i64 = 5;

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", time_type(), true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn session(clock: bool, on_close: bool) -> Session {
    let column = |name, at| Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>;
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.extend(["start", "end"].map(|name| Arc::new(Field::new(name, time_type(), true))));
    let order = SortOptions { descending: false, nulls_first: false };
    let parts = SessionSpec {
        properties: Properties { append_only: on_close, ..Properties::of(Arc::new(Schema::new(fields))) },
        schema: schema(),
        ordering: Ordering {
            partition: vec![column("k", 0)],
            order: vec![(column("ts", 1), order)],
            ties: vec![2],
            ..Ordering::default()
        },
        time: column("ts", 1),
        gap: GAP,
        sides: vec![Side::Start, Side::End],
        clock: clock.then(|| EventTime::watermark(crate::Called::new("t".into()), time_type())),
        on_close,
        detail: String::new(),
        partition: vec!["k".into()],
        threads: Threads::one(),
    };
    Session::new(parts).unwrap().unwrap()
}

/// Returns another operator that loads this one's saved state.
fn again(from: &Session) -> Session {
    let mut kept = from.save().unwrap();
    let mut new = session(from.closing.closes(), from.closing.is_on_close());
    new.load(&mut kept).unwrap();
    assert_eq!(kept.left(), None);
    assert_eq!((new.state_rows(), new.late()), (from.state_rows(), from.late()));
    assert_eq!((&new.late_members, new.open.first_end()), (&from.late_members, from.open.first_end()));
    new
}

fn cut(epoch: i64, watermark: Option<i64>) -> Cut {
    let mut cut = Cut::new(Epoch(epoch as u64), Timestamp(epoch));
    cut.watermarks.extend(watermark.map(|at| ("t".into(), at)));
    cut
}

fn rows(rows: &[(Option<i64>, Option<i64>, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<TimestampMicrosecondArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Returns new rows around a time, some far behind, and deletes of existing rows.
fn change(random: &mut Random, now: i64, all: &RecordBatch) -> Delta {
    let mut row = || {
        let ago = if random.below(5) == 0 { random.below(20) } else { random.below(8) } as i64;
        let time = Some(now - ago).filter(|_| random.below(15) > 0);
        let time = if random.below(60) == 0 { Some(i64::MAX - 1) } else { time };
        (Some(random.below(3) as i64).filter(|k| *k > 0), time, random.below(3) as i64)
    };
    let new: Vec<_> = (0..now % 5).map(|_| row()).collect();
    let mut delta = Delta::insert(rows(&new));
    let share = [0, 1, 4][random.below(3) as usize];
    let gone = UInt32Array::from_iter_values((0..all.num_rows() as u32).filter(|_| random.below(20) < share));
    delta.push(Chunk::delete(take_record_batch(all, &gone).unwrap()));
    delta
}

/// Returns all output of a step, sorted.
fn told(output: Output, schema: &SchemaRef) -> Vec<String> {
    let mut told = sorted(&consolidate(output.rows, schema).unwrap());
    let mut others: Vec<String> = output
        .failures
        .iter()
        .map(|failed| format!("{:+} {}: {}", failed.weight, failed.row, failed.message))
        .collect();
    for late in output.late {
        for row in 0..late.rows.rows.num_rows() {
            let one = Delta::of(late.rows.slice(row, 1));
            let window = late.windows.as_primitive::<TimestampMicrosecondType>();
            let window = window.is_valid(row).then(|| window.value(row));
            others.push(format!("late {:?} {window:?} {}", sorted(&one), late.watermark));
        }
    }
    others.sort();
    told.append(&mut others);
    told
}

/// Steps an operator, and one that is restarted now and then. Returns the number of late rows, and of
/// restarts with late_members.
fn run(seed: u64, clock: bool, on_close: bool) -> (u64, usize) {
    let mut random = Random(seed);
    let (mut first, mut second) = (session(clock, on_close), session(clock, on_close));
    let schema = first.properties().schema.clone();
    let mut all = Delta::default();
    let (mut watermark, mut late_members) = (None, 0);
    for epoch in 1..80 {
        if random.below(3) == 0 {
            late_members += usize::from(!second.late_members.is_empty());
            second = again(&second);
        }
        let there = all.clone().into_one(&self::schema()).unwrap();
        let there = there.map_or_else(|| rows(&[]), |chunk| chunk.expand().unwrap());
        let delta = change(&mut random, epoch / 2 + 5, &there);
        all.append(delta.clone());
        all = consolidate(all, &self::schema()).unwrap();
        if random.below(4) > 0 {
            watermark = watermark.max(Some(epoch / 2 + 5 - DELAY));
        }
        let cut = cut(epoch, watermark);
        assert_eq!(first.is_due(&cut), second.is_due(&cut), "seed {seed}, epoch {epoch}");
        let one = told(first.step(&cut, &[&delta]).unwrap(), &schema);
        let other = told(second.step(&cut, &[&delta]).unwrap(), &schema);
        assert_eq!(one, other, "seed {seed}, epoch {epoch}, clock: {clock}, when they close: {on_close}");
        assert_eq!((first.state_rows(), first.late()), (second.state_rows(), second.late()));
    }
    (first.closing.late(), late_members)
}

#[test]
fn sessions_go_on_as_if_they_had_never_stopped() {
    for on_close in [false, true] {
        let (mut late, mut late_members) = (0, 0);
        for seed in first_seeds(4, 0..12) {
            let (of_late, of_guests) = run(seed, true, on_close);
            (late, late_members) = (late + of_late, late_members + of_guests);
        }
        assert!(
            late > 100 && late_members > 10,
            "{late} rows were late, {late_members} times there were guests"
        );
    }
    for seed in 20..24 {
        assert_eq!(run(seed, false, false), (0, 0));
    }
}

#[test]
fn a_session_that_guests_are_left_in_is_turned_away_afterwards() {
    let mut first = session(true, false);
    first.step(&cut(1, Some(2)), &[&Delta::insert(rows(&[(Some(1), Some(20), 0)]))]).unwrap();
    first.step(&cut(2, Some(22)), &[&Delta::default()]).unwrap();
    // Late by itself, but not beside the row at 20.
    first.step(&cut(3, Some(22)), &[&Delta::insert(rows(&[(Some(1), Some(17), 5)]))]).unwrap();
    let mut second = again(&first);
    assert_eq!(second.late_members.len(), 1);
    let gone = Delta::of(Chunk::delete(rows(&[(Some(1), Some(20), 0)])));
    let schema = first.properties().schema.clone();
    let told = [&mut first, &mut second]
        .map(|session| told(session.step(&cut(4, Some(22)), &[&gone]).unwrap(), &schema));
    assert_eq!(told[0], told[1]);
    assert!(told[0].iter().any(|line| line.starts_with("late")), "{:?}", told[0]);
    assert_eq!((second.state_rows(), second.closing.late()), (0, 1));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut closed = session(true, false);
    closed.step(&cut(1, Some(2)), &[&Delta::insert(rows(&[(None, Some(20), 0)]))]).unwrap();
    let kept = closed.save().unwrap();
    assert!(session(false, false).load(&mut kept.clone()).is_err());
    let mut without = kept.clone();
    without.take("watermark").unwrap();
    assert!(session(true, false).load(&mut without).is_err());
    let mut without = kept.clone();
    without.take_number("late").unwrap();
    assert!(session(true, false).load(&mut without).is_err());
    let mut timeless = kept;
    timeless.put("rows", vec![rows(&[(Some(1), None, 0)])]);
    assert!(session(true, false).load(&mut timeless).is_err());
}
