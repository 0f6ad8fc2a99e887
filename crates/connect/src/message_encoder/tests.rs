//! Encoding of rows, changes and keys as messages.

use std::sync::Arc;

use arrow::array::{BinaryViewArray, Int64Array, StringViewArray};
use arrow::datatypes::Field;
use millstream_delta::Chunk;

use super::*;

fn rows(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringViewArray>()),
    ];
    let fields = vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8View, true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn spec(options: &[(&str, &str)], append_only: bool) -> SinkSpec {
    SinkSpec {
        name: "s".into(),
        columns: rows(&[]).schema(),
        append_only,
        key: (!append_only).then(|| vec![0]),
        auto_pace: false,
        options: Options(options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()),
    }
}

fn sent(spec: &SinkSpec, delta: &Delta) -> Vec<String> {
    let encoder = MessageEncoder::new(spec, "c").unwrap();
    let mut sent = Vec::new();
    for rows in encoder.rows(delta, EpochTime::default()).unwrap() {
        for from in 0..rows.len() {
            let messages = encoder.encode(&rows.slice(from, 1)).unwrap();
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
            sent.push(format!("{} {}", text(messages.key(0)), text(messages.value(0))));
        }
        assert_eq!(encoder.encode(&rows).unwrap().len(), rows.len());
    }
    sent
}

fn changes() -> Delta {
    let mut delta = Delta::insert(rows(&[(1, Some("b")), (3, None)]));
    delta.push(Chunk::delete(rows(&[(1, Some("a")), (2, Some("x"))])));
    delta
}

#[test]
fn rows_have_a_key_of_columns() {
    let delta = Delta::insert(rows(&[(1, Some("a\nb,\"c\"")), (2, None)]));
    let check = |options: &[(&str, &str)], expect: [&str; 2]| {
        assert_eq!(sent(&spec(options, true), &delta), expect, "{options:?}");
    };
    check(&[], ["- {\"k\":1,\"v\":\"a\\nb,\\\"c\\\"\"}", "- {\"k\":2,\"v\":null}"]);
    check(
        &[("key", "v, k"), ("format", "csv")],
        ["{\"v\":\"a\\nb,\\\"c\\\"\",\"k\":1} 1,\"a\nb,\"\"c\"\"\"", "{\"v\":null,\"k\":2} 2,"],
    );
    check(
        &[("key", "v"), ("key_format", "text")],
        ["a\nb,\"c\" {\"k\":1,\"v\":\"a\\nb,\\\"c\\\"\"}", "- {\"k\":2,\"v\":null}"],
    );
}

#[test]
fn deletes_are_messages_without_a_value() {
    let expect = ["{\"k\":2} -", "{\"k\":1} {\"k\":1,\"v\":\"b\"}", "{\"k\":3} {\"k\":3,\"v\":null}"];
    assert_eq!(sent(&spec(&[("format", "upsert_json")], false), &changes()), expect);
    let expect = [
        "2 {\"before\":{\"k\":2,\"v\":\"x\"},\"after\":null,\"op\":\"d\"}",
        "2 -",
        "1 {\"before\":{\"k\":1,\"v\":\"a\"},\"after\":{\"k\":1,\"v\":\"b\"},\"op\":\"u\"}",
        "3 {\"before\":null,\"after\":{\"k\":3,\"v\":null},\"op\":\"c\"}",
    ];
    let options = [("format", "debezium_json"), ("key_format", "text")];
    assert_eq!(sent(&spec(&options, false), &changes()), expect);
}

#[test]
fn a_text_key_is_the_bytes_of_the_value() {
    let column: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(&b"\xff\x00"[..]), None]));
    let pieces = Pieces::of_text(&column).unwrap();
    assert_eq!((pieces.get(0), pieces.get(1)), (Some(&b"\xff\x00"[..]), None));
    let mut spec = spec(&[("format", "upsert_json"), ("key_format", "text")], false);
    spec.key = Some(vec![1]);
    let encoder = MessageEncoder::new(&spec, "c").unwrap();
    let rows = encoder.rows(&Delta::insert(rows(&[(1, None)])), EpochTime::default()).unwrap();
    let error = rows.iter().map(|rows| encoder.encode(rows)).find_map(Result::err).unwrap().to_string();
    assert!(error.contains("key column 'v' is NULL"), "{error}");
}

