//! Lookup joins: `FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! The operator keeps the right side by key. A row of the left side is joined once, with the right rows of
//! its key at the end of the epoch in which it arrives. It is not kept, and later changes of the right side
//! don't affect it. So the result depends on the cuts, by intent, and is append-only.
//!
//! The left side must be append-only: the matches that a row had found are no longer known when it is
//! deleted.

use millstream_delta::{Cut, Delta};
use millstream_state::{Spillable, Tables};

use super::join::Join;
use crate::Result;
use crate::operator::{Description, Growth, Operator, Output, Properties, State};

/// Looks up rows of its second input for the rows of its first.
#[derive(Debug)]
pub struct LookupJoin {
    join: Join,
    properties: Properties,
}

impl LookupJoin {
    /// Returns the operator over a join without rows; the join must not preserve right rows.
    pub fn new(join: Join) -> LookupJoin {
        let join = join.without_left();
        let properties =
            Properties { append_only: true, key: None, depends_on_cuts: true, ..join.properties().clone() };
        LookupJoin { join, properties }
    }
}

impl Operator for LookupJoin {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let by_key = if self.join.describe().state_key.is_some() { " by key" } else { "" };
        Description {
            name: "LookUp",
            state: format!("the right side{by_key}; nothing of the left"),
            growth: Growth::With("its right side".into()),
            ..self.join.describe()
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.join.look_up(inputs)
    }
}

impl State for LookupJoin {
    fn reset(&mut self) -> Result<()> {
        self.join.reset()
    }

    fn save(&self) -> Result<Tables> {
        self.join.save()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.join.save_changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.join.load(kept)
    }

    fn state_rows(&self) -> usize {
        self.join.state_rows()
    }

    fn state_bytes(&self) -> usize {
        self.join.state_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.join.each_store(show);
    }
}
