//! The relations that a query may name: schemas to plan against, never rows.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Constraint, Constraints};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use millstream_delta::declared_type;

use crate::error::{Error, Result};
use crate::origin::Declared;
use crate::routines::Routine;

/// The schema of the tables in which an engine tells of itself.
pub const SYSTEM_SCHEMA: &str = "millstream";

/// The schemas of tables that are nobody's own: the engine's, and those by which PostgreSQL's clients look around.
pub const SYSTEM_SCHEMAS: [&str; 3] = [SYSTEM_SCHEMA, PG_CATALOG, INFORMATION_SCHEMA];

/// PostgreSQL's own schema, whose tables and functions need no schema before their names.
pub const PG_CATALOG: &str = "pg_catalog";

/// The schema of the SQL standard.
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// What is said where a schema isn't found.
pub(crate) const SCHEMAS_HINT: &str =
    "There are the schemas public, millstream, pg_catalog and information_schema.";

/// What the planner may ask about the relations there are. Names are plain: folded or as they were quoted.
pub trait Relations: Send + Sync {
    /// The relation of this name.
    fn get(&self, name: &str) -> Option<Relation>;

    /// All names, for hints.
    fn names(&self) -> Vec<String>;

    /// The table that is called so in one of [`SYSTEM_SCHEMAS`]. Scans of it are bound by the name with the schema,
    /// `millstream.errors`.
    fn system(&self, _schema: &str, _name: &str) -> Option<Relation> {
        None
    }

    /// The names in such a schema, for hints.
    fn system_names(&self, _schema: &str) -> Vec<String> {
        Vec::new()
    }

    /// A function that tells of the catalog and of the session: `pg_table_is_visible`. None in a query that is
    /// maintained.
    fn scalar(&self, _name: &str) -> Option<Arc<ScalarUDF>> {
        None
    }

    /// Whether a name is that of such a function, which a query that runs once could call.
    fn is_scalar(&self, _name: &str) -> bool {
        false
    }

    /// Which column of a relation has a watermark: when its rows became true.
    fn event_time(&self, _name: &str) -> Option<usize> {
        None
    }

    /// What an INSERT gives columns that it doesn't name, by their names.
    fn defaults(&self, _name: &str) -> Vec<(String, Expr)> {
        Vec::new()
    }

    /// The relation that a table function of the engine's gives for literal arguments: `bad_rows('orders')`. None
    /// for a function that isn't the engine's; what is wrong with the arguments is an error. Scans of it are bound
    /// by the call's text, `bad_rows('orders')`.
    fn function(&self, _name: &str, _arguments: &[String]) -> Result<Option<Relation>> {
        Ok(None)
    }

    /// The function or aggregate of a user's that is called so.
    fn routine(&self, _name: &str) -> Option<Routine> {
        None
    }

    /// The names of users' functions and aggregates, for hints.
    fn routine_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A relation as a query sees it.
#[derive(Debug, Clone)]
pub enum Relation {
    /// Rows of a schema; its scans carry a [`RelationTable`]. Hidden columns come last, see [`crate::hidden`].
    Rows {
        /// All columns, hidden ones included.
        schema: SchemaRef,
        /// Columns that no two rows share. Only what intake enforces: the optimizer relies on it.
        key: Option<Vec<usize>>,
    },
    /// A named query: the `raw` plan of a [`crate::Query`], not analysed, so that the rules see the whole query at
    /// once.
    View(LogicalPlan),
}

/// A table that only has a schema. Whoever executes a plan replaces it, see [`bind`].
pub struct RelationTable {
    name: String,
    schema: SchemaRef,
    constraints: Option<Constraints>,
    /// The name of the column that has a watermark.
    event_time: Option<String>,
    /// What its columns were declared as, where their types say less; empty where none was.
    declared: Declared,
    /// What an INSERT gives columns that it doesn't name.
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

    /// As it was when a plan was made of it.
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

    /// With what columns of it were declared as.
    pub(crate) fn with_declared(self, columns: &SchemaRef) -> RelationTable {
        let spelling = |field: &Arc<Field>| declared_type(field).map(Arc::from);
        let declared: Declared = columns.fields().iter().map(spelling).collect();
        if declared.iter().all(Option::is_none) { self } else { RelationTable { declared, ..self } }
    }

    /// With the column that has a watermark.
    pub(crate) fn with_event_time(self, event_time: Option<String>) -> RelationTable {
        RelationTable { event_time, ..self }
    }

    /// With what an INSERT gives columns that it doesn't name.
    pub(crate) fn with_defaults(self, defaults: Vec<(String, Expr)>) -> RelationTable {
        RelationTable { defaults, ..self }
    }

    pub(crate) fn event_time(&self) -> Option<&str> {
        self.event_time.as_deref()
    }

    pub(crate) fn declared(&self) -> &[Option<Arc<str>>] {
        &self.declared
    }

    /// The same relation by the name that it has by now.
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

    /// The columns that can be named: with hidden ones only where the query names one.
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

/// The relation that a scan reads; none for a scan of something else (a work table, a generated series).
pub fn relation_of(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    let provider = source_as_provider(&scan.source).ok()?;
    is_relation(provider.as_ref()).then_some(provider)
}

fn is_relation(provider: &dyn TableProvider) -> bool {
    (provider as &dyn Any).is::<RelationTable>()
}

/// Gives the provider of a relation by its name and the columns to show.
pub type Provide<'a> = dyn FnMut(&str, &SchemaRef) -> Result<Arc<dyn TableProvider>> + 'a;

/// Replaces the provider of every scan of a relation, within subqueries too, by the one that `f` gives for its name
/// and the columns that the plan knows it by.
pub fn bind(plan: LogicalPlan, f: &mut Provide<'_>) -> Result<LogicalPlan> {
    let bound = plan.transform_up_with_subqueries(|node| {
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
