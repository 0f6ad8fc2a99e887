//! The relations that a query may name. They have schemas to plan against, but no rows.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Constraint, Constraints};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast::ObjectName;
use millstream_delta::declared_type;

use crate::declared_types::Declared;
use crate::error::{Error, Result};
use crate::functions::quote_ident;
use crate::hidden_columns::fold;
use crate::routines::Routine;
use crate::suggestion;
use crate::tree_rewrite::TreeRewrite;

/// The schema of the engine's system tables.
pub const SYSTEM_SCHEMA: &str = "millstream";

/// The schemas of system tables: the engine's own, and those that PostgreSQL's clients inspect.
pub const SYSTEM_SCHEMAS: [&str; 3] = [SYSTEM_SCHEMA, PG_CATALOG, INFORMATION_SCHEMA];

/// PostgreSQL's own schema, whose tables and functions need no qualifier.
pub const PG_CATALOG: &str = "pg_catalog";

/// The information schema of the SQL standard.
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// The schema of relations whose names need no qualifier.
pub const PUBLIC: &str = "public";

/// The planner's view of the catalog. Names are plain: folded or as they were quoted.
pub trait Relations: Send + Sync {
    /// Returns the relation of this name.
    fn get(&self, name: &str) -> Option<Relation>;

    /// Returns all names, for hints; of one of [`SYSTEM_SCHEMAS`], those of its tables.
    fn names(&self, schema: Option<&str>) -> Vec<String>;

    /// Returns the schemas, and the path on which names without one are looked up.
    fn path(&self) -> Option<&dyn SearchPath> {
        None
    }

    /// Returns the table of this name in one of [`SYSTEM_SCHEMAS`]. Its scans are bound by the qualified
    /// name, `millstream.errors`.
    fn system(&self, _schema: &str, _name: &str) -> Option<Relation> {
        None
    }

    /// Returns a function that reads the catalog or the session, such as `pg_table_is_visible`. Returns none
    /// for a continuous query.
    fn scalar(&self, _name: &str) -> Option<Arc<ScalarUDF>> {
        None
    }

    /// True if a query that runs once could call such a function by this name.
    fn is_scalar(&self, _name: &str) -> bool {
        false
    }

    /// Returns the column of a relation that has a watermark: its event time.
    fn event_time(&self, _name: &str) -> Option<usize> {
        None
    }

    /// Returns the values that an INSERT gives to columns it doesn't name, by column name.
    fn defaults(&self, _name: &str) -> Vec<(String, Expr)> {
        Vec::new()
    }

    /// Returns the relation of one of the engine's table functions with literal arguments:
    /// `bad_rows('orders')`. Returns none for a function that isn't the engine's, and an error for wrong
    /// arguments. Scans of the relation are bound by the call's text, `bad_rows('orders')`.
    fn function(&self, _name: &str, _arguments: &[String]) -> Result<Option<Relation>> {
        Ok(None)
    }

    /// Returns the user-defined functions and aggregates.
    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        &NoRoutines
    }
}

/// The relations that names without a schema stand for.
pub trait SearchPath: fmt::Debug + Send + Sync {
    /// Returns the name in the catalog of the relation that a name without a schema stands for; `None` if they are the same.
    fn find(&self, name: &str) -> Option<String>;

    /// Returns the name in the catalog of a relation that is to be created.
    fn place(&self, name: &str) -> String;

    /// Returns the schema that another name stands for: `pg_temp`, that of the session's temporary relations.
    fn alias(&self, _schema: &str) -> Option<String> {
        None
    }

    /// Returns the schemas that CREATE SCHEMA made.
    fn schemas(&self) -> Vec<String>;
}

/// The user-defined functions and aggregates that a query may call.
pub trait RoutineCatalog: Send + Sync {
    /// Returns the one of this name.
    fn routine(&self, name: &str) -> Option<Routine>;

    /// Returns all names, for hints.
    fn routine_names(&self) -> Vec<String>;
}

/// Returns the name of a relation in a catalog: `t` in the schema `public`, `s.t` in another one.
pub fn name_in(schema: &str, relation: &str) -> String {
    if schema == PUBLIC { relation.into() } else { format!("{schema}.{relation}") }
}

