//! Readers build the tables of a checkpoint after later changes: the tables hold the state of the save.

use super::*;
use crate::{Files, Spillable, Spilling};

/// Rows with and without a key, some of them spilled.
struct Stores {
    keyed: Keyed,
    multiset: Rows,
    /// The keys of the rows of both.
    there: BTreeSet<i64>,
    /// The rows that were put last into the multiset, by their keys.
    put: BTreeMap<i64, RecordBatch>,
}

/// Returns the rows with these keys that a round puts.
fn versions(keys: &[i64], round: i64) -> RecordBatch {
    let texts = StringArray::from_iter_values(keys.iter().map(|key| format!("row {key} of {round}")));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys.to_vec())), Arc::new(texts)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

impl Stores {
    fn new() -> Stores {
        let (keyed, multiset) = (Keyed::new(schema(), vec![0]).unwrap(), Rows::new(schema()));
        Stores { keyed, multiset, there: BTreeSet::new(), put: BTreeMap::new() }
    }

    /// Inserts, updates and deletes rows.
    fn change(&mut self, random: &mut Random, round: i64) {
        let keys: Vec<i64> = (0..random.below(12)).map(|_| random.below(60) as i64).collect();
        let (kept, gone): (Vec<i64>, Vec<i64>) = keys.into_iter().partition(|_| random.below(3) > 0);
        let put: Vec<i64> = kept.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let gone: BTreeSet<i64> = gone.into_iter().filter(|key| self.there.contains(key)).collect();
        let gone: Vec<i64> = gone.into_iter().filter(|key| !put.contains(key)).collect();
        self.keyed.upsert(&versions(&put, round), Conflict::Replace).unwrap();
        self.keyed.delete(&versions(&gone, round)).unwrap();
        let mut delta = Delta::default();
        for key in put.iter().chain(&gone) {
            if let Some(rows) = self.put.remove(key) {
                delta.push(Chunk { rows, weights: Some(vec![-1].into()) });
            }
        }
        for key in &put {
            let rows = versions(&[*key], round);
            self.put.insert(*key, rows.clone());
            delta.push(Chunk { rows, weights: None });
        }
        self.multiset.apply(&delta).unwrap();
        gone.iter().for_each(|key| _ = self.there.remove(key));
        self.there.extend(put);
    }

    fn spill(&mut self, files: &Files) {
        let mut spilling = Spilling::new(files, usize::MAX);
        for _ in 0..2 {
            self.keyed.spill(&mut spilling);
            self.multiset.spill(&mut spilling);
            spilling.take_pages();
        }
        assert!(spilling.end().is_none());
    }

    fn saved(&self) -> Tables {
        let mut saved = Tables::default();
        self.keyed.save_changed("keyed", &mut saved).unwrap();
        self.multiset.save_changed("multiset", &mut saved).unwrap();
        saved
    }

    /// Returns the complete state.
    fn full(&self) -> Tables {
        let mut full = Tables::default();
        full.put_delta("keyed", &self.keyed.snapshot().delta().unwrap()).unwrap();
        full.put_delta("multiset", &self.multiset.snapshot().delta().unwrap()).unwrap();
        full
    }
}

/// Inserts, updates, deletes and spilling between a save and the build of its tables leave these unchanged.
/// Failed checkpoints lose no changes.
#[test]
fn later_changes_of_rows_are_of_the_next_checkpoint() {
    for seed in first_seeds(6, 0..20) {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::below(directory.path().join("spill"));
        let (mut random, mut stores, mut kept) = (Random(seed), Stores::new(), Kept::default());
        let (mut pending, mut built) = (None, 0);
        for round in 0..80 {
            stores.change(&mut random, round);
            if random.below(4) == 0 {
                stores.spill(&files);
            }
            match pending.take() {
                None => pending = Some((stores.saved(), shown(&stores.full()))),
                // The state changes several times before the build.
                Some(saved) if random.below(2) == 0 => pending = Some(saved),
                Some((saved, full)) => {
                    if kept.take(&saved, &mut random) {
                        assert_eq!(shown(&kept.load()), full, "seed {seed}, round {round}");
                        built += 1;
                    }
                }
            }
        }
        assert!(built > 10, "seed {seed}: {built}");
    }
}

/// The same holds for keys, rows by key and state by key.
#[test]
fn later_changes_by_key_are_of_the_next_checkpoint() {
    for seed in first_seeds(6, 0..20) {
        let (mut random, mut by_key, mut kept) = (Random(seed), ByKey::new(), Kept::default());
        let mut pending: Option<(Tables, Tables)> = None;
        for round in 0..80 {
            by_key.change(&mut random, round);
            match pending.take() {
                None => pending = Some((by_key.saved(), by_key.full())),
                Some(saved) if random.below(2) == 0 => pending = Some(saved),
                Some((saved, mut expected)) if kept.take(&saved, &mut random) => {
                    let mut found = kept.load();
                    let rows = [&mut found, &mut expected]
                        .map(|tables| told_rows(&tables.take("left.rows").unwrap()));
                    assert_eq!(rows[0], rows[1], "seed {seed}, round {round}");
                    assert_eq!(shown(&found), shown(&expected), "seed {seed}, round {round}");
                }
                Some(_) => {}
            }
        }
    }
}

/// Each build of a table returns the same batches.
#[test]
fn every_reader_gets_the_same_rows() {
    let (mut random, mut stores) = (Random(3), Stores::new());
    stores.change(&mut random, 0);
    let (saved, full) = (stores.saved(), shown(&stores.full()));
    let first = shown(&saved);
    (1..20).for_each(|round| stores.change(&mut random, round));
    assert_eq!(shown(&saved), first);
    let mut copy = saved.clone();
    assert_eq!(copy.take("keyed").unwrap(), saved.clone().take("keyed").unwrap());
    let mut kept = Kept::default();
    while !kept.take(&saved, &mut random) {}
    assert_eq!(shown(&kept.load()), full);
}
