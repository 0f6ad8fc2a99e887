//! Buffered input: an operator gets a window's rows only when the window closes, so it takes each row once.

use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Cut, Delta, consolidate};
use millstream_state::{Spillable, Tables};

use super::gate::Gate;
use super::panes::Panes;
use super::{Window, open_windows};
use crate::Result;
use crate::late_rows::Lateness;
use crate::operator::{Abilities, ClosesWindows, Description, KeyedBy, Operator, Output, Properties, State};

/// An operator whose input is held until its windows close.
#[derive(Debug)]
pub(super) struct InputBuffer {
    inner: Box<dyn Operator>,
    properties: Properties,
    gate: Gate,
    name: String,
    panes: Panes,
}

impl InputBuffer {
    pub(super) fn around(
        inner: Box<dyn Operator>,
        schemas: Vec<SchemaRef>,
        by: KeyedBy,
        window: Window,
    ) -> InputBuffer {
        let properties =
            Properties { append_only: true, keeps_open_windows: true, ..inner.properties().clone() };
        let data_type = by.types[window.column].clone();
        let times = by.keys.into_iter().map(|keys| vec![keys[window.column].clone()]).collect();
        let gate = Gate::new(times, 0, (&window, data_type), true);
        InputBuffer { inner, properties, gate, name: window.name, panes: Panes::new(schemas) }
    }

    /// Gives the operator the windows that the watermark has passed.
    fn close(&mut self, cut: &Cut, output: &mut Output) -> Result<()> {
        let Some(bound) = self.gate.pass(cut)? else { return Ok(()) };
        let inputs = self.panes.close(bound)?;
        if inputs.iter().all(Delta::is_empty) {
            return Ok(());
        }
        let answer = self.inner.step(cut, &inputs.iter().collect::<Vec<_>>())?;
        self.inner.reset()?;
        output.failures.extend(answer.failures);
        output.late.extend(answer.late);
        let rows = match answer.rows.is_append_only() {
            true => answer.rows,
            false => consolidate(answer.rows, &self.properties.schema)?,
        };
        for chunk in rows.chunks {
            output.rows.push(Chunk::insert(chunk.expand()?));
        }
        Ok(())
    }
}

impl Operator for InputBuffer {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let mut about = self.inner.describe();
        about.state = "its input until windows close".into();
        about.growth = open_windows(&self.name);
        about
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        for (input, delta) in inputs.iter().enumerate() {
            for entered in self.gate.enter(input, delta, &mut output)? {
                self.panes.hold(input, &entered.chunk, &entered.times)?;
            }
        }
        self.close(cut, &mut output)?;
        self.gate.plan(self.panes.first(), cut)?;
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { timers: Some(&self.gate), windows: Some(self), ..Abilities::default() }
    }
}

impl State for InputBuffer {
    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        self.gate.reset();
        self.panes.clear();
        Ok(())
    }

    /// Saves the gate and the rows. The operator starts empty with each close, so it has no state in between.
    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.gate.save(&mut kept)?;
        self.panes.save(&mut kept)?;
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.gate.load(kept)?;
        self.panes.load(kept)
    }

    fn state_rows(&self) -> usize {
        self.panes.num_rows()
    }

    fn state_bytes(&self) -> usize {
        self.panes.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.inner.each_store(show);
    }
}

impl ClosesWindows for InputBuffer {
    fn waiting(&self) -> Option<String> {
        self.gate.waiting(&self.name)
    }

    fn late(&self) -> Lateness {
        self.gate.lateness()
    }
}
