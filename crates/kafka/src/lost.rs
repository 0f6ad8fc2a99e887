//! Offsets that a partition no longer has: retention has removed the records, the log was cut, or the topic was created
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_connect::{BadRow, Error, Result};
use serde_json::{Map, Value};

use crate::consumer::{Bounds, Reader};
use crate::partition::Partition;

/// The relation of a topic to the one of the same name that was read, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Same,
    /// Another topic of the same name has taken its place.
    Other,
    /// At least one of them has no id.
    Unknown,
}

/// Offsets that are next in a partition which doesn't have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub partition: Partition,
    pub wanted: u64,
    pub bounds: Bounds,
    pub topic: Identity,
}

impl Identity {
    /// Returns the relation of each topic, if those that are known to be the same are these.
    pub fn by(same: &BTreeSet<String>) -> impl Fn(&str) -> Identity {
        |topic| if same.contains(topic) { Identity::Same } else { Identity::Unknown }
    }
}

impl Lost {
    /// Returns the offset that a partition lacks. `None` if it has the offset.
    pub fn of(partition: &Partition, bounds: Bounds, wanted: u64, topic: Identity) -> Option<Lost> {
        let is_lost = topic == Identity::Other || !(bounds.0..=bounds.1).contains(&wanted);
        is_lost.then(|| Lost { partition: partition.clone(), wanted, bounds, topic })
    }

    /// Returns the wanted offsets that the broker no longer, or not yet, has.
    pub fn among(
        reader: &Reader,
        wanted: &BTreeMap<Partition, u64>,
        identity: impl Fn(&str) -> Identity,
    ) -> Result<Vec<Lost>> {
        let bounds = reader.bounds(wanted.keys())?;
        let lost = |(partition, wanted): (&Partition, &u64)| {
            let bounds = bounds.get(partition)?;
            Lost::of(partition, *bounds, *wanted, identity(&partition.topic))
        };
        Ok(wanted.iter().filter_map(lost).collect())
    }

    /// Returns true if the partition's records begin after the wanted one.
    pub fn is_removed(&self) -> bool {
        self.wanted < self.bounds.0 && self.topic != Identity::Other
    }

    /// Returns true if the partition has lost its newest records, as an unclean election of a leader loses them.
    fn is_cut(&self) -> bool {
        self.wanted > self.bounds.1 && self.topic == Identity::Same
    }

    /// Returns the offset of the first record that was not read before, as far as that is known.
    pub fn continues_at(&self) -> u64 {
        // The records before the end of a log that was cut are those that were read.
        if self.is_cut() { self.bounds.1 } else { self.bounds.0 }
    }

    /// Returns the wanted offset, the offsets that are there, and the reason.
    pub fn reason(&self) -> String {
        let (Partition { topic, number }, (first, end)) = (&self.partition, self.bounds);
        if self.topic == Identity::Other {
            return format!(
                "topic '{topic}' was deleted and created again: offset {}, which is next in partition {number}, is not the \
                 next record there; the partition has the offsets from {first} to {end}",
                self.wanted
            );
        }
        let why = match (self.is_removed(), self.is_cut()) {
            (true, _) => "the topic's retention has removed records that the source still needs",
            (_, true) => {
                "the partition has lost its newest records, as after an unclean election of its leader"
            }
            _ => "the topic was created again, or lost records",
        };
        format!(
            "partition {number} of topic '{topic}' has the offsets from {first} to {end}, but {} is next: {why}",
            self.wanted
        )
    }

    /// Returns the bad row that says which records of a split were lost.
    pub fn bad_row(&self, split: Arc<str>) -> BadRow {
        BadRow { split, offset: self.wanted, reason: self.reason(), bytes: Vec::new() }
    }
}

/// Returns the error for lost offsets of a running source, with the statement that continues after them.
pub(crate) fn cannot_continue(source: &str, lost: &[Lost]) -> Error {
    let offset = |lost: &Lost| (lost.partition.to_string(), Value::from(lost.continues_at()));
    let offsets: Map<String, Value> = lost.iter().map(offset).collect();
    let (reason, others) = (lost.first().map(Lost::reason).unwrap_or_default(), lost.len().saturating_sub(1));
    let others =
        if others > 0 { format!(", and {others} other partitions lack theirs") } else { String::new() };
    Error::Invalid(format!(
        "{reason}{others}. To continue with the records that are there: ALTER SOURCE {} SEEK '{}'",
        quoted(source),
        Value::Object(offsets)
    ))
}

/// Returns the error for lost offsets of a span that is read again.
pub(crate) fn cannot_replay(lost: &Lost) -> Error {
    Error::Invalid(format!(
        "{}. A start or a new query reads the former records again. To go on without them, set on_data_loss = 'skip' in the \
         source, or start with --skip-lost-records",
        lost.reason()
    ))
}

/// Returns a name as SQL takes it.
fn quoted(name: &str) -> String {
    let is_simple = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    match name.chars().all(is_simple) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_statement_that_continues() {
        let partition = |number| Partition { topic: "t".into(), number };
        let of = |number, bounds, wanted| Lost::of(&partition(number), bounds, wanted, Identity::Unknown);
        assert_eq!(of(0, (3, 9), 3), None);
        assert_eq!(of(0, (3, 9), 9), None);
        let lost = [of(0, (3, 9), 2).unwrap(), of(1, (0, 4), 5).unwrap()];
        assert!(lost[0].is_removed() && !lost[1].is_removed());
        let error = cannot_continue("My source", &lost).to_string();
        assert!(error.ends_with("ALTER SOURCE \"My source\" SEEK '{\"t/0\":3,\"t/1\":0}'"), "{error}");
        assert!(error.contains("from 3 to 9, but 2 is next"), "{error}");
        assert!(lost[1].reason().contains("created again"), "{}", lost[1].reason());
        let other = Lost { topic: Identity::Other, ..of(0, (3, 9), 2).unwrap() };
        assert!(!other.is_removed() && other.reason().contains("deleted and created again"));
    }

    #[test]
    fn a_log_that_was_cut_continues_at_its_end() {
        let of = |topic, wanted| Lost::of(&Partition { topic: "t".into(), number: 0 }, (3, 9), wanted, topic);
        let cut = of(Identity::Same, 20).unwrap();
        assert_eq!((cut.continues_at(), cut.is_removed()), (9, false));
        assert!(cut.reason().contains("unclean election"), "{}", cut.reason());
        let error = cannot_continue("s", &[cut]).to_string();
        assert!(error.ends_with("ALTER SOURCE s SEEK '{\"t/0\":9}'"), "{error}");
        // It may be another topic.
        assert_eq!(of(Identity::Unknown, 20).unwrap().continues_at(), 3);
        assert_eq!(of(Identity::Other, 20).unwrap().continues_at(), 3);
        // Records that were removed come first, whichever topic it is.
        assert_eq!(of(Identity::Same, 2).unwrap().continues_at(), 3);
        assert_eq!(of(Identity::Other, 5).unwrap().continues_at(), 3);
        assert_eq!(of(Identity::Same, 9), None);
    }
}
