//! Decoding of what Google's encoder wrote, of odd but valid messages, and of hostile bytes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::columns;
use super::decoder::ProtobufDecoder;
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
