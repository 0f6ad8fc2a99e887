//! Files that a query reads once: `FROM 'in/*.csv'`, `read_csv('a.txt', delimiter => ';')`.
//!
//! The connector `file` reads them, so an ad-hoc file has the formats, the inferred columns and the options of a source,
//! and a program without this connector has no such files. Rows are read while the query runs, a batch at a time. Unlike a
//! source, which keeps bad rows apart, a query fails at the first one.
//!
//! Deliberately absent: files in a query that lasts (a view, a materialized view, a stream). A file may change or vanish, and
//! a start must plan the same query again: a source declares the columns and keeps its position.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as DataFusionSession, TableProvider};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream::{self, TryStreamExt};
use millstream_connect::{BadRow, Connector, Health, Limit, More, Options, Source, SourceSpec};
use millstream_sql::{
    Error, FILE_READERS, Relation, Relations, Result, RoutineCatalog, SearchPath, is_hidden, suggestion,
};

use crate::engine::Shared;
use crate::error;

/// The rows and bytes of one batch.
const BATCH: Limit = Limit { rows: 8192, bytes: 4 << 20 };

/// The maximum length of a record.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// The connector that reads files.
const CONNECTOR: &str = "file";

/// The options of a function, with the connector's name for each.
const OPTIONS: [(&str, &str); 9] = [
    ("delimiter", "delimiter"),
    ("delim", "delimiter"),
    ("sep", "delimiter"),
    ("header", "header"),
    ("null", "null"),
    ("nullstr", "null"),
    ("match_pattern", "match_pattern"),
    ("recursive", "recursive"),
    ("order", "order"),
];

/// The files that queries of one engine may read.
#[derive(Clone)]
pub(crate) struct Files {
    connector: Option<Arc<dyn Connector>>,
}

impl Files {
    pub(crate) fn of(shared: &Shared) -> Files {
        Files { connector: shared.connectors.get(CONNECTOR).cloned() }
    }

    /// Returns the relation of a function that reads files; none for another function.
    pub(crate) fn relation(&self, function: &str, arguments: &[String]) -> Result<Option<Relation>> {
        if !FILE_READERS.contains(&function) {
            return Ok(None);
        }
        let Some(connector) = &self.connector else {
            return Err(Error::unsupported(format!(
                "{function} in a program without the connector '{CONNECTOR}'"
            )));
        };
        let spec = spec(function, arguments)?;
        connector.check_source(&spec).map_err(error::connect)?;
        let source = connector.source(&spec).map_err(|error| undeclared(error, &spec))?;
        let (schema, places) = visible(source.schema());
        let spec = SourceSpec { columns: Some(schema.clone()), ..spec };
        let table = FileTable { connector: connector.clone(), spec, schema, places };
        Ok(Some(Relation::Provided(Arc::new(table))))
    }
}

/// True if a plan reads files.
pub(crate) fn are_read_by(plan: &LogicalPlan) -> Result<bool> {
    millstream_sql::scans(plan, &|provider| (provider as &dyn std::any::Any).is::<FileTable>())
}

/// Returns the error for files in a query that lasts.
pub(crate) fn refused(arguments: &[String]) -> Error {
    let path = arguments.first().map_or("", String::as_str);
    Error::unsupported(format!("the file '{path}' in a view or in a query that is maintained")).hint(format!(
        "Create a source, and read that: CREATE SOURCE name FROM '{}' WITH (bounded = 'true').",
        path.replace('\'', "''")
    ))
}

/// Returns the source that a call describes.
fn spec(function: &str, arguments: &[String]) -> Result<SourceSpec> {
    let Some((path, rest)) = arguments.split_first() else {
        return Err(Error::invalid(format!("{function} needs the path of a file: {function}('in/a.csv')")));
    };
    if Path::new(path).is_dir() {
        return Err(Error::invalid(format!("'{path}' is a directory, but a file or a pattern was expected"))
            .hint(format!("Write '{}/*.csv'.", path.trim_end_matches('/'))));
    }
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::invalid(format!("'{path}' is no file, but a pipe or a device")));
    }
    let mut options = Options::default();
    options.0.insert("path".into(), path.clone());
    options.0.insert("bounded".into(), "true".into());
    match function.trim_start_matches("read_") {
        "file" => {}
        format => {
            options.0.insert("format".into(), format.into());
        }
    }
    for option in rest.chunks(2) {
        let [name, value] = option else {
            return Err(Error::bug(format!("{function} has an option without a value")));
        };
        let Some((_, known)) = OPTIONS.iter().find(|(option, _)| option == name) else {
            let names = || OPTIONS.iter().map(|(name, _)| *name);
            return Err(Error::invalid(format!("{function} has no option \"{name}\"")).hint(
                suggestion::did_you_mean(name, names()).unwrap_or_else(|| {
                    format!("The options are {}.", names().collect::<Vec<_>>().join(", "))
                }),
            ));
        };
        options.0.insert((*known).to_string(), value.clone());
    }
    Ok(SourceSpec {
        name: path.clone(),
        columns: None,
        key: Vec::new(),
        options,
        max_record_bytes: RECORD_BYTES_MAX,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: Health::default(),
    })
}

