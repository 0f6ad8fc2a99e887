//! Plans queries: text to a logical plan that is analysed, made deterministic and optimised.
//!
//! ```
//! # use millstream_sql::{Planner, Relation, Relations};
//! struct Nothing;
//! impl Relations for Nothing {
//!     fn get(&self, _name: &str) -> Option<Relation> { None }
//!     fn names(&self, _schema: Option<&str>) -> Vec<String> { Vec::new() }
//! }
//! let query = Planner::new().query("SELECT 1 + 1 AS two", &Nothing).unwrap();
//! assert_eq!(query.schema.field(0).name(), "two");
//! ```
//!
//! Deliberately absent: scans. A plan's leaves only have a schema until [`crate::bind`] gives them rows.

mod build;
mod names;
mod parser;
mod variants;

pub use build::planner_at;
pub use names::function_names;
pub(crate) use names::is_function;
pub use variants::replaying;

use parser::StatementParser;
use variants::StatementConfig;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, context::SessionContext};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{LogicalPlan, Projection};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query as QueryTree, Statement};

use crate::ast_rewrite;
use crate::ast_rewrite::multiranges;
use crate::compatibility_level::CompatibilityLevel;
use crate::complexity;
use crate::context::Context;
use crate::declared_types::{self, Declared};
use crate::error::{Error, Result};
use crate::functions::ranges::unnest;
use crate::hidden_columns;
use crate::output_names::OutputNames;
use crate::parameters::Parameters;
use crate::reader::TokenReader;
use crate::relation::Relations;
use crate::relation_keys::SoundRelations;
use crate::routines;
use crate::row_pattern::RowPatterns;
use crate::user_types::UserTypes;

/// A planned query.
#[derive(Debug, Clone)]
pub struct Query {
    /// The analysed and optimised plan, to be executed or maintained. It must not be optimised again: make it
    /// physical with [`Planner::physical`].
    pub plan: LogicalPlan,
    /// The plan as written, for views ([`crate::Relation::View`]) and [`Planner::continuous`].
    pub raw: LogicalPlan,
    /// The columns of the result, under the names that a batch query would give them.
    pub schema: SchemaRef,
    /// The sorted names of relations and views in the text. A relation may be among them if only a WITH query
    /// of its name is meant. A table function of the engine appears as its call: `bad_rows('orders')`.
    pub reads: Vec<String>,
    /// The column names that the query's text gives.
    pub(crate) names: OutputNames,
    /// The declared types of the columns.
    pub(crate) declared: Declared,
}

/// A plan as written, and the relations that it reads.
pub(crate) struct Raw {
    pub(crate) plan: LogicalPlan,
    pub(crate) reads: Vec<String>,
}

impl Query {
    /// True if the query ends with ORDER BY without LIMIT: a materialized result doesn't keep that order.
    pub fn is_ordered(&self) -> bool {
        let mut plan = &self.raw;
        while let LogicalPlan::Projection(Projection { input, .. }) = plan {
            plan = input;
        }
        matches!(plan, LogicalPlan::Sort(_))
    }

    /// Fails if two columns of the result have the same name: each column of a stored relation needs its own.
    pub fn check_names(&self) -> Result<()> {
        let mut seen = HashSet::new();
        match self.schema.fields().iter().find(|field| !seen.insert(field.name())) {
            None => Ok(()),
            Some(field) => {
                Err(Error::invalid(format!("column \"{}\" appears twice in the result", field.name()))
                    .hint("Name one of them with AS."))
            }
        }
    }
}

/// Plans queries with the functions and settings of one session. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    state: Arc<SessionState>,
    /// The same for plans with one partition, once there has been one.
    in_order: Arc<OnceLock<Arc<SessionState>>>,
    /// The value of `now()`; none if it stays a call.
    now: Option<DateTime<Utc>>,
    type_planner: Arc<dyn TypePlanner>,
    analyzer: Arc<Analyzer>,
    parameters: Option<Arc<Parameters>>,
    pub(crate) parser: StatementParser,
    pub(crate) types: Arc<UserTypes>,
    /// The meaning that SQL has.
    pub(crate) level: CompatibilityLevel,
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planner").field("now", &self.now).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Default for Planner {
    fn default() -> Planner {
        Planner::new()
    }
}

impl Planner {
    /// Returns a planner with DataFusion's built-in functions.
    pub fn new() -> Planner {
        Planner::with_state(SessionStateBuilder::new().with_default_features().build())
    }

