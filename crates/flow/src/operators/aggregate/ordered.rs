//! Aggregates that depend on the order of a group's rows, with deletes: first_value, last_value, nth_value,
//! array_agg, string_agg, median, percentile_cont, and min and max of types that have no cheaper form.
//!
//! The function's arguments of each row are stored as bytes that sort as the function sorts its rows
//! ([`arrow::row`]), in one multiset per group. The function's own accumulator computes a result from the
//! relevant rows: the first, the last, the middle ones, or all, if the result is as long as the group anyway.
//! A percentile is interpolated between two rows, as the function's own accumulator does.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use millstream_state::{Paged, Spillable, Tables};

use super::min_max::KEEPS;
use super::multiset::Multiset;
use super::persistence::{GROUP, VALUES, places, slots_of};
use super::slot::{Batch, Mergeable, SlotAggregate, SlotState};
use crate::Result;
use crate::persistence::incomplete;

/// The column with the number of copies of a row.
const COUNT: &str = "_count";

/// The relevant rows of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rows {
    First(u64),
    Last(u64),
    /// The middle one or two.
    Middle,
    /// One or two, at this share of the rows.
    At(f64),
    All,
}

/// The origin of a column that the accumulator takes.
#[derive(Debug)]
enum Column {
    /// A part of the stored row.
    Kept(usize),
    Literal(ScalarValue),
}

/// The rows of each group, in order.
pub(super) struct Ordered {
    function: Arc<AggregateFunctionExpr>,
    output: DataType,
    rows: Rows,
    /// True if rows with a NULL first argument are skipped.
    skips_nulls: bool,
    converter: RowConverter,
    /// The types of the stored columns, and their places among the arguments.
    kept: Vec<(DataType, usize)>,
    columns: Vec<Column>,
    sets: Paged<Multiset<Box<[u8]>>>,
    /// The heap bytes of the multisets.
    bytes: isize,
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").field("function", &self.function.name()).finish_non_exhaustive()
    }
}

impl Ordered {
    /// Returns the rows of `function`, with arguments over `schema`; `None` for an unknown function.
    pub(super) fn new(
        function: Arc<AggregateFunctionExpr>,
        output: DataType,
        schema: &Schema,
    ) -> Result<Option<Ordered>> {
        let arguments = function.expressions();
        let Some(first) = arguments.first().map(|argument| argument.data_type(schema)).transpose()? else {
            return Ok(None);
        };
        let Some(rows) = rows_of(&function, &first) else { return Ok(None) };
        // A percentile is ordered by its values.
        let order = if matches!(rows, Rows::At(_)) { &[] } else { function.order_bys() };
        let values = matches!(rows, Rows::Middle | Rows::At(_)) || is_extreme(&function);
        let skips_nulls = values || function.ignore_nulls();
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        let (mut fields, mut kept) = (Vec::new(), Vec::new());
        for (place, key) in order.iter().enumerate() {
            let data_type = key.expr.data_type(schema)?;
            fields.push(SortField::new_with_options(data_type.clone(), key.options));
            kept.push((data_type, arguments.len() + place));
            exprs.push(Arc::clone(&key.expr));
        }
        let mut columns = Vec::new();
        for (place, argument) in arguments.iter().enumerate() {
            if let Some(literal) = argument.downcast_ref::<Literal>() {
                columns.push(Column::Literal(literal.value().clone()));
                continue;
            }
            // Most functions order by their argument.
            let known = exprs.iter().position(|expr| expr == argument);
            columns.push(Column::Kept(known.unwrap_or(exprs.len())));
            if known.is_none() {
                let data_type = argument.data_type(schema)?;
                fields.push(SortField::new(data_type.clone()));
                kept.push((data_type, place));
                exprs.push(Arc::clone(argument));
            }
        }
        columns.extend((0..order.len()).map(Column::Kept));
        if kept.is_empty() || !RowConverter::supports_fields(&fields) {
            return Ok(None);
        }
        function.create_accumulator()?;
        let converter = RowConverter::new(fields)?;
        let (sets, bytes) = (Paged::default(), 0);
        Ok(Some(Ordered { function, output, rows, skips_nulls, converter, kept, columns, sets, bytes }))
    }

