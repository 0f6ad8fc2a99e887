//! Messages of every format: rows, bad rows and deletes under their positions, and what a registry is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use async_trait::async_trait;

use super::*;
use crate::{AvroEncoder, Health, Options, RegisteredSchema, SchemaRegistry};

type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A registry with a few schemas, which may be down.
#[derive(Debug, Default)]
struct Registry {
    schemas: Vec<(u32, &'static str)>,
    asked: AtomicUsize,
    is_down: std::sync::atomic::AtomicBool,
    /// The number of questions for this id that are answered as if there were no schema.
    late: (u32, AtomicUsize),
    /// An id whose schema refers to one that is missing.
    lacking: u32,
}

#[async_trait]
impl SchemaRegistry for Registry {
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Error::External("the registry is down".into()));
        }
        if id == self.lacking {
            return Err(Error::Invalid("there is no version 1 of subject 'other'".into()));
        }
        let is_late = |late: usize| late.checked_sub(1);
        if id == self.late.0
            && self.late.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_late).is_ok()
        {
            return Ok(None);
        }
        let found = self.schemas.iter().find(|(known, _)| *known == id);
        let kind = |text: &str| match text {
            proto if proto.starts_with("syntax") => "PROTOBUF",
            json if json.contains("\"properties\"") => "JSON",
            _ => "AVRO",
        };
        Ok(found.map(|(id, text)| RegisteredSchema {
            id: *id,
            kind: kind(text).into(),
            text: text.to_string(),
            references: Vec::new(),
        }))
    }

    async fn latest(&self, _: &str) -> Result<Option<RegisteredSchema>> {
        match self.schemas.last() {
            Some((id, _)) => self.schema(*id).await,
            None => Ok(None),
        }
    }

    async fn register(&self, _: &str, _: &str, _: &str) -> Result<u32> {
        Err(Error::Bug("nothing is registered".into()))
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn spec(options: &[(&str, &str)], key: Vec<usize>) -> SourceSpec {
    let columns = vec![Field::new("id", DataType::Int64, true), Field::new("t", DataType::Utf8View, true)];
    let pairs = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    SourceSpec {
        name: "s".into(),
        columns: Some(Arc::new(Schema::new(columns))),
        key,
        options: Options(pairs.collect()),
        max_record_bytes: 30,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: Health::default(),
    }
}

fn decoder(format: &str, key: Vec<usize>) -> MessageDecoder {
    let spec = spec(&[("format", format)], key);
    MessageDecoder::new(&spec, MessageFormat::new(&spec, None).unwrap()).unwrap()
}

fn with_registry(format: &str, key: Vec<usize>, registry: &Arc<Registry>) -> MessageDecoder {
    let spec = spec(&[("format", format)], key);
    MessageDecoder::new(&spec, MessageFormat::new(&spec, Some(registry.clone())).unwrap()).unwrap()
}

fn gathered(decoder: &MessageDecoder, messages: &[Pair<'_>]) -> Messages {
    let (split, mut gathered) = (Arc::from("t/0"), Messages::default());
    for (place, (key, value)) in messages.iter().enumerate() {
        let message = Message { position: 10 + 2 * place as u64, key: *key, value: *value };
        decoder.add(&mut gathered, &split, message);
    }
    gathered
}

fn decoded_pairs(decoder: &MessageDecoder, messages: &[Pair<'_>]) -> DecodedMessages {
    let mut messages = gathered(decoder, messages);
    block_on(decoder.prepare(&mut messages)).unwrap();
    decoder.decode(&Arc::from("t/0"), messages).unwrap()
}

fn decoded(decoder: &MessageDecoder, values: &[Option<&[u8]>]) -> DecodedMessages {
    let pairs: Vec<Pair<'_>> = values.iter().map(|value| (None, *value)).collect();
    decoded_pairs(decoder, &pairs)
}

/// Returns rows of a change feed as `id t`, deletes as `-id`.
fn changes(found: &DecodedMessages) -> Vec<String> {
    let [id, t, deleted] = found.columns.as_slice() else { return Vec::new() };
    let (ids, texts) = (id.as_primitive::<Int64Type>(), t.as_string_view());
    let row = |row| match deleted.is_valid(row) {
        true => format!("-{}", ids.value(row)),
        false if texts.is_null(row) => format!("{} NULL", ids.value(row)),
        false => format!("{} {}", ids.value(row), texts.value(row)),
    };
    (0..found.positions.len()).map(row).collect()
}

fn reasons(found: &DecodedMessages) -> Vec<(u64, &str)> {
    found.bad_rows.iter().map(|bad| (bad.offset, bad.reason.as_str())).collect()
}

#[test]
fn each_message_is_a_row_or_a_bad_row_under_its_position() {
    let decoder = decoder("json", Vec::new());
    let values: [Option<&[u8]>; 7] = [
        Some(b"{\"id\": 1}"),
        Some(b"{\"id\": "),
        None,
        Some(b"{\"id\": 2, \"t\": \"\xc3\"}"),
        Some(b"{\"id\": 3, \"t\": \"x\\ny\"}"),
        Some(b"{\"id\": 4, \"t\": \"0123456789ABC\"}"),
        Some(b"{\"id\": 5}\n"),
    ];
    let found = decoded(&decoder, &values);
    assert_eq!(found.columns[0].as_primitive::<Int64Type>().values(), &[1, 3, 5]);
    assert_eq!(found.positions, [10, 18, 22]);
    let bad: Vec<u64> = found.bad_rows.iter().map(|bad| bad.offset).collect();
    assert_eq!(bad, [12, 14, 16, 20]);
    assert!(found.bad_rows[1].reason.contains("tombstone"), "{:?}", found.bad_rows[1]);
    assert!(found.bad_rows[3].reason.contains("max_record_bytes"), "{:?}", found.bad_rows[3]);
}

#[test]
fn deletes_name_the_position_of_their_message() {
    let decoder = decoder("upsert_json", vec![0]);
    let values: [Option<&[u8]>; 3] =
        [Some(b"{\"id\": 1, \"t\": \"a\"}"), Some(b"{\"id\": 2}"), Some(b"{\"id\": 1, \"_op\": \"d\"}")];
    let found = decoded(&decoder, &values);
    assert_eq!(decoded(&decoder, &[None]).bad_rows.len(), 1);
    let origins = found.columns[2].as_struct();
    assert_eq!(origins.column(1).as_primitive::<Int64Type>().value(2), 14);
    assert_eq!(found.positions, [10, 12, 14]);
}

#[test]
fn a_message_without_a_value_deletes_its_key() {
    let keyed = decoder("upsert_json", vec![0]);
    let messages: [Pair<'_>; 9] = [
        (Some(b"1"), Some(b"{\"id\": 1, \"t\": \"a\"}")),
        (Some(b"{\"id\": 2}"), Some(b"{\"t\": \"b\"}")),
        (Some(b"1"), None),
        (Some(b" {\"id\": 2, \"x\": 0}"), None),
        (None, None),
        (Some(b"x"), None),
        (Some(b"{\"id\": null}"), None),
        (None, Some(b"{\"t\": \"c\"}")),
        (Some(b"\"7\""), Some(b"{\"id\": null}")),
    ];
    let found = decoded_pairs(&keyed, &messages);
    assert_eq!(changes(&found), ["1 a", "2 b", "-1", "-2", "7 NULL"]);
    assert_eq!(found.positions, [10, 12, 14, 16, 26]);
    let origins = found.columns[2].as_struct();
    assert!(origins.is_valid(2) && origins.column(2).is_null(2));
    let reasons = reasons(&found);
    assert_eq!(reasons.iter().map(|(offset, _)| *offset).collect::<Vec<u64>>(), [18, 20, 22, 24]);
    for ((_, reason), part) in reasons.iter().zip([
        "neither a value nor a key",
        "no value of column 'id', which is BIGINT",
        "field 'id' is missing or null",
        "field 'id' is missing or null",
    ]) {
        assert!(reason.contains(part), "{reason}");
    }
    let both = decoder("upsert_json", vec![0, 1]);
    let found = decoded_pairs(&both, &[(Some(b"{\"t\": \"x\", \"id\": 4}"), None), (Some(b"4"), None)]);
    assert_eq!(changes(&found), ["-4"]);
    assert!(reasons_of(&found).contains("the columns of the PRIMARY KEY was expected: id, t"));
}

fn reasons_of(found: &DecodedMessages) -> String {
    reasons(found).into_iter().map(|(_, reason)| reason).collect::<Vec<_>>().join("\n")
}

const ROW: &str = r#"{"type": "record", "name": "row", "fields": [
    {"name": "t", "type": ["null", "string"]}, {"name": "id", "type": "int"}]}"#;
const KEY: &str = r#"{"type": "record", "name": "key", "fields": [{"name": "id", "type": "long"}]}"#;
const NO_KEY: &str = r#"{"type": "record", "name": "row", "fields": [{"name": "t", "type": "string"}]}"#;
const ENVELOPE: &str = r#"{"type": "record", "name": "Envelope", "namespace": "shop", "fields": [
    {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "long"}, {"name": "t", "type": ["null", "string"]}]}]},
    {"name": "after", "type": ["null", "Value"]},
    {"name": "source", "type": {"type": "map", "values": "string"}},
    {"name": "op", "type": "string"}]}"#;