/// Splits the name of a relation in a catalog into its schema and the rest. A name with a dot may also be one of the schema
/// `public`, if no schema has the name before the dot.
pub fn split_schema(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').filter(|(schema, relation)| !schema.is_empty() && !relation.is_empty())
}

/// Returns the name of a relation in SQL's spelling: `t`, `s.t`, `"S".t`.
pub fn relation_ident(name: &str) -> String {
    match split_schema(name) {
        Some((schema, relation)) => format!("{}.{}", quote_ident(schema), quote_ident(relation)),
        None => quote_ident(name),
    }
}

/// Returns the same with the schema in any case, for a statement that may run on any search path.
pub fn qualified_ident(name: &str) -> String {
    match split_schema(name) {
        Some(_) => relation_ident(name),
        None => format!("{PUBLIC}.{}", quote_ident(name)),
    }
}

/// Returns the name that a relation has in the catalog, from its name in a statement: the search path finds a single name, and
/// of three parts the first is the database.
pub(crate) fn catalog_name(name: &ObjectName, relations: &dyn Relations) -> Option<String> {
    let mut parts = name.0.iter().rev().map(|part| part.as_ident().map(fold));
    let relation = parts.next()??;
    match parts.next() {
        None => Some(on_path(&relation, relations).unwrap_or(relation)),
        Some(schema) => Some(name_on(relations.path(), &schema?, &relation)),
    }
}

/// Returns the name in the catalog of a relation of a schema, which may be `pg_temp`.
pub(crate) fn name_on(path: Option<&dyn SearchPath>, schema: &str, relation: &str) -> String {
    let alias = path.and_then(|path| path.alias(schema));
    name_in(alias.as_deref().unwrap_or(schema), relation)
}

/// Returns the relation that the search path finds under a name.
pub(crate) fn on_path(name: &str, relations: &dyn Relations) -> Option<String> {
    relations.path()?.find(name)
}

/// Returns the parts of a relation's name in the catalog: its schema and its name there.
pub(crate) fn parts_of<'a>(name: &'a str, relations: &dyn Relations) -> (&'a str, &'a str) {
    let is_known = |schema: &str| {
        relations.path().is_some_and(|path| path.schemas().iter().any(|known| known == schema))
    };
    split_schema(name).filter(|(schema, _)| is_known(schema)).unwrap_or((PUBLIC, name))
}

/// Returns the error for a schema that there is not.
pub fn unknown_schema(schema: &str, mut known: Vec<String>) -> Error {
    known.splice(0..0, [PUBLIC].iter().chain(&SYSTEM_SCHEMAS).map(ToString::to_string));
    Error::invalid(format!("schema \"{schema}\" not found")).maybe_hint(suggestion::hint(
        schema,
        "schemas",
        known.iter().map(String::as_str),
    ))
}

/// A catalog without user-defined functions.
struct NoRoutines;

impl RoutineCatalog for NoRoutines {
    fn routine(&self, _name: &str) -> Option<Routine> {
        None
    }

    fn routine_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A catalog of one relation without a key, over whose columns an expression is planned.
pub(crate) struct OneRelation {
    pub(crate) name: &'static str,
    pub(crate) schema: SchemaRef,
}

impl Relations for OneRelation {
    fn get(&self, name: &str) -> Option<Relation> {
        (name == self.name).then(|| Relation::Rows { schema: Arc::clone(&self.schema), key: None })
    }

    fn names(&self, _schema: Option<&str>) -> Vec<String> {
        Vec::new()
    }
}

/// A relation as a query sees it.
#[derive(Debug, Clone)]
pub enum Relation {
    /// A relation with rows. Its scans contain a [`RelationTable`]. Hidden columns come last, see
    /// [`crate::hidden_columns`].
    Rows {
        /// All columns, hidden ones included.
        schema: SchemaRef,
        /// A unique key. Only a key that intake enforces may be given: the optimizer relies on it.
        key: Option<Vec<usize>>,
    },
    /// A view: the `raw` plan of a [`crate::Query`], not analysed, so the rules see the whole query at once.
    View(LogicalPlan),
    /// A table whose rows a query reads from outside: files. Only a query that runs once has such relations.
    Provided(Arc<dyn TableProvider>),
}

/// A table that only has a schema. Code that executes a plan replaces it, see [`bind`].
pub struct RelationTable {
    name: String,
    schema: SchemaRef,
    constraints: Option<Constraints>,
    /// The name of the column that has a watermark.
    event_time: Option<String>,
    /// The declared types of columns whose Arrow types say less; empty if no column has one.
    declared: Declared,
    /// The values that an INSERT gives to columns it doesn't name.
    defaults: Vec<(String, Expr)>,
}

impl RelationTable {
    pub(crate) fn new(name: String, schema: SchemaRef, key: Option<Vec<usize>>) -> RelationTable {
        let constraints = key
            .filter(|key| !key.is_empty())
            .map(|key| Constraints::new_unverified(vec![Constraint::PrimaryKey(key)]));
        RelationTable {
            name,
            schema,
            constraints,
            event_time: None,
            declared: Vec::new(),
            defaults: Vec::new(),
        }
    }

