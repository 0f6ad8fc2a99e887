//! The groups of each pane, and the total that each belongs to.

use std::collections::BTreeMap;

use millstream_state::{Paged, Spillable};

/// The groups of panes, by their slots.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The slots of a pane's groups, by the pane's start.
    panes: BTreeMap<i64, Vec<u32>>,
    /// The members by slot.
    members: Paged<Member>,
    /// The number of groups of each total.
    uses: Paged<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    pane: i64,
    /// The place among the groups of its pane.
    place: u32,
    /// The slot of the total of its key.
    total: u32,
}

impl Members {
    /// Returns the pane of a group.
    #[inline(always)]
    pub(super) fn pane(&self, slot: u32) -> i64 {
        self.members[slot as usize].pane
    }

    /// Returns the slot of a group's total.
    #[inline(always)]
    pub(super) fn total(&self, slot: u32) -> u32 {
        self.members[slot as usize].total
    }

    /// Adds a group to a pane.
    pub(super) fn insert(&mut self, slot: u32, pane: i64, total: u32) {
        let there = self.members.len().max(slot as usize + 1);
        self.members.resize(there, Member::default());
        let there = self.uses.len().max(total as usize + 1);
        self.uses.resize(there, 0);
        let slots = self.panes.entry(pane).or_default();
        self.members[slot as usize] = Member { pane, place: slots.len() as u32, total };
        slots.push(slot);
        self.uses[total as usize] += 1;
    }

    /// Removes a group from its pane; returns its total if that was the total's last group.
    pub(super) fn remove(&mut self, slot: u32) -> Option<u32> {
        let Member { pane, place, total } = self.members[slot as usize];
        if let Some(slots) = self.panes.get_mut(&pane) {
            slots.swap_remove(place as usize);
            if let Some(moved) = slots.get(place as usize) {
                self.members[*moved as usize].place = place;
            }
            if slots.is_empty() {
                self.panes.remove(&pane);
            }
        }
        self.release(total)
    }

    fn release(&mut self, total: u32) -> Option<u32> {
        let uses = &mut self.uses[total as usize];
        *uses -= 1;
        (*uses == 0).then_some(total)
    }

    /// Returns the start of the first pane.
    pub(super) fn first(&self) -> Option<i64> {
        self.panes.keys().next().copied()
    }

    /// Returns the groups of the first pane, if it begins before a time.
    pub(super) fn first_below(&self, time: i64) -> Option<Vec<u32>> {
        self.panes.first_key_value().filter(|(pane, _)| **pane < time).map(|(_, slots)| slots.clone())
    }

    /// Removes the first pane; returns the totals that have no group left.
    pub(super) fn remove_first(&mut self) -> Vec<u32> {
        let slots = self.panes.pop_first().map(|(_, slots)| slots).unwrap_or_default();
        slots.into_iter().filter_map(|slot| self.release(self.members[slot as usize].total)).collect()
    }

    /// Returns the groups of each pane that begins within `from..to`.
    pub(super) fn panes(&self, from: i64, to: i64) -> impl Iterator<Item = &Vec<u32>> {
        self.panes.range(from..to).map(|(_, slots)| slots)
    }

    /// Returns the groups of [`Members::panes`] in one sequence.
    pub(super) fn range(&self, from: i64, to: i64) -> impl Iterator<Item = u32> + '_ {
        self.panes(from, to).flatten().copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let slots: usize = self.panes.values().map(Vec::capacity).sum();
        slots * size_of::<u32>() + self.uses.memory_bytes() + self.members.memory_bytes()
    }

    pub(super) fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.uses);
        show(&mut self.members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_goes_with_its_last_group() {
        let mut members = Members::default();
        members.insert(0, 10, 0);
        members.insert(1, 10, 1);
        members.insert(2, 10, 2);
        members.insert(3, 20, 0);
        assert_eq!(members.remove(0), None);
        assert_eq!(members.range(0, 15).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(members.remove(2), Some(2));
        assert_eq!(members.first_below(10), None);
        assert_eq!(members.first_below(11), Some(vec![1]));
        assert_eq!(members.remove_first(), [1]);
        assert_eq!((members.first(), members.total(3), members.pane(3)), (Some(20), 0, 20));
        assert_eq!(members.remove(3), Some(0));
        assert_eq!(members.first(), None);
    }
}
