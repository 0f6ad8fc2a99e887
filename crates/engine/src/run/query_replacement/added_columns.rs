//! The columns that a relation's new query adds behind those of the old one.
//!
//! Readers know the old columns alone, and cut each change to them, as after ADD COLUMN. So that all changes of the relation
//! have one form, those of before get the new columns, with a constant. Then the change to the new answer takes these rows
//! back, and undoing it leaves them.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::ScalarValue;
use millstream_delta::{Delta, sql_type_of};
use millstream_sql::{Error, Result};

use crate::catalog::Object;
use crate::run::outputs::Outputs;
use crate::run::table::extended_delta;

/// New columns, with their values in rows of before.
pub(super) struct AddedColumns {
    /// All columns, new ones last.
    schema: SchemaRef,
    values: Vec<ScalarValue>,
}

impl AddedColumns {
    /// Returns the columns that a new definition adds to a relation; `None` if it adds none.
    ///
    /// # Errors
    /// If a column is never NULL, and of a type without a constant.
    pub(super) fn of(before: &Object, after: &Object) -> Result<Option<AddedColumns>> {
        let (Some(old), Some(new)) = (before.definition.schema(), after.definition.schema()) else {
            return Ok(None);
        };
        let values = new.fields().iter().skip(old.fields().len()).map(|field| constant(field));
        let values = values.collect::<Result<Vec<ScalarValue>>>()?;
        Ok((!values.is_empty()).then(|| AddedColumns { schema: new.clone(), values }))
    }

    /// Adds the columns to changes of before.
    pub(super) fn extend(&self, delta: &Delta) -> Result<Delta> {
        extended_delta(delta, &self.schema, &self.values)
    }

    /// Adds the columns to the changes in the log of the relation.
    pub(super) fn extend_log(&self, outputs: &mut Outputs, name: &Arc<str>) -> Result<()> {
        let Some(log) = outputs.logs.get_mut(name) else { return Ok(()) };
        *log = log.mapped(|delta| self.extend(delta))?;
        Ok(())
    }
}

/// Returns a value of a column: NULL if it may be.
fn constant(field: &Field) -> Result<ScalarValue> {
    let data_type = field.data_type();
    let value = match field.is_nullable() {
        true => ScalarValue::try_new_null(data_type),
        false => ScalarValue::new_default(data_type),
    };
    value.ok().filter(|value| value.data_type() == *data_type).ok_or_else(|| {
        let name = field.name();
        Error::unsupported(format!(
            "a new column \"{name}\" of type {} that is never NULL",
            sql_type_of(field)
        ))
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn a_column_has_a_constant_of_its_type() {
        let value = |data_type: DataType, nullable| constant(&Field::new("c", data_type, nullable)).unwrap();
        assert_eq!(value(DataType::Int64, true), ScalarValue::Int64(None));
        assert_eq!(value(DataType::Int64, false), ScalarValue::Int64(Some(0)));
        assert_eq!(value(DataType::Utf8View, false), ScalarValue::Utf8View(Some(String::new())));
        let texts = DataType::new_list(DataType::Utf8View, true);
        for nullable in [true, false] {
            assert_eq!(value(texts.clone(), nullable).data_type(), texts);
        }
    }
}
