//! One user's conversation with an engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::SendableRecordBatchStream;
use millstream_durable::{Entry, Plan, Standing};
use millstream_sql::{Error, Kind, Parameters, Result, TokenReader, checked_rows};

use crate::catalog::{Definition, first_columns};
use crate::copy::{CopyIn, CopyOut};
use crate::cursor::Cursor;
use crate::deadline::Deadline;
use crate::engine::Shared;
use crate::error;
use crate::event::{Change, Event, Modification};
use crate::once::Once;
use crate::plan::Working;
use crate::prepare::Prepared;
use crate::stack::contained;
use crate::statements::{self, create_table};
use crate::transaction::{Modes, Transaction, ends_transaction};
use crate::variables::Variables;

/// Turns statements into answers. What a session has written, it reads.
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    /// Values for the parameters of the statement that runs.
    pub(crate) parameters: Option<Arc<Parameters>>,
    /// What is between BEGIN and COMMIT.
    pub(crate) transaction: Option<Transaction>,
    /// How transactions begin that don't say otherwise.
    pub(crate) modes: Modes,
    pub(crate) cursors: BTreeMap<String, Cursor>,
    /// PostgreSQL's settings as this session has them.
    pub(crate) variables: Arc<Mutex<Variables>>,
    /// Statements of PREPARE.
    pub(crate) prepared: BTreeMap<String, Prepared>,
    /// When the statement that runs has to be done.
    pub(crate) deadline: Deadline,
    /// How statements of a script are done once.
    pub(crate) once: Once,
    /// Whether it does again what a journal holds.
    pub(crate) is_recovering: bool,
    /// The plans that the statements had made which it does again.
    pub(crate) plans: Vec<Plan>,
}

/// The answer to one statement.
pub enum Response {
    /// It was done.
    Done(Tag),
    /// Rows, as they come.
    Rows(SendableRecordBatchStream),
    /// COPY … FROM STDIN waits for its rows.
    CopyIn(Box<CopyIn>),
    /// The rows of COPY … TO STDOUT.
    CopyOut(Box<CopyOut>),
}

/// The key of a result's schema metadata that holds a notice about the rows.
pub(crate) const NOTICE: &str = "millstream.notice";

/// The key of a result's schema metadata that says that its rows end when their reader goes.
pub(crate) const ENDLESS: &str = "millstream.endless";

/// The key of a result's schema metadata that says that its values are asked for in binary.
pub(crate) const BINARY: &str = "millstream.binary";

impl Response {
    /// What the user should know besides.
    pub fn notices(&self) -> Vec<String> {
        match self {
            Response::Done(tag) => tag.notices.clone(),
            Response::Rows(rows) => notice_of(rows),
            Response::CopyOut(copy) => notice_of(&copy.rows),
            Response::CopyIn(_) => Vec::new(),
        }
    }

    /// Whether its values are to be sent as PostgreSQL has them in binary: FETCH from a BINARY cursor.
    pub fn is_binary(&self) -> bool {
        matches!(self, Response::Rows(rows) if rows.schema().metadata().contains_key(BINARY))
    }

    /// Whether its rows may come for ever, as those of EMIT CHANGES do: who has seen enough drops them.
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

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// PostgreSQL's command tag: `CREATE TABLE`, `INSERT 0 3`.
    pub text: String,
    /// What the user should know besides.
    pub notices: Vec<String>,
}

impl Tag {
    /// A tag without notices.
    pub(crate) fn new(text: impl Into<String>) -> Tag {
        Tag { text: text.into(), notices: Vec::new() }
    }
}

impl From<Tag> for Response {
    fn from(tag: Tag) -> Response {
        Response::Done(tag)
    }
}

