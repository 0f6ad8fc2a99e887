//! `age(to, from)`: the years, months, days and time between two times, by the calendar.

use std::sync::Arc;

use arrow::array::{ArrayRef, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::time_parts::SECOND;
use super::zone_offsets::ZoneOffsets;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::moments::nanoseconds;
use crate::functions::scalar::Scalar;
use crate::sqlstate;

/// Registers the function.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let interval = |_: &[DataType]| Ok(DataType::Interval(IntervalUnit::MonthDayNano));
    let inner = Scalar::any("age", interval, age);
    let signature = Signature::user_defined(Volatility::Immutable);
    registry.add(ScalarUDF::from(Age { inner, unit: registry.unit, signature }));
}

/// The function, whose arguments have one type: if one is a TIMESTAMPTZ, the other one becomes such a time too.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Age {
    inner: ScalarUDF,
    unit: TimeUnit,
    signature: Signature,
}

impl ScalarUDFImpl for Age {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let is_time = |found: &DataType| {
            matches!(found, DataType::Null | DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
                || found.is_string()
        };
        if found.len() != 2 || !found.iter().all(is_time) {
            return Err(Error::invalid("age takes two times")
                .hint("It takes age(TIMESTAMP, TIMESTAMP) and age(TIMESTAMPTZ, TIMESTAMPTZ). Cast the arguments.")
                .into());
        }
        // The zone is that of the session, once the rule for it has run.
        let zone = found.iter().find_map(|found| match found {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        });
        Ok(vec![DataType::Timestamp(self.unit, zone); 2])
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.inner.return_type(found)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }
}

fn age(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [to, from] = columns else { return Err(Error::bug("age takes two times").into()) };
    let ages = local_times(to)?.into_iter().zip(local_times(from)?);
    let ages = ages.map(|(to, from)| Some(between(from?, to?)));
    Ok(Arc::new(ages.collect::<IntervalMonthDayNanoArray>()))
}

/// Returns times as the clocks of their zone show them.
fn local_times(times: &ArrayRef) -> Result<Vec<Option<NaiveDateTime>>> {
    let zone = match times.data_type() {
        DataType::Timestamp(_, Some(zone)) => ZoneOffsets::new(zone)?,
        _ => ZoneOffsets::default(),
    };
    let local = |time: i128| {
        let out_of_range =
            || Error::invalid("a time is out of the range of age").code(sqlstate::DATETIME_FIELD_OVERFLOW);
        let second = i128::from(SECOND);
        let seconds = i64::try_from(time.div_euclid(second)).map_err(|_| out_of_range())?;
        let rest = u32::try_from(time.rem_euclid(second)).map_err(|_| out_of_range())?;
        let utc = DateTime::from_timestamp(seconds, rest).ok_or_else(out_of_range)?.naive_utc();
        utc.checked_add_signed(TimeDelta::seconds(zone.at(seconds))).ok_or_else(out_of_range)
    };
    let times = nanoseconds(times)?.into_iter().map(|time| time.map(local).transpose());
    Ok(times.collect::<Result<Vec<_>, Error>>()?)
}

fn between(from: NaiveDateTime, to: NaiveDateTime) -> IntervalMonthDayNano {
    if to < from {
        let age = between(to, from);
        return IntervalMonthDayNano::new(-age.months, -age.days, -age.nanoseconds);
    }
    let mut months = (to.year() - from.year()) * 12 + to.month() as i32 - from.month() as i32;
    let mut days = to.day() as i32 - from.day() as i32;
    let time = to.time().signed_duration_since(from.time());
    let mut nanoseconds = time.num_nanoseconds().unwrap_or(0);
    if nanoseconds < 0 {
        nanoseconds += 86_400_000_000_000;
        days -= 1;
    }
    if days < 0 {
        days += days_of_month(from);
        months -= 1;
    }
    IntervalMonthDayNano::new(months, days, nanoseconds)
}

fn days_of_month(time: NaiveDateTime) -> i32 {
    let first = |year, month| NaiveDate::from_ymd_opt(year, month, 1);
    let (year, month) = (time.year(), time.month());
    let next = if month == 12 { first(year + 1, 1) } else { first(year, month + 1) };
    match (first(year, month), next) {
        (Some(first), Some(next)) => (next - first).num_days() as i32,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn check(sql: &str, expected: &str) {
        Tables::new().check(&format!("SELECT {sql}"), &[expected]);
    }

    #[test]
    fn ages_follow_the_calendar() {
        check("age(TIMESTAMP '2001-04-10', TIMESTAMP '1957-06-13')", "525 mons 27 days");
        check("age(TIMESTAMP '2024-03-01', TIMESTAMP '2024-01-31')", "1 mons 1 days");
        check("age(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02 01:00:00')", "-1 days -1 hours");
    }

    #[test]
    fn ages_have_the_range_of_microseconds() {
        check("age(TIMESTAMP '9999-03-01', TIMESTAMP '1000-03-01')", "107988 mons");
        check("age(TIMESTAMPTZ '9999-03-01 00:00+00', '1000-03-01 00:00+00')", "107988 mons");
    }

    #[test]
    fn literals_are_times() {
        check("age(TIMESTAMP '2024-03-01', '2024-01-31')", "1 mons 1 days");
        check("age('2024-03-01 02:00+02', TIMESTAMPTZ '2024-01-31 00:00+00')", "1 mons 1 days");
    }
}
