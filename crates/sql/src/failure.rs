//! Translates DataFusion's errors for the user.
//!
//! The planner's errors become messages with similar names and a position in the text, without DataFusion's
//! own prefixes. Errors of a running query (a cast, a division by zero) stay readable without the text.

mod arguments;
mod values;

use std::ops::Range;

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, Diagnostic, SchemaError, Span, TableReference};
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::{Error, Kind};
use crate::rules::conditions;
use crate::sqlstate;
use crate::suggestion;
use crate::tokens;

/// Advice for a set-returning function where no rows can result.
pub(crate) const MOVE_INTO_FROM: &str = "Move it into FROM: SELECT … FROM t, LATERAL unnest(t.a) AS x.";

/// Returns the error for a set-returning function that no rewriting has found a place for.
fn misplaced() -> Error {
    Error::invalid(
        "a set-returning function is only allowed in FROM, in GROUP BY and in the select list, there outside of \
         aggregates and window functions",
    )
    .hint(MOVE_INTO_FROM)
    .code(sqlstate::FEATURE_NOT_SUPPORTED)
}

/// Converts a DataFusion error about this text into ours.
pub(crate) fn explain(error: &DataFusionError, sql: Option<&str>) -> Error {
    let mut reader = ErrorTranslator { sql, diagnostic: None };
    let mut found = reader.read(error);
    if found.span.is_none()
        && found.kind == Kind::Invalid
        && let Some(span) = reader.diagnostic.as_ref().and_then(|diagnostic| diagnostic.span)
    {
        found.span = sql.and_then(|sql| span_bytes(sql, &span));
    }
    found
}

/// Returns the reason why a row fails, in the same words as a SELECT that fails on the row.
pub fn of_data(message: &str) -> String {
    let message = lower_first(&plain(message));
    values::cast_failed(&message).unwrap_or(message)
}

/// Walks down to an error's cause and keeps the first position on the way.
struct ErrorTranslator<'a> {
    sql: Option<&'a str>,
    diagnostic: Option<Diagnostic>,
}

