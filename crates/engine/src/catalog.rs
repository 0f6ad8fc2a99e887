//! What exists: objects by name, and who reads whom.

mod functions;
mod renaming;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use millstream_connect::{Connector, SinkSpec, SourceSpec};
use millstream_flow::Called;
use millstream_sql::routines::{Routine, UserAggregate, UserFunction, routine_name};
use millstream_sql::{AS_OF, BatchQuery, Error, Relation, Relations, Result, SYSTEM_SCHEMA, Watermark, near};
use millstream_state::{Conflict, Tables};

pub use functions::Moment;
pub(crate) use renaming::{move_key, with_name};

use crate::error;
use crate::pg;
use crate::settings::{Keeping, OnError};
use crate::stamp::stamped;
use crate::system;

/// One state of the catalog; a plain value that sessions plan against. Only the loop publishes a new one.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Rises with every change.
    pub version: u64,
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    /// The numbers by which PostgreSQL's clients know objects, each as long as the object is there.
    oids: BTreeMap<Arc<str>, i64>,
    /// How many objects were made.
    made: i64,
    /// The columns of the late rows of queries whose windows close.
    late: BTreeMap<Arc<str>, SchemaRef>,
    /// What each object is called, for operators that go by its watermark.
    called: BTreeMap<Arc<str>, Called>,
    /// The names under which objects were made that have another one since, by the one that they have.
    made_as: BTreeMap<Arc<str>, Arc<str>>,
}

/// Where the numbers of objects begin, as in PostgreSQL.
const FIRST_OID: i64 = 16_384;

/// How many numbers an object has, for what belongs to it: its type of rows, its key.
const OIDS_EACH: i64 = 8;

/// Something that a CREATE statement made.
#[derive(Debug)]
pub struct Object {
    /// Its name.
    pub name: Arc<str>,
    /// The statement that made it.
    pub ddl: String,
    /// The objects it was made of.
    pub reads: Vec<Arc<str>>,
    /// What it is.
    pub definition: Definition,
}

/// What an object is.
#[derive(Clone)]
pub enum Definition {
    /// Rows from outside.
    Source {
        /// Its columns, hidden ones last.
        schema: SchemaRef,
        /// What opens it.
        connector: Arc<dyn Connector>,
        /// With what.
        spec: SourceSpec,
        /// Its option `source_rate_limit`; without it, the setting counts.
        rate_limit: Option<f64>,
        /// For how long it keeps its rows, where it does.
        retention: Option<Duration>,
        /// How far event time has come, where that is declared.
        watermark: Option<Watermark>,
        /// Its option `source_idle_timeout`; without it, the setting counts.
        idle_timeout: Option<Duration>,
    },
    /// Rows kept whole, the target of DML.
    Table {
        /// Its columns.
        schema: SchemaRef,
        /// Its primary key's columns; empty without one.
        key: Vec<usize>,
        /// How it takes rows.
        intake: Intake,
        /// How far event time has come, where that is declared.
        watermark: Option<Watermark>,
    },
    /// A named query.
    View {
        /// Its plan before analysis.
        raw: LogicalPlan,
        /// Its columns.
        schema: SchemaRef,
    },
    /// A query that is maintained.
    MaterializedView {
        /// Its optimised plan.
        plan: LogicalPlan,
        /// Whether its windows are put out when they close.
        on_close: bool,
        /// Its columns.
        schema: SchemaRef,
        /// Its option `on_error`; without it, the setting counts that is in force when it is made.
        on_error: Option<OnError>,
        /// Its options `state_ttl` and `allowed_lateness`; the same.
        keeping: Keeping,
    },
    /// A query that is maintained, of which the newest rows are kept where they only come.
    Stream {
        /// What it runs.
        query: Runs,
        /// Its columns.
        schema: SchemaRef,
        /// Its option `on_error`; without it, the setting counts that is in force when it is made.
        on_error: Option<OnError>,
        /// Its options `state_ttl` and `allowed_lateness`; the same.
        keeping: Keeping,
        /// For how long rows are kept that only come.
        retention: Duration,
    },
    /// Delivery to the outside.
    Sink {
        /// The relation it delivers; a sink over a query has one of its own name.
        from: Arc<str>,
        /// The query of CREATE SINK … AS.
        query: Option<Runs>,
        /// What opens it.
        connector: Arc<dyn Connector>,
        /// With what; whether the relation only appends and its key are set when it is opened.
        spec: SinkSpec,
    },
    /// Delivery into a table.
    SinkInto {
        /// The table.
        table: Arc<str>,
        /// The optimised plan of the rows, which have the table's columns.
        query: LogicalPlan,
    },
    /// What a relation holds and how it changes, kept for a reader until he has it.
    Subscription {
        /// The relation.
        from: Arc<str>,
        /// How many columns of it: there may be more behind them.
        columns: usize,
        /// What is kept.
        holding: Holding,
    },
    /// A function written in SQL.
    Function(Arc<UserFunction>),
    /// An aggregate made of functions.
    Aggregate(Arc<UserAggregate>),
}

