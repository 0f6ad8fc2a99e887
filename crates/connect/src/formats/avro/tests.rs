//! Decoding of what other writers wrote (fastavro), of what our encoder wrote, and of hostile bytes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array,
    ListBuilder, MapBuilder, RecordBatch, StringViewArray, StringViewBuilder, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};

use super::columns::columns;
use super::decoder::AvroDecoder;
use super::encoder::AvroEncoder;
use super::schema::AvroSchema;
use crate::formats::decode::{Decode, decode_run};
use crate::formats::fixture::{check_damage, decoded_by, hex, run_of, texts};
use crate::formats::framing::Run;
use crate::formats::schemas::Schemas;

const ORDER: &str = include_str!("fixtures/order.avsc");
const ORDERS: &str = include_str!("fixtures/order.hex");

fn orders() -> Vec<Vec<u8>> {
    ORDERS.lines().map(hex).collect()
}

/// Returns the schema of orders with an int instead of the union of two types.
fn without_union() -> String {
    let start = ORDER.find("\"either\"").unwrap();
    let (before, after) = ORDER.split_at(start);
    let (open, close) = (after.find('[').unwrap(), after.find(']').unwrap());
    format!("{before}{}\"int\"{}", &after[..open], &after[close + 1..])
}

fn schema_of(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = fields.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn decoder(schema: &str, columns: &SchemaRef) -> AvroDecoder {
    let schema = AvroSchema::parse(schema, &[]).unwrap();
    AvroDecoder::new(columns, &Arc::new(Schemas::of_file(schema))).unwrap()
}

/// Returns each decoded row as text, and the reasons of the bad ones.
fn decoded(schema: &str, columns: &SchemaRef, data: &[Vec<u8>]) -> (Vec<String>, Vec<String>) {
    decoded_by(&decoder(schema, columns), data)
}

/// Returns a datum of a record from its parts in hexadecimal digits.
fn datum(parts: &[&str]) -> Vec<u8> {
    hex(&parts.concat())
}

#[test]
fn records_of_another_writer_are_read_with_all_types() {
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let text = DataType::Utf8View;
    let place = DataType::Struct(
        vec![Field::new("zip", DataType::Int64, true), Field::new("city", text.clone(), true)].into(),
    );
    let columns = schema_of(&[
        ("weight", DataType::Float64),
        ("id", DataType::Int64),
        ("small", DataType::Int16),
        ("name", text.clone()),
        ("colour", text.clone()),
        ("price", DataType::Decimal128(12, 4)),
        ("fixed_price", DataType::Decimal256(50, 4)),
        ("day", DataType::Date32),
        ("t_ms", DataType::Time64(TimeUnit::Nanosecond)),
        ("t_us", DataType::Time64(TimeUnit::Microsecond)),
        ("at_ms", micros(Some("UTC"))),
        ("at_us", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        ("local_us", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("uid", text.clone()),
        ("tags", DataType::new_list(text.clone(), true)),
        ("place", place),
        ("ratio", DataType::Float32),
        ("OK", DataType::Boolean),
        ("raw", DataType::BinaryView),
        ("added", DataType::Int32),
        ("either", DataType::Float64),
    ]);
    let (rows, bad) = decoded(ORDER, &columns, &orders());
    assert_eq!(
        rows,
        ["-1e300|-7|300|Grüße|GREEN|-12.3400|99999.5000|2026-01-31|01:02:03.004|23:59:59.999999|\
             2026-01-31T12:00:00.005Z|1969-12-31T23:59:59.999999Z|2026-01-31T12:00:00|\
             12345678-1234-5678-1234-567812345678|[a, b]|{zip: 53111, city: Bonn}|0.5|true|00ff|NULL|5.0"]
    );
    assert_eq!(bad.len(), 1);
    assert!(
        bad[0]
            .contains("field 'either' is string in the writer's schema, but the column is DOUBLE PRECISION"),
        "{bad:?}"
    );
    let (rows, bad) =
        decoded(ORDER, &schema_of(&[("id", DataType::Float64), ("at_ms", DataType::Int64)]), &orders());
    assert_eq!((rows, bad.len()), (vec!["-7.0|1769860800005".into(), "4.611686018427388e18|0".into()], 0));
}

#[test]
fn a_schema_gives_columns() {
    let schema = AvroSchema::parse(&without_union(), &[]).unwrap();
    let types: Vec<String> = columns(&schema)
        .unwrap()
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), millstream_delta::sql_type(field.data_type())))
        .collect();
    assert_eq!(
        types.join(", "),
        "id BIGINT, small INT, name TEXT, colour TEXT, price NUMERIC(9, 2), fixed_price NUMERIC(18, 4), day DATE, \
         t_ms TIME(3), t_us TIME(6), at_ms TIMESTAMPTZ(3), at_us TIMESTAMPTZ, local_us TIMESTAMP, uid TEXT, \
         tags TEXT[], counts MAP(TEXT, BIGINT), place STRUCT<city TEXT, zip INT>, ratio REAL, weight DOUBLE PRECISION, \
         ok BOOLEAN, raw BYTEA, either INT"
    );
    for (text, reason) in [
        (ORDER, "field 'either': a union of null, string, long is no column type"),
        (
            r#"{"type": "record", "name": "n", "fields": [{"name": "n", "type": ["null", "n"]}]}"#,
            "a record within itself",
        ),
        ("\"string\"", "the schema is string, but a record was expected"),
    ] {
        let error = columns(&AvroSchema::parse(text, &[]).unwrap()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn values_that_do_not_fit_are_bad_rows() {
    let record =
        |of: &str| format!(r#"{{"type": "record", "name": "r", "fields": [{{"name": "x", "type": {of}}}]}}"#);
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}"#;
    let time = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
    for (of, to, bytes, reason) in [
        ("\"int\"", DataType::Int8, "d804", "field 'x' is 300, which doesn't fit TINYINT"),
        ("\"long\"", DataType::UInt64, "01", "is -1, which doesn't fit BIGINT UNSIGNED"),
        ("\"int\"", DataType::Int64, "80808080808001", "but its type in the writer's schema is int"),
        ("\"long\"", DataType::Int64, "ffffffffffffffffff7f", "more than 64 bits"),
        ("\"long\"", DataType::Int64, "ffff", "ends within a whole number"),
        ("\"long\"", DataType::Int64, "0200", "1 bytes are left behind"),
        ("\"string\"", DataType::Utf8View, "04ff00", "is no UTF-8"),
        ("\"string\"", DataType::Utf8View, "01", "has the length -1"),
        ("\"string\"", DataType::Utf8View, "feffffffffffffffff01", "bytes were expected, but 0 are left"),
        ("\"boolean\"", DataType::Boolean, "02", "is the byte 2"),
        ("[\"null\", \"int\"]", DataType::Int32, "04", "is branch 2 of a union that has 2"),
        ("\"string\"", DataType::Int32, "00", "is string in the writer's schema, but the column is INT"),
        (decimal, DataType::Decimal128(10, 2), "0201", "which doesn't fit NUMERIC(10, 2)"),
        (decimal, DataType::Decimal128(4, 3), "042710", "which doesn't fit NUMERIC(4, 3)"),
        (
            time,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "feffffffffffffffff01",
            "which doesn't fit TIMESTAMP",
        ),
    ] {
        let (rows, bad) = decoded(&record(of), &schema_of(&[("x", to)]), &[hex(bytes)]);
        assert!(
            rows.is_empty() && bad.len() == 1 && bad[0].contains(reason),
            "{of} {bytes}: {rows:?} {bad:?}"
        );
    }
    let needed: SchemaRef = Arc::new(Schema::new(vec![Field::new("y", DataType::Int32, false)]));
    let (_, bad) = decoded(&record("\"int\""), &needed, &[hex("02")]);
    assert!(bad[0].contains("field 'y' is missing or null, but it is declared NOT NULL"), "{bad:?}");
}

#[test]
fn huge_counts_and_deep_values_end() {
    let nulls = r#"{"type": "record", "name": "r", "fields": [
        {"name": "skipped", "type": {"type": "array", "items": "null"}}, {"name": "x", "type": {"type": "array", "items": "null"}}]}"#;
    let list = schema_of(&[("x", DataType::new_list(DataType::Int32, true))]);
    let huge = "feffffffffffffffff01";
    for bytes in [datum(&[huge, "00"]), datum(&["00", huge]), datum(&["00", "ffffffffffffffffff01", "00"])] {
        let (_, bad) = decoded(nulls, &list, &[bytes]);
        assert!(bad[0].contains("more values than its bytes can hold"), "{bad:?}");
    }
    let (rows, _) = decoded(nulls, &list, &[datum(&["00", "0600"])]);
    assert_eq!(rows, ["[NULL, NULL, NULL]"]);
    let node = r#"{"type": "record", "name": "n", "fields": [{"name": "next", "type": ["null", "n"]}]}"#;
    let (_, bad) = decoded(node, &schema_of(&[("x", DataType::Int32)]), &[vec![2; 100_000]]);
    assert!(bad[0].contains("levels of values within values"), "{bad:?}");
    // Records without bytes that double at each level.
    let mut bomb = r#"{"type": "record", "name": "r0", "fields": []}"#.to_string();
    for level in 1..60 {
        let inner = format!("r{}", level - 1);
        bomb = format!(
            r#"{{"type": "record", "name": "r{level}", "fields": [{{"name": "a", "type": {bomb}}}, {{"name": "b", "type": "{inner}"}}]}}"#
        );
    }
    let (_, bad) = match AvroSchema::parse(&bomb, &[]) {
        Ok(_) => decoded(&bomb, &schema_of(&[("x", DataType::Int32)]), &[Vec::new()]),
        Err(error) => (Vec::new(), vec![error]),
    };
    assert_eq!(bad.len(), 1);
}

#[test]
fn one_bad_record_leaves_its_neighbours() {
    let columns = schema_of(&[("id", DataType::Int64), ("name", DataType::Utf8View)]);
    let good = orders();
    let cut = good[0][..good[0].len() - 3].to_vec();
    let data = [good[0].clone(), cut, good[1].clone(), Vec::new(), good[0].clone()];
    let (rows, bad) = decoded(ORDER, &columns, &data);
    assert_eq!(rows, ["-7|Grüße", "4611686018427387904|NULL", "-7|Grüße"]);
    assert_eq!(bad.len(), 2);
}

#[test]
fn random_damage_gives_rows_or_bad_rows() {
    let columns = columns(&AvroSchema::parse(&without_union(), &[]).unwrap()).unwrap();
    let decoder = decoder(ORDER, &columns);
    check_damage(&decoder, &orders());
    bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
        let decoder =
            self::decoder(ORDER, &schema_of(&[("tags", DataType::new_list(DataType::Utf8View, true))]));
        let Run { block, records, .. } = run_of(&[bytes.to_vec()]);
        let _ = decoder.decode(&block, &records);
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = AvroSchema::parse(text, &[]);
        }
    });
}