    /// Returns the arguments to store: the function's own and its ORDER BY expressions.
    pub(super) fn arguments(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut arguments = self.function.expressions();
        arguments.extend(self.function.order_bys().iter().map(|order| order.expr.clone()));
        arguments
    }

    /// Returns true if the result is a row other than the first or the last.
    fn is_nth(&self) -> bool {
        self.function.expressions().len() > 1
    }

    /// Returns the relevant rows of some groups, concatenated, as stored columns; and the number of each
    /// group's rows.
    fn gather(&self, slots: &[u32]) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let (mut found, mut copies, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for slot in slots {
            let before = copies.len();
            for (row, count) in self.matter(&self.sets[*slot as usize]) {
                copies.extend(std::iter::repeat_n(found.len() as u32, count as usize));
                found.push(row);
            }
            counts.push(copies.len() - before);
        }
        let parser = self.converter.parser();
        let mut columns = self.converter.convert_rows(found.iter().map(|row| parser.parse(row)))?;
        for (column, (data_type, _)) in columns.iter_mut().zip(&self.kept) {
            if column.data_type() != data_type {
                *column = cast(column, data_type)?;
            }
        }
        if copies.len() > found.len() {
            let copies = UInt32Array::from(copies);
            columns = columns.iter().map(|column| take(column, &copies, None)).collect::<Result<_, _>>()?;
        }
        Ok((columns, counts))
    }

    /// Returns the relevant rows of a group, in order, with their numbers of copies.
    fn matter<'a>(&self, set: &'a Multiset<Box<[u8]>>) -> Vec<(&'a [u8], u64)> {
        let all = || set.iter().map(|(row, weight)| (row.as_ref(), weight.max(0) as u64));
        match self.rows {
            Rows::All => all().collect(),
            Rows::First(1) => set.first().map(|row| (row.as_ref(), 1)).into_iter().collect(),
            Rows::Last(1) => set.last().map(|row| (row.as_ref(), 1)).into_iter().collect(),
            Rows::First(count) => at_most(all(), count),
            Rows::Last(count) => {
                let mut rows = at_most(all().rev(), count);
                rows.reverse();
                rows
            }
            Rows::At(share) => {
                let (lower, _, wanted) = between(share, set.count());
                at_most(set.iter_from(lower).map(|(row, weight)| (row.as_ref(), weight as u64)), wanted)
            }
            Rows::Middle => {
                let count = set.count();
                let middle = if count % 2 == 0 { count / 2 - 1 } else { count / 2 };
                let wanted = 2 - (count % 2) as u64;
                at_most(set.iter_from(middle).map(|(row, weight)| (row.as_ref(), weight as u64)), wanted)
            }
        }
    }
}

impl Ordered {
    /// Returns the percentiles of some groups, interpolated between their relevant rows, which are
    /// concatenated.
    fn percentiles(&self, share: f64, slots: &[u32], rows: &ArrayRef) -> Result<ArrayRef> {
        let rows = cast(rows, &DataType::Float64)?;
        let rows = rows.as_primitive::<Float64Type>();
        let mut at = 0;
        let percentile = |slot: &u32| {
            let count = self.sets[*slot as usize].count();
            if count == 0 {
                return None;
            }
            let (_, weight, wanted) = between(share, count);
            let lower = rows.value(at);
            at += wanted as usize;
            Some(if wanted == 1 { lower } else { lower + (rows.value(at - 1) - lower) * weight })
        };
        let results: ArrayRef = Arc::new(slots.iter().map(percentile).collect::<Float64Array>());
        Ok(cast(&results, &self.output)?)
    }
}

/// Returns the place of a percentile among `count` rows: the first row, the distance towards the next one,
/// and the number of rows that it needs. The computation is DataFusion's, so the digits are the same.
fn between(share: f64, count: i64) -> (i64, f64, u64) {
    const STEPS: f64 = 1_000_000.0;
    if count <= 1 || share <= 0.0 {
        return (0, 0.0, 1);
    }
    if share >= 1.0 {
        return (count - 1, 0.0, 1);
    }
    let index = share * ((count - 1) as f64);
    let lower = index.floor();
    if lower == index.ceil() {
        return (lower as i64, 0.0, 1);
    }
    let steps = ((index - lower) * STEPS) as u64;
    (lower as i64, steps as f64 / STEPS, 2)
}

