//! The objects by name, and their dependencies.

mod comments;
mod constraints;
mod functions;
mod relations;
mod renaming;
mod routines;
mod schemas;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use millstream_connect::{Connector, SinkSpec, SourceSpec};
use millstream_flow::Called;
use millstream_sql::routines::{UserAggregate, UserFunction};
use millstream_sql::{
    AS_OF, BatchQuery, Error, Result, RoutineCatalog, SequenceOptions, UserType, Watermark, suggestion,
};
use millstream_state::{Conflict, Tables};

pub use functions::Moment;
pub(crate) use renaming::{move_key, with_name, with_qualified_name};
pub(crate) use schemas::{schema_key, schema_of_key};

use crate::error;
use crate::pg;
use crate::sequences::SEQUENCE_COLUMNS;
use crate::settings::{IdleTimeoutAction, Keeping, OnError};
use crate::stamp::stamped;
use crate::system;

/// One version of the catalog: a plain value that sessions plan against. Only the loop publishes a new one.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The version, which rises with every change.
    pub version: u64,
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    /// The OIDs by which PostgreSQL's clients identify objects. An object keeps its OID while it exists.
    oids: BTreeMap<Arc<str>, i64>,
    /// The number of objects created so far.
    made: i64,
    /// The schemas of late rows, for queries whose windows close.
    late: BTreeMap<Arc<str>, SchemaRef>,
    /// The handle to each object's name, for operators that use its watermark.
    called: BTreeMap<Arc<str>, Called>,
    /// The names that renamed objects were created under, by their present name.
    made_as: BTreeMap<Arc<str>, Arc<str>>,
    comments: BTreeMap<comments::Subject, String>,
    /// The search path of the session that uses this copy; empty for `public` alone.
    path: Arc<[String]>,
}

/// The first OID of an object, as in PostgreSQL.
const FIRST_OID: i64 = 16_384;

/// The number of OIDs per object: its own, and those of its parts, such as its row type and its key.
const OIDS_EACH: i64 = 8;

/// An object created by a CREATE statement.
#[derive(Debug)]
pub struct Object {
    /// Its name.
    pub name: Arc<str>,
    /// The statement that created it.
    pub ddl: String,
    /// The objects that it reads.
    pub reads: Vec<Arc<str>>,
    /// Its definition.
    pub definition: Definition,
}

/// The definition of an object.
#[derive(Clone)]
pub enum Definition {
    /// A source.
    Source {
        /// Its columns, hidden ones last.
        schema: SchemaRef,
        /// The connector that opens it.
        connector: Arc<dyn Connector>,
        /// The arguments of the connector.
        spec: SourceSpec,
        /// Its option `source_rate_limit`; if absent, the setting applies.
        rate_limit: Option<f64>,
        /// The retention of its rows, if any.
        retention: Option<Duration>,
        /// Its declared watermark, if any.
        watermark: Option<Watermark>,
        /// Its option `source_idle_timeout`; if absent, the setting applies.
        idle_timeout: Option<Duration>,
        /// Its option `source_idle_timeout_action`; if absent, the setting applies.
        idle_action: Option<IdleTimeoutAction>,
        /// The rules for incoming rows, if CREATE TABLE made it: it keeps all rows, and is a table for its users.
        table: Option<Intake>,
    },
    /// A table, the target of DML.
    Table {
        /// Its columns.
        schema: SchemaRef,
        /// The columns of its primary key; empty if it has none.
        key: Vec<usize>,
        /// The rules for incoming rows.
        intake: Intake,
        /// Its declared watermark, if any.
        watermark: Option<Watermark>,
    },
    /// A named query.
    View {
        /// Its plan before analysis.
        raw: LogicalPlan,
        /// Its columns.
        schema: SchemaRef,
    },
    /// A materialized view.
    MaterializedView {
        /// Its optimized plan.
        plan: LogicalPlan,
        /// True if its windows emit when they close.
        on_close: bool,
        /// Its columns.
        schema: SchemaRef,
        /// Its option `on_error`; if absent, the setting at its creation applies.
        on_error: Option<OnError>,
        /// Its options `state_ttl` and `allowed_lateness`; if absent, the settings at its creation apply.
        keeping: Keeping,
    },
    /// A maintained query. If its result is append-only, the newest rows are kept.
    Stream {
        /// Its query.
        query: Runs,
        /// Its columns.
        schema: SchemaRef,
        /// Its option `on_error`; if absent, the setting at its creation applies.
        on_error: Option<OnError>,
        /// Its options `state_ttl` and `allowed_lateness`; if absent, the settings at its creation apply.
        keeping: Keeping,
        /// The retention of its rows, if it is append-only.
        retention: Duration,
    },
    /// A sink.
    Sink {
        /// The relation it delivers; a sink over a query uses a relation of its own name.
        from: Arc<str>,
        /// The query of CREATE SINK … AS.
        query: Option<Runs>,
        /// The connector that opens it.
        connector: Arc<dyn Connector>,
        /// The arguments of the connector. Opening the sink adds the relation's key, and if it is
        /// append-only.
        spec: SinkSpec,
    },
    /// A sink into a table.
    SinkInto {
        /// The table.
        table: Arc<str>,
        /// The optimized plan of its rows, which have the table's columns.
        query: LogicalPlan,
    },
    /// A durable subscription: the content of a relation and its changes, kept until the reader confirms
    /// them.
    Subscription {
        /// The relation.
        from: Arc<str>,
        /// The number of the relation's columns that it covers; later ones may follow.
        columns: usize,
        /// The rules for keeping changes.
        holding: Holding,
    },
    /// A function written in SQL.
    Function(Arc<UserFunction>),
    /// An aggregate made of functions.
    Aggregate(Arc<UserAggregate>),
    /// A schema.
    Schema,
    /// A sequence.
    Sequence(SequenceOptions),
    /// An enum or a domain.
    Type(UserType),
}

