//! Calls of functions as written. A call that leaves arguments out gets their defaults before it is planned. A call in FROM
//! gets its arguments in their places, and an alias.
//!
//! | declared | written | planned as |
//! | --- | --- | --- |
//! | `f(a INT, b INT DEFAULT 1)` | `f(5)` | `f(5, 1)` |
//! | `f(a INT DEFAULT 0, b INT DEFAULT 1)` | `f(b => 5)` | `f(0, 5)` |
//! | `g(a INT, b INT) RETURNS TABLE (…)` | `FROM g(b => 1, a => 2)` | `FROM g(2, 1) AS g` |

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SelectItem, TableFactor, TableFunctionArgs, VisitMut, VisitorMut,
};
use millstream_delta::sql_type;

use super::Routine;
use super::argument_types::{accepts, is_text};
use super::body::{Scope, column_name, has_queries, single_expression};
use super::function::{Parameter, UserFunction};
use super::statements::BodyPlanner;
use crate::ast_walk::{visit_expressions, walk_mut};
use crate::dml::tree::{named_factor, quoted, select_of};
use crate::error::{Error, Result};
use crate::hidden_columns::fold;
use crate::planner::Raw;
use crate::reader::TokenReader;
use crate::relation::{PUBLIC, Relations, RoutineCatalog};

/// The defaults of a function's parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    /// The default of each parameter, as written.
    trees: Vec<Option<ExprTree>>,
    /// The routines that the defaults call.
    pub(super) reads: Vec<String>,
}

/// Reads the expression after DEFAULT in a list of parameters, up to a comma or the closing parenthesis.
pub fn parameter_default(reader: &mut TokenReader<'_>) -> Result<String> {
    let place = crate::defaults::expression(reader, &[])?;
    Ok(reader.text()[place].to_string())
}

impl BodyPlanner<'_> {
    /// Plans the defaults of the parameters. Each is an expression without columns.
    pub(super) fn defaults(&self) -> Result<Defaults> {
        let mut defaults = Defaults::default();
        for (place, parameter) in self.scope.parameters.iter().enumerate() {
            let name = column_name((place, parameter));
            let Some(text) = &parameter.default else {
                if defaults.trees.iter().any(Option::is_some) {
                    return Err(Error::invalid(format!(
                        "parameter \"{name}\" has no default, but one before it has"
                    ))
                    .hint("Give it a default, or declare it before those that have one."));
                }
                defaults.trees.push(None);
                continue;
            };
            let planned = self.default_of(text, parameter).map_err(|error| {
                let message = format!("the default of parameter \"{name}\": {}", error.message);
                // The position is one in the default's text.
                Error { message, span: None, ..error }
            });
            let (tree, reads) = planned?;
            defaults.trees.push(Some(tree));
            defaults.reads.extend(reads);
        }
        Ok(defaults)
    }

    /// Plans one default, and returns it with the routines that it calls.
    fn default_of(&self, text: &str, parameter: &Parameter) -> Result<(ExprTree, Vec<String>)> {
        let BodyPlanner { planner, scope } = self;
        let other = || {
            Error::invalid("an expression without columns, aggregates and subqueries was expected")
                .hint("Write a literal, such as 0 or 'new', or a function, such as now().")
        };
        let select = format!("SELECT ({text})");
        let mut tree = planner.parser.parse_query(&TokenReader::new(&select)?)?;
        fill_defaults(&mut tree, scope.relations)?;
        let value = match select_of(&mut tree)?.projection.as_slice() {
            [SelectItem::UnnamedExpr(value)] => value.clone(),
            _ => return Err(other()),
        };
        let alone = Scope { routine: scope.routine, parameters: &[], relations: scope.relations };
        let bodies = BodyPlanner { planner, scope: &alone };
        let Raw { plan, reads } = bodies.over_parameters(tree, &select)?;
        let Some((expr, input)) = single_expression(plan).filter(|(expr, _)| !has_queries(expr)) else {
            return Err(other());
        };
        let (found, wanted) = (expr.get_type(input.schema())?, &parameter.data_type);
        let is_castable = !is_text(&found) || is_text(wanted) || matches!(expr, Expr::Literal(..));
        if !is_castable || !accepts(wanted, &found) {
            let (found, wanted) = (sql_type(&found), sql_type(wanted));
            return Err(Error::invalid(format!("it is {found}, {wanted} was declared"))
                .hint(format!("Cast it: (…)::{wanted}.")));
        }
        planner.physical_expression(&cast(expr, wanted.clone()), &input)?;
        Ok((value, reads))
    }
}

/// Gives the calls of users' functions the arguments that they leave out. Calls without a default for them stay. Fails for
/// a call of a function that returns a table, if it isn't in FROM or depends on rows.
pub(crate) fn fill_defaults(tree: &mut impl VisitMut, relations: &dyn Relations) -> Result<()> {
    match walk_mut(tree, &mut Calls(relations.routine_catalog())) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Calls<'a>(&'a dyn RoutineCatalog);

