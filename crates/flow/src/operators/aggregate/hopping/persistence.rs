//! Saves the groups of panes as tables.

use millstream_state::Tables;

use super::{Absorb, HoppingAggregate, Touched};
use crate::Result;
use crate::operators::aggregate::persistence::in_part;

impl HoppingAggregate {
    /// Saves all state except totals, which follow from the panes that they contain. Totals of aggregates
    /// that can't subtract are empty between steps.
    pub(super) fn kept(&self) -> Result<Tables> {
        self.with_parts(self.parts.save_some(|_| true)?)
    }

    /// Does the same for a checkpoint: only the changed groups of panes.
    pub(super) fn changed(&self) -> Result<Tables> {
        self.with_parts(self.parts.changed_groups()?)
    }

    fn with_parts(&self, parts: Tables) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("parts", parts);
        kept.put_number("added_to", self.added_to);
        kept.put_number_if("first_open", self.first_open);
        let mut gate = Tables::default();
        self.gate.save(&mut gate)?;
        kept.put_part("gate", gate);
        Ok(kept)
    }

    pub(super) fn go_on(&mut self, kept: &mut Tables) -> Result<()> {
        let parts = &mut self.parts;
        let slots = in_part(kept, "parts", |kept| parts.load_some(kept, |_| true))?;
        self.added_to = kept.take_number("added_to")?;
        self.first_open = kept.take_number_if("first_open");
        let gate = &mut self.gate;
        in_part(kept, "gate", |kept| gate.load(kept))?;
        let groups = slots.iter().map(|slot| self.parts.groups.now(&Touched { slot: *slot, rows: 0 }));
        let groups: Vec<Touched> = groups.collect();
        self.open(slots)?;
        self.merge(self.added(groups), Absorb::Add)
    }
}