/// Returns the first `wanted` rows.
fn at_most<'a>(rows: impl Iterator<Item = (&'a [u8], u64)>, wanted: u64) -> Vec<(&'a [u8], u64)> {
    let mut left = wanted;
    let counted = rows.map_while(|(row, count)| {
        let taken = count.min(left);
        left -= taken;
        (taken > 0).then_some((row, taken))
    });
    counted.collect()
}

/// Returns true if a function is min or max.
fn is_extreme(function: &AggregateFunctionExpr) -> bool {
    let inner = function.fun().inner();
    inner.is::<Min>() || inner.is::<Max>()
}

/// Returns the share of the rows before a percentile.
fn share_of(function: &AggregateFunctionExpr) -> Option<f64> {
    let share = function.expressions().get(1)?.downcast_ref::<Literal>()?.value().cast_to(&DataType::Float64);
    let Ok(ScalarValue::Float64(Some(share))) = share else { return None };
    let descending = function.order_bys().first().is_some_and(|order| order.options.descending);
    Some(if descending { 1.0 - share } else { share })
}

/// Returns the relevant rows of a function whose first argument has this type; `None` for a user-defined
/// function, or one that is not supported here.
fn rows_of(function: &AggregateFunctionExpr, first: &DataType) -> Option<Rows> {
    use datafusion::functions_aggregate::array_agg::ArrayAgg;
    use datafusion::functions_aggregate::first_last::{FirstValue, LastValue};
    use datafusion::functions_aggregate::median::Median;
    use datafusion::functions_aggregate::nth_value::NthValueAgg;
    use datafusion::functions_aggregate::percentile_cont::PercentileCont;
    use datafusion::functions_aggregate::string_agg::StringAgg;
    let inner = function.fun().inner();
    if inner.is::<ArrayAgg>() || inner.is::<StringAgg>() {
        Some(Rows::All)
    } else if inner.is::<FirstValue>() {
        Some(Rows::First(1))
    } else if inner.is::<LastValue>() {
        Some(Rows::Last(1))
    } else if inner.is::<Median>() {
        Some(Rows::Middle)
    } else if inner.is::<PercentileCont>() && first.is_floating() {
        share_of(function).map(Rows::At)
    } else if is_extreme(function) {
        // The order of nested values with NULLs depends on the order in which they arrive.
        let rows = if inner.is::<Min>() { Rows::First(1) } else { Rows::Last(1) };
        Some(rows).filter(|_| matches!(first, DataType::Interval(_) | DataType::Dictionary(..)))
    } else if inner.is::<NthValueAgg>() {
        let place = function.expressions().get(1)?.downcast_ref::<Literal>()?.value().clone();
        match place {
            ScalarValue::Int64(Some(place)) if place > 0 => Some(Rows::First(place.unsigned_abs())),
            ScalarValue::Int64(Some(place)) => Some(Rows::Last(place.unsigned_abs())),
            _ => None,
        }
    } else {
        None
    }
}