fn batch() -> RecordBatch {
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    tags.values().append_value("a");
    tags.values().append_null();
    tags.append(true);
    tags.append(false);
    tags.append(true);
    let mut counts = MapBuilder::new(None, StringViewBuilder::new(), arrow::array::Int64Builder::new());
    counts.keys().append_value("k");
    counts.values().append_value(-1);
    counts.append(true).unwrap();
    counts.append(true).unwrap();
    counts.append(false).unwrap();
    let place: Vec<(Arc<Field>, ArrayRef)> = vec![(
        Arc::new(Field::new("zip", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
    )];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX]))),
        (
            "name",
            Arc::new(StringViewArray::from(vec![Some("x"), None, Some("a longer text than a view holds")])),
        ),
        (
            "price",
            Arc::new(Decimal128Array::from(vec![-129, 127, 99999]).with_precision_and_scale(9, 2).unwrap()),
        ),
        ("big", Arc::new(UInt64Array::from(vec![0, 255, u64::MAX]))),
        ("weight", Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, -0.0, 1.5]))),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("raw", Arc::new(BinaryViewArray::from(vec![Some(&b"\0"[..]), None, Some(&b""[..])]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![-1, 0, 1]).with_timezone("UTC"))),
        ("local", Arc::new(TimestampMillisecondArray::from(vec![-1, 0, 1]))),
        ("tags", Arc::new(tags.finish())),
        ("counts", Arc::new(counts.finish())),
        ("place", Arc::new(StructArray::from(place))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

#[test]
fn encoded_rows_are_decoded_to_the_same_rows() {
    let rows = batch();
    let encoder = AvroEncoder::new(&rows.schema(), "row").unwrap();
    let data = encoder.encode(&rows).unwrap();
    let of_fastavro: Vec<Vec<u8>> = include_str!("fixtures/rows.hex").lines().map(hex).collect();
    assert_eq!(data, of_fastavro);
    let (found, bad) = decoded(encoder.schema_json(), &rows.schema(), &data);
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(found, texts(rows.columns(), rows.num_rows()));
    let error = AvroEncoder::new(&schema_of(&[("a b", DataType::Int32)]), "row").unwrap_err().to_string();
    assert!(error.contains("column 'a b' has a name that Avro doesn't take"), "{error}");
}

#[test]
fn a_schema_evolves() {
    let old = r#"{"type": "record", "name": "r", "fields": [
        {"name": "gone", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "id", "type": "int"}, {"name": "amount", "type": "float"}]}"#;
    let new = r#"{"type": "record", "name": "r", "fields": [
        {"name": "amount", "type": ["null", "double"]}, {"name": "id", "type": "long"}, {"name": "note", "type": "string"}]}"#;
    let columns =
        schema_of(&[("id", DataType::Int64), ("amount", DataType::Float64), ("note", DataType::Utf8View)]);
    let (rows, bad) = decoded(old, &columns, &[datum(&["02026100", "00", "0e", "0000003f"])]);
    assert_eq!((rows, bad), (vec!["7|0.5|NULL".to_string()], Vec::<String>::new()));
    let (rows, bad) = decoded(new, &columns, &[datum(&["00", "0e", "0278"])]);
    assert_eq!((rows, bad), (vec!["7|NULL|x".to_string()], Vec::<String>::new()));
    let only = schema_of(&[("key", DataType::Int64)]);
    let found = decode_run(&decoder("\"int\"", &only), run_of(&[hex("0e")])).unwrap();
    assert_eq!(found.columns[0].as_primitive::<Int64Type>().value(0), 7);
}

