//! What is saved in runs and put together is what all is, after whatever changes, however many checkpoints fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_delta::{Chunk, Delta};

use super::*;
use crate::{Arranged, Conflict, KeyIndex, Keyed, Placed, Rows, Run, SlotMarks};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The files of checkpoints, as the crate `durable` keeps them: for each table what checkpoints have of it.
#[derive(Default)]
struct Kept {
    number: u64,
    tables: BTreeMap<String, Vec<(u64, Vec<RecordBatch>)>>,
    whole: Tables,
    /// How many rows the last checkpoint wrote.
    written: usize,
}

impl Kept {
    /// Takes a checkpoint, which may fail.
    fn take(&mut self, saved: &Tables, random: &mut Random) -> bool {
        let fails = random.below(4) == 0;
        if fails {
            return false;
        }
        self.number += 1;
        let anew = random.below(8) == 0;
        let (mut runs, mut whole, mut written) = (BTreeMap::new(), saved.clone(), 0);
        let mut known: BTreeMap<usize, Run> = BTreeMap::new();
        for (name, batches, of) in saved.parts() {
            written += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            let Some((_, run)) = of else { continue };
            whole.take(name);
            known.insert(run.lineage(), run.clone());
            let before = self.tables.get(name).filter(|_| !run.is_whole()).cloned();
            let told: &mut Vec<_> =
                runs.entry(name.to_string()).or_insert_with(|| before.unwrap_or_default());
            if !batches.is_empty() {
                told.push((self.number, batches.to_vec()));
            }
        }
        known.values().for_each(|run| run.publish(anew));
        // A table of which a run has nothing new stays.
        (self.tables, self.whole, self.written) = (runs, whole, written);
        true
    }

    /// What a start finds.
    fn load(&self) -> Tables {
        let (mut runs, mut tables) = (Runs::default(), self.whole.clone());
        for (name, told) in &self.tables {
            // They may come in any order.
            told.iter().rev().for_each(|(of, batches)| runs.put(name, *of, batches.clone()));
        }
        runs.merge_into(&mut tables).unwrap();
        tables
    }
}

fn shown(tables: &Tables) -> Vec<String> {
    let one = |batches: &[RecordBatch]| concat_batches(&batches[0].schema(), batches).unwrap();
    let show = |(name, batches): (&str, &[RecordBatch])| {
        let batch = one(batches);
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        format!("{name} {names:?} {:?}", batch.columns())
    };
    tables.tables().map(show).collect()
}

fn schema() -> SchemaRef {
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

fn rows(numbers: &[i64]) -> RecordBatch {
    let texts = StringArray::from_iter_values(numbers.iter().map(|number| format!("row {number}")));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(texts)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Rows of a multiset come and go.
#[test]
fn a_multiset_is_what_it_was() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let (mut all, mut model, mut kept) =
            (Rows::new(schema()), BTreeMap::<i64, i64>::new(), Kept::default());
        for round in 0..60 {
            let mut delta = Delta::default();
            for _ in 0..random.below(6) {
                let number = random.below(40) as i64;
                let copies = model.entry(number).or_default();
                let weight =
                    if *copies > 0 && random.below(2) == 0 { -1 } else { 1 + random.below(2) as i64 };
                *copies += weight;
                delta.push(Chunk { rows: rows(&[number]), weights: Some(vec![weight].into()) });
            }
            all.apply(&delta).unwrap();
            let mut saved = Tables::default();
            all.save_changed("rows", &mut saved).unwrap();
            if random.below(3) == 0 || !kept.take(&saved, &mut random) {
                continue;
            }
            let mut again: BTreeMap<i64, i64> = BTreeMap::new();
            for chunk in kept.load().take_delta("rows").unwrap().chunks {
                let numbers = chunk.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                numbers
                    .iter()
                    .enumerate()
                    .for_each(|(row, n)| *again.entry(*n).or_default() += chunk.weight(row));
            }
            model.retain(|_, copies| *copies > 0);
            assert_eq!(again, model, "seed {seed}, round {round}");
        }
    }
}