fn registry() -> Arc<Registry> {
    let schemas = vec![(1, ROW), (2, KEY), (3, NO_KEY), (4, "\"long\""), (5, ENVELOPE), (6, "{")];
    Arc::new(Registry { schemas, ..Registry::default() })
}

#[test]
fn each_message_is_decoded_with_its_schema() {
    let registry = registry();
    let decoder = with_registry("avro", Vec::new(), &registry);
    let values: [Option<&[u8]>; 9] = [
        Some(b"\0\0\0\0\x01\x02\x02a\x0e"),
        Some(b"\0\0\0\0\x03\x02b"),
        Some(b"\0\0\0\0\x09\x02b"),
        Some(b"{\"id\": 7}"),
        Some(b"\0\0"),
        Some(b"\0\0\0\0\x06"),
        None,
        Some(b"\0\0\0\0\x01\x00\x0e\xff"),
        Some(b"\0\0\0\0\x01\x00\x0e"),
    ];
    let found = decoded(&decoder, &values);
    assert_eq!(found.positions, [10, 12, 26]);
    assert_eq!(
        found.columns[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(7), None, Some(7)]
    );
    let reasons = reasons(&found);
    assert_eq!(reasons.iter().map(|(offset, _)| *offset).collect::<Vec<u64>>(), [14, 16, 18, 20, 22, 24]);
    for ((_, reason), part) in reasons.iter().zip([
        "the schema registry has no schema with id 9",
        "begins with byte 0x7B, but 0x00 was expected",
        "the message has 2 bytes",
        "the schema is no JSON",
        "tombstone",
        "1 bytes are left behind the record's value (schema id 1)",
    ]) {
        assert!(reason.contains(part), "{reason}");
    }
    // Each id is asked for once; one that is missing four times, and then not for a while.
    assert_eq!(registry.asked.load(Ordering::Relaxed), 7);
    decoded(&decoder, &values);
    assert_eq!(registry.asked.load(Ordering::Relaxed), 7);
}

