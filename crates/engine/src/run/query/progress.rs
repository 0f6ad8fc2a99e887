//! The epochs that a query has taken in.

use millstream_delta::Epoch;
use millstream_sql::Result;
use millstream_state::Tables;

use crate::error;

/// How far a query has come: the epoch after which it started, the last one that it took in, and the number of steps.
#[derive(Debug, Default)]
pub(crate) struct QueryProgress {
    since: Epoch,
    epoch: Epoch,
    steps: u64,
}

impl QueryProgress {
    /// Returns the epoch after which the query started.
    pub(crate) fn since(&self) -> Epoch {
        self.since
    }

    /// Returns the last epoch that it took in.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the number of epochs, and of pieces of its backfill, that it took in.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Records that the query starts after an epoch.
    pub(in crate::run) fn start(&mut self, after: Epoch) {
        self.since = after;
    }

    /// Records that it starts after an epoch, and has taken that in, since it replaces a query that has.
    pub(in crate::run) fn take_over(&mut self, at: Epoch) {
        (self.since, self.epoch) = (at, at);
    }

    /// Records that it took in an epoch, or a piece of its backfill.
    pub(super) fn take_in(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.steps += 1;
    }

    pub(super) fn save(&self, all: &mut Tables) {
        all.put_number("since", self.since.0 as i64);
        all.put_number("epoch", self.epoch.0 as i64);
        all.put_number("steps", self.steps as i64);
    }

    pub(super) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let mut number = |name: &str| all.take_number(name).map_err(error::state).map(|number| number as u64);
        self.since = Epoch(number("since")?);
        self.epoch = Epoch(number("epoch")?);
        self.steps = number("steps")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_loaded_as_it_was_saved() {
        let mut progress = QueryProgress::default();
        progress.start(Epoch(3));
        progress.take_in(Epoch(4));
        progress.take_in(Epoch(6));
        let (mut all, mut loaded) = (Tables::default(), QueryProgress::default());
        progress.save(&mut all);
        loaded.load(&mut all).unwrap();
        assert_eq!((loaded.since(), loaded.epoch(), loaded.steps()), (Epoch(3), Epoch(6), 2));
        loaded.take_over(Epoch(9));
        assert_eq!((loaded.since(), loaded.epoch(), loaded.steps()), (Epoch(9), Epoch(9), 2));
    }
}
