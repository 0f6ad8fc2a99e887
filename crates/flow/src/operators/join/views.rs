//! What a join sees, while it is stepped, of sides that are kept elsewhere.

use std::sync::{Arc, RwLockReadGuard};

use super::side::Side;
use crate::Result;
use crate::arrangement::{Arrangement, Versions};

/// The arrangements of a join's sides, where they have some.
pub struct Kept([Option<Arc<Arrangement>>; 2]);

/// The same, held for reading.
pub struct Views<'a> {
    guards: Vec<RwLockReadGuard<'a, Versions>>,
    at: [Option<usize>; 2],
}

impl Kept {
    /// Those of two sides.
    pub fn of(sides: &[Side; 2]) -> Kept {
        let of = |side: &Side| side.elsewhere.as_ref().map(|elsewhere| elsewhere.arrangement.clone());
        Kept([of(&sides[0]), of(&sides[1])])
    }

    /// Holds them. One that both sides share is held once: who waits to change it would stand between two holds.
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
    /// The `at`th side, if it is kept elsewhere.
    pub fn of(&self, at: usize) -> Option<&Versions> {
        self.at[at].and_then(|place| self.guards.get(place)).map(|guard| &**guard)
    }

    /// In which order changes are taken in: those of a side that is kept here first, since of the other only its
    /// rows before the epoch are looked at then.
    pub fn order(&self) -> [usize; 2] {
        if self.at[0].is_some() && self.at[1].is_none() { [1, 0] } else { [0, 1] }
    }

    /// Whether both sides are kept elsewhere.
    pub fn both(&self) -> bool {
        self.at.iter().all(Option::is_some)
    }
}
