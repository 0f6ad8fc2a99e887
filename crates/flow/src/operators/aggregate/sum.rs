//! sum and avg of types with exact addition: integers, decimals, durations, intervals.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, PrimitiveBuilder,
};
use arrow::compute::DecimalCast;
use arrow::datatypes::{
    ArrowNativeType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int64Type,
    IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit, UInt64Type, i256,
};
use datafusion::common::exec_datafusion_err;
use millstream_state::{Paged, Spillable, Tables};

use super::parallel_update::{PartitionedBatch, update_in_parallel};
use super::persistence::{GROUPS, of_groups, widest};
use super::slot::{Absorb, Batch, Mergeable, Pair, SlotAggregate, SlotState, same};
use crate::Result;
use crate::parallelism::Threads;

/// A value that can be added any number of times, or subtracted. On overflow it wraps, so the order of
/// additions doesn't matter.
trait Add: Copy + Debug + Default + Send + Sync {
    fn add(&mut self, value: Self, times: i64);
}

macro_rules! add_integers {
    ($($integer:ty),*) => {$(
        impl Add for $integer {
            #[inline(always)]
            fn add(&mut self, value: $integer, times: i64) {
                *self = self.wrapping_add(value.wrapping_mul(times as $integer));
            }
        }
    )*};
}

add_integers!(i32, i64, u64, i128);

impl Add for i256 {
    #[inline(always)]
    fn add(&mut self, value: i256, times: i64) {
        *self = match times {
            1 => self.wrapping_add(value),
            times => self.wrapping_add(value.wrapping_mul(i256::from_i128(i128::from(times)))),
        };
    }
}

impl Add for IntervalDayTime {
    fn add(&mut self, value: IntervalDayTime, times: i64) {
        self.days.add(value.days, times);
        self.milliseconds.add(value.milliseconds, times);
    }
}

impl Add for IntervalMonthDayNano {
    fn add(&mut self, value: IntervalMonthDayNano, times: i64) {
        self.months.add(value.months, times);
        self.days.add(value.days, times);
        self.nanoseconds.add(value.nanoseconds, times);
    }
}

/// A sum and the number of its values; the sum of none is NULL.
#[derive(Clone, Copy, Debug, Default)]
struct Cell<S> {
    sum: S,
    count: i64,
}

impl<S: Add> Cell<S> {
    #[inline(always)]
    fn add(&mut self, value: S, weight: i64) {
        self.sum.add(value, weight);
        self.count += weight;
    }
}