/// Of many rows few change: little is written, and the rows are in the order in which they came.
#[test]
fn few_changes_write_few_rows() {
    let mut keyed = Keyed::new(schema(), vec![0]).unwrap();
    keyed.upsert(&rows(&(0..100_000).collect::<Vec<_>>()), Conflict::Fail).unwrap();
    let (mut kept, mut written) = (Kept::default(), Vec::new());
    for round in 0..5i64 {
        let mut saved = Tables::default();
        keyed.save_changed("rows", &mut saved).unwrap();
        while !kept.take(&saved, &mut Random(round as u64 + 2)) {}
        written.push(kept.written);
        let mut full = Tables::default();
        full.put_delta("rows", &keyed.snapshot().delta().unwrap()).unwrap();
        assert_eq!(shown(&kept.load()), shown(&full), "round {round}");
        let some: Vec<i64> = (0..100).map(|n| n * 31 + round).collect();
        keyed.delete(&rows(&some)).unwrap();
        keyed.upsert(&rows(&some[..50]), Conflict::Fail).unwrap();
    }
    assert_eq!(written[0], 100_000);
    assert!(written[1..].iter().any(|rows| *rows <= 150), "{written:?}");
    assert!(written[1..].iter().all(|rows| *rows <= 150 || *rows > 99_000), "{written:?}");
}

/// Keys, rows by key with numbers beside them, what is kept of each key, and several values of one: as all would be saved.
#[test]
fn keys_and_what_is_kept_by_them_are_what_they_were() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut index = KeyIndex::new(vec![DataType::Int64]).unwrap().tracked();
        let (mut groups, mut marks) = (KeyIndex::new(vec![DataType::Int64]).unwrap(), SlotMarks::default());
        let (mut arranged, mut there) = (Arranged::new(schema()), BTreeMap::<(u32, i64), i64>::new());
        let mut kept = Kept::default();
        for round in 0..50 {
            let (mut changes, mut numbers) = (Vec::new(), Vec::new());
            for _ in 0..random.below(8) {
                numbers.push(random.below(30) as i64);
            }
            let keys = |numbers: &[i64]| vec![Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef];
            if !numbers.is_empty() {
                let (mut slots, mut of) = (Vec::new(), Vec::new());
                index.slots(&keys(&numbers), &mut slots).unwrap();
                groups.slots(&keys(&numbers), &mut of).unwrap();
                marks.touch_all(of);
                for slot in slots {
                    let number = random.below(4) as i64;
                    let copies = there.entry((slot, number)).or_default();
                    let weight = if *copies > 0 && random.below(2) == 0 { -*copies } else { 1 };
                    *copies += weight;
                    changes.push(Placed {
                        chunk: Chunk { rows: rows(&[number]), weights: Some(vec![weight].into()) },
                        slots: vec![slot],
                        tallies: Some(vec![number % 2]),
                    });
                }
                arranged.apply(changes).unwrap();
            }
            let live = index.live();
            let empty: Vec<u32> = live.into_iter().filter(|slot| arranged.rows_of(*slot) == 0).collect();
            empty.iter().for_each(|slot| index.free(*slot));
            if random.below(2) == 0
                && let Some(slot) = index.live().first()
            {
                let change: Vec<(u64, i64)> = arranged.ids(*slot).iter().map(|id| (*id, round)).collect();
                arranged.set_tallies(&change);
            }
            if random.below(2) == 0
                && let Some(slot) = groups.live().get(random.below(9) as usize)
            {
                groups.free(*slot);
                marks.touch(*slot);
            }
            let mut saved = Tables::default();
            index.save_changed("keys", &["k"], &mut saved).unwrap();
            arranged.save_changed(|| index.live(), "left.rows", &mut saved).unwrap();
            // What is told whole may say slots, too.
            let first = index.live().first().copied();
            let told =
                first.map(|slot| (Arc::new(Int64Array::from(vec![i64::from(slot)])) as ArrayRef, slot));
            if let Some((column, _)) = &told {
                let message: ArrayRef = Arc::new(StringArray::from(vec!["failed"]));
                saved.put_columns("failed", vec![("_key", column.clone()), ("message", message)]).unwrap();
                saved.place_by_slots("failed", |slot| Some(slot as u32)).unwrap();
            }
            let run = marks.run();
            let (some, gone) = match run.is_whole() {
                true => (groups.live(), Vec::new()),
                false => groups.live_among(marks.touched(&run)),
            };
            let mut of_groups = values(&groups, &some);
            of_groups.put_slots(&run, &some, &gone, &["keys"]).unwrap();
            saved.put_part("0-Aggregate", of_groups);
            if !kept.take(&saved, &mut random) {
                continue;
            }
            let mut full = Tables::default();
            let slots = index.save("keys", &["k"], &mut full).unwrap();
            arranged.save(&slots, "left.rows", &mut full).unwrap();
            if told.is_some() {
                let zero: ArrayRef = Arc::new(Int64Array::from(vec![0]));
                let message: ArrayRef = Arc::new(StringArray::from(vec!["failed"]));
                full.put_columns("failed", vec![("_key", zero), ("message", message)]).unwrap();
            }
            full.put_part("0-Aggregate", values(&groups, &groups.live()));
            let loaded = kept.load();
            let without_tallies = |tables: &Tables| {
                let mut tables = tables.clone();
                let rows = tables.take("left.rows");
                (shown(&tables), rows)
            };
            let ((rest, found), (expected, rows)) = (without_tallies(&loaded), without_tallies(&full));
            assert_eq!(rest, expected, "seed {seed}, round {round}");
            assert_eq!(told_rows(&found), told_rows(&rows), "seed {seed}, round {round}");
        }
    }
}