#[test]
fn bytes_are_one_column_of_an_append_only_relation() {
    let column: ArrayRef = Arc::new(BinaryViewArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b"")]));
    let fields = vec![Field::new("b", column.data_type().clone(), true)];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![column]).unwrap();
    let spec = SinkSpec { columns: rows.schema(), ..spec(&[("format", "bytes")], true) };
    let encoder = MessageEncoder::new(&spec, "c").unwrap();
    let messages = encoder.rows(&Delta::insert(rows), EpochTime::default()).unwrap();
    let messages = encoder.encode(&messages[0]).unwrap();
    let values = [0, 1, 2].map(|at| messages.value(at));
    assert_eq!(values, [Some(&b"\xff\x00"[..]), None, Some(b"")]);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let error = |options: &[(&str, &str)], append_only| {
        MessageEncoder::new(&spec(options, append_only), "c").map(drop).unwrap_err().to_string()
    };
    assert!(error(&[], false).contains("updated or deleted"));
    assert!(error(&[("format", "parquet")], true).contains("writes json, avro, protobuf, csv"));
    assert!(error(&[("format", "text")], true).contains("writes one column"));
    assert!(error(&[("format", "bytes")], true).contains("one column of type BYTEA, but sink 's' has 2"));
    assert!(error(&[("format", "bytes")], false).contains("one column of type BYTEA"));
    assert!(error(&[("format", "maxwell_json"), ("tombstones", "true")], false).contains("leave it out"));
    assert!(error(&[("database", "d")], true).contains("option 'database' isn't for format 'json'"));
    assert!(error(&[("key", "x")], true).contains("option 'key' names column 'x', but there are k, v"));
    assert!(error(&[("primary_key", "k")], true).contains("with option key"));
    assert!(error(&[("format", "upsert_json"), ("key", "k")], false).contains("primary_key"));
    assert!(error(&[("key_format", "text")], true).contains("have 0"));
    assert!(error(&[("tombstones", "false")], true).contains("isn't for format 'json'"));
    assert!(error(&[("format", "upsert_json"), ("delimiter", ";")], false).contains("leave it out"));
}

/// A registry that gives every schema the id 7.
#[derive(Debug, Default)]
struct Seven(std::sync::Mutex<Vec<String>>);

#[async_trait::async_trait]
impl SchemaRegistry for Seven {
    async fn schema(&self, _id: u32) -> Result<Option<crate::RegisteredSchema>> {
        Ok(None)
    }

    async fn latest(&self, _subject: &str) -> Result<Option<crate::RegisteredSchema>> {
        Ok(None)
    }

    async fn register(&self, subject: &str, kind: &str, _schema: &str) -> Result<u32> {
        self.0.lock().unwrap().push(format!("{subject} {kind}"));
        Ok(7)
    }
}

#[tokio::test]
async fn json_comes_behind_the_id_of_its_schema_if_there_is_a_registry() {
    let registry = ("schema.registry", "http://r");
    for (format, append_only) in [("json", true), ("upsert_json", false)] {
        let mut encoder =
            MessageEncoder::new(&spec(&[("format", format), registry], append_only), "c").unwrap();
        assert!(encoder.needs_registry());
        let seven = Seven::default();
        encoder.register(&seven, "t").await.unwrap();
        assert_eq!(*seven.0.lock().unwrap(), ["t-value JSON"]);
        let delta = Delta::insert(rows(&[(1, Some("a")), (2, None)]));
        let messages: Vec<MessageRows> = encoder.rows(&delta, EpochTime::default()).unwrap();
        let messages = encoder.encode(messages.last().unwrap()).unwrap();
        assert_eq!(messages.value(0), Some(&b"\0\0\0\0\x07{\"k\":1,\"v\":\"a\"}"[..]));
        assert_eq!(messages.value(1), Some(&b"\0\0\0\0\x07{\"k\":2,\"v\":null}"[..]));
    }
    let plain = [("format", "json"), ("key", "k"), ("key_format", "avro"), registry];
    let mut encoder = MessageEncoder::new(&spec(&plain, true), "c").unwrap();
    let seven = Seven::default();
    encoder.register(&seven, "t").await.unwrap();
    assert_eq!(*seven.0.lock().unwrap(), ["t-key AVRO"]);
    let error = MessageEncoder::new(&spec(&[("format", "csv"), registry], true), "c").unwrap_err();
    assert!(error.to_string().contains("schema.registry"), "{error}");
}
