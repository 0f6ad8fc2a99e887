//! Sources with generated columns: a connector reads the other columns, and each row gets the generated ones before the
//! engine sees it.
//!
//! A row whose expression fails is set aside as a bad row, like a record that can't be decoded. The expressions are
//! computed whichever columns are wanted, so that a replay sets aside the same rows.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch, is_null, take};
use arrow::datatypes::{FieldRef, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use async_trait::async_trait;
use millstream_connect::{
    Arrival, BadRow, Connector, Error as ConnectError, Findings, Inlet, Jump, Limit, OptionDoc, Options,
    Source, SourceProperties, SourceSpec,
};
use millstream_delta::{Position, Span, generated_of};
use millstream_sql::{GeneratedColumns, Planner, is_hidden};

type Result<T, E = ConnectError> = std::result::Result<T, E>;

/// The hidden column with the position of each record, if a connector has one.
const OFFSET: &str = "_offset";

/// A connector whose sources have generated columns.
pub(crate) struct GeneratingConnector {
    inner: Arc<dyn Connector>,
    planner: Planner,
}

impl fmt::Debug for GeneratingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratingConnector").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl GeneratingConnector {
    /// Wraps a connector for sources with these columns, if some of them are generated.
    pub(crate) fn wrap(
        inner: Arc<dyn Connector>,
        planner: &Planner,
        columns: Option<&SchemaRef>,
    ) -> Arc<dyn Connector> {
        match columns
            .is_some_and(|columns| columns.fields().iter().any(|field| generated_of(field).is_some()))
        {
            true => Arc::new(GeneratingConnector { inner, planner: planner.clone() }),
            false => inner,
        }
    }
}

/// Returns what a connector gets to know of a source: its columns without the generated ones.
fn without_generated(spec: &SourceSpec) -> Result<SourceSpec> {
    let Some(columns) = &spec.columns else { return Ok(spec.clone()) };
    let plain: Vec<usize> =
        (0..columns.fields().len()).filter(|place| generated_of(columns.field(*place)).is_none()).collect();
    let moved = |place: &usize| {
        plain.iter().position(|plain| plain == place).ok_or_else(|| {
            let column = columns.field(*place).name();
            ConnectError::Invalid(format!(
                "column \"{column}\" of the primary key of \"{}\" is generated, but a key is what the source sends",
                spec.name
            ))
        })
    };
    let key = spec.key.iter().map(moved).collect::<Result<Vec<_>>>()?;
    let columns = columns.project(&plain).map_err(|error| ConnectError::Bug(error.to_string()))?;
    Ok(SourceSpec { columns: Some(Arc::new(columns)), key, ..spec.clone() })
}

#[async_trait]
impl Connector for GeneratingConnector {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn summary(&self) -> &'static str {
        self.inner.summary()
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        self.inner.source_options()
    }

    fn more_columns(&self, options: &Options) -> Result<Vec<FieldRef>> {
        self.inner.more_columns(options)
    }

    fn findings(&self, spec: &SourceSpec) -> Result<Findings> {
        self.inner.findings(&without_generated(spec)?)
    }

    fn check_source(&self, spec: &SourceSpec) -> Result<()> {
        self.inner.check_source(&without_generated(spec)?)
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let inner = self.inner.source(&without_generated(spec)?)?;
        let schema = all_columns(spec, inner.schema());
        let generated = GeneratedColumns::of(&self.planner, &schema).map_err(connect)?;
        let generated = generated.ok_or_else(|| ConnectError::Bug("no column is generated".into()))?;
        let read = inner.schema();
        let picked = generated.inputs().fields().iter().map(|field| read.index_of(field.name()));
        let picked =
            picked.collect::<Result<Vec<_>, _>>().map_err(|error| ConnectError::Bug(error.to_string()))?;
        let position = inner.properties().position_column.or_else(|| read.index_of(OFFSET).ok());
        Ok(Box::new(GeneratingSource { inner, schema, generated, picked, position }))
    }
}

fn connect(error: millstream_sql::Error) -> ConnectError {
    ConnectError::Invalid(error.message)
}

