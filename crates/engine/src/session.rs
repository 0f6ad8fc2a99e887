//! A user's session with an engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_durable::{Entry, Plan, Standing};
use millstream_sql::{
    Checks, Error, GeneratedColumns, Operation, Parameters, Result, TokenReader, checked_rows,
};
use tokio::sync::oneshot;

use crate::catalog::{Definition, first_columns};
use crate::copy::{CopyIn, CopyOut};
use crate::cursor::Cursor;
use crate::ddl;
use crate::deadline::Deadline;
use crate::engine::Shared;
use crate::error;
use crate::event::{Event, Modification};
use crate::idempotency::IdempotencyKeys;
use crate::plan::Working;
use crate::prepare::Prepared;
use crate::statement::RowsTag;
use crate::statements::{self, create_table};
use crate::transaction::{Transaction, ends_transaction};
use crate::variables::SessionVariables;
use crate::zoned_rows;

/// A session executes statements. It reads its own writes.
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    /// The parameter values of the running statement.
    pub(crate) parameters: Option<Arc<Parameters>>,
    /// The transaction between BEGIN and COMMIT.
    pub(crate) transaction: Option<Transaction>,
    pub(crate) cursors: BTreeMap<String, Cursor>,
    /// PostgreSQL's settings in this session.
    pub(crate) variables: SessionVariables,
    /// The statements of PREPARE.
    pub(crate) prepared: BTreeMap<String, Prepared>,
    /// The deadline of the running statement.
    pub(crate) deadline: Deadline,
    /// The idempotency keys of the statements of a script.
    pub(crate) idempotency: IdempotencyKeys,
    /// True if the session replays a journal.
    pub(crate) is_recovering: bool,
    /// The stored plans of the statements that are replayed.
    pub(crate) plans: Vec<Plan>,
    /// True while a statement runs on a worker of the query pool.
    pub(crate) is_apart: bool,
    /// The receiver of the session after its statement was cancelled.
    pub(crate) returning: Option<oneshot::Receiver<Box<Session>>>,
}

/// The answer to one statement.
pub enum Response {
    /// The statement completed without rows.
    Done(Tag),
    /// Rows, as they arrive.
    Rows(SendableRecordBatchStream),
    /// COPY … FROM STDIN, which waits for its rows.
    CopyIn(Box<CopyIn>),
    /// The rows of COPY … TO STDOUT.
    CopyOut(Box<CopyOut>),
}

/// The schema metadata key of a notice about the rows.
pub(crate) const NOTICE: &str = "millstream.notice";

/// The schema metadata key of a result that ends only when its reader goes away.
pub(crate) const ENDLESS: &str = "millstream.endless";

/// The schema metadata key of the command tag of a result, without its number of rows.
pub(crate) const TAG: &str = "millstream.tag";

/// The schema metadata key of a result whose values are requested in binary.
pub(crate) const BINARY: &str = "millstream.binary";

impl Response {
    /// Returns the response in a session with this time zone. `None` is UTC.
    pub(crate) fn in_zone(self, zone: Option<&str>) -> Response {
        match (self, zone) {
            (Response::Rows(rows), Some(zone)) => Response::Rows(zoned_rows::rows_in(rows, zone)),
            (Response::CopyOut(mut copy), Some(zone)) => {
                copy.rows = zoned_rows::rows_in(copy.rows, zone);
                Response::CopyOut(copy)
            }
            (response, _) => response,
        }
    }

    /// Returns the command tag of the rows of RETURNING.
    pub fn tag(&self) -> Option<RowsTag> {
        let Response::Rows(rows) = self else { return None };
        let schema = rows.schema();
        let word = schema.metadata().get(TAG)?;
        let tags = [Operation::Insert, Operation::Update, Operation::Delete].map(RowsTag::of);
        tags.into_iter().find(|tag| tag.word == word)
    }

    /// Returns the notices for the user.
    pub fn notices(&self) -> Vec<String> {
        match self {
            Response::Done(tag) => tag.notices.clone(),
            Response::Rows(rows) => notice_of(rows),
            Response::CopyOut(copy) => notice_of(&copy.rows),
            Response::CopyIn(_) => Vec::new(),
        }
    }

    /// Returns true if values must be sent in PostgreSQL's binary format: FETCH from a BINARY cursor.
    pub fn is_binary(&self) -> bool {
        matches!(self, Response::Rows(rows) if rows.schema().metadata().contains_key(BINARY))
    }