    /// Creates the table as it was when the stored plan was made.
    pub(crate) fn stored(
        name: String,
        schema: SchemaRef,
        constraints: Option<Vec<Constraint>>,
        event_time: Option<String>,
        declared: Declared,
    ) -> RelationTable {
        let constraints = constraints.map(Constraints::new_unverified);
        RelationTable { name, schema, constraints, event_time, declared, defaults: Vec::new() }
    }

    /// Adds the declared types of its columns.
    pub(crate) fn with_declared(self, columns: &SchemaRef) -> RelationTable {
        let spelling = |field: &Arc<Field>| declared_type(field).map(Arc::from);
        let declared: Declared = columns.fields().iter().map(spelling).collect();
        if declared.iter().all(Option::is_none) { self } else { RelationTable { declared, ..self } }
    }

    /// Adds the column that has a watermark.
    pub(crate) fn with_event_time(self, event_time: Option<String>) -> RelationTable {
        RelationTable { event_time, ..self }
    }

    /// Adds the values that an INSERT gives to columns it doesn't name.
    pub(crate) fn with_defaults(self, defaults: Vec<(String, Expr)>) -> RelationTable {
        RelationTable { defaults, ..self }
    }

    pub(crate) fn event_time(&self) -> Option<&str> {
        self.event_time.as_deref()
    }

    pub(crate) fn declared(&self) -> &[Option<Arc<str>>] {
        &self.declared
    }

    /// Returns the same relation under its current name.
    pub(crate) fn called(&self, name: String) -> RelationTable {
        RelationTable {
            name,
            schema: self.schema.clone(),
            constraints: self.constraints.clone(),
            event_time: self.event_time.clone(),
            declared: self.declared.clone(),
            defaults: self.defaults.clone(),
        }
    }

    /// The relation's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns that can be named. A hidden column is among them only if the query names it.
    pub fn columns(&self) -> &SchemaRef {
        &self.schema
    }
}

impl fmt::Debug for RelationTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationTable({})", self.name)
    }
}

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.constraints.as_ref()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Err(Error::bug(format!("relation \"{}\" was to be scanned before it was bound", self.name)).into())
    }
}

/// Returns the relation that a scan reads; none for other scans (a work table, a generated series).
pub fn relation_of(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    let provider = source_as_provider(&scan.source).ok()?;
    is_relation(provider.as_ref()).then_some(provider)
}

/// True if a plan scans a provider that passes the test, also within subqueries.
pub fn scans(plan: &LogicalPlan, test: &dyn Fn(&dyn TableProvider) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
        {
            found |= test(provider.as_ref());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn is_relation(provider: &dyn TableProvider) -> bool {
    (provider as &dyn Any).is::<RelationTable>()
}

/// Returns the provider of a relation, given its name and the columns that the plan uses.
pub type Provide<'a> = dyn FnMut(&str, &SchemaRef) -> Result<Arc<dyn TableProvider>> + 'a;

/// Replaces the provider of every scan of a relation, also within subqueries. `f` returns the new provider
/// for a name and the columns that the plan knows it by.
pub fn bind(plan: LogicalPlan, f: &mut Provide<'_>) -> Result<LogicalPlan> {
    let bound = plan.rewrite_up(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = (provider.as_ref() as &dyn Any).downcast_ref::<RelationTable>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        scan.source = provider_as_source(f(&table.name, &table.schema)?);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(bound.data)
}
