//! Read access of a join, during a step, to sides in arrangements.

use std::sync::{Arc, RwLockReadGuard};

use super::side::Side;
use crate::Result;
use crate::arrangement::{Arrangement, Versions};

/// The arrangements of a join's sides, if they have some.
pub struct SideArrangements([Option<Arc<Arrangement>>; 2]);

/// The same, locked for reading.
pub struct Views<'a> {
    guards: Vec<RwLockReadGuard<'a, Versions>>,
    at: [Option<usize>; 2],
}

impl SideArrangements {
    /// Returns the arrangements of two sides.
    pub fn of(sides: &[Side; 2]) -> SideArrangements {
        let of = |side: &Side| side.elsewhere.as_ref().map(|elsewhere| elsewhere.arrangement.clone());
        SideArrangements([of(&sides[0]), of(&sides[1])])
    }

    /// Locks them for reading. One that both sides share is locked once: a waiting writer between two locks
    /// would deadlock.
    pub fn read(&self) -> Result<Views<'_>> {
        let mut views = Views { guards: Vec::new(), at: [None; 2] };
        for (at, kept) in self.0.iter().enumerate() {
            let Some(kept) = kept else { continue };
            views.at[at] = match (&self.0[0], views.at[0]) {
                (Some(first), Some(place)) if Arc::ptr_eq(first, kept) => Some(place),
                _ => {
                    views.guards.push(kept.read()?);
                    Some(views.guards.len() - 1)
                }
            };
        }
        Ok(views)
    }
}

impl Views<'_> {
    /// Returns side number `at`, if it is in an arrangement.
    pub fn of(&self, at: usize) -> Option<&Versions> {
        self.at[at].and_then(|place| self.guards.get(place)).map(|guard| &**guard)
    }

    /// Returns the order in which changes are applied: those of a side that the join keeps come first, since
    /// they read only the other side's rows before the epoch.
    pub fn order(&self) -> [usize; 2] {
        if self.at[0].is_some() && self.at[1].is_none() { [1, 0] } else { [0, 1] }
    }

    /// Returns true if both sides are in arrangements.
    pub fn both(&self) -> bool {
        self.at.iter().all(Option::is_some)
    }
}
