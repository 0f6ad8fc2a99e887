//! Computes the output of a step: the changed results, and the groups without a result.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{SortOptions, or, take};
use arrow::datatypes::Schema;
use millstream_delta::{Chunk, Delta};

use super::call::Call;
use super::groups::Touched;
use super::{Aggregate, OUTPUT_ROWS};
use crate::failure::{Failure, reason, row_text};
use crate::operator::{Forgotten, Output};
use crate::{Error, Result};

/// The results of some groups.
#[derive(Default)]
pub(super) struct Results {
    /// The results of the groups that have one.
    columns: Vec<ArrayRef>,
    /// The reasons why other groups have none, by place.
    failed: BTreeMap<usize, String>,
}

/// The place of a group's result, or the reason why there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome<'a> {
    Row(u32),
    Failed(&'a str),
}

impl Results {
    /// Returns the outcome for each of `count` groups.
    fn outcomes(&self, count: usize) -> Vec<Outcome<'_>> {
        let mut row = 0;
        let outcome = |place| match self.failed.get(&place) {
            Some(message) => Outcome::Failed(message),
            None => {
                row += 1;
                Outcome::Row(row - 1)
            }
        };
        (0..count).map(outcome).collect()
    }
}

/// The state of the touched groups before a step.
pub(super) enum Before {
    /// Their results, for some groups at a time.
    Read(Vec<Results>),
    /// Nobody reads the changes; they are only counted.
    Unread {
        /// The groups whose change is visible only in their results, and these results.
        undecided: Vec<Touched>,
        old: Vec<Results>,
        /// The number of rows that the other groups would output.
        rows: u64,
    },
}

/// The output of a step: all deletes before all inserts.
#[derive(Default)]
struct Emitted {
    deletes: Delta,
    inserts: Delta,
    failures: Vec<Failure>,
}

impl Emitted {
    fn append(&mut self, mut other: Emitted) {
        self.deletes.append(other.deletes);
        self.inserts.append(other.inserts);
        self.failures.append(&mut other.failures);
    }

    /// Returns the output, with the failures of rows.
    fn output(mut self, mut failures: Vec<Failure>) -> Output {
        self.deletes.append(self.inserts);
        failures.append(&mut self.failures);
        Output { rows: self.deletes, failures, ..Output::default() }
    }
}

/// Rows to emit: their groups, and the places of their results.
#[derive(Default)]
struct Rows {
    slots: Vec<u32>,
    at: Vec<u32>,
}

impl Rows {
    fn push(&mut self, slot: u32, at: u32) {
        self.slots.push(slot);
        self.at.push(at);
    }
}

impl Aggregate {
    /// Returns the results of all calls for these groups, whose numbers of rows are given.
    fn results(&self, groups: &[Touched]) -> Result<Results> {
        let error = match self.columns(groups) {
            Ok(columns) => return Ok(Results { columns, failed: BTreeMap::new() }),
            Err(error) => error,
        };
        let mut failed = BTreeMap::new();
        self.find_failing(groups, 0, error, &mut failed)?;
        let good = groups.iter().enumerate().filter(|(place, _)| !failed.contains_key(place));
        let good: Vec<Touched> = good.map(|(_, group)| *group).collect();
        Ok(Results { columns: self.columns(&good)?, failed })
    }

