//! One step: the answers before the change, the change, the answers after it, and the partitions that fail.

use millstream_state::Moved;

use super::Over;
use super::answer::{Answers, Stretch};
use super::change::Part;
use super::emit::{Difference, Side, Where};
use super::extent::Of;
use super::running::States;
use crate::failure::{Failure, reason, row_text};
use crate::operator::Output;
use crate::parallelism::lock;
use crate::sorted::{Change, Sorted};
use crate::{Error, Result};

/// The number of rows to read first after changed ones, and the maximum at once.
const FIRST_ROWS: u64 = if cfg!(test) { 2 } else { 64 };
const NEXT_ROWS: u64 = if cfg!(test) { 5 } else { 8192 };

/// The changes of some partitions during a step.
struct Work<'a> {
    parts: Vec<Part<'a>>,
    /// For each part the places of its clusters' answers before the change.
    old: Vec<Vec<Where>>,
    difference: Difference,
}

impl Over {
    /// Applies changes and emits their effects.
    pub(super) fn take(&mut self, sorted: &Sorted, output: &mut Output) -> Result<()> {
        let changes = sorted.changes();
        let works = self.before(&changes)?;
        self.apply(sorted, &changes, 1)?;
        let works = self.after(works)?;
        let mut settled = Vec::with_capacity(works.len());
        for mut work in works {
            self.fail(&mut work.parts, sorted, &mut work.difference)?;
            self.settle(&work.parts, sorted, &mut output.failures)?;
            settled.push(work);
        }
        let schema = &self.properties.schema;
        let made = self.threads.spread(settled, |Work { parts, difference, .. }| {
            let left = |part: usize| parts[part].fails.is_some() && !parts[part].had_failed;
            difference.into_delta(&left, schema)
        });
        made.into_iter().try_for_each(|made| {
            output.rows.append(made?);
            Ok(())
        })
    }

