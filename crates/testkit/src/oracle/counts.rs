//! Statistics of the oracle, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use super::run::{Mode, Outcome, Tally};

/// Numbers of feeds, by the mode of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feeds {
    /// All feeds.
    pub all: usize,
    /// Feeds through Whole operators.
    pub whole: usize,
    /// Feeds over append-only tables.
    pub append_only: usize,
    /// Feeds with lagging queries.
    pub apart: usize,
    /// Feeds through engines that restart from checkpoints.
    pub restarted: usize,
    /// Feeds through such engines with spilled rows.
    pub spilled: usize,
}

impl Feeds {
    /// Counts a feed through an engine in a mode.
    pub fn count(&mut self, mode: Mode) {
        self.all += 1;
        match mode {
            Mode::Fast => {}
            Mode::Whole => self.whole += 1,
            Mode::AppendOnly => self.append_only += 1,
            Mode::Apart => self.apart += 1,
            Mode::Restarted => self.restarted += 1,
            Mode::Spilled => self.spilled += 1,
        }
    }
}

impl AddAssign for Feeds {
    fn add_assign(&mut self, other: Feeds) {
        self.all += other.all;
        self.whole += other.whole;
        self.append_only += other.append_only;
        self.apart += other.apart;
        self.restarted += other.restarted;
        self.spilled += other.spilled;
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.epochs += other.epochs;
        self.comparisons += other.comparisons;
        self.failed_in_batch += other.failed_in_batch;
        self.failed_alike += other.failed_alike;
        self.spilled_bytes += other.spilled_bytes;
        self.unreached += other.unreached;
    }
}

/// Statistics over all files.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub(crate) files: usize,
    pub(crate) queries: usize,
    feeds: Feeds,
    tally: Tally,
    pub(super) left_out: BTreeMap<String, usize>,
}

impl Counts {
    /// Returns the counts of one file, of which nothing has run.
    pub(super) fn of_file() -> Counts {
        Counts { files: 1, ..Counts::default() }
    }

    /// Records a run of a feed.
    pub(super) fn ran(&mut self, mode: Mode, outcome: &Outcome) {
        self.feeds.count(mode);
        self.tally += &outcome.tally;
    }

    /// Adds the counts of another file.
    pub fn add(&mut self, other: &Counts) {
        self.files += other.files;
        self.queries += other.queries;
        self.feeds += other.feeds;
        self.tally += &other.tally;
        for (reason, count) in &other.left_out {
            *self.left_out.entry(reason.clone()).or_default() += count;
        }
    }

    /// Returns true if nothing was done.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Feeds { all, whole, append_only, apart, restarted, spilled } = self.feeds;
        let Tally { epochs, comparisons, failed_in_batch, failed_alike, spilled_bytes, unreached } =
            &self.tally;
        writeln!(
            f,
            "oracle: {} files, {} queries, {all} feeds ({whole} of them through Whole operators, {append_only} over \
             append-only tables, {apart} with queries that are behind, {restarted} through engines that go on from \
             checkpoints, {spilled} through such engines with {spilled_bytes} bytes of rows in files), {epochs} epochs, \
             {comparisons} comparisons",
            self.files, self.queries,
        )?;
        writeln!(
            f,
            "  nothing to compare: {failed_in_batch} times failed in batch, where {failed_alike} views said so too; \
             {unreached} times unreached: a view fails for a row that the batch didn't come to look at",
        )?;
        for (reason, count) in &self.left_out {
            writeln!(f, "  left out {count}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feed_counts_for_its_mode() {
        let (mut first, mut second) = (Counts::of_file(), Counts::of_file());
        let mut outcome = Outcome::default();
        outcome.tally.epochs = 5;
        first.ran(Mode::Spilled, &outcome);
        second.ran(Mode::Fast, &outcome);
        first.add(&second);
        assert_eq!(first.feeds, Feeds { all: 2, spilled: 1, ..Feeds::default() });
        assert_eq!((first.files, first.tally.epochs, first.is_empty()), (2, 10, false));
    }
}