/// The way a query runs.
#[derive(Clone)]
pub enum Runs {
    /// The engine maintains its result.
    Maintained {
        /// Its optimized plan.
        plan: LogicalPlan,
        /// True if its windows emit when they close.
        on_close: bool,
    },
    /// It runs once per batch.
    EachBatch(Box<BatchQuery>),
}

/// The rules for rows that enter a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// True if rows stay: no UPDATE, no DELETE.
    pub append_only: bool,
    /// The default action for a row whose key exists, unless the statement has one.
    pub on_conflict: Conflict,
}

/// The rules for the changes that a durable subscription keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// True if the reader first gets the content of the relation as of the subscription's creation.
    pub snapshot: bool,
    /// The retention by batch time; `None`: until the reader confirms.
    pub retention: Option<Duration>,
    /// The approximate maximum of bytes.
    pub buffer_max: usize,
    /// The action when the buffer is full.
    pub when_full: WhenFull,
}

/// The action when a durable subscription's buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Drops the oldest changes and notifies the reader.
    Lose,
    /// Blocks further changes: the relation's inputs take no more rows.
    Wait,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { append_only: false, on_conflict: Conflict::Replace }
    }
}

impl Definition {
    /// Returns the kind of object, as messages and SHOW name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Definition::Source { table: None, .. } => "source",
            Definition::Source { table: Some(_), .. } | Definition::Table { .. } => "table",
            Definition::View { .. } => "view",
            Definition::MaterializedView { .. } => "materialized view",
            Definition::Stream { .. } => "stream",
            Definition::Sink { .. } | Definition::SinkInto { .. } => "sink",
            Definition::Subscription { .. } => "subscription",
            Definition::Function(_) => "function",
            Definition::Aggregate(_) => "aggregate",
            Definition::Schema => "schema",
            Definition::Sequence(_) => "sequence",
            Definition::Type(UserType::Enum(_) | UserType::Composite(_)) => "type",
            Definition::Type(UserType::Domain(_)) => "domain",
        }
    }

    /// Returns true if its name is one of a relation: in a schema, and without arguments.
    pub(crate) fn is_relation(&self) -> bool {
        !matches!(self, Definition::Function(_) | Definition::Aggregate(_) | Definition::Schema)
    }

    /// Returns the columns, if it has rows that a query may read.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self {
            Definition::Source { schema, .. }
            | Definition::Table { schema, .. }
            | Definition::View { schema, .. }
            | Definition::MaterializedView { schema, .. }
            | Definition::Stream { schema, .. } => Some(schema),
            Definition::Sequence(_) => Some(&SEQUENCE_COLUMNS),
            Definition::Sink { .. }
            | Definition::SinkInto { .. }
            | Definition::Subscription { .. }
            | Definition::Function(_)
            | Definition::Aggregate(_)
            | Definition::Schema
            | Definition::Type(_) => None,
        }
    }

    /// Returns the declared watermark, if any.
    pub fn watermark(&self) -> Option<&Watermark> {
        match self {
            Definition::Source { watermark, .. } | Definition::Table { watermark, .. } => watermark.as_ref(),
            _ => None,
        }
    }

    /// Returns the kind of object that its rows are from: a table with a connector is a source.
    pub fn base_kind(&self) -> &'static str {
        if self.is_source() { "source" } else { self.kind() }
    }

    /// Returns true if a connector brings its rows.
    pub fn is_source(&self) -> bool {
        matches!(self, Definition::Source { .. })
    }

    /// Returns true if its content can be read as of a moment in the past.
    pub fn keeps_content(&self) -> bool {
        match self {
            Definition::Source { spec, table, .. } => table.is_some() || !spec.key.is_empty(),
            Definition::Table { .. } | Definition::MaterializedView { .. } | Definition::Stream { .. } => {
                true
            }
            _ => false,
        }
    }

    /// Returns the columns including those of the batch, if its rows belong to one.
    pub fn stamped(&self) -> Option<SchemaRef> {
        match self {
            Definition::Source { schema, table: None, .. } | Definition::Stream { schema, .. } => {
                Some(stamped(schema))
            }
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
    /// Returns the columns of a relation of dead letters, which maintained queries can read.
    pub(crate) fn dead_letters(&self, relation: &str) -> Option<SchemaRef> {
        if let Some(source) = bad_rows_of(relation) {
            return self.find(source)?.definition.is_source().then(bad_rows_schema);
        }
        if let Some(query) = late_rows_of(relation) {
            return self.late.get(query).cloned();
        }
        let is_one = matches!(relation, ALL_BAD_ROWS | ALL_LATE_ROWS);
        Some(system::find(system::table_name(relation).filter(|_| is_one)?)?.schema())
    }

    /// Returns the object of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(name)
    }

    /// Returns the object of this name, or an error that suggests similar names.
    pub fn get(&self, name: &str) -> Result<&Arc<Object>> {
        self.find(name).ok_or_else(|| {
            if let Some(routine) = name.strip_suffix("()") {
                let names = self.routine_names();
                return Error::invalid(format!("there is no function or aggregate \"{routine}\""))
                    .maybe_hint(suggestion::did_you_mean(routine, names.iter().map(String::as_str)));
            }
            if let Some(error) = self.schemas().missing_in(name) {
                return error;
            }
            let names = self.objects.keys().map(AsRef::as_ref);
            Error::invalid(format!("there is no relation \"{name}\""))
                .maybe_hint(suggestion::did_you_mean(name, names))
        })
    }

    /// Returns all objects in the order of their names.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Adds an object. Fails if the name is taken.
    pub fn add(&mut self, object: Arc<Object>) -> Result<()> {
        if let Some(old) = self.find(&object.name) {
            return Err(Error::invalid(format!("{} \"{}\" already exists", old.definition.kind(), old.name))
                .hint("Drop it first, choose another name, or use IF NOT EXISTS."));
        }
        self.version += 1;
        self.oids.insert(object.name.clone(), FIRST_OID + self.made * OIDS_EACH);
        self.made += 1;
        self.called.insert(object.name.clone(), Called::new(object.name.clone()));
        self.objects.insert(object.name.clone(), object);
        Ok(())
    }

    /// Replaces the object of the same name.
    pub fn replace(&mut self, object: Arc<Object>) {
        self.version += 1;
        self.forget_column_comments(&object);
        self.late.remove(&object.name);
        self.objects.insert(object.name.clone(), object);
    }

    /// Removes an object. The caller also removes its dependants.
    pub fn remove(&mut self, name: &str) {
        self.version += 1;
        self.objects.remove(name);
        self.oids.remove(name);
        self.late.remove(name);
        self.called.remove(name);
        self.made_as.remove(name);
        self.forget_comments(name);
    }

    /// Returns the columns of a query's late rows, if its windows close.
    pub(crate) fn late_columns(&self, name: &str) -> Option<&SchemaRef> {
        self.late.get(name)
    }

    /// Stores the columns of a query's late rows.
    pub(crate) fn keep_late(&mut self, name: Arc<str>, schema: SchemaRef) {
        self.late.insert(name, schema);
    }

    /// Returns the OID of this object. The OIDs up to the next object's are for its parts.
    pub(crate) fn oid(&self, name: &str) -> i64 {
        self.oids.get(name).copied().unwrap_or(0)
    }

    /// Saves the OIDs of the objects, since clients may still use them after a restart.
    pub(crate) fn save(&self) -> Tables {
        let mut all = Tables::default();
        all.put_number("made", self.made);
        self.oids.iter().for_each(|(name, oid)| all.put_number(&format!("oid.{name}"), *oid));
        all
    }

    /// Restores the saved OIDs.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        self.made = all.take_number("made").map_err(error::state)?;
        for (name, oid) in &mut self.oids {
            *oid = all.take_number(&format!("oid.{name}")).map_err(error::state)?;
        }
        Ok(())
    }

    /// Returns the objects that read `name`, directly or through others, nearest first.
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

