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
    /// beginning. After a number of jumps, the name ends with `#jumps`, so that no two splits have the same.
    pub fn split(&self, start: u64, jumps: u32) -> Arc<str> {
        match (start, jumps) {
            (0, 0) => self.to_string().into(),
            (start, 0) => format!("{self}@{start}").into(),
            (start, jumps) => format!("{self}@{start}#{jumps}").into(),
        }
    }
}

/// The parts of a split's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub partition: Partition,
    /// The offset at which it begins.
    pub start: u64,
    pub jumps: u32,
}

impl Split {
    pub fn parse(split: &str) -> Result<Split> {
        let parse = || {
            let (topic, rest) = split.rsplit_once('/')?;
            let (number, start) = rest.split_once('@').unwrap_or((rest, "0"));
            let (start, jumps) = start.split_once('#').unwrap_or((start, "0"));
            let partition = Partition { topic: topic.into(), number: number.parse().ok()? };
            Some(Split { partition, start: start.parse().ok()?, jumps: jumps.parse().ok()? })
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
    fn a_split_is_a_topic_a_number_a_start_and_a_number_of_jumps() {
        let partition = Partition { topic: "a.b-c".into(), number: 12 };
        for (start, jumps, name) in
            [(0, 0, "a.b-c/12"), (42, 0, "a.b-c/12@42"), (42, 2, "a.b-c/12@42#2"), (0, 1, "a.b-c/12@0#1")]
        {
            assert_eq!(partition.split(start, jumps).as_ref(), name);
            assert_eq!(Split::parse(name).unwrap(), Split { partition: partition.clone(), start, jumps });
        }
        assert!(Split::parse("a.b-c").is_err());
    }
}