    /// Returns true if the rows may never end, like those of EMIT CHANGES. The reader drops them when it has
    /// enough.
    pub fn is_endless(&self) -> bool {
        match self {
            Response::Rows(rows) => rows.schema().metadata().contains_key(ENDLESS),
            Response::CopyOut(copy) => copy.is_endless,
            Response::Done(_) | Response::CopyIn(_) => false,
        }
    }
}

fn notice_of(rows: &SendableRecordBatchStream) -> Vec<String> {
    rows.schema().metadata().get(NOTICE).cloned().into_iter().collect()
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Response::Done(tag) => tag.fmt(f),
            Response::Rows(rows) => write!(f, "Rows({:?})", rows.schema()),
            Response::CopyIn(copy) => write!(f, "CopyIn({:?})", copy.columns()),
            Response::CopyOut(copy) => write!(f, "CopyOut({:?})", copy.rows.schema()),
        }
    }
}

/// The completion of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// PostgreSQL's command tag: `CREATE TABLE`, `INSERT 0 3`.
    pub text: String,
    /// Notices for the user.
    pub notices: Vec<String>,
}

impl Tag {
    /// Creates a tag without notices.
    pub(crate) fn new(text: impl Into<String>) -> Tag {
        Tag { text: text.into(), notices: Vec::new() }
    }
}

impl From<Tag> for Response {
    fn from(tag: Tag) -> Response {
        Response::Done(tag)
    }
}

/// The maximum length of a COMMIT or ROLLBACK; longer texts are not checked.
const ENDING_BYTES_MAX: usize = 1024;

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Session {
        Session {
            deadline: Deadline::new(shared.handle.clone()),
            shared,
            parameters: None,
            transaction: None,
            cursors: BTreeMap::new(),
            variables: SessionVariables::default(),
            prepared: BTreeMap::new(),
            idempotency: IdempotencyKeys::default(),
            is_recovering: false,
            plans: Vec::new(),
            is_apart: false,
            returning: None,
        }
    }

    /// Returns true if the session's changes outlast the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.is_recovering || self.shared.recovery.recovered().is_some()
    }

    /// Executes exactly one statement.
    pub async fn execute(&mut self, sql: &str) -> Result<Response> {
        self.parameters = None;
        self.time_anew();
        let text = self.variables.spelled_out(sql);
        self.execute_one(&text).await
    }

    /// Restarts the statement timeout. For a statement whose rows a client fetches in pieces, with other work
    /// in between. Every statement starts it by itself.
    pub fn time_anew(&self) {
        self.deadline.begin(self.variables.statement_timeout());
    }

    /// Executes a statement with the current parameters.
    pub(crate) fn execute_one<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Response>> {
        if sql.len() <= ENDING_BYTES_MAX && ends_transaction(sql).unwrap_or(false) {
            // A COMMIT that has begun must complete, so it has no timeout.
            self.deadline.begin(None);
        }
        let (deadline, text) = (self.deadline.clone(), sql.to_string());
        let run = self.apart(sql, move |session| async move { session.run_text(&text).await }.boxed());
        async move { deadline.within(run).await.and_then(|done| done) }.boxed()
    }

    pub(crate) async fn run_text(&mut self, sql: &str) -> Result<Response> {
        let pieces = millstream_sql::statements(sql).inspect_err(|_| self.fail_transaction())?;
        let [piece] = pieces.as_slice() else {
            return Err(Error::invalid(format!("one statement was expected, {} were found", pieces.len()))
                .hint("Run several statements as a script."));
        };
        let result = statements::run(self, &piece.text).await;
        let zone = self.variables.time_zone();
        let result = result.map(|response| response.in_zone(zone.as_deref()));
        self.leave(result).map_err(|error| error.shift(piece.range.start))
    }

    /// Creates a table from an Arrow schema, which may use types that SQL has no name for. `primary_key` has
    /// column positions; it is empty if there is no key.
    pub async fn create_table(
        &mut self,
        name: &str,
        schema: SchemaRef,
        primary_key: &[usize],
    ) -> Result<Tag> {
        self.come_back().await;
        self.enter(&TokenReader::new("CREATE TABLE")?)?;
        create_table::check(name, &schema, primary_key)?;
        for _ in 0..ddl::PLANS_MAX {
            let mut working = Working::new(self.catalog());
            let base = working.catalog.version;
            working.create(create_table::object(name, schema.clone(), primary_key), None)?;
            let entry = Entry::TableMade {
                name: name.into(),
                schema: schema.clone(),
                key: primary_key.to_vec(),
                standing: Standing::default(),
            };
            if ddl::commit(&self.shared, base, working, entry).await?.is_some() {
                return Ok(Tag::new("CREATE TABLE"));
            }
        }
        Err(ddl::busy())
    }

    /// Inserts rows into a table, as INSERT does, with columns in the table's order. Returns when their epoch
    /// is done; under a manual clock, when they are accepted.
    pub async fn insert(&mut self, table: &str, rows: RecordBatch) -> Result<Tag> {
        let rows = checked(&self.shared, table, rows)?;
        let count = self.modify_alone(Modification::Insert { table: table.into(), rows: vec![rows] }).await?;
        Ok(Tag::new(format!("INSERT 0 {count}")))
    }

    /// Deletes rows of a table, each once. Without a primary key all rows must exist. With one, only the key
    /// counts, and missing keys are ignored.
    pub async fn delete_rows(&mut self, table: &str, rows: RecordBatch) -> Result<Tag> {
        let count = self.modify_alone(Modification::Delete { table: table.into(), rows }).await?;
        Ok(Tag::new(format!("DELETE {count}")))
    }

    /// Changes rows without a statement.
    pub(crate) async fn modify_alone(&mut self, modification: Modification) -> Result<u64> {
        self.come_back().await;
        self.enter(&TokenReader::new("INSERT")?)?;
        let result = self.modify(modification).await;
        self.leave(result)
    }

    pub(crate) async fn modify(&mut self, modification: Modification) -> Result<u64> {
        if let Some(transaction) = &mut self.transaction {
            return transaction.modify(&self.shared, modification).await.map(|changed| changed.count);
        }
        let idempotency_key = self.idempotency.take();
        self.shared.ask(|reply| Event::Modify { modification, idempotency_key, reply }).await
    }
}

