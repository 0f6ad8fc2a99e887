//! Spilling of arranged rows: the rows and their lists.

use super::Arranged;
use crate::{Spillable, Spilling};

impl Spillable for Arranged {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.store.spill(spilling);
        self.lists.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.store.spilled_bytes() + self.lists.spilled_bytes()
    }
}
