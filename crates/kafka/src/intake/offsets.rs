//! The offsets of a source: where each partition is read next, in which split, and the news of it for the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_connect::BadRow;
use millstream_delta::Span;

use crate::lost::Lost;
use crate::partition::{Partition, Split};
use crate::topic_ids::TopicIds;

/// The offsets of the partitions of a source.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// The split of each known partition.
    splits: BTreeMap<Partition, Arc<str>>,
    /// The next offset of each partition that is read.
    pub next: BTreeMap<Partition, u64>,
    /// The offsets that the engine has from before.
    pub after: BTreeMap<Partition, u64>,
    /// How often a partition has got another split.
    jumps: BTreeMap<Partition, u32>,
    pub ids: TopicIds,
    /// Partitions whose topic is gone, with their next offsets.
    gone: BTreeMap<Partition, u64>,
    /// Partitions whose first offset the engine doesn't know yet.
    fresh: BTreeSet<Partition>,
    /// Splits that are read no longer, which the engine doesn't know yet.
    left: Vec<Span>,
    /// Offsets that are passed over, since the records are gone, which the engine doesn't know yet.
    lost: Vec<(Arc<str>, Lost)>,
}

impl Offsets {
    /// Takes in a split of the engine's position. Returns false if a later split of its partition is known.
    pub fn restore(&mut self, Split { partition, jumps, .. }: &Split, name: Arc<str>) -> bool {
        if self.jumps.get(partition).is_some_and(|other| other > jumps) {
            return false;
        }
        self.jumps.insert(partition.clone(), *jumps);
        self.splits.insert(partition.clone(), name);
        self.after.remove(partition);
        self.gone.remove(partition);
        true
    }

    /// Takes in the end of a split of the engine's position.
    pub fn restore_end(&mut self, partition: Partition, jumps: u32, at: u64) {
        // A partition may be one that a topic no longer had when it was created again.
        if jumps >= self.ids.jumps(&partition.topic) {
            self.gone.insert(partition, at);
        }
    }

    /// Returns the present split of a partition.
    pub fn split(&self, partition: &Partition) -> Arc<str> {
        self.splits.get(partition).cloned().unwrap_or_else(|| partition.split(0, 0))
    }

    /// Returns true if a split is the present one of a partition.
    pub fn is_present(&self, partition: &Partition, split: &Arc<str>) -> bool {
        self.splits.get(partition) == Some(split)
    }

    /// Returns the next offset of a partition that is read.
    pub fn next_of(&self, partition: &Partition) -> u64 {
        self.next.get(partition).copied().unwrap_or_default()
    }

    /// Returns the next offset of a partition that is read, or was.
    pub fn known(&self, partition: &Partition) -> Option<u64> {
        self.next.get(partition).or(self.after.get(partition)).copied()
    }

    /// Returns the partitions that are read, or were.
    pub fn all(&self) -> impl Iterator<Item = &Partition> {
        self.next.keys().chain(self.after.keys())
    }

    /// Makes a new consumer continue everywhere.
    pub fn stop_reading(&mut self) {
        self.after.append(&mut self.next);
    }

    /// Makes the next look continue a partition.
    pub fn stop_reading_of(&mut self, partition: Partition) {
        if let Some(from) = self.next.remove(&partition) {
            self.after.insert(partition, from);
        }
    }

    /// Notes how far a partition was read.
    pub fn advance(&mut self, partition: Partition, to: u64) {
        self.fresh.remove(&partition);
        self.next.insert(partition, to);
    }

    /// Adds a partition that wasn't known, from an offset on.
    pub fn add(&mut self, partition: Partition, from: u64) {
        let jumps = self.jumps.get(&partition).copied().unwrap_or_default();
        let jumps = jumps.max(self.ids.jumps(&partition.topic));
        self.splits.insert(partition.clone(), partition.split(from, jumps));
        self.jumps.insert(partition.clone(), jumps);
        self.fresh.insert(partition);
    }

    /// Forgets a partition. Returns its next offset, if it was known.
    pub fn forget(&mut self, partition: &Partition) -> Option<u64> {
        let after = self.after.remove(partition);
        self.next.remove(partition).or(after)
    }

    /// Tells the engine of a split without rows, such as an ended one.
    pub fn tell(&mut self, span: Span) {
        self.left.push(span);
    }