impl ErrorTranslator<'_> {
    fn read(&mut self, error: &DataFusionError) -> Error {
        match error {
            DataFusionError::Context(_, inner) => self.read(inner),
            DataFusionError::Shared(inner) => self.read(inner),
            DataFusionError::Collection(all) => match all.first() {
                Some(first) => self.read(first),
                None => Error::bug("the planner failed without a reason"),
            },
            DataFusionError::Diagnostic(diagnostic, inner) => {
                self.diagnostic.get_or_insert_with(|| diagnostic.as_ref().clone());
                self.read(inner)
            }
            DataFusionError::SQL(error, _) => self.syntax(error),
            DataFusionError::SchemaError(error, _) => self.schema(error),
            DataFusionError::Plan(message) => self.plan(message),
            DataFusionError::ArrowError(error, _) => self.arrow(error),
            DataFusionError::External(error) => self.foreign(error.as_ref()),
            DataFusionError::NotImplemented(message) if message.starts_with("Unnest should be rewritten") => {
                misplaced()
            }
            DataFusionError::NotImplemented(message) => not_built(message),
            DataFusionError::Execution(message) => Error::invalid(of_data(message)),
            DataFusionError::Configuration(message) => Error::invalid(plain(message)),
            DataFusionError::ResourcesExhausted(message) => Error::external(plain(message))
                .hint("Read, sort or join fewer rows, or raise query_memory_limit or memory_limit.")
                .code(sqlstate::OUT_OF_MEMORY),
            DataFusionError::IoError(error) => Error::external(error.to_string()),
            DataFusionError::Internal(message) if message.contains("not implemented for type") => {
                not_built(message)
            }
            DataFusionError::Internal(message) => {
                match message.strip_prefix("Cannot run range queries on datatype: ") {
                    Some(data_type) => not_ordered(&plain(data_type)),
                    None => Error::bug(plain(message)),
                }
            }
            other => Error::bug(plain(&other.to_string())),
        }
    }

    fn foreign(&mut self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
        if let Some(ours) = error.downcast_ref::<Error>() {
            match quoted(&ours.message, "table function \"", '"') {
                Some(name) => self.name(ours.clone(), name),
                None => ours.clone(),
            }
        } else if let Some(inner) = error.downcast_ref::<DataFusionError>() {
            self.read(inner)
        } else if let Some(inner) = error.downcast_ref::<ArrowError>() {
            self.arrow(inner)
        } else {
            Error::external(error.to_string())
        }
    }

    fn arrow(&mut self, error: &ArrowError) -> Error {
        match error {
            ArrowError::DivideByZero => Error::invalid("division by zero"),
            ArrowError::ExternalError(inner) => self.foreign(inner.as_ref()),
            ArrowError::CastError(m)
            | ArrowError::ParseError(m)
            | ArrowError::ComputeError(m)
            | ArrowError::ArithmeticOverflow(m)
            | ArrowError::InvalidArgumentError(m)
            | ArrowError::SchemaError(m) => Error::invalid(of_data(m)),
            ArrowError::NotYetImplemented(m) => not_built(m),
            ArrowError::IoError(m, _) => Error::external(plain(m)),
            other => Error::invalid(plain(&other.to_string())),
        }
    }

    fn syntax(&self, error: &ParserError) -> Error {
        let (message, kind) = match error {
            ParserError::TokenizerError(message) => (message.as_str(), "syntax error"),
            ParserError::ParserError(message) => (message.as_str(), "syntax error"),
            ParserError::RecursionLimitExceeded => {
                return Error::invalid("the statement is nested too deeply")
                    .hint("Split it with views or WITH.");
            }
        };
        let (message, place) = split_place(message);
        let message = message.replace("Expected: ", "expected ").replace(", found: ", ", found ");
        let message = message.replace("found EOF", "found the end of the statement");
        // The token that was found may be a comma.
        let shown = match message.ends_with("found ,") {
            true => message.as_str(),
            false => message.trim_end_matches([',', '.', ' ']),
        };
        let error = Error::invalid(format!("{kind}: {}", lower_first(shown)));
        match (self.sql, place) {
            (Some(sql), Some((line, column))) => error.at(tokens::token_at(sql, line, column)),
            (Some(sql), None) if message.contains("the end of the statement") => {
                error.at(sql.len()..sql.len())
            }
            _ => error,
        }
    }

    fn schema(&self, error: &SchemaError) -> Error {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => self.unknown_column(field, valid_fields),
            SchemaError::AmbiguousReference { field } => self
                .place(Error::invalid(format!("column \"{}\" is ambiguous", field.name)), field)
                .hint("Write the table's name before it, as in t.x."),
            SchemaError::DuplicateQualifiedField { qualifier, name } => {
                Error::invalid(format!("column \"{qualifier}.{name}\" appears twice"))
                    .hint("Give the tables aliases of their own.")
            }
            SchemaError::DuplicateUnqualifiedField { name } => {
                Error::invalid(format!("column \"{name}\" appears twice")).hint("Name one of them with AS.")
            }
        }
    }

    fn unknown_column(&self, field: &Column, valid: &[Column]) -> Error {
        let message = match &field.relation {
            Some(relation) => format!("column \"{}\" not found in \"{}\"", field.name, named(relation)),
            None => format!("column \"{}\" not found", field.name),
        };
        // A name in the named table is nearer than the same name elsewhere.
        let of_table: Vec<&Column> = match &field.relation {
            Some(relation) => valid
                .iter()
                .filter(|c| c.relation.as_ref().is_some_and(|r| relation.resolved_eq(r)))
                .collect(),
            None => Vec::new(),
        };
        let hint = if let (Some(relation), true) = (&field.relation, of_table.is_empty()) {
            let tables = valid.iter().filter_map(|c| c.relation.as_ref()).map(|r| r.table());
            suggestion::hint(relation.table(), "tables here", once_each(tables))
        } else if of_table.is_empty() {
            suggestion::hint(&field.name, "columns", once_each(valid.iter().map(|c| c.name.as_str())))
        } else {
            suggestion::hint(&field.name, "columns", of_table.iter().map(|c| c.name.as_str()))
        };
        self.place(Error::invalid(message), field).maybe_hint(hint)
    }

    /// Sets the position of a column: the planner's, or else the only place where the name occurs.
    fn place(&self, error: Error, column: &Column) -> Error {
        let Some(sql) = self.sql else { return error };
        let given = column
            .spans()
            .first()
            .or_else(|| self.diagnostic.as_ref().and_then(|diagnostic| diagnostic.span))
            .and_then(|span| span_bytes(sql, &span));
        match given.or_else(|| tokens::only_place_of(sql, &column.name)) {
            Some(span) => error.at(span),
            None => error,
        }
    }

    fn plan(&self, message: &str) -> Error {
        let message = plain(message);
        if let Some((name, suggestion)) = unknown_function(&message) {
            let near = suggestion::did_you_mean(name, suggestion);
            return self
                .name(Error::invalid(format!("function \"{name}\" not found")).maybe_hint(near), name);
        }
        if let Some(name) = quoted(&message, "table function '", '\'') {
            return self.name(Error::invalid(format!("table function \"{name}\" not found")), name);
        }
        if let Some(name) = message.strip_prefix("Invalid qualifier ") {
            return self.name(Error::invalid(format!("table \"{name}\" not found in FROM")), name);
        }
        let (message, place) = split_place(&message);
        let error = conditions::reworded(message, self.sql).or_else(|| reword(message));
        let error = error.unwrap_or_else(|| Error::invalid(lower_first(&values::with_sql_types(message))));
        match (self.sql, place) {
            (Some(sql), Some((line, column))) => error.at(tokens::token_at(sql, line, column)),
            _ => error,
        }
    }

    fn name(&self, error: Error, name: &str) -> Error {
        match self.sql.and_then(|sql| tokens::only_place_of(sql, name)) {
            Some(span) if self.diagnostic.as_ref().is_none_or(|d| d.span.is_none()) => error.at(span),
            _ => error,
        }
    }
}

