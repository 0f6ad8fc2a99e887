//! Finding partitions: at the start of a source, and then from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millstream_connect::{Error, Result};
use millstream_delta::Span;
use rdkafka::consumer::Consumer;

use super::Intake;
use super::pull::Pull;
use crate::consumer::{ANSWER, Bounds, Reader};
use crate::ends::Followed;
use crate::lost::{Identity, Lost};
use crate::options::Start;
use crate::partition::Partition;
use crate::topics::Topics;

/// How long a later look for partitions may take: records wait meanwhile.
const LATER_ANSWER: Duration = Duration::from_secs(1);

/// The split, without rows, of a source whose first look found no topic: topics that come later, also while no engine
/// runs, begin at their first record, whatever option `start` says.
const FIRST_LOOK: &str = "#first look";

/// The looks for partitions.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The time of the last look with this consumer.
    pub discovered: Option<Instant>,
    /// True after the first look, also one before a restart: option `start` no longer applies.
    pub begun: bool,
    /// Partitions whose topic was missing at the last look, with the time of the first look that missed it.
    missed: BTreeMap<Partition, Instant>,
}

impl Intake {
    /// Finds the partitions, at the start and then from time to time, and begins to read new ones. Looks at once if a topic
    /// has another id.
    pub fn discover(&mut self) -> Result<()> {
        let other = self.reader.as_ref().is_some_and(|reader| reader.consumer.context().take_other_topic());
        let is_due = other || self.looks.discovered.is_none_or(|at| at.elapsed() >= self.settings.discovery);
        if !is_due || (self.settings.bounded && self.looks.discovered.is_some()) {
            return Ok(());
        }
        let reader = self.take_reader()?;
        let found = self.discover_with(&reader);
        self.reader = Some(reader);
        // A broker that doesn't answer later is no reason to stop reading.
        match found {
            Err(error @ Error::External(_)) if self.looks.discovered.is_some() => {
                tracing::warn!(%error, "no new partitions can be found");
            }
            other => other?,
        }
        (self.looks.discovered, self.looks.begun) = (Some(Instant::now()), true);
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
        let patience = if self.looks.discovered.is_some() { LATER_ANSWER } else { ANSWER };
        let mut new = self.found(reader, patience)?;
        self.note_first_look(&new);
        self.leave_missing(reader, &new)?;
        let same = self.compare_ids(reader, &new, patience)?;
        new.retain(|partition| !self.offsets.next.contains_key(partition));
        if self.settings.bounded && !self.offsets.after.is_empty() {
            // It was read before: no partitions come to it.
            let after = &self.offsets.after;
            new.retain(|partition| after.contains_key(partition) && !self.bounded.is_done(partition));
        }
        if self.looks.discovered.is_none() {
            self.health.well(&self.settings.properties.servers);
        }
        if new.is_empty() {
            return Ok(());
        }
        // Partitions that appear later are read from their beginning.
        let start = if self.looks.begun { &Start::Earliest } else { &self.settings.start };
        let bounds = reader.bounds(new.iter())?;
        // A record that is appended from now on is not expected before the end.
        for (partition, (_, end)) in &bounds {
            self.expected.note(partition, *end);
        }
        let is_known = |partition: &Partition| self.offsets.after.contains_key(partition);
        let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
            bounds.into_iter().partition(|(partition, _)| is_known(partition));
        let mut offsets = reader.first_offsets(&unknown, start)?;
        let wanted = |partition: &Partition| self.offsets.after.get(partition).copied().unwrap_or_default();
        let identity = Identity::by(&same);
        let lost = known.iter().filter_map(|(partition, bounds)| {
            Lost::of(partition, *bounds, wanted(partition), identity(&partition.topic))
        });
        let lost: Vec<Lost> = lost.collect();
        if !lost.is_empty() && !self.settings.skips_lost {
            return Err(self.cannot_continue(&lost));
        }
        offsets.extend(known.keys().map(|partition| (partition.clone(), wanted(partition))));
        for partition in unknown.into_keys() {
            let from = offsets.get(&partition).copied().unwrap_or_default();
            self.offsets.add(partition, from);
        }
        // The offsets are those of the engine, and reading begins at the records that are there.
        self.offsets.next.extend(offsets.clone());
        lost.into_iter().for_each(|lost| {
            offsets.insert(lost.partition.clone(), lost.continues_at());
            self.leave_lost(lost);
        });
        if let Err(error) = self.read(reader, &offsets) {
            // The next look finds them again.
            self.offsets.next.retain(|partition, _| !offsets.contains_key(partition));
            return Err(error);
        }
        self.expected.is_busy(Instant::now());
        Ok(())
    }

