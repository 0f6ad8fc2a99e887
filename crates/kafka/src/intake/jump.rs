//! Continuing at another place: `ALTER SOURCE … SEEK`, and topics that begin anew.

use std::collections::BTreeMap;

use millstream_connect::{Error, Jump, Result};

use super::Intake;
use crate::consumer::{ANSWER, Bounds, Reader};
use crate::options::Start;
use crate::partition::Partition;

impl Intake {
    /// Makes partitions continue at another place. Returns their number.
    pub fn jump(&mut self, to: &Jump) -> Result<usize> {
        let Jump::To(place) = to else {
            return Err(Error::Invalid(
                "topics aren't read again by name: SEEK 'earliest' reads all records again".into(),
            ));
        };
        if self.settings.bounded {
            return Err(Error::Invalid("a bounded source ends where it ended at its start".into()));
        }
        let start = Start::parse(place, "the place")?;
        let reader = self.take_reader()?;
        let offsets = self.found(&reader, ANSWER).and_then(|found| {
            let offsets = self.places(&reader, &start, found.clone())?;
            self.take_ids(&reader, &offsets, &found).map(|()| offsets)
        });
        self.reader = Some(reader);
        let offsets = offsets?;
        self.offsets.forget_lost(&offsets);
        for (partition, offset) in &offsets {
            self.offsets.leave_split(partition, *offset);
            self.expected.forget(partition);
        }
        // A new consumer continues from the offsets that are kept here.
        self.disconnect();
        Ok(offsets.len())
    }

    /// Returns the offset of each partition that moves, of those that exist.
    fn places(
        &self,
        reader: &Reader,
        start: &Start,
        mut moved: Vec<Partition>,
    ) -> Result<BTreeMap<Partition, u64>> {
        if let Start::Offsets(given) = start {
            let names = |partition: &Partition| [partition.to_string(), partition.number.to_string()];
            let is_named = |name: &&String| moved.iter().any(|partition| names(partition).contains(name));
            if let Some(unknown) = given.keys().find(|name| !is_named(name)) {
                return Err(Error::Invalid(format!(
                    "the source has no partition '{unknown}': name it as topic/number"
                )));
            }
            moved.retain(|partition| start.offset_of(partition).is_some());
        }
        let bounds = reader.bounds(moved.iter())?;
        let outside = |(partition, (first, end)): (&Partition, &Bounds)| {
            let offset = start.offset_of(partition).filter(|offset| !(first..=end).contains(&offset))?;
            Some(Error::Invalid(format!(
                "{partition} has the offsets from {first} to {end}, and {offset} isn't among them"
            )))
        };
        match bounds.iter().find_map(outside) {
            Some(error) => Err(error),
            None => reader.first_offsets(&bounds, start),
        }
    }

    /// Takes in the present ids of the topics that move. Fails if only a part of the partitions of a topic that was created
    /// again moves.
    fn take_ids(
        &mut self,
        reader: &Reader,
        moved: &BTreeMap<Partition, u64>,
        found: &[Partition],
    ) -> Result<()> {
        let topics = moved.keys().map(|partition| partition.topic.as_str());
        let now = self.offsets.ids.present(reader, topics, ANSWER)?;
        let changed = self.offsets.ids.changed(&now);
        let stays = |partition: &&Partition| {
            changed.contains_key(&partition.topic)
                && !moved.contains_key(partition)
                && found.contains(partition)
        };
        if let Some(partition) = self.offsets.all().find(stays) {
            return Err(Error::Invalid(format!(
                "topic '{}' was created again, so all its partitions must move: give the offset of partition {}, too",
                partition.topic, partition.number
            )));
        }
        self.leave_vanished(reader, &changed, found)?;
        changed.iter().for_each(|(topic, id)| self.offsets.begin_anew(topic, id));
        Ok(())
    }
}
