//! Data and checks that the tests of binary formats share.

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::decode::{Decode, decode_run};
use super::framing::{Record, Run};

/// Returns the bytes of hexadecimal digits.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digit = |place: usize| u8::from_str_radix(&text[place..place + 2], 16).unwrap();
    (0..text.len() / 2).map(|byte| digit(2 * byte)).collect()
}

/// Returns records that lie in one block.
pub(super) fn run_of(data: &[Vec<u8>]) -> Run {
    let (mut block, mut records) = (Vec::new(), Vec::new());
    for datum in data {
        let start = block.len() as u32;
        block.extend_from_slice(datum);
        let end = block.len() as u32;
        records.push(Record { start, end, next: end });
    }
    Run { block: Buffer::from_vec(block), offset: 0, records, bad: Vec::new() }
}

/// Returns each row as text.
pub(super) fn texts(columns: &[ArrayRef], rows: usize) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let text =
        |column: &ArrayRef, row| ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
    let line = |row| columns.iter().map(|column| text(column, row)).collect::<Vec<_>>().join("|");
    if columns.is_empty() { Vec::new() } else { (0..rows).map(line).collect() }
}

/// Returns each decoded row as text, and the reasons of the bad ones.
pub(super) fn decoded_by(decoder: &dyn Decode, data: &[Vec<u8>]) -> (Vec<String>, Vec<String>) {
    let found = decode_run(decoder, run_of(data)).unwrap();
    let reasons = found.bad.into_iter().map(|bad| bad.reason).collect();
    (texts(&found.columns, found.records.len()), reasons)
}

/// Fails if a damaged record gives anything but a row or an error.
pub(super) fn check_damage(decoder: &dyn Decode, originals: &[Vec<u8>]) {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let mut bytes = originals[random.random_range(0..originals.len())].clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[place] = random.random(),
                1 => bytes.truncate(place.max(1)),
                _ => bytes.insert(place, random.random()),
            }
        }
        let Run { block, records, .. } = run_of(&[bytes]);
        if let Ok(columns) = decoder.decode(&block, &records) {
            assert!(columns.iter().all(|column| column.len() == 1));
        }
    }
}