    fn columns(&self, groups: &[Touched]) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = groups.iter().map(|group| group.slot).collect();
        self.calls.iter().map(|call| call.results(groups, &slots)).collect()
    }

    /// Finds the groups without a result among those from place `first` on, which fail together with `error`.
    fn find_failing(
        &self,
        groups: &[Touched],
        first: usize,
        error: Error,
        failed: &mut BTreeMap<usize, String>,
    ) -> Result<()> {
        let Some(message) = reason(&error) else { return Err(error) };
        if groups.len() <= 1 {
            failed.insert(first, message);
            return Ok(());
        }
        let (left, right) = groups.split_at(groups.len() / 2);
        for (part, first) in [(left, first), (right, first + left.len())] {
            if let Err(error) = self.columns(part) {
                self.find_failing(part, first, error, failed)?;
            }
        }
        Ok(())
    }

    /// Returns true if a group has a row in the result. Groups without keys have one from the first step on.
    fn is_there(&self, group: &Touched) -> bool {
        group.rows > 0 || group.slot < self.groups.standing()
    }

    /// Returns the state of counted groups before their update. `read` is true if somebody reads the changes;
    /// else no group's result may fail.
    pub(super) fn before(&self, touched: &[Touched], read: bool) -> Result<Before> {
        if read {
            return Ok(Before::Read(
                self.each_part(touched, |groups| self.results(&self.there_before(groups)))?,
            ));
        }
        let (mut undecided, mut rows) = (Vec::new(), 0);
        for (mut of_part, rows_of_part) in self.each_part(touched, |groups| Ok(self.undecided(groups)))? {
            undecided.append(&mut of_part);
            rows += rows_of_part;
        }
        let old = self.each_part(&undecided, |groups| self.results(groups))?;
        Ok(Before::Unread { undecided, old, rows })
    }

    /// Returns the groups whose change is visible only in their results, and the number of rows that the
    /// others would output.
    fn undecided(&self, touched: &[Touched]) -> (Vec<Touched>, u64) {
        let counts = self.calls.iter().any(Call::counts_rows);
        let only_grew = self.groups.only_grew();
        let (mut undecided, mut rows) = (Vec::new(), 0);
        for before in touched {
            let (is, counted) = if only_grew {
                (true, true)
            } else {
                let now = self.groups.now(before);
                (self.is_there(&now), now.rows != before.rows)
            };
            match (self.was_there(before), is) {
                (true, true) if counts && counted => rows += 2,
                (true, true) if !self.calls.is_empty() => undecided.push(*before),
                (true, true) => {}
                (was, is) => rows += u64::from(was) + u64::from(is),
            }
        }
        (undecided, rows)
    }

    /// Returns the changes of groups since [`Aggregate::before`], with the failures of rows.
    pub(super) fn after(
        &self,
        touched: &[Touched],
        before: &Before,
        failures: Vec<Failure>,
    ) -> Result<Output> {
        let (undecided, old, rows) = match before {
            Before::Read(old) => {
                let mut all = Emitted::default();
                for emitted in self.each_part_with(touched, old, |groups, old| self.emit(groups, old))? {
                    all.append(emitted);
                }
                return Ok(all.output(failures));
            }
            Before::Unread { undecided, old, rows } => (undecided, old, *rows),
        };
        let failures = self.newly_failing(touched, failures)?;
        let changed = self.each_part_with(undecided, old, |groups, old| {
            let new = self.results(groups)?;
            if !new.failed.is_empty() {
                return Ok(groups.len() as u64);
            }
            let both: Vec<(u32, u32)> = (0..groups.len() as u32).map(|place| (place, place)).collect();
            let differs = differing(&old.columns, &new.columns, &both)?;
            Ok(differs.into_iter().filter(|differs| *differs).count() as u64)
        })?;
        let left_out = rows + 2 * changed.into_iter().sum::<u64>();
        Ok(Output { left_out, failures, ..Output::default() })
    }

    /// Adds the failures of groups that have lost their result, given that no group could fail before the
    /// step.
    fn newly_failing(&self, touched: &[Touched], mut failures: Vec<Failure>) -> Result<Vec<Failure>> {
        if !self.calls.iter().any(Call::may_fail) {
            return Ok(failures);
        }
        let found = self.each_part(touched, |groups| {
            let now = groups.iter().map(|group| self.groups.now(group));
            let there: Vec<Touched> = now.filter(|group| self.is_there(group)).collect();
            let failed = self.results(&there)?.failed;
            failed.iter().map(|(at, message)| self.failure(there[*at].slot, message, 1)).collect()
        })?;
        found.into_iter().for_each(|mut found: Vec<Failure>| failures.append(&mut found));
        Ok(failures)
    }

    /// Returns the number of groups of one output batch.
    fn part_rows(&self) -> usize {
        self.threads.piece_rows().min(OUTPUT_ROWS.get())
    }

    /// Processes [`Aggregate::part_rows`] groups at a time, in parallel if there are many.
    fn each_part<R: Send>(
        &self,
        groups: &[Touched],
        work: impl Fn(&[Touched]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let parts = groups.chunks(self.part_rows()).collect();
        self.threads.spread_over(groups.len(), parts, work).into_iter().collect()
    }

    /// Does the same, and passes the previous results of each part.
    fn each_part_with<R: Send>(
        &self,
        groups: &[Touched],
        old: &[Results],
        work: impl Fn(&[Touched], &Results) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let parts = groups.chunks(self.part_rows()).zip(old).collect();
        let work = |(groups, old): (&[Touched], &Results)| work(groups, old);
        self.threads.spread_over(groups.len(), parts, work).into_iter().collect()
    }

    /// Returns the groups that were in the result before this step.
    fn there_before(&self, touched: &[Touched]) -> Vec<Touched> {
        touched.iter().filter(|group| self.was_there(group)).copied().collect()
    }

    fn was_there(&self, group: &Touched) -> bool {
        group.rows > 0 || (group.slot < self.groups.standing() && self.steps > 1)
    }

    /// Emits the changes of some groups, whose results were `old` if they were in the result.
    fn emit(&self, touched: &[Touched], old: &Results) -> Result<Emitted> {
        let mut output = Emitted::default();
        let now: Vec<Touched> = touched.iter().map(|group| self.groups.now(group)).collect();
        let there: Vec<Touched> = now.iter().filter(|group| self.is_there(group)).copied().collect();
        let new = self.results(&there)?;
        let mut old_outcomes = old.outcomes(touched.len()).into_iter();
        let mut new_outcomes = new.outcomes(there.len()).into_iter();
        let outcomes: Vec<(u32, Option<Outcome<'_>>, Option<Outcome<'_>>)> = touched
            .iter()
            .zip(&now)
            .map(|(before, now)| {
                let was = if self.was_there(before) { old_outcomes.next() } else { None };
                let is = if self.is_there(now) { new_outcomes.next() } else { None };
                (now.slot, was, is)
            })
            .collect();
        let both = outcomes.iter().filter_map(|(_, was, is)| match (was, is) {
            (Some(Outcome::Row(old)), Some(Outcome::Row(new))) => Some((*old, *new)),
            _ => None,
        });
        let mut differs = differing(&old.columns, &new.columns, &both.collect::<Vec<_>>())?.into_iter();
        let (mut deleted, mut inserted) = (Rows::default(), Rows::default());
        for (slot, was, is) in outcomes {
            if let (Some(Outcome::Row(_)), Some(Outcome::Row(_))) = (was, is)
                && !differs.next().unwrap_or(true)
            {
                continue;
            }
            if let (Some(Outcome::Failed(_)), true) = (was, was == is) {
                continue;
            }
            for (outcome, rows, weight) in [(was, &mut deleted, -1), (is, &mut inserted, 1)] {
                match outcome {
                    Some(Outcome::Row(at)) => rows.push(slot, at),
                    Some(Outcome::Failed(message)) => {
                        output.failures.push(self.failure(slot, message, weight)?);
                    }
                    None => {}
                }
            }
        }
        let deleted_keys = self.groups.keys(&deleted.slots)?;
        let inserted_keys = match deleted.slots == inserted.slots {
            true => deleted_keys.clone(),
            false => self.groups.keys(&inserted.slots)?,
        };
        output.deletes.push(Chunk::delete(self.rows(deleted_keys, &old.columns, deleted)?));
        output.inserts.push(Chunk::insert(self.rows(inserted_keys, &new.columns, inserted)?));
        Ok(output)
    }

    fn rows(&self, keys: Vec<ArrayRef>, results: &[ArrayRef], rows: Rows) -> Result<RecordBatch> {
        let count = rows.slots.len();
        let at = UInt32Array::from(rows.at);
        let mut columns = keys;
        for result in results {
            columns.push(pick(result, &at)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.properties.schema.clone(), columns, &options)?)
    }

    /// Returns the failure of a group without a result, with the values of its keys.
    fn failure(&self, slot: u32, message: &str, weight: i64) -> Result<Failure> {
        let mut keys = self.groups.keys(&[slot])?;
        keys.truncate(self.groups.grouping.keys.len());
        let fields = &self.properties.schema.fields()[..keys.len()];
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = row_text(&RecordBatch::try_new_with_options(schema, keys, &options)?, 0)?;
        Ok(Failure { message: message.into(), row, weight })
    }

    /// Returns the rows that groups have in the result; `places` are those of their keys.
    pub(super) fn forgotten(&self, groups: &[Touched], places: &[u32]) -> Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        for (groups, places) in groups.chunks(OUTPUT_ROWS.get()).zip(places.chunks(OUTPUT_ROWS.get())) {
            let results = self.results(groups)?;
            let (mut rows, mut of) = (Rows::default(), Vec::new());
            let outcomes = groups.iter().zip(places).zip(results.outcomes(groups.len()));
            for ((group, place), outcome) in outcomes {
                match outcome {
                    Outcome::Row(at) => {
                        rows.push(group.slot, at);
                        of.push(*place);
                    }
                    Outcome::Failed(message) => {
                        forgotten.failures.push(self.failure(group.slot, message, -1)?);
                    }
                }
            }
            let keys = self.groups.keys(&rows.slots)?;
            forgotten.rows.push((self.rows(keys, &results.columns, rows)?, of));
        }
        Ok(forgotten)
    }

    /// Returns the results of all groups.
    pub(super) fn all(&self) -> Result<Vec<RecordBatch>> {
        if self.steps == 0 {
            return Ok(Vec::new());
        }
        self.of(&self.groups.live())
    }

    /// Returns the results of some groups.
    pub(super) fn of(&self, groups: &[Touched]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for groups in groups.chunks(OUTPUT_ROWS.get()) {
            let results = self.results(groups)?;
            let mut rows = Rows::default();
            for (group, outcome) in groups.iter().zip(results.outcomes(groups.len())) {
                if let Outcome::Row(at) = outcome {
                    rows.push(group.slot, at);
                }
            }
            batches.push(self.rows(self.groups.keys(&rows.slots)?, &results.columns, rows)?);
        }
        Ok(batches)
    }
}