/// Returns the values of each batch.
fn numbers<'a, T: ArrowPrimitiveType>(batches: &'a [PartitionedBatch<'_>]) -> Vec<&'a [T::Native]> {
    batches.iter().map(|apart| &apart.batch.values[0].as_primitive::<T>().values()[..]).collect()
}

/// Saves sums, in a type that holds them all.
fn save<T: ArrowPrimitiveType>(
    cells: &Paged<Cell<T::Native>>,
    slots: &[u32],
    data_type: DataType,
) -> Result<Tables> {
    let cells = || slots.iter().map(|slot| &cells[*slot as usize]);
    let sums = PrimitiveArray::<T>::from_iter_values(cells().map(|cell| cell.sum));
    let counts = Int64Array::from_iter_values(cells().map(|cell| cell.count));
    of_groups(vec![("sum", Arc::new(sums.with_data_type(data_type))), ("count", Arc::new(counts))])
}

/// Loads saved sums.
fn load<T: ArrowPrimitiveType>(
    cells: &mut Paged<Cell<T::Native>>,
    slots: &[u32],
    kept: &mut Tables,
) -> Result<()> {
    let columns = kept.take_rows(GROUPS, slots.len())?;
    let (sums, counts) = (columns.numbers::<T>("sum")?, columns.numbers::<Int64Type>("count")?);
    for ((slot, sum), count) in slots.iter().zip(sums.values()).zip(counts.values()) {
        cells[*slot as usize] = Cell { sum: *sum, count: *count };
    }
    Ok(())
}

/// The sums of a type.
#[derive(Debug)]
struct Sum<T: ArrowPrimitiveType> {
    output: DataType,
    cells: Paged<Cell<T::Native>>,
}

/// Returns the sums with the result type `output`, which is the argument's type except for the precision of
/// decimals; `None` if addition isn't exact or isn't defined.
pub(super) fn sum(output: &DataType) -> Option<Box<dyn SlotAggregate>> {
    fn of<T: ArrowPrimitiveType + Debug>(output: &DataType) -> Option<Box<dyn SlotAggregate>>
    where
        T::Native: Add,
    {
        Some(Box::new(Sum::<T> { output: output.clone(), cells: Paged::default() }))
    }
    match output {
        DataType::Int64 => of::<Int64Type>(output),
        DataType::UInt64 => of::<UInt64Type>(output),
        DataType::Decimal32(..) => of::<Decimal32Type>(output),
        DataType::Decimal64(..) => of::<Decimal64Type>(output),
        DataType::Decimal128(..) => of::<Decimal128Type>(output),
        DataType::Decimal256(..) => of::<Decimal256Type>(output),
        DataType::Duration(TimeUnit::Second) => of::<DurationSecondType>(output),
        DataType::Duration(TimeUnit::Millisecond) => of::<DurationMillisecondType>(output),
        DataType::Duration(TimeUnit::Microsecond) => of::<DurationMicrosecondType>(output),
        DataType::Duration(TimeUnit::Nanosecond) => of::<DurationNanosecondType>(output),
        DataType::Interval(IntervalUnit::YearMonth) => of::<IntervalYearMonthType>(output),
        DataType::Interval(IntervalUnit::DayTime) => of::<IntervalDayTimeType>(output),
        DataType::Interval(IntervalUnit::MonthDayNano) => of::<IntervalMonthDayNanoType>(output),
        _ => None,
    }
}

impl<T: ArrowPrimitiveType + Debug> SlotAggregate for Sum<T>
where
    T::Native: Add,
{
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<T>().values();
        batch.for_each(|row, slot, weight| self.cells[slot].add(values[row], weight));
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values = numbers::<T>(batches);
        let add = |cell: &mut Cell<T::Native>, batch: usize, row: usize, weight| {
            cell.add(values[batch][row], weight);
        };
        update_in_parallel(&mut self.cells, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let cells = slots.iter().map(|slot| &self.cells[*slot as usize]);
        let sums: PrimitiveArray<T> = cells.map(|cell| (cell.count != 0).then_some(cell.sum)).collect();
        Ok(Arc::new(sums.with_data_type(self.output.clone())))
    }

    fn may_fail(&self) -> bool {
        false
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl<T: ArrowPrimitiveType + Debug> SlotState for Sum<T>
where
    T::Native: Add,
{
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        Some((GROUPS, Box::new(Sum::<T> { output: self.output.clone(), cells: self.cells.share() })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        save::<T>(&self.cells, slots, widest(&self.output))
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        load::<T>(&mut self.cells, slots, kept)
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        self.cells.memory_bytes()
    }
}

impl<T: ArrowPrimitiveType + Debug> Mergeable for Sum<T>
where
    T::Native: Add,
{
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(Sum::<T> { output: self.output.clone(), cells: Paged::default() }))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (other.cells[*from as usize], &mut self.cells[*into as usize]);
            cell.sum.add(found.sum, change.sign());
            cell.count += change.sign() * found.count;
        }
        Ok(())
    }
}

/// Averages of `I`, from sums of `S`.
struct Average<I, S: ArrowPrimitiveType, D> {
    output: DataType,
    /// The type of saved sums.
    sums: DataType,
    cells: Paged<Cell<S::Native>>,
    divide: D,
    input: std::marker::PhantomData<I>,
}

/// Returns the averages of `input` with the result type `output`; `None` if they aren't defined or their sums
/// aren't exact.
pub(super) fn average(input: &DataType, output: &DataType) -> Option<Box<dyn SlotAggregate>> {
    match (input, output) {
        (DataType::Decimal32(_, scale), DataType::Decimal32(..)) => {
            decimal::<Decimal32Type, Decimal128Type>(*scale, output)
        }
        (DataType::Decimal64(_, scale), DataType::Decimal64(..)) => {
            decimal::<Decimal64Type, Decimal128Type>(*scale, output)
        }
        // DataFusion's sums have 13 digits more than their values, for a billion rows and the scale of the
        // result.
        (DataType::Decimal128(precision, scale), DataType::Decimal128(..)) if *precision <= 25 => {
            decimal::<Decimal128Type, Decimal128Type>(*scale, output)
        }
        (DataType::Decimal128(_, scale), DataType::Decimal128(..)) => {
            decimal::<Decimal128Type, Decimal256Type>(*scale, output)
        }
        (DataType::Decimal256(_, scale), DataType::Decimal256(..)) => {
            decimal::<Decimal256Type, Decimal256Type>(*scale, output)
        }
        (DataType::Duration(unit), DataType::Duration(_)) => match unit {
            TimeUnit::Second => duration::<DurationSecondType>(output),
            TimeUnit::Millisecond => duration::<DurationMillisecondType>(output),
            TimeUnit::Microsecond => duration::<DurationMicrosecondType>(output),
            TimeUnit::Nanosecond => duration::<DurationNanosecondType>(output),
        },
        _ => None,
    }
}

/// Returns averages of decimals: the sum at the result's scale, divided towards zero. Too many digits are an
/// error.
fn decimal<I, S>(scale: i8, output: &DataType) -> Option<Box<dyn SlotAggregate>>
where
    I: DecimalType + Debug + Send + Sync,
    S: DecimalType + Debug + Send + Sync,
    I::Native: Into<S::Native> + DecimalCast,
    S::Native: Add + DecimalCast,
{
    let (DataType::Decimal32(precision, to)
    | DataType::Decimal64(precision, to)
    | DataType::Decimal128(precision, to)
    | DataType::Decimal256(precision, to)) = output
    else {
        return None;
    };
    let (precision, to) = (*precision, *to);
    if scale < 0 || to < scale {
        return None;
    }
    let factor = S::Native::from_usize(10)?.pow_wrapping((to - scale) as u32);
    let divide = move |sum: S::Native, count: i64| {
        let scaled = sum.mul_checked(factor).ok()?;
        let average = scaled.div_wrapping(S::Native::from_usize(count as usize)?);
        S::validate_decimal_precision(average, precision, to).ok()?;
        I::Native::from_decimal(average)
    };
    let sums = S::TYPE_CONSTRUCTOR(S::MAX_PRECISION, scale);
    Some(Box::new(averages::<I, S, _>(output, &sums, divide)))
}

fn duration<T: ArrowPrimitiveType<Native = i64> + Debug + Send + Sync>(
    output: &DataType,
) -> Option<Box<dyn SlotAggregate>> {
    Some(Box::new(averages::<T, T, _>(output, output, |sum: i64, count: i64| Some(sum.wrapping_div(count)))))
}

impl<I, S: ArrowPrimitiveType, D> Debug for Average<I, S, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Average")
            .field("output", &self.output)
            .field("cells", &self.cells)
            .finish_non_exhaustive()
    }
}

