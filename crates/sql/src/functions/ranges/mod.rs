//! Ranges and multiranges, stored as text: INT4RANGE, INT8RANGE, NUMRANGE, TSRANGE, TSTZRANGE, DATERANGE and their
//! multiranges, with PostgreSQL's functions and operators.
//!
//! | part | |
//! | --- | --- |
//! | [`value`], [`number`], [`time`] | the values of bounds |
//! | [`range`], [`set`] | a range, and the ranges of a value |
//! | [`bounds`], [`build`], [`lists`] | functions that return bounds, build values, and read arrays of them |
//! | [`operators`], [`unnest`] | plan operators and `unnest`; see `ast_rewrite/multiranges.rs`, too |
//!
//! The text of each value is canonical: the one that PostgreSQL writes, but without zeros at the end of a NUMERIC. So equal
//! values have equal texts. Their order isn't that of their texts; `range_key` returns texts that have it: the key, `|` and
//! the value. A canonical text shows the kind of its bounds, so most functions are the same for all types.

mod bounds;
mod build;
mod lists;
mod number;
pub(crate) mod operators;
mod range;
mod set;
mod time;
pub(crate) mod unnest;
mod value;

use arrow::datatypes::DataType;

use self::set::Set;
use super::marks::Mark;
use super::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use super::marks::subtype::Subtype;
use crate::error::{Error, Result};

/// Returns the canonical text of a value of one of these types.
pub(super) fn canonical(mark: Mark, text: &str) -> Result<String> {
    let subtype = Subtype::of(mark).ok_or_else(|| Error::bug(format!("{} is no range", mark.type_name())))?;
    Ok(Set::read(mark, subtype, text)?.text())
}

/// Returns the name of the function of earlier versions, which returns nanoseconds, in the place of one that returns the
/// bound of a range of times.
pub(crate) fn earlier_bound(name: &str) -> Option<&'static str> {
    bounds::earlier_name(name)
}

/// Returns the function that a call means if its first argument has a type.
pub(crate) fn overload(name: &str, mark: Mark) -> Option<&'static str> {
    let subtype = Subtype::of(mark)?;
    Some(match name {
        "lower" => bounds::name(subtype, true),
        "upper" => bounds::name(subtype, false),
        // A cast.
        name if name.strip_prefix("read_").and_then(Mark::named)? == mark.multirange()?
            && !mark.is_multirange() =>
        {
            "multirange"
        }
        _ => return None,
    })
}

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    flags(add);
    predicates(add);
    operations(add);
    bounds::list(add);
    build::list(add);
    lists::list(add);
}

/// A range or a multirange.
const SET: Param = Param::Text;

fn set(all: &Arguments, at: usize, row: usize) -> Result<Option<Set<'_>>> {
    all.text(at, row).map(Set::of_canonical).transpose()
}

fn both<'a, T>(all: &'a Arguments, row: usize, of: impl FnOnce(Set<'a>, Set<'a>) -> T) -> Result<Option<T>> {
    let (one, other) = (set(all, 0, row)?, set(all, 1, row)?);
    Ok(one.zip(other).map(|(one, other)| of(one, other)))
}

/// Functions of one value that return a flag.
fn flags(add: &mut dyn FnMut(MarkedFunction)) {
    let mut flag = |name, kernel| {
        add(MarkedFunction::new(name, &[SET], Returns::Type(DataType::Boolean), Kernel::Bool(kernel)));
    };
    flag("isempty", |all, row| Ok(set(all, 0, row)?.map(|found| found.ranges.is_empty())));
    flag("lower_inc", |all, row| {
        Ok(set(all, 0, row)?.map(|found| found.lower().is_some_and(|bound| bound.is_inclusive)))
    });
    flag("upper_inc", |all, row| {
        Ok(set(all, 0, row)?.map(|found| found.upper().is_some_and(|bound| bound.is_inclusive)))
    });
    flag("lower_inf", |all, row| {
        Ok(set(all, 0, row)?.map(|found| found.lower().is_some_and(|bound| bound.value.is_none())))
    });
    flag("upper_inf", |all, row| {
        Ok(set(all, 0, row)?.map(|found| found.upper().is_some_and(|bound| bound.value.is_none())))
    });
}

/// Operators that return a flag.
fn predicates(add: &mut dyn FnMut(MarkedFunction)) {
    let mut flag = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Type(DataType::Boolean), Kernel::Bool(kernel)));
    };
    let two = &[SET, SET];
    flag("range_contains", two, |all, row| both(all, row, |one, other| one.contains(&other)));
    flag("range_contained", two, |all, row| both(all, row, |one, other| other.contains(&one)));
    flag("range_overlaps", two, |all, row| both(all, row, |one, other| one.overlaps(&other)));
    flag("range_before", two, |all, row| both(all, row, |one, other| one.is_before(&other)));
    flag("range_after", two, |all, row| both(all, row, |one, other| other.is_before(&one)));
    flag("range_overleft", two, |all, row| both(all, row, |one, other| one.is_left(&other)));
    flag("range_overright", two, |all, row| both(all, row, |one, other| one.is_right(&other)));
    flag("range_adjacent", two, |all, row| both(all, row, |one, other| one.is_adjacent(&other)));
    flag("range_contains_elem", &[SET, Param::Element], |all, row| {
        Ok(set(all, 0, row)?.zip(bounds::element(all, 1, row)?).map(|(set, value)| set.contains_value(value)))
    });
    flag("elem_contained_by_range", &[Param::Element, SET], |all, row| {
        Ok(set(all, 1, row)?.zip(bounds::element(all, 0, row)?).map(|(set, value)| set.contains_value(value)))
    });
}

/// Operators and functions that return a range or a multirange.
fn operations(add: &mut dyn FnMut(MarkedFunction)) {
    let mut of = |name, params, returns: fn(Mark) -> Option<Mark>, kernel| {
        add(MarkedFunction::new(name, params, Returns::Of(returns), Kernel::Text(kernel)));
    };
    let two = &[SET, SET];
    of("range_union", two, Some, |all, row| {
        let set = both(all, row, Set::union)?.transpose()?;
        Ok(set.map(|set| set.text()))
    });
    of("range_intersect", two, Some, |all, row| both(all, row, |one, other| one.intersection(&other).text()));
    of("range_minus", two, Some, |all, row| {
        let set = both(all, row, |one, other| one.difference(&other))?.transpose()?;
        Ok(set.map(|set| set.text()))
    });
    of("multirange", &[SET], Mark::multirange, |all, row| {
        Ok(set(all, 0, row)?.map(|found| Set { is_multirange: true, ..found }.text()))
    });
    add(MarkedFunction::new(
        "range_merge",
        two,
        Returns::Of(Mark::range),
        Kernel::Text(|all, row| match all.columns.len() {
            1 => Ok(set(all, 0, row)?.map(|found| found.merged().text())),
            _ => both(all, row, |one, other| one.spanned(other).text()),
        }),
    )
    .optional(1));
    add(MarkedFunction::new(
        "range_key",
        &[SET],
        Returns::Type(DataType::Utf8View),
        Kernel::Text(|all, row| {
            let Some(text) = all.text(0, row) else { return Ok(None) };
            Ok(Some(format!("{}|{text}", Set::of_canonical(text)?.key())))
        }),
    ));
}
