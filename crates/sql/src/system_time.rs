//! `FROM t FOR SYSTEM_TIME AS OF 17`, `… AS OF now() - INTERVAL '1 minute'`: a relation's content at a past
//! moment.
//!
//! A moment that is the same for all rows is known when a query is planned. The relation as of that moment is
//! then a relation of its own, a call of the table function [`AS_OF`]: `system_time_as_of('t', 'epoch',
//! '17')`. A whole number is an epoch, any other expression a time.
//!
//! Deliberately absent: moments that differ by row, which only joins support ([`crate::time_joins`]).

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Statement, TableAlias,
    TableFactor, TableFunctionArgs, TableVersion, Value, ValueWithSpan, VisitorMut,
};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use crate::ast_walk::{visit_expressions, walk_mut};
use crate::error::{Error, Result};
use crate::hidden_columns::{fold, last_name};
use crate::relation::SYSTEM_SCHEMAS;
use crate::tokens::DIALECT;

/// The table function that returns a relation as of a moment.
pub const AS_OF: &str = "system_time_as_of";

/// Replaces every relation as of a moment by a call of that function, unless the moment differs by row.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<()> {
    match walk_mut(statement, &mut Rewrite) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor.
struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args, version, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(TableVersion::ForSystemTimeAsOf(at)) = version else { return ControlFlow::Continue(()) };
        if is_of_a_row(at) {
            return ControlFlow::Continue(());
        }
        let called = match relation(name, args.is_some()).and_then(|name| arguments(&name, at)) {
            Ok(arguments) => {
                let name = Ident::with_quote('"', last_name(name).unwrap_or_default());
                alias.get_or_insert(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
                arguments
            }
            Err(error) => return ControlFlow::Break(error),
        };
        *name = ObjectName::from(vec![Ident::new(AS_OF)]);
        *args = Some(TableFunctionArgs { args: called, settings: None });
        *version = None;
        ControlFlow::Continue(())
    }
}

/// True if a moment may differ by row: it names columns or calls PROCTIME().
fn is_of_a_row(at: &Expr) -> bool {
    let of_a_row = |part: &Expr| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Function(call) => {
            let bare = matches!(&call.args, FunctionArguments::List(list) if list.args.is_empty());
            bare && last_name(&call.name).as_deref() == Some("proctime")
        }
        _ => false,
    };
    let found = visit_expressions(at, |part| match of_a_row(part) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Returns the name of the relation that is read as of a moment.
fn relation(name: &ObjectName, is_function: bool) -> Result<String> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
    match parts.as_slice() {
        [relation] if !is_function => Ok(relation.clone()),
        [schema, relation] if !is_function && !SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
            Ok(format!("{schema}.{relation}"))
        }
        _ => Err(Error::unsupported(format!("FOR SYSTEM_TIME AS OF behind {name}")).hint(
            "A table, a materialized view, or a stream whose rows change can be read as of a moment that is kept.",
        )),
    }
}

fn arguments(relation: &str, at: &Expr) -> Result<Vec<FunctionArg>> {
    let (kind, value) = match at {
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => ("epoch", at.clone()),
        other => ("time", as_time(other).map_err(|error| Error::invalid(error.to_string()))?),
    };
    let text = |text: &str| Expr::value(Value::SingleQuotedString(text.to_string()));
    let all = [text(relation), text(kind), value].into_iter();
    Ok(all.map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect())
}

/// Casts a time to text that includes its zone.
fn as_time(at: &Expr) -> Result<Expr, ParserError> {
    let text = format!("CAST(CAST({at} AS TIMESTAMP WITH TIME ZONE) AS TEXT)");
    Parser::new(&DIALECT).try_with_sql(&text)?.parse_expr()
}