/// How a query runs.
#[derive(Clone)]
pub enum Runs {
    /// Its result is maintained.
    Maintained {
        /// Its optimised plan.
        plan: LogicalPlan,
        /// Whether its windows are put out when they close.
        on_close: bool,
    },
    /// It is run once per batch.
    EachBatch(Box<BatchQuery>),
}

/// How a table takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// Whether rows stay: there is no UPDATE and no DELETE.
    pub append_only: bool,
    /// What becomes of a row whose key is there already, where the statement says nothing else.
    pub on_conflict: Conflict,
}

/// What a durable subscription keeps for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whether the first that the reader gets is what the relation holds when the subscription is made.
    pub snapshot: bool,
    /// For how long, by batch time; `None`: until the reader has it.
    pub retention: Option<Duration>,
    /// How many bytes at most, about.
    pub buffer_max: usize,
    /// What becomes of more.
    pub when_full: WhenFull,
}

/// What becomes of changes that a durable subscription has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest go, and the reader is told.
    Lose,
    /// They don't come: what the relation is made of takes no more rows.
    Wait,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { append_only: false, on_conflict: Conflict::Replace }
    }
}

impl Definition {
    /// What it is called in messages and in SHOW.
    pub fn kind(&self) -> &'static str {
        match self {
            Definition::Source { .. } => "source",
            Definition::Table { .. } => "table",
            Definition::View { .. } => "view",
            Definition::MaterializedView { .. } => "materialized view",
            Definition::Stream { .. } => "stream",
            Definition::Sink { .. } | Definition::SinkInto { .. } => "sink",
            Definition::Subscription { .. } => "subscription",
            Definition::Function(_) => "function",
            Definition::Aggregate(_) => "aggregate",
        }
    }

    /// The columns, where it has rows that a query may read.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self {
            Definition::Source { schema, .. }
            | Definition::Table { schema, .. }
            | Definition::View { schema, .. }
            | Definition::MaterializedView { schema, .. }
            | Definition::Stream { schema, .. } => Some(schema),
            Definition::Sink { .. }
            | Definition::SinkInto { .. }
            | Definition::Subscription { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_) => None,
        }
    }

    /// Of which column it has a watermark, where one is declared.
    pub fn watermark(&self) -> Option<Watermark> {
        match self {
            Definition::Source { watermark, .. } | Definition::Table { watermark, .. } => *watermark,
            _ => None,
        }
    }

    /// The columns with those of the batch, where rows have one.
    pub fn stamped(&self) -> Option<SchemaRef> {
        match self {
            Definition::Source { schema, .. } | Definition::Stream { schema, .. } => Some(stamped(schema)),
            _ => None,
        }
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Catalog {
    /// The columns of a relation of dead letters, which queries that are maintained can read.
    pub(crate) fn dead_letters(&self, relation: &str) -> Option<SchemaRef> {
        if let Some(source) = bad_rows_of(relation) {
            let is_source = matches!(self.find(source)?.definition, Definition::Source { .. });
            return is_source.then(bad_rows_schema);
        }
        if let Some(query) = late_rows_of(relation) {
            return self.late.get(query).cloned();
        }
        let is_one = matches!(relation, ALL_BAD_ROWS | ALL_LATE_ROWS);
        Some(system::find(system::table_name(relation).filter(|_| is_one)?)?.schema())
    }

    /// The object of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(name)
    }

    /// The object of this name, or an error with near names.
    pub fn get(&self, name: &str) -> Result<&Arc<Object>> {
        self.find(name).ok_or_else(|| {
            if let Some(routine) = name.strip_suffix("()") {
                let names = self.routine_names();
                return Error::invalid(format!("there is no function or aggregate \"{routine}\""))
                    .maybe_hint(near::did_you_mean(routine, names.iter().map(String::as_str)));
            }
            let names = self.objects.keys().map(AsRef::as_ref);
            Error::invalid(format!("there is no relation \"{name}\""))
                .maybe_hint(near::did_you_mean(name, names))
        })
    }

    /// All objects in the order of their names.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Adds an object; its name must be free.
    pub fn add(&mut self, object: Arc<Object>) -> Result<()> {
        if let Some(old) = self.find(&object.name) {
            return Err(Error::invalid(format!("{} \"{}\" already exists", old.definition.kind(), old.name))
                .hint("Drop it first, choose another name, or say IF NOT EXISTS."));
        }
        self.version += 1;
        self.oids.insert(object.name.clone(), FIRST_OID + self.made * OIDS_EACH);
        self.made += 1;
        self.called.insert(object.name.clone(), Called::new(object.name.clone()));
        self.objects.insert(object.name.clone(), object);
        Ok(())
    }

    /// Puts an object in the place of that of its name.
    pub fn replace(&mut self, object: Arc<Object>) {
        self.version += 1;
        self.late.remove(&object.name);
        self.objects.insert(object.name.clone(), object);
    }

    /// Removes an object; the caller removes those that read it as well.
    pub fn remove(&mut self, name: &str) {
        self.version += 1;
        self.objects.remove(name);
        self.oids.remove(name);
        self.late.remove(name);
        self.called.remove(name);
        self.made_as.remove(name);
    }

    /// The columns of a query's late rows, where its windows close.
    pub(crate) fn late_columns(&self, name: &str) -> Option<&SchemaRef> {
        self.late.get(name)
    }

    /// Remembers the columns of a query's late rows.
    pub(crate) fn keep_late(&mut self, name: Arc<str>, schema: SchemaRef) {
        self.late.insert(name, schema);
    }

    /// The number of the object of this name; those up to the next object's are for what belongs to it.
    pub(crate) fn oid(&self, name: &str) -> i64 {
        self.oids.get(name).copied().unwrap_or(0)
    }

    /// The numbers of the objects, by which clients may still know them after a start.
    pub(crate) fn save(&self) -> Tables {
        let mut all = Tables::default();
        all.put_number("made", self.made);
        self.oids.iter().for_each(|(name, oid)| all.put_number(&format!("oid.{name}"), *oid));
        all
    }

    /// Gives the same objects the numbers that were saved.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.made = all.take_number("made").map_err(error::state)?;
        for (name, oid) in &mut self.oids {
            *oid = all.take_number(&format!("oid.{name}")).map_err(error::state)?;
        }
        Ok(())
    }

    /// The objects that read `name`, directly or through others, nearest first.
    pub fn dependants(&self, name: &str) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = Vec::new();
        let mut rest = vec![Arc::<str>::from(name)];
        while let Some(name) = rest.pop() {
            for object in self.objects.values().filter(|object| object.reads.contains(&name)) {
                if !found.contains(&object.name) {
                    found.push(object.name.clone());
                    rest.push(object.name.clone());
                }
            }
        }
        found
    }
}

