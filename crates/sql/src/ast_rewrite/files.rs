//! Rewrites files in FROM to calls of the engine's table functions.
//!
//! | written | planned as |
//! | --- | --- |
//! | `FROM 'in/a.csv'` | `FROM read_file('in/a.csv') AS a` |
//! | `FROM read_csv('a.txt', delim => ';', header = false)` | `FROM read_csv('a.txt', 'delim', ';', 'header', 'false') AS read_csv` |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableFactor,
    TableFunctionArgs, UnaryOperator, Value,
};

use super::text;
use crate::error::{Error, Result};

/// The table functions that read files. The first one is written as a file's name.
pub const READERS: [&str; 4] = ["read_file", "read_csv", "read_json", "read_parquet"];

/// Rewrites a file or a call of a function that reads files.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::Table { name, args, alias, .. } = factor else { return Ok(()) };
    let [part] = name.0.as_slice() else { return Ok(()) };
    let Some(ident) = part.as_ident() else { return Ok(()) };
    let (function, own_alias) = match args {
        None if ident.quote_style == Some('\'') && is_path(&ident.value) => {
            let path = FunctionArg::Unnamed(FunctionArgExpr::Expr(text(&ident.value)));
            let own_alias = stem(&ident.value).map(|stem| Ident::with_quote('"', stem));
            *args = Some(TableFunctionArgs { args: vec![path], settings: None });
            (READERS[0], own_alias)
        }
        Some(arguments) => {
            let lower = ident.value.to_lowercase();
            let Some(function) = READERS.into_iter().find(|reader| *reader == lower) else { return Ok(()) };
            arguments.args = plain(function, std::mem::take(&mut arguments.args))?;
            (function, Some(Ident::new(function)))
        }
        None => return Ok(()),
    };
    if alias.is_none() {
        *alias = own_alias.map(|name| TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    }
    *name = ObjectName::from(vec![Ident::new(function)]);
    Ok(())
}

/// True if a quoted text in FROM is a file rather than a relation's name.
fn is_path(name: &str) -> bool {
    name.contains(['.', '/', '*', '?', '\\'])
}

/// Returns the name of a file without directories and extensions, if there is one file.
fn stem(path: &str) -> Option<String> {
    let stem = path.rsplit('/').next()?.split('.').next()?;
    let is_name = !stem.is_empty() && !stem.contains(['*', '?', '[']);
    is_name.then(|| stem.to_string())
}

/// Returns the arguments without names: each name comes before its value.
fn plain(function: &str, arguments: Vec<FunctionArg>) -> Result<Vec<FunctionArg>> {
    let wrong = |argument: String| {
        Error::invalid(format!(
            "{function} takes the path of its files and options with constant values, not {argument}"
        ))
        .hint(format!("Write {function}('in/*.csv', delimiter => ';')."))
    };
    let mut all = Vec::with_capacity(arguments.len() * 2);
    for (place, argument) in arguments.into_iter().enumerate() {
        let written = argument.to_string();
        let (name, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            })) => match *left {
                Expr::Identifier(name) => (Some(name.value), *right),
                _ => return Err(wrong(written)),
            },
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (None, value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => (Some(name.value), value),
            FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(value),
                ..
            } => (Some(name.value), value),
            _ => return Err(wrong(written)),
        };
        let (Some(value), true) = (constant(&value), (place == 0) == name.is_none()) else {
            return Err(wrong(written));
        };
        let texts = name.map(|name| name.to_lowercase()).into_iter().chain([value]);
        all.extend(texts.map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(text(&value)))));
    }
    Ok(all)
}

/// Returns the text of a constant.
fn constant(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            Value::Boolean(truth) => Some(truth.to_string()),
            Value::Number(digits, _) => Some(digits.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Some(format!("-{}", constant(expr)?)),
        Expr::Nested(inner) => constant(inner),
        _ => None,
    }
}
