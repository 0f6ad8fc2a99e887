//! Functions of the sorted values of a group: the mode, percentiles, and ranks of a value among them.
//!
//! A rewrite of WITHIN GROUP calls them. As in PostgreSQL, the mode and percentiles leave NULLs out, and ranks count them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Array,
    IntervalMonthDayNanoBuilder, ListBuilder, UInt64Array, make_comparator, new_empty_array,
};
use arrow::compute::{CastOptions, SortOptions, cast, cast_with_options, concat, filter, is_not_null, take};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use millstream_delta::{one_form, sql_type};

use super::interval::product;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::{Kernel, Scalar};
use crate::sqlstate;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.add(Scalar::any("mode_of", |types| element("mode", types), mode));
    registry.add(Scalar::any("percentile_disc_of", discrete_type, discrete));
    registry.add(Scalar::any("percentile_cont_of", continuous_type, continuous));
    let ranks: [(&'static str, Kernel); 2] = [
        ("rank_of", |columns| ranks(columns, |place| place.before + 1)),
        ("dense_rank_of", |columns| ranks(columns, |place| place.distinct_before + 1)),
    ];
    for (name, kernel) in ranks {
        registry.add(Scalar::any(name, |types| compared(types).map(|_| DataType::Int64), kernel));
    }
    let parts: [(&'static str, Kernel); 2] = [
        ("percent_rank_of", |columns| {
            parts(
                columns,
                |place| if place.rows == 0 { 0.0 } else { place.before as f64 / place.rows as f64 },
            )
        }),
        ("cume_dist_of", |columns| {
            parts(columns, |place| (place.until + 1) as f64 / (place.rows + 1) as f64)
        }),
    ];
    for (name, kernel) in parts {
        registry.add(Scalar::any(name, |_| Ok(DataType::Float64), kernel));
    }
}

/// Returns the type of the sorted values.
fn element(name: &str, types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(DataType::List(item)) => Ok(item.data_type().clone()),
        _ => Err(Error::invalid(format!("{name} needs WITHIN GROUP (ORDER BY …)")).into()),
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_))
}

fn discrete_type(types: &[DataType]) -> Result<DataType> {
    let value = element("percentile_disc", types)?;
    match types.get(1) {
        Some(fractions) if is_list(fractions) => Ok(DataType::new_list(value, true)),
        _ => Ok(value),
    }
}

fn continuous_type(types: &[DataType]) -> Result<DataType> {
    let value = match element("percentile_cont", types)? {
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        value if value.is_numeric() || value.is_null() => DataType::Float64,
        other => {
            let found = sql_type(&other);
            return Err(
                Error::invalid(format!("percentile_cont takes numbers or intervals, not {found}")).into()
            );
        }
    };
    Ok(DataType::new_list(value, true))
}

/// Returns the values of a row's list that aren't NULL.
fn present(lists: &ArrayRef, row: usize) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    if lists.is_null(row) {
        return Ok(new_empty_array(&lists.value_type()));
    }
    let values = lists.value(row);
    Ok(filter(&values, &is_not_null(&values)?)?)
}

/// Picks an element of each row's values, or NULL.
fn picked(lists: &ArrayRef, pick: impl Fn(usize, &ArrayRef) -> Result<Option<usize>>) -> Result<ArrayRef> {
    let mut parts = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let values = present(lists, row)?;
        let place = pick(row, &values)?.and_then(|place| u64::try_from(place).ok());
        parts.push(take(&values, &UInt64Array::from(vec![place]), None)?);
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    match parts.is_empty() {
        true => Ok(new_empty_array(&lists.as_list::<i32>().value_type())),
        false => Ok(concat(&parts)?),
    }
}

/// Returns the most frequent value; of several, the first.
fn mode(columns: &[ArrayRef]) -> Result<ArrayRef> {
    picked(&columns[0], |_, values| {
        let forms = one_form(values)?;
        let compare = make_comparator(&forms, &forms, SortOptions::default())?;
        let (mut best, mut start) = (None, 0);
        for at in 0..values.len() {
            if compare(start, at) != Ordering::Equal {
                start = at;
            }
            let count = at - start + 1;
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((start, count));
            }
        }
        Ok(best.map(|(start, _)| start))
    })
}

