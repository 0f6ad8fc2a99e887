//! Columns added at the end of a table: existing rows have a constant in them.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use millstream_delta::{Chunk, Delta, under_schema};
use millstream_sql::{Error, Result, Sources, sqlstate};
use millstream_state::{Keyed, Rows, RowsSnapshot, Store};

use super::index::AlteredIndex;
use super::{Content, Indexes, Table};
use crate::error;

/// The columns of a table after some were dropped, or got another type.
#[derive(Clone, Debug)]
pub(crate) struct NewColumns {
    schema: SchemaRef,
    sources: Sources,
    /// The values of the added ones.
    added: Vec<ScalarValue>,
}

impl NewColumns {
    pub(crate) fn new(schema: SchemaRef, sources: Sources, added: Vec<ScalarValue>) -> NewColumns {
        NewColumns { schema, sources, added }
    }

    /// Returns rows of the former columns with these ones.
    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let rows = self.sources.with_computed(rows)?;
        let mut added = self.added.iter();
        let column = |source: &Option<usize>| match source {
            Some(place) => Ok(rows.column(*place).clone()),
            None => {
                let value = added.next().ok_or_else(|| Error::bug("an added column has no value"))?;
                Ok(value.to_array_of_size(rows.num_rows())?)
            }
        };
        let columns = self.sources.places.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        for (field, column) in self.schema.fields().iter().zip(&columns) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let error = format!("column \"{}\" contains null values", field.name());
                return Err(Error::invalid(error)
                    .hint("Give the rows a value first, or leave NOT NULL out.")
                    .code(sqlstate::NOT_NULL_VIOLATION));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(error::arrow)
    }

    /// The same for changes.
    pub(crate) fn delta(&self, delta: &Delta) -> Result<Delta> {
        let chunk =
            |chunk: &Chunk| Ok(Chunk { rows: self.rows(&chunk.rows)?, weights: chunk.weights.clone() });
        Ok(Delta { chunks: delta.chunks.iter().map(chunk).collect::<Result<_>>()? })
    }
}

/// The rows of a table with added columns, which will replace its rows.
pub(crate) struct ExtendedTable {
    rows: NewRows,
    /// The former places of the columns, if some were dropped.
    former: Option<Vec<Option<usize>>>,
    published: Option<RowsSnapshot>,
    pending: Delta,
    added: Vec<ScalarValue>,
    indexes: Vec<AlteredIndex>,
}

enum NewRows {
    /// The same ones with more columns.
    Columns(Store),
    Anew(RowsAnew),
}

/// The rows of a table, stored anew.
pub(crate) enum RowsAnew {
    /// By a primary key.
    Keyed(Box<Keyed>),
    /// Without one.
    Bag(Box<Rows>),
}

impl Table {
    /// Returns the rows with the columns of a schema that begins with the table's own. `added` has the values of the others.
    /// The old columns are shared, and indexes stay, so this takes time in proportion to the new values.
    /// `new` has the indexes that the schema has in addition; `anew` the rows if they are stored anew. If columns were dropped,
    /// or got another type, `columns` has the new ones, and `new` and `anew` are complete.
    pub(crate) fn extended(
        &self,
        schema: &SchemaRef,
        added: &[ScalarValue],
        new: Indexes,
        anew: Option<RowsAnew>,
        columns: Option<&NewColumns>,
    ) -> Result<ExtendedTable> {
        let key = match &anew {
            Some(RowsAnew::Keyed(keyed)) => keyed.key_columns(),
            Some(RowsAnew::Bag(_)) => &[],
            None => self.rows.key_columns(),
        };
        let indexes = self.indexes.altered(schema, key, added, new)?;
        let added = if columns.is_some() { Vec::new() } else { [&self.added[..], added].concat() };
        let add = |rows: &RecordBatch| {
            let added = columns.map_or_else(|| extended(rows, schema, &added), |columns| columns.rows(rows));
            added.map_err(|error| ArrowError::from_external_error(Box::new(error)))
        };
        let rows = match (anew, &self.rows) {
            (Some(anew), _) => Ok(NewRows::Anew(anew)),
            (None, Content::Bag(rows)) => rows.with_columns(schema, &add).map(NewRows::Columns),
            (None, Content::Keyed(rows)) => rows.with_columns(schema, &add).map(NewRows::Columns),
        };
        let published = self.published.as_ref().map(|published| published.with_columns(schema, &add));
        let (rows, published) = (rows.map_err(error::state)?, published.transpose().map_err(error::arrow)?);
        let pending = match columns {
            Some(columns) => columns.delta(&self.pending)?,
            None => extended_delta(&self.pending, schema, &added)?,
        };
        let former = columns.map(|columns| columns.sources.former.clone());
        Ok(ExtendedTable { rows, former, published, pending, added, indexes })
    }