/// Returns the source whose bad rows are read under an internal name.
pub fn bad_rows_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("bad_rows('")?.strip_suffix("')")
}

/// Returns the query whose late rows are read under an internal name.
pub fn late_rows_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("late_rows('")?.strip_suffix("')")
}

/// The relations with the bad rows of all sources and with the late rows of all queries.
pub const ALL_BAD_ROWS: &str = "millstream.bad_rows";
pub const ALL_LATE_ROWS: &str = "millstream.late_rows";

/// Returns the internal name of a source's bad rows.
pub(crate) fn bad_rows_name(source: &str) -> String {
    format!("bad_rows('{source}')")
}

/// Returns the internal name of a query's late rows.
pub(crate) fn late_rows_name(query: &str) -> String {
    format!("late_rows('{query}')")
}

/// Returns the objects that a query depends on, given the names it reads. A relation of dead letters counts
/// as its object.
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

/// Returns the relation and the moment that are read under an internal name.
pub fn as_of(relation: &str) -> Option<(String, Moment)> {
    let (name, moment) =
        relation.strip_prefix(AS_OF)?.strip_prefix("('")?.strip_suffix("')")?.rsplit_once("', '")?;
    let (name, kind) = name.rsplit_once("', '")?;
    Some((name.replace("''", "'"), Moment::read(kind, moment)?))
}

