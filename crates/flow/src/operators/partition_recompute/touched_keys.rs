//! The keys that a step touches.

use millstream_state::{Paged, Spillable};

/// The last step that touched a key.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    step: u64,
    /// The key's place among those that the step touches.
    place: u32,
}

/// Keys that a step touches, each once, in the order in which the step came across them.
#[derive(Debug, Default)]
pub(super) struct TouchedKeys {
    pub(super) slots: Vec<u32>,
    /// The number of changed rows of each.
    pub(super) rows: Vec<u32>,
}

/// Finds out in constant time if the present step has touched a key.
#[derive(Debug, Default)]
pub(super) struct StepMarks {
    /// The marks by slot.
    marks: Paged<Mark>,
    step: u64,
}

impl StepMarks {
    /// Begins a step, which has touched no key.
    pub(super) fn begin(&mut self) -> TouchedKeys {
        self.step += 1;
        TouchedKeys::default()
    }

    /// Counts a changed row of each slot. `slots_end`: all slots are lower.
    pub(super) fn touch(&mut self, slots: &[u32], slots_end: usize, touched: &mut TouchedKeys) {
        self.marks.resize(slots_end, Mark::default());
        for slot in slots {
            let mark = &mut self.marks[*slot as usize];
            if mark.step == self.step {
                touched.rows[mark.place as usize] += 1;
                continue;
            }
            *mark = Mark { step: self.step, place: touched.slots.len() as u32 };
            touched.slots.push(*slot);
            touched.rows.push(1);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.marks.memory_bytes()
    }

    /// Returns the part that can be spilled.
    pub(super) fn store(&mut self) -> &mut dyn Spillable {
        &mut self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_the_rows_of_each_key() {
        let mut marks = StepMarks::default();
        let mut touched = marks.begin();
        marks.touch(&[2, 0, 2], 3, &mut touched);
        marks.touch(&[0, 4], 5, &mut touched);
        assert_eq!((&touched.slots[..], &touched.rows[..]), (&[2, 0, 4][..], &[2, 2, 1][..]));
        let mut next = marks.begin();
        marks.touch(&[4], 5, &mut next);
        assert_eq!((next.slots, next.rows), (vec![4], vec![1]));
    }
}