/// The internal name under which a source's bad rows are read.
pub fn bad_rows_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("bad_rows('")?.strip_suffix("')")
}

/// The query whose late rows are read under an internal name.
pub fn late_rows_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("late_rows('")?.strip_suffix("')")
}

/// The bad rows of all sources, and the late rows of all queries.
pub const ALL_BAD_ROWS: &str = "millstream.bad_rows";
pub const ALL_LATE_ROWS: &str = "millstream.late_rows";

/// The internal name of a source's bad rows.
pub(crate) fn bad_rows_name(source: &str) -> String {
    format!("bad_rows('{source}')")
}

/// The internal name of a query's late rows.
pub(crate) fn late_rows_name(query: &str) -> String {
    format!("late_rows('{query}')")
}

/// Returns the objects that a query depends on by the names it reads; the relation of an object's dead letters counts as
/// the object.
pub(crate) fn reads_of<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<Arc<str>> {
    let mut reads: Vec<Arc<str>> = Vec::new();
    for name in names {
        let name = bad_rows_of(name).or(late_rows_of(name)).unwrap_or(name);
        if !reads.iter().any(|read| read.as_ref() == name) {
            reads.push(name.into());
        }
    }
    reads
}

/// The relation and the moment that are read under an internal name.
pub fn as_of(relation: &str) -> Option<(String, Moment)> {
    let (name, moment) =
        relation.strip_prefix(AS_OF)?.strip_prefix("('")?.strip_suffix("')")?.rsplit_once("', '")?;
    let (name, kind) = name.rsplit_once("', '")?;
    Some((name.replace("''", "'"), Moment::read(kind, moment)?))
}

