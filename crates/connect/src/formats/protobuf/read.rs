//! Reading of messages as their plan says.

use arrow::datatypes::{DataType, IntervalMonthDayNano, i256};

use super::plan::{FieldPlan, MessagePlan, ValuePlan};
use super::schema::{Label, Scalar};
use crate::formats::target::{StructTarget, Target, Values, Wrong, per_second};

/// Most levels of unknown groups.
const GROUPS_MAX: usize = 64;

/// A value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// The bytes of a message.
pub(super) struct Wire<'a> {
    pub rest: &'a [u8],
}

impl<'a> Wire<'a> {
    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0_u64;
        for (place, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err(Wrong::new(match self.rest.len() < 10 {
            true => "ends within a number",
            false => "has a number of more than 64 bits",
        }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Wrong> {
        let taken = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((taken, rest)) = taken else {
            let left = self.rest.len();
            return Err(Wrong::new(format!(
                "ends too early: {length} bytes were expected, but {left} are left"
            )));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// Takes a field; none at the end of the message.
    pub fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Wrong> {
        let mut groups = 0;
        while !self.rest.is_empty() {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
            let number =
                number.ok_or_else(|| Wrong::new(format!("has a field with the number {}", tag >> 3)))?;
            let raw = match tag & 7 {
                0 => Raw::Varint(self.varint()?),
                1 => Raw::Fixed64(self.array()?),
                2 => {
                    let length = self.varint()?;
                    Raw::Bytes(self.take(length)?)
                }
                3 if groups < GROUPS_MAX => {
                    groups += 1;
                    continue;
                }
                4 if groups > 0 => {
                    groups -= 1;
                    continue;
                }
                5 => Raw::Fixed32(self.array()?),
                other => return Err(Wrong::new(format!("has field {number} with wire type {other}"))),
            };
            // Nobody reads the fields of groups.
            if groups == 0 {
                return Ok(Some((number, raw)));
            }
        }
        match groups {
            0 => Ok(None),
            _ => Err(Wrong::new("ends within a group")),
        }
    }
}

/// Reads a message, and appends its fields.
pub(crate) fn read_message(plan: &MessagePlan, bytes: &[u8], to: &mut StructTarget) -> Result<(), Wrong> {
    let (mut wire, mut fields) = (Wire { rest: bytes }, Vec::new());
    while let Some(field) = wire.field()? {
        fields.push(field);
    }
    for (field, child) in plan.columns.iter().zip(&mut to.children) {
        let Some(field) = field else {
            child.push_null().map_err(|wrong| wrong.within(child.field.name()))?;
            continue;
        };
        let of_field = fields.iter().filter(|(number, _)| *number == field.number).map(|(_, raw)| *raw);
        read_field(field, of_field, child).map_err(|wrong| wrong.within(&field.name))?;
    }
    to.push_valid();
    Ok(())
}

fn read_field<'a>(
    plan: &FieldPlan,
    raw: impl Iterator<Item = Raw<'a>>,
    to: &mut Target,
) -> Result<(), Wrong> {
    match (&plan.label, &mut to.values) {
        (Label::Repeated, Values::List { ends, validity, item }) => {
            let mut count = 0;
            for raw in raw {
                count += read_repeated(&plan.value, raw, item)?;
            }
            push_end(ends, count)?;
            validity.append_non_null();
            Ok(())
        }
        (Label::Map(key), Values::Map { ends, validity, keys, values }) => {
            let mut count = 0;
            for raw in raw {
                read_entry(*key, &plan.value, raw, keys, values)?;
                count += 1;
            }
            push_end(ends, count)?;
            validity.append_non_null();
            Ok(())
        }
        (Label::Repeated | Label::Map(_), _) => Err(to.mismatch("repeated")),
        (label, _) => {
            let all: Vec<Raw<'_>> = raw.collect();
            match (all.as_slice(), label) {
                ([], Label::Implicit) => read_zero(&plan.value, to),
                ([], _) => to.push_null(),
                // Several messages of one field are one message in pieces.
                ([_, _, ..], _) if matches!(plan.value, ValuePlan::Message(_)) => {
                    let mut joined = Vec::new();
                    for raw in &all {
                        joined.extend_from_slice(bytes_of(*raw)?);
                    }
                    read_value(&plan.value, Raw::Bytes(&joined), to)
                }
                ([.., last], _) => read_value(&plan.value, *last, to),
            }
        }
    }
}

fn push_end(ends: &mut Vec<i32>, count: usize) -> Result<(), Wrong> {
    let last = ends.last().copied().unwrap_or_default();
    let end = i32::try_from(count).ok().and_then(|count| last.checked_add(count));
    ends.push(end.ok_or_else(|| Wrong::new("has more items than fit into one batch"))?);
    Ok(())
}

/// Reads a value of a list, or several that are packed. Returns their number.
fn read_repeated(plan: &ValuePlan, raw: Raw<'_>, to: &mut Target) -> Result<usize, Wrong> {
    let scalar = match plan {
        ValuePlan::Scalar(scalar) => *scalar,
        ValuePlan::Symbol(_) => Scalar::Int32,
        _ => return read_value(plan, raw, to).map(|()| 1),
    };
    let Raw::Bytes(packed) = raw else { return read_value(plan, raw, to).map(|()| 1) };
    let (mut wire, mut count) = (Wire { rest: packed }, 0);
    if matches!(scalar, Scalar::String | Scalar::Bytes) {
        return read_value(plan, raw, to).map(|()| 1);
    }
    while !wire.rest.is_empty() {
        let raw = match scalar {
            Scalar::Double | Scalar::Fixed64 | Scalar::SFixed64 => Raw::Fixed64(wire.array()?),
            Scalar::Float | Scalar::Fixed32 | Scalar::SFixed32 => Raw::Fixed32(wire.array()?),
            _ => Raw::Varint(wire.varint()?),
        };
        read_value(plan, raw, to)?;
        count += 1;
    }
    Ok(count)
}

/// Reads an entry of a map: a message of the key (1) and the value (2).
fn read_entry(
    key: Scalar,
    value: &ValuePlan,
    raw: Raw<'_>,
    keys: &mut Target,
    values: &mut Target,
) -> Result<(), Wrong> {
    let mut wire = Wire { rest: bytes_of(raw)? };
    let (mut key_raw, mut value_raw) = (zero(key), None);
    while let Some((number, raw)) = wire.field()? {
        match number {
            1 => key_raw = raw,
            2 => value_raw = Some(raw),
            _ => {}
        }
    }
    read_scalar(key, key_raw, keys)?;
    match value_raw {
        Some(raw) => read_value(value, raw, values),
        None => read_zero(value, values),
    }
}

fn read_zero(plan: &ValuePlan, to: &mut Target) -> Result<(), Wrong> {
    match plan {
        ValuePlan::Scalar(scalar) => read_scalar(*scalar, zero(*scalar), to),
        ValuePlan::Symbol(_) => read_value(plan, Raw::Varint(0), to),
        _ => read_value(plan, Raw::Bytes(&[]), to),
    }
}

fn zero(scalar: Scalar) -> Raw<'static> {
    match scalar {
        Scalar::Double | Scalar::Fixed64 | Scalar::SFixed64 => Raw::Fixed64([0; 8]),
        Scalar::Float | Scalar::Fixed32 | Scalar::SFixed32 => Raw::Fixed32([0; 4]),
        Scalar::String | Scalar::Bytes => Raw::Bytes(&[]),
        _ => Raw::Varint(0),
    }
}

fn bytes_of(raw: Raw<'_>) -> Result<&[u8], Wrong> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(Wrong::new("has another wire type than its type in the schema")),
    }
}

fn read_value(plan: &ValuePlan, raw: Raw<'_>, to: &mut Target) -> Result<(), Wrong> {
    match plan {
        ValuePlan::Scalar(scalar) => read_scalar(*scalar, raw, to),
        ValuePlan::Symbol(symbols) => {
            let (Raw::Varint(number), Values::Text(values)) = (raw, &mut to.values) else {
                return Err(to.mismatch("an enum of another wire type"));
            };
            let number = number as i32;
            match symbols.iter().find(|(_, known)| *known == number) {
                Some((name, _)) => values.append_value(name),
                // A newer schema may have more values.
                None => values.append_value(number.to_string()),
            }
            Ok(())
        }
        ValuePlan::Message(plan) => {
            let bytes = bytes_of(raw)?;
            match &mut to.values {
                Values::Struct(children) => read_message(plan, bytes, children),
                _ => Err(to.mismatch("a message")),
            }
        }
        ValuePlan::Wrapped(scalar) => {
            let mut wire = Wire { rest: bytes_of(raw)? };
            let mut value = zero(*scalar);
            while let Some((number, raw)) = wire.field()? {
                if number == 1 {
                    value = raw;
                }
            }
            read_scalar(*scalar, value, to)
        }
        ValuePlan::Timestamp => {
            let (seconds, nanos) = seconds_and_nanos(raw)?;
            let DataType::Timestamp(unit, _) = to.field.data_type() else {
                return Err(to.mismatch("a time"));
            };
            let units = per_second(unit);
            let fraction = nanos.div_euclid(1_000_000_000 / units);
            match seconds.checked_mul(units).and_then(|whole| whole.checked_add(fraction)) {
                Some(value) => to.push_whole(value),
                None => Err(to.too_large(&format!("{seconds} seconds since 1970"))),
            }
        }
        ValuePlan::Duration => {
            let (seconds, nanos) = seconds_and_nanos(raw)?;
            let all = seconds.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos));
            match (all, &mut to.values) {
                (Some(nanos), Values::Interval(values)) => {
                    values.append_value(IntervalMonthDayNano::new(0, 0, nanos));
                    Ok(())
                }
                _ => Err(to.too_large(&format!("{seconds} seconds"))),
            }
        }
    }
}

