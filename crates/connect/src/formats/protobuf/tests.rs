//! Decoding of what Google's encoder wrote, of odd but valid messages, and of hostile bytes.

use std::sync::Arc;

use arrow::array::{ListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, SchemaRef, TimeUnit};

use super::columns::columns;
use super::decoder::ProtobufDecoder;
use super::encoder::ProtobufEncoder;
use super::schema::{Label, ProtoSchema, Scalar};
use crate::formats::fixture::{check_damage, decoded_by, hex};
use crate::formats::schemas::Schemas;

const ORDER: &str = include_str!("fixtures/order.proto");
const ORDERS: &str = include_str!("fixtures/order.hex");

fn decoder(schema: &str, columns: &SchemaRef) -> ProtobufDecoder {
    let schema = ProtoSchema::parse(schema, &[]).unwrap();
    ProtobufDecoder::new(columns, &Arc::new(Schemas::of_file(schema)), None).unwrap()
}

/// Returns each decoded row as text, and the reasons of the bad ones.
fn decoded(schema: &str, columns: &SchemaRef, data: &[Vec<u8>]) -> (Vec<String>, Vec<String>) {
    decoded_by(&decoder(schema, columns), data)
}

fn inferred() -> SchemaRef {
    let schema = ProtoSchema::parse(ORDER, &[]).unwrap();
    columns(&schema, schema.root(Some("shop.Order")).unwrap()).unwrap()
}

fn only(name: &str, of: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, of, true)]))
}

