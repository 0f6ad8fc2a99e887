//! Finding partitions: at the start of a source, and then from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_connect::{BadRow, Error, Result};
use millstream_delta::Span;

use super::Intake;
use super::pull::Pull;
use crate::consumer::{ANSWER, Bounds, Reader};
use crate::lost::{Lost, cannot_continue};
use crate::options::Start;
use crate::partition::Partition;
use crate::topic_ids::topic_ids;
use crate::topics::Topics;

/// How long a later look for partitions may take: records wait meanwhile.
const LATER_ANSWER: Duration = Duration::from_secs(1);

/// Most partitions of a bounded source that are read at a time. Each has a queue with a bound of its own.
const QUEUES_MAX: usize = 16;

impl Intake {
    /// Finds the partitions, at the start and then from time to time, and begins to read new ones.
    pub(super) fn discover(&mut self) -> Result<()> {
        let is_due = self.discovered.is_none_or(|at| at.elapsed() >= self.settings.discovery);
        if !is_due || (self.settings.bounded && self.discovered.is_some()) {
            return Ok(());
        }
        let reader = self.take_reader()?;
        let found = self.discover_with(&reader);
        self.reader = Some(reader);
        // A broker that doesn't answer later is no reason to stop reading.
        match found {
            Err(error @ Error::External(_)) if self.discovered.is_some() => {
                tracing::warn!(%error, "no new partitions can be found");
            }
            other => other?,
        }
        self.discovered = Some(Instant::now());
        self.open_waiting()
    }

    /// Takes the consumer out; creates one if there is none.
    pub(super) fn take_reader(&mut self) -> Result<Reader> {
        match self.reader.take() {
            Some(reader) => Ok(reader),
            None => Reader::new(&self.settings, &self.health, Some(self.arrived.clone())),
        }
    }

    /// Returns the partitions of all topics.
    pub(super) fn found(&self, reader: &Reader, patience: Duration) -> Result<Vec<Partition>> {
        match &self.settings.topics {
            Topics::Matching(pattern) => reader.matching(pattern, patience),
            Topics::Named(names) => {
                let mut all = Vec::new();
                for topic in names {
                    all.extend(reader.partitions(topic, patience)?);
                }
                Ok(all)
            }
        }
    }

    fn discover_with(&mut self, reader: &Reader) -> Result<()> {
        let patience = if self.discovered.is_some() { LATER_ANSWER } else { ANSWER };
        let mut new = self.found(reader, patience)?;
        self.leave_missing(reader, &new)?;
        self.compare_ids(reader, &new)?;
        new.retain(|partition| !self.next.contains_key(partition));
        if self.settings.bounded && !self.after.is_empty() {
            // It was read before: no partitions come to it.
            new.retain(|partition| self.after.contains_key(partition) && !self.done.contains(partition));
        }
        if self.discovered.is_none() {
            self.health.well(&self.settings.properties.servers);
        }
        if new.is_empty() {
            return Ok(());
        }
        // Partitions that appear while the source runs are read from their beginning.
        let is_new = self.after.is_empty() && self.gone.is_empty() && self.discovered.is_none();
        let start = if is_new { &self.settings.start } else { &Start::Earliest };
        let bounds = reader.bounds(new.iter())?;
        // A record that is appended from now on is not expected before the end.
        for (partition, (_, end)) in &bounds {
            self.ends.entry(partition.clone()).or_insert(*end);
        }
        let is_known = |partition: &Partition| self.after.contains_key(partition);
        let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
            bounds.into_iter().partition(|(partition, _)| is_known(partition));
        let mut offsets = reader.first_offsets(&unknown, start)?;
        let wanted = |partition: &Partition| self.after.get(partition).copied().unwrap_or_default();
        let lost =
            known.iter().filter_map(|(partition, bounds)| Lost::of(partition, *bounds, wanted(partition)));
        let lost: Vec<Lost> = lost.collect();
        if !lost.is_empty() && !self.settings.skips_lost {
            return Err(cannot_continue(&self.settings, &lost));
        }
        offsets.extend(known.keys().map(|partition| (partition.clone(), wanted(partition))));
        for partition in unknown.into_keys() {
            let from = offsets.get(&partition).copied().unwrap_or_default();
            let jumps = self.jumps.get(&partition).copied().unwrap_or_default();
            let jumps = jumps.max(self.ids.jumps(&partition.topic));
            self.splits.insert(partition.clone(), partition.split(from, jumps));
            self.jumps.insert(partition.clone(), jumps);
            self.fresh.insert(partition);
        }
        // The offsets are those of the engine, and reading begins at the records that are there.
        self.next.extend(offsets.clone());
        lost.into_iter().for_each(|lost| {
            offsets.insert(lost.partition.clone(), lost.bounds.0);
            self.leave_lost(lost);
        });
        if let Err(error) = self.read(reader, &offsets) {
            // The next look finds them again.
            self.next.retain(|partition, _| !offsets.contains_key(partition));
            return Err(error);
        }
        self.newest = Instant::now();
        Ok(())
    }

