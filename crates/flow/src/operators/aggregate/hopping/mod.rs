//! GROUP BY over overlapping windows, emitted when they close. The cost is that of the arriving rows and of
//! the groups of each pane, however many windows contain a row.
//!
//! Each row is counted once, to the group of its pane and key ([`hops`] defines panes). A window is computed
//! from its panes when it closes. Aggregates that can subtract have a total over the panes of the last closed
//! window: for the next window the panes that it gains are added and those that it loses are subtracted. For
//! the others (minima, bits) the results of the panes are merged again, one value for each group and pane.
//!
//! Lateness is per window: a row may be late for closed windows and in time for others. Its pane takes it in,
//! and so does the total if it contains the pane, as if the row had been there always. The row is emitted as
//! late once for each closed window that contains it. The rows of a pane are dropped with the last of its
//! windows, so that a delete finds its insert's pane.
//!
//! Deliberately absent: windows that are emitted while they change, which would all change with each of their
//! rows; aggregates that can't be merged exactly, such as those of DISTINCT values.

mod hops;
mod late_rows;
mod members;
mod persistence;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Aggregate as AggregatePlan, LogicalPlan};
use datafusion::physical_expr::expressions::Column;
use millstream_delta::{Chunk, Cut, Delta};
use millstream_state::{Spillable, Tables};

use super::call::{Call, CallState};
use super::groups::{Grouping, Groups, Touched};
use super::lower::{Rows, lower_over};
use super::slot::{Absorb, Batch, Pair, SlotAggregate};
use super::{Aggregate, RoutedRows};
use crate::event_time::{Edge, of_count};
use crate::failure::{Failure, surviving};
use crate::late_rows::Lateness;
use crate::operator::{
    Abilities, ClosesWindows, Cost, Description, Forgotten, Operator, Output, Properties, State,
};
use crate::operators::emit_on_close::{Gate, Window, open_windows};
use crate::{Driver, Result};
pub(crate) use hops::Hops;
use members::Members;

/// The name of the column of panes.
const PANE: &str = "pane";

/// The windows by which a node groups its rows, and their columns.
#[derive(Clone, Debug)]
pub(crate) struct Hopping {
    pub(crate) hops: Hops,
    /// Columns that represent the starts and the ends of windows: all hold the row's own time.
    pub(crate) columns: Vec<(usize, Edge)>,
    /// For each key of the groups, the edge of a window that it holds, if any.
    pub(crate) keys: Vec<Option<Edge>>,
}

/// Keeps the aggregates of panes, and emits those of windows.
#[derive(Debug)]
pub struct HoppingAggregate {
    properties: Properties,
    hopping: Hopping,
    /// The aggregates by pane and key.
    parts: Aggregate,
    /// The aggregates by key, over the panes of the last closed window.
    total: Aggregate,
    members: Members,
    /// The upper bound of the panes in the total; it contains all existing panes that begin below.
    added_to: i64,
    /// The end of the first open window; `None` before one has closed.
    first_open: Option<i64>,
    gate: Gate,
    /// The edge by which windows close, and its name.
    edge: Edge,
    name: String,
    time_type: DataType,
    /// The columns of rows with the pane.
    schema: SchemaRef,
}

/// Returns the operator for a node over rows with their own times in place of windows, or the reason why
/// there is none.
pub(crate) fn lower(
    plan: &LogicalPlan,
    node: &AggregatePlan,
    hopping: Hopping,
    append_only: bool,
    window: &Window,
    driver: &Driver,
) -> Result<std::result::Result<HoppingAggregate, String>> {
    let rows = if append_only { Rows::Stay } else { Rows::Change };
    let mut total = match lower_over(plan, node, rows, driver)? {
        Ok(total) => total,
        Err(reason) => return Ok(Err(reason)),
    };
    if let Some(reason) = total.calls.iter().find_map(refused) {
        return Ok(Err(reason));
    }
    let others = node.group_expr.iter().zip(&hopping.keys).filter(|(_, edge)| edge.is_none());
    let others = others.map(|(key, _)| key.clone()).collect();
    let of_panes = AggregatePlan::try_new(node.input.clone(), others, node.aggr_expr.clone())?;
    let mut parts = match lower_over(&LogicalPlan::Aggregate(of_panes.clone()), &of_panes, rows, driver)? {
        Ok(parts) => parts,
        Err(reason) => return Ok(Err(reason)),
    };
    let fields = node.input.schema().as_arrow().fields();
    let mut keys: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>> =
        vec![Arc::new(Column::new(PANE, fields.len()))];
    keys.append(&mut parts.groups.grouping.keys);
    let schema = total.properties.schema.clone();
    let types = schema.fields().iter().zip(&hopping.keys).filter(|(_, edge)| edge.is_none());
    let types: Vec<DataType> = types.map(|(field, _)| field.data_type().clone()).collect();
    let by_pane: Vec<DataType> = [DataType::Int64].into_iter().chain(types.iter().cloned()).collect();
    parts.groups = Groups::new(Grouping { keys, sets: Vec::new() }, &by_pane)?;
    parts.groups.has_few(&[0]);
    // Without other keys there is one group, which needs some key all the same.
    let types = if types.is_empty() { vec![DataType::Int64] } else { types };
    total.groups = Groups::new(total.groups.grouping.clone(), &types)?;
    for call in &mut total.calls {
        if let CallState::Slots(slots) = &call.kept
            && let Some(of_results) = slots.of_results().filter(|_| !slots.subtracts())
        {
            call.kept = CallState::Slots(of_results);
        }
    }
    Ok(Ok(HoppingAggregate::new(parts, total, hopping, window, fields)))
}

