//! Reading of values as their plan says.

use arrow::datatypes::{IntervalMonthDayNano, i256};

use super::input::Input;
use super::plan::{Action, Plan, RecordPlan, Scaling};
use super::schema::AvroSchema;
use crate::formats::target::{StructTarget, Target, Values, Wrong};

/// Reads a value, and appends it to a column.
pub(crate) fn read(
    plan: &Plan,
    schema: &AvroSchema,
    input: &mut Input<'_>,
    to: &mut Target,
) -> Result<(), Wrong> {
    input.count()?;
    match plan {
        Plan::Null => to.push_null(),
        Plan::Union(branches) => {
            let branch = input.branch(branches.len())?;
            match &branches[branch] {
                Ok(plan) => read(plan, schema, input, to),
                Err(error) => Err(Wrong::new(error.clone())),
            }
        }
        Plan::Whole { is_int, scaling } => {
            let value = if *is_int { input.int()? } else { input.long()? };
            let scaled = match scaling {
                Scaling::Multiply(factor) => value.checked_mul(*factor),
                Scaling::Divide(by) => Some(value.div_euclid(*by)),
            };
            match scaled {
                Some(scaled) => to.push_whole(scaled),
                None => Err(to.too_large(&value.to_string())),
            }
        }
        Plan::Parsed => to.push_parsed(input.text()?),
        Plan::Decimal { size, scale } => {
            let bytes = sized(input, *size)?;
            let value = number(bytes).ok_or_else(|| {
                Wrong::new(format!(
                    "is a decimal of {} bytes, which doesn't fit {}",
                    bytes.len(),
                    to.sql_type()
                ))
            })?;
            to.push_decimal(value, *scale)
        }
        Plan::Array(plan) => read_array(plan, schema, input, to),
        Plan::Map(plan) => read_map(plan, schema, input, to),
        Plan::Record(plan) => match &mut to.values {
            Values::Struct(children) => read_record(plan, schema, input, children),
            _ => Err(to.mismatch("a record")),
        },
        _ => read_leaf(plan, input, to),
    }
}

fn read_leaf(plan: &Plan, input: &mut Input<'_>, to: &mut Target) -> Result<(), Wrong> {
    match (plan, &mut to.values) {
        (Plan::Boolean, Values::Boolean(values)) => values.append_value(input.boolean()?),
        (Plan::Float, Values::Float(values)) => {
            values.append_value(f32::from_le_bytes(input.array()?).into())
        }
        (Plan::Double, Values::Float(values)) => values.append_value(f64::from_le_bytes(input.array()?)),
        (Plan::Text, Values::Text(values)) => values.append_value(input.text()?),
        (Plan::Text, Values::Bytes(values)) => values.append_value(input.bytes()?),
        (Plan::Bytes { size }, Values::Bytes(values)) => values.append_value(sized(input, *size)?),
        (Plan::Bytes { .. }, Values::Text(values)) => values.append_value(input.text()?),
        (Plan::Uuid, Values::Text(values)) => values.append_value(uuid(input.array()?)),
        (Plan::Enum(symbols), Values::Text(values)) => {
            values.append_value(&symbols[input.symbol(symbols.len())?]);
        }
        (Plan::Duration, Values::Interval(values)) => {
            let mut part = || input.array().map(u32::from_le_bytes);
            let (months, days, millis) = (part()?, part()?, part()?);
            let (Ok(months), Ok(days)) = (i32::try_from(months), i32::try_from(days)) else {
                return Err(to.too_large(&format!("{months} months and {days} days")));
            };
            values.append_value(IntervalMonthDayNano::new(months, days, i64::from(millis) * 1_000_000));
        }
        _ => return Err(to.mismatch("of another type")),
    }
    Ok(())
}

/// Reads a record, and appends its fields.
pub(crate) fn read_record(
    plan: &RecordPlan,
    schema: &AvroSchema,
    input: &mut Input<'_>,
    to: &mut StructTarget,
) -> Result<(), Wrong> {
    for step in &plan.steps {
        let read = match &step.action {
            Action::Skip(id) => input.skip(schema, *id, 0),
            Action::Read(place, plan) => read(plan, schema, input, &mut to.children[*place]),
        };
        read.map_err(|wrong| wrong.within(&step.name))?;
    }
    for place in &plan.absent {
        let child = &mut to.children[*place];
        child.push_null().map_err(|wrong| wrong.within(child.field.name()))?;
    }
    to.push_valid();
    Ok(())
}

fn read_array(plan: &Plan, schema: &AvroSchema, input: &mut Input<'_>, to: &mut Target) -> Result<(), Wrong> {
    let Values::List { ends, validity, item } = &mut to.values else { return Err(to.mismatch("an array")) };
    let count = read_blocks(input, |input| read(plan, schema, input, item))?;
    ends.push(end(ends, count)?);
    validity.append_non_null();
    Ok(())
}

fn read_map(plan: &Plan, schema: &AvroSchema, input: &mut Input<'_>, to: &mut Target) -> Result<(), Wrong> {
    let Values::Map { ends, validity, keys, values } = &mut to.values else {
        return Err(to.mismatch("a map"));
    };
    let count = read_blocks(input, |input| {
        read(&Plan::Text, schema, input, keys)?;
        read(plan, schema, input, values)
    })?;
    ends.push(end(ends, count)?);
    validity.append_non_null();
    Ok(())
}

/// Reads the items of an array or a map, and returns their number.
fn read_blocks(
    input: &mut Input<'_>,
    mut item: impl FnMut(&mut Input<'_>) -> Result<(), Wrong>,
) -> Result<usize, Wrong> {
    let mut all = 0;
    loop {
        let count = input.block()?;
        if count == 0 {
            return Ok(all);
        }
        for _ in 0..count {
            item(input)?;
            all += 1;
        }
    }
}

/// Returns the end of a list behind others.
fn end(ends: &[i32], count: usize) -> Result<i32, Wrong> {
    let end = i32::try_from(count)
        .ok()
        .and_then(|count| ends.last().copied().unwrap_or_default().checked_add(count));
    end.ok_or_else(|| Wrong::new("has more items than fit into one batch"))
}

fn sized<'a>(input: &mut Input<'a>, size: Option<usize>) -> Result<&'a [u8], Wrong> {
    match size {
        Some(size) => input.take(size),
        None => input.bytes(),
    }
}

/// Returns a number in two's complement, the highest byte first. `None` if it has more than 256 bits.
fn number(bytes: &[u8]) -> Option<i256> {
    let fill = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xFF } else { 0 };
    let (more, kept) = bytes.split_at(bytes.len().saturating_sub(32));
    let mut all = [fill; 32];
    all[32 - kept.len()..].copy_from_slice(kept);
    let is_same =
        more.iter().all(|byte| *byte == fill) && (more.is_empty() || (all[0] & 0x80) == (fill & 0x80));
    is_same.then(|| i256::from_be_bytes(all))
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
