//! Defaults of functions' parameters. A call that leaves arguments out gets them before it is planned.
//!
//! | declared | written | planned as |
//! | --- | --- | --- |
//! | `f(a INT, b INT DEFAULT 1)` | `f(5)` | `f(5, 1)` |
//! | `f(a INT DEFAULT 0, b INT DEFAULT 1)` | `f(b => 5)` | `f(0, 5)` |

use std::ops::ControlFlow;

use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SelectItem, VisitMut,
};
use millstream_delta::sql_type;

use super::Routine;
use super::argument_types::{accepts, is_text};
use super::body::{Scope, column_name, has_queries, single_expression};
use super::function::{Parameter, UserFunction};
use super::statements::BodyPlanner;
use crate::ast_walk::visit_expressions_mut;
use crate::dml::tree::select_of;
use crate::error::{Error, Result};
use crate::hidden_columns::fold;
use crate::planner::{Planner, Raw};
use crate::reader::TokenReader;
use crate::relation::{PUBLIC, Relations};

/// The defaults of a function's parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    /// The default of each parameter, as written.
    trees: Vec<Option<ExprTree>>,
    /// The routines that the defaults call.
    pub(super) reads: Vec<String>,
}

impl Planner {
    /// Reads the expression after DEFAULT in a list of parameters, up to a comma or the closing parenthesis.
    pub fn parameter_default(&self, reader: &mut TokenReader<'_>) -> Result<String> {
        let place = crate::defaults::expression(reader, &[])?;
        Ok(reader.text()[place].to_string())
    }

    /// Plans the defaults of a function's parameters. Each is an expression without columns.
    pub(super) fn planned_defaults(&self, scope: &Scope<'_>) -> Result<Defaults> {
        let mut defaults = Defaults::default();
        for (place, parameter) in scope.parameters.iter().enumerate() {
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
            let planned = self.planned_default(text, parameter, scope).map_err(|error| {
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
    fn planned_default(
        &self,
        text: &str,
        parameter: &Parameter,
        scope: &Scope<'_>,
    ) -> Result<(ExprTree, Vec<String>)> {
        let other = || {
            Error::invalid("an expression without columns, aggregates and subqueries was expected")
                .hint("Write a literal, such as 0 or 'new', or a function, such as now().")
        };
        let select = format!("SELECT ({text})");
        let mut tree = self.parser.parse_query(&TokenReader::new(&select)?)?;
        fill_defaults(&mut tree, scope.relations);
        let value = match select_of(&mut tree)?.projection.as_slice() {
            [SelectItem::UnnamedExpr(value)] => value.clone(),
            _ => return Err(other()),
        };
        let alone = Scope { routine: scope.routine, parameters: &[], relations: scope.relations };
        let bodies = BodyPlanner { planner: self, scope: &alone };
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
        self.physical_expression(&cast(expr, wanted.clone()), &input)?;
        Ok((value, reads))
    }
}

/// Gives the calls of users' functions the arguments that they leave out. Calls without a default for them stay.
pub(crate) fn fill_defaults(tree: &mut impl VisitMut, relations: &dyn Relations) {
    let routines = relations.routine_catalog();
    let _ = visit_expressions_mut(tree, |expression| {
        if let ExprTree::Function(call) = expression
            && let Some(name) = name_of(&call.name)
            && let Some(Routine::Function(function)) = routines.routine(&name)
        {
            fill(call, &function);
        }
        ControlFlow::<()>::Continue(())
    });
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
