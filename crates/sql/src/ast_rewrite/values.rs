//! Rewrites literals and casts that DataFusion's planner can't handle.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, ExactNumberInfo, Expr, Ident, Interval, ObjectName, Query, SetExpr,
    TypedString, Value, ValueWithSpan,
};

use millstream_delta::BitType;

use super::{call, text};
use crate::error::Result;
use crate::functions::bits::value;
use crate::functions::marks::Mark;
use crate::functions::postgres::varchar::VARCHAR_OF;
use crate::functions::read_text::read_bits;
use crate::literals::interval;
use crate::type_names::Checked;

/// The most digits of a NUMERIC.
const DIGITS_MAX: usize = 76;

/// Rewrites a literal or a cast in place.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    match expression {
        Expr::Value(value) => literal(value)?.into_iter().for_each(|new| *expression = new),
        Expr::TypedString(TypedString { data_type, value, .. }) if Checked::of(data_type).is_some() => {
            let value = Expr::Value(value.clone());
            // A literal `BIT '101'` has the length of its text.
            let data_type = if *data_type == SqlType::Bit(None) { any_bit() } else { data_type.clone() };
            *expression = checked(value, data_type, CastKind::Cast)?;
        }
        Expr::Cast { expr, data_type, kind, array: false, .. } if Checked::of(data_type).is_some() => {
            let value = std::mem::replace(expr.as_mut(), Expr::value(Value::Null));
            let is_bits = matches!(Checked::of(data_type), Some(Checked::Bits(_)));
            let value = hexadecimal(&value).filter(|_| is_bits).map_or(value, |digits| text(&digits));
            *expression = checked(value, data_type.clone(), kind.clone())?;
        }
        Expr::Cast {
            expr, data_type: SqlType::Int(_) | SqlType::Integer(_) | SqlType::BigInt(_), ..
        } => {
            if let Some(digits) = hexadecimal(expr) {
                **expr = call("read_bit", vec![text(&digits)]);
            }
        }
        Expr::Interval(interval) => rewrite_interval(interval),
        Expr::AtTimeZone { timestamp, time_zone } => {
            let take = |part: &mut Box<Expr>| std::mem::replace(part.as_mut(), Expr::value(Value::Null));
            let (timestamp, zone) = (take(timestamp), take(time_zone));
            *expression = call("timezone", vec![zone, timestamp]);
        }
        _ => {}
    }
    Ok(())
}

/// Casts the bare literals and NULLs of a column of VALUES to a type such as JSON, if another row's value is cast to it:
/// fields of the type have a mark, which all rows must have.
pub(super) fn same_casts(query: &mut Query) {
    let SetExpr::Values(values) = query.body.as_mut() else { return };
    let marked = |value: &Expr| match value {
        Expr::Cast { data_type, array: false, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
            match Checked::of(data_type)? {
                Checked::Marked(_) => Some(data_type.clone()),
                Checked::Bits(BitType { is_varying: true, .. }) => Some(SqlType::VarBit(None)),
                Checked::Bits(_) => Some(any_bit()),
                Checked::Length(_) => None,
            }
        }
        Expr::Value(value) if matches!(value.value, Value::SingleQuotedByteStringLiteral(_)) => {
            Some(any_bit())
        }
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let builds = Mark::named(&name).is_some_and(Mark::is_range);
            builds.then(|| SqlType::Custom(function.name.clone(), Vec::new()))
        }
        _ => None,
    };
    let width = values.rows.first().map_or(0, |row| row.len());
    for at in 0..width {
        let Some(data_type) = values.rows.iter().find_map(|row| row.get(at).and_then(marked)) else {
            continue;
        };
        for row in &mut values.rows {
            if let Some(value) = row.get_mut(at)
                && let Expr::Value(written) = &*value
                && matches!(written.value, Value::Null | Value::SingleQuotedString(_))
            {
                *value = cast(value.clone(), data_type.clone(), CastKind::Cast);
            }
        }
    }
}

