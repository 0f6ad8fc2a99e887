//! Bit strings, stored as text of the digits 0 and 1: BIT and BIT VARYING, with PostgreSQL's functions and operators.
//!
//! The order of bit strings is that of their texts. The length of a type belongs to a column or to a cast: values don't
//! have it.

pub(crate) mod aggregates;
pub(crate) mod operators;
pub(crate) mod value;

use arrow::datatypes::DataType;
use millstream_delta::sql_type;

use self::value::Pairwise;
use super::marks::Mark;
use super::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::error::Result;

const BITS: Param = Param::Value(Mark::Bit);

/// Returns the function that a call means if an argument is a bit string.
pub(crate) fn overload(name: &str, marks: &[Option<Mark>]) -> Option<&'static str> {
    if !marks.iter().flatten().any(|mark| mark.is_bits()) {
        return None;
    }
    Some(match name {
        "substr" => "bits_part",
        "overlay" => "bits_overlay",
        "strpos" => "bits_position",
        "bit_length" => "bits_length",
        "octet_length" => "bits_octets",
        "bit_count" => "bits_count",
        "get_bit" => "bits_get",
        "set_bit" => "bits_set",
        _ => return None,
    })
}

/// Returns the name of another type as PostgreSQL shows it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 => "integer".into(),
        other => sql_type(other).to_lowercase(),
    }
}

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    operations(add);
    parts(add);
    numbers(add);
}

/// Functions of operators.
fn operations(add: &mut dyn FnMut(MarkedFunction)) {
    let mut bits = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Marked(Mark::Bit), Kernel::Text(kernel)));
    };
    bits("bits_and", &[BITS, BITS], |all, row| combined(all, row, Pairwise::And));
    bits("bits_or", &[BITS, BITS], |all, row| combined(all, row, Pairwise::Or));
    bits("bits_xor", &[BITS, BITS], |all, row| combined(all, row, Pairwise::Xor));
    bits("bits_not", &[BITS], |all, row| each(all, row, |digits| Ok(value::not(digits))));
    bits("bits_shift_left", &[BITS, Param::Int], |all, row| {
        let Some(by) = all.int(1, row) else { return Ok(None) };
        each(all, row, |digits| Ok(value::shifted(digits, by)))
    });
    bits("bits_shift_right", &[BITS, Param::Int], |all, row| {
        let Some(by) = all.int(1, row) else { return Ok(None) };
        each(all, row, |digits| Ok(value::shifted(digits, by.saturating_neg())))
    });
    let varying = Returns::Marked(Mark::Varbit);
    let both = Kernel::Text(|all, row| pair(all, row, value::concatenated));
    add(MarkedFunction::new("bits_concat", &[BITS, BITS], varying, both));
}

/// Functions that return a part of a bit string, or change one.
fn parts(add: &mut dyn FnMut(MarkedFunction)) {
    let mut bits = |name, params, optional, kernel| {
        let function = MarkedFunction::new(name, params, Returns::Marked(Mark::Bit), Kernel::Text(kernel));
        add(function.optional(optional));
    };
    bits("bits_part", &[BITS, Param::Int, Param::Int], 1, |all, row| {
        let Some(start) = all.int(1, row) else { return Ok(None) };
        each(all, row, |digits| Ok(value::part(digits, start, all.int(2, row))?.to_string()))
    });
    bits("bits_overlay", &[BITS, BITS, Param::Int, Param::Int], 1, |all, row| {
        let Some(from) = all.int(2, row) else { return Ok(None) };
        pair(all, row, |digits, new| value::overlaid(digits, new, from, all.int(3, row)))
    });
    bits("bits_set", &[BITS, Param::Int, Param::Int], 0, |all, row| {
        let (Some(at), Some(new)) = (all.int(1, row), all.int(2, row)) else { return Ok(None) };
        each(all, row, |digits| value::with_bit(digits, at, new))
    });
}

/// Functions from a bit string to a number.
fn numbers(add: &mut dyn FnMut(MarkedFunction)) {
    let mut int = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Type(DataType::Int32), Kernel::Int(kernel)));
    };
    int("bits_length", &[BITS], |all, row| each(all, row, |digits| Ok(count(digits.len()))));
    int("bits_octets", &[BITS], |all, row| each(all, row, |digits| Ok(count(digits.len().div_ceil(8)))));
    int("bits_position", &[BITS, BITS], |all, row| {
        pair(all, row, |digits, part| Ok(value::position(digits, part)))
    });
    int("bits_get", &[BITS, Param::Int], |all, row| {
        let Some(at) = all.int(1, row) else { return Ok(None) };
        each(all, row, |digits| Ok(i32::from(digits.as_bytes()[value::index(digits, at)?] == b'1')))
    });
    int("bits_integer", &[BITS], |all, row| {
        each(all, row, |digits| Ok(value::to_int(digits, 32, "integer")? as i32))
    });
    let mut long = |name, kernel| {
        add(MarkedFunction::new(name, &[BITS], Returns::Type(DataType::Int64), Kernel::Long(kernel)));
    };
    long("bits_bigint", |all, row| each(all, row, |digits| value::to_int(digits, 64, "bigint")));
    long("bits_count", |all, row| {
        each(all, row, |digits| Ok(digits.bytes().filter(|digit| *digit == b'1').count() as i64))
    });
}

fn count(bits: usize) -> i32 {
    i32::try_from(bits).unwrap_or(i32::MAX)
}

/// Computes a result from the first argument.
fn each<T>(all: &Arguments, row: usize, of: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
    let Some(text) = all.text(0, row) else { return Ok(None) };
    of(&value::read(text)?).map(Some)
}

/// Computes a result from the first two arguments.
fn pair<T>(all: &Arguments, row: usize, of: impl Fn(&str, &str) -> Result<T>) -> Result<Option<T>> {
    let (Some(one), Some(other)) = (all.text(0, row), all.text(1, row)) else { return Ok(None) };
    of(&value::read(one)?, &value::read(other)?).map(Some)
}

fn combined(all: &Arguments, row: usize, operator: Pairwise) -> Result<Option<String>> {
    pair(all, row, |one, other| {
        let mut digits = one.as_bytes().to_vec();
        operator.apply(&mut digits, other.as_bytes())?;
        Ok(digits.into_iter().map(char::from).collect())
    })
}
