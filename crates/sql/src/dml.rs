//! Plans INSERT, UPDATE and DELETE as queries for the rows that change.
//!
//! An INSERT's query returns whole new rows, a DELETE's the old rows, an UPDATE's the old columns followed by
//! the new ones, a MERGE's both and what happens to the row ([`merge`]). Hidden columns are left out. Code that runs the plan calls [`Dml::check`] on every batch.

mod column_aliases;
mod column_checks;
pub mod conflict;
mod deduplication;
mod generated;
mod insert;
mod insert_target;
pub mod merge;
pub mod returning;
mod row_assignment;
pub(crate) mod tree;
mod unique_conflict;
mod values;
mod verb;
mod with_relation;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast as to_type};
use datafusion::sql::sqlparser::ast::{
    self, AssignmentTarget, FromTable, Ident, ObjectName, Query as QueryTree, SelectItem, Spanned, Statement,
    TableFactor, TableWithJoins, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::parser::Parser;
use millstream_delta::{generated_of, sql_type, sql_type_of};

use crate::ast_rewrite::refuse_set_returning;
use crate::context::unknown_relation;
use crate::defaults;
use crate::dialect;
use crate::error::{Error, Result};
use crate::functions::read_text::ReadText;
use crate::hidden_columns::{self, last_name};
use crate::identity::{self, Identity};
use crate::planner::{Planner, Query, Raw};
use crate::reader::TokenReader;
use crate::relation::{Relation, Relations, catalog_name};
use crate::suggestion;
use crate::tokens::{DIALECT, offset};

use conflict::OnConflict;
use deduplication::keep_first_match;
use generated::is_generated;
use returning::Returning;
use tree::{aliased, column, named_factor, plain_from, quoted, select_of};

/// The kind of change to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Adds rows.
    Insert,
    /// Replaces rows.
    Update,
    /// Deletes rows.
    Delete,
    /// Inserts, replaces and deletes rows.
    Merge,
}

/// A planned INSERT, UPDATE or DELETE.
#[derive(Debug, Clone)]
pub struct Dml {
    /// The kind of change.
    pub operation: Operation,
    /// The relation to change. The caller must check that it accepts rows.
    pub table: String,
    /// The columns of the table, without hidden ones.
    pub columns: SchemaRef,
    /// The rows: new (insert), old (delete), or old and new side by side (update).
    pub query: Query,
    /// The ON CONFLICT clause of an INSERT.
    pub on_conflict: Option<OnConflict>,
    /// The RETURNING clause.
    pub returning: Option<Box<Returning>>,
}

impl Dml {
    /// Fails if a new row lacks a required value.
    pub fn check(&self, rows: &RecordBatch) -> Result<()> {
        let first = match self.operation {
            Operation::Insert => 0,
            Operation::Update => self.columns.fields().len(),
            Operation::Delete => return Ok(()),
            Operation::Merge => return self.check_merge(rows),
        };
        conflict::check_new(&self.columns, &self.table, rows, first)
    }

    /// Fails if a row updated by DO UPDATE lacks a required value. Old and new columns are side by side.
    pub fn check_update(&self, rows: &RecordBatch) -> Result<()> {
        conflict::check_new(&self.columns, &self.table, rows, self.columns.fields().len())
    }
}

fn not_null(column: &str, table: &str) -> Error {
    Error::invalid(format!("column \"{column}\" of \"{table}\" is NOT NULL and a row has no value for it"))
}

/// The table that a statement changes.
struct Target {
    name: String,
    /// Its name within the statement.
    alias: Ident,
    factor: TableFactor,
    columns: SchemaRef,
}

/// A statement's text and the relations it may name.
struct Scope<'a> {
    planner: &'a Planner,
    reader: &'a TokenReader<'a>,
    relations: &'a dyn Relations,
    shown: Vec<String>,
    /// The alias of an INSERT's table, if it has one.
    alias: Option<Ident>,
    /// The queries of a WITH before the statement.
    with: Option<ast::With>,
    /// True if an INSERT is OVERRIDING SYSTEM VALUE.
    is_overriding: bool,
}

