//! Queries behind that go together: those that some query reads at once, directly or through others, and what reads them.
//!
//! What reads two relations must find both as of one epoch, and of a relation that was stepped over several epochs at
//! once nothing between the first and the last can be had. So all queries of a group are stepped up to the same epochs:
//! none goes on from one before all have come there.

use std::collections::BTreeSet;

use millstream_delta::Epoch;

use super::Behind;
use crate::run::Loop;

impl Loop {
    /// The queries behind that go together with one, and itself.
    pub(super) fn going_with(&self, place: usize) -> BTreeSet<usize> {
        let behind: Vec<usize> =
            (0..self.queries.len()).filter(|place| self.queries[*place].behind().is_some()).collect();
        let reads = |by: usize, of: usize| self.queries[by].reads_from(&self.queries[of].name);
        let (mut group, mut left) = (BTreeSet::from([place]), vec![place]);
        while let Some(place) = left.pop() {
            for other in &behind {
                if (reads(place, *other) || reads(*other, place)) && group.insert(*other) {
                    left.push(*other);
                }
            }
        }
        group
    }

    /// The epoch at which all queries of a group are to stop next, or have stopped.
    pub(super) fn meeting_of(&self, group: &BTreeSet<usize>) -> Epoch {
        let behind = group.iter().filter_map(|place| self.queries[*place].behind());
        let furthest = |behind: &Behind| {
            let step = behind.step.as_ref().map_or(behind.through, |step| step.through);
            step.max(behind.handed)
        };
        behind.map(furthest).max().unwrap_or_default()
    }
}