    /// Computes the answers before the change, for some partitions at a time, in parallel if there are many.
    fn before<'a>(&self, changes: &'a [Change<'a>]) -> Result<Vec<Work<'a>>> {
        let mut moved = 0;
        let groups = self.threads.groups(changes, |left, right| left.partition == right.partition);
        let groups = groups.into_iter().map(|changes| {
            let shift = moved;
            moved += changes.iter().map(|change| change.weight).sum::<i64>();
            (changes, shift)
        });
        let works = self.threads.spread(groups.collect(), |(changes, shift)| {
            let mut parts = self.parts(changes, shift)?;
            let mut difference = Difference::default();
            let old = self.old_answers(&mut parts, &mut difference.old)?;
            Ok(Work { parts, old, difference })
        });
        works.into_iter().collect()
    }

    /// Computes the differences after the change.
    fn after<'a>(&mut self, mut works: Vec<Work<'a>>) -> Result<Vec<Work<'a>>> {
        works.iter_mut().for_each(|work| self.count_groups(&mut work.parts));
        let over = &*self;
        let works = over.threads.spread(works, |mut work| {
            let Work { parts, old, difference } = &mut work;
            let rounds = match over.functions.is_running() {
                true => parts.iter().map(|part| part.clusters.len()).max().unwrap_or(0),
                false => 1,
            };
            for round in 0..rounds {
                over.new_answers(parts, round, old, difference)?;
            }
            over.mend(parts, difference)?;
            Ok(work)
        });
        works.into_iter().collect()
    }

    /// Groups changes by partition; `shift` is the shift of the first partition.
    fn parts<'a>(&self, changes: &'a [Change<'a>], mut shift: i64) -> Result<Vec<Part<'a>>> {
        let mut parts = Vec::new();
        for changes in changes.chunk_by(|left, right| left.partition == right.partition) {
            let failed = self.failed.contains_key(changes[0].partition);
            parts.push(self.kept().part(changes, shift, failed)?);
            shift += changes.iter().map(|change| change.weight).sum::<i64>();
        }
        Ok(parts)
    }

    /// Applies the change to the rows, or reverts it.
    fn apply(&mut self, sorted: &Sorted, changes: &[Change<'_>], sign: i64) -> Result<()> {
        let mut moved = Vec::with_capacity(changes.len());
        for Change { key, row, weight, .. } in changes {
            moved.push(Moved { key, row: *row, weight: sign * weight });
        }
        self.rows.apply(&sorted.rows, &moved)?;
        Ok(())
    }

    /// Records the new and removed groups of peers.
    fn count_groups(&mut self, parts: &mut [Part<'_>]) {
        if !self.functions.counts_groups() {
            return;
        }
        for part in parts {
            let mut shift = 0;
            let mut count = |changes: &[Change<'_>]| {
                for peers in changes.chunk_by(|left, right| left.peers == right.peers) {
                    let had = self.groups.contains(peers[0].peers);
                    let has = !self.rows.positions(peers[0].peers).is_empty();
                    if had != has {
                        self.groups.set(peers[0].peers, has);
                        shift += i64::from(has) - i64::from(had);
                    }
                }
                shift
            };
            match part.had_failed {
                true => _ = count(part.changes),
                false => {
                    part.clusters.iter_mut().for_each(|cluster| cluster.groups_shift = count(cluster.changes))
                }
            }
        }
    }

    /// Computes the answers of all clusters before the change: for each part, the places of its clusters'
    /// answers.
    fn old_answers(&self, parts: &mut [Part<'_>], side: &mut Side) -> Result<Vec<Vec<Where>>> {
        let kept = self.kept();
        let mut stretches = Vec::new();
        for part in parts.iter() {
            for cluster in &part.clusters {
                stretches.push(kept.old_stretch(part, cluster)?);
            }
        }
        let which = side.push(self.functions.answers(kept.places(), &stretches)?);
        let mut taken = std::mem::take(&mut side.all[which].taken).into_iter();
        let (mut places, mut next) = (Vec::with_capacity(parts.len()), 0);
        for part in parts {
            let mut of = Vec::with_capacity(part.clusters.len());
            for cluster in &mut part.clusters {
                cluster.old_states = taken.next().and_then(|taken| taken.noted);
                of.push((which, next));
                next += 1;
            }
            places.push(of);
        }
        Ok(places)
    }

    /// Computes the answers of clusters after the change, and of the rows behind them. With running
    /// functions, those of one round: each cluster after those before it in its partition. Else for all.
    fn new_answers(
        &self,
        parts: &mut [Part<'_>],
        round: usize,
        old: &[Vec<Where>],
        difference: &mut Difference,
    ) -> Result<()> {
        let running = self.functions.is_running();
        let (mut asked, mut stretches) = (Vec::new(), Vec::new());
        let kept = self.kept();
        for (at, part) in parts.iter_mut().enumerate().filter(|(_, part)| part.fails.is_none()) {
            let mut clusters = std::mem::take(&mut part.clusters);
            let range = if running { round..(round + 1).min(clusters.len()) } else { 0..clusters.len() };
            let count = range.len();
            for (number, cluster) in clusters.iter_mut().enumerate().skip(range.start).take(count) {
                stretches.push(kept.new_stretch(part, cluster)?);
                asked.push((at, number));
            }
            part.clusters = clusters;
        }
        let mut found = Vec::new();
        self.try_answers(&stretches, 0, &mut found)?;
        let mut gaps = Vec::with_capacity(asked.len());
        let mut kept = Vec::new();
        let mut wheres: Vec<Option<Where>> = vec![None; stretches.len()];
        for (first, answers) in found {
            match answers {
                Err(message) => parts[asked[first].0].fails = Some(message),
                Ok(mut answers) => {
                    let taken = std::mem::take(&mut answers.taken);
                    let which = difference.new.push(answers);
                    for (place, taken) in taken.into_iter().enumerate() {
                        wheres[first + place] = Some((which, place));
                        kept.push((first + place, taken));
                    }
                }
            }
        }
        for (at, (part, number)) in asked.iter().copied().enumerate() {
            let Some(place) = wheres[at].filter(|_| parts[part].fails.is_none()) else { continue };
            let cluster = &parts[part].clusters[number];
            let from = (cluster.old.start, cluster.new.start);
            difference.compare(part, &cluster.spots, from, (old[part][number], place))?;
            gaps.push((at, part, number));
        }
        let seams: Vec<_> = stretches.iter().map(|stretch| self.seams(stretch)).collect();
        drop(stretches);
        let mut noted: Vec<Option<_>> = seams.iter().map(|_| None).collect();
        for (at, taken) in kept.into_iter().filter(|_| running) {
            let (prefix, after, before) = &seams[at];
            let (after, before) = (after.as_deref(), before.as_deref());
            lock(&self.checkpoints).replace(prefix, after, before, taken.checkpoints);
            noted[at] = taken.noted;
        }
        for (at, part, number) in gaps {
            self.behind(&mut parts[part], part, number, noted[at].take(), difference)?;
        }
        Ok(())
    }

    /// Returns the keys around a stretch's states: the partition, the last key before and the first behind.
    #[allow(clippy::type_complexity)]
    fn seams(&self, stretch: &Stretch<'_>) -> (Box<[u8]>, Option<Box<[u8]>>, Option<Box<[u8]>>) {
        let after = stretch.seed.as_ref().and_then(|(key, _)| key.clone());
        let before = match self.functions.is_running() {
            true => self.kept().key_within(&stretch.bounds, stretch.slice.end).map(Box::from),
            false => None,
        };
        (stretch.bounds.prefix.into(), after, before)
    }

    /// Computes the answers of stretches, in as few evaluations as failures allow, from `first` on. For a
    /// stretch that fails, adds the reason.
    fn try_answers(
        &self,
        stretches: &[Stretch<'_>],
        first: usize,
        found: &mut Vec<(usize, std::result::Result<Answers, String>)>,
    ) -> Result<()> {
        if stretches.is_empty() {
            return Ok(());
        }
        let error = match self.functions.answers(self.kept().places(), stretches) {
            Ok(answers) => {
                found.push((first, Ok(answers)));
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(message) = reason(&error) else { return Err(error) };
        if stretches.len() == 1 {
            found.push((first, Err(message)));
            return Ok(());
        }
        let (left, right) = stretches.split_at(stretches.len() / 2);
        self.try_answers(left, first, found)?;
        self.try_answers(right, first + left.len(), found)
    }

    /// Updates the rows between a cluster and the next, or the partition's end: their numbers may have
    /// changed, and the states of running functions before them. `states` are the current ones.
    fn behind(
        &self,
        part: &mut Part<'_>,
        at: usize,
        number: usize,
        mut states: Option<States>,
        difference: &mut Difference,
    ) -> Result<()> {
        let bounds = self.kept().places().bounds(part.prefix);
        let cluster = &part.clusters[number];
        let shifts = self.kept().shifts(part, cluster, &bounds);
        let moved = self.functions.moves(shifts);
        let mut old_states = cluster.old_states.clone();
        let end = match part.clusters.get(number + 1) {
            // The number of rows between clusters is the same before the change.
            Some(next) => cluster.new.end + (next.old.start - cluster.old.end),
            None => bounds.range.end,
        };
        let mut from = cluster.new.end;
        let mut start = cluster.spots.last().map_or(from, |spot| spot.new.end);
        let mut count = if moved { NEXT_ROWS } else { FIRST_ROWS };
        while from < end && (moved || old_states != states) {
            // Copies of a row stay together.
            let to = end.min(self.kept().entry_end(from + count));
            count = NEXT_ROWS.min(4 * count);
            let kept = self.kept();
            let next = match kept.key_within(&bounds, to).filter(|_| to < end) {
                Some(key) => {
                    kept.places().back(&self.functions.reach.before, &bounds, to, key, Of::Answer)?
                }
                None => to,
            };
            let next = next.max(start);
            let noted = self.functions.is_running().then_some(next);
            let mut stretch = kept.stretch(bounds.clone(), from..to, noted, None)?;
            if let Some(states) = states.take() {
                stretch.slice.start = start;
                stretch.seed = Some((None, states));
            }
            let mut answers = match self.functions.answers(kept.places(), std::slice::from_ref(&stretch)) {
                Ok(answers) => answers,
                Err(error) => {
                    part.fails = Some(reason(&error).ok_or(error)?);
                    return Ok(());
                }
            };
            let mut taken = answers.taken.pop().unwrap_or_default();
            let new_states = taken.noted.take();
            stretch.seed = old_states.take().map(|states| (None, states));
            let (mut values, noted) = self.functions.rerun(&answers, &stretch)?;
            self.functions.shift_back(&mut values, shifts)?;
            difference.revalue(at, &answers, &values, &self.properties.schema)?;
            if self.functions.is_running() {
                let key = |position: u64| {
                    let found = self.kept().key_within(&bounds, position);
                    found.map(Box::<[u8]>::from)
                };
                let after = key(start.saturating_sub(1)).filter(|_| start > bounds.range.start);
                let before = key(stretch.slice.end);
                let (after, before) = (after.as_deref(), before.as_deref());
                lock(&self.checkpoints).replace(part.prefix, after, before, taken.checkpoints);
            }
            (states, old_states) = (new_states, noted);
            (from, start) = (to, next);
        }
        Ok(())
    }

    /// Recomputes partitions that had failed as a whole.
    fn mend(&self, parts: &mut [Part<'_>], difference: &mut Difference) -> Result<()> {
        for (at, part) in parts.iter_mut().enumerate().filter(|(_, part)| part.had_failed) {
            let stretch = self.kept().whole(part.prefix);
            let mut found = Vec::new();
            self.try_answers(std::slice::from_ref(&stretch), 0, &mut found)?;
            for (_, answers) in found {
                match answers {
                    Err(message) => part.fails = Some(message),
                    Ok(mut answers) => {
                        let taken = answers.taken.pop().unwrap_or_default();
                        let which = difference.new.push(answers);
                        difference.new.put_all((which, 0), at);
                        lock(&self.checkpoints).replace(part.prefix, None, None, taken.checkpoints);
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes the rows of partitions that fail from now on.
    fn fail(&mut self, parts: &mut [Part<'_>], sorted: &Sorted, difference: &mut Difference) -> Result<()> {
        for (at, part) in
            parts.iter().enumerate().filter(|(_, part)| part.fails.is_some() && !part.had_failed)
        {
            lock(&self.checkpoints).replace(part.prefix, None, None, Vec::new());
            self.apply(sorted, part.changes, -1)?;
            self.recount(part);
            let stretch = self.kept().whole(part.prefix);
            let answers = self.functions.answers(self.kept().places(), std::slice::from_ref(&stretch));
            let answers = answers.map_err(|error| {
                Error::Bug(format!("a partition's answer fails that had not failed before: {error}"))
            })?;
            let which = difference.failing.push(answers);
            difference.failing.put_all((which, 0), at);
            self.apply(sorted, part.changes, 1)?;
            self.recount(part);
        }
        Ok(())
    }

    fn recount(&mut self, part: &Part<'_>) {
        for change in part.changes.iter().filter(|_| self.functions.counts_groups()) {
            let there = !self.rows.positions(change.peers).is_empty();
            self.groups.set(change.peers, there);
        }
    }

    /// Emits the failures of partitions that failed before or fail now.
    fn settle(&mut self, parts: &[Part<'_>], sorted: &Sorted, failures: &mut Vec<Failure>) -> Result<()> {
        for part in parts {
            let old = self.failed.remove(part.prefix);
            let Some(message) = &part.fails else {
                failures.extend(old.map(|(message, row)| Failure { message, row, weight: -1 }));
                continue;
            };
            let row = match &old {
                Some((_, row)) => row.clone(),
                None => {
                    let row = sorted.rows.slice(part.changes[0].row as usize, 1);
                    row_text(&self.sorter.partition_of(&row)?, 0)?
                }
            };
            if old.as_ref().is_none_or(|(known, _)| known != message) {
                failures.extend(old.map(|(message, row)| Failure { message, row, weight: -1 }));
                failures.push(Failure { message: message.clone(), row: row.clone(), weight: 1 });
            }
            self.failed.insert(part.prefix.into(), (message.clone(), row));
        }
        Ok(())
    }
}
