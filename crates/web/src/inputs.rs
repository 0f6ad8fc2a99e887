//! The rows that the last epochs took in, by source and table.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_engine::{Batch, Listener};
use serde_json::{Map, Value};

use crate::history::SharedHistory;

/// Maximum number of epochs whose inputs are kept, as many as `millstream.epochs` has.
const EPOCHS_MAX: usize = 1000;

/// Maximum number of inputs of an epoch that are kept by name, the largest ones.
const INPUTS_MAX: usize = 20;

/// The name under which the rows of further inputs are added up.
const OTHERS: &str = "others";

/// The inputs of an epoch, and their rows.
type Inputs = Vec<(Arc<str>, u64)>;

/// The inputs of the last epochs, which a listener writes and readers share.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentInputs(Arc<Mutex<VecDeque<(u64, Inputs)>>>);

impl RecentInputs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Inputs)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, batch: &Batch) {
        let mut inputs = batch.inputs.clone();
        if inputs.len() > INPUTS_MAX {
            inputs.sort_by(|(name, rows), (other, more)| more.cmp(rows).then_with(|| name.cmp(other)));
            let rest = inputs.split_off(INPUTS_MAX - 1);
            inputs.push((OTHERS.into(), rest.iter().map(|(_, rows)| rows).sum()));
        }
        let mut recent = self.lock();
        if recent.len() == EPOCHS_MAX {
            recent.pop_front();
        }
        recent.push_back((batch.epoch.0, inputs));
    }

    /// Returns the inputs of an epoch as an object of numbers; `null` if they are not kept.
    pub(crate) fn json(&self, epoch: u64) -> Value {
        let recent = self.lock();
        let Ok(place) = recent.binary_search_by_key(&epoch, |(epoch, _)| *epoch) else { return Value::Null };
        let rows = |(name, rows): &(Arc<str>, u64)| (name.to_string(), Value::from(*rows));
        Value::Object(recent[place].1.iter().map(rows).collect::<Map<_, _>>())
    }
}

/// The listener of a page.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) history: SharedHistory,
    pub(crate) inputs: RecentInputs,
}

impl Listener for Watcher {
    fn batch_completed(&mut self, batch: &Batch) {
        self.history.batch_completed(batch);
        self.inputs.add(batch);
    }

    fn missed(&mut self, count: u64) {
        self.history.missed(count);
    }
}

#[cfg(test)]
mod tests {
    use millstream_delta::Epoch;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_epochs_are_kept_with_their_largest_inputs() {
        let recent = RecentInputs::default();
        let few =
            |epoch| Batch { epoch: Epoch(epoch), inputs: vec![("a".into(), epoch)], ..Batch::default() };
        (1..=1500).for_each(|epoch| recent.add(&few(epoch)));
        assert_eq!((recent.json(500), recent.json(501)), (Value::Null, json!({ "a": 501 })));
        let inputs = (0..100).map(|at| (format!("s{at}").into(), at)).collect();
        recent.add(&Batch { epoch: Epoch(1501), inputs, ..Batch::default() });
        let found = recent.json(1501);
        assert_eq!(found.as_object().map(Map::len), Some(INPUTS_MAX));
        assert_eq!((&found["s99"], &found["s81"]), (&json!(99), &json!(81)));
        assert_eq!(found[OTHERS], json!((0..=80).sum::<u64>()));
    }
}
