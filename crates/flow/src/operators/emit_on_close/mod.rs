//! Windows that close: each gets its last answer when the watermark passes its end.
//!
//! Closing wraps an operator with a key column that is the time of windows: an aggregate by windows, a top-N
//! or OVER of each, a join of two streams by windows. A row that arrives for a closed window is late: it is
//! emitted as late and the operator doesn't get it. At the end of an epoch that moves the watermark, the
//! windows that it passes are closed and their state is dropped. Windows emitted once are emitted then; else
//! changes are emitted as they occur, and the last result stays.
//!
//! A window's answer depends on the cuts: it is the batch answer over all rows taken up to the epoch that
//! closed it. A failure of a closed window is final.
//!
//! Deliberately absent: finding the operators with windows and their event time; see `lower`.

mod as_of;
mod gate;
mod input_buffer;
mod join_side_expiry;
mod open_keys;
mod panes;
#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Cut, Delta, Timestamp};
use millstream_state::{Rows, Spillable, Tables};

use crate::Result;
use crate::event_time::EventTime;
use crate::late_rows::Lateness;
use crate::operator::{
    Abilities, ClosesWindows, Content, Cost, Description, Forgotten, Growth, KeepsResult, KeyedBy, Operator,
    Output, Properties, RetainsClosed, State, Timers, forget,
};
use crate::persistence::load_inner;
use crate::point_lookup::Wanted;
pub use as_of::{AsOf, Settled, Way};
use gate::Entered;
pub(crate) use gate::Gate;
use input_buffer::InputBuffer;
pub use join_side_expiry::JoinSideExpiry;
use open_keys::OpenKeys;

/// The key column of an operator that identifies windows.
#[derive(Clone, Debug)]
pub struct Window {
    /// Its place in the key.
    pub column: usize,
    /// Its name for people.
    pub name: String,
    /// Its event time.
    pub time: EventTime,
}

/// Wraps an operator over such inputs so that its windows close; returns it unchanged if it can't expire
/// keys. Under `on_close` windows are emitted once, when they close.
pub fn around(
    mut inner: Box<dyn Operator>,
    inputs: Vec<SchemaRef>,
    window: Window,
    on_close: bool,
) -> std::result::Result<Box<dyn Operator>, Box<dyn Operator>> {
    let by = inner.as_keyed().and_then(|keyed| keyed.keyed_by().ok());
    let Some(by) = by.filter(|by| by.keys.len() == inputs.len()) else { return Err(inner) };
    // The operator returns the output of forgotten keys, so it need not be recomputed.
    let gives = by.remembers && inner.properties().cost == Cost::Delta;
    if on_close && !gives {
        return Ok(Box::new(InputBuffer::around(inner, inputs, by, window)));
    }
    let told = inner.as_keyed().is_some_and(|keyed| keyed.tell_opened());
    if !told && by.keys.iter().any(|keys| keys.len() < by.types.len()) {
        return Err(inner);
    }
    let Ok(open) = OpenKeys::new(by.types.clone(), window.column, told) else { return Err(inner) };
    let mut properties = inner.properties().clone();
    properties.append_only |= on_close;
    properties.keeps_open_windows = true;
    let data_type = by.types[window.column].clone();
    // If the operator reports new keys, only the time of each row is computed here.
    let (exprs, column) = match told {
        true => (by.keys.iter().map(|keys| vec![keys[window.column].clone()]).collect(), 0),
        false => (by.keys.clone(), window.column),
    };
    let gate = Gate::new(exprs, column, (&window, data_type), on_close);
    Ok(Box::new(Closing { inner, properties, by, gate, name: window.name, on_close, open, closed: None }))
}

/// An operator that forgets windows when they close.
#[derive(Debug)]
struct Closing {
    inner: Box<dyn Operator>,
    properties: Properties,
    by: KeyedBy,
    gate: Gate,
    name: String,
    /// True if windows are emitted once, when they close.
    on_close: bool,
    open: OpenKeys,
    /// The last results of closed windows, if readers need them.
    closed: Option<Rows>,
}