fn literal(value: &ValueWithSpan) -> Result<Option<Expr>> {
    Ok(match &value.value {
        Value::NationalStringLiteral(text) | Value::UnicodeStringLiteral(text) => Some(self::text(text)),
        Value::SingleQuotedByteStringLiteral(digits) => {
            // The text may begin with a letter, which a literal may not.
            let digits = format!("b{digits}");
            value::read(&digits)?;
            Some(call("read_bit", vec![text(&digits)]))
        }
        // A number that fits no integer type, or has more digits than a float keeps.
        Value::Number(digits, _) => exact(digits).map(|data_type| Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(self::text(digits)),
            data_type,
            array: false,
            format: None,
        }),
        _ => None,
    })
}

/// Returns the type of a number that would lose digits in DataFusion.
fn exact(digits: &str) -> Option<SqlType> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let whole = whole.trim_start_matches('0');
    let count = whole.len() + fraction.len();
    if !plain(whole) || !plain(fraction) || !(1..=DIGITS_MAX).contains(&count) {
        return None;
    }
    let loses = match digits.contains('.') {
        false => digits.parse::<u64>().is_err(),
        // A float keeps a number that equals its own shortest form.
        true => {
            let kept = digits.parse::<f64>().ok()?.to_string();
            let (kept_whole, kept_fraction) = kept.split_once('.').unwrap_or((&kept, ""));
            let short = |fraction: &str| fraction.trim_end_matches('0').to_string();
            kept_whole.trim_start_matches('0') != whole || short(kept_fraction) != short(fraction)
        }
    };
    loses.then_some(SqlType::Numeric(ExactNumberInfo::PrecisionAndScale(count as u64, fraction.len() as i64)))
}

/// Returns BIT without a length: `BIT` alone means `BIT(1)`.
fn any_bit() -> SqlType {
    SqlType::Custom(ObjectName::from(vec![Ident::with_quote('"', "bit")]), Vec::new())
}

/// Returns the text of a bit string with the digits of a literal `X'1F'`, which is a BYTEA unless it is cast.
fn hexadecimal(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::HexStringLiteral(digits) => Some(format!("x{digits}")),
            _ => None,
        },
        Expr::Nested(inner) => hexadecimal(inner),
        _ => None,
    }
}

/// Builds a cast to a checked text type.
fn checked(value: Expr, data_type: SqlType, kind: CastKind) -> Result<Expr> {
    let lenient = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
    Ok(match Checked::of(&data_type) {
        Some(Checked::Bits(of)) => {
            if let SqlType::Bit(Some(length))
            | SqlType::BitVarying(Some(length))
            | SqlType::VarBit(Some(length)) = data_type
            {
                value::check_length(of.name(), length)?;
            }
            let attempt = if lenient { "try_" } else { "" };
            call(&format!("{attempt}{}", read_bits(of)), vec![value])
        }
        Some(Checked::Marked(mark)) => {
            let attempt = if lenient { "try_" } else { "" };
            let name = match mark {
                Mark::Enum(of) => format!("{attempt}{}", of.read()),
                _ => format!("{attempt}read_{}", mark.name()),
            };
            call(&name, vec![value])
        }
        Some(Checked::Length(length)) => {
            let text = cast(value, SqlType::Text, kind);
            call(VARCHAR_OF, vec![text, Expr::value(Value::Number(length.to_string(), false))])
        }
        None => cast(value, data_type, kind),
    })
}

fn cast(value: Expr, data_type: SqlType, kind: CastKind) -> Expr {
    Expr::Cast { kind, expr: Box::new(value), data_type, array: false, format: None }
}

/// Rewrites an interval in one of PostgreSQL's forms so that DataFusion can read it.
fn rewrite_interval(written: &mut Interval) {
    let Expr::Value(value) = written.value.as_ref() else { return };
    let Value::SingleQuotedString(text) = &value.value else { return };
    // `'1-2' YEAR TO MONTH` means the same as `'1-2'`.
    let spanned = written.last_field.is_some();
    if !spanned && (written.leading_field.is_some() || parse_interval_month_day_nano(text).is_ok()) {
        return;
    }
    if let Ok(found) = interval::read(text) {
        *written.value = self::text(&interval::spell(found));
        (written.leading_field, written.last_field) = (None, None);
        (written.leading_precision, written.fractional_seconds_precision) = (None, None);
    }
}