#[test]
fn texts_become_times_and_numbers() {
    let schema = r#"{"type": "record", "name": "r", "fields": [
        {"name": "at", "type": {"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}},
        {"name": "price", "type": "string"}]}"#;
    let parsed = AvroSchema::parse(schema, &[]).unwrap();
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(*columns(&parsed).unwrap().field(0).data_type(), zoned);
    let texts = |at: &str, price: &str| {
        let text = |text: &str| [&[(text.len() * 2) as u8][..], text.as_bytes()].concat();
        [text(at), text(price)].concat()
    };
    let columns = schema_of(&[("at", zoned), ("price", DataType::Decimal128(10, 3))]);
    let data = [
        texts("2026-01-31T12:00:00.000005+02:00", "-12.5"),
        texts("2026-01-31", "7"),
        texts("noon", "7"),
        texts("2026-01-31T12:00:00Z", "1.2345"),
        texts("2026-01-31T12:00:00Z", ""),
    ];
    let (rows, bad) = decoded(schema, &columns, &data);
    assert_eq!(rows, ["2026-01-31T10:00:00.000005Z|-12.500", "2026-01-31T00:00:00Z|7.000"]);
    for (reason, part) in bad.iter().zip([
        "field 'at' is 'noon', but the column is TIMESTAMPTZ",
        "which doesn't fit NUMERIC(10, 3)",
        "field 'price' is '', but the column is NUMERIC(10, 3)",
    ]) {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(bad.len(), 3);
}
