//! ASOF JOIN over rows that expire by event time. A row of the left side is final when the watermark of both
//! sides excludes a nearer row of the right side; it is then dropped.
//!
//! AsOf wraps an operator that finds the nearest right row for each left row, over the rows of both sides in
//! one order of time. When the watermark passes rows, they are deleted from that operator and its output for
//! the deletes is dropped, so emitted rows stay. There are two directions:
//!
//! - Looking back, a left row is final when the watermark has passed it. Only the last right rows of each key
//!   before the watermark can still match.
//! - Looking forward, a left row is final when the watermark has passed its match. Unmatched rows wait for a
//!   right row of their key.
//!
//! Rows and deletes below the watermark are late on both sides. If rows are emitted when they are final, the
//! wrapped operator gets them only then.
//!
//! Without a watermark of both sides nothing is final, and all rows are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::not;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::{Arranged, KeyIndex, Placed, Spillable, Tables};

use super::Window;
use super::gate::Gate;
use super::panes::Panes;
use crate::driver::evaluate;
use crate::event_time::count;
use crate::failure::keep;
use crate::late_rows::Lateness;
use crate::operator::{
    Abilities, ClosesWindows, Description, Growth, KeyedState, Operator, Output, Properties, State,
};
use crate::persistence::load_inner;
use crate::{Error, Result};

/// The definition of the nearest row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// True for the last row before, false for the first row after.
    pub backward: bool,
    /// True if the row may have the same time.
    pub meets: bool,
}

/// The columns by which rows expire.
#[derive(Debug)]
pub struct Settled {
    /// The event time of both sides, which is a column of the input.
    pub window: Window,
    /// The input's columns.
    pub schema: SchemaRef,
    /// The time of a row, and its type.
    pub time: (Arc<dyn PhysicalExpr>, DataType),
    /// The side of a row, and its value for right rows.
    pub side: (Arc<dyn PhysicalExpr>, ScalarValue),
    /// The key that matching rows share.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, DataType)>,
}

/// Finds the nearest right row for each left row.
#[derive(Debug)]
pub struct AsOf {
    inner: Box<dyn Operator>,
    properties: Properties,
    way: Way,
    /// The key's text.
    partition: String,
    open: Option<OpenRows>,
    /// The reason why all rows are kept, if so.
    why: String,
}

/// The state of rows that aren't final.
#[derive(Debug)]
struct OpenRows {
    gate: Gate,
    /// True if rows are emitted once, when they are final.
    on_close: bool,
    panes: Panes,
    time: Arc<dyn PhysicalExpr>,
    side: Arc<dyn PhysicalExpr>,
    right: ScalarValue,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
    index: KeyIndex,
    /// The kept rows that the watermark has passed, by key.
    stays: Arranged,
}

/// The outcome for rows that the watermark has passed.
struct SettledRows {
    gone: Delta,
    stays: Option<Chunk>,
    slots: Vec<u32>,
}

impl AsOf {
    /// Returns the saved state of the wrapped operator together with its own.
    fn beside(&self, inner: Tables) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_part("inner", inner);
        self.open.iter().try_for_each(|open| open.save(&mut kept))?;
        Ok(kept)
    }

    /// The operator's name in EXPLAIN.
    pub const NAME: &str = "AsOf";

    /// Wraps an operator whose last column is the nearest row, NULL if there is none. Under `on_close` rows
    /// are emitted once, when they are final. If `settled` is an error, it is the reason why no row is ever
    /// final.
    pub fn around(
        inner: Box<dyn Operator>,
        way: Way,
        partition: String,
        settled: std::result::Result<Settled, String>,
        on_close: bool,
    ) -> Result<AsOf> {
        let (open, why) = match settled {
            Ok(settled) => (Some(OpenRows::new(settled, on_close)?), String::new()),
            Err(why) => (None, why),
        };
        let mut properties = inner.properties().clone();
        properties.append_only |= on_close && open.is_some();
        Ok(AsOf { inner, properties, way, partition, open, why })
    }

    /// Emits the inserts of an answer that is emitted once. Looking forward, only those with a match: the
    /// others wait.
    fn put_out(&self, rows: Delta, output: &mut Delta) -> Result<()> {
        for chunk in rows.chunks {
            let weights = chunk.weights_or_ones();
            let nearest = chunk.rows.columns().last().ok_or_else(|| Error::Bug("no nearest row".into()))?;
            let comes = |row: usize| weights.value(row) > 0 && (self.way.backward || nearest.is_valid(row));
            let comes: BooleanArray = (0..weights.len()).map(|row| Some(comes(row))).collect();
            output.push(Chunk::insert(keep(&chunk, &comes)?.expand()?));
        }
        Ok(())
    }

    /// Drops the rows that are final at the end of an epoch.
    fn close(&mut self, cut: &Cut, output: &mut Output) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(passed) = open.pass(cut)? else { return Ok(()) };
        let SettledRows { gone, stays, slots } = open.part(&passed, self.way)?;
        if open.on_close {
            let answer = self.inner.step(cut, &[&Delta::of(passed)])?;
            output.failures.extend(answer.failures);
            self.put_out(answer.rows, &mut output.rows)?;
        }
        if !gone.is_empty() {
            self.inner.step(cut, &[&gone.negated()])?;
        }
        match &mut self.open {
            Some(open) => open.stay(stays, slots),
            None => Ok(()),
        }
    }
}

