//! Partitions as splits.

use std::fmt;
use std::sync::Arc;

use millstream_connect::{Error, Result};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Partition {
    pub topic: String,
    pub number: i32,
}

impl Partition {
    /// Returns the name of the split that is this partition from an offset on: `topic/number`, or
    /// `topic/number@offset`. The engine's position has no beginning, and a new view reads the split again from its
    /// beginning.
    pub fn split(&self, start: u64) -> Arc<str> {
        match start {
            0 => self.to_string().into(),
            start => format!("{self}@{start}").into(),
        }
    }

    /// Returns the partition of a split, and the offset at which the split begins.
    pub fn of_split(split: &str) -> Result<(Partition, u64)> {
        let parse = || {
            let (topic, rest) = split.rsplit_once('/')?;
            let (number, start) = rest.split_once('@').unwrap_or((rest, "0"));
            let partition = Partition { topic: topic.into(), number: number.parse().ok()? };
            Some((partition, start.parse().ok()?))
        };
        parse()
            .ok_or_else(|| Error::Bug(format!("split '{split}' is no partition: topic/number was expected")))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_a_topic_a_number_and_a_start() {
        let partition = Partition { topic: "a.b-c".into(), number: 12 };
        for (start, name) in [(0, "a.b-c/12"), (42, "a.b-c/12@42")] {
            assert_eq!(partition.split(start).as_ref(), name);
            assert_eq!(Partition::of_split(name).unwrap(), (partition.clone(), start));
        }
        assert!(Partition::of_split("a.b-c").is_err());
    }
}