/// Returns for each pair of places true if the results there differ.
fn differing(old: &[ArrayRef], new: &[ArrayRef], both: &[(u32, u32)]) -> Result<Vec<bool>> {
    if both.is_empty() || old.is_empty() {
        return Ok(vec![false; both.len()]);
    }
    let old_at = UInt32Array::from_iter_values(both.iter().map(|(old, _)| *old));
    let new_at = UInt32Array::from_iter_values(both.iter().map(|(_, new)| *new));
    let mut differs = None;
    for (old, new) in old.iter().zip(new) {
        let changed = changed(&pick(old, &old_at)?, &pick(new, &new_at)?)?;
        let changed = match differs {
            None => changed,
            Some(before) => or(&before, &changed)?,
        };
        let all = changed.values().count_set_bits() == both.len();
        differs = Some(changed);
        if all {
            break;
        }
    }
    Ok(differs.map_or(Vec::new(), |differs| differs.values().iter().collect()))
}

/// Returns the values at some places, which are ascending and unique.
fn pick(values: &ArrayRef, at: &UInt32Array) -> Result<ArrayRef> {
    Ok(if at.len() == values.len() { values.clone() } else { take(values, at, None)? })
}

/// Returns a mask of the rows where two columns differ; NULL is a value like any other.
pub(crate) fn changed(old: &ArrayRef, new: &ArrayRef) -> Result<BooleanArray> {
    if !old.data_type().is_nested() {
        return Ok(distinct(old, new)?);
    }
    // Values that can't be compared count as changed: that emits more rows, but no wrong ones.
    let all = || BooleanArray::from(vec![true; new.len()]);
    let Ok(compare) = make_comparator(old, new, SortOptions::default()) else { return Ok(all()) };
    Ok((0..new.len()).map(|row| Some(compare(row, row) != Ordering::Equal)).collect())
}