/// Returns the declared columns in their order, with the connector's form of each, then those that the connector adds.
fn all_columns(spec: &SourceSpec, read: &SchemaRef) -> SchemaRef {
    let declared = spec.columns.iter().flat_map(|columns| columns.fields().iter());
    let found = declared.clone().map(|field| match generated_of(field) {
        Some(_) => field.clone(),
        None => read.fields().find(field.name()).map_or_else(|| field.clone(), |(_, field)| field.clone()),
    });
    let is_declared = |field: &&FieldRef| declared.clone().any(|other| other.name() == field.name());
    let added = read.fields().iter().filter(|field| !is_declared(field)).cloned();
    Arc::new(Schema::new(found.chain(added).collect::<Vec<_>>()))
}

/// A source that adds generated columns to the rows of another.
struct GeneratingSource {
    inner: Box<dyn Source>,
    /// All columns.
    schema: SchemaRef,
    generated: GeneratedColumns,
    /// The numbers of [`GeneratedColumns::inputs`] among the columns that the connector reads.
    picked: Vec<usize>,
    /// The number of the column with each row's position in its split, among those that the connector reads.
    position: Option<usize>,
}

impl GeneratingSource {
    /// Adds the columns to all rows of an arrival.
    fn add(&self, arrival: Arrival) -> Result<Arrival> {
        let splits: Vec<Option<Arc<str>>> =
            (0..arrival.rows.len()).map(|batch| arrival.split_of(batch).cloned()).collect();
        let first = arrival.spans.last().map_or(0, |span| span.from);
        let mut added = Arrival { rows: Vec::with_capacity(arrival.rows.len()), ..arrival };
        for (rows, split) in arrival.rows.into_iter().zip(splits) {
            let rows = match self.added(&rows) {
                Ok(rows) => rows,
                // Which rows are at fault?
                Err(_) => self.set_aside(&rows, split.unwrap_or_default(), first, &mut added.bad_rows)?,
            };
            added.rows.push(rows);
        }
        Ok(added)
    }

    /// Adds the columns to some rows. Change feeds have a column after those of the schema. It says which rows are deletes:
    /// these need only their keys, so that nothing is computed of them.
    fn added(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let bug = |error: ArrowError| ConnectError::Bug(error.to_string());
        let read = self.inner.schema().fields().len();
        let mut all = rows.project(&self.picked).map_err(bug)?;
        all = match rows.columns().get(read).filter(|deleted| deleted.null_count() < rows.num_rows()) {
            None => self.computed(&all)?,
            Some(deleted) => {
                let stays = is_null(deleted).map_err(bug)?;
                let computed = self.computed(&filter_record_batch(&all, &stays).map_err(bug)?)?;
                let mut next = 0..computed.num_rows() as u64;
                let places = stays.iter().map(|stays| if stays == Some(true) { next.next() } else { None });
                let places: UInt64Array = places.collect();
                let mut inputs = all.columns().iter();
                let column = |(field, computed): (&FieldRef, &ArrayRef)| match generated_of(field) {
                    Some(_) => take(computed, &places, None),
                    None => inputs.next().cloned().ok_or_else(|| ArrowError::SchemaError("a column".into())),
                };
                let columns = self.schema.fields().iter().zip(computed.columns()).map(column);
                let columns = columns.collect::<Result<Vec<_>, _>>().map_err(bug)?;
                RecordBatch::try_new(computed.schema(), columns).map_err(bug)?
            }
        };
        let is_feed = rows.num_columns() > read;
        let field = |field: &FieldRef| match is_feed {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => field.clone(),
        };
        let after = rows.schema_ref().fields().iter().skip(read).cloned();
        let fields = self.schema.fields().iter().map(field).chain(after);
        let columns = all.columns().iter().chain(rows.columns().iter().skip(read)).cloned();
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns.collect())
            .map_err(bug)
    }

    /// Computes the columns of rows of the inputs.
    fn computed(&self, inputs: &RecordBatch) -> Result<RecordBatch> {
        let all = self.generated.add(inputs).map_err(connect)?;
        let missing = |place: &usize| {
            let field = self.schema.field(*place);
            generated_of(field).is_some()
                && !field.is_nullable()
                && all.column(*place).logical_null_count() > 0
        };
        match (0..self.schema.fields().len()).find(missing) {
            None => Ok(all),
            Some(place) => {
                let name = self.schema.field(place).name();
                Err(ConnectError::Invalid(format!("column \"{name}\": found NULL, expected a value")))
            }
        }
    }

    /// Adds the columns row by row, and sets aside the rows that have no value.
    fn set_aside(
        &self,
        rows: &RecordBatch,
        split: Arc<str>,
        first: u64,
        bad_rows: &mut Vec<BadRow>,
    ) -> Result<RecordBatch> {
        let mut good = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let rows = rows.slice(row, 1);
            match self.added(&rows) {
                Ok(added) => good.push(added),
                Err(ConnectError::Bug(error)) => return Err(ConnectError::Bug(error)),
                Err(error) => bad_rows.push(BadRow {
                    split: split.clone(),
                    offset: self.offset_of(&rows).unwrap_or(first),
                    reason: error.to_string(),
                    bytes: self.written(&rows),
                }),
            }
        }
        let schema = match good.first() {
            Some(rows) => rows.schema(),
            None => self.added(&rows.slice(0, 0))?.schema(),
        };
        concat_batches(&schema, &good).map_err(|error| ConnectError::Bug(error.to_string()))
    }

    /// Returns the columns of a row that generated ones are computed from, as JSON, for people who look at bad rows.
    fn written(&self, row: &RecordBatch) -> Vec<u8> {
        let used = self.picked.iter().zip(self.generated.used()).filter(|(_, used)| *used);
        let used: Vec<usize> = used.map(|(column, _)| *column).collect();
        let mut writer = LineDelimitedWriter::new(Vec::new());
        let done = row.project(&used).and_then(|row| writer.write(&row)).and_then(|()| writer.finish());
        let mut bytes = if done.is_ok() { writer.into_inner() } else { Vec::new() };
        bytes.truncate(BadRow::BYTES_MAX);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        bytes
    }

    /// Returns the position of a row in its split, if the source has it in a column.
    fn offset_of(&self, row: &RecordBatch) -> Option<u64> {
        let positions = row.column(self.position?).as_primitive_opt::<Int64Type>()?;
        u64::try_from(positions.value(0)).ok()
    }
}