/// Fails unless a fraction is between 0 and 1.
fn checked(fraction: f64) -> Result<f64, Error> {
    match (0.0..=1.0).contains(&fraction) {
        true => Ok(fraction),
        false => Err(Error::invalid(format!("percentile value {fraction} is not between 0 and 1"))
            .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)),
    }
}

/// Returns the place of the first value that at least this fraction of the values doesn't exceed.
fn place(fraction: f64, count: usize) -> Option<usize> {
    let row = (fraction * count as f64).ceil() as usize;
    (count > 0).then(|| row.saturating_sub(1))
}

/// Returns the fractions of a row.
fn fractions(column: &ArrayRef, row: usize) -> Result<Vec<Option<f64>>> {
    let values = match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        _ => column.slice(row, 1),
    };
    let values = cast(&values, &DataType::Float64)?;
    let all = values.as_primitive::<Float64Type>().iter();
    Ok(all.map(|fraction| fraction.map(checked).transpose()).collect::<Result<_, Error>>()?)
}

fn discrete(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let DataType::List(item) = discrete_type(&types)? else {
        return picked(&columns[0], |row, values| {
            let fraction = fractions(&columns[1], row)?.first().copied().flatten();
            Ok(fraction.and_then(|fraction| place(fraction, values.len())))
        });
    };
    let mut parts: Vec<ArrayRef> = Vec::new();
    let mut lengths = Vec::with_capacity(columns[0].len());
    let mut valid = Vec::with_capacity(columns[0].len());
    for row in 0..columns[0].len() {
        let values = present(&columns[0], row)?;
        let is_valid = columns[1].is_valid(row) && !values.is_empty();
        let places: Vec<Option<u64>> = match is_valid {
            true => fractions(&columns[1], row)?
                .into_iter()
                .map(|fraction| place(fraction?, values.len()).and_then(|place| u64::try_from(place).ok()))
                .collect(),
            false => Vec::new(),
        };
        lengths.push(places.len());
        valid.push(is_valid);
        parts.push(take(&values, &UInt64Array::from(places), None)?);
    }
    let values = match parts.is_empty() {
        true => new_empty_array(item.data_type()),
        false => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?,
    };
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(arrow::array::ListArray::try_new(item, offsets, values, Some(valid.into()))?))
}

/// Returns the places between which a fraction is, and the part of the way from one to the other.
fn between(fraction: f64, count: usize) -> (usize, usize, f64) {
    let at = fraction * (count - 1) as f64;
    (at.floor() as usize, at.ceil() as usize, at - at.floor())
}

fn continuous(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let is_interval =
        matches!(continuous_type(&types)?, DataType::List(item) if *item.data_type() == INTERVAL);
    let mut numbers = ListBuilder::new(Float64Builder::new());
    let mut intervals = ListBuilder::new(IntervalMonthDayNanoBuilder::new());
    for row in 0..columns[0].len() {
        let values = present(&columns[0], row)?;
        let is_valid = columns[1].is_valid(row) && !values.is_empty();
        let fractions = if is_valid { fractions(&columns[1], row)? } else { Vec::new() };
        for fraction in fractions {
            let places = fraction.map(|fraction| between(fraction, values.len()));
            if is_interval {
                let values = cast(&values, &INTERVAL)?;
                let values = values.as_primitive::<IntervalMonthDayNanoType>();
                let value = places.and_then(|(low, high, part)| {
                    interval_between(values.value(low), values.value(high), part)
                });
                intervals.values().append_option(value);
            } else {
                let values = cast(&values, &DataType::Float64)?;
                let values = values.as_primitive::<Float64Type>();
                let value = |(low, high, part): (usize, usize, f64)| {
                    let (low, high) = (values.value(low), values.value(high));
                    if part == 0.0 { low } else { low + part * (high - low) }
                };
                numbers.values().append_option(places.map(value));
            }
        }
        match is_interval {
            true => intervals.append(is_valid),
            false => numbers.append(is_valid),
        }
    }
    Ok(if is_interval { Arc::new(intervals.finish()) } else { Arc::new(numbers.finish()) })
}

