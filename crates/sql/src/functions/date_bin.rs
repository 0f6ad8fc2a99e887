//! `date_bin` of times that aren't in nanoseconds. DataFusion's function computes in nanoseconds, and returns NULL beyond
//! their range.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use chrono::DateTime;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions::datetime::date_bin::DateBinFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Registry;
use super::either::coerced;
use super::moments::{nanoseconds, nanoseconds_of, rounded_down};
use super::postgres::calendar::{Date, days_of_month};
use crate::error::Error;
use crate::sqlstate;

/// The nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

/// Replaces DataFusion's function.
pub(super) fn register(registry: &mut Registry<'_>) {
    if registry.unit == TimeUnit::Nanosecond {
        return;
    }
    let around =
        |inner| ScalarUDF::from(DateBin { inner, signature: Signature::user_defined(Volatility::Immutable) });
    registry.replace("date_bin", |function| function.inner().is::<DateBinFunc>(), around);
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let is_stride = |of: &DataType| of.is_string() || matches!(of, DataType::Interval(_));
        let is_origin =
            |of: &DataType| of.is_string() || matches!(of, DataType::Timestamp(..) | DataType::Date32);
        match found {
            // DataFusion's rules would cast the time to nanoseconds.
            [stride, time @ DataType::Timestamp(unit, zone), origin @ ..]
                if is_stride(stride) && origin.len() < 2 && origin.iter().all(is_origin) =>
            {
                let origin = origin.iter().map(|origin| match origin {
                    DataType::Timestamp(finer, _) => DataType::Timestamp(*finer.max(unit), zone.clone()),
                    _ => time.clone(),
                });
                let interval = DataType::Interval(IntervalUnit::MonthDayNano);
                Ok([interval, time.clone()].into_iter().chain(origin).collect())
            }
            _ => coerced(found, self.inner.as_ref()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(bins) = Bins::of(&arguments.args)? else {
            return self.inner.inner().invoke_with_args(arguments);
        };
        match &arguments.args[1] {
            ColumnarValue::Scalar(time) => {
                let time = bins.column(&time.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&time, 0)?))
            }
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(bins.column(times)?)),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Bins of equal length.
struct Bins {
    stride: Stride,
    /// The begin of one of them, in nanoseconds since 1970.
    origin: i128,
    /// The nanoseconds of a unit of the times.
    each: i128,
}

enum Stride {
    Months(i64),
    Nanoseconds(i128),
}

impl Bins {
    /// Returns the bins of a call; none if DataFusion computes it, or fails.
    fn of(arguments: &[ColumnarValue]) -> Result<Option<Bins>> {
        let [ColumnarValue::Scalar(stride), times, origin @ ..] = arguments else { return Ok(None) };
        let DataType::Timestamp(unit, _) = times.data_type() else { return Ok(None) };
        let each = nanoseconds_of(unit);
        let origin = match origin {
            [] => 0,
            [ColumnarValue::Scalar(origin)] if matches!(origin.data_type(), DataType::Timestamp(..)) => {
                match nanoseconds(&origin.to_array()?)?.first() {
                    Some(Some(origin)) => *origin,
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let stride = cast(&stride.to_array()?, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let stride = stride.as_primitive::<IntervalMonthDayNanoType>();
        let stride = match stride.is_valid(0).then(|| stride.value(0)) {
            Some(IntervalMonthDayNano { months, days: 0, nanoseconds: 0 }) if months > 0 => {
                Stride::Months(i64::from(months))
            }
            Some(IntervalMonthDayNano { months: 0, days, nanoseconds }) => {
                Stride::Nanoseconds(i128::from(days) * DAY + i128::from(nanoseconds))
            }
            _ => return Ok(None),
        };
        let is_positive = !matches!(stride, Stride::Nanoseconds(..=0));
        Ok((unit != TimeUnit::Nanosecond && is_positive).then_some(Bins { stride, origin, each }))
    }

    fn column(&self, times: &ArrayRef) -> Result<ArrayRef> {
        if let Some((stride, origin)) = self.in_units() {
            return rounded_down(times, stride, origin, out_of_range);
        }
        let ticks = cast(times, &DataType::Int64)?;
        let binned = ticks.as_primitive::<Int64Type>().try_unary::<_, Int64Type, Error>(|tick| {
            let time = i128::from(tick) * self.each;
            self.tick(match self.stride {
                Stride::Nanoseconds(stride) => time - (time - self.origin).rem_euclid(stride),
                Stride::Months(stride) => self.month_bin(time, stride),
            })
        })?;
        Ok(cast(&binned, times.data_type())?)
    }

    /// Returns the stride and the origin in units of the times, if they have whole ones.
    fn in_units(&self) -> Option<(i64, i64)> {
        let Stride::Nanoseconds(stride) = self.stride else { return None };
        let whole = |length: i128| {
            (length % self.each == 0).then(|| i64::try_from(length / self.each).ok()).flatten()
        };
        Some((whole(stride)?, whole(self.origin)?))
    }

    fn tick(&self, nanoseconds: i128) -> Result<i64, Error> {
        // A unit may count to times that no calendar has.
        let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok();
        let is_time = seconds.is_some_and(|seconds| DateTime::from_timestamp(seconds, 0).is_some());
        let tick = i64::try_from(nanoseconds.div_euclid(self.each)).ok();
        tick.filter(|_| is_time).ok_or_else(out_of_range)
    }

    /// Returns the begin of a bin of some months. It has the day and the time of the origin.
    fn month_bin(&self, time: i128, stride: i64) -> i128 {
        let date = |time: i128| Date::of_days(i64::try_from(time.div_euclid(DAY)).unwrap_or(0));
        let (from, of_day) = (date(self.origin), self.origin.rem_euclid(DAY));
        let found = date(time);
        let months = (found.year - from.year) * 12 + found.month - from.month;
        let begin = |months: i64| {
            let month = from.year * 12 + from.month - 1 + months;
            let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
            let day = from.day.min(days_of_month(year, month));
            i128::from(Date { year, month, day }.days()) * DAY + of_day
        };
        let months = months - months.rem_euclid(stride);
        match begin(months) {
            begun if begun > time => begin(months - stride),
            begun => begun,
        }
    }
}

fn out_of_range() -> Error {
    Error::invalid("date_bin returns a time out of the range of TIMESTAMP")
        .code(sqlstate::DATETIME_FIELD_OVERFLOW)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    /// Compares the function with DataFusion's, which takes nanoseconds.
    #[test]
    fn bins_are_datafusions() {
        let strides =
            ["15 minutes", "7 days", "1 day 3 hours", "1 month", "5 months", "1 year", "1 microsecond"];
        let origins = ["", ", TIMESTAMP(6) '2001-01-31 12:00:00.5'", ", TIMESTAMP(6) '1970-01-01'"];
        let tables = Tables::new().table(
            "t",
            "(ts TIMESTAMP)",
            "VALUES ('2024-02-29 12:34:56.789012'), ('1969-12-31 23:59:59.999999'), ('1970-01-01'), ('2001-01-31 11:59'), \
             ('2001-01-31 12:00:00.5'), ('1850-03-31 12:00'), ('2199-12-31 23:59:59'), (NULL)",
        );
        for stride in strides {
            for origin in origins {
                let nanos = origin.replace("(6)", "(9)");
                tables.check(
                    &format!(
                        "SELECT count(*) FROM t WHERE date_bin('{stride}', ts{origin}) IS DISTINCT FROM \
                         date_bin('{stride}', ts::TIMESTAMP(9){nanos})::TIMESTAMP"
                    ),
                    &["0"],
                );
            }
        }
    }

    #[test]
    fn bins_have_the_range_of_their_times() {
        let check = |sql: &str, expected: &str| Tables::new().check(&format!("SELECT {sql}"), &[expected]);
        check("date_bin('1 hour', TIMESTAMP '9999-12-31 23:59:59.999999')", "9999-12-31T23:00:00");
        check(
            "date_bin('1 month', TIMESTAMP '9999-12-31 23:59', TIMESTAMP '2300-01-31 12:00')",
            "9999-12-31T12:00:00",
        );
        check("date_bin('7 days', TIMESTAMP(0) '0001-01-10')", "0001-01-04T00:00:00");
        check(
            "date_bin('1500 nanoseconds', TIMESTAMP '1970-01-01 00:00:00.000002')",
            "1970-01-01T00:00:00.000001",
        );
        Tables::new().fails(
            "SELECT date_bin(INTERVAL '1637426858 months', TIMESTAMP(3) '2024-01-01', TIMESTAMP(3) '2025-01-01')",
            "date_bin returns a time out of the range of TIMESTAMP",
        );
        Tables::new().fails(
            "SELECT date_bin('1 month 1 day', TIMESTAMP '2024-01-01')",
            "not supported yet: DATE_BIN stride does not support combination of month, day and nanosecond intervals",
        );
    }
}