/// Returns the relation whose watermark is read under an internal name.
pub fn watermark_of(relation: &str) -> Option<&str> {
    relation.strip_prefix("watermark('")?.strip_suffix("')")
}

/// Returns the schema of `watermark('relation')`: one column of the type of the watermark.
pub fn watermark_schema(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("watermark", data_type.clone(), true)]))
}

/// Returns true if only a one-time SELECT may read this relation. Such relations describe the engine, not its
/// input.
pub fn is_of_engine(relation: &str) -> bool {
    if matches!(relation, ALL_BAD_ROWS | ALL_LATE_ROWS) {
        return false;
    }
    watermark_of(relation).is_some()
        || as_of(relation).is_some()
        || system::is_name(relation)
        || pg::is_name(relation)
}

/// Returns the columns of `bad_rows('source')`.
pub fn bad_rows_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("split", DataType::Utf8View, false),
        Field::new("position", DataType::Int64, false),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("bytes", DataType::BinaryView, false),
    ]))
}

/// Returns the first `count` columns of a schema.
pub(crate) fn first_columns(schema: &SchemaRef, count: usize) -> SchemaRef {
    if count >= schema.fields().len() {
        return schema.clone();
    }
    let fields: Vec<_> = schema.fields().iter().take(count).cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns true if rows with the columns `known` may be those of a relation with the columns `now`: its first columns have the
/// same names and types.
pub(crate) fn begins_with(now: &Schema, known: &Schema) -> bool {
    let is_same = |(now, known): (&Arc<Field>, &Arc<Field>)| {
        now.name() == known.name() && now.data_type() == known.data_type()
    };
    now.fields().len() >= known.fields().len() && now.fields().iter().zip(known.fields()).all(is_same)
}