/// Converts the error of a source whose columns can't be found.
fn undeclared(error: millstream_connect::Error, spec: &SourceSpec) -> Error {
    let mut error = error::connect(error);
    if let Some(rest) = error.message.strip_suffix(". Declare its columns") {
        error.message = rest.replacen("source ", "", 1);
        error = error.hint(format!(
            "A source may declare them: CREATE SOURCE name (column TYPE, …) FROM '{}'.",
            spec.name.replace('\'', "''")
        ));
    }
    error
}

/// Returns the columns without hidden ones, and their places.
fn visible(schema: &SchemaRef) -> (SchemaRef, Vec<usize>) {
    let places: Vec<usize> = (0..schema.fields().len()).filter(|at| !is_hidden(schema.field(*at))).collect();
    let fields: Vec<_> = places.iter().map(|at| schema.fields()[*at].clone()).collect();
    (Arc::new(Schema::new(fields)), places)
}

/// Files as a table.
struct FileTable {
    connector: Arc<dyn Connector>,
    spec: SourceSpec,
    schema: SchemaRef,
    /// The places of the columns in the source's rows.
    places: Vec<usize>,
}

impl fmt::Debug for FileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileTable({})", self.spec.name)
    }
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn DataFusionSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let chosen = projection.unwrap_or(&all);
        let scan = FileScan {
            connector: self.connector.clone(),
            spec: self.spec.clone(),
            schema: Arc::new(self.schema.project(chosen)?),
            places: chosen.iter().map(|at| self.places[*at]).collect(),
        };
        let schema = scan.schema.clone();
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, limit)?;
        Ok(Arc::new(plan))
    }
}

/// One reading of files.
struct FileScan {
    connector: Arc<dyn Connector>,
    spec: SourceSpec,
    /// The columns that the query needs.
    schema: SchemaRef,
    /// Their places in the source's rows.
    places: Vec<usize>,
}

impl fmt::Debug for FileScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileScan({})", self.spec.name)
    }
}

impl PartitionStream for FileScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (connector, spec) = (self.connector.clone(), self.spec.clone());
        let (schema, places) = (self.schema.clone(), self.places.clone());
        let opened = async move {
            let mut source = connector.source(&spec).map_err(|error| undeclared(error, &spec))?;
            let wanted: Vec<bool> =
                (0..source.schema().fields().len()).map(|at| places.contains(&at)).collect();
            if source.properties().prunes_columns {
                source.want(&wanted).await.map_err(error::connect)?;
            }
            Ok::<_, Error>(stream::try_unfold(Some(source), next))
        };
        let (fields, places) = (self.schema.clone(), self.places.clone());
        let rows =
            stream::once(opened).try_flatten().map_ok(|batches| stream::iter(batches.into_iter().map(Ok)));
        let rows = rows.try_flatten().and_then(move |batch| {
            let columns = batch.project(&places).map_err(error::arrow);
            let shown = columns
                .and_then(|batch| millstream_delta::under_schema(&batch, &fields).map_err(error::arrow));
            std::future::ready(shown)
        });
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            rows.map_err(|error: Error| DataFusionError::from(error)),
        ))
    }
}

/// Returns the next rows of a source; none at its end.
async fn next(
    source: Option<Box<dyn Source>>,
) -> Result<Option<(Vec<arrow::array::RecordBatch>, Option<Box<dyn Source>>)>> {
    let Some(mut source) = source else { return Ok(None) };
    loop {
        let arrival = source.next(BATCH).await.map_err(error::connect)?;
        if let Some(bad) = arrival.bad_rows.first() {
            return Err(malformed(bad));
        }
        let has_ended = arrival.more == More::Never;
        if has_ended || !arrival.rows.is_empty() {
            return Ok(Some((arrival.rows, (!has_ended).then_some(source))));
        }
        if arrival.more == More::Later {
            source.ready().await.map_err(error::connect)?;
        }
    }
}

fn malformed(bad: &BadRow) -> Error {
    Error::invalid(format!("'{}', byte {}: {}", bad.split, bad.offset, bad.reason)).hint(
        "Columns and types come from the first 1000 records. CREATE SOURCE declares them, and keeps bad rows apart.",
    )
}

/// The catalog's relations and the files that a statement may read.
pub(crate) struct WithFiles<'a> {
    pub(crate) relations: &'a dyn Relations,
    pub(crate) files: Files,
}

impl Relations for WithFiles<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        self.relations.get(name)
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.relations.path()
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.relations.names(schema)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        self.relations.system(schema, name)
    }

    fn scalar(&self, name: &str) -> Option<Arc<datafusion::logical_expr::ScalarUDF>> {
        self.relations.scalar(name)
    }

    fn is_scalar(&self, name: &str) -> bool {
        self.relations.is_scalar(name)
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        self.relations.event_time(name)
    }

    fn defaults(&self, name: &str) -> Vec<(String, Expr)> {
        self.relations.defaults(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        match self.files.relation(name, arguments)? {
            Some(files) => Ok(Some(files)),
            None => self.relations.function(name, arguments),
        }
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self.relations.routine_catalog()
    }
}