/// Rewords `a" at position 0 and "b" at position 1 have the same name …`.
fn same_names(columns: &str) -> Error {
    let name = columns.split_once("\" at position ").map_or(columns, |(name, _)| name);
    // A cast is named after what it casts.
    let name = match name.strip_prefix("CAST(").and_then(|cast| cast.rsplit_once(" AS ")) {
        Some((argument, _)) if name.ends_with(')') => argument,
        _ => name.rsplit_once(" AS ").map_or(name, |(_, alias)| alias),
    };
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || "_.\"".contains(c));
    let name = if is_plain { name.rsplit('.').next().unwrap_or(name).trim_matches('"') } else { name };
    Error::invalid(format!("column \"{name}\" appears twice in the result")).hint("Name one of them with AS.")
}

/// Returns a relation's name without the schema `public`.
fn named(relation: &TableReference) -> String {
    match relation.schema() {
        Some("public") => relation.table().to_string(),
        _ => relation.to_string(),
    }
}

/// Rewords messages of the planner.
fn reword(message: &str) -> Option<Error> {
    if let Some(column) = quoted(message, "column \"", '"')
        && message.contains("must appear in the GROUP BY clause")
    {
        let text = format!("column \"{column}\" must appear in GROUP BY or be used in an aggregate function");
        return Some(Error::invalid(text));
    }
    if let Some(columns) =
        message.strip_prefix("Projections require unique expression names but the expression \"")
    {
        return Some(same_names(columns));
    }
    if let Some(error) = arguments::reword(message) {
        return Some(error);
    }
    let rewritten = message.strip_prefix("Too many columns! The subquery")?;
    Some(Error::invalid(format!("the subquery{rewritten}")))
}

/// Returns the error for a function OVER with an ORDER BY over values that have no order.
fn not_ordered(data_type: &str) -> Error {
    Error::invalid(format!("values of type {data_type} have no order, but ORDER BY in OVER (…) requires one"))
        .hint("Order by a part of the value, or by its text.")
}

