//! The statements of a body, and the names in them.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, ObjectName, Query as QueryTree, SelectItem, Statement, TableWithJoins, Value,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Routine;
use super::body::{Body, Scope, column_name, parameter_schema};
use super::function::volatility;
use super::query_body::captures;
use crate::ast_walk::walk_mut;
use crate::dml::tree::{named_factor, plain_from, quoted, select_of};
use crate::error::{Error, Result};
use crate::planner::{Planner, Raw};
use crate::reader::TokenReader;
use crate::relation::{Relation, Relations, RoutineCatalog, SearchPath};
use crate::tokens::{Piece, statements};

/// The relation of the parameters. Users can't write this name.
const PARAMETERS: &str = "parameters of a routine";

const RETURN: &str = "RETURN";

/// Plans the statements of one routine's body.
pub(super) struct BodyPlanner<'a> {
    pub(super) planner: &'a Planner,
    pub(super) scope: &'a Scope<'a>,
}

impl BodyPlanner<'_> {
    /// Plans the statements of a function's body. The last one gives the value.
    pub(super) fn last_statement(&self, text: &str, returns: &DataType, strict: bool) -> Result<Body> {
        let (last, reads) = self.checked_but_last(text)?;
        let body = self.planner.body(&as_select(last.text), self.scope, Some(returns), strict);
        let mut body = body.map_err(|error| error.shift(last.range.start))?;
        body.reads.extend(reads);
        body.reads.sort();
        body.reads.dedup();
        Ok(body)
    }

    /// Plans the statements of the body of a function that returns a table. The last one gives the rows.
    pub(super) fn last_rows(
        &self,
        text: &str,
        columns: &[(String, DataType)],
    ) -> Result<(LogicalPlan, Vec<String>)> {
        let (last, mut reads) = self.checked_but_last(text)?;
        let (rows, called) = self.rows(&last.text, columns).map_err(|error| error.shift(last.range.start))?;
        reads.extend(called);
        reads.sort();
        reads.dedup();
        Ok((rows, reads))
    }

    /// Plans all statements of a body but the last one. Returns this one, and the routines that the others call.
    fn checked_but_last(&self, text: &str) -> Result<(Piece, Vec<String>)> {
        let mut pieces = statements(text)?;
        let Some(last) = pieces.pop() else {
            return Err(Error::invalid(format!("the body of \"{}\" is empty", self.scope.routine))
                .hint("Write a SELECT, whose value the function returns."));
        };
        let mut reads = Vec::new();
        for piece in pieces {
            let found = self.checked_statement(&as_select(piece.text));
            reads.extend(found.map_err(|error| error.shift(piece.range.start))?);
        }
        Ok((last, reads))
    }

    /// Plans a statement whose result is dropped, and returns the routines that it calls.
    fn checked_statement(&self, text: &str) -> Result<Vec<String>> {
        let subquery = self.query_of(text)?;
        let select = self.select_of_expression(ExprTree::Exists { subquery, negated: false })?;
        let Raw { plan, reads } = self.over_parameters(select, text)?;
        self.planner.analysed(plan)?;
        Ok(reads)
    }

    /// Parses a statement of a body, which must be a query.
    pub(super) fn query_of(&self, text: &str) -> Result<Box<QueryTree>> {
        let reader = TokenReader::new(text)?;
        let words = ["SELECT", "WITH", "VALUES", "TABLE"];
        let is_query = words.into_iter().any(|word| reader.is_keyword(&[word]));
        if !is_query && *reader.peek() != Token::LParen {
            let verb = reader.peek().to_string().to_uppercase();
            return Err(Error::unsupported(format!("{verb} in the body of \"{}\"", self.scope.routine))
                .hint("A body consists of SELECT statements: a function changes nothing.")
                .at(reader.position()));
        }
        self.planner.parser.parse_query(&reader)
    }

    /// Builds `SELECT expression`.
    pub(super) fn select_of_expression(&self, expression: ExprTree) -> Result<Box<QueryTree>> {
        let mut tree = self.planner.parser.parse_query(&TokenReader::new("SELECT NULL")?)?;
        select_of(&mut tree)?.projection = vec![SelectItem::UnnamedExpr(expression)];
        Ok(tree)
    }

    /// Plans a SELECT without FROM over the relation of the parameters. Refuses other relations.
    pub(super) fn over_parameters(&self, tree: Box<QueryTree>, text: &str) -> Result<Raw> {
        self.beside_parameters(tree, Vec::new(), text)
    }

    /// Plans a SELECT without FROM over the relation of the parameters, and these items of FROM after it. Refuses other
    /// relations.
    pub(super) fn beside_parameters(
        &self,
        mut tree: Box<QueryTree>,
        others: Vec<TableWithJoins>,
        text: &str,
    ) -> Result<Raw> {
        let scope = self.scope;
        select_of(&mut tree)?.from = std::iter::once(parameters(scope.routine)).chain(others).collect();
        let names = scope.parameters.iter().enumerate().map(column_name).collect();
        let mut marks = ParameterMarks { routine: scope.routine, names };
        if let ControlFlow::Break(error) = walk_mut(&mut tree, &mut marks) {
            return Err(error);
        }
        let inner = Within { scope, asked: Mutex::new(false) };
        let planned = self.planner.translate(Statement::Query(tree), &[], &inner, text);
        if *inner.asked.lock().unwrap_or_else(PoisonError::into_inner) {
            let name = scope.routine;
            return Err(Error::invalid(format!("function \"{name}\" calls itself"))
                .hint("Recursion isn't supported: WITH RECURSIVE is, in a query."));
        }
        let Raw { plan, mut reads } = planned?;
        reads.retain(|name| name != PARAMETERS);
        let relation = reads.iter().find(|name| !is_routine(name, scope)).cloned();
        let Some(name) = relation else { return Ok(Raw { plan, reads }) };
        let what = format!("the relation \"{name}\" in the body of \"{}\"", scope.routine);
        Err(Error::unsupported(what).hint(
            "A body reads sets made of its arguments, as in FROM unnest(a) AS u(x). Join the relation in the \
             query that calls the function.",
        ))
    }

    /// Checks an expression with subqueries, which is planned in each query that calls the routine.
    pub(super) fn check_subqueries(&self, expr: &Expr, input: &LogicalPlan) -> Result<()> {
        let name = self.scope.routine;
        if volatility(expr) == Volatility::Volatile {
            let what = format!("a volatile function beside a subquery in the body of \"{name}\"");
            return Err(Error::unsupported(what).hint("Pass its value as an argument."));
        }
        if captures(expr, &input.schema().columns())? {
            let message = format!("a relation in the body of \"{name}\" is called \"{name}\", too");
            return Err(Error::invalid(format!("{message}, and has a column with the name of a parameter"))
                .hint("Give the relation another alias."));
        }
        let plan = LogicalPlanBuilder::from(input.clone()).project([expr.clone().alias("body")])?.build()?;
        self.planner.analysed(plan)?;
        Ok(())
    }
}