impl Planner {
    /// Plans an INSERT, UPDATE or DELETE.
    pub fn dml(&self, text: &str, relations: &dyn Relations) -> Result<Dml> {
        let reader = TokenReader::new(text)?;
        dialect::refuse_unbuilt(&reader)?;
        let mut tokens = reader.rest_tokens();
        let alias = conflict::take_alias(&mut tokens);
        let is_insert = matches!(Operation::of(&reader), Some(Operation::Insert | Operation::Merge));
        let is_overriding = is_insert && identity::take_overriding(&mut tokens);
        if Operation::of(&reader) == Some(Operation::Merge) {
            merge::replace_do_nothing(&mut tokens)?;
        }
        let (with, statement) = verb::split_with(self.parser.parse_tokens(&reader, tokens)?);
        let shown = hidden_columns::hidden_columns_named(reader.rest(), relations);
        let scope = Scope { planner: self, reader: &reader, relations, shown, alias, with, is_overriding };
        match statement {
            Statement::Insert(insert) => scope.insert(insert),
            Statement::Update(update) => scope.update(update),
            Statement::Delete(delete) => scope.delete(delete),
            Statement::Merge(merge) => scope.merge(merge),
            _ => Err(reader.expected("INSERT, UPDATE, DELETE or MERGE")),
        }
    }
}

