//! Damaged files: they yield rows or bad rows, and the next file is read normally.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use millstream_seeds::all_seeds;

use super::*;

/// Maximum time for reading a small damaged file.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Rows of each undamaged file.
const ROWS: usize = 5;

const COLUMNS: [(&str, DataType); 3] =
    [("n", DataType::Int64), ("t", DataType::Utf8View), ("f", DataType::Float64)];

const CSV: &str = "n,t,f\n1,one,1.5\n2,\"two, \"\"2\"\"\",-0\n3,,NaN\n4,\"a\nline\",1e300\n-5,ä,0.1\n";

const JSON: &str = concat!(
    r#"{"n": 1, "t": "one", "f": 1.5}"#,
    "\n",
    r#"{"t": "two \" \u00e4 \ud83d\ude00", "n": -2, "f": 1e300}"#,
    "\n",
    r#"{"n": 3, "other": {"deep": [1, [2, {"x": []}], true, null]}, "t": null}"#,
    "\n{}\n",
    r#"{"n": 9223372036854775807, "t": "", "f": -0.0}"#,
    "\n"
);

/// An error in a file: its kind, its position, and a byte or a length.
type Damage = (u8, u16, u8);

/// Returns the bytes with up to four errors: flipped bits, other bytes, missing and repeated pieces.
fn broken(whole: &[u8], errors: &[Damage]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for &(kind, at, byte) in errors.iter().take(4) {
        let at = usize::from(at) % (bytes.len() + 1);
        let end = (at + usize::from(byte % 40)).min(bytes.len());
        match kind % 6 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            1 if at < bytes.len() => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Reads a damaged file and then an undamaged one, whose rows must be complete.
fn read_before(format: &str, bytes: &[u8], whole: &[u8]) {
    let dir = Dir::new();
    dir.write(&format!("a.{format}"), bytes);
    dir.write(&format!("b.{format}"), whole);
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let taken = runtime.block_on(async {
        let mut source = dir.open(Some(&COLUMNS), &[("format", format)]);
        // A reader with a small limit finds the damage late.
        take(source.as_mut(), Limit { rows: 2, bytes: usize::MAX }).await.0
    });
    let of_whole = taken.lines(&dir).into_iter().filter(|line| line.contains("@b.")).count();
    assert_eq!(of_whole, ROWS, "{:?}", taken.bad(&dir));
    assert!(taken.bad.iter().all(|bad| bad.split.contains("a.")), "{:?}", taken.bad(&dir));
    assert!(begun.elapsed() < TIME_MAX, "{:?}", begun.elapsed());
}

/// Tests 200 kinds of damage by default. `BOLERO_RANDOM_ITERATIONS` and `BOLERO_RANDOM_TEST_TIME_MS` give other bounds.
fn fuzz(format: &str, whole: &[u8]) {
    bolero::check!().with_iterations(200).with_type::<Vec<Damage>>().for_each(|errors| {
        read_before(format, &broken(whole, errors), whole);
    });
}

/// Reads a file of random bytes.
fn fuzz_bytes(format: &str, whole: &[u8]) {
    bolero::check!().with_iterations(100).for_each(|bytes: &[u8]| read_before(format, bytes, whole));
}

fn parquet() -> Vec<u8> {
    let texts = StringArray::from(vec![Some("one"), None, Some("two"), Some(""), Some("ä")]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3, i64::MAX, -5])) as ArrayRef, true),
        ("t", Arc::new(texts) as ArrayRef, true),
        ("f", Arc::new(Float64Array::from(vec![1.5, -0.0, f64::NAN, 1e300, 0.1])) as ArrayRef, true),
    ])
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn fuzzed_csv_is_bad_rows() {
    fuzz("csv", CSV.as_bytes());
    fuzz_bytes("csv", CSV.as_bytes());
}

#[test]
fn fuzzed_json_is_bad_rows() {
    fuzz("json", JSON.as_bytes());
    fuzz_bytes("json", JSON.as_bytes());
}

#[test]
fn fuzzed_parquet_is_bad_rows() {
    fuzz("parquet", &parquet());
    fuzz_bytes("parquet", &parquet());
}

/// Flips bits of the footer of a small file, which holds the schema and the positions of the columns: by default one of each
/// byte.
#[test]
fn any_fuzzed_bit_of_a_parquet_footer_is_bad_rows() {
    let whole = parquet();
    let footer =
        whole.len() - 8 - u32::from_le_bytes(whole[whole.len() - 8..][..4].try_into().unwrap()) as usize;
    for at in footer..whole.len() {
        for bit in (0..8).filter(|bit| all_seeds() || at % 8 == *bit) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            read_before("parquet", &bytes, &whole);
        }
    }
}
