//! Answers DataFusion's planner about tables and functions.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result as PlanResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::var_provider::{VarType, is_system_variables};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use millstream_delta::{declared_type, default_of, generated_of};

use crate::error::{Error, Result};
use crate::event_time::TimeWindows;
use crate::functions::either;
use crate::functions::json::build;
use crate::functions::marks::{Mark, overloaded};
use crate::functions::read_text::ReadText;
use crate::hidden_columns;
use crate::relation::{
    PG_CATALOG, Relation, RelationTable, Relations, SYSTEM_SCHEMAS, SearchPath, name_on, on_path,
    split_schema, unknown_schema,
};
use crate::routines::{Routine, UpdateState, folding_function, routine_name};
use crate::suggestion;
use crate::system_time::AS_OF;
use crate::time_joins::TimeJoins;
use crate::type_names::Checked;
use crate::using_joins::MergedColumns;

/// Functions that are written without parentheses, like a column. A column of that name takes precedence.
const WORDS: &[&str] = &["user", "current_user", "session_user", "current_role", "current_catalog"];

/// The table functions whose first argument is the name of a relation.
const OVER_RELATIONS: [&str; 4] = ["bad_rows", "late_rows", "watermark", AS_OF];

/// The functions and settings of a session, and the relations of the engine.
pub(crate) struct Context<'a> {
    state: &'a SessionState,
    /// The value of `now()`.
    now: Option<DateTime<Utc>>,
    type_planner: Arc<dyn TypePlanner>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    relations: &'a dyn Relations,
    /// The hidden columns that the query names. Such columns are then ordinary ones.
    shown: &'a [String],
    reads: Mutex<BTreeSet<String>>,
    /// The [`WORDS`] that are columns of a relation found so far.
    columns: Mutex<BTreeSet<&'static str>>,
    /// A more precise error for a failed lookup than "not found".
    wrong: Mutex<Option<Error>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        state: &'a SessionState,
        type_planner: Arc<dyn TypePlanner>,
        relations: &'a dyn Relations,
        shown: &'a [String],
    ) -> Context<'a> {
        let merged: Arc<dyn RelationPlanner> = Arc::new(MergedColumns::default());
        let others = state.relation_planners().iter().cloned();
        let relation_planners =
            [merged, Arc::new(TimeJoins), Arc::new(TimeWindows)].into_iter().chain(others).collect();
        Context {
            state,
            now: None,
            type_planner,
            relation_planners,
            relations,
            shown,
            reads: Mutex::default(),
            columns: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Sets the value of `now()`.
    pub(crate) fn at(self, now: Option<DateTime<Utc>>) -> Context<'a> {
        Context { now, ..self }
    }

    /// Adds a planner of relations, to be asked first.
    pub(crate) fn planned_by(mut self, planner: Arc<dyn RelationPlanner>) -> Context<'a> {
        self.relation_planners.insert(0, planner);
        self
    }

    /// Returns the names that were looked up and found.
    pub(crate) fn into_reads(self) -> Vec<String> {
        self.reads.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    /// Takes the error of a failed lookup.
    pub(crate) fn wrong(&self) -> Option<Error> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn source(&self, name: String, relation: Relation) -> Arc<dyn TableSource> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let source = match relation {
            Relation::Rows { schema, key } => {
                let event_time = self.relations.event_time(&name);
                let event_time = event_time.and_then(|at| schema.fields().get(at)).map(|f| f.name().clone());
                let defaults = self.relations.defaults(&name);
                let schema = hidden_columns::visible_schema(&schema, self.shown);
                let relation = RelationTable::new(name, undeclared(&schema), key).with_declared(&schema);
                let relation = relation.with_event_time(event_time).with_defaults(defaults);
                provider_as_source(Arc::new(relation))
            }
            Relation::Provided(provider) => provider_as_source(provider),
            Relation::View(plan) => provider_as_source(Arc::new(ViewTable::new(plan, None))),
        };
        let schema = source.schema();
        let columns = WORDS.iter().filter(|word| schema.column_with_name(word).is_some());
        self.columns.lock().unwrap_or_else(PoisonError::into_inner).extend(columns.copied());
        source
    }

    fn table(&self, name: &TableReference) -> Result<Arc<dyn TableSource>> {
        match name.schema() {
            // As in PostgreSQL, system tables come first.
            None if name.table().starts_with("pg_") => {
                if self.relations.system(PG_CATALOG, name.table()).is_some() {
                    return self.system_table(PG_CATALOG, name.table());
                }
            }
            None => {
                if let Some(found) = on_path(name.table(), self.relations) {
                    return self.relation(&found);
                }
            }
            Some(schema) if SYSTEM_SCHEMAS.contains(&schema) => {
                return self.system_table(schema, name.table());
            }
            Some(schema) => {
                return self.relation(&name_on(self.relations.path(), schema, name.table()));
            }
        }
        self.relation(name.table())
    }

    fn relation(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        match self.relations.get(name) {
            Some(relation) => Ok(self.source(name.to_string(), relation)),
            None => Err(unknown_relation(name, self.relations)),
        }
    }

    /// Returns the arguments of a table function. The first one of a function over a relation is looked up on the path.
    fn with_relation_found(&self, function: &str, mut arguments: Vec<String>) -> Vec<String> {
        if let Some(named) = arguments.first_mut().filter(|_| OVER_RELATIONS.contains(&function)) {
            match named.strip_prefix("public.") {
                Some(relation) => *named = relation.to_string(),
                None => *named = on_path(named, self.relations).unwrap_or_else(|| named.clone()),
            }
        }
        arguments
    }

    fn system_table(&self, schema: &str, name: &str) -> Result<Arc<dyn TableSource>> {
        let full = format!("{schema}.{name}");
        match self.relations.system(schema, name) {
            Some(relation) => Ok(self.source(full, relation)),
            None => {
                let names = self.relations.names(Some(schema));
                Err(Error::invalid(format!("relation \"{full}\" not found")).maybe_hint(suggestion::hint(
                    name,
                    "tables there",
                    names.iter().map(String::as_str),
                )))
            }
        }
    }

    /// Returns a user-defined function or aggregate, and adds it to the query's reads.
    fn routine(&self, name: &str) -> Option<Routine> {
        if self.state.window_functions().contains_key(name) {
            return None;
        }
        let found = self.relations.routine_catalog().routine(name)?;
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).insert(routine_name(name));
        Some(found)
    }

    /// Returns UPDATE_STATE's aggregate with this function. A lookup returns no error, so `wrong` keeps it.
    fn fold(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let made = match self.routine(name) {
            Some(Routine::Function(function)) if !function.returns_rows() => UpdateState::new(function),
            _ => {
                let names = self.relations.routine_catalog().routine_names();
                Err(Error::invalid(format!(
                    "UPDATE_STATE: there is no function \"{name}\" created by CREATE FUNCTION"
                ))
                .maybe_hint(suggestion::did_you_mean(name, names.iter().map(String::as_str))))
            }
        };
        match made {
            Ok(fold) => Some(Arc::new(AggregateUDF::new_from_impl(fold))),
            Err(error) => {
                self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        }
    }

    fn literal_arguments(&self, arguments: Vec<Expr>) -> PlanResult<Vec<Expr>> {
        let settings = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.now)
            .build();
        let simplifier = ExprSimplifier::new(settings);
        let schema = DFSchema::empty();
        let literal = |argument| simplifier.coerce(argument, &schema).and_then(|e| simplifier.simplify(e));
        arguments.into_iter().map(literal).collect()
    }
}