/// Converts rows to the types of a table's columns, such as UUID. Rows that don't fit fail later, in the
/// insert.
fn checked(shared: &Shared, table: &str, rows: RecordBatch) -> Result<RecordBatch> {
    let catalog = shared.catalog();
    let Some(Definition::Table { schema, .. }) = catalog.find(table).map(|object| &object.definition) else {
        return Ok(rows);
    };
    let rows = match GeneratedColumns::of(&shared.planner, schema)? {
        Some(generated) => {
            let rows = inputs_of(shared, table, &generated, schema, &rows)?;
            checked_rows(generated.add(&rows)?, schema)?
        }
        None => {
            // Columns added to the table meanwhile get their defaults.
            let known = first_columns(schema, rows.num_columns());
            match millstream_delta::fitted(&rows, &known) {
                Ok(fitted) => checked_rows(fitted, &known)?,
                Err(_) => return Ok(rows),
            }
        }
    };
    if let Some(checks) = Checks::of(&shared.planner, schema, table)? {
        checks.verify(&rows)?;
    }
    Ok(rows)
}

/// Returns the columns of some rows from which the generated ones of their table are computed. Rows have the names of the
/// table's columns, and defaults where they lack some. With other names they have all columns in order, or all but the
/// generated ones.
fn inputs_of(
    shared: &Shared,
    table: &str,
    generated: &GeneratedColumns,
    schema: &SchemaRef,
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let inputs = generated.inputs();
    let are_named = rows.schema_ref().fields().iter().all(|field| schema.index_of(field.name()).is_ok());
    let rows = match rows.num_columns() {
        _ if are_named => {
            let defaults = shared.planner.default_values(inputs.fields().iter().map(AsRef::as_ref))?;
            let columns = inputs.fields().iter().zip(defaults).map(|(field, default)| {
                let given = rows.column_by_name(field.name()).cloned();
                given.map_or_else(|| Ok(default.to_array_of_size(rows.num_rows())?), Ok)
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let field = |(field, column): (&FieldRef, &ArrayRef)| {
                Field::new(field.name(), column.data_type().clone(), true)
            };
            let fields: Vec<Field> = inputs.fields().iter().zip(&columns).map(field).collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error::arrow)?
        }
        count if count == schema.fields().len() => rows.project(generated.places()).map_err(error::arrow)?,
        _ => rows.clone(),
    };
    millstream_delta::fitted(&rows, inputs)
        .map_err(|error| Error::invalid(format!("the rows don't fit table \"{table}\": {error}")))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("transaction", &self.transaction_status()).finish_non_exhaustive()
    }
}