#[test]
fn a_schema_gives_columns() {
    let types: Vec<String> = inferred()
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), millstream_delta::sql_type(field.data_type())))
        .collect();
    assert_eq!(
        types.join(", "),
        "id BIGINT, small INT, name TEXT, note TEXT, colour TEXT, big NUMERIC(20, 0), ratio REAL, weight DOUBLE PRECISION, \
         ok BOOLEAN, raw BYTEA, tags TEXT[], numbers INT[], counts MAP(TEXT, BIGINT), place STRUCT<city TEXT, zip INT>, \
         at TIMESTAMPTZ, took INTERVAL, wrapped BIGINT, card TEXT, cash DOUBLE PRECISION, lines STRUCT<sku TEXT, n BIGINT>[]"
    );
    for (text, reason) in [
        ("syntax = \"proto3\"; message n { n next = 1; }", "a message within itself"),
        ("message r { }", "has no fields"),
    ] {
        let schema = ProtoSchema::parse(text, &[]).unwrap();
        let error = columns(&schema, schema.root(None).unwrap()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn messages_of_another_writer_are_read_with_all_types() {
    let data: Vec<Vec<u8>> = ORDERS.lines().map(hex).collect();
    let (rows, bad) = decoded(ORDER, &inferred(), &data);
    assert_eq!(bad, Vec::<String>::new());
    assert_eq!(
        rows,
        [
            "-7|-300|Grüße|n|GREEN|18446744073709551615|0.5|-1e300|true|00ff|[a, b]|[1, -2, 300]|{x: 1}|\
             {city: Bonn, zip: 53111}|2026-01-31T12:00:00.005Z|1.500000000 secs|0|visa|NULL|[{sku: s, n: 4294967295}]",
            "0|0||NULL|RED|0|0.0|0.0|false||[]|[]|{}|NULL|NULL|NULL|NULL|NULL|NULL|[]",
            "1|0||NULL|7|0|0.0|0.0|false||[]|[]|{}|NULL|NULL|NULL|NULL|NULL|2.5|[]",
        ]
    );
}

/// Returns the decoder of a descriptor set, with the columns that it describes.
fn by_descriptors(set: &str, message: &str) -> ProtobufDecoder {
    let schema = ProtoSchema::of_file(&hex(set.trim())).unwrap();
    let columns = columns(&schema, schema.root(Some(message)).unwrap()).unwrap();
    ProtobufDecoder::new(&columns, &Arc::new(Schemas::of_file(schema)), Some(message)).unwrap()
}

#[test]
fn a_descriptor_set_is_the_same_schema_as_its_proto() {
    let set = include_str!("fixtures/order.desc.hex");
    let schema = ProtoSchema::of_file(&hex(set.trim())).unwrap();
    assert_eq!(columns(&schema, schema.root(Some("shop.Order")).unwrap()).unwrap(), inferred());
    // The messages of imports are none that a message may be of by default.
    assert_eq!(schema.message(schema.root(None).unwrap()).name, "shop.Order");
    let data: Vec<Vec<u8>> = ORDERS.lines().map(hex).collect();
    let expected = decoded(ORDER, &inferred(), &data);
    assert_eq!(expected.0.len(), 3);
    assert_eq!(decoded_by(&by_descriptors(set, "shop.Order"), &data), expected);
}

#[test]
fn a_descriptor_set_has_the_imports_and_the_presence_of_editions() {
    let decoder = by_descriptors(include_str!("fixtures/invoice.desc.hex"), "shop.Invoice");
    let data: Vec<Vec<u8>> = include_str!("fixtures/invoice.hex").lines().map(hex).collect();
    let (rows, bad) = decoded_by(&decoder, &data);
    assert_eq!(bad, Vec::<String>::new());
    let expected = ["0|0|{units: 12, cents: NULL}|{x: {units: 1, cents: 0}}|FINAL", "5|NULL|NULL|{}|NONE"];
    assert_eq!(rows, expected);
}

#[test]
fn files_that_are_no_schema_are_refused() {
    let set = hex(include_str!("fixtures/invoice.desc.hex").trim());
    let of = |content: &[u8]| ProtoSchema::of_file(content).unwrap_err();
    let error = of(&hex(include_str!("fixtures/lacking.desc.hex").trim()));
    assert!(error.contains("lacks 'money.proto', which 'invoice.proto' imports"), "{error}");
    let neither = "neither the text of a .proto file nor a descriptor set";
    for content in
        [&b"\x00"[..], b"\x7fELF\x02\x01", b"\x89PNG\r\n\x1a\n", b"\xff\xfe", &set[1..], b"\x12\x00"]
    {
        assert!(of(content).contains(neither), "{content:?}: {}", of(content));
    }
    for content in [&b""[..], b"\n\n", b"syntax = \"proto3\";"] {
        assert!(of(content).contains("has no message"), "{content:?}: {}", of(content));
    }
    // A set ends with a file: the first one, or the last one.
    let first = 2 + usize::from(set[1]);
    for length in (1..set.len()).filter(|length| *length != first) {
        assert!(ProtoSchema::of_file(&set[..length]).is_err(), "{length}");
    }
    for (place, byte) in
        (0..set.len()).flat_map(|place| [0, 1, 0x0A, 0x7F, 0x80, 0xFF].map(|byte| (place, byte)))
    {
        let mut damaged = set.clone();
        damaged[place] = byte;
        if let Ok(schema) = ProtoSchema::of_file(&damaged) {
            let _ = schema.root(None).map(|root| columns(&schema, root));
        }
    }
}

#[test]
fn fields_may_repeat_be_unknown_and_come_in_any_order() {
    let schema = "syntax = 'proto3'; message r { int32 x = 1; m y = 2; repeated int32 z = 3; message m { int32 a = 1; int32 b = 2; } }";
    let place = DataType::Struct(
        vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)].into(),
    );
    let all: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("y", place, true),
        Field::new("x", DataType::Int8, true),
        Field::new("z", DataType::new_list(DataType::Int32, true), true),
        Field::new("absent", DataType::Int32, true),
    ]));
    // y {a: 1}, x 1, z 5, unknown 9 (a group with a field), y {b: 2}, x 2, z [6, 7]
    let message = hex("12020801080118054b08014c12021002080 21a020607".replace(' ', "").as_str());
    let (rows, bad) = decoded(schema, &all, &[message]);
    assert_eq!((rows, bad), (vec!["{a: 1, b: 2}|2|[5, 6, 7]|NULL".to_string()], Vec::new()));
}