fn not_built(message: &str) -> Error {
    let plain_message = plain(message);
    if let Some(name) = plain_message.strip_prefix("Unsupported SQL type ") {
        return crate::type_names::unknown_type(name);
    }
    if let Some(part) = plain_message.strip_prefix("Physical plan does not support logical expression ") {
        return match part.starts_with("Wildcard") {
            true => {
                Error::invalid("* is no argument of this function").hint("Only count takes it: count(*).")
            }
            false => Error::unsupported("a subquery of this kind")
                .hint("Write it as a join, or aggregate in the subquery: (SELECT max(x) FROM … WHERE …)."),
        };
    }
    let within =
        plain_message.strip_prefix("Query ").and_then(|rest| rest.strip_suffix(" not implemented yet"));
    if let Some(verb) = within.and_then(|text| text.split(' ').next()) {
        return Error::invalid(format!("a query can't contain {verb}"))
            .hint("Run it as a statement of its own: a WITH may come before it.");
    }
    let message = lower_first(&plain_message);
    match message.contains("not supported") || message.contains("not implemented") {
        true => Error::invalid(message),
        false => Error::invalid(format!("not supported yet: {message}")),
    }
}

/// Parses `Invalid function 'x'.` and the suggested name.
fn unknown_function(message: &str) -> Option<(&str, Option<&str>)> {
    let name = quoted(message, "Invalid function '", '\'')?;
    Some((name, quoted(message, "Did you mean '", '\'')))
}

/// Returns the distinct names in their order.
fn once_each<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// Returns the part of a message between `before` and a quote.
fn quoted<'a>(message: &'a str, before: &str, quote: char) -> Option<&'a str> {
    let rest = &message[message.find(before)? + before.len()..];
    rest.find(quote).map(|end| &rest[..end])
}

/// Removes the prefixes that name the component of DataFusion that wrote a message.
fn plain(message: &str) -> String {
    const PREFIXES: [&str; 14] = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
        "Optimizer rule ",
        "External error: ",
        "SQL error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "DataFusion error: ",
    ];
    let mut text = message;
    // Both follow a line end, which is much quicker to look for: each failing row comes by here.
    for after in ["\nbacktrace:", "\nThis issue was likely caused by a bug in DataFusion"] {
        if text.contains('\n')
            && let Some(end) = text.find(after)
        {
            text = text[..end].trim_end();
        }
    }
    loop {
        let before = text;
        for prefix in PREFIXES {
            if prefix == "Optimizer rule "
                && text.starts_with(prefix)
                && let Some(at) = text.find("caused by\n")
            {
                text = &text[at + "caused by\n".len()..];
            } else if prefix != "Optimizer rule " {
                text = text.strip_prefix(prefix).unwrap_or(text);
            }
        }
        if text == before {
            return text.trim_end().to_string();
        }
    }
}

/// Splits ` at Line: 1, Column: 8` off a message.
fn split_place(message: &str) -> (&str, Option<(u64, u64)>) {
    let Some(at) = message.rfind(" at Line: ") else { return (message, None) };
    let mut numbers = message[at + " at Line: ".len()..].split(", Column: ");
    let mut next = || numbers.next().and_then(|text| text.trim().parse::<u64>().ok());
    match (next(), next()) {
        (Some(line), Some(column)) => (message[..at].trim_end(), Some((line, column))),
        _ => (message, None),
    }
}

/// Lowers the first letter of a message, since ours start in lower case. Names in capitals stay.
fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &message[1..])
        }
        _ => message.to_string(),
    }
}

