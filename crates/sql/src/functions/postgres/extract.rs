//! Fields of EXTRACT that DataFusion lacks, or returns without their fraction: `extract(second FROM t)` is NUMERIC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array};
use arrow::datatypes::{DataType, Field as ArrowField, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use millstream_delta::sql_type;

use super::calendar::{Date, EPOCH_JULIAN};
use super::time_parts::{DAY, SECOND, TimeColumn, TimeValue, is_time};
use crate::error::Error;
use crate::functions::Registry;

/// The name of the function, which a rewrite of EXTRACT calls.
pub(crate) const NAME: &str = "extract_exact";

/// Registers the function.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.add(ScalarUDF::from(ExtractExact { signature: Signature::any(2, Volatility::Immutable) }));
}

/// A field that the function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Century,
    Decade,
    Millennium,
    Julian,
    Epoch,
    Second,
    Millisecond,
    /// The offset of a zone: in seconds, its hours, and its minutes within the hour.
    Zone(i64, i64),
}

impl Field {
    fn of(name: &str) -> Option<Field> {
        Some(match name.to_ascii_lowercase().as_str() {
            "century" | "centuries" | "cent" | "c" => Field::Century,
            "decade" | "decades" | "dec" | "decs" => Field::Decade,
            "millennium" | "millennia" | "mil" | "mils" => Field::Millennium,
            "julian" => Field::Julian,
            "epoch" => Field::Epoch,
            "second" | "seconds" | "sec" | "secs" | "s" => Field::Second,
            "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => Field::Millisecond,
            "timezone" => Field::Zone(1, i64::MAX),
            "timezone_hour" => Field::Zone(3_600, i64::MAX),
            "timezone_minute" => Field::Zone(60, 60),
            _ => return None,
        })
    }

    /// Returns the precision and the scale of the result.
    fn decimal(self, of: &DataType) -> (u8, i8) {
        match self {
            Field::Epoch => (20, 6),
            Field::Second => (8, 6),
            Field::Millisecond => (8, 3),
            Field::Julian if *of != DataType::Date32 => (38, 20),
            _ => (20, 0),
        }
    }

    /// Returns the field of a local time, in units of its scale. `offset` has the seconds by which the zone is ahead of UTC.
    fn get(self, value: TimeValue, offset: i64, scale: i8) -> Option<i128> {
        let nanoseconds = match value {
            TimeValue::Moment { nanoseconds, .. } => nanoseconds,
            TimeValue::Interval(interval) => interval.nanoseconds,
        };
        let minute = 60 * SECOND;
        Some(match (self, value) {
            (Field::Second, _) => i128::from(nanoseconds % minute / 1_000),
            // Microseconds are thousandths of milliseconds.
            (Field::Millisecond, _) => i128::from(nanoseconds % minute / 1_000),
            (Field::Epoch, TimeValue::Moment { days, .. }) => {
                let local = i128::from(days) * i128::from(DAY) + i128::from(nanoseconds);
                (local - i128::from(offset) * i128::from(SECOND)).div_euclid(1_000)
            }
            (Field::Epoch, TimeValue::Interval(interval)) => {
                // A year has 365.25 days, a month 30.
                let (years, months) = (interval.months / 12, interval.months % 12);
                let quarters =
                    i128::from(years) * 1_461 + i128::from(months) * 120 + i128::from(interval.days) * 4;
                (quarters * i128::from(DAY / 4) + i128::from(nanoseconds)) / 1_000
            }
            (Field::Julian, TimeValue::Moment { days, .. }) => {
                let unit = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
                i128::from(days + EPOCH_JULIAN) * unit + i128::from(nanoseconds) * unit / i128::from(DAY)
            }
            (Field::Zone(unit, whole), TimeValue::Moment { .. }) => i128::from(offset / unit % whole),
            (Field::Julian | Field::Zone(..), TimeValue::Interval(_)) => return None,
            (field, TimeValue::Moment { days, .. }) => i128::from(field.of_year(Date::of_days(days).year)),
            (field, TimeValue::Interval(interval)) => {
                let years = i128::from(interval.months / 12);
                match field {
                    Field::Century => years / 100,
                    Field::Decade => years / 10,
                    _ => years / 1_000,
                }
            }
        })
    }

    fn of_year(self, year: i64) -> i64 {
        let counted = |length: i64| match year > 0 {
            true => (year + length - 1) / length,
            // There is no century 0: that before the first one is -1.
            false => -((length - year) / length),
        };
        match self {
            Field::Century => counted(100),
            Field::Millennium => counted(1_000),
            _ => year.div_euclid(10),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExtractExact {
    signature: Signature,
}

/// Returns the field of a literal name and the type that it has.
fn typed(name: Option<&ScalarValue>, of: &DataType) -> Result<(Field, DataType)> {
    let name = name.and_then(|name| name.try_as_str().flatten()).unwrap_or("");
    let field = Field::of(name).ok_or_else(|| Error::invalid(format!("EXTRACT has no field \"{name}\"")))?;
    let is_interval = matches!(
        of,
        DataType::Interval(_) | DataType::Duration(_) | DataType::Time32(_) | DataType::Time64(_)
    );
    let is_of_dates = matches!(field, Field::Julian | Field::Zone(..))
        || (matches!(field, Field::Century | Field::Decade | Field::Millennium)
            && matches!(of, DataType::Time32(_) | DataType::Time64(_)));
    if !(is_time(of) || of.is_null()) || (is_interval && is_of_dates) {
        return Err(Error::invalid(format!("unit \"{name}\" not supported for type {}", sql_type(of)))
            .hint("Cast a text: extract(second FROM x::TIMESTAMP).")
            .into());
    }
    let (precision, scale) = field.decimal(of);
    Ok((field, DataType::Decimal128(precision, scale)))
}

impl ScalarUDFImpl for ExtractExact {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(Error::bug("the type of EXTRACT depends on its field").into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let name = arguments.scalar_arguments.first().copied().flatten();
        let (_, data_type) = typed(name, arguments.arg_fields[1].data_type())?;
        Ok(Arc::new(ArrowField::new(self.name(), data_type, arguments.arg_fields[1].is_nullable())))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match &arguments.args[0] {
            ColumnarValue::Scalar(name) => Some(name),
            ColumnarValue::Array(_) => None,
        };
        let of = arguments.args[1].data_type();
        let (field, data_type) = typed(name, &of)?;
        let is_scalar = matches!(arguments.args[1], ColumnarValue::Scalar(_));
        let values =
            arguments.args[1].clone().into_array(if is_scalar { 1 } else { arguments.number_rows })?;
        let (precision, scale) = field.decimal(&of);
        let numbers: Decimal128Array = match of.is_null() {
            true => std::iter::repeat_n(None::<i128>, values.len()).collect(),
            false => {
                let times = TimeColumn::local(&values)?;
                let get = |row: usize| {
                    let offset = times.zone(row).map_or(0, |zone| zone.offset);
                    field.get(times.get(row)?, offset, scale)
                };
                (0..values.len()).map(get).collect()
            }
        };
        let result: ArrayRef = Arc::new(numbers.with_precision_and_scale(precision, scale)?);
        debug_assert_eq!(*result.data_type(), data_type);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}