/// Returns the columns with Arrow's types alone: plans don't contain declared types. Columns of types such
/// as JSON stay marked for the functions that depend on it.
fn undeclared(schema: &SchemaRef) -> SchemaRef {
    let is_plain = |field: &FieldRef| {
        declared_type(field).is_none() && default_of(field).is_none() && generated_of(field).is_none()
    };
    if schema.fields().iter().all(is_plain) {
        return Arc::clone(schema);
    }
    let plain = |field: &Field| match Checked::declared(field) {
        Some(Checked::Marked(mark)) => mark.put(millstream_delta::undeclared(field)),
        Some(Checked::Bits(of)) => Mark::of_bits(of).put(millstream_delta::undeclared(field)),
        _ => millstream_delta::undeclared(field),
    };
    let fields: Vec<Field> = schema.fields().iter().map(|field| plain(field)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns the error `relation "x" not found`, with similar names.
pub(crate) fn unknown_relation(name: &str, relations: &dyn Relations) -> Error {
    let known = relations.path().map(SearchPath::schemas).unwrap_or_default();
    if let Some((schema, _)) = split_schema(name)
        && !SYSTEM_SCHEMAS.contains(&schema)
        && !known.iter().any(|known| known == schema)
    {
        return unknown_schema(schema, known);
    }
    let names = relations.names(None);
    Error::invalid(format!("relation \"{name}\" not found"))
        .maybe_hint(suggestion::did_you_mean(name, names.iter().map(String::as_str)))
}

/// Returns the name that a table function's relation is bound by: `bad_rows('orders')`.
pub(crate) fn function_relation_name(name: &str, arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|a| format!("'{}'", a.replace('\'', "''"))).collect();
    format!("{name}({})", quoted.join(", "))
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> PlanResult<Arc<dyn TableSource>> {
        Ok(self.table(&name)?)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> PlanResult<Arc<dyn TableSource>> {
        let args = self.literal_arguments(args)?;
        if let Some(Routine::Function(function)) = self.routine(name)
            && function.returns_rows()
        {
            return Ok(provider_as_source(Arc::new(ViewTable::new(function.rows_of(args)?, None))));
        }
        let texts: Option<Vec<String>> = args
            .iter()
            .map(|arg| match arg {
                Expr::Literal(value, _) => Some(value.to_string()),
                _ => None,
            })
            .collect();
        let texts = texts.map(|texts| self.with_relation_found(name, texts));
        if let Some(texts) = texts
            && let Some(relation) = self.relations.function(name, &texts)?
        {
            return Ok(self.source(function_relation_name(name, &texts), relation));
        }
        if name == AS_OF {
            return Err(Error::invalid(
                "FOR SYSTEM_TIME AS OF takes an epoch, or a time that doesn't depend on rows",
            )
            .hint("Write AS OF 17, AS OF '2026-01-02 03:04:05+00', or AS OF now() - INTERVAL '1 minute'.")
            .into());
        }
        let functions = self.state.table_functions();
        let Some(function) = functions.get(name) else {
            let names = functions.keys().map(String::as_str).chain([
                "bad_rows",
                "late_rows",
                "unnest",
                "read_csv",
                "read_json",
                "read_parquet",
            ]);
            return Err(Error::invalid(format!("table function \"{name}\" not found"))
                .maybe_hint(suggestion::did_you_mean(name, names))
                .into());
        };
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(arguments)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> PlanResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&self.type_planner))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // The engine's functions come first: DataFusion has a version() of its own.
        let is_column = || self.columns.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        if let Some(found) = self.relations.scalar(name)
            && !is_column()
        {
            return Some(found);
        }
        if let Some(found) = self.state.scalar_functions().get(name) {
            return Some(overloaded::written_instead(build::written_instead(found)));
        }
        if let Some(found) = build::unregistered(name).or_else(|| ReadText::of_type(name)) {
            return Some(found);
        }
        match self.routine(name)? {
            Routine::Function(function) if !function.returns_rows() => {
                Some(Arc::new(ScalarUDF::new_from_shared_impl(function)))
            }
            Routine::Function(_) | Routine::Aggregate(_) => None,
        }
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        if let Some(found) = self.state.aggregate_functions().get(name) {
            return Some(either::written_instead(found));
        }
        if let Some(function) = folding_function(name) {
            return self.fold(function);
        }
        match self.routine(name)? {
            Routine::Aggregate(aggregate) => Some(Arc::new(AggregateUDF::new_from_shared_impl(aggregate))),
            Routine::Function(_) => None,
        }
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, names: &[String]) -> Option<DataType> {
        let kind = match is_system_variables(names) {
            _ if names.is_empty() => return None,
            true => VarType::System,
            false => VarType::UserDefined,
        };
        self.state.execution_props().var_providers.as_ref()?.get(&kind)?.get_type(names)
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