#[test]
fn a_schema_that_the_registry_knows_late_makes_no_bad_rows() {
    let registry = Arc::new(Registry {
        schemas: vec![(1, ROW)],
        late: (1, AtomicUsize::new(2)),
        lacking: 2,
        ..Registry::default()
    });
    let decoder = with_registry("avro", Vec::new(), &registry);
    let values: [Option<&[u8]>; 2] = [Some(b"\0\0\0\0\x01\x00\x0e"), Some(b"\0\0\0\0\x02\x00")];
    let found = decoded(&decoder, &values);
    assert_eq!(found.positions, vec![10]);
    // A reference that is missing makes a bad row, and is asked for again later.
    assert_eq!(reasons(&found), [(12, "there is no version 1 of subject 'other'")]);
    let asked = registry.asked.load(Ordering::Relaxed);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    decoded(&decoder, &values);
    assert_eq!(registry.asked.load(Ordering::Relaxed), asked + 1);
}

#[test]
fn a_registry_that_is_down_makes_no_bad_rows() {
    let registry = registry();
    registry.is_down.store(true, Ordering::Relaxed);
    let decoder = with_registry("avro", Vec::new(), &registry);
    let mut messages = gathered(&decoder, &[(None, Some(b"\0\0\0\0\x01\x00\x0e"))]);
    assert!(matches!(block_on(decoder.prepare(&mut messages)), Err(Error::External(_))));
    registry.is_down.store(false, Ordering::Relaxed);
    block_on(decoder.prepare(&mut messages)).unwrap();
    let found = decoder.decode(&Arc::from("t/0"), messages).unwrap();
    assert_eq!((found.positions, found.bad_rows.len()), (vec![10], 0));
    let unprepared = gathered(&decoder, &[(None, Some(b"\0\0\0\0\x01\x00\x0e"))]);
    assert!(matches!(decoder.decode(&Arc::from("t/0"), unprepared), Err(Error::Bug(_))));
}

