//! `CREATE [OR REPLACE] AGGREGATE a(BIGINT) (SFUNC = f, STYPE = BIGINT, INITCOND = '0', …)`: an aggregate
//! made of functions, in PostgreSQL's grammar.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::routines::{AggregateDeclaration, AggregateParts, MovingParts};
use millstream_sql::{Error, Result, TokenReader, routine_name, suggestion};

use super::create_function::{make_room, parameters};
use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_AGGREGATE: Statement = Statement {
    words: &[&["CREATE", "AGGREGATE"], &["CREATE", "OR", "REPLACE", "AGGREGATE"]],
    synopsis: concat!(
        "CREATE [OR REPLACE] AGGREGATE name (type, …) (SFUNC = function, STYPE = type\n",
        "  [, INITCOND = 'text'] [, FINALFUNC = function] [, COMBINEFUNC = function]\n",
        "  [, MSFUNC = function, MINVFUNC = function, MSTYPE = type [, MINITCOND = 'text'] [, MFINALFUNC = function]]);",
    ),
    purpose: "define an aggregate function",
    pages: &["create-aggregate"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

/// The supported options.
const OPTIONS: [&str; 10] = [
    "sfunc",
    "stype",
    "initcond",
    "finalfunc",
    "combinefunc",
    "msfunc",
    "minvfunc",
    "mstype",
    "minitcond",
    "mfinalfunc",
];

/// PostgreSQL's options that don't affect the result; ignored.
const PASSED_OVER: [&str; 5] = ["sspace", "parallel", "finalfunc_modify", "mfinalfunc_modify", "msspace"];

/// PostgreSQL's other options.
const NOT_YET: [&str; 6] =
    ["finalfunc_extra", "mfinalfunc_extra", "serialfunc", "deserialfunc", "sortop", "hypothetical"];

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let replace = TokenReader::new(reader.text())?.is_keyword(&["CREATE", "OR", "REPLACE"]);
    let name = reader.routine()?;
    let at = reader.last_position();
    if *reader.peek_at(1) == Token::Mul {
        return Err(Error::unsupported("an aggregate of no arguments, (*)").at(at));
    }
    let parameters = parameters(session, &mut reader)?;
    if parameters.iter().any(|parameter| parameter.default.is_some()) {
        return Err(Error::unsupported("DEFAULT for a parameter of an aggregate").at(at));
    }
    let parts = options(session, &mut reader)?.parts(&name).map_err(|error| error.at(at.clone()))?;
    reader.expect_end()?;
    let declaration = AggregateDeclaration { name: name.clone(), parameters, parts };
    let planner = &session.shared.planner;
    let aggregate =
        planner.aggregate(declaration, working.catalog.as_ref()).map_err(|error| error.at(at.clone()))?;
    let reads = aggregate.reads().iter().map(|name| name.as_str().into()).collect();
    make_room(working, &name, "AGGREGATE", replace).map_err(|error| error.at(at))?;
    let definition = Definition::Aggregate(Arc::new(aggregate));
    let name = routine_name(&name).into();
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(Tag::new("CREATE AGGREGATE"))
}

/// The options in the second parentheses.
#[derive(Default)]
struct Given {
    step: Option<String>,
    state: Option<DataType>,
    initial: Option<String>,
    finish: Option<String>,
    combine: Option<String>,
    moving: Moving,
}

/// The options for moving aggregates.
#[derive(Default)]
struct Moving {
    step: Option<String>,
    inverse: Option<String>,
    state: Option<DataType>,
    initial: Option<String>,
    finish: Option<String>,
}

impl Moving {
    /// Returns the functions, if any. As in PostgreSQL, all three required options must be given, or none at
    /// all.
    fn parts(self, name: &str) -> Result<Option<MovingParts>> {
        match self {
            Moving { step: Some(step), inverse: Some(inverse), state: Some(state), initial, finish } => {
                Ok(Some(MovingParts { step, inverse, state, initial, finish }))
            }
            Moving { step: None, inverse: None, state: None, initial: None, finish: None } => Ok(None),
            Moving { step, inverse, .. } => {
                let missing = match (step, inverse) {
                    (None, _) => "MSFUNC",
                    (_, None) => "MINVFUNC",
                    _ => "MSTYPE",
                };
                Err(Error::invalid(format!("aggregate \"{name}\" has no {missing}")).hint(
                    "An aggregate that retracts rows has an MSFUNC, a MINVFUNC that inverts it, and the MSTYPE of \
                     their state; MINITCOND and MFINALFUNC are optional.",
                ))
            }
        }
    }
}

impl Given {
    fn parts(self, name: &str) -> Result<AggregateParts> {
        let Some(step) = self.step else {
            return Err(Error::invalid(format!("aggregate \"{name}\" has no SFUNC")).hint(
                "SFUNC = f names the function that takes the state and a row and returns the next state.",
            ));
        };
        let Some(state) = self.state else {
            return Err(Error::invalid(format!("aggregate \"{name}\" has no STYPE"))
                .hint("STYPE = type is the type of the state."));
        };
        let Given { initial, finish, combine, moving, .. } = self;
        Ok(AggregateParts { step, state, initial, finish, combine, moving: moving.parts(name)? })
    }
}

fn options(session: &Session, reader: &mut TokenReader<'_>) -> Result<Given> {
    let mut given = Given::default();
    reader.expect_symbol(Token::LParen)?;
    let mut seen: Vec<String> = Vec::new();
    loop {
        let at = reader.position();
        let option = reader.identifier().map_err(|_| reader.expected("an option, such as SFUNC"))?;
        if seen.contains(&option) {
            return Err(Error::invalid(format!("option \"{option}\" is given twice")).at(at));
        }
        seen.push(option.clone());
        set(session, reader, &mut given, &option, at)?;
        if reader.symbol(Token::RParen) {
            return Ok(given);
        }
        if !reader.symbol(Token::Comma) {
            return Err(reader.expected("\",\" or \")\""));
        }
    }
}

fn set(
    session: &Session,
    reader: &mut TokenReader<'_>,
    given: &mut Given,
    option: &str,
    at: Range<usize>,
) -> Result<()> {
    if NOT_YET.contains(&option) {
        return Err(Error::unsupported(option.to_uppercase()).at(at));
    }
    let known = OPTIONS.contains(&option) || PASSED_OVER.contains(&option);
    if !known {
        return Err(Error::invalid(format!("unknown option \"{option}\""))
            .maybe_hint(suggestion::hint(option, "options", OPTIONS))
            .at(at));
    }
    reader.expect_symbol(Token::Eq)?;
    match option {
        "sfunc" => given.step = Some(reader.identifier()?),
        "stype" => given.state = Some(state_type(session, reader)?),
        "initcond" => given.initial = Some(reader.value()?),
        "finalfunc" => given.finish = Some(reader.identifier()?),
        "combinefunc" => given.combine = Some(reader.identifier()?),
        "msfunc" => given.moving.step = Some(reader.identifier()?),
        "minvfunc" => given.moving.inverse = Some(reader.identifier()?),
        "mstype" => given.moving.state = Some(state_type(session, reader)?),
        "minitcond" => given.moving.initial = Some(reader.value()?),
        "mfinalfunc" => given.moving.finish = Some(reader.identifier()?),
        _ => {
            reader.value()?;
        }
    }
    Ok(())
}

fn state_type(session: &Session, reader: &mut TokenReader<'_>) -> Result<DataType> {
    Ok(session.shared.planner.type_until(reader, &[])?.data_type().clone())
}
