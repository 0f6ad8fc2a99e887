//! The column of a relation's watermark: its newest time, and rows whose time is too far ahead of the clock.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{cast, filter, max};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_delta::{Chunk, Delta, Timestamp};
use millstream_sql::{Result, WatermarkFunction};

use crate::catalog::Definition;
use crate::error;

/// The column of a relation's watermark.
#[derive(Clone, Debug)]
pub(crate) struct TimeColumn {
    place: usize,
    name: String,
    data_type: DataType,
    /// The distance of the watermark from the newest time, unless there is a function.
    delay: i64,
    /// The watermark as a function of the newest time.
    function: Option<Arc<WatermarkFunction>>,
}

impl TimeColumn {
    /// Returns its place among the columns.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// Returns the column of a relation's watermark, if it has one.
    pub(crate) fn of(definition: &Definition) -> Option<TimeColumn> {
        let (watermark, schema) = definition.watermark().zip(definition.schema())?;
        let field = schema.field(watermark.column);
        Some(TimeColumn {
            place: watermark.column,
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            delay: watermark.delay_in(field.data_type()),
            function: watermark.function.clone(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its type, a timestamp.
    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Returns the watermark of the newest time, both in the column's unit; `None` if it is NULL or can't be computed.
    pub(crate) fn watermark(&self, newest: i64) -> Option<i64> {
        let Some(function) = &self.function else { return Some(newest.saturating_sub(self.delay)) };
        function.at(newest).unwrap_or_else(|reason| {
            tracing::warn!(column = %self.name, reason = %reason, "the watermark can't be moved");
            None
        })
    }

    /// Returns a time, or a length of time, in the column's unit, rounded down. A time of the column is later exactly if
    /// its count is larger.
    pub(crate) fn count(&self, time: Timestamp) -> i64 {
        match self.data_type {
            DataType::Timestamp(TimeUnit::Second, _) => time.0.div_euclid(1_000_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => time.0.div_euclid(1_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => time.0.saturating_mul(1_000),
            _ => time.0,
        }
    }

    /// Returns a length of time in its unit as microseconds, rounded up.
    pub(crate) fn micros(&self, count: i64) -> i64 {
        match self.data_type {
            DataType::Timestamp(TimeUnit::Second, _) => count.saturating_mul(1_000_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => count.saturating_mul(1_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                count.div_euclid(1_000) + i64::from(count.rem_euclid(1_000) != 0)
            }
            _ => count,
        }
    }

    /// Returns the newest time of the rows that count.
    pub(crate) fn newest(&self, rows: &RecordBatch, counts: Option<&BooleanArray>) -> Result<Option<i64>> {
        let times = self.times(rows)?;
        Ok(match counts {
            None => max(times.as_primitive::<Int64Type>()),
            Some(counts) => max(filter(&times, counts).map_err(error::arrow)?.as_primitive::<Int64Type>()),
        })
    }

    /// Returns the newest time of inserted rows; times later than a bound don't count.
    pub(crate) fn newest_of(&self, delta: &Delta, latest: Option<Timestamp>) -> Result<Option<i64>> {
        let mut newest = None;
        for Chunk { rows, weights } in &delta.chunks {
            let comes: Option<BooleanArray> = weights
                .as_ref()
                .map(|weights| weights.values().iter().map(|weight| Some(*weight > 0)).collect());
            let ahead = latest.map_or(Ok(None), |latest| self.ahead(rows, latest))?;
            let counts = match (comes, ahead) {
                (comes, None) => comes,
                (comes, Some(ahead)) => {
                    let comes = |row: usize| comes.as_ref().is_none_or(|comes| comes.value(row));
                    Some((0..ahead.len()).map(|row| Some(comes(row) && !ahead.value(row))).collect())
                }
            };
            newest = newest.max(self.newest(rows, counts.as_ref())?);
        }
        Ok(newest)
    }

    /// Returns which rows are later than a bound; `None` if no row is.
    pub(crate) fn ahead(&self, rows: &RecordBatch, latest: Timestamp) -> Result<Option<BooleanArray>> {
        let times = self.times(rows)?;
        let bound = Int64Array::new_scalar(self.count(latest));
        let ahead = gt(times.as_primitive::<Int64Type>(), &bound).map_err(error::arrow)?;
        if ahead.true_count() == 0 {
            return Ok(None);
        }
        // NULL is never later.
        Ok(Some(ahead.iter().map(|ahead| Some(ahead == Some(true))).collect()))
    }

    /// Returns a row's time as text.
    pub(crate) fn text(&self, rows: &RecordBatch, row: usize) -> String {
        let formatter = ArrayFormatter::try_new(rows.column(self.place), &FormatOptions::default());
        formatter.map_or_else(|_| "…".to_string(), |text| text.value(row).to_string())
    }

    /// Returns a count of its unit as a time.
    pub(crate) fn time(&self, count: Option<i64>) -> Result<ArrayRef> {
        cast(&Int64Array::from(vec![count]), &self.data_type).map_err(error::arrow)
    }

    /// Returns the time that is a count of its unit after 1970, rounded down, if it fits.
    pub(crate) fn instant(&self, count: i64) -> Option<Timestamp> {
        Some(Timestamp(match self.data_type {
            DataType::Timestamp(TimeUnit::Second, _) => count.checked_mul(1_000_000)?,
            DataType::Timestamp(TimeUnit::Millisecond, _) => count.checked_mul(1_000)?,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => count.div_euclid(1_000),
            _ => count,
        }))
    }

    fn times(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        cast(rows.column(self.place), &DataType::Int64).map_err(error::arrow)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use millstream_sql::Watermark;

    use super::*;
    use crate::catalog::Intake;

    fn column(data_type: &DataType) -> (TimeColumn, Arc<Schema>) {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", data_type.clone(), true)]));
        let watermark = Some(Watermark { column: 0, delay_ns: 1_500_000_000, function: None });
        let intake = Intake::default();
        let table = Definition::Table { schema: schema.clone(), key: Vec::new(), intake, watermark };
        (TimeColumn::of(&table).unwrap(), schema)
    }

    #[test]
    fn every_unit_is_compared_with_the_clock() {
        let zone = Some("Europe/Berlin".into());
        for (unit, per_second) in [
            (TimeUnit::Second, 1),
            (TimeUnit::Millisecond, 1_000),
            (TimeUnit::Microsecond, 1_000_000),
            (TimeUnit::Nanosecond, 1_000_000_000),
        ] {
            for data_type in [DataType::Timestamp(unit, None), DataType::Timestamp(unit, zone.clone())] {
                let (column, schema) = column(&data_type);
                // Before 1970, at the bound, after it.
                let counts = Int64Array::from(vec![
                    Some(-7 * per_second),
                    None,
                    Some(3 * per_second),
                    Some(4 * per_second),
                ]);
                let rows = RecordBatch::try_new(schema, vec![cast(&counts, &data_type).unwrap()]).unwrap();
                let latest = Timestamp(3_999_999);
                let latest = if unit == TimeUnit::Second { latest } else { Timestamp(3_000_000) };
                let ahead = column.ahead(&rows, latest).unwrap().unwrap();
                assert_eq!(ahead, BooleanArray::from(vec![false, false, false, true]), "{data_type}");
                assert_eq!(column.ahead(&rows, Timestamp(4_000_000)).unwrap(), None);
                assert_eq!(column.newest(&rows, None).unwrap(), Some(4 * per_second));
                let delta = Delta::insert(rows.slice(0, 2));
                assert_eq!(column.newest_of(&delta, Some(latest)).unwrap(), Some(-7 * per_second));
                assert_eq!(column.instant(per_second), Some(Timestamp(1_000_000)));
                assert_eq!(column.micros(3 * per_second), 3_000_000);
                assert!(column.count(Timestamp(column.micros(7))) >= 7);
                assert_eq!(column.watermark(0), Some(-((1.5 * per_second as f64).ceil() as i64)));
            }
        }
    }
}