impl Calls<'_> {
    fn function(&self, name: &ObjectName) -> Option<Arc<UserFunction>> {
        match self.0.routine(&name_of(name)?)? {
            Routine::Function(function) => Some(function),
            Routine::Aggregate(_) => None,
        }
    }
}

impl VisitorMut for Calls<'_> {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let (name, arguments, alias, is_numbered) = match factor {
            TableFactor::Table { name, args: Some(arguments), alias, with_ordinality, .. } => {
                (name, &mut arguments.args, alias, *with_ordinality)
            }
            TableFactor::Function { name, args, alias, with_ordinality, .. } => {
                (name, args, alias, *with_ordinality)
            }
            _ => return ControlFlow::Continue(()),
        };
        let Some(function) = self.function(name).filter(|function| function.returns_rows()) else {
            return ControlFlow::Continue(());
        };
        if is_numbered {
            let what = format!("\"{}\" WITH ORDINALITY", function.name);
            let error = Error::unsupported(what);
            return ControlFlow::Break(error.hint("Number the rows with row_number() in the body."));
        }
        if arguments.iter().any(reads_columns) {
            let what = format!("a column as an argument of \"{}\" in FROM", function.name);
            let error = Error::unsupported(what);
            return ControlFlow::Break(error.hint("Pass a constant, such as 3, 'text' or now()."));
        }
        let filled = values(arguments, &function);
        let arguments = match filled {
            Some(values) => values.into_iter().map(FunctionArg::Unnamed).collect(),
            None => std::mem::take(arguments),
        };
        let alias = alias.take();
        // The planner reads this name without quotes.
        let mut call =
            named_factor(ObjectName::from(vec![Ident::new(&function.name)]), quoted(&function.name));
        if let TableFactor::Table { args, alias: place, .. } = &mut call {
            *args = Some(TableFunctionArgs { args: arguments, settings: None });
            if alias.is_some() {
                *place = alias;
            }
        }
        *factor = call;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut ExprTree) -> ControlFlow<Error> {
        if let ExprTree::Function(call) = expression
            && let Some(function) = self.function(&call.name)
        {
            if function.returns_rows() {
                let what = format!("a call of \"{}\", which returns a table, outside of FROM", function.name);
                let hint = format!("Write SELECT * FROM {}(…).", function.name);
                return ControlFlow::Break(Error::unsupported(what).hint(hint));
            }
            fill(call, &function);
        }
        ControlFlow::Continue(())
    }
}

/// True if an argument names a column.
fn reads_columns(argument: &FunctionArg) -> bool {
    let value = match argument {
        FunctionArg::Unnamed(value) => value,
        FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } => arg,
    };
    let FunctionArgExpr::Expr(value) = value else { return false };
    let found = visit_expressions(value, |part| match part {
        ExprTree::Identifier(_) | ExprTree::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Returns the name of a user's function in a call: `f` or `public.f`.
fn name_of(name: &ObjectName) -> Option<String> {
    let part = |part: &ObjectNamePart| part.as_ident().map(fold);
    match name.0.as_slice() {
        [name] => part(name),
        [schema, name] if part(schema)? == PUBLIC => part(name),
        _ => None,
    }
}

fn fill(call: &mut Function, function: &UserFunction) {
    if let FunctionArguments::List(list) = &mut call.args
        && list.args.len() < function.parameters.len()
        && let Some(values) = values(&list.args, function)
    {
        list.args = values.into_iter().map(FunctionArg::Unnamed).collect();
    }
}

/// Returns one argument per parameter; none if an argument is missing that has no default, or if one has no parameter.
fn values(given: &[FunctionArg], function: &UserFunction) -> Option<Vec<FunctionArgExpr>> {
    let parameters = &function.parameters;
    let named = |name: &Ident| {
        let name = fold(name);
        parameters.iter().position(|parameter| parameter.name.as_ref() == Some(&name))
    };
    let mut values: Vec<Option<FunctionArgExpr>> = vec![None; parameters.len()];
    let mut are_named = false;
    for (place, argument) in given.iter().enumerate() {
        let (place, value) = match argument {
            FunctionArg::Unnamed(value) if !are_named => (place, value),
            FunctionArg::Named { name, arg, .. }
            | FunctionArg::ExprNamed { name: ExprTree::Identifier(name), arg, .. } => {
                are_named = true;
                (named(name)?, arg)
            }
            _ => return None,
        };
        if values.get_mut(place)?.replace(value.clone()).is_some() {
            return None;
        }
    }
    let default = |place: usize| function.defaults.trees.get(place).cloned().flatten();
    let filled = values.into_iter().enumerate();
    filled.map(|(place, value)| value.or_else(|| default(place).map(FunctionArgExpr::Expr))).collect()
}