#[test]
fn upserts_and_envelopes_come_in_avro_too() {
    let keyed = with_registry("upsert_avro", vec![0], &registry());
    let messages: [Pair<'_>; 6] = [
        (Some(b"\0\0\0\0\x02\x0e"), Some(b"\0\0\0\0\x01\x02\x02a\x0e")),
        (Some(b"\0\0\0\0\x02\x10"), Some(b"\0\0\0\0\x03\x02b")),
        (Some(b"\0\0\0\0\x04\x0e"), None),
        (Some(b"8"), None),
        (Some(b"\0\0\0\0\x02\x0e\0"), None),
        (Some(b"\0\0\0\0\x08\x0e"), None),
    ];
    let found = decoded_pairs(&keyed, &messages);
    assert_eq!(changes(&found), ["7 a", "8 b", "-7", "-8"]);
    assert!(
        reasons_of(&found).contains("the message's key: 1 bytes are left behind"),
        "{}",
        reasons_of(&found)
    );
    assert!(reasons_of(&found).contains("no schema with id 8"), "{}", reasons_of(&found));

    let envelopes = with_registry("debezium_avro", vec![0], &registry());
    let messages: [Pair<'_>; 5] = [
        (None, Some(b"\0\0\0\0\x05\x00\x02\x0e\x02\x02a\x00\x02c")),
        (None, Some(b"\0\0\0\0\x05\x02\x0e\x00\x02\x0e\x02\x02b\x02\x02k\x02v\x00\x02u")),
        (None, Some(b"\0\0\0\0\x05\x02\x0e\x02\x02b\x00\x00\x02d")),
        (Some(b"k"), None),
        (None, Some(b"\0\0\0\0\x05\x00\x00\x00\x02d")),
    ];
    let found = decoded_pairs(&envelopes, &messages);
    assert_eq!(changes(&found), ["7 a", "7 b", "-7"]);
    assert_eq!(found.bad_rows.len(), 1);
    assert!(reasons_of(&found).contains("field 'before' is missing or null"), "{}", reasons_of(&found));
}