    /// Ends the split of a partition that was forgotten at an offset, unless the engine has never heard of it.
    pub fn end(&mut self, partition: &Partition, at: u64) {
        if !self.fresh.remove(partition) {
            self.left.push(Span { split: self.split(partition), from: at, to: at, done: true });
        }
    }

    /// The same for a partition whose topic is gone and may be found again.
    pub fn end_for_now(&mut self, partition: Partition, at: u64) {
        self.left.push(Span { split: self.split(&partition), from: at, to: at, done: true });
        self.gone.insert(partition, at);
    }

    /// Continues partitions whose topic seemed to be gone.
    pub fn take_back(&mut self, found: &[Partition]) {
        for partition in found {
            if let Some(at) = self.gone.remove(partition) {
                self.leave_split(partition, at);
                self.next.remove(partition);
                self.after.insert(partition.clone(), at);
            }
        }
    }

    /// Notes another id of a topic. Its partitions go on in other splits.
    pub fn begin_anew(&mut self, topic: &str, id: &str) {
        let of_topic = |partition: &&Partition| partition.topic == topic;
        let known: Vec<Partition> = self.splits.keys().filter(of_topic).cloned().collect();
        let jumps = known.iter().filter_map(|partition| self.jumps.get(partition)).max().copied();
        let jumps = jumps.unwrap_or_default();
        let span = self.ids.set(topic, jumps.saturating_add(1), id);
        self.left.push(span);
        for partition in known {
            self.gone.remove(&partition);
            self.jumps.insert(partition, jumps);
        }
    }

    /// Notes the first known id of a topic.
    pub fn set_id(&mut self, topic: &str, id: &str) {
        let span = self.ids.set(topic, 0, id);
        self.left.push(span);
    }

    /// Ends the split of a partition; its records from an offset on belong to another one.
    pub fn leave_split(&mut self, partition: &Partition, offset: u64) {
        let next = self.next.insert(partition.clone(), offset);
        let at = next.or_else(|| self.after.get(partition).copied());
        if let (Some(split), Some(at)) = (self.splits.get(partition), at)
            && !self.fresh.contains(partition)
        {
            self.left.push(Span { split: split.clone(), from: at, to: at, done: true });
        }
        let jumps = self.jumps.entry(partition.clone()).or_default();
        *jumps += 1;
        self.splits.insert(partition.clone(), partition.split(offset, *jumps));
        self.fresh.insert(partition.clone());
    }

    /// Passes over lost records. If the topic begins anew, its partition goes on in another split.
    pub fn leave_lost(&mut self, lost: Lost) {
        let split = self.split(&lost.partition);
        if !lost.is_removed() {
            self.leave_split(&lost.partition, lost.continues_at());
        }
        self.lost.retain(|(_, other)| other.partition != lost.partition);
        self.lost.push((split, lost));
    }

    /// Returns the lost records that retention has removed.
    pub fn removed(&self) -> impl Iterator<Item = &Lost> {
        self.lost.iter().map(|(_, lost)| lost).filter(|lost| lost.is_removed())
    }

    /// Forgets the lost records of partitions that continue elsewhere.
    pub fn forget_lost(&mut self, moved: &BTreeMap<Partition, u64>) {
        self.lost.retain(|(_, lost)| !moved.contains_key(&lost.partition));
    }

    /// Returns the splits that have ended, and the bad rows that say which records were lost: what the engine doesn't know.
    pub fn news(&mut self) -> (Vec<Span>, Vec<BadRow>) {
        let lost = std::mem::take(&mut self.lost).into_iter().map(|(split, lost)| lost.bad_row(split));
        (std::mem::take(&mut self.left), lost.collect())
    }

