//! Tests of the rows, splits and options of `nexmark`.

use std::sync::Arc;

use super::*;
use crate::numbered::SPLIT;
use crate::{Health, More};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use millstream_delta::{Position, Span};

const WIDE: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

fn spec(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> Result<Box<dyn Source>> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    let options =
        Options(options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
    options.check(Nexmark.source_options())?;
    Nexmark.source(&SourceSpec {
        name: "s".into(),
        columns: (!fields.is_empty()).then(|| Arc::new(Schema::new(fields))),
        key: Vec::new(),
        options,
        max_record_bytes: 1 << 20,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: Health::default(),
    })
}

fn open(table: &str, events: &str) -> Box<dyn Source> {
    spec(&[], &[("table", table), ("events", events)]).unwrap()
}

async fn rows(source: &mut dyn Source, limit: Limit) -> RecordBatch {
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        let arrival = source.next(limit).await.unwrap();
        for span in &arrival.spans {
            assert_eq!(span.from, at);
            at = span.to;
        }
        assert!(arrival.rows.iter().map(RecordBatch::num_rows).sum::<usize>() <= limit.rows);
        all.extend(arrival.rows);
        if arrival.more == More::Never {
            return concat_batches(source.schema(), &all).unwrap();
        }
    }
}

#[tokio::test]
async fn an_event_depends_on_its_number_alone() {
    for (table, count) in [("person", 40), ("auction", 120), ("bid", 1840)] {
        let whole = rows(open(table, "2000").as_mut(), WIDE).await;
        assert_eq!(whole.num_rows(), count);
        let pieces = rows(open(table, "2000").as_mut(), Limit { rows: 7, bytes: 3000 }).await;
        assert_eq!(whole, pieces);
        let mut source = open(table, "2000");
        let mut after = Position::default();
        after.advance(&Span { split: SPLIT.into(), from: 0, to: 1000, done: false });
        source.seek(&after).await.unwrap();
        let rest = source.next(WIDE).await.unwrap();
        assert_eq!(rest.rows[0], whole.slice(count / 2, count / 2));
        let span = Span { split: SPLIT.into(), from: 500, to: 1000, done: false };
        let again = source.replay(&span, WIDE).await.unwrap();
        assert_eq!(again.rows[0], whole.slice(count / 4, count / 4));
        assert_eq!(again.spans, [span]);
    }
}

#[tokio::test]
async fn a_source_may_end_between_its_rows() {
    let mut source = open("person", "49");
    let all = source.next(WIDE).await.unwrap();
    assert_eq!((all.rows[0].num_rows(), all.more), (1, More::Never));
    assert_eq!(all.spans, [Span { split: SPLIT.into(), from: 0, to: 49, done: true }]);
    let none = open("bid", "4").next(WIDE).await.unwrap();
    assert_eq!((none.rows.len(), none.more), (0, More::Never));
    assert!(none.spans[0].done);
    assert_eq!(open("bid", "0").next(WIDE).await.unwrap().more, More::Never);
}

#[tokio::test]
async fn times_follow_the_options() {
    let options =
        [("table", "bid"), ("events", "50"), ("first_event_time", "2024-02-29"), ("event_gap", "1 second")];
    let bids = rows(spec(&[], &options).unwrap().as_mut(), WIDE).await;
    let times = bids.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    let first = 1_709_164_800_000_000;
    assert_eq!(times.value(0), first + 4_000_000);
    assert_eq!(times.value(45), first + 49_000_000);
    let seconds = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
    let declared = [("DATE_TIME", seconds.clone()), ("price", DataType::Int64)];
    let some = rows(spec(&declared, &options).unwrap().as_mut(), WIDE).await;
    assert_eq!(some.column(0).data_type(), &seconds);
    assert_eq!(some.column(1).as_primitive::<Int64Type>(), bids.column(2).as_primitive::<Int64Type>());
    let soon = [("table", "bid"), ("events", "5000000"), ("event_gap", "1 hour")];
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let mut source = spec(&[("date_time", nanos)], &soon).unwrap();
    let span = Span { split: SPLIT.into(), from: 4_000_000, to: 4_000_050, done: false };
    let error = source.replay(&span, WIDE).await.err().unwrap().to_string();
    assert!(error.contains("event_gap"), "{error}");
}

#[test]
fn wrong_options_are_named() {
    let check = |columns: &[(&str, DataType)], options: &[(&str, &str)], expect: &str| {
        let error = spec(columns, options).err().unwrap().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&[], &[], "option 'table' is missing");
    check(&[], &[("table", "bids")], "person, auction, bid");
    check(&[], &[("table", "bid"), ("event", "3")], "Did you mean 'events'?");
    check(&[], &[("table", "bid"), ("events", "-1")], "a number of events");
    check(&[], &[("table", "bid"), ("event_gap", "1 day")], "1 us to 1 hour");
    check(&[], &[("table", "bid"), ("first_event_time", "1969-01-01")], "from 1970 on");
    check(&[("prize", DataType::Int64)], &[("table", "bid")], "Did you mean 'price'?");
    check(&[("price", DataType::Utf8View)], &[("table", "bid")], "BIGINT was expected");
}