/// Of each group its key, a number, and as many values as its slot's last digit says.
fn values(groups: &KeyIndex, slots: &[u32]) -> Tables {
    let mut kept = Tables::default();
    groups.save_some(slots, "keys", &["k"], &mut kept).unwrap();
    let numbers = slots.iter().map(|slot| i64::from(*slot) * 7).collect();
    kept.put_numbers("call0.groups", vec![("sum", numbers)]).unwrap();
    let places = (0u32..).zip(slots).flat_map(|(place, slot)| (0..slot % 10).map(move |_| place));
    let of: ArrayRef = Arc::new(UInt32Array::from_iter_values(places));
    let each =
        slots.iter().flat_map(|slot| (0..i64::from(*slot % 10)).map(move |n| n * 100 + i64::from(*slot)));
    let each: ArrayRef = Arc::new(Int64Array::from_iter_values(each));
    kept.put_columns("call1.values", vec![("_group", of), ("value", each)]).unwrap();
    kept
}

/// Rows with their key, copies and number, in their order.
fn told_rows(batches: &[RecordBatch]) -> Vec<(i64, i64, i64, i64)> {
    let mut all = Vec::new();
    for batch in batches {
        let column =
            |name: &str| batch.column_by_name(name).map(|column| column.as_primitive::<Int64Type>().clone());
        let (numbers, keys, weights) =
            (column("n").unwrap(), column("_key").unwrap(), column("_weight").unwrap());
        let tallies = column("_tally");
        for row in 0..batch.num_rows() {
            let tally = tallies.as_ref().map_or(0, |tallies| tallies.value(row));
            all.push((numbers.value(row), keys.value(row), weights.value(row), tally));
        }
    }
    all
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut slots = Tables::default();
    let run = SlotMarks::default().run();
    slots.put_numbers("groups", vec![("n", vec![1, 2])]).unwrap();
    let error = slots.put_slots(&run, &[4], &[], &["groups"]).unwrap_err().to_string();
    assert!(error.contains("table 'groups' has 2 rows for 1 slots"), "{error}");
    let mut kept = Tables::default();
    kept.put_numbers("groups", vec![("n", vec![1])]).unwrap();
    kept.put_slots(&run, &[4], &[], &["groups"]).unwrap();
    let mut runs = Runs::default();
    runs.put("groups", 1, kept.take("groups"));
    let error = runs.merge_into(&mut Tables::default()).unwrap_err().to_string();
    assert!(error.contains("nothing tells of the slots of table 'groups'"), "{error}");
}