    /// Returns a planner with the functions and settings of a user's session.
    pub fn with_context(context: &SessionContext) -> Planner {
        Planner::with_state(context.state())
    }

    /// Returns a planner with a state's functions and settings, except those that must be ours.
    pub fn with_state(state: SessionState) -> Planner {
        planner_at(state, CompatibilityLevel::default())
    }

    /// Returns the user-defined types, which all copies of the planner share.
    pub fn types(&self) -> &UserTypes {
        &self.types
    }

    /// Returns the session state for executing plans.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Returns a copy of the planner for a statement with these parameters.
    pub fn with_parameters(&self, parameters: Option<Arc<Parameters>>) -> Planner {
        Planner { parameters, ..self.clone() }
    }

    /// Plans a query: SELECT, WITH, VALUES.
    pub fn query(&self, text: &str, relations: &dyn Relations) -> Result<Query> {
        let reader = TokenReader::new(text)?;
        let tree = self.parser.parse_query(&reader)?;
        self.plan_tree(tree, &reader, relations)
    }

    /// Plans a query that was parsed from this reader's text.
    pub(crate) fn plan_tree(
        &self,
        mut tree: Box<QueryTree>,
        reader: &TokenReader,
        relations: &dyn Relations,
    ) -> Result<Query> {
        let shown = hidden_columns::hidden_columns_named(reader.rest(), relations);
        hidden_columns::narrow_wildcards(&mut tree, &shown, relations)?;
        let names = OutputNames::new(&tree);
        let raw = self.translate(Statement::Query(tree), &shown, relations, reader.text())?;
        Ok(Query { names, ..self.finish(raw, reader.text())? })
    }

    /// Plans a statement without analysing the plan.
    pub(crate) fn translate(
        &self,
        mut statement: Statement,
        shown: &[String],
        relations: &dyn Relations,
        text: &str,
    ) -> Result<Raw> {
        let known = |name: &str| {
            is_function(&self.state, name)
                || relations.scalar(name).is_some()
                || relations.routine_catalog().routine(name).is_some()
        };
        routines::fill_defaults(&mut statement, relations)?;
        // The conditions of domains are part of what is copied.
        self.types.resolve_in(&mut statement)?;
        routines::name_mapped_values(&mut statement, text, relations)?;
        complexity::refuse_copies(&statement, &self.state, relations)?;
        let columns =
            |name: &str| relations.get(name).map(|found| hidden_columns::visible_columns(&found, shown));
        ast_rewrite::rewrite_statement(&mut statement, &known, &columns)?;
        let context = Context::new(&self.state, self.type_planner(), relations, shown)
            .at(self.now)
            .planned_by(Arc::new(RowPatterns::new(self.clone())))
            .planned_by(Arc::new(SoundRelations::default()));
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        let mut typed = self.parameters.as_ref().map_or_else(PlannerContext::new, |known| known.context());
        let mut planned = |statement| {
            let planner = SqlToRel::new_with_options(&context, options);
            planner.sql_statement_to_plan_with_context(statement, &mut typed)
        };
        let has_unnest = text.as_bytes().windows(6).any(|word| word.eq_ignore_ascii_case(b"unnest"));
        let mut other = has_unnest.then(|| statement.clone());
        let plan = planned(statement)
            .or_else(|error| match other.take_if(|other| multiranges::wrap(other, &error.message())) {
                Some(other) => planned(other).ok().filter(unnest::is_resolved).ok_or(error),
                None => Err(error),
            })
            .map_err(|error| match context.wrong() {
                Some(error) => error,
                None => {
                    names::suggest_functions(&self.state, Error::from_datafusion(&error, text), relations)
                }
            })?;
        complexity::refuse_large(&plan)?;
        let plan = match &self.parameters {
            Some(parameters) => {
                parameters.bind(plan).map_err(|error| Error::from_datafusion(&error, text))?
            }
            None => plan,
        };
        let plan = routines::inline(plan).map_err(|error| Error::from_datafusion(&error, text))?;
        Ok(Raw { plan, reads: context.into_reads() })
    }