fn interval_between(
    low: IntervalMonthDayNano,
    high: IntervalMonthDayNano,
    part: f64,
) -> Option<IntervalMonthDayNano> {
    let way = IntervalMonthDayNano::new(
        high.months.checked_sub(low.months)?,
        high.days.checked_sub(low.days)?,
        high.nanoseconds.checked_sub(low.nanoseconds)?,
    );
    let way = product(way, part)?;
    Some(IntervalMonthDayNano::new(
        low.months.checked_add(way.months)?,
        low.days.checked_add(way.days)?,
        low.nanoseconds.checked_add(way.nanoseconds)?,
    ))
}

/// The place of a value among others.
#[derive(Default)]
struct Place {
    rows: i64,
    /// The values that come before it.
    before: i64,
    distinct_before: i64,
    /// The values that come before it, or are equal.
    until: i64,
}

/// Returns the type in which the sorted values and a value are compared.
fn compared(types: &[DataType]) -> Result<DataType> {
    let [DataType::List(item), wanted, ..] = types else {
        return Err(Error::invalid("a hypothetical rank needs WITHIN GROUP (ORDER BY …)").into());
    };
    let item = item.data_type();
    let common = match (item, wanted) {
        (item, wanted) if item == wanted || wanted.is_null() => Some(item.clone()),
        (item, wanted) if item.is_null() => Some(wanted.clone()),
        // A text stands for the value that it spells.
        (item, wanted) if wanted.is_string() => Some(item.clone()),
        (item, _) if item.is_string() => None,
        (item, wanted) => comparison_coercion(item, wanted),
    };
    common.ok_or_else(|| {
        let (wanted, item) = (sql_type(wanted), sql_type(item));
        Error::invalid(format!("WITHIN GROUP types {item} and {wanted} cannot be matched")).into()
    })
}

/// Returns the place of each row's value among the sorted ones of its list.
fn places(columns: &[ArrayRef]) -> Result<Vec<Place>> {
    let [lists, wanted, descending, nulls_first] = columns else {
        return Err(Error::bug("a rank takes the sorted values, a value and their order").into());
    };
    if !is_list(lists.data_type()) {
        return Err(Error::invalid("a hypothetical rank needs WITHIN GROUP (ORDER BY …)").into());
    }
    let lists = lists.as_list::<i32>();
    let item = compared(&[columns[0].data_type().clone(), wanted.data_type().clone()])?;
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    let wanted = one_form(&cast_with_options(wanted, &item, &exactly)?)?;
    let flag = |column: &ArrayRef| {
        column.as_boolean_opt().is_some_and(|flags: &BooleanArray| !flags.is_empty() && flags.value(0))
    };
    let options = SortOptions { descending: flag(descending), nulls_first: flag(nulls_first) };
    let mut places = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let mut place = Place::default();
        let values = match lists.is_null(row) {
            true => new_empty_array(&item),
            false => one_form(&cast_with_options(&lists.value(row), &item, &exactly)?)?,
        };
        let compare = make_comparator(&values, &wanted, options)?;
        let among = make_comparator(&values, &values, options)?;
        for at in 0..values.len() {
            place.rows += 1;
            let order = compare(at, row);
            place.until += i64::from(order != Ordering::Greater);
            if order == Ordering::Less {
                place.before += 1;
                place.distinct_before += i64::from(at == 0 || among(at - 1, at) != Ordering::Equal);
            }
        }
        places.push(place);
    }
    Ok(places)
}

fn ranks(columns: &[ArrayRef], rank: impl Fn(&Place) -> i64) -> Result<ArrayRef> {
    Ok(Arc::new(places(columns)?.iter().map(|place| Some(rank(place))).collect::<Int64Array>()))
}

fn parts(columns: &[ArrayRef], part: impl Fn(&Place) -> f64) -> Result<ArrayRef> {
    Ok(Arc::new(places(columns)?.iter().map(|place| Some(part(place))).collect::<Float64Array>()))
}
