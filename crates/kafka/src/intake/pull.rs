//! The records of one pull, by partition.

use std::collections::BTreeMap;

use millstream_connect::{Limit, Result};

use super::Intake;
use crate::partition::Partition;
use crate::rows::{Columns, Gathered, Piece};

/// The records of one pull.
pub(super) struct Pull {
    pub gathered: Vec<Gathered>,
    /// The place of each partition in `gathered`.
    places: BTreeMap<Partition, usize>,
    /// The place of the last record: the next one is mostly of the same partition.
    last: usize,
    left: Limit,
    /// Partitions of a bounded source whose end was reached.
    pub ended: Vec<Partition>,
}

/// The decoded records of a partition.
pub(super) struct Decoded {
    pub partition: Partition,
    /// The time of the last record, in microseconds since 1970.
    pub newest: Option<i64>,
    pub piece: Piece,
}

impl Pull {
    pub fn new(left: Limit) -> Pull {
        Pull { gathered: Vec::new(), places: BTreeMap::new(), last: 0, left, ended: Vec::new() }
    }

    pub fn is_full(&self) -> bool {
        self.left.rows == 0 || self.left.bytes == 0
    }

    /// Counts a record.
    pub fn took(&mut self, bytes: usize) {
        self.left.rows -= 1;
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
    }

    /// Decodes the records. Fails if the schemas of some can't be fetched for now.
    pub fn decode(&mut self, columns: &Columns) -> Result<Vec<Decoded>> {
        self.gathered.iter_mut().try_for_each(|gathered| gathered.prepare(columns))?;
        let decode = |gathered: Gathered| {
            let (partition, newest) = (gathered.partition().clone(), gathered.newest());
            Ok(Decoded { partition, newest, piece: gathered.finish(columns)? })
        };
        std::mem::take(&mut self.gathered).into_iter().map(decode).collect()
    }
}

impl Intake {
    /// Returns the records of a partition in a pull.
    pub(super) fn gathered<'p>(&self, pull: &'p mut Pull, topic: &str, number: i32) -> &'p mut Gathered {
        let is_it = |gathered: &Gathered| {
            let partition = gathered.partition();
            partition.number == number && partition.topic == topic
        };
        if !pull.gathered.get(pull.last).is_some_and(is_it) {
            let partition = Partition { topic: topic.into(), number };
            pull.last = match pull.places.get(&partition) {
                Some(place) => *place,
                None => {
                    let from = self.offsets.next_of(&partition);
                    let split = self.offsets.split(&partition);
                    pull.places.insert(partition.clone(), pull.gathered.len());
                    pull.gathered.push(Gathered::new(&self.columns, partition, split, from));
                    pull.gathered.len() - 1
                }
            };
        }
        &mut pull.gathered[pull.last]
    }
}