    /// Ends the partitions of topics that match the pattern and are missing at all looks of an interval. If the same topic is
    /// found again after all, reading continues.
    fn leave_missing(&mut self, reader: &Reader, found: &[Partition]) -> Result<()> {
        let Topics::Matching(pattern) = &self.settings.topics else { return Ok(()) };
        let topics: BTreeSet<&str> = found.iter().map(|partition| partition.topic.as_str()).collect();
        match topics.is_empty() {
            true => self.health.warns("topics", format!("none matches '{pattern}' yet")),
            false => self.health.well("topics"),
        }
        let known: BTreeSet<Partition> = self.offsets.all().cloned().collect();
        let missing = known.into_iter().filter(|partition| !topics.contains(partition.topic.as_str()));
        // Looks follow each other at once if a consumer fails, and a broker may not know all topics yet.
        let since = |partition: Partition| {
            let since = self.looks.missed.get(&partition).copied().unwrap_or_else(Instant::now);
            (partition, since)
        };
        self.looks.missed = missing.map(since).collect();
        let is_gone = |since: &Instant| since.elapsed() >= self.settings.discovery;
        let gone = self.looks.missed.iter().filter(|(_, since)| is_gone(since));
        for partition in gone.map(|(partition, _)| partition.clone()).collect::<Vec<_>>() {
            let Some(at) = self.forget(reader, &partition)? else { continue };
            tracing::warn!(source = self.settings.source, %partition, offset = at, "the topic is gone");
            self.offsets.end_for_now(partition, at);
        }
        Ok(())
    }

    /// Reads a partition no longer and forgets it. Returns its next offset, if it was known.
    fn forget(&mut self, reader: &Reader, partition: &Partition) -> Result<Option<u64>> {
        self.release(reader, partition)?;
        reader.ends.iter().for_each(|ends| ends.leave(partition.clone()));
        self.looks.missed.remove(partition);
        self.expected.forget(partition);
        Ok(self.offsets.forget(partition))
    }

    /// Makes a later start know that the source has looked for topics, if it has found none.
    fn note_first_look(&mut self, found: &[Partition]) {
        if !self.looks.begun && !self.settings.bounded && found.is_empty() {
            self.offsets.tell(Span { split: FIRST_LOOK.into(), from: 0, to: 1, done: true });
        }
    }

    /// Reads a partition no longer. If that fails, only a new consumer knows what it reads.
    fn release(&mut self, reader: &Reader, partition: &Partition) -> Result<()> {
        if self.settings.bounded || !self.offsets.next.contains_key(partition) {
            return Ok(());
        }
        let released = reader.unassign(partition);
        if released.is_err() {
            self.looks.discovered = None;
        }
        released
    }