    /// Ends the partitions of topics that match the pattern and are gone at two looks in a row. If the same topic is found
    /// again after all, reading continues.
    fn leave_missing(&mut self, reader: &Reader, found: &[Partition]) -> Result<()> {
        let Topics::Matching(pattern) = &self.settings.topics else { return Ok(()) };
        let topics: BTreeSet<&str> = found.iter().map(|partition| partition.topic.as_str()).collect();
        match topics.is_empty() {
            true => self.health.warns("topics", format!("none matches '{pattern}' yet")),
            false => self.health.well("topics"),
        }
        let known: BTreeSet<Partition> = self.next.keys().chain(self.after.keys()).cloned().collect();
        let missing = known.into_iter().filter(|partition| !topics.contains(partition.topic.as_str()));
        let missing: BTreeSet<Partition> = missing.collect();
        for partition in missing.intersection(&self.missed) {
            let was_read = self.next.remove(partition);
            if was_read.is_some() && !self.settings.bounded {
                reader.unassign(partition)?;
            }
            let Some(at) = was_read.or(self.after.remove(partition)) else { continue };
            self.after.remove(partition);
            tracing::warn!(source = self.settings.source, %partition, offset = at, "the topic is gone");
            self.left.push(Span { split: self.split(partition), from: at, to: at, done: true });
            self.ends.remove(partition);
            self.gone.insert(partition.clone(), at);
        }
        self.missed = missing.into_iter().filter(|partition| !self.gone.contains_key(partition)).collect();
        Ok(())
    }

    /// Compares the ids of topics with those that were read before. Under another id, offsets begin anew.
    fn compare_ids(&mut self, reader: &Reader, found: &[Partition]) -> Result<()> {
        let topics: BTreeSet<&str> = found.iter().map(|partition| partition.topic.as_str()).collect();
        let now = topic_ids(reader, topics)?;
        let changed = self.ids.changed(&now);
        let is_other = |partition: &&Partition| changed.contains_key(&partition.topic);
        let read = |partition: &Partition| self.next.get(partition).or(self.after.get(partition)).copied();
        let again: Vec<Partition> = found
            .iter()
            .filter(|partition| is_other(partition) && read(partition).is_some())
            .cloned()
            .collect();
        let bounds = reader.bounds(again.iter())?;
        let lost = |(partition, bounds): (Partition, Bounds)| {
            let wanted = read(&partition).unwrap_or_default();
            Lost { partition, wanted, bounds, is_other_topic: true }
        };
        let lost: Vec<Lost> = bounds.into_iter().map(lost).collect();
        if !lost.is_empty() && !self.settings.skips_lost {
            return Err(cannot_continue(&self.settings, &lost));
        }
        for (topic, id) in &now {
            match self.ids.newest(topic) {
                None => self.left.push(self.ids.set(topic, 0, id)),
                Some(known) if known != id => self.begin_anew(topic, id),
                Some(_) => {}
            }
        }
        for lost in lost {
            if self.next.contains_key(&lost.partition) && !self.settings.bounded {
                reader.unassign(&lost.partition)?;
            }
            let partition = lost.partition.clone();
            self.leave_lost(lost);
            self.ends.remove(&partition);
            if let Some(from) = self.next.remove(&partition) {
                self.after.insert(partition, from);
            }
        }
        self.take_back(found);
        Ok(())
    }