impl SlotAggregate for Ordered {
    fn resize(&mut self, end: usize) {
        self.sets.resize(end, Multiset::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let columns: Vec<ArrayRef> = self.kept.iter().map(|(_, at)| batch.values[*at].clone()).collect();
        let rows = self.converter.convert_columns(&columns)?;
        let nulls = batch.values[0].logical_nulls().filter(|_| self.skips_nulls);
        let (sets, mut grown) = (&mut self.sets, 0);
        batch.for_each(|row, slot, weight| {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                let bytes = rows.row(row);
                let bytes = bytes.as_ref();
                grown += sets[slot].add(weight, |other| other.as_ref().cmp(bytes), || bytes.into());
            }
        });
        self.bytes += grown;
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let (columns, counts) = self.gather(slots)?;
        if let (Rows::First(1) | Rows::Last(1), Column::Kept(at)) = (self.rows, &self.columns[0])
            && !self.is_nth()
        {
            let mut row = 0;
            let places = counts.iter().map(|count| {
                row += *count as u32;
                (*count > 0).then(|| row - 1)
            });
            let results = take(&columns[*at], &places.collect::<UInt32Array>(), None)?;
            return Ok(if *results.data_type() == self.output {
                results
            } else {
                cast(&results, &self.output)?
            });
        }
        if let Rows::At(share) = self.rows {
            return self.percentiles(share, slots, &columns[0]);
        }
        let mut results = Vec::with_capacity(slots.len());
        let mut first = 0;
        for count in counts {
            let values: Vec<ArrayRef> = self
                .columns
                .iter()
                .map(|column| match column {
                    Column::Kept(at) => Ok(columns[*at].slice(first, count)),
                    Column::Literal(value) => Ok(value.to_array_of_size(count)?),
                })
                .collect::<Result<_>>()?;
            let mut accumulator = self.function.create_accumulator()?;
            if count > 0 {
                accumulator.update_batch(&values)?;
            }
            results.push(accumulator.evaluate()?);
            first += count;
        }
        if results.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        let results = ScalarValue::iter_to_array(results)?;
        if *results.data_type() == self.output { Ok(results) } else { Ok(cast(&results, &self.output)?) }
    }

    fn free(&mut self, slot: u32) {
        self.bytes += self.sets[slot as usize].clear();
    }

    fn takes_all(&self) -> bool {
        self.rows == Rows::All
    }
}

impl SlotState for Ordered {
    fn save(&self, slots: &[u32]) -> Result<Tables> {
        let sets = || slots.iter().map(|slot| &self.sets[*slot as usize]);
        let all = || sets().flat_map(Multiset::iter);
        let parser = self.converter.parser();
        // A dictionary may be too small for the values of all groups, so its values are saved.
        let rows = self.converter.convert_rows(all().map(|(row, _)| parser.parse(row)))?;
        let counts = Int64Array::from_iter_values(all().map(|(_, count)| count));
        let groups = places(sets().map(|set| set.iter().count()));
        let mut columns: Vec<(&str, ArrayRef)> = vec![(GROUP, Arc::new(groups)), (COUNT, Arc::new(counts))];
        let names: Vec<String> = self.kept.iter().map(|(_, at)| format!("argument{at}")).collect();
        columns.extend(names.iter().map(String::as_str).zip(rows));
        let mut kept = Tables::default();
        kept.put_columns(VALUES, columns)?;
        Ok(kept)
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        let columns = kept.take_table(VALUES)?;
        let (slots, counts) = (slots_of(&columns, slots)?, columns.numbers::<Int64Type>(COUNT)?);
        let values = columns.all().get(2..).unwrap_or_default();
        if !columns.is_empty() && values.len() != self.kept.len() {
            return Err(incomplete(format!(
                "rows have {} values instead of {}",
                values.len(),
                self.kept.len()
            )));
        }
        let same =
            values.iter().zip(&self.kept).all(|(values, (data_type, _))| values.data_type() == data_type);
        // This number of values fits in any dictionary.
        let step = if same { slots.len().max(1) } else { 64 };
        for start in (0..slots.len()).step_by(step) {
            let count = step.min(slots.len() - start);
            let values = values.iter().zip(&self.kept);
            let values =
                values.map(|(values, (data_type, _))| Ok(cast(&values.slice(start, count), data_type)?));
            let rows = self.converter.convert_columns(&values.collect::<Result<Vec<_>>>()?)?;
            for (row, at) in rows.iter().zip(start..) {
                let (bytes, set) = (row.as_ref(), &mut self.sets[slots[at] as usize]);
                self.bytes += set.add(counts.value(at), |other| other.as_ref().cmp(bytes), || bytes.into());
            }
        }
        Ok(())
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.sets);
    }

    fn memory_bytes(&self) -> usize {
        self.sets.memory_bytes() + self.converter.size() + self.bytes as usize
    }

    fn keeps(&self) -> &'static str {
        KEEPS
    }
}

impl Mergeable for Ordered {}
