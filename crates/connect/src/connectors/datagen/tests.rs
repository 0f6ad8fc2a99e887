//! Tests of the values, splits and pace of generated rows.

use std::sync::Arc;

use super::*;
use crate::numbered::SPLIT;
use crate::{More, Options};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use millstream_delta::{Position, Span};

fn open(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> Result<Box<dyn Source>> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    let options =
        Options(options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
    options.check(Datagen.source_options())?;
    let columns = Some(Arc::new(Schema::new(fields)));
    Datagen.source(&SourceSpec {
        name: "g".into(),
        columns,
        key: vec![],
        options,
        max_record_bytes: 1 << 20,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: crate::Health::default(),
    })
}

fn all_types() -> Vec<(&'static str, DataType)> {
    vec![
        ("b", DataType::Boolean),
        ("i", DataType::Int64),
        ("small", DataType::Int16),
        ("f", DataType::Float64),
        ("d", DataType::Decimal128(10, 2)),
        ("day", DataType::Date32),
        ("ts", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        ("t", DataType::Utf8View),
    ]
}

async fn rows(source: &mut dyn Source, limit: Limit) -> Vec<RecordBatch> {
    let mut all = Vec::new();
    loop {
        let arrival = source.next(limit).await.unwrap();
        all.extend(arrival.rows);
        if arrival.more == More::Never {
            return all;
        }
    }
}

const WIDE: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

#[tokio::test]
async fn rows_depend_on_the_seed_and_their_number_alone() {
    let options =
        [("rows", "1000"), ("seed", "7"), ("fields.t.null_ratio", "0.5"), ("fields.i.cardinality", "5")];
    let schema = open(&all_types(), &options).unwrap().schema().clone();
    let concat = |batches: Vec<RecordBatch>| arrow::compute::concat_batches(&schema, &batches).unwrap();
    let whole = concat(rows(open(&all_types(), &options).unwrap().as_mut(), WIDE).await);
    let pieces =
        concat(rows(open(&all_types(), &options).unwrap().as_mut(), Limit { rows: 7, bytes: 300 }).await);
    assert_eq!(whole, pieces);
    assert_eq!(whole.num_rows(), 1000);
    let nulls = whole.column(7).null_count();
    assert!((400..600).contains(&nulls), "{nulls}");
    let distinct: std::collections::BTreeSet<i64> =
        whole.column(1).as_primitive::<Int64Type>().values().iter().copied().collect();
    assert_eq!(distinct.len(), 5);
    let mut source = open(&all_types(), &options).unwrap();
    let span = Span { split: SPLIT.into(), from: 100, to: 200, done: false };
    let again = source.replay(&span, WIDE).await.unwrap();
    assert_eq!(again.rows[0], whole.slice(100, 100));
    assert_eq!(again.spans, [span]);
    let other = [("rows", "1000"), ("seed", "8")];
    assert_ne!(concat(rows(open(&all_types(), &other).unwrap().as_mut(), WIDE).await), whole);
}

#[tokio::test]
async fn a_sequence_counts_and_begins_again() {
    let options = [
        ("rows", "5"),
        ("fields.i.kind", "sequence"),
        ("fields.i.start", "3"),
        ("fields.i.end", "5"),
        ("fields.t.kind", "sequence"),
    ];
    let mut source = open(&[("i", DataType::Int64), ("t", DataType::Utf8View)], &options).unwrap();
    let mut after = Position::default();
    after.advance(&Span { split: SPLIT.into(), from: 0, to: 1, done: false });
    source.seek(&after).await.unwrap();
    let batches = rows(source.as_mut(), WIDE).await;
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().values(), &[4, 5, 3, 4]);
    assert_eq!(
        batches[0].column(1).as_string_view().iter().flatten().collect::<Vec<_>>(),
        ["1", "2", "3", "4"]
    );
}

#[tokio::test]
async fn random_values_keep_their_bounds() {
    let options = [
        ("rows", "500"),
        ("fields.i.min", "-3"),
        ("fields.i.max", "3"),
        ("fields.day.min", "2024-02-28"),
        ("fields.day.max", "2024-03-01"),
        ("fields.t.length", "3"),
    ];
    let columns = [("i", DataType::Int64), ("day", DataType::Date32), ("t", DataType::Utf8View)];
    let batch = rows(open(&columns, &options).unwrap().as_mut(), WIDE).await.remove(0);
    let mut numbers: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, [-3, -2, -1, 0, 1, 2, 3]);
    let days = arrow::compute::cast(batch.column(1), &DataType::Utf8View).unwrap();
    let days: std::collections::BTreeSet<&str> = days.as_string_view().iter().flatten().collect();
    assert_eq!(days.into_iter().collect::<Vec<_>>(), ["2024-02-28", "2024-02-29", "2024-03-01"]);
    assert!(batch.column(2).as_string_view().iter().flatten().all(|text| text.len() == 3));
}

#[tokio::test]
async fn a_rate_holds_rows_back() {
    let mut source = open(&[("i", DataType::Int64)], &[("rows_per_second", "1000")]).unwrap();
    let first = source.next(WIDE).await.unwrap();
    assert_eq!(first.more, More::Later);
    assert!(first.rows[0].num_rows() < 1000);
    source.ready().await.unwrap();
    assert!(source.next(WIDE).await.unwrap().rows[0].num_rows() >= 1);
}

#[test]
fn wrong_options_are_named() {
    let check = |options: &[(&str, &str)], expect: &str| {
        let error = open(&[("amount", DataType::Int16), ("t", DataType::Utf8View)], options)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&[("fields.amout.min", "1")], "Did you mean 'amount'?");
    check(&[("fields.amount.mn", "1")], "there is no option 'fields.amount.mn'");
    check(&[("fields.amount.max", "70000")], "SMALLINT");
    check(&[("fields.amount.kind", "other")], "sequence or random");
    check(&[("rows", "many")], "a number of rows");
    check(&[("fields.amount.min", "5"), ("fields.amount.max", "4")], "less than");
    let none = SourceSpec {
        name: "g".into(),
        columns: None,
        key: vec![],
        options: Options::default(),
        max_record_bytes: 1,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: crate::Health::default(),
    };
    assert!(Datagen.source(&none).err().unwrap().to_string().contains("declare its columns"));
}
