//! Rows that look another relation up when they come: `FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! The right side is kept by key. A row of the left is paired with what is there of its key at the end of the epoch in
//! which it comes, once: it is not kept, and what becomes of the right side later changes nothing. So the result depends
//! on the cuts, by intent, and only gains rows.
//!
//! The left side must only gain rows: what a row had found when it came isn't known any more when it goes.

use millstream_delta::{Cut, Delta};
use millstream_state::{Store, Tables};

use super::join::Join;
use crate::Result;
use crate::operator::{Content, Description, Growth, Operator, Output, Properties};

/// Looks up rows of its second input for those of its first.
#[derive(Debug)]
pub struct LookUp {
    join: Join,
    properties: Properties,
}

impl LookUp {
    /// The operator over a join without rows, in whose result nothing is by itself of the right side.
    pub fn new(join: Join) -> LookUp {
        let join = join.without_left();
        let properties = Properties { append_only: true, key: None, ..join.properties().clone() };
        LookUp { join, properties }
    }
}

impl Operator for LookUp {
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

    fn depends_on_cuts(&self) -> bool {
        true
    }

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

    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        None
    }

    fn state_rows(&self) -> usize {
        self.join.state_rows()
    }

    fn state_bytes(&self) -> usize {
        self.join.state_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut Store)) {
        self.join.each_store(show);
    }
}
