//! Tests of rows by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use millstream_seeds::{Random, first_seeds};

type Plain = (i64, Option<String>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("word", DataType::Utf8View, true),
    ]))
}

fn placed(rows: &[(Plain, i64)]) -> Placed {
    let keys = Int64Array::from_iter_values(rows.iter().map(|((key, _), _)| *key));
    let words: StringViewArray = rows.iter().map(|((_, word), _)| word.clone()).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(words)]).unwrap();
    let weights: Vec<i64> = rows.iter().map(|(_, weight)| *weight).collect();
    let weights = weights.iter().any(|weight| *weight != 1).then(|| Int64Array::from(weights));
    let slots = rows.iter().map(|((key, _), _)| *key as u32).collect();
    Placed { chunk: Chunk { rows: batch, weights }, slots, tallies: None }
}

fn plain(batches: &[RecordBatch]) -> Vec<Plain> {
    let mut all = Vec::new();
    for batch in batches {
        let (keys, words) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string_view());
        let word = |row: usize| words.is_valid(row).then(|| words.value(row).to_string());
        all.extend((0..batch.num_rows()).map(|row| (keys.value(row), word(row))));
    }
    all
}

fn content(rows: &Arranged, slots: &[u32]) -> BTreeMap<Plain, i64> {
    let mut all = BTreeMap::new();
    for row in plain(&rows.gather(slots).unwrap()) {
        *all.entry(row).or_insert(0) += 1;
    }
    all
}

#[test]
fn any_sequence_of_changes_leaves_each_slot_its_rows() {
    for seed in first_seeds(8, 0..30) {
        let mut random = Random(seed);
        let (keys, words) = [(3, 4), (20, 300), (200, 2), (2, 5000)][seed as usize % 4];
        let (mut rows, mut expected) = (Arranged::new(schema()), BTreeMap::<Plain, i64>::new());
        for _ in 0..60 {
            let deletes = random.below(3) > 0;
            let mut changes = Vec::new();
            let most = if words > 1000 { 1500 } else { 150 };
            for _ in 0..random.below(most) {
                let word = random.below(words);
                let row = (random.below(keys) as i64, (word > 0).then(|| format!("a longer word {word}")));
                let there = expected.entry(row.clone()).or_insert(0);
                let weight = if deletes && *there > 0 && random.below(5) > 0 {
                    -(1 + random.below(*there as u64) as i64)
                } else {
                    random.below(3) as i64
                };
                *there += weight;
                changes.push((row, weight));
            }
            expected.retain(|_, count| *count > 0);
            let (left, right) = changes.split_at(changes.len() / 2);
            rows.apply(vec![placed(right), placed(left)]).unwrap();
            let all: Vec<u32> = (0..keys as u32).collect();
            assert_eq!(content(&rows, &all), expected, "seed {seed}");
            assert_eq!(rows.num_rows() as i64, expected.values().sum::<i64>());
            let one = random.below(keys);
            let of_one = expected.iter().filter(|((key, _), _)| *key == one as i64);
            let of_one: BTreeMap<Plain, i64> = of_one.map(|(row, count)| (row.clone(), *count)).collect();
            assert_eq!(content(&rows, &[one as u32]), of_one);
            assert_eq!(rows.rows_of(one as u32) == 0, of_one.is_empty());
            if random.below(5) == 0 {
                // Both go on alone from here: what one loses the other still has.
                let copy = rows.project(&[0, 1]).unwrap();
                rows.forget(&all).unwrap();
                rows = copy;
                let total = |slot: u32| {
                    let of_slot = expected.iter().filter(|((key, _), _)| *key == i64::from(slot));
                    of_slot.map(|(_, count)| *count).sum::<i64>()
                };
                let totals = rows.totals(keys as usize);
                assert!(all.iter().all(|slot| totals[*slot as usize] == total(*slot)));
                assert_eq!(content(&rows, &all), expected, "seed {seed}");
            }
            if random.below(4) == 0 {
                remove_some(&mut rows, &mut expected, &mut random, one as u32);
            }
        }
    }
}

/// Removes every third row of a slot by its id.
fn remove_some(rows: &mut Arranged, expected: &mut BTreeMap<Plain, i64>, random: &mut Random, slot: u32) {
    let first = random.below(3) as usize;
    let gone: Vec<(u32, u64)> = rows.ids(slot).iter().skip(first).step_by(3).map(|id| (slot, *id)).collect();
    let ids: Vec<u64> = gone.iter().map(|(_, id)| *id).collect();
    let (batch, counts) = rows.gather_counted(&ids, &[0, 1]).unwrap();
    for (row, count) in plain(&[batch]).into_iter().zip(counts) {
        *expected.get_mut(&row).unwrap() -= count;
    }
    expected.retain(|_, count| *count > 0);
    rows.remove(&gone).unwrap();
    assert!(gone.iter().all(|(slot, id)| !rows.holds(*slot, *id)));
}

#[test]
fn rows_come_back_in_the_order_in_which_they_came() {
    let mut rows = Arranged::new(schema());
    let row = |key: i64, word: &str| (key, Some(word.to_string()));
    rows.apply(vec![placed(&[(row(1, "a"), 1), (row(2, "x"), 1), (row(1, "b"), 2), (row(1, "c"), 1)])])
        .unwrap();
    rows.apply(vec![placed(&[(row(1, "d"), 1), (row(1, "a"), -1), (row(1, "b"), -1)])]).unwrap();
    let gathered = plain(&rows.gather(&[2, 7, 1]).unwrap());
    assert_eq!(gathered, [row(2, "x"), row(1, "b"), row(1, "c"), row(1, "d")]);
}

#[test]
fn a_delete_of_what_is_not_there_names_it_and_changes_nothing() {
    let mut rows = Arranged::new(schema());
    let row = |key: i64, word: &str| (key, Some(word.to_string()));
    rows.apply(vec![placed(&[(row(1, "a"), 2), (row(2, "b"), 1)])]).unwrap();
    let before = content(&rows, &[1, 2]);
    let change = [(row(1, "a"), -3), (row(2, "b"), -1), (row(2, "c"), -1), (row(1, "d"), 1)];
    let Err(Error::Negative(missing)) = rows.apply(vec![placed(&change)]) else { panic!("taken") };
    assert_eq!(plain(&[missing.chunks[0].rows.clone()]), [row(1, "a"), row(2, "c")]);
    assert_eq!(missing.chunks[0].weights_or_ones().values(), &[1, 1]);
    assert_eq!(content(&rows, &[1, 2]), before);
}

#[test]
fn what_comes_and_goes_leaves_little_memory() {
    let mut rows = Arranged::new(schema());
    let batch = |round: i64| -> Vec<(Plain, i64)> {
        (0..500).map(|n| ((n % 50, Some(format!("a word longer than a view, {round} {n}"))), 1)).collect()
    };
    let mut bytes = Vec::new();
    for round in 0..100 {
        let mut change = batch(round);
        if round > 0 {
            change.extend(batch(round - 1).into_iter().map(|(row, _)| (row, -1)));
        }
        rows.apply(vec![placed(&change)]).unwrap();
        bytes.push(rows.memory_bytes());
    }
    assert_eq!(rows.num_rows(), 500);
    assert!(bytes[99] < 2 * bytes[10], "{bytes:?}");
}