    /// Analyses and optimises a plan.
    pub(crate) fn finish(&self, raw: Raw, text: &str) -> Result<Query> {
        let Raw { plan: raw, reads } = raw;
        let plan = self
            .analysed(raw.clone())
            .and_then(|plan| self.optimized(plan, ""))
            .map_err(|error| Error::from_datafusion(&error, text))?;
        let fields: Vec<Field> = plan.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let declared = declared_types::declared_types(&raw);
        let schema = declared_types::with_declared(&Arc::new(Schema::new(fields)), &declared);
        Ok(Query { plan, raw, schema, reads, names: OutputNames::default(), declared })
    }

    /// Optimises an analysed plan without the rule named `but`.
    pub(crate) fn optimized(
        &self,
        analysed: LogicalPlan,
        but: &str,
    ) -> datafusion::error::Result<LogicalPlan> {
        let rules = self.state.optimizer().rules.iter().filter(|rule| rule.name() != but);
        let rules = Optimizer::with_rules(rules.cloned().collect());
        rules.optimize(analysed, &StatementConfig::new(self), |_, _| {})
    }

    /// Analyses a plan: resolves types and makes the result deterministic.
    pub(crate) fn analysed(&self, raw: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
        self.analyzer.execute_and_check(raw, self.state.config_options(), |_, _| {})
    }

    /// Makes an optimised plan physical without optimising it a second time. Its relations must be bound.
    pub async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let made = self.state.query_planner().create_physical_plan(plan, self.state.as_ref()).await?;
        Ok(names::under(made, plan.schema())?)
    }

    pub(crate) fn type_planner(&self) -> Arc<dyn TypePlanner> {
        Arc::clone(&self.type_planner)
    }
}