#[test]
fn values_that_do_not_fit_are_bad_rows() {
    for (schema, of, bytes, reason) in [
        ("int32 x = 1;", DataType::Int8, "08ac02", "field 'x' is 300, which doesn't fit TINYINT"),
        (
            "uint64 x = 1;",
            DataType::Int64,
            "08ffffffffffffffffff01",
            "is 18446744073709551615, which doesn't fit BIGINT",
        ),
        ("int32 x = 1;", DataType::Int32, "0880", "the record's value ends within a number"),
        ("int32 x = 1;", DataType::Int32, "08ffffffffffffffffffff01", "has a number of more than 64 bits"),
        ("int32 x = 1;", DataType::Int32, "0a0161", "has another wire type"),
        ("string x = 1;", DataType::Utf8View, "0a01ff", "is no UTF-8"),
        (
            "string x = 1;",
            DataType::Utf8View,
            "0affffffffffffffffff01",
            "bytes were expected, but 0 are left",
        ),
        ("string x = 1;", DataType::Utf8View, "0b", "ends within a group"),
        ("string x = 1;", DataType::Utf8View, "0c", "wire type 4"),
        ("string x = 1;", DataType::Utf8View, "00", "a field with the number 0"),
        ("string x = 1;", DataType::Int32, "", "is string in the writer's schema, but the column is INT"),
        ("repeated string x = 1;", DataType::Utf8View, "", "is repeated string in the writer's schema"),
    ] {
        let schema = format!("syntax = \"proto3\"; message r {{ {schema} }}");
        let (rows, bad) = decoded(&schema, &only("x", of), &[hex(bytes)]);
        assert!(
            rows.is_empty() && bad.len() == 1 && bad[0].contains(reason),
            "{schema} {bytes}: {rows:?} {bad:?}"
        );
    }
}

#[test]
fn wrong_schemas_are_refused() {
    let deep = "message m {".repeat(10_000);
    for (text, reason) in [
        ("", "has no message"),
        ("message m { int32 y = -1; }", "where a field's number was expected"),
        ("message m { int32 y = 1", "ends where"),
        ("message m { repeated group G = 1 {} }", "has a group"),
        ("message m { map<M, int32> y = 1; }", "keys of type 'M'"),
        ("/* message m {}", "a comment without an end"),
        (deep.as_str(), "levels of messages within messages"),
    ] {
        let error = ProtoSchema::parse(text, &[]).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn options_and_unknown_types_of_other_fields_are_no_matter() {
    for text in [
        "message m { int64 x = 1 [(f) = { tags: \"PII\" }, deprecated = true]; }",
        "message m { google.protobuf.Struct s = 2; google.type.Money p = 3; int64 x = 1; }",
        "message m { option (o) = { a: [1, 2] }; extensions 4 to 9 [declaration = { number: 4 }]; int64 x = 1; \
         enum E { A = 0 [(v) = { t: 1 }]; } }",
    ] {
        let schema = format!("syntax = \"proto3\"; {text}");
        let (rows, bad) = decoded(&schema, &only("x", DataType::Int64), &[hex("0807")]);
        assert!(bad.is_empty() && rows.len() == 1 && rows[0].contains('7'), "{text}: {rows:?} {bad:?}");
    }
    let schema = "syntax = \"proto3\"; message m { google.type.Money x = 1; }";
    let (rows, bad) = decoded(schema, &only("x", DataType::Int64), &[hex("0807")]);
    assert!(
        rows.is_empty() && bad[0].contains("is google.type.Money in the writer's schema"),
        "{rows:?} {bad:?}"
    );
}

#[test]
fn a_repeated_field_of_entries_is_a_map() {
    let of = |text: &str| {
        let schema =
            ProtoSchema::parse(&format!("syntax = \"proto3\"; message m {{ {text} }}"), &[]).unwrap();
        let message = schema.message(schema.root(Some("m")).unwrap());
        (message.fields[0].label.clone(), message.fields[0].of.clone())
    };
    let entries = of(
        "repeated XEntry x = 1; message XEntry { option map_entry = true; string key = 1; int32 value = 2; }",
    );
    assert_eq!(entries, of("map<string, int32> x = 1;"));
    assert_eq!(entries.0, Label::Map(Scalar::String));
}

#[test]
fn random_damage_gives_rows_or_bad_rows() {
    let (decoder, orders): (_, Vec<Vec<u8>>) =
        (decoder(ORDER, &inferred()), ORDERS.lines().map(hex).collect());
    check_damage(&decoder, &orders[..1]);
    bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = ProtoSchema::parse(text, &[]);
        }
    });
}

