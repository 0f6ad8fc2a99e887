//! One side of a join below windows that close: its rows leave the join's state with their windows.
//!
//! Any later join output of such a row is late for its windows, whatever arrives on the other side. So the
//! row is deleted from the join when its window closes, and the join's output for the delete is dropped:
//! results of closed windows stay. A row that arrives for a closed window is late here, and the join doesn't
//! get it.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Cut, Delta};
use millstream_state::{Spillable, Tables};

use super::gate::Gate;
use super::panes::Panes;
use super::{Window, open_windows};
use crate::Result;
use crate::late_rows::{Late, Lateness};
use crate::operator::{Abilities, ClosesWindows, Description, Growth, Operator, Output, Properties, State};
use crate::persistence::load_inner;

/// A join, one side of which drops rows with their windows.
#[derive(Debug)]
pub struct JoinSideExpiry {
    inner: Box<dyn Operator>,
    /// The side whose rows are dropped.
    side: usize,
    gate: Gate,
    name: String,
    panes: Panes,
}

impl JoinSideExpiry {
    /// Returns the saved state of the wrapped operator together with its own.
    fn beside(&self, inner: Tables) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("inner", inner);
        self.gate.save(&mut kept)?;
        self.panes.save(&mut kept)?;
        Ok(kept)
    }

    /// Wraps a join; `time` is the time of a row's window, over the rows of `side`, which have these columns.
    /// Under `on_close` windows are emitted once, when they close.
    pub fn around(
        inner: Box<dyn Operator>,
        (side, schema): (usize, SchemaRef),
        (time, data_type): (Arc<dyn PhysicalExpr>, DataType),
        window: Window,
        on_close: bool,
    ) -> JoinSideExpiry {
        let gate = Gate::new(vec![vec![time]], 0, (&window, data_type), on_close);
        JoinSideExpiry { inner, side, gate, name: window.name, panes: Panes::new(vec![schema]) }
    }

    /// Deletes the rows whose windows the watermark has passed.
    fn close(&mut self, cut: &Cut) -> Result<()> {
        let Some(bound) = self.gate.pass(cut)? else { return Ok(()) };
        let gone = self.panes.close(bound)?.pop().unwrap_or_default().negated();
        if gone.is_empty() {
            return Ok(());
        }
        let none = Delta::default();
        let mut inputs = [&none, &none];
        inputs[self.side] = &gone;
        self.inner.step(cut, &inputs)?;
        Ok(())
    }
}

impl Operator for JoinSideExpiry {
    fn properties(&self) -> &Properties {
        self.inner.properties()
    }

    fn describe(&self) -> Description {
        let mut about = self.inner.describe();
        let side = ["left", "right"][self.side];
        about.state.push_str(&format!("; of the {side} only open windows"));
        if let Growth::BoundedBy(of_side) = open_windows(&self.name) {
            let other = ["right", "left"][self.side];
            about.growth = Growth::With(format!("its {other} input; of the {side}, bounded by {of_side}"));
        }
        about
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let (mut told, mut taken) = (Output::default(), Delta::default());
        for entered in self.gate.enter(0, inputs[self.side], &mut told)? {
            self.panes.hold(0, &entered.chunk, &entered.times)?;
            taken.push(entered.chunk);
        }
        let mut inputs = [inputs[0], inputs[1]];
        inputs[self.side] = &taken;
        let mut output = self.inner.step(cut, &inputs)?;
        output.failures.extend(told.failures);
        output.late.extend(told.late.into_iter().map(|late| Late { input: self.side, ..late }));
        self.close(cut)?;
        self.gate.plan(self.panes.first(), cut)?;
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { timers: Some(&self.gate), windows: Some(self), ..Abilities::default() }
    }
}

impl State for JoinSideExpiry {
    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        self.gate.reset();
        self.panes.clear();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.beside(self.inner.save()?)
    }

    fn save_changed(&self) -> Result<Tables> {
        self.beside(self.inner.save_changed()?)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        load_inner(self.inner.as_mut(), kept)?;
        self.gate.load(kept)?;
        self.panes.load(kept)
    }

    fn state_rows(&self) -> usize {
        self.inner.state_rows()
    }

    fn state_bytes(&self) -> usize {
        self.inner.state_bytes() + self.panes.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.inner.each_store(show);
    }
}

impl ClosesWindows for JoinSideExpiry {
    fn late(&self) -> Lateness {
        self.gate.lateness()
    }
}