/// Returns the reason why the calls of a node can't be computed from panes, if any, whether rows are deleted
/// or not.
pub(crate) fn refuses(plan: &LogicalPlan, node: &AggregatePlan, driver: &Driver) -> Result<Option<String>> {
    Ok(match lower_over(plan, node, Rows::Change, driver)? {
        Ok(total) => total.calls.iter().find_map(refused),
        Err(_) => Some("its aggregates can't be merged from panes".into()),
    })
}

/// Returns the reason why a call's result doesn't follow from its results over panes, if so.
fn refused(call: &Call) -> Option<String> {
    let follows = slots_of(call).is_none_or(|slots| slots.subtracts() || slots.of_results().is_some());
    (!follows).then(|| format!("{} can't be merged from panes", call.text))
}

fn slots_of(call: &Call) -> Option<&dyn SlotAggregate> {
    match &call.kept {
        CallState::Rows => None,
        CallState::Slots(slots) => Some(slots.as_ref()),
    }
}

impl HoppingAggregate {
    fn new(
        parts: Aggregate,
        total: Aggregate,
        hopping: Hopping,
        window: &Window,
        fields: &arrow::datatypes::Fields,
    ) -> HoppingAggregate {
        let time_type =
            hopping.columns.first().map_or(DataType::Null, |(column, _)| fields[*column].data_type().clone());
        let pane = Arc::new(Field::new(PANE, DataType::Int64, true));
        let all: Vec<_> = fields.iter().cloned().chain([pane]).collect();
        let properties = Properties { append_only: true, cost: Cost::Delta, ..total.properties.clone() };
        HoppingAggregate {
            properties,
            gate: Gate::new(Vec::new(), 0, (window, time_type.clone()), true),
            edge: hopping.keys[window.column].unwrap_or(Edge::Start),
            name: window.name.clone(),
            hopping,
            parts,
            total,
            members: Members::default(),
            added_to: i64::MIN,
            first_open: None,
            time_type,
            schema: Arc::new(Schema::new(all)),
        }
    }

    /// Adds rows in time to their panes.
    fn take(&mut self, rows: &Delta, output: &mut Output) -> Result<()> {
        let RoutedRows { touched, placed, failures } = self.parts.take(&[rows])?;
        output.failures.extend(failures);
        // Subtracts the old state of panes from the total that contains them, and adds the new state.
        let were: Vec<Touched> = touched.iter().filter(|group| group.rows > 0).copied().collect();
        self.merge(self.added(were), Absorb::Subtract)?;
        self.parts.update(&placed)?;
        self.follow(&touched)?;
        let are = touched.iter().map(|group| self.parts.groups.now(group)).filter(|group| group.rows > 0);
        let are = self.added(are.collect());
        self.merge(are, Absorb::Add)?;
        self.parts.end_step(&touched)
    }

    /// Returns the groups whose pane is in the total.
    fn added(&self, mut groups: Vec<Touched>) -> Vec<Touched> {
        groups.retain(|group| self.members.pane(group.slot) < self.added_to);
        groups
    }