/// Returns a relation with a column of each kind of type.
fn all_types() -> RecordBatch {
    let place = Fields::from(vec![
        Field::new("city", DataType::Utf8View, true),
        Field::new("zips", DataType::new_list(DataType::Int32, true), true),
    ]);
    let json = r#"{"id": -7, "small": -300, "big": 18446744073709551615, "ratio": 0.5, "weight": -1e300, "ok": true,
        "name": "Grüße", "raw": "00ff", "price": 12.50, "on": "2026-01-31", "at": "2026-01-31T12:00:00.005Z",
        "before": "1969-12-31T23:59:59.999999", "tags": ["a", "b"], "numbers": [1, -2], "flags": [true],
        "counts": {"x": 1, "y": -1}, "place": {"city": "Bonn", "zips": [53111]}, "places": [{"city": "Ulm"}, {}]}
        {"id": 0, "tags": [], "counts": {}}"#;
    let instant = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let counts =
        vec![Field::new("key", DataType::Utf8View, false), Field::new("value", DataType::Int64, true)];
    let counts = Field::new("entries", DataType::Struct(Fields::from(counts)), false);
    let fields = [
        ("id", DataType::Int64),
        ("small", DataType::Int16),
        ("big", DataType::UInt64),
        ("ratio", DataType::Float32),
        ("weight", DataType::Float64),
        ("ok", DataType::Boolean),
        ("name", DataType::Utf8View),
        ("raw", DataType::BinaryView),
        ("price", DataType::Decimal128(10, 2)),
        ("on", DataType::Date32),
        ("at", instant(Some("UTC"))),
        ("before", instant(None)),
        ("tags", DataType::new_list(DataType::Utf8View, true)),
        ("numbers", DataType::new_list(DataType::Int32, true)),
        ("flags", DataType::new_list(DataType::Boolean, true)),
        ("counts", DataType::Map(Arc::new(counts), false)),
        ("place", DataType::Struct(place.clone())),
        ("places", DataType::new_list(DataType::Struct(place), true)),
    ];
    let fields = fields.map(|(name, of)| Field::new(name, of, name != "id"));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let mut reader = arrow::json::ReaderBuilder::new(schema).build(json.as_bytes()).unwrap();
    reader.next().unwrap().unwrap()
}

#[test]
fn rows_are_written_with_their_schema() {
    let rows = all_types();
    let encoder = ProtobufEncoder::new(&rows.schema(), "Row").unwrap();
    assert_eq!(
        encoder.schema_text(),
        r#"syntax = "proto3";

import "google/protobuf/timestamp.proto";

message Row {
  message place_type {
    optional string city = 1;
    repeated int32 zips = 2;
  }
  message places_type {
    optional string city = 1;
    repeated int32 zips = 2;
  }
  int64 id = 1;
  optional int32 small = 2;
  optional uint64 big = 3;
  optional float ratio = 4;
  optional double weight = 5;
  optional bool ok = 6;
  optional string name = 7;
  optional bytes raw = 8;
  optional string price = 9;
  optional string on = 10;
  optional google.protobuf.Timestamp at = 11;
  optional google.protobuf.Timestamp before = 12;
  repeated string tags = 13;
  repeated int32 numbers = 14;
  repeated bool flags = 15;
  map<string, int64> counts = 16;
  optional place_type place = 17;
  repeated places_type places = 18;
}
"#
    );
    // Our reader, which reads what Google's writes, finds the same values.
    let schema = ProtoSchema::parse(encoder.schema_text(), &[]).unwrap();
    let columns = columns(&schema, schema.root(None).unwrap()).unwrap();
    let (found, bad) = decoded(encoder.schema_text(), &columns, &encoder.encode(&rows).unwrap());
    assert_eq!(bad, Vec::<String>::new());
    assert_eq!(
        found,
        [
            "-7|-300|18446744073709551615|0.5|-1e300|true|Grüße|00ff|12.50|2026-01-31|2026-01-31T12:00:00.005Z|\
             1969-12-31T23:59:59.999999Z|[a, b]|[1, -2]|[true]|{x: 1, y: -1}|{city: Bonn, zips: [53111]}|\
             [{city: Ulm, zips: []}, {city: NULL, zips: []}]",
            "0|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|[]|[]|[]|{}|NULL|[]",
        ]
    );
}

