//! Offsets that a partition no longer has: retention has removed the records, or the topic was created again.

use std::collections::BTreeMap;

use millstream_connect::{Error, Result};
use serde_json::{Map, Value};

use crate::consumer::{Bounds, Reader};
use crate::options::Settings;
use crate::partition::Partition;

/// Offsets that are next in a partition which doesn't have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub partition: Partition,
    pub wanted: u64,
    pub bounds: Bounds,
    /// True if another topic of the same name has taken the place of the one that was read.
    pub is_other_topic: bool,
}

impl Lost {
    /// Returns the offset that a partition lacks. `None` if it has the offset.
    pub fn of(partition: &Partition, bounds: Bounds, wanted: u64) -> Option<Lost> {
        let is_lost = !(bounds.0..=bounds.1).contains(&wanted);
        is_lost.then(|| Lost { partition: partition.clone(), wanted, bounds, is_other_topic: false })
    }

    /// Returns the wanted offsets that the broker no longer, or not yet, has.
    pub fn among(reader: &Reader, wanted: &BTreeMap<Partition, u64>) -> Result<Vec<Lost>> {
        let bounds = reader.bounds(wanted.keys())?;
        let lost = |(partition, wanted): (&Partition, &u64)| {
            bounds.get(partition).and_then(|bounds| Lost::of(partition, *bounds, *wanted))
        };
        Ok(wanted.iter().filter_map(lost).collect())
    }

    /// Returns true if the partition's records begin after the wanted one.
    pub fn is_removed(&self) -> bool {
        self.wanted < self.bounds.0 && !self.is_other_topic
    }

    /// Returns the wanted offset, the offsets that are there, and the reason.
    pub fn reason(&self) -> String {
        let (Partition { topic, number }, (first, end)) = (&self.partition, self.bounds);
        if self.is_other_topic {
            return format!(
                "topic '{topic}' was deleted and created again: offset {}, which is next in partition {number}, is not the \
                 next record there; the partition has the offsets from {first} to {end}",
                self.wanted
            );
        }
        let why = match self.is_removed() {
            true => "the topic's retention has removed records that the source still needs",
            false => "the topic was created again, or lost records",
        };
        format!(
            "partition {number} of topic '{topic}' has the offsets from {first} to {end}, but {} is next: {why}",
            self.wanted
        )
    }
}

/// Returns the error for lost offsets of a running source, with the statement that continues after them.
pub(crate) fn cannot_continue(settings: &Settings, lost: &[Lost]) -> Error {
    let offset = |lost: &Lost| (lost.partition.to_string(), Value::from(lost.bounds.0));
    let offsets: Map<String, Value> = lost.iter().map(offset).collect();
    let (reason, others) = (lost.first().map(Lost::reason).unwrap_or_default(), lost.len().saturating_sub(1));
    let others =
        if others > 0 { format!(", and {others} other partitions lack theirs") } else { String::new() };
    Error::Invalid(format!(
        "{reason}{others}. To continue with the records that are there: ALTER SOURCE {} SEEK '{}'",
        quoted(&settings.source),
        Value::Object(offsets)
    ))
}

/// The ways to go on without records that are read again.
pub(crate) const WITHOUT: &str =
    "To go on without them, set on_data_loss = 'skip' in the source, or start with --skip-lost-records";

/// Returns the error for lost offsets of a span that is read again.
pub(crate) fn cannot_replay(lost: &Lost) -> Error {
    let reason = lost.reason();
    Error::Invalid(format!("{reason}. They are read again for a start or for a new query. {WITHOUT}"))
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
        let settings = Settings::sample("My source");
        let partition = |number| Partition { topic: "t".into(), number };
        let of = |number, bounds, wanted| Lost::of(&partition(number), bounds, wanted);
        assert_eq!(of(0, (3, 9), 3), None);
        assert_eq!(of(0, (3, 9), 9), None);
        let lost = [of(0, (3, 9), 2).unwrap(), of(1, (0, 4), 5).unwrap()];
        assert!(lost[0].is_removed() && !lost[1].is_removed());
        let error = cannot_continue(&settings, &lost).to_string();
        assert!(error.ends_with("ALTER SOURCE \"My source\" SEEK '{\"t/0\":3,\"t/1\":0}'"), "{error}");
        assert!(error.contains("from 3 to 9, but 2 is next"), "{error}");
        assert!(lost[1].reason().contains("created again"), "{}", lost[1].reason());
        let other = Lost { is_other_topic: true, ..of(0, (3, 9), 2).unwrap() };
        assert!(!other.is_removed() && other.reason().contains("deleted and created again"));
    }
}