    /// Returns spans without rows of the partitions whose beginning the engine doesn't know: a start that is not the
    /// beginning must survive, or records would be left out after a restart.
    pub fn beginnings(&mut self) -> Vec<Span> {
        let fresh = std::mem::take(&mut self.fresh);
        let span = |partition: &Partition| {
            let at = self.next_of(partition);
            Span { split: self.split(partition), from: at, to: at, done: false }
        };
        fresh.iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lost::Identity;

    fn partition(number: i32) -> Partition {
        Partition { topic: "t".into(), number }
    }

    fn named(spans: &[Span]) -> Vec<String> {
        spans.iter().map(|span| format!("{} {}..{} {}", span.split, span.from, span.to, span.done)).collect()
    }

    /// Returns the offsets of a source that reads two partitions, as the engine knows them.
    fn reading() -> Offsets {
        let mut offsets = Offsets::default();
        for (number, from) in [(0, 0), (1, 7)] {
            offsets.add(partition(number), from);
            offsets.next.insert(partition(number), from);
        }
        assert_eq!(named(&offsets.beginnings()), ["t/0 0..0 false", "t/1@7 7..7 false"]);
        assert!(offsets.beginnings().is_empty());
        offsets
    }

    #[test]
    fn a_partition_that_jumps_ends_a_split_and_begins_another() {
        let mut offsets = reading();
        offsets.advance(partition(0), 5);
        offsets.leave_split(&partition(0), 2);
        assert_eq!(named(&offsets.news().0), ["t/0 5..5 true"]);
        assert_eq!(named(&offsets.beginnings()), ["t/0@2#1 2..2 false"]);
        assert!(offsets.is_present(&partition(0), &"t/0@2#1".into()));
        // The engine has never heard of a split that is left at once.
        offsets.leave_split(&partition(0), 3);
        offsets.leave_split(&partition(0), 4);
        assert_eq!(named(&offsets.news().0), ["t/0@2#1 2..2 true"]);
        assert_eq!(named(&offsets.beginnings()), ["t/0@4#3 4..4 false"]);
    }

    #[test]
    fn a_position_restores_the_latest_split_of_each_partition() {
        let mut offsets = Offsets::default();
        for (name, is_latest) in [("t/0@2#1", true), ("t/0", false), ("t/0@9#4", true)] {
            let split = Split::parse(name).unwrap();
            assert_eq!(offsets.restore(&split, name.into()), is_latest, "{name}");
        }
        offsets.after.insert(partition(0), 11);
        assert_eq!((offsets.known(&partition(0)), offsets.next_of(&partition(0))), (Some(11), 0));
        assert_eq!(offsets.split(&partition(0)).as_ref(), "t/0@9#4");
    }

    #[test]
    fn a_topic_that_is_gone_and_found_again_continues_in_another_split() {
        let mut offsets = reading();
        let at = offsets.forget(&partition(1)).unwrap();
        offsets.end_for_now(partition(1), at);
        assert_eq!(named(&offsets.news().0), ["t/1@7 7..7 true"]);
        assert_eq!(offsets.all().collect::<Vec<_>>(), [&partition(0)]);
        offsets.take_back(&[partition(0), partition(1)]);
        assert_eq!(
            (offsets.known(&partition(1)), offsets.split(&partition(1)).as_ref()),
            (Some(7), "t/1@7#1")
        );
        assert!(offsets.news().0.is_empty());
    }

    #[test]
    fn another_id_of_a_topic_begins_anew() {
        let mut offsets = reading();
        offsets.set_id("t", "one");
        offsets.leave_split(&partition(0), 3);
        offsets.news();
        offsets.begin_anew("t", "two");
        assert_eq!(named(&offsets.news().0), ["t#two 2..3 true"]);
        offsets.forget(&partition(1));
        offsets.add(partition(1), 0);
        assert_eq!(offsets.split(&partition(1)).as_ref(), "t/1@0#2");
    }

    #[test]
    fn lost_records_are_told_once() {
        let mut offsets = reading();
        let lost = |wanted, bounds, topic| Lost { partition: partition(0), wanted, bounds, topic };
        offsets.leave_lost(lost(0, (4, 9), Identity::Same));
        assert_eq!(offsets.removed().count(), 1);
        offsets.leave_lost(lost(4, (6, 9), Identity::Same));
        let (left, bad_rows) = offsets.news();
        assert_eq!((left.len(), bad_rows.len()), (0, 1));
        // Another topic of the same name has the offsets from its beginning.
        offsets.leave_lost(lost(6, (0, 2), Identity::Other));
        assert_eq!(offsets.removed().count(), 0);
        let (left, bad_rows) = offsets.news();
        assert_eq!((named(&left), bad_rows.len()), (vec!["t/0 0..0 true".to_string()], 1));
        offsets.leave_lost(lost(4, (6, 9), Identity::Same));
        offsets.forget_lost(&BTreeMap::from([(partition(0), 8)]));
        assert!(offsets.news().1.is_empty());
    }
}