    /// Replaces the rows by the same ones with added columns.
    pub(crate) fn install_extended(&mut self, table: ExtendedTable) {
        let ExtendedTable { rows, former, published, pending, added, indexes } = table;
        match (rows, &mut self.rows) {
            (NewRows::Columns(rows), Content::Bag(kept)) => kept.replace(rows),
            (NewRows::Columns(rows), Content::Keyed(kept)) => kept.replace(rows),
            (NewRows::Anew(RowsAnew::Keyed(rows)), kept) => *kept = Content::Keyed(rows),
            (NewRows::Anew(RowsAnew::Bag(rows)), kept) => *kept = Content::Bag(rows),
        }
        (self.published, self.pending) = (published, pending);
        if let Some(former) = former {
            let schema = self.rows.snapshot().schema().clone();
            self.sequences.move_columns(&former, &schema);
        }
        self.added = added;
        self.indexes.install(indexes);
        (self.summed, self.applying, self.version) = (0, None, self.version + 1);
    }

    /// Completes rows of a writer that was created before columns were added.
    pub(crate) fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        extended(rows, self.staged().schema(), &self.added)
    }

    /// The same for changes.
    pub(crate) fn whole_delta(&self, delta: &Delta) -> Result<Delta> {
        extended_delta(delta, self.staged().schema(), &self.added)
    }
}

/// Adds the missing columns to changes.
pub(crate) fn extended_delta(delta: &Delta, schema: &SchemaRef, added: &[ScalarValue]) -> Result<Delta> {
    let chunk = |chunk: &Chunk| {
        Ok(Chunk { rows: extended(&chunk.rows, schema, added)?, weights: chunk.weights.clone() })
    };
    let chunks = delta.chunks.iter().map(chunk).collect::<Result<_>>()?;
    Ok(Delta { chunks })
}

/// Adds the missing columns of a schema to rows: `added` has the values of its last ones. Rows that lack more columns
/// stay as they are; the table refuses them.
pub(crate) fn extended(rows: &RecordBatch, schema: &SchemaRef, added: &[ScalarValue]) -> Result<RecordBatch> {
    let (count, width) = (rows.num_rows(), rows.num_columns());
    let missing = schema.fields().len().saturating_sub(width);
    if missing == 0 {
        // A column may have lost NOT NULL. Changes of before it was set may have NULLs, and stay as they are.
        return Ok(under_schema(rows, schema).unwrap_or_else(|_| rows.clone()));
    }
    if missing > added.len() {
        return Ok(rows.clone());
    }
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (field, value) in schema.fields().iter().skip(width).zip(&added[added.len() - missing..]) {
        if value.is_null() && !field.is_nullable() && count > 0 {
            let name = field.name();
            return Err(Error::invalid(format!(
                "column \"{name}\" is NOT NULL and has no default, and a row has no value for it"
            )));
        }
        columns.push(value.to_array_of_size(count).map_err(Error::from)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(error::arrow)
}
