//! Builds ranges from bounds, and multiranges from ranges.

use arrow::array::Array;

use super::range::{Bound, Range};
use super::set::Set;
use super::subtype::{Subtype, TYPES};
use super::value::Value;
use super::{bounds, set};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Computes a text from the arguments of a row.
type Build = fn(&Arguments, usize) -> Result<Option<String>>;

/// The functions of one type.
struct Functions {
    params: &'static [Param],
    build: Build,
    collect: &'static [Param],
    range_of_key: &'static str,
    multirange_of_key: &'static str,
}

fn functions(subtype: Subtype) -> Functions {
    macro_rules! of {
        ($subtype:ident, $range:ident, $range_of_key:literal, $multirange_of_key:literal) => {
            Functions {
                params: &[Param::Bound(Subtype::$subtype), Param::Bound(Subtype::$subtype), Param::Text],
                build: |all, row| build(Subtype::$subtype, all, row),
                collect: &[Param::Value(Mark::$range)],
                range_of_key: $range_of_key,
                multirange_of_key: $multirange_of_key,
            }
        };
    }
    match subtype {
        Subtype::Int4 => of!(Int4, Int4range, "int4range_of_key", "int4multirange_of_key"),
        Subtype::Int8 => of!(Int8, Int8range, "int8range_of_key", "int8multirange_of_key"),
        Subtype::Numeric => of!(Numeric, Numrange, "numrange_of_key", "nummultirange_of_key"),
        Subtype::Timestamp => of!(Timestamp, Tsrange, "tsrange_of_key", "tsmultirange_of_key"),
        Subtype::Timestamptz => of!(Timestamptz, Tstzrange, "tstzrange_of_key", "tstzmultirange_of_key"),
        Subtype::Date => of!(Date, Daterange, "daterange_of_key", "datemultirange_of_key"),
    }
}

/// Returns the functions that return the value of a key.
pub(crate) fn of_key(mark: Mark) -> Option<&'static str> {
    let found = functions(Subtype::of(mark)?);
    Some(if mark.is_multirange() { found.multirange_of_key } else { found.range_of_key })
}

pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    for (range, multirange, subtype) in TYPES {
        let Functions { params, build, collect: ranges, range_of_key, multirange_of_key } =
            functions(subtype);
        let (of_range, of_multirange) = (Returns::Marked(range), Returns::Marked(multirange));
        let builder = MarkedFunction::new(range.name(), params, of_range.clone(), Kernel::Text(build));
        add(builder.optional(1).called_on_null());
        let collector =
            MarkedFunction::new(multirange.name(), ranges, of_multirange.clone(), Kernel::Text(collect));
        add(collector.optional(1).repeated());
        add(MarkedFunction::new(range_of_key, &[Param::Text], of_range, Kernel::Text(value_of_key)));
        add(MarkedFunction::new(
            multirange_of_key,
            &[Param::Text],
            of_multirange,
            Kernel::Text(value_of_key),
        ));
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