/// Returns the unit of a TIMESTAMP without digits.
pub fn timestamp_unit(planner: &Planner) -> TimeUnit {
    planner.level.timestamp_unit()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::fixture::Tables;
    use crate::hidden_columns::hide_field;
    use crate::suggestion;

    fn orders() -> Tables {
        Tables::new()
            .table(
                "orders",
                "(id BIGINT PRIMARY KEY, customer TEXT, amount NUMERIC(10,2), tags TEXT[])",
                "VALUES (1, 'ann', 10.50, ['a','b']), (2, 'bob', 2, NULL), (3, 'ann', 0.5, ['c'])",
            )
            .view("big", "SELECT id, customer FROM orders WHERE amount > 1")
    }

    fn files() -> Tables {
        let fields = vec![
            Field::new("line", DataType::Utf8, true),
            hide_field(Field::new("_file", DataType::Utf8, true)),
            hide_field(Field::new("_offset", DataType::Int64, true)),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["x", "y"])),
            Arc::new(StringArray::from(vec!["f1", "f2"])),
            Arc::new(Int64Array::from(vec![0, 7])),
        ];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        Tables::new().rows("lines", batch).table("t", "(line TEXT, n INT)", "VALUES ('x', 1)")
    }

    #[test]
    fn postgresql_spellings_work() {
        let tables = orders();
        tables.check("SELECT '7'::INT + 1, E'a\\tb', 'Ann' ILIKE 'a%'", &["8|a\tb|true"]);
        tables.check(
            "SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, id DESC",
            &["ann|3", "bob|2"],
        );
        tables.check("SELECT count(*) FILTER (WHERE amount > 1) FROM orders", &["2"]);
        tables.check("SELECT string_to_array('a b', ' '), ARRAY[1,2][1]", &["[a, b]|1"]);
        tables.check("SELECT id FROM orders ORDER BY id LIMIT 1 OFFSET 1", &["2"]);
        tables.check("WITH x AS (SELECT 1 AS a) SELECT * FROM x UNION ALL VALUES (2)", &["1", "2"]);
        tables
            .check("SELECT customer, sum(amount) FROM public.orders GROUP BY 1", &["ann|11.00", "bob|2.00"]);
        tables.check("SELECT * FROM big", &["1|ann", "2|bob"]);
        tables.check("SELECT TIMESTAMPTZ '2024-01-01 00:00:00+02'", &["2023-12-31T22:00:00Z"]);
        tables.check("SELECT 7::CHARACTER VARYING(3)", &["7"]);
    }

    #[test]
    fn recursive_queries_and_subqueries_plan() {
        let tables = orders();
        let n =
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n";
        tables.check(n, &["1", "2", "3"]);
        tables.check("SELECT id FROM orders WHERE amount = (SELECT max(amount) FROM orders)", &["1"]);
        tables.fails(
            "SELECT (SELECT id FROM orders)",
            "more than one row returned by a subquery used as an expression",
        );
    }

    #[test]
    fn columns_are_named_as_a_batch_names_them() {
        let tables = orders();
        let query = tables
            .planner
            .query("SELECT id, count(*), amount * 2 AS double FROM orders GROUP BY 1, 3", &tables);
        let names: Vec<String> = query.unwrap().schema.fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["id", "count(*)", "double"]);
        let twice = tables
            .planner
            .query("SELECT a.id, b.id FROM orders a JOIN orders b ON a.id = b.id", &tables)
            .unwrap();
        let error = twice.check_names().unwrap_err();
        assert_eq!(
            error.render(""),
            "column \"id\" appears twice in the result\nHINT: Name one of them with AS."
        );
    }

    #[test]
    fn names_that_are_wrong_get_near_names_and_a_place() {
        let tables = orders();
        tables.fails(
            "SELECT amout FROM orders",
            "column \"amout\" not found\nLINE 1: SELECT amout FROM orders\n               ^^^^^\nHINT: Did you mean \"amount\"?",
        );
        tables.fails(
            "SELECT 1,\n o.amout\nFROM orders o",
            "column \"amout\" not found in \"o\"\nLINE 2:  o.amout\n         ^^^^^^^\nHINT: Did you mean \"amount\"?",
        );
        tables.fails(
            "SELECT x.id FROM orders o",
            "column \"id\" not found in \"x\"\nLINE 1: SELECT x.id FROM orders o\n               ^^^^\nHINT: There is only o.",
        );
        tables.fails(
            "SELECT * FROM ordrs",
            "relation \"ordrs\" not found\nLINE 1: SELECT * FROM ordrs\n                      ^^^^^\nHINT: Did you mean \"orders\"?",
        );
        tables.fails(
            "SELECT cuont(*) FROM orders",
            "function \"cuont\" not found\nLINE 1: SELECT cuont(*) FROM orders\n               ^^^^^\nHINT: Did you mean \"count\"?",
        );
        tables.fails(
            "SELECT id FROM orders a, orders b",
            "column \"id\" is ambiguous\nLINE 1: SELECT id FROM orders a, orders b\n               ^^\nHINT: Write the table's name before it, as in t.x.",
        );
        tables.fails(
            "SELECT * FROM bad_row('orders')",
            "table function \"bad_row\" not found\nLINE 1: SELECT * FROM bad_row('orders')\n                      ^^^^^^^\nHINT: Did you mean \"bad_rows\"?",
        );
        tables.fails("SELECT * FROM bad_rows('x')", "source \"x\" not found");
        tables.fails(
            "SELECT * FROM other.orders",
            "schema \"other\" not found\nLINE 1: SELECT * FROM other.orders\n                      ^^^^^^^^^^^^\nHINT: The schemas are public, millstream, pg_catalog, information_schema.",
        );
    }

    #[test]
    fn syntax_errors_show_their_place() {
        let tables = orders();
        tables.fails(
            "SELECT id FORM orders WHERE",
            "syntax error: expected end of statement, found orders\nLINE 1: SELECT id FORM orders WHERE\n                       ^^^^^^",
        );
        tables.fails(
            "SELECT id FROM orders WHERE",
            "syntax error: expected an expression, found the end of the statement\nLINE 1: SELECT id FROM orders WHERE\n                                   ^",
        );
        tables.fails("", "syntax error: expected a query (SELECT, WITH or VALUES), found the end of the statement\nLINE 1: \n        ^");
        tables.fails(
            "DROP TABLE x",
            "syntax error: expected a query (SELECT, WITH or VALUES), found DROP\nLINE 1: DROP TABLE x\n        ^^^^",
        );
        tables.fails(
            "SELECT * INTO x FROM orders",
            "SELECT INTO is not supported yet\nHINT: Use CREATE TABLE and INSERT, or CREATE MATERIALIZED VIEW.",
        );
        tables.fails(
            "SELECT * FROM orders EMIT CHANGES",
            "EMIT CHANGES is not supported yet\nLINE 1: SELECT * FROM orders EMIT CHANGES\n                             ^^^^^^^^^^^^\nHINT: Use a SELECT of its own: SELECT … EMIT CHANGES.",
        );
    }

    #[test]
    fn what_fails_while_running_stays_readable() {
        let tables = orders();
        tables.fails("SELECT 1 / (id - id) FROM orders", "division by zero");
        tables.fails("SELECT CAST(customer AS INT) FROM orders", "cannot cast 'ann' to INT");
        tables.fails(
            "SELECT customer + INTERVAL '1 day' FROM orders",
            "cannot coerce arithmetic expression TEXT + INTERVAL to valid types\nLINE 1: SELECT customer + INTERVAL '1 day' FROM orders\n               ^^^^^^^^",
        );
    }

    #[test]
    fn hidden_columns_can_be_named_and_are_not_in_a_wildcard() {
        let tables = files();
        tables.check("SELECT * FROM lines", &["x", "y"]);
        tables.check("SELECT _file, line FROM lines", &["f1|x", "f2|y"]);
        tables.check("SELECT *, _offset FROM lines", &["x|0", "y|7"]);
        tables.check("SELECT l.* FROM lines l WHERE l._file = 'f2'", &["y"]);
        tables.check("SELECT * FROM lines l, t WHERE l.line = t.line AND _file = 'f1'", &["x|x|1"]);
        tables.check("SELECT * FROM lines JOIN t USING (line) WHERE _file = 'f1'", &["x|1"]);
        tables.check("SELECT * FROM (SELECT _file, line FROM lines) AS s", &["f1|x", "f2|y"]);
        tables.check("WITH lines AS (SELECT 1 AS _file) SELECT * FROM lines", &["1"]);
        let query = tables.planner.query("SELECT _file FROM lines", &tables).unwrap();
        assert!(!crate::is_hidden(query.schema.field(0)));
        tables.fails(
            "SELECT _file FROM lines NATURAL JOIN t",
            "NATURAL JOIN in a query that names _file\nHINT: Name the columns that must be equal: JOIN … \
             USING (…).",
        );
        tables.fails(
            "SELECT _fil FROM lines",
            "column \"_fil\" not found\nLINE 1: SELECT _fil FROM lines\n               ^^^^\nHINT: There is only line.",
        );
    }

    #[test]
    fn the_clock_is_given_and_continuous_queries_have_none() {
        let tables = orders();
        let planner = tables.planner.at(86_400_000_000);
        let query = planner.query("SELECT now(), current_date", &tables).unwrap();
        let rows = tables.execute(&query.plan, &|batch| vec![batch]).unwrap();
        assert_eq!(crate::fixture::lines(&rows), ["1970-01-02T00:00:00Z|1970-01-02"]);

        for (sql, name) in [
            ("SELECT * FROM orders WHERE now() > TIMESTAMP '2024-01-01'", "now"),
            ("SELECT id, random() FROM orders", "random"),
            ("SELECT (SELECT max(id) FROM orders WHERE current_date > DATE '2024-01-01')", "current_date"),
            ("SELECT uuid()", "uuid"),
        ] {
            let mut query = planner.query(sql, &tables).unwrap();
            let error = planner.continuous(&mut query).unwrap_err();
            let expected = format!("{name}() in a continuous query is ");
            assert!(error.message.starts_with(&expected), "{}", error.message);
            assert!(error.hint.is_some());
        }
        let mut steady = planner.query("SELECT id, lower(customer) FROM orders", &tables).unwrap();
        planner.continuous(&mut steady).unwrap();
    }

    #[test]
    fn a_plan_is_always_the_same_and_says_what_it_reads() {
        let tables = orders();
        let sql = "SELECT id FROM big WHERE id IN (SELECT id FROM orders WHERE amount > 1) AND id < (SELECT max(id) FROM orders)";
        let plans: Vec<Query> = (0..2).map(|_| tables.planner.query(sql, &tables).unwrap()).collect();
        assert_eq!(plans[0].plan.display_indent().to_string(), plans[1].plan.display_indent().to_string());
        assert_eq!(plans[0].reads, ["big", "orders"]);
        let query = tables.planner.query("SELECT * FROM bad_rows('orders')", &tables).unwrap();
        assert_eq!(query.reads, ["bad_rows('orders')"]);
    }

    #[test]
    fn settings_and_functions_of_a_users_session_are_kept() {
        let config = datafusion::prelude::SessionConfig::new().with_batch_size(77);
        let context = SessionContext::new_with_config(config);
        let planner = Planner::with_context(&context);
        assert_eq!(planner.state().config().batch_size(), 77);
        assert!(planner.state().config_options().sql_parser.collect_spans);
        assert_eq!(
            suggestion::did_you_mean("lowr", function_names(planner.state())),
            Some("Did you mean \"lower\"?".into())
        );
    }
}