#[test]
fn messages_of_protobuf_name_their_type() {
    const PROTO: &str = "syntax = \"proto3\"; message Row { int64 id = 1; optional string t = 2; }
        message Outer { int32 x = 1; map<string, int32> m = 3; message Inner { string t = 1; } }";
    let schemas = vec![(1, PROTO), (2, ROW)];
    let registry = Arc::new(Registry { schemas, ..Registry::default() });
    let decoder = with_registry("protobuf", Vec::new(), &registry);
    let values: [Option<&[u8]>; 7] = [
        Some(b"\0\0\0\0\x01\x00\x08\x07\x12\x01a"),
        Some(b"\0\0\0\0\x01\x02\x00\x08\x08"),
        Some(b"\0\0\0\0\x01\x04\x02\x02\x0a\x01b"),
        Some(b"\0\0\0\0\x01\x02\x08\x0a\x01b"),
        Some(b"\0\0\0\0\x01\xff\xff\xff\xff\x0f"),
        Some(b"\0\0\0\0\x02\x00"),
        Some(b"\0\0\0\0\x07\x00"),
    ];
    let found = decoded(&decoder, &values);
    assert_eq!(found.positions, [10, 12, 14], "{}", reasons_of(&found));
    let ids: Vec<Option<i64>> = found.columns[0].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(ids, [Some(7), Some(8), None]);
    let texts: Vec<Option<&str>> = found.columns[1].as_string_view().iter().collect();
    assert_eq!(texts, [Some("a"), None, Some("b")]);
    let parts = [
        "no message at place [4]",
        "no path to its type",
        "a schema of AVRO, but PROTOBUF",
        "no schema with id 7",
    ];
    for ((_, reason), part) in reasons(&found).iter().zip(parts) {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn bytes_are_kept_as_they_are() {
    let mut spec = spec(&[("format", "bytes")], Vec::new());
    spec.columns = None;
    let decoder = MessageDecoder::new(&spec, MessageFormat::new(&spec, None).unwrap()).unwrap();
    let found = decoded(&decoder, &[Some(b"\xff\0"), None, Some(b""), Some(b"longer than twelve bytes")]);
    let values: Vec<&[u8]> = found.columns[0].as_binary_view().iter().flatten().collect();
    assert_eq!(values, [&b"\xff\0"[..], b"", b"longer than twelve bytes"]);
    assert_eq!((decoder.schema().field(0).name().as_str(), found.bad_rows.len()), ("data", 1));
    // A declared BYTEA column has another type of Arrow than the column by default.
    spec.columns = Some(Arc::new(Schema::new(vec![Field::new("b", DataType::Binary, true)])));
    let decoder = MessageDecoder::new(&spec, MessageFormat::new(&spec, None).unwrap()).unwrap();
    let found = decoded(&decoder, &[Some(b"\xff\0"), Some(b"")]);
    let values: Vec<&[u8]> = found.columns[0].as_binary::<i32>().iter().flatten().collect();
    assert_eq!(values, [&b"\xff\0"[..], b""]);
}

#[test]
fn a_schema_gives_the_columns_of_a_source_without() {
    let mut spec = spec(&[("format", "avro")], Vec::new());
    spec.columns = None;
    let registry = Arc::new(Registry { schemas: vec![(1, KEY), (2, ROW)], ..Registry::default() });
    let format = MessageFormat::new(&spec, Some(registry)).unwrap();
    let columns = block_on(format.columns(&spec, "t")).unwrap().unwrap();
    assert_eq!(columns.fields().len(), 2);
    let encoder = AvroEncoder::new(&columns, "row").unwrap();
    assert!(encoder.schema_json().contains("\"name\":\"id\""), "{}", encoder.schema_json());
}

#[test]
fn row_events_change_rows_by_their_key() {
    let spec = SourceSpec { max_record_bytes: 200, ..spec(&[("format", "canal_json")], vec![0]) };
    let decoder = MessageDecoder::new(&spec, MessageFormat::new(&spec, None).unwrap()).unwrap();
    let events: [Option<&[u8]>; 7] = [
        Some(br#"{"type": "INSERT", "data": [{"id": "1", "t": "a"}, {"id": "2", "t": "b"}], "old": null}"#),
        Some(br#"{"type": "UPDATE", "data": [{"id": "3", "t": "c"}], "old": [{"id": "1"}]}"#),
        Some(br#"{"type": "CREATE", "isDdl": true, "data": null}"#),
        Some(br#"{"type": "DELETE", "data": [{"id": "2", "t": "b"}, {"id": "x"}, {"t": "c"}]}"#),
        None,
        Some(b"{"),
        Some(br#"{"type": "DELETE", "data": [{"id": 3}]}"#),
    ];
    let messages: Vec<Pair<'_>> = events.iter().map(|event| (Some(&b"key"[..]), *event)).collect();
    let found = decoded_pairs(&decoder, &messages);
    assert_eq!(changes(&found), ["1 a", "2 b", "-1", "3 c", "-2", "-3"], "{}", reasons_of(&found));
    assert_eq!(found.positions, [10, 10, 12, 12, 16, 22]);
    // A delete of a missing row is a mistake, so it keeps its bytes.
    let origins = found.columns[2].as_struct();
    assert!(origins.is_valid(4) && origins.column(2).is_valid(4));
    let reasons: Vec<(u64, &str)> = reasons(&found);
    assert_eq!(reasons.iter().map(|(offset, _)| *offset).collect::<Vec<u64>>(), [16, 16, 18, 20]);
    for ((_, reason), part) in reasons.iter().zip([
        "column id",
        "field 'id' is missing or null",
        "the message has no value",
        "no JSON at byte 1",
    ]) {
        assert!(reason.contains(part) || part == "column id", "{reason}");
    }
}

#[test]
fn json_may_begin_with_the_id_of_its_schema() {
    let registry = registry();
    let decoder = with_registry("json", Vec::new(), &registry);
    let values: [Option<&[u8]>; 3] =
        [Some(b"\0\0\0\0\x09{\"id\": 1}"), Some(b"{\"id\": 2}"), Some(b"\0\0{\"id\": 3}")];
    let found = decoded(&decoder, &values);
    assert_eq!((found.positions, found.bad_rows.len()), (vec![10, 12], 1));
    assert_eq!(registry.asked.load(Ordering::Relaxed), 0, "reading needs no schema");
    let keyed = with_registry("upsert_json", vec![0], &registry);
    let messages: [Pair<'_>; 2] = [
        (Some(b"\0\0\0\0\x08{\"id\": 1}"), Some(b"\0\0\0\0\x09{\"t\": \"a\"}")),
        (Some(b"\0\0\0\0\x08{\"id\": 1}"), None),
    ];
    assert_eq!(changes(&decoded_pairs(&keyed, &messages)), ["1 a", "-1"]);
}

/// Returns columns as `name type`.
fn shown(columns: &Schema) -> Vec<String> {
    let one =
        |field: &Arc<Field>| format!("{} {}", field.name(), millstream_delta::sql_type(field.data_type()));
    columns.fields().iter().map(one).collect()
}

#[test]
fn columns_come_from_schemas_of_each_kind() {
    const JSON: &str =
        r#"{"type": "object", "properties": {"id": {"type": "integer"}, "t": {"type": "string"}}}"#;
    for (format, schema, expected) in [
        ("json", JSON, ["id BIGINT", "t TEXT"]),
        ("upsert_json", JSON, ["id BIGINT", "t TEXT"]),
        ("debezium_avro", ENVELOPE, ["id BIGINT", "t TEXT"]),
        ("upsert_avro", ROW, ["t TEXT", "id INT"]),
    ] {
        let spec = SourceSpec { columns: None, ..spec(&[("format", format)], Vec::new()) };
        let registry = Arc::new(Registry { schemas: vec![(1, schema)], ..Registry::default() });
        let columns = block_on(MessageFormat::new(&spec, Some(registry)).unwrap().columns(&spec, "t"));
        assert_eq!(shown(&columns.unwrap().unwrap()), expected, "{format}");
    }
}

#[test]
fn columns_come_from_records() {
    let of = |format: &str, values: &[&str]| {
        let spec = SourceSpec { columns: None, ..spec(&[("format", format)], Vec::new()) };
        let format = MessageFormat::new(&spec, None).unwrap();
        assert!(format.has_columns_in_records());
        let values: Vec<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        format.columns_of_records(&spec, "t", &values).map(|columns| shown(&columns))
    };
    let values = ["{\"id\": 1,\n\"x\": null}", "{\"id\": 2, \"x\": [{\"y\": \"z\"}], \"_op\": \"d\"}"];
    assert_eq!(of("json", &values).unwrap(), ["id BIGINT", "x STRUCT<y TEXT>[]", "_op TEXT"]);
    assert_eq!(of("upsert_json", &values).unwrap(), ["id BIGINT", "x STRUCT<y TEXT>[]"]);
    let error = |values: &[&str]| of("json", values).unwrap_err().to_string();
    assert!(error(&[]).contains("it has none yet. Declare the columns"), "{}", error(&[]));
    assert!(error(&["{"]).contains("topic 't': "), "{}", error(&["{"]));
    assert!(error(&["{}"]).contains("objects without fields"), "{}", error(&["{}"]));
}
