//! The times of rows, and the sessions that they make.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;

use super::open_sessions::Bounds;
use crate::Result;
use crate::driver::evaluate;
use crate::event_time::count;

/// The time of rows and the gap between sessions, both as counts of the time's unit.
#[derive(Debug)]
pub(super) struct SessionTime {
    expr: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    /// The minimum distance of rows of different sessions; positive.
    gap: i64,
}

impl SessionTime {
    /// Returns the time of rows of a schema.
    pub(super) fn new(expr: Arc<dyn PhysicalExpr>, gap: i64, schema: &SchemaRef) -> Result<SessionTime> {
        Ok(SessionTime { data_type: expr.data_type(schema)?, expr, gap })
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Returns the time of each row.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<Int64Array> {
        count(&evaluate(std::slice::from_ref(&self.expr), rows)?[0])
    }

    /// Returns counts as values of the time's type.
    pub(super) fn values(&self, counts: Int64Array) -> Result<ArrayRef> {
        let counts: ArrayRef = Arc::new(counts);
        Ok(cast(&counts, &self.data_type)?)
    }

    /// Returns the session that a row would form by itself.
    pub(super) fn alone(&self, time: i64) -> Bounds {
        Bounds { start: time, end: time.saturating_add(self.gap) }
    }

    /// Returns true if a session that begins at a time has an end within the range of its type.
    pub(super) fn has_end(&self, time: i64) -> bool {
        time.checked_add(self.gap).is_some()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    #[test]
    fn a_session_of_one_row_ends_after_the_gap() {
        let schema = Arc::new(Schema::new(vec![Field::new("at", DataType::Int64, true)]));
        let time = SessionTime::new(Arc::new(Column::new("at", 0)), 5, &schema).unwrap();
        assert_eq!(time.alone(10), Bounds { start: 10, end: 15 });
        assert!(time.has_end(i64::MAX - 5) && !time.has_end(i64::MAX - 4));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let rows = RecordBatch::try_new(schema, vec![column]).unwrap();
        assert_eq!(time.of(&rows).unwrap(), Int64Array::from(vec![Some(1), None]));
    }
}