    /// Notes another id of a topic. Its partitions go on in other splits.
    pub(super) fn begin_anew(&mut self, topic: &str, id: &str) {
        let of_topic = |partition: &&Partition| partition.topic == topic;
        let known: Vec<Partition> = self.splits.keys().filter(of_topic).cloned().collect();
        let jumps = known.iter().filter_map(|partition| self.jumps.get(partition)).max().copied();
        let jumps = jumps.unwrap_or_default();
        self.left.push(self.ids.set(topic, jumps.saturating_add(1), id));
        for partition in known {
            self.gone.remove(&partition);
            self.jumps.insert(partition, jumps);
        }
    }

    /// Continues partitions whose topic seemed to be gone.
    fn take_back(&mut self, found: &[Partition]) {
        for partition in found {
            if let Some(at) = self.gone.remove(partition) {
                self.leave_split(partition, at);
                self.next.remove(partition);
                self.after.insert(partition.clone(), at);
            }
        }
    }

    /// Reads partitions from these offsets on.
    fn read(&mut self, reader: &Reader, offsets: &BTreeMap<Partition, u64>) -> Result<()> {
        for partition in offsets.keys() {
            let split = self.split(partition);
            if let Some(end) = self.ends.get(partition) {
                self.health.ends(&split, *end);
            }
            if let Some(ends) = reader.ends.as_ref().filter(|_| !self.settings.bounded) {
                ends.follow(partition.clone(), split);
            }
        }
        if !self.settings.bounded {
            return reader.assign(offsets);
        }
        for (partition, from) in offsets {
            match self.ends.get(partition) {
                Some(end) if from < end => drop(self.waiting.insert(partition.clone(), *from)),
                _ => self.ended.push(partition.clone()),
            }
        }
        Ok(())
    }

    /// Begins to read partitions of a bounded source to their ends, as long as there is room.
    pub(super) fn open_waiting(&mut self) -> Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        while self.queues.len() < QUEUES_MAX
            && let Some((partition, from)) = self.waiting.pop_first()
        {
            let mut queue = reader.open(&partition, from)?;
            let arrived = self.arrived.clone();
            queue.set_nonempty_callback(move || arrived.notify_one());
            self.queues.insert(partition, queue);
        }
        Ok(())
    }

    /// Passes over lost records. If the topic begins anew, its partition goes on in another split.
    fn leave_lost(&mut self, lost: Lost) {
        tracing::warn!(source = self.settings.source, reason = lost.reason(), "records were lost");
        let split = self.split(&lost.partition);
        if !lost.is_removed() {
            self.leave_split(&lost.partition, lost.bounds.0);
        }
        self.lost.retain(|(_, other)| other.partition != lost.partition);
        self.lost.push((split, lost));
    }

    /// Passes over the lost records of partitions in a pull.
    pub(super) fn pass_lost(&self, pull: &mut Pull) {
        for (_, lost) in self.lost.iter().filter(|(_, lost)| lost.is_removed()) {
            let Partition { topic, number } = &lost.partition;
            self.gathered(pull, topic, *number).pass(lost.bounds.0);
        }
    }

    /// Returns the bad rows that say which records were lost.
    pub(super) fn take_lost(&mut self) -> Vec<BadRow> {
        let bad_row = |(split, lost): (Arc<str>, Lost)| BadRow {
            split,
            offset: lost.wanted,
            reason: lost.reason(),
            bytes: Vec::new(),
        };
        std::mem::take(&mut self.lost).into_iter().map(bad_row).collect()
    }
}