fn span_bytes(sql: &str, span: &Span) -> Option<Range<usize>> {
    let start = tokens::offset(sql, span.start.line, span.start.column)?;
    let end = tokens::offset(sql, span.end.line, span.end.column)?;
    (start <= end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tables;

    fn check(sql: &str, expected: &str) {
        Tables::new()
            .table(
                "t",
                "(id INT PRIMARY KEY, name TEXT, n DOUBLE, d DATE)",
                "VALUES (1, 'a', 1.5, '2024-01-01')",
            )
            .table("u", "(id INT, v INT)", "VALUES (1, 2)")
            .fails(sql, expected);
    }

    #[test]
    fn grouping_and_aggregates() {
        check(
            "SELECT name, count(*) FROM t",
            "column \"t.name\" must appear in GROUP BY or be used in an aggregate function\nLINE 1: SELECT name, count(*) FROM t\n               ^^^^",
        );
        check(
            "SELECT sum(name) FROM t",
            "function \"sum\" doesn't take TEXT\nHINT: Cast the argument, as in x::TYPE.",
        );
        check(
            "SELECT max(*) FROM t",
            "* is no argument of this function\nHINT: Only count takes it: count(*).",
        );
        check(
            "SELECT rank() FROM t",
            "function \"rank\" needs an OVER clause\nLINE 1: SELECT rank() FROM t\n               ^^^^\nHINT: Write rank() OVER (ORDER BY …).",
        );
    }

    #[test]
    fn arguments_and_types() {
        check(
            "SELECT abs('x') FROM t",
            "function 'abs' expects Numeric but received String\nHINT: It takes abs(Numeric(1)). Cast the arguments, as in x::TYPE.",
        );
        check(
            "SELECT id + 'x' FROM t",
            "cannot coerce arithmetic expression INT + TEXT to valid types\nLINE 1: SELECT id + 'x' FROM t\n               ^^",
        );
        check("SELECT id::BIGNIT FROM t", "type \"BIGNIT\" not found\nHINT: Did you mean \"bigint\"?");
        check(
            "SELECT * FROM t WHERE id",
            "the condition of WHERE is of type INT; a boolean is expected\nHINT: Compare it with something, as in x <> 0.",
        );
    }

    #[test]
    fn names_and_subqueries() {
        check(
            "SELECT a.* FROM t",
            "table \"a\" not found in FROM\nLINE 1: SELECT a.* FROM t\n               ^",
        );
        check(
            "SELECT zz FROM t",
            "column \"zz\" not found\nLINE 1: SELECT zz FROM t\n               ^^\nHINT: The columns are id, name, n, d.",
        );
        check(
            "SELECT id FROM t WHERE id = (SELECT id, v FROM u)",
            "the subquery should only return one column: u.id, u.v",
        );
    }

    #[test]
    fn failing_rows() {
        check("SELECT 1 / (id - id) FROM t", "division by zero");
        check("SELECT name::INT FROM t", "cannot cast 'a' to INT");
        check("SELECT DATE '2024-13-01'", "cannot cast '2024-13-01' to DATE");
        check("SELECT INTERVAL '1 foo'", "invalid input syntax for type interval: \"1 foo\"");
    }

    #[test]
    fn prefixes_of_the_query_engine_are_cut() {
        for (message, expected) in [
            ("Error during planning: x", "x"),
            ("Execution error: Arrow error: Cast error: y", "y"),
            ("Optimizer rule 'a' failed\ncaused by\nError during planning: z", "z"),
            ("w\n\nbacktrace: 1", "w"),
        ] {
            assert_eq!(plain(message), expected);
        }
        let error = DataFusionError::Plan("x".into()).context("Optimizer rule 'a' failed").context("b");
        assert_eq!(Error::from(error).message, "x");
    }

    #[test]
    fn who_must_act_is_kept() {
        assert_eq!(Error::from(DataFusionError::Internal("x".into())).kind, Kind::Bug);
        let unordered = DataFusionError::Internal("Cannot run range queries on datatype: Union".into());
        assert_eq!(Error::from(unordered).kind, Kind::Invalid);
        assert_eq!(Error::from(DataFusionError::ResourcesExhausted("x".into())).kind, Kind::External);
        assert_eq!(Error::from(DataFusionError::Execution("x".into())).kind, Kind::Invalid);
        let ours = Error::corrupt("x").hint("y");
        let through: DataFusionError = DataFusionError::from(ours.clone()).context("z");
        assert_eq!(Error::from(through), ours);
    }
}