/// The internal name under which a relation's watermark is read.
pub fn watermark_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("watermark('")?.strip_suffix("')")
}

/// The column of `watermark('relation')`, of the type of the relation's own.
pub fn watermark_schema(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("watermark", data_type.clone(), true)]))
}

/// Whether a relation is there for a SELECT that runs once alone: it tells of the engine, not of its input.
pub fn is_of_engine(relation: &str) -> bool {
    if matches!(relation, ALL_BAD_ROWS | ALL_LATE_ROWS) {
        return false;
    }
    watermark_of(relation).is_some()
        || as_of(relation).is_some()
        || system::is_name(relation)
        || pg::is_name(relation)
}

/// The columns of `bad_rows('source')`.
pub fn bad_rows_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("split", DataType::Utf8View, false),
        Field::new("position", DataType::Int64, false),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("bytes", DataType::BinaryView, false),
    ]))
}

/// The first columns of a schema.
pub(crate) fn first_columns(schema: &SchemaRef, count: usize) -> SchemaRef {
    if count >= schema.fields().len() {
        return schema.clone();
    }
    let fields: Vec<_> = schema.fields().iter().take(count).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

impl Relations for Catalog {
    fn get(&self, name: &str) -> Option<Relation> {
        let object = self.find(name)?;
        let rows =
            |schema: &SchemaRef, key: Option<Vec<usize>>| Relation::Rows { schema: schema.clone(), key };
        match &object.definition {
            Definition::Source { schema, spec, .. } => {
                Some(rows(&stamped(schema), (!spec.key.is_empty()).then(|| spec.key.clone())))
            }
            Definition::Stream { schema, .. } => Some(rows(&stamped(schema), None)),
            Definition::MaterializedView { schema, .. } => Some(rows(schema, None)),
            Definition::Table { schema, key, .. } => {
                Some(rows(schema, (!key.is_empty()).then(|| key.clone())))
            }
            Definition::View { raw, .. } => Some(Relation::View(raw.clone())),
            Definition::Sink { .. }
            | Definition::SinkInto { .. }
            | Definition::Subscription { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_) => None,
        }
    }

    fn names(&self) -> Vec<String> {
        let relations = self.objects.values().filter(|object| object.definition.schema().is_some());
        relations.map(|object| object.name.to_string()).collect()
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        Some(self.find(name)?.definition.watermark()?.column)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        let schema = match schema {
            SYSTEM_SCHEMA => system::find(name)?.schema(),
            other => pg::layout::find(other, name)?.schema.clone(),
        };
        Some(Relation::Rows { schema, key: None })
    }

    fn system_names(&self, schema: &str) -> Vec<String> {
        match schema {
            SYSTEM_SCHEMA => system::TABLES.iter().map(|table| table.name.to_string()).collect(),
            other => {
                let tables = pg::layout::all().filter(|layout| layout.namespace == other);
                tables.map(|layout| layout.name.to_string()).collect()
            }
        }
    }

    fn is_scalar(&self, name: &str) -> bool {
        pg::is_function(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        match name {
            "bad_rows" => self.bad_rows(arguments).map(Some),
            "late_rows" => self.late_rows(arguments).map(Some),
            "watermark" => self.watermark(arguments).map(Some),
            AS_OF => self.as_of(arguments).map(Some),
            _ => Ok(None),
        }
    }

    fn routine(&self, name: &str) -> Option<Routine> {
        match &self.find(&routine_name(name))?.definition {
            Definition::Function(function) => Some(Routine::Function(function.clone())),
            Definition::Aggregate(aggregate) => Some(Routine::Aggregate(aggregate.clone())),
            _ => None,
        }
    }

    fn routine_names(&self) -> Vec<String> {
        let routines = self.routines().filter_map(|object| object.name.strip_suffix("()"));
        routines.map(str::to_string).collect()
    }
}

impl Catalog {
    /// Users' functions and aggregates in the order of their names.
    pub fn routines(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects()
            .filter(|object| matches!(object.definition, Definition::Function(_) | Definition::Aggregate(_)))
    }
}