/// How often a statement is planned again when the catalog changes under it.
pub(crate) const PLANS_MAX: usize = 100;

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Session {
        Session {
            deadline: Deadline::new(shared.handle.clone()),
            shared,
            parameters: None,
            transaction: None,
            modes: Modes::default(),
            cursors: BTreeMap::new(),
            variables: Arc::default(),
            prepared: BTreeMap::new(),
            once: Once::default(),
            is_recovering: false,
            plans: Vec::new(),
        }
    }

    /// Whether what it does outlasts the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.is_recovering || self.shared.recovered.get().is_some()
    }

    /// Runs exactly one statement.
    pub async fn execute(&mut self, sql: &str) -> Result<Response> {
        self.parameters = None;
        self.time_anew();
        let result = contained(self.execute_one(sql)).await;
        self.fail_by_bug(result)
    }

    /// A statement that panicked has left what it did in a transaction half done.
    pub(crate) fn fail_by_bug<T>(&mut self, result: Result<T>) -> Result<T> {
        if matches!(&result, Err(error) if error.kind == Kind::Bug) {
            self.fail_transaction();
        }
        result
    }

    /// Counts the time that a statement may take from now on: for one whose rows a client takes some at a time, between
    /// which it may do other things. Statements themselves begin so.
    pub fn time_anew(&self) {
        self.deadline.begin(self.statement_timeout());
    }

    /// Runs a statement with the parameters that are set.
    pub(crate) async fn execute_one(&mut self, sql: &str) -> Result<Response> {
        let pieces = millstream_sql::statements(sql).inspect_err(|_| self.fail_transaction())?;
        let [piece] = pieces.as_slice() else {
            return Err(Error::invalid(format!("one statement was expected, {} were found", pieces.len()))
                .hint("Run several statements as a script."));
        };
        if ends_transaction(&piece.text)? {
            // What has begun to be committed is.
            self.deadline.begin(None);
        }
        let deadline = self.deadline.clone();
        let result = deadline.within(self.run(&piece.text)).await.and_then(|done| done);
        self.leave(result).map_err(|error| error.shift(piece.range.start))
    }

    async fn run(&mut self, text: &str) -> Result<Response> {
        let reader = TokenReader::new(text)?;
        self.enter(&reader)?;
        if statements::is_ddl(text)? {
            let mut tags = self.change(&[text]).await.map_err(|(_, error)| error)?;
            self.say_at_once(&mut tags);
            return Ok(tags.pop().unwrap_or_default().into());
        }
        match statements::run(self, reader).await? {
            Response::Rows(rows) => Ok(Response::Rows(self.watched(rows))),
            done => Ok(done),
        }
    }

    /// Creates a table whose columns are given as an Arrow schema: of any type, those included that SQL has no name
    /// for. `primary_key` names columns by their places and is empty where there is no key.
    pub async fn create_table(
        &mut self,
        name: &str,
        schema: SchemaRef,
        primary_key: &[usize],
    ) -> Result<Tag> {
        self.enter(&TokenReader::new("CREATE TABLE")?)?;
        create_table::check(name, &schema, primary_key)?;
        for _ in 0..PLANS_MAX {
            let mut working = Working::new(self.shared.catalog());
            let base = working.catalog.version;
            working.create(create_table::object(name, schema.clone(), primary_key), None)?;
            let entry = Entry::TableMade {
                name: name.into(),
                schema: schema.clone(),
                key: primary_key.to_vec(),
                standing: Standing::default(),
            };
            if self.commit(base, working, entry).await?.is_some() {
                return Ok(Tag::new("CREATE TABLE"));
            }
        }
        Err(busy())
    }

    /// Inserts rows into a table, as an INSERT would: columns in the table's order. Returns when their epoch is
    /// done; under a manual clock, when they are accepted.
    pub async fn insert(&mut self, table: &str, rows: RecordBatch) -> Result<Tag> {
        let rows = self.checked(table, rows)?;
        let count = self.modify_alone(Modification::Insert { table: table.into(), rows: vec![rows] }).await?;
        Ok(Tag::new(format!("INSERT 0 {count}")))
    }

    /// Rows as a table's columns take them, such as UUID; what doesn't fit at all is found when it is inserted.
    fn checked(&self, table: &str, rows: RecordBatch) -> Result<RecordBatch> {
        let catalog = self.shared.catalog();
        let Some(Definition::Table { schema, .. }) = catalog.find(table).map(|object| &object.definition)
        else {
            return Ok(rows);
        };
        // What it got meanwhile has its default.
        let known = first_columns(schema, rows.num_columns());
        match millstream_delta::fitted(&rows, &known) {
            Ok(fitted) => checked_rows(fitted, &known),
            Err(_) => Ok(rows),
        }
    }

    /// Deletes rows of a table, each once. Without a primary key all must be there; with one, only the key counts,
    /// and keys that aren't there are passed over.
    pub async fn delete_rows(&mut self, table: &str, rows: RecordBatch) -> Result<Tag> {
        let count = self.modify_alone(Modification::Delete { table: table.into(), rows }).await?;
        Ok(Tag::new(format!("DELETE {count}")))
    }

    /// Changes rows without a statement.
    pub(crate) async fn modify_alone(&mut self, modification: Modification) -> Result<u64> {
        self.enter(&TokenReader::new("INSERT")?)?;
        let result = self.modify(modification).await;
        self.leave(result)
    }

    pub(crate) async fn modify(&mut self, modification: Modification) -> Result<u64> {
        if self.transaction.is_some() {
            return self.modify_within(modification).await;
        }
        let once = self.once.take();
        self.shared.ask(|reply| Event::Modify { modification, once, reply }).await
    }

    pub(crate) fn hold(&self, hold: bool) -> Result<()> {
        self.shared.events.send(Event::Hold(hold)).map_err(|_| error::stopped())
    }

    /// Runs CREATE and DROP statements that take effect together. An error names the statement's place.
    pub(crate) async fn change(&self, texts: &[&str]) -> Result<Vec<Tag>, (usize, Error)> {
        for _ in 0..PLANS_MAX {
            let mut working = Working::again(self.shared.catalog(), &self.plans);
            let base = working.catalog.version;
            let mut tags = Vec::with_capacity(texts.len());
            for (place, text) in texts.iter().enumerate() {
                let tag = statements::plan_ddl(self, &mut working, text).await;
                tags.push(tag.map_err(|error| (place, error))?);
            }
            if working.changes.is_empty() {
                return Ok(tags);
            }
            let last = texts.len().saturating_sub(1);
            let entry = self.entry(texts, working.plans(self));
            if let Some(notices) = self.commit(base, working, entry).await.map_err(|error| (last, error))? {
                if let Some(tag) = tags.last_mut() {
                    tag.notices.extend(notices);
                }
                return Ok(tags);
            }
        }
        Err((0, busy()))
    }

    /// Carries out the change of a statement that `plan` gives, with the version of the catalog that it follows from;
    /// planned anew where that is another one meanwhile. No change: there is nothing to be done.
    pub(crate) async fn alter(
        &self,
        statement: &TokenReader<'_>,
        plan: impl Fn(&Session, &mut TokenReader<'_>) -> Result<(u64, Option<Change>, Tag)>,
    ) -> Result<Response> {
        for _ in 0..PLANS_MAX {
            let (base, change, mut tag) = plan(self, &mut statement.clone())?;
            let Some(change) = change else { return Ok(tag.into()) };
            let entry = Box::new(self.entry(&[statement.text()], Vec::new()));
            let changes = vec![change];
            let changed = self.shared.ask(|reply| Event::Change { base, changes, entry, reply }).await?;
            if let Some(notices) = changed {
                tag.notices.extend(notices);
                return Ok(tag.into());
            }
        }
        Err(busy())
    }

    /// Carries out a group of changes that was planned against the catalog of version `base`; none if that is
    /// another one by now.
    async fn commit(&self, base: u64, working: Working, entry: Entry) -> Result<Option<Vec<String>>> {
        let (changes, entry): (Vec<Change>, _) = (working.changes, Box::new(entry));
        self.shared.ask(|reply| Event::Change { base, changes, entry, reply }).await
    }

    /// What the journal is told of statements that change the catalog.
    pub(crate) fn entry(&self, texts: &[&str], plans: Vec<Plan>) -> Entry {
        Entry::Changed {
            statements: texts.iter().map(|text| (*text).to_string()).collect(),
            variables: self.variables().set_here(),
            done: self.once.names(),
            plans,
            standing: Standing::default(),
        }
    }
}

pub(crate) fn busy() -> Error {
    Error::external("the catalog keeps changing: try again")
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("transaction", &self.transaction_status()).finish_non_exhaustive()
    }
}