fn averages<I, S: ArrowPrimitiveType, D>(output: &DataType, sums: &DataType, divide: D) -> Average<I, S, D> {
    let (output, sums, cells) = (output.clone(), sums.clone(), Paged::default());
    Average { output, sums, cells, divide, input: std::marker::PhantomData }
}

impl<I, S, D> SlotAggregate for Average<I, S, D>
where
    I: ArrowPrimitiveType + Debug + Send + Sync,
    S: ArrowPrimitiveType + Debug,
    I::Native: Into<S::Native>,
    S::Native: Add,
    D: Fn(S::Native, i64) -> Option<I::Native> + Clone + Send + Sync + 'static,
{
    fn resize(&mut self, end: usize) {
        self.cells.resize(end, Cell::default());
    }

    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let values = batch.values[0].as_primitive::<I>().values();
        batch.for_each(|row, slot, weight| self.cells[slot].add(values[row].into(), weight));
        Ok(())
    }

    fn update_in_parallel(&mut self, batches: &[PartitionedBatch<'_>], threads: &Threads) -> Result<()> {
        let values = numbers::<I>(batches);
        let add = |cell: &mut Cell<S::Native>, batch: usize, row: usize, weight| {
            cell.add(values[batch][row].into(), weight);
        };
        update_in_parallel(&mut self.cells, batches, threads, add);
        Ok(())
    }

    fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        let mut averages =
            PrimitiveBuilder::<I>::with_capacity(slots.len()).with_data_type(self.output.clone());
        for slot in slots {
            let cell = &self.cells[*slot as usize];
            if cell.count == 0 {
                averages.append_null();
                continue;
            }
            let average = (self.divide)(cell.sum, cell.count)
                .ok_or_else(|| exec_datafusion_err!("Arithmetic Overflow in AvgAccumulator"))?;
            averages.append_value(average);
        }
        Ok(Arc::new(averages.finish()))
    }

    fn free(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }
}

impl<I, S, D> SlotState for Average<I, S, D>
where
    I: ArrowPrimitiveType + Debug + Send + Sync,
    S: ArrowPrimitiveType + Debug,
    I::Native: Into<S::Native>,
    S::Native: Add,
    D: Fn(S::Native, i64) -> Option<I::Native> + Clone + Send + Sync + 'static,
{
    fn share(&self) -> Option<(&'static str, Box<dyn SlotAggregate>)> {
        let (output, sums, cells) = (self.output.clone(), self.sums.clone(), self.cells.share());
        let (divide, input) = (self.divide.clone(), self.input);
        Some((GROUPS, Box::new(Average::<I, S, D> { output, sums, cells, divide, input })))
    }

    fn save(&self, slots: &[u32]) -> Result<Tables> {
        save::<S>(&self.cells, slots, self.sums.clone())
    }

    fn load(&mut self, slots: &[u32], kept: &mut Tables) -> Result<()> {
        load::<S>(&mut self.cells, slots, kept)
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.cells);
    }

    fn memory_bytes(&self) -> usize {
        self.cells.memory_bytes()
    }
}

impl<I, S, D> Mergeable for Average<I, S, D>
where
    I: ArrowPrimitiveType + Debug + Send + Sync,
    S: ArrowPrimitiveType + Debug,
    I::Native: Into<S::Native>,
    S::Native: Add,
    D: Fn(S::Native, i64) -> Option<I::Native> + Clone + Send + Sync + 'static,
{
    fn fresh(&self) -> Option<Box<dyn SlotAggregate>> {
        Some(Box::new(averages::<I, S, D>(&self.output, &self.sums, self.divide.clone())))
    }

    fn subtracts(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &dyn SlotAggregate, pairs: &[Pair], change: Absorb) -> Result<()> {
        let other = same::<Self>(other)?;
        for (from, into) in pairs {
            let (found, cell) = (other.cells[*from as usize], &mut self.cells[*into as usize]);
            cell.sum.add(found.sum, change.sign());
            cell.count += change.sign() * found.count;
        }
        Ok(())
    }
}