impl OpenRows {
    fn new(settled: Settled, on_close: bool) -> Result<OpenRows> {
        let Settled { window, schema, time: (time, data_type), side: (side, right), keys } = settled;
        let gate = Gate::new(vec![vec![time.clone()]], 0, (&window, data_type), on_close);
        let (keys, types): (Vec<_>, Vec<DataType>) = keys.into_iter().unzip();
        let (index, panes) = (KeyIndex::new(types.clone())?, Panes::new(vec![schema.clone()]));
        Ok(OpenRows {
            gate,
            on_close,
            panes,
            time,
            side,
            right,
            keys,
            types,
            index,
            stays: Arranged::new(schema),
        })
    }

    /// Returns the rows that are in time.
    fn enter(&mut self, delta: &Delta, output: &mut Output) -> Result<Delta> {
        let mut taken = Delta::default();
        for entered in self.gate.enter(0, delta, output)? {
            self.panes.hold(0, &entered.chunk, &entered.times)?;
            taken.push(entered.chunk);
        }
        Ok(taken)
    }

    /// Returns the rows that the watermark passes with this epoch.
    fn pass(&mut self, cut: &Cut) -> Result<Option<Chunk>> {
        let Some(bound) = self.gate.pass(cut)? else { return Ok(None) };
        let passed = self.panes.close(bound)?.pop().unwrap_or_default();
        Ok(passed.into_one(self.stays.schema())?.filter(|chunk| chunk.rows.num_rows() > 0))
    }

    /// Separates the rows that nothing can match any more, among passed rows and those kept before. A kept
    /// row is older than any right row passed later, so it is dropped with the first passed right row of its
    /// key.
    fn part(&mut self, passed: &Chunk, way: Way) -> Result<SettledRows> {
        let rows = &passed.rows;
        let mut exprs = vec![self.time.clone(), self.side.clone()];
        exprs.extend(self.keys.iter().cloned());
        let values = evaluate(&exprs, rows)?;
        let times = count(&values[0])?;
        let right = eq(&values[1], &self.right.to_scalar()?)?;
        let mut slots = Vec::with_capacity(rows.num_rows());
        self.index.slots(&values[2..], &mut slots)?;
        // The time of the last right row, by key.
        let mut last: BTreeMap<u32, i64> = BTreeMap::new();
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| right.value(*row)) {
            let at = last.entry(*slot).or_insert(i64::MIN);
            *at = times.value(row).max(*at);
        }
        let stays = |row: usize| {
            let last = last.get(&slots[row]).copied();
            match (way.backward, right.value(row)) {
                (true, true) => last == Some(times.value(row)),
                (false, false) if way.meets => last.is_none_or(|last| times.value(row) > last),
                (false, false) => last.is_none_or(|last| times.value(row) >= last),
                (true, false) | (false, true) => false,
            }
        };
        let stays: BooleanArray = (0..rows.num_rows()).map(|row| Some(stays(row))).collect();
        let mut gone = Delta::default();
        let touched: Vec<u32> = last.keys().copied().collect();
        self.stays.gather(&touched)?.into_iter().for_each(|rows| gone.push(Chunk::insert(rows)));
        self.stays.forget(&touched)?;
        gone.push(keep(passed, &not(&stays)?)?);
        let stay = (stays.true_count() > 0).then(|| keep(passed, &stays)).transpose()?;
        // Slots of kept rows come first, then those that may have no row left.
        let (mut of, rest): (Vec<_>, Vec<_>) = (0..slots.len()).partition(|row| stays.value(*row));
        of.extend(rest);
        Ok(SettledRows { gone, stays: stay, slots: of.into_iter().map(|row| slots[row]).collect() })
    }

    /// Saves the state of rows that aren't final.
    fn save(&self, kept: &mut Tables) -> Result<()> {
        self.gate.save(kept)?;
        self.panes.save(kept)?;
        let slots = self.index.save("keys", &[], kept)?;
        Ok(self.stays.save(&slots, "stays", kept)?)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.gate.load(kept)?;
        self.panes.load(kept)?;
        let keys = self.index.load("keys", kept)?;
        Ok(self.stays.load(keys, "stays", kept)?)
    }

    /// Keeps rows, and drops keys without rows.
    fn stay(&mut self, rows: Option<Chunk>, mut slots: Vec<u32>) -> Result<()> {
        if let Some(chunk) = rows {
            let slots = slots[..chunk.rows.num_rows()].to_vec();
            self.stays.apply(vec![Placed { chunk, slots, tallies: None }])?;
        }
        slots.sort_unstable();
        slots.dedup();
        let empty = slots.iter().filter(|slot| self.stays.rows_of(**slot) == 0);
        empty.for_each(|slot| self.index.free(*slot));
        Ok(())
    }
}