/// True if a name in the reads of a query is that of a routine.
fn is_routine(name: &str, scope: &Scope<'_>) -> bool {
    let catalog = scope.relations.routine_catalog();
    name.strip_suffix("()").is_some_and(|name| catalog.routine(name).is_some())
}

/// Writes `RETURN expression`, a statement of BEGIN ATOMIC, as a SELECT of the same length.
fn as_select(text: String) -> String {
    match text.get(..RETURN.len()) {
        Some(word) if word.eq_ignore_ascii_case(RETURN) && text[RETURN.len()..].starts_with(is_separator) => {
            format!("SELECT{}", &text[RETURN.len()..])
        }
        _ => text,
    }
}

fn is_separator(letter: char) -> bool {
    !letter.is_alphanumeric() && letter != '_'
}

/// Builds `"parameters of a routine" AS f`.
fn parameters(routine: &str) -> TableWithJoins {
    plain_from(named_factor(ObjectName::from(vec![quoted(PARAMETERS)]), quoted(routine)))
}

/// Replaces `$1` and so on by the parameters' columns, which the routine's name qualifies.
struct ParameterMarks<'a> {
    routine: &'a str,
    names: Vec<String>,
}

impl VisitorMut for ParameterMarks<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expression: &mut ExprTree) -> ControlFlow<Error> {
        if let ExprTree::Value(value) = expression
            && let Value::Placeholder(mark) = &value.value
        {
            let place = mark.strip_prefix('$').and_then(|place| place.parse::<usize>().ok());
            let name = place.and_then(|place| self.names.get(place.checked_sub(1)?));
            let Some(name) = name else {
                let count = self.names.len();
                let error = Error::invalid(format!("there is no parameter {mark}"));
                return ControlFlow::Break(error.hint(format!("There are {count}: $1 is the first.")));
            };
            *expression = ExprTree::CompoundIdentifier(vec![quoted(self.routine), quoted(name)]);
        }
        ControlFlow::Continue(())
    }
}

/// Adds the relation of the parameters to all relations.
struct Within<'a> {
    scope: &'a Scope<'a>,
    /// True if the routine itself was looked up.
    asked: Mutex<bool>,
}

impl Relations for Within<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        if name != PARAMETERS {
            return self.scope.relations.get(name);
        }
        Some(Relation::Rows { schema: parameter_schema(self.scope.parameters), key: None })
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.scope.relations.path()
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.scope.relations.names(schema)
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self
    }
}

impl RoutineCatalog for Within<'_> {
    fn routine(&self, name: &str) -> Option<Routine> {
        if name == self.scope.routine {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return None;
        }
        self.scope.relations.routine_catalog().routine(name)
    }

    fn routine_names(&self) -> Vec<String> {
        self.scope.relations.routine_catalog().routine_names()
    }
}
