//! Builds ranges from bounds, and multiranges from ranges.

use arrow::array::Array;

use super::range::{Bound, Range};
use super::set::Set;
use super::value::Value;
use super::{bounds, set};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::functions::marks::subtype::{Subtype, TYPES, of_key};
use crate::sqlstate;

/// Computes a text from the arguments of a row.
type Build = fn(&Arguments, usize) -> Result<Option<String>>;

/// The functions of one type.
struct Functions {
    params: &'static [Param],
    build: Build,
    collect: &'static [Param],
}

fn functions(subtype: Subtype) -> Functions {
    macro_rules! of {
        ($subtype:ident, $range:ident) => {
            Functions {
                params: &[Param::Bound(Subtype::$subtype), Param::Bound(Subtype::$subtype), Param::Text],
                build: |all, row| build(Subtype::$subtype, all, row),
                collect: &[Param::Value(Mark::$range)],
            }
        };
    }
    match subtype {
        Subtype::Int4 => of!(Int4, Int4range),
        Subtype::Int8 => of!(Int8, Int8range),
        Subtype::Numeric => of!(Numeric, Numrange),
        Subtype::Timestamp => of!(Timestamp, Tsrange),
        Subtype::Timestamptz => of!(Timestamptz, Tstzrange),
        Subtype::Date => of!(Date, Daterange),
    }
}

pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    for (range, multirange, subtype) in TYPES {
        let Functions { params, build, collect: ranges } = functions(subtype);
        let (of_range, of_multirange) = (Returns::Marked(range), Returns::Marked(multirange));
        let builder = MarkedFunction::new(range.name(), params, of_range, Kernel::Text(build));
        add(builder.optional(1).called_on_null());
        let collector = MarkedFunction::new(multirange.name(), ranges, of_multirange, Kernel::Text(collect));
        add(collector.optional(1).repeated());
        for mark in [range, multirange] {
            if let Some(name) = of_key(mark) {
                add(MarkedFunction::new(
                    name,
                    &[Param::Text],
                    Returns::Marked(mark),
                    Kernel::Text(value_of_key),
                ));
            }
        }
    }
}

fn value_of_key(all: &Arguments, row: usize) -> Result<Option<String>> {
    let value = |key: &str| {
        let value = key.split_once('|').map(|(_, value)| value.to_string());
        value.ok_or_else(|| Error::bug(format!("the key of a range can't be read: {key}")))
    };
    all.text(0, row).map(value).transpose()
}

/// Returns a range from its bounds; NULL is none.
fn build(subtype: Subtype, all: &Arguments, row: usize) -> Result<Option<String>> {
    let (includes_lower, includes_upper) = match all.text(2, row) {
        _ if all.columns.len() < 3 => (true, false),
        Some("[]") => (true, true),
        Some("[)") => (true, false),
        Some("(]") => (false, true),
        Some("()") => (false, false),
        None => {
            return Err(Error::invalid("range constructor flags argument must not be null")
                .hint("Leave it out, or write '[)'.")
                .code(sqlstate::DATA_EXCEPTION));
        }
        Some(_) => {
            return Err(Error::invalid("invalid range bound flags")
                .hint("Valid values are \"[]\", \"[)\", \"(]\", and \"()\".")
                .code(sqlstate::SYNTAX_ERROR));
        }
    };
    let lower = Bound::lower(bound(subtype, all, 0, row)?, includes_lower);
    let upper = Bound::upper(bound(subtype, all, 1, row)?, includes_upper);
    let range = Range::between(lower, upper)?;
    let range = range.map(|range| range.canonical(subtype)).transpose()?.flatten();
    Ok(Some(Set { ranges: range.into_iter().collect(), is_multirange: false }.text()))
}

fn bound(subtype: Subtype, all: &Arguments, at: usize, row: usize) -> Result<Option<Value<'static>>> {
    if let Some(text) = all.text(at, row) {
        return Value::read(subtype, text).map(Some);
    }
    let is_text =
        all.columns.get(at).is_some_and(|column| column.data_type() == &arrow::datatypes::DataType::Utf8View);
    if is_text {
        return Ok(None);
    }
    bounds::element(all, at, row)?.map(|value| value.of(subtype)).transpose()
}

/// Returns the multirange of ranges.
fn collect(all: &Arguments, row: usize) -> Result<Option<String>> {
    let mut ranges = Vec::new();
    for at in 0..all.columns.len() {
        ranges.extend(set(all, at, row)?.map(|set| set.ranges).unwrap_or_default());
    }
    Ok(Some(Set::of(ranges, true).text()))
}