impl Operator for AsOf {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let nearest = match self.way {
            Way { backward: true, meets: true } => "the last right row up to each left row",
            Way { backward: true, meets: false } => "the last right row before each left row",
            Way { backward: false, meets: true } => "the first right row from each left row on",
            Way { backward: false, meets: false } => "the first right row after each left row",
        };
        let of = if self.partition.is_empty() { String::new() } else { format!(", by {}", self.partition) };
        let key = if self.partition.is_empty() { "" } else { " of each key" };
        let (state, growth) = match &self.open {
            None => ("its input in order".into(), Growth::With(format!("its input, since {}", self.why))),
            Some(open) => {
                let rest = match self.way.backward {
                    true => format!("the last right rows{key} before it"),
                    false => format!("left rows that no right one{key} has followed"),
                };
                let when = if open.on_close { "; emitted when the watermark has passed them" } else { "" };
                (
                    format!("its input in order{when}"),
                    Growth::BoundedBy(format!("rows above the watermark of both sides, and {rest}")),
                )
            }
        };
        let detail = format!("{nearest}{of}");
        Description { name: AsOf::NAME, detail, state, growth, ..self.inner.describe() }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let Some(open) = &mut self.open else { return self.inner.step(cut, inputs) };
        let [input] = inputs else { return Err(Error::Bug("AsOf has one input".into())) };
        let mut output = Output::default();
        let taken = open.enter(input, &mut output)?;
        if !open.on_close {
            let answer = self.inner.step(cut, &[&taken])?;
            output.rows = answer.rows;
            output.failures.extend(answer.failures);
        }
        self.close(cut, &mut output)?;
        if let Some(open) = &mut self.open {
            open.gate.plan(open.panes.first(), cut)?;
        }
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        match &self.open {
            Some(open) => Abilities { timers: Some(&open.gate), windows: Some(open), ..Abilities::default() },
            None => Abilities { result: self.inner.abilities().result, ..Abilities::default() },
        }
    }

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        // Rows that expire by time don't expire by key.
        if self.open.is_some() { None } else { self.inner.as_keyed() }
    }
}

impl State for AsOf {
    fn reset(&mut self) -> Result<()> {
        self.inner.reset()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.gate.reset();
        open.panes.clear();
        open.index = KeyIndex::new(open.types.clone())?;
        open.stays = Arranged::new(open.stays.schema().clone());
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
        self.open.iter_mut().try_for_each(|open| open.load(kept))
    }

    fn state_rows(&self) -> usize {
        let held = self.open.as_ref().filter(|open| open.on_close).map_or(0, |open| open.panes.num_rows());
        self.inner.state_rows() + held
    }

    fn state_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| {
            open.panes.memory_bytes() + open.index.memory_bytes() + open.stays.memory_bytes()
        });
        self.inner.state_bytes() + open
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.inner.each_store(show);
        if let Some(open) = &mut self.open {
            show(&mut open.index);
            show(&mut open.stays);
        }
    }
}

impl ClosesWindows for OpenRows {
    fn late(&self) -> Lateness {
        self.gate.lateness()
    }

    fn waiting(&self) -> Option<String> {
        let first = self.gate.first().filter(|_| self.on_close)?;
        Some(format!(
            "its rows are emitted when the watermark of both sides has passed them: the first is of {first}"
        ))
    }
}