    /// Compares the ids of topics with those that were read before. Under another id, offsets begin anew. Returns the topics
    /// that are known to be the same.
    fn compare_ids(
        &mut self,
        reader: &Reader,
        found: &[Partition],
        patience: Duration,
    ) -> Result<BTreeSet<String>> {
        let topics: BTreeSet<&str> = found.iter().map(|partition| partition.topic.as_str()).collect();
        let now = self.offsets.ids.present(reader, topics, patience)?;
        let (changed, same) = (self.offsets.ids.changed(&now), self.offsets.ids.same(&now));
        let is_other = |partition: &&Partition| changed.contains_key(&partition.topic);
        let again: Vec<Partition> = found
            .iter()
            .filter(|partition| is_other(partition) && self.offsets.known(partition).is_some())
            .cloned()
            .collect();
        let bounds = reader.bounds(again.iter())?;
        let lost = |(partition, bounds): (Partition, Bounds)| {
            let wanted = self.offsets.known(&partition).unwrap_or_default();
            Lost { partition, wanted, bounds, topic: Identity::Other }
        };
        let lost: Vec<Lost> = bounds.into_iter().map(lost).collect();
        if !lost.is_empty() && !self.settings.skips_lost {
            return Err(self.cannot_continue(&lost));
        }
        // A new id is noted last: it is compared only once.
        for lost in &lost {
            self.release(reader, &lost.partition)?;
        }
        self.leave_vanished(reader, &changed, found)?;
        for (topic, id) in &now {
            match self.offsets.ids.newest(topic) {
                None => {
                    self.offsets.set_id(topic, id);
                    self.follow(reader, topic);
                }
                Some(known) if known != id => self.offsets.begin_anew(topic, id),
                Some(_) => {}
            }
        }
        for lost in lost {
            let partition = lost.partition.clone();
            self.leave_lost(lost);
            self.expected.forget(&partition);
            self.offsets.stop_reading_of(partition);
        }
        self.offsets.take_back(found);
        Ok(same)
    }

    /// Ends the partitions that topics no longer have since they were created again. Should they get them later, these begin
    /// at their first records.
    pub(super) fn leave_vanished(
        &mut self,
        reader: &Reader,
        changed: &BTreeMap<String, String>,
        found: &[Partition],
    ) -> Result<()> {
        let is_vanished =
            |partition: &&Partition| changed.contains_key(&partition.topic) && !found.contains(partition);
        let vanished: BTreeSet<Partition> = self.offsets.all().filter(is_vanished).cloned().collect();
        for partition in vanished {
            let Some(at) = self.forget(reader, &partition)? else { continue };
            tracing::warn!(
                source = self.settings.source, %partition, offset = at,
                "the topic was created again without this partition"
            );
            self.offsets.end(&partition, at);
        }
        Ok(())
    }

    /// Watches over the id of a topic that is read and whose id is known only now.
    fn follow(&self, reader: &Reader, topic: &str) {
        let Some(ends) = reader.ends.as_ref().filter(|_| !self.settings.bounded) else { return };
        let id = self.offsets.ids.newest(topic).map(str::to_string);
        for partition in self.offsets.next.keys().filter(|partition| partition.topic == topic) {
            ends.follow(partition.clone(), Followed { split: self.offsets.split(partition), id: id.clone() });
        }
    }

    /// Reads partitions from these offsets on.
    fn read(&mut self, reader: &Reader, offsets: &BTreeMap<Partition, u64>) -> Result<()> {
        for partition in offsets.keys() {
            let split = self.offsets.split(partition);
            if let Some(end) = self.expected.end_of(partition) {
                self.health.ends(&split, end);
            }
            if let Some(ends) = reader.ends.as_ref().filter(|_| !self.settings.bounded) {
                let id = self.offsets.ids.newest(&partition.topic).map(str::to_string);
                ends.follow(partition.clone(), Followed { split, id });
            }
        }
        if !self.settings.bounded {
            return reader.assign(offsets);
        }
        for (partition, from) in offsets {
            self.bounded.add(partition.clone(), *from, self.expected.end_of(partition));
        }
        Ok(())
    }

    /// Begins to read partitions of a bounded source to their ends, as long as there is room.
    pub(super) fn open_waiting(&mut self) -> Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        while let Some((partition, from)) = self.bounded.next_waiting() {
            let mut queue = reader.open(&partition, from)?;
            let arrived = self.arrived.clone();
            queue.set_nonempty_callback(move || arrived.notify_one());
            self.bounded.queues.insert(partition, queue);
        }
        Ok(())
    }

    /// Passes over lost records. If the topic begins anew, its partition goes on in another split.
    fn leave_lost(&mut self, lost: Lost) {
        tracing::warn!(source = self.settings.source, reason = lost.reason(), "records were lost");
        self.offsets.leave_lost(lost);
    }

    /// Passes over the lost records of partitions in a pull.
    pub(super) fn pass_lost(&self, pull: &mut Pull) {
        for lost in self.offsets.removed() {
            let Partition { topic, number } = &lost.partition;
            self.gathered(pull, topic, *number).pass(lost.bounds.0);
        }
    }
}