#[async_trait]
impl Source for GeneratingSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let arrival = self.inner.next(limit).await?;
        self.add(arrival)
    }

    async fn ready(&mut self) -> Result<()> {
        self.inner.ready().await
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.inner.seek(after).await
    }

    fn properties(&self) -> SourceProperties {
        let properties = self.inner.properties();
        let outer = |column: usize| {
            let input = self.picked.iter().position(|picked| *picked == column)?;
            Some(self.generated.places()[input])
        };
        let position_column = properties.position_column.and_then(outer);
        SourceProperties { position_column, ..properties }
    }

    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let arrival = self.inner.replay(span, limit).await?;
        self.add(arrival)
    }

    async fn jump(&mut self, to: &Jump) -> Result<usize> {
        self.inner.jump(to).await
    }

    async fn want(&mut self, columns: &[bool]) -> Result<()> {
        let mut wanted = vec![false; self.inner.schema().fields().len()];
        let inputs = self.picked.iter().zip(self.generated.places()).zip(self.generated.used());
        for ((column, place), used) in inputs {
            wanted[*column] = used || columns[*place];
        }
        // Bad rows say where their records are.
        if let Some(position) = self.position {
            wanted[position] = true;
        }
        self.inner.want(&wanted).await
    }

    async fn acknowledge(&mut self, through: &Position) -> Result<()> {
        self.inner.acknowledge(through).await
    }

    fn inlet(&self) -> Option<Arc<dyn Inlet>> {
        let inlet = self.inner.inlet()?;
        let visible = |place: &usize| !is_hidden(self.schema.field(*place));
        // An inlet takes the visible columns.
        let mut places = Vec::new();
        for (at, place) in (0..self.schema.fields().len()).filter(visible).enumerate() {
            if generated_of(self.schema.field(place)).is_none() {
                places.push(at);
            }
        }
        Some(Arc::new(PlainInlet { inlet, places }))
    }
}

/// An inlet that gets rows without their generated columns.
struct PlainInlet {
    inlet: Arc<dyn Inlet>,
    places: Vec<usize>,
}

#[async_trait]
impl Inlet for PlainInlet {
    async fn insert(&self, rows: RecordBatch) -> Result<()> {
        let rows = rows.project(&self.places).map_err(|error| ConnectError::Bug(error.to_string()))?;
        self.inlet.insert(rows).await
    }
}