    /// Adds groups of panes to the total, or subtracts them.
    fn merge(&mut self, groups: Vec<Touched>, change: Absorb) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let pairs: Vec<Pair> =
            groups.iter().map(|group| (group.slot, self.members.total(group.slot))).collect();
        for (group, (_, total)) in groups.iter().zip(&pairs) {
            self.total.groups.add(*total, change.sign() * group.rows);
        }
        for (call, part) in self.total.calls.iter_mut().zip(&self.parts.calls) {
            if let (CallState::Slots(sum), CallState::Slots(part)) = (&mut call.kept, &part.kept)
                && sum.subtracts()
            {
                sum.absorb(part.as_ref(), &pairs, change)?;
            }
        }
        Ok(())
    }

    /// Records new and emptied groups of panes.
    fn follow(&mut self, touched: &[Touched]) -> Result<()> {
        let (mut opened, mut emptied) = (Vec::new(), Vec::new());
        for group in touched {
            match (group.rows > 0, self.parts.groups.now(group).rows > 0) {
                (false, true) => opened.push(group.slot),
                (true, false) => emptied.push(group.slot),
                _ => {}
            }
        }
        for slot in emptied {
            if let Some(total) = self.members.remove(slot) {
                self.free(total);
            }
        }
        self.open(opened)
    }

    /// Records new groups of panes.
    fn open(&mut self, opened: Vec<u32>) -> Result<()> {
        if opened.is_empty() {
            return Ok(());
        }
        let mut keys = self.parts.groups.keys(&opened)?;
        let panes = crate::event_time::count(&keys.remove(0))?;
        if keys.is_empty() {
            keys.push(Arc::new(Int64Array::from_value(0, opened.len())));
        }
        let totals = self.total.groups.slots(&keys, opened.len())?;
        self.total.resize();
        for ((slot, pane), total) in opened.into_iter().zip(panes.values()).zip(totals) {
            self.members.insert(slot, *pane, total);
        }
        Ok(())
    }

    /// Drops the total of a key that is in no pane.
    fn free(&mut self, total: u32) {
        self.total.groups.forget(&[Touched { slot: total, rows: 0 }]);
        self.total.calls.iter_mut().for_each(|call| call.free(total));
    }

    /// Emits the windows that the watermark has passed, and drops the panes that only they needed.
    fn close(&mut self, cut: &Cut, output: &mut Output) -> Result<()> {
        let Some(below) = self.gate.pass(cut)? else { return Ok(()) };
        let hops = self.hopping.hops;
        let bound = match self.edge {
            Edge::Start => hops.end_of_start(below),
            Edge::End => hops.end_from(below),
        };
        while let Some(end) = self.first().filter(|end| *end < bound) {
            self.put_out(end, output)?;
            self.leave(end + hops.step())?;
        }
        self.leave(bound)
    }

    /// Returns the end of the first open window with rows.
    fn first(&self) -> Option<i64> {
        let first = self.hopping.hops.first_end(self.members.first()?);
        Some(self.first_open.map_or(first, |open| open.max(first)))
    }

    /// Drops the panes of closed windows; `first_open` is the end of the first open one.
    fn leave(&mut self, first_open: i64) -> Result<()> {
        self.first_open = self.first_open.max(Some(first_open));
        let from = self.hopping.hops.start(first_open);
        while let Some(slots) = self.members.first_below(from) {
            let groups: Vec<Touched> =
                slots.iter().map(|slot| self.parts.groups.now(&Touched { slot: *slot, rows: 0 })).collect();
            self.merge(self.added(groups.clone()), Absorb::Subtract)?;
            self.parts.groups.forget(&groups);
            self.parts.calls.iter_mut().for_each(|call| call.forget_slots(&slots));
            for total in self.members.remove_first() {
                self.free(total);
            }
        }
        Ok(())
    }

    /// Emits the window with this end.
    fn put_out(&mut self, end: i64, output: &mut Output) -> Result<()> {
        let start = self.hopping.hops.start(end);
        let entering = self.members.range(self.added_to.max(start), end);
        let entering = entering.map(|slot| self.parts.groups.now(&Touched { slot, rows: 0 })).collect();
        self.merge(entering, Absorb::Add)?;
        self.added_to = end;
        self.put_results_together(start, end)?;
        let mut groups = self.total.groups.live();
        groups.retain(|group| group.rows > 0);
        let (start, end) = (of_count(start, &self.time_type)?, of_count(end, &self.time_type)?);
        let shared = self.hopping.keys.iter().map(|edge| {
            edge.map(|edge| match edge {
                Edge::Start => start.clone(),
                Edge::End => end.clone(),
            })
        });
        self.total.groups.share(shared.collect::<Vec<Option<ScalarValue>>>());
        let places: Vec<u32> = (0..groups.len() as u32).collect();
        let Forgotten { rows, failures } = self.total.forgotten(&groups, &places)?;
        rows.into_iter().for_each(|(batch, _)| output.rows.push(Chunk::insert(batch)));
        // A failure of a closed window is final.
        output.failures.extend(failures.into_iter().map(|failure| Failure { weight: 1, ..failure }));
        let of_results = self.total.calls.iter_mut().filter(|call| is_of_results(call));
        of_results.for_each(|call| groups.iter().for_each(|group| call.free(group.slot)));
        Ok(())
    }

    /// Merges the results of a window's panes, for aggregates that can't subtract.
    fn put_results_together(&mut self, start: i64, end: i64) -> Result<()> {
        for (call, part) in self.total.calls.iter_mut().zip(&self.parts.calls) {
            let (true, CallState::Slots(result), Some(part)) =
                (is_of_results(call), &mut call.kept, slots_of(part))
            else {
                continue;
            };
            for slots in self.members.panes(start, end) {
                let values = part.evaluate(slots)?;
                let valid = values.logical_nulls();
                let totals: Vec<u32> = slots.iter().map(|slot| self.members.total(*slot)).collect();
                let batch = Batch { slots: &totals, values: &[values], valid: valid.as_ref(), weights: None };
                result.update(&batch)?;
            }
        }
        Ok(())
    }
}