impl Scope<'_> {
    fn delete(&self, delete: ast::Delete) -> Result<Dml> {
        refuse(delete.limit.is_some() || !delete.order_by.is_empty(), "DELETE … LIMIT")?;
        refuse(!delete.tables.is_empty(), "DELETE from several tables")?;
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = delete.from;
        let target = self.target(from)?;
        let returning = self.returning(delete.returning, &target)?;
        let mut tree = self.template()?;
        let select = select_of(&mut tree)?;
        select.projection =
            target.columns.fields().iter().map(|f| aliased(&target.alias, f.name(), f.name())).collect();
        select.from = vec![plain_from(target.factor.clone())];
        select.selection = match delete.using {
            None => delete.selection,
            Some(using) => {
                let mut inner = self.template()?;
                let matched = select_of(&mut inner)?;
                matched.from = using;
                matched.selection = delete.selection;
                Some(ast::Expr::Exists { subquery: inner, negated: false })
            }
        };
        self.add_with(&mut tree, &target)?;
        let raw = self.translate(tree)?;
        let query = self.planner.finish(raw, self.reader.text())?;
        let (table, columns) = (target.name, target.columns);
        Ok(Dml { operation: Operation::Delete, table, columns, query, on_conflict: None, returning })
    }

    fn update(&self, update: ast::Update) -> Result<Dml> {
        refuse(update.limit.is_some() || !update.order_by.is_empty(), "UPDATE … LIMIT")?;
        refuse(update.or.is_some(), "UPDATE OR")?;
        let target = self.target(vec![update.table])?;
        let returning = self.returning(update.returning, &target)?;
        let mut values = self.assignments(&target, update.assignments)?;
        values.iter_mut().flatten().try_for_each(|value| refuse_set_returning(value, "UPDATE"))?;
        let mut tree = self.template()?;
        let select = select_of(&mut tree)?;
        let fields = target.columns.fields();
        select.projection =
            fields.iter().map(|f| aliased(&target.alias, f.name(), &format!("old.{}", f.name()))).collect();
        for (at, field) in fields.iter().enumerate() {
            let expr = values[at].take().unwrap_or_else(|| column(&target.alias, field.name()));
            select
                .projection
                .push(SelectItem::ExprWithAlias { expr, alias: quoted(&format!("new.{}", field.name())) });
        }
        select.selection = update.selection;
        select.from = vec![plain_from(target.factor.clone())];
        self.add_with(&mut tree, &target)?;
        let raw = match update.from {
            None => self.translate(tree)?,
            Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => {
                self.number_rows(select_of(&mut tree)?, &target, from)?;
                let Raw { plan, reads } = self.translate(tree)?;
                let plan =
                    keep_first_match(plan).map_err(|e| Error::from_datafusion(&e, self.reader.text()))?;
                Raw { plan, reads }
            }
        };
        let raw = Raw { plan: self.cast_new(raw.plan, &target.columns)?, ..raw };
        let first = target.columns.fields().len();
        let raw = self.with_generated_and_checks(raw, first, &target.name, &target.columns)?;
        let query = self.finish(raw, first, &target.columns)?;
        let (table, columns) = (target.name, target.columns);
        Ok(Dml { operation: Operation::Update, table, columns, query, on_conflict: None, returning })
    }

    /// Puts the statement's WITH before the query of an UPDATE or DELETE.
    fn add_with(&self, tree: &mut QueryTree, target: &Target) -> Result<()> {
        tree.with = self.with.clone();
        self.with.as_ref().map_or(Ok(()), |with| verb::check_target(with, &target.name))
    }

    /// Returns the expression that each column is set to, if any.
    fn assignments(&self, target: &Target, all: Vec<ast::Assignment>) -> Result<Vec<Option<ast::Expr>>> {
        let mut values = vec![None; target.columns.fields().len()];
        let all = row_assignment::of_columns(self, all).map_err(|failed| self.place(failed.0, &failed.1))?;
        for assignment in all {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(self.place(Error::unsupported("SET (…) = (…)"), &assignment));
            };
            let column = last_name(name).unwrap_or_default();
            let Ok(index) = target.columns.index_of(&column) else {
                return Err(self.place(unknown_column(&column, &target.name, &target.columns), name));
            };
            let set_to_default = is_default(&assignment.value);
            if generated_of(target.columns.field(index)).is_some() && !set_to_default {
                return Err(self.place(is_generated(&column, &target.name), name));
            }
            let identity = Identity::of(target.columns.field(index));
            if identity.is_some_and(|identity| identity.always) && !set_to_default {
                return Err(self.place(identity::given(&column), name));
            }
            let value = match set_to_default {
                true => defaults::tree(target.columns.field(index))?,
                false => assignment.value,
            };
            if values[index].replace(value).is_some() {
                return Err(self.place(Error::invalid(format!("column \"{column}\" is set twice")), name));
            }
        }
        Ok(values)
    }

    /// Finishes a plan that has the new values of the table's visible columns from number `first` on. The type of a CASE is
    /// known only now, so it may need a cast.
    fn finish(&self, raw: Raw, first: usize, columns: &Schema) -> Result<Query> {
        let (plan, reads) = (raw.plan.clone(), raw.reads.clone());
        let query = self.planner.finish(raw, self.reader.text())?;
        let found = query.plan.schema();
        let is_other =
            |(at, field): (usize, &FieldRef)| found.field(first + at).data_type() != field.data_type();
        if !columns.fields().iter().enumerate().any(is_other) {
            return Ok(query);
        }
        let schema = Arc::clone(plan.schema());
        let item = |at: usize| {
            let item = Expr::Column(Column::from(schema.qualified_field(at)));
            match at.checked_sub(first).and_then(|at| columns.fields().get(at)) {
                Some(field) => to_type(item, field.data_type().clone()).alias(schema.field(at).name()),
                None => item,
            }
        };
        let items: Vec<Expr> = (0..schema.fields().len()).map(item).collect();
        let plan = LogicalPlanBuilder::from(plan).project(items).and_then(LogicalPlanBuilder::build);
        let plan = plan.map_err(|error| Error::from_datafusion(&error, self.reader.text()))?;
        self.planner.finish(Raw { plan, reads }, self.reader.text())
    }

    /// Casts the new columns to the table's types.
    fn cast_new(&self, raw: LogicalPlan, columns: &Schema) -> Result<LogicalPlan> {
        let schema = Arc::clone(raw.schema());
        let count = columns.fields().len();
        let mut items: Vec<Expr> = Vec::with_capacity(2 * count);
        for at in 0..2 * count {
            let item = Expr::Column(Column::from(schema.qualified_field(at)));
            items.push(match at.checked_sub(count) {
                None => item,
                Some(at) => {
                    let field = &columns.fields()[at];
                    let cast = self.cast(item, &schema, field)?;
                    let checked = ReadText::checked(field, cast.clone()).unwrap_or(cast);
                    checked.alias(format!("new.{}", field.name()))
                }
            });
        }
        let rest = 2 * count..schema.fields().len();
        items.extend(rest.map(|at| Expr::Column(Column::from(schema.qualified_field(at)))));
        LogicalPlanBuilder::from(raw)
            .project(items)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| Error::from_datafusion(&error, self.reader.text()))
    }

    /// Casts a value to the type of its column.
    fn cast(&self, item: Expr, schema: &DFSchema, field: &Field) -> Result<Expr> {
        let found = item.get_type(schema)?;
        item.cast_to(field.data_type(), schema).map_err(|_| {
            Error::invalid(format!(
                "column \"{}\" is of type {} and the expression of type {}",
                field.name(),
                sql_type_of(field),
                sql_type(&found)
            ))
            .hint("Cast the expression, as in x::TYPE.")
        })
    }

    fn target(&self, mut from: Vec<TableWithJoins>) -> Result<Target> {
        let Some(table) = from.pop().filter(|table| from.is_empty() && table.joins.is_empty()) else {
            return Err(Error::unsupported("changing several tables in one statement"));
        };
        let factor = table.relation;
        let TableFactor::Table { name, alias, .. } = &factor else {
            return Err(Error::invalid("only a table can be changed"));
        };
        let (table, columns) = self.table(name)?;
        // Without an alias, columns may be qualified by the table's schema, too.
        let (alias, factor) = match alias {
            Some(alias) => (alias.name.clone(), named_factor(name.clone(), alias.name.clone())),
            None => (quoted(&last_name(name).unwrap_or_default()), tree::named_table(name.clone())),
        };
        Ok(Target { name: table, alias, factor, columns })
    }

    fn table(&self, name: &ObjectName) -> Result<(String, SchemaRef)> {
        let table = catalog_name(name, self.relations).unwrap_or_default();
        if let Some(error) = tree::system_schema(name, &table) {
            return Err(self.place(error, name));
        }
        match self.relations.get(&table) {
            Some(Relation::Rows { schema, .. }) => Ok((table, hidden_columns::visible_schema(&schema, &[]))),
            Some(Relation::Provided(_)) => Err(self.place(unknown_relation(&table, self.relations), name)),
            Some(Relation::View(_)) => Err(self
                .place(Error::invalid(format!("\"{table}\" is a view: it keeps no rows of its own")), name)
                .hint("Change the tables that it reads.")),
            None => Err(self.place(unknown_relation(&table, self.relations), name)),
        }
    }

    fn translate(&self, mut tree: Box<QueryTree>) -> Result<Raw> {
        hidden_columns::narrow_wildcards(&mut tree, &self.shown, self.relations)?;
        self.planner.translate(Statement::Query(tree), &self.shown, self.relations, self.reader.text())
    }

    /// Returns the tree of `SELECT 1`, to be filled in.
    fn template(&self) -> Result<Box<QueryTree>> {
        self.parse("SELECT 1")
    }

    fn parse(&self, sql: &str) -> Result<Box<QueryTree>> {
        let parsed = Parser::new(&DIALECT).try_with_sql(sql).and_then(|mut parser| parser.parse_query());
        parsed.map_err(|error| Error::bug(error.to_string()))
    }

    /// Sets an error's position to a node of the syntax tree.
    fn place(&self, error: Error, node: &impl Spanned) -> Error {
        let (span, text) = (node.span(), self.reader.text());
        match (offset(text, span.start.line, span.start.column), offset(text, span.end.line, span.end.column))
        {
            (Some(start), Some(end)) => error.at(start..end),
            _ => error,
        }
    }
}

