//! `CREATE [OR REPLACE] FUNCTION f(v BIGINT[], s BIGINT) RETURNS BIGINT [LANGUAGE SQL] [IMMUTABLE] [STRICT]
//! RETURN …` (or `AS 'SELECT …'`, or `BEGIN ATOMIC SELECT …; END`): a user-defined function.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::routines::{FunctionDeclaration, Parameter, Returns, parameter_default};
use millstream_sql::{AtomicBlocks, Error, Result, TokenReader, routine_name};

use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_FUNCTION: Statement = Statement {
    words: &[&["CREATE", "FUNCTION"], &["CREATE", "OR", "REPLACE", "FUNCTION"]],
    synopsis: concat!(
        "CREATE [OR REPLACE] FUNCTION name ([parameter] type [DEFAULT expression], …) RETURNS type\n",
        "  [LANGUAGE SQL] [IMMUTABLE | STABLE | VOLATILE] [STRICT | RETURNS NULL ON NULL INPUT] RETURN expression;\n",
        "CREATE [OR REPLACE] FUNCTION name ([parameter] type, …) RETURNS type AS 'query; …' LANGUAGE SQL;\n",
        "CREATE [OR REPLACE] FUNCTION name ([parameter] type, …) RETURNS type BEGIN ATOMIC query; … END;\n",
        "CREATE [OR REPLACE] FUNCTION name ([parameter] type, …) RETURNS {TABLE (column type, …) | SETOF type}\n",
        "  [LANGUAGE SQL] {RETURN query | AS 'query; …' | BEGIN ATOMIC query; … END};",
    ),
    purpose: "define a function",
    pages: &["create-function"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

/// Words that end a type in a CREATE FUNCTION.
const AFTER_TYPE: [&str; 19] = [
    "LANGUAGE",
    "IMMUTABLE",
    "STABLE",
    "VOLATILE",
    "NOT",
    "LEAKPROOF",
    "CALLED",
    "RETURNS",
    "STRICT",
    "EXTERNAL",
    "SECURITY",
    "PARALLEL",
    "COST",
    "ROWS",
    "SUPPORT",
    "SET",
    "AS",
    "RETURN",
    "BEGIN",
];

/// The clauses after the return type.
#[derive(Default)]
struct Clauses {
    strict: bool,
    /// The statements, and the offset to add to a position in them to get one in the statement.
    body: Option<(String, usize)>,
}

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let replace = TokenReader::new(reader.text())?.is_keyword(&["CREATE", "OR", "REPLACE"]);
    let name = reader.routine()?;
    let at = reader.last_position();
    let parameters = parameters(session, &mut reader)?;
    reader.expect_keyword(&["RETURNS"])?;
    if reader.is_keyword(&["TRIGGER"]) {
        return Err(Error::unsupported("a trigger").at(reader.position()));
    }
    let returns = returns(session, &mut reader, &name)?;
    let Clauses { strict, body } = clauses(&mut reader, matches!(returns, Returns::Rows(_)))?;
    let Some((body, offset)) = body else {
        return Err(reader.expected("RETURN expression, AS 'SELECT …' or BEGIN ATOMIC SELECT …; END"));
    };
    let declaration = FunctionDeclaration { name: name.clone(), parameters, returns, strict, body };
    let function = session
        .shared
        .planner
        .function(declaration, working.catalog.as_ref())
        .map_err(|error| if error.span.is_some() { error.shift(offset) } else { error.at(at.clone()) })?;
    let reads = function.reads().iter().map(|name| name.as_str().into()).collect();
    make_room(working, &name, "FUNCTION", replace).map_err(|error| error.at(at))?;
    let definition = Definition::Function(Arc::new(function));
    let name = routine_name(&name).into();
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(Tag::new("CREATE FUNCTION"))
}

/// Removes the object that CREATE OR REPLACE replaces. Fails if the name is still taken.
pub(super) fn make_room(working: &mut Working, name: &str, kind: &str, replace: bool) -> Result<()> {
    let key = routine_name(name);
    let Some(old) = working.catalog.find(&key) else { return Ok(()) };
    let found = old.definition.kind();
    if !replace || found.to_uppercase() != kind {
        let other = if replace { "" } else { ", or use CREATE OR REPLACE" };
        return Err(Error::invalid(format!("{found} \"{name}\" already exists"))
            .hint(format!("Functions can't be overloaded. Drop it first{other}.")));
    }
    let users = working.catalog.dependants(&key);
    if !users.is_empty() {
        let users: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
        return Err(Error::invalid(format!("{found} \"{name}\" is used by {}", users.join(", ")))
            .hint("Drop these first: objects that use a function can't follow a change of it yet."));
    }
    working.drop(vec![key.into()]);
    Ok(())
}

/// Reads `(v BIGINT[], s BIGINT DEFAULT 0)`.
pub(super) fn parameters(session: &Session, reader: &mut TokenReader<'_>) -> Result<Vec<Parameter>> {
    let mut parameters = Vec::new();
    reader.expect_symbol(Token::LParen)?;
    if reader.symbol(Token::RParen) {
        return Ok(parameters);
    }
    loop {
        for word in ["OUT", "INOUT", "VARIADIC"] {
            if reader.is_keyword(&[word]) && matches!(reader.peek_at(1), Token::Word(_)) {
                return Err(Error::unsupported(format!("{word} parameters")).at(reader.position()));
            }
        }
        if reader.is_keyword(&["IN"]) && matches!(reader.peek_at(1), Token::Word(_)) {
            reader.next();
        }
        let mut parameter = parameter(session, reader)?;
        if reader.keyword(&["DEFAULT"]) || reader.symbol(Token::Eq) {
            parameter.default = Some(parameter_default(reader)?);
        }
        parameters.push(parameter);
        if reader.symbol(Token::RParen) {
            return Ok(parameters);
        }
        if !reader.symbol(Token::Comma) {
            return Err(reader.expected("\",\" or \")\""));
        }
    }
}

/// Reads `BIGINT`, `TABLE (a BIGINT, b TEXT)` or `SETOF BIGINT`: a table with one column, which has the function's name.
fn returns(session: &Session, reader: &mut TokenReader<'_>, name: &str) -> Result<Returns> {
    let planner = &session.shared.planner;
    let mut columns: Vec<(String, DataType)> = Vec::new();
    if reader.keyword(&["SETOF"]) {
        let of = planner.type_until(reader, &AFTER_TYPE)?.data_type().clone();
        return Ok(Returns::Rows(vec![(name.to_string(), of)]));
    }
    if !reader.keyword(&["TABLE"]) {
        return Ok(Returns::Value(planner.type_until(reader, &AFTER_TYPE)?.data_type().clone()));
    }
    reader.expect_symbol(Token::LParen)?;
    loop {
        let (column, at) = (reader.identifier()?, reader.last_position());
        if columns.iter().any(|(known, _)| *known == column) {
            return Err(Error::invalid(format!("column \"{column}\" is declared twice")).at(at));
        }
        columns.push((column, planner.type_until(reader, &[])?.data_type().clone()));
        if reader.symbol(Token::RParen) {
            return Ok(Returns::Rows(columns));
        }
        if !reader.symbol(Token::Comma) {
            return Err(reader.expected("\",\" or \")\""));
        }
    }
}

/// Reads a type, or a name and a type.
fn parameter(session: &Session, reader: &mut TokenReader<'_>) -> Result<Parameter> {
    let planner = &session.shared.planner;
    let ends = ["DEFAULT", "="];
    let mut alone = reader.clone();
    if let Ok(found) = planner.type_until(&mut alone, &ends) {
        *reader = alone;
        return Ok(Parameter { name: None, data_type: found.data_type().clone(), default: None });
    }
    let name = reader.identifier()?;
    let data_type = planner.type_until(reader, &ends)?.data_type().clone();
    Ok(Parameter { name: Some(name), data_type, default: None })
}

/// Reads the clauses after the return type, in any order. RETURN takes a query if the function returns rows, else an
/// expression.
fn clauses(reader: &mut TokenReader<'_>, returns_rows: bool) -> Result<Clauses> {
    let mut found = Clauses::default();
    while !reader.is_end() {
        if reader.keyword(&["LANGUAGE"]) {
            let named = reader.position();
            let language = reader.value()?;
            if !language.eq_ignore_ascii_case("sql") {
                return Err(Error::unsupported(format!("LANGUAGE {language}"))
                    .hint("Functions are written in SQL.")
                    .at(named));
            }
        } else if reader.keyword(&["STRICT"]) || reader.keyword(&["RETURNS", "NULL", "ON", "NULL", "INPUT"]) {
            found.strict = true;
        } else if reader.keyword(&["CALLED", "ON", "NULL", "INPUT"]) {
            found.strict = false;
        } else if reader.keyword(&["PARALLEL"]) {
            reader.identifier()?;
        } else if reader.keyword(&["COST"]) {
            reader.value()?;
        } else if passed_over(reader) {
            // These need no action: the body determines the function's properties.
        } else if reader.keyword(&["AS"]) {
            let place = reader.position();
            let text = reader.string()?;
            let written = &reader.text()[place.clone()];
            let offset = written.find(text.as_str()).map_or(place.start, |offset| place.start + offset);
            found.body = Some((text, offset));
            if *reader.peek() == Token::Comma {
                return Err(reader.expected("the end of the statement"));
            }
        } else if reader.keyword(&["RETURN"]) {
            let range = reader.take_rest();
            let select = if returns_rows { "" } else { "SELECT " };
            let text = format!("{select}{}", &reader.text()[range.clone()]);
            found.body = Some((text, range.start - select.len()));
        } else if reader.is_keyword(&["BEGIN"]) {
            found.body = Some(block(reader)?);
        } else {
            return Err(reader.expected("RETURN, AS, BEGIN ATOMIC, LANGUAGE SQL, IMMUTABLE or STRICT"));
        }
    }
    Ok(found)
}

/// Reads `BEGIN ATOMIC statement; … END`. Returns the statements and their offset.
fn block(reader: &mut TokenReader<'_>) -> Result<(String, usize)> {
    let begin = reader.position();
    reader.expect_keyword(&["BEGIN", "ATOMIC"])?;
    let start = reader.last_position().end;
    let mut blocks = AtomicBlocks::default();
    for word in ["BEGIN", "ATOMIC"] {
        blocks.ends_statement(&Token::make_keyword(word));
    }
    while blocks.is_open() {
        if reader.is_end() {
            return Err(Error::invalid("syntax error: BEGIN ATOMIC without END").at(begin));
        }
        blocks.ends_statement(&reader.next());
    }
    Ok((reader.text()[start..reader.last_position().start].to_string(), start))
}

fn passed_over(reader: &mut TokenReader<'_>) -> bool {
    let phrases: &[&[&str]] = &[
        &["IMMUTABLE"],
        &["STABLE"],
        &["VOLATILE"],
        &["NOT", "LEAKPROOF"],
        &["LEAKPROOF"],
        &["SECURITY", "INVOKER"],
    ];
    reader.one_of(phrases).is_some()
}