fn is_of_results(call: &Call) -> bool {
    slots_of(call).is_some_and(|slots| !slots.subtracts())
}

impl Operator for HoppingAggregate {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let inner = self.total.describe();
        let subtracted = self.total.calls.iter().filter(|call| !is_of_results(call));
        let subtracted: Vec<&str> = subtracted.map(|call| call.text.as_str()).collect();
        let mut detail = format!("{}; a window from {} panes", inner.detail, self.hopping.hops.panes());
        if !subtracted.is_empty() {
            detail.push_str(&format!(", leaving ones subtracted from {}", subtracted.join(", ")));
        }
        let mut state = String::from("one row a group and pane");
        let mut said: Vec<&str> = Vec::new();
        for keeps in self.parts.calls.iter().map(Call::keeps).filter(|keeps| !keeps.is_empty()) {
            if !said.contains(&keeps) {
                state.push_str(&format!(", {keeps}"));
                said.push(keeps);
            }
        }
        state.push_str("; emitted when windows close");
        let growth = open_windows(&self.name);
        let state_key = inner.state_key;
        Description { name: "HoppingAggregate", detail, state, state_key, growth, ..Description::default() }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let mut output = Output::default();
        let mut taken = Delta::default();
        for chunk in inputs.iter().flat_map(|delta| &delta.chunks).filter(|chunk| chunk.rows.num_rows() > 0) {
            let times = self.hopping.columns[0].0;
            let hops = self.hopping.hops;
            let pieces = surviving(chunk.clone(), &mut output.failures, |chunk| {
                late_rows::placed(hops, chunk.rows.column(times))
            })?;
            for (chunk, placed) in pieces {
                taken.push(self.in_time(chunk, &placed, &mut output)?);
            }
        }
        self.take(&taken, &mut output)?;
        self.close(cut, &mut output)?;
        let first = self.first().map(|end| match self.edge {
            Edge::Start => self.hopping.hops.start(end),
            Edge::End => end,
        });
        self.gate.plan(first, cut)?;
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { timers: Some(&self.gate), windows: Some(self), ..Abilities::default() }
    }
}

impl State for HoppingAggregate {
    fn reset(&mut self) -> Result<()> {
        self.parts.reset()?;
        self.total.reset()?;
        self.members = Members::default();
        (self.added_to, self.first_open) = (i64::MIN, None);
        self.gate.reset();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.kept()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.go_on(kept)
    }

    fn state_rows(&self) -> usize {
        self.parts.state_rows() + self.total.state_rows()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        self.parts.each_store(show);
        self.total.each_store(show);
        self.members.each_store(show);
    }

    fn state_bytes(&self) -> usize {
        self.parts.state_bytes() + self.total.state_bytes() + self.members.memory_bytes()
    }
}

impl ClosesWindows for HoppingAggregate {
    fn waiting(&self) -> Option<String> {
        self.gate.waiting(&self.name)
    }

    fn late(&self) -> Lateness {
        self.gate.lateness()
    }
}