/// True if a value is the word DEFAULT.
fn is_default(value: &ast::Expr) -> bool {
    matches!(value, ast::Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

fn refuse(found: bool, what: &str) -> Result<()> {
    if found { Err(Error::unsupported(what)) } else { Ok(()) }
}

fn unknown_column(column: &str, table: &str, columns: &Schema) -> Error {
    let names = columns.fields().iter().map(|field| field.name().as_str());
    Error::invalid(format!("column \"{column}\" not found in \"{table}\""))
        .maybe_hint(suggestion::hint(column, "columns", names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Tables, lines};

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(id INT PRIMARY KEY, name TEXT, n DOUBLE)",
                "VALUES (1, 'a', 1.5), (2, 'b', NULL), (3, 'c', 3)",
            )
            .table("log", "(id INT, n INT)", "VALUES (1, 10), (1, 20), (3, 30), (1, 10)")
            .view("v", "SELECT * FROM t")
    }

    fn check(sql: &str, expected: &[&str]) -> Dml {
        let tables = tables();
        let dml = tables.planner.dml(sql, &tables).unwrap_or_else(|error| panic!("{}", error.render(sql)));
        let rows = tables.execute(&dml.query.plan, &|batch| vec![batch]).unwrap();
        assert_eq!(lines(&rows), expected, "{sql}");
        dml
    }

    fn fails(sql: &str, expected: &str) {
        let tables = tables();
        assert_eq!(tables.planner.dml(sql, &tables).unwrap_err().render(sql), expected);
    }

    #[test]
    fn an_insert_gives_whole_rows_of_the_tables_types() {
        let dml = check("INSERT INTO t VALUES (7, 'x', 1), (8, NULL, NULL)", &["7|x|1.0", "8|NULL|NULL"]);
        assert_eq!((dml.operation, dml.table.as_str()), (Operation::Insert, "t"));
        let types =
            |schema: &Schema| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        assert_eq!(types(&dml.query.schema), types(&dml.columns));
        check("INSERT INTO t (n, id) VALUES ('2.5', 7)", &["7|NULL|2.5"]);
        check("INSERT INTO t SELECT id + 10, 'l', n FROM log WHERE n > 10", &["11|l|20.0", "13|l|30.0"]);
    }

    #[test]
    fn a_delete_gives_the_old_rows() {
        let dml = check(
            "DELETE FROM t WHERE n IS NULL OR id IN (SELECT id FROM log WHERE n = 30)",
            &["2|b|NULL", "3|c|3.0"],
        );
        assert_eq!(dml.operation, Operation::Delete);
        check("DELETE FROM t", &["1|a|1.5", "2|b|NULL", "3|c|3.0"]);
        check("DELETE FROM t AS x USING log l WHERE x.id = l.id", &["1|a|1.5", "3|c|3.0"]);
    }

    #[test]
    fn an_update_gives_old_and_new_columns() {
        let dml = check(
            "UPDATE t SET n = id, name = upper(name) WHERE id < 3",
            &["1|a|1.5|1|A|1.0", "2|b|NULL|2|B|2.0"],
        );
        assert_eq!(dml.operation, Operation::Update);
        check("UPDATE t SET name = NULL WHERE id = 1", &["1|a|1.5|1|NULL|1.5"]);
        check("UPDATE t SET n = (SELECT max(n) FROM log) WHERE id = 2", &["2|b|NULL|2|b|30.0"]);
    }

    #[test]
    fn an_update_from_changes_each_row_once() {
        check("UPDATE t SET n = l.n FROM log l WHERE t.id = l.id", &["1|a|1.5|1|a|10.0", "3|c|3.0|3|c|30.0"]);
        check(
            "UPDATE log SET n = t.n FROM t WHERE t.id = log.id",
            &["1|10|1|2", "1|10|1|2", "1|20|1|2", "3|30|3|3"],
        );
    }

    #[test]
    fn missing_values_are_found() {
        let tables = tables();
        let dml = tables.planner.dml("INSERT INTO t VALUES (NULL, 'x', 1)", &tables).unwrap();
        let rows = tables.execute(&dml.query.plan, &|batch| vec![batch]).unwrap();
        let error = rows.iter().try_for_each(|batch| dml.check(batch)).unwrap_err();
        assert_eq!(error.message, "column \"id\" of \"t\" is NOT NULL and a row has no value for it");
        fails(
            "INSERT INTO t (name) VALUES ('x')",
            "column \"id\" of \"t\" is NOT NULL and a row has no value for it\nHINT: Name \"id\" too.",
        );
    }

    #[test]
    fn what_is_wrong_is_shown() {
        fails(
            "INSERT INTO tt VALUES (1)",
            "relation \"tt\" not found\nLINE 1: INSERT INTO tt VALUES (1)\n                    ^^\nHINT: Did you mean \"t\"?",
        );
        fails(
            "INSERT INTO v VALUES (1)",
            "\"v\" is a view: it keeps no rows of its own\nLINE 1: INSERT INTO v VALUES (1)\n                    ^\nHINT: Change the tables that it reads.",
        );
        fails(
            "INSERT INTO t VALUES (1, 'a')",
            "INSERT has 2 values where \"t\" takes 3 columns\nHINT: The columns are id, name, n.",
        );
        fails(
            "INSERT INTO t SELECT 1",
            "the query of the INSERT returns a different number of columns than the table has\nHINT: The \
             columns are id, name, n.",
        );
        fails(
            "INSERT INTO t (id, nam) VALUES (1, 'a')",
            "column \"nam\" not found in \"t\"\nLINE 1: INSERT INTO t (id, nam) VALUES (1, 'a')\n                           ^^^\nHINT: Did you mean \"name\"?",
        );
        fails(
            "UPDATE t SET nam = 1",
            "column \"nam\" not found in \"t\"\nLINE 1: UPDATE t SET nam = 1\n                     ^^^\nHINT: Did you mean \"name\"?",
        );
        fails(
            "UPDATE t SET n = 1, n = 2",
            "column \"n\" is set twice\nLINE 1: UPDATE t SET n = 1, n = 2\n                            ^",
        );
        fails(
            "UPDATE t SET n = [1]",
            "column \"n\" is of type DOUBLE PRECISION and the expression of type BIGINT[]\nHINT: Cast the expression, as in x::TYPE.",
        );
        fails(
            "INSERT INTO t SELECT * FROM t ASOF JOIN u ON x",
            "relation \"u\" not found\nLINE 1: INSERT INTO t SELECT * FROM t ASOF JOIN u ON x\n                                                ^",
        );
        fails(
            "DELETE FROM t RETURNING nam",
            "column \"nam\" not found\nLINE 1: DELETE FROM t RETURNING nam\n                                ^^^\nHINT: Did you mean \"name\"?",
        );
        fails(
            "SELECT 1",
            "syntax error: expected INSERT, UPDATE, DELETE or MERGE, found SELECT\nLINE 1: SELECT 1\n        ^^^^^^",
        );
    }
}