#[test]
fn columns_that_messages_cannot_hold_are_refused() {
    let new = |name: &str, of: DataType| ProtobufEncoder::new(&only(name, of), "Row");
    let error = |name: &str, of: DataType| new(name, of).unwrap_err().to_string();
    let list = DataType::new_list(DataType::new_list(DataType::Int32, true), true);
    assert!(error("x", list).contains("column 'x' has type INT[][], which Protobuf can't hold"));
    assert!(error("a b", DataType::Int32).contains("column 'a b' has a name that Protobuf doesn't take"));
    let two = |names: [&str; 2], of: DataType| {
        let fields = names.map(|name| Field::new(name, of.clone(), true)).to_vec();
        ProtobufEncoder::new(&Arc::new(Schema::new(fields)), "Row").err().map(|error| error.to_string())
    };
    let error = two(["x_1", "x1"], DataType::Int32).unwrap();
    assert!(error.contains("columns 'x_1' and 'x1' are both 'x1' in Protobuf"), "{error}");
    assert_eq!(two(["_a", "a_b"], DataType::Int32), None);
    let list = DataType::new_list(DataType::Int32, true);
    let encoder = new("x", list.clone()).unwrap();
    let rows = RecordBatch::try_new(
        only("x", list),
        vec![Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]))],
    );
    let error = encoder.encode(&rows.unwrap()).unwrap_err();
    assert!(error.contains("column 'x' has a NULL within an array"), "{error}");
}

#[test]
fn texts_become_dates_times_and_numbers() {
    let rows = all_types();
    let schema = ProtobufEncoder::new(&rows.schema(), "Row").unwrap();
    let chosen: Vec<usize> =
        ["price", "on", "at", "before"].map(|name| rows.schema().index_of(name).unwrap()).into();
    let columns = Arc::new(rows.schema().project(&chosen).unwrap());
    let (found, bad) = decoded(schema.schema_text(), &columns, &schema.encode(&rows).unwrap());
    assert_eq!(bad, Vec::<String>::new());
    let expected = "12.50|2026-01-31|2026-01-31T12:00:00.005Z|1969-12-31T23:59:59.999999";
    assert_eq!(found, [expected, "NULL|NULL|NULL|NULL"]);
    // The text of another column is none of these.
    let schema = "syntax = \"proto3\"; message r { string x = 1; }";
    for (of, value, reason) in [
        (DataType::Date32, &b"\x0a\x01x"[..], "field 'x' is 'x', but the column is DATE"),
        (DataType::Decimal128(3, 1), b"\x0a\x031.x", "field 'x' is '1.x', but the column is NUMERIC(3, 1)"),
        (DataType::Decimal128(3, 1), b"\x0a\x041.25", "which doesn't fit NUMERIC(3, 1)"),
    ] {
        let (_, bad) = decoded(schema, &only("x", of), &[value.to_vec()]);
        assert!(bad[0].contains(reason), "{bad:?}");
    }
    let (found, _) = decoded(schema, &only("x", DataType::Date32), &[Vec::new()]);
    assert_eq!(found, ["NULL"]);
}