fn seconds_and_nanos(raw: Raw<'_>) -> Result<(i64, i64), Wrong> {
    let mut wire = Wire { rest: bytes_of(raw)? };
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((number, raw)) = wire.field()? {
        match (number, raw) {
            (1, Raw::Varint(value)) => seconds = value as i64,
            (2, Raw::Varint(value)) => nanos = i64::from(value as i32),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn read_scalar(scalar: Scalar, raw: Raw<'_>, to: &mut Target) -> Result<(), Wrong> {
    let zigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
    let whole = match (scalar, raw) {
        (Scalar::Int32, Raw::Varint(value)) => i64::from(value as i32),
        (Scalar::Int64, Raw::Varint(value)) => value as i64,
        (Scalar::UInt32, Raw::Varint(value)) => i64::from(value as u32),
        (Scalar::SInt32, Raw::Varint(value)) => i64::from(zigzag(value) as i32),
        (Scalar::SInt64, Raw::Varint(value)) => zigzag(value),
        (Scalar::Fixed32, Raw::Fixed32(bytes)) => i64::from(u32::from_le_bytes(bytes)),
        (Scalar::SFixed32, Raw::Fixed32(bytes)) => i64::from(i32::from_le_bytes(bytes)),
        (Scalar::SFixed64, Raw::Fixed64(bytes)) => i64::from_le_bytes(bytes),
        (Scalar::UInt64, Raw::Varint(value)) => return push_unsigned(value, to),
        (Scalar::Fixed64, Raw::Fixed64(bytes)) => return push_unsigned(u64::from_le_bytes(bytes), to),
        _ => return read_other(scalar, raw, to),
    };
    to.push_whole(whole)
}

fn push_unsigned(value: u64, to: &mut Target) -> Result<(), Wrong> {
    match (i64::try_from(value), &mut to.values) {
        (Ok(value), _) => to.push_whole(value),
        (Err(_), Values::Decimal { .. }) => to.push_decimal(i256::from_i128(i128::from(value)), 0),
        (Err(_), Values::Float(values)) => {
            values.append_value(value as f64);
            Ok(())
        }
        (Err(_), _) => Err(to.too_large(&value.to_string())),
    }
}

fn read_other(scalar: Scalar, raw: Raw<'_>, to: &mut Target) -> Result<(), Wrong> {
    let text =
        |bytes| std::str::from_utf8(bytes).map_err(|error| Wrong::new(format!("is no UTF-8: {error}")));
    match (scalar, raw, &mut to.values) {
        (Scalar::Bool, Raw::Varint(value), Values::Boolean(values)) => values.append_value(value != 0),
        (Scalar::Float, Raw::Fixed32(bytes), Values::Float(values)) => {
            values.append_value(f32::from_le_bytes(bytes).into());
        }
        (Scalar::Double, Raw::Fixed64(bytes), Values::Float(values)) => {
            values.append_value(f64::from_le_bytes(bytes));
        }
        (Scalar::String, Raw::Bytes(bytes), Values::Text(values)) => values.append_value(text(bytes)?),
        (Scalar::String | Scalar::Bytes, Raw::Bytes(bytes), Values::Bytes(values)) => {
            values.append_value(bytes)
        }
        // An absent text is an empty one.
        (Scalar::String, Raw::Bytes([]), _) => return to.push_null(),
        (Scalar::String, Raw::Bytes(bytes), _) => return to.push_parsed(text(bytes)?),
        _ => return Err(Wrong::new("has another wire type than its type in the schema")),
    }
    Ok(())
}