impl Closing {
    /// Returns the saved state of the wrapped operator together with its own.
    fn beside(&self, inner: Tables) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("inner", inner);
        self.gate.save(&mut kept)?;
        self.open.save(&mut kept)?;
        Ok(kept)
    }

    /// Returns the rows of an input's delta that are in time.
    fn take(&mut self, input: usize, delta: &Delta, output: &mut Output) -> Result<Delta> {
        let mut taken = Delta::default();
        for Entered { chunk, values, times } in self.gate.enter(input, delta, output)? {
            self.open.see(&values, &times, self.by.nulls_apart)?;
            taken.push(chunk);
        }
        Ok(taken)
    }

    /// Closes the windows that the watermark has passed.
    fn close(&mut self, cut: &Cut, rows: &mut Delta) -> Result<()> {
        let Some(bound) = self.gate.pass(cut)? else { return Ok(()) };
        let (inner, on_close, closed) = (&mut self.inner, self.on_close, &mut self.closed);
        self.open.close(bound, |keys| {
            let Forgotten { rows: last, failures: _ } = forget(inner.as_mut(), keys)?;
            if let Some(closed) = closed {
                closed.apply(&Delta::from_iter(last.into_iter().map(|(batch, _)| batch)))?;
            } else if on_close {
                last.into_iter().for_each(|(batch, _)| rows.push(Chunk::insert(batch)));
            }
            Ok(())
        })
    }

    fn advance(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Output> {
        let mut told = Output::default();
        let mut taken = Vec::with_capacity(inputs.len());
        for (input, delta) in inputs.iter().enumerate() {
            taken.push(self.take(input, delta, &mut told)?);
        }
        let taken: Vec<&Delta> = taken.iter().collect();
        let mut output = match read && !self.on_close {
            true => self.inner.step(cut, &taken)?,
            false => self.inner.step_unread(cut, &taken)?,
        };
        output.failures.extend(told.failures);
        output.late = told.late;
        if let Some(keys) = output.opened.take() {
            self.open.told(keys)?;
        }
        if self.on_close {
            (output.rows, output.left_out) = (Delta::default(), 0);
        }
        self.close(cut, &mut output.rows)?;
        self.gate.plan(self.open.first(), cut)?;
        Ok(output)
    }

    /// Returns the results of open windows and the retained ones of closed windows.
    fn with_closed(&self, open: Content) -> Content {
        let closed = self.closed.as_ref()?;
        let with = |mut all: Vec<RecordBatch>| {
            all.extend(closed.snapshot().batches()?);
            Ok(all)
        };
        Some(open?.and_then(with))
    }
}

impl Operator for Closing {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let mut about = self.inner.describe();
        about.state.push_str(match self.on_close {
            true => "; emitted when windows close",
            false => "; dropped when windows close",
        });
        about.growth = open_windows(&self.name);
        about
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, true)
    }

    fn step_unread(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        self.advance(cut, inputs, self.on_close)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities {
            timers: Some(self),
            windows: Some(self),
            result: self.closed.is_some().then_some(self as _),
            ..Abilities::default()
        }
    }

    fn as_retaining(&mut self) -> Option<&mut dyn RetainsClosed> {
        Some(self)
    }
}

impl State for Closing {
    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        self.gate.reset();
        self.retain_closed(self.closed.is_some());
        self.open.reset()
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = self.beside(self.inner.save()?)?;
        if let Some(closed) = &self.closed {
            kept.put_delta("closed", &closed.snapshot().delta()?)?;
        }
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = self.beside(self.inner.save_changed()?)?;
        if let Some(closed) = &self.closed {
            closed.save_changed("closed", &mut kept)?;
        }
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        load_inner(self.inner.as_mut(), kept)?;
        self.gate.load(kept)?;
        self.open.load(kept)?;
        if let Some(closed) = &mut self.closed {
            *closed = Rows::new(closed.schema().clone());
            closed.apply(&kept.take_delta("closed")?)?;
        }
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.inner.state_rows()
    }

    fn state_bytes(&self) -> usize {
        self.inner.state_bytes() + self.open.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.inner.each_store(show);
        self.closed.iter_mut().for_each(|closed| show(closed));
    }
}

impl Timers for Closing {
    fn is_due(&self, cut: &Cut) -> bool {
        self.gate.is_due(cut) || self.inner.abilities().is_due(cut)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.gate.wake_at().into_iter().chain(self.inner.abilities().wake_at()).min()
    }
}

impl ClosesWindows for Closing {
    fn waiting(&self) -> Option<String> {
        self.gate.waiting(&self.name).filter(|_| self.on_close)
    }

    fn closed(&self) -> Option<&Rows> {
        self.closed.as_ref()
    }

    fn late(&self) -> Lateness {
        self.gate.lateness()
    }
}

impl RetainsClosed for Closing {
    fn retain_closed(&mut self, retain: bool) {
        self.closed = (retain && !self.on_close).then(|| Rows::new(self.properties.schema.clone()));
    }
}

impl KeepsResult for Closing {
    fn content(&self, input: &dyn Fn(usize) -> Content) -> Content {
        self.with_closed(self.inner.abilities().content(input))
    }

    fn content_wanted(&self, wanted: &Wanted, input: &dyn Fn(usize, &Wanted) -> Content) -> Content {
        self.with_closed(self.inner.abilities().content_wanted(wanted, input))
    }
}

/// Returns the growth of the state of windows.
pub(crate) fn open_windows(name: &str) -> Growth {
    Growth::BoundedBy(format!("the open windows by {name}"))
}
