//! Statements of PostgreSQL's dumps and tools for which there is nothing to do: `GRANT`, `REVOKE`, `ALTER … OWNER TO`,
//! `REFRESH MATERIALIZED VIEW`, `CREATE EXTENSION`, `LOCK`. A notice says so.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, sqlstate};

use super::drop::routine;
use crate::catalog::{Definition, schema_key};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static GRANT: Statement = Statement {
    words: &[&["GRANT"], &["REVOKE"], &["ALTER", "DEFAULT", "PRIVILEGES"]],
    synopsis: concat!(
        "GRANT privilege [, …] ON [kind] name [, …] TO role [, …];\n",
        "REVOKE privilege [, …] ON [kind] name [, …] FROM role [, …];\n",
        "ALTER DEFAULT PRIVILEGES …;",
    ),
    purpose: "do nothing: dumps have them",
    pages: &["grant"],
    begins: None,
    run: Run::Alone(|_, reader| Box::pin(async move { grant(reader) })),
    rules: Rules::DEFAULT,
};

pub(super) static OWNER_TO: Statement = Statement {
    words: &[
        &["ALTER", "FUNCTION"],
        &["ALTER", "AGGREGATE"],
        &["ALTER", "SCHEMA"],
        &["ALTER", "TYPE"],
        &["ALTER", "DOMAIN"],
    ],
    synopsis: "ALTER kind name OWNER TO role;",
    purpose: "do nothing: dumps have it",
    pages: &["grant"],
    begins: Some(|reader| owner_clause(reader).is_some()),
    run: Run::Alone(|session, reader| Box::pin(async move { owner_to(session, reader) })),
    rules: Rules::DEFAULT,
};

pub(super) static REFRESH: Statement = Statement {
    words: &[&["REFRESH", "MATERIALIZED", "VIEW"]],
    synopsis: "REFRESH MATERIALIZED VIEW [CONCURRENTLY] name [WITH [NO] DATA];",
    purpose: "do nothing: a materialized view is always up to date",
    pages: &["refresh-materialized-view"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { refresh(session, reader) })),
    rules: Rules::DEFAULT,
};

pub(super) static EXTENSION: Statement = Statement {
    words: &[&["CREATE", "EXTENSION"], &["DROP", "EXTENSION"]],
    synopsis: "CREATE EXTENSION [IF NOT EXISTS] name [WITH option …];\nDROP EXTENSION [IF EXISTS] name [CASCADE];",
    purpose: "do nothing: dumps have it",
    pages: &["create-extension"],
    begins: None,
    run: Run::Alone(|_, reader| Box::pin(async move { extension(reader) })),
    rules: Rules::DEFAULT,
};

pub(super) static LOCK: Statement = Statement {
    words: &[&["LOCK"]],
    synopsis: "LOCK [TABLE] [ONLY] name [, …] [IN mode MODE] [NOWAIT];",
    purpose: "do nothing: transactions need no locks",
    pages: &["lock"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { lock(session, reader) })),
    rules: Rules::DEFAULT,
};

pub(super) static MAINTENANCE: Statement = Statement {
    words: &[
        &["CLUSTER"],
        &["REINDEX"],
        &["CREATE", "STATISTICS"],
        &["DROP", "STATISTICS"],
        &["SET", "CONSTRAINTS"],
    ],
    synopsis: concat!(
        "CLUSTER [name];\n",
        "REINDEX TABLE | INDEX | SCHEMA | DATABASE name;\n",
        "CREATE STATISTICS …;\n",
        "DROP STATISTICS …;\n",
        "SET CONSTRAINTS ALL | name [, …] DEFERRED | IMMEDIATE;",
    ),
    purpose: "do nothing: scripts have them",
    pages: &["analyze"],
    begins: None,
    run: Run::Alone(|_, reader| Box::pin(async move { maintenance(reader) })),
    rules: Rules::DEFAULT,
};

fn maintenance(mut reader: TokenReader<'_>) -> Result<Response> {
    let (word, why) = match TokenReader::new(reader.text())?.one_of(MAINTENANCE.words) {
        Some(0) => ("CLUSTER", "rows have no order in a table"),
        Some(1) => ("REINDEX", "indexes are kept up with each change"),
        Some(2) => ("CREATE STATISTICS", "queries are planned without statistics"),
        Some(3) => ("DROP STATISTICS", "queries are planned without statistics"),
        _ => ("SET CONSTRAINTS", "constraints are verified by each statement"),
    };
    reader.take_rest();
    done(word, format!("{word} has no effect: {why}"))
}

fn done(tag: &str, notice: String) -> Result<Response> {
    Ok(Tag { text: tag.into(), notices: vec![notice] }.into())
}

fn grant(mut reader: TokenReader<'_>) -> Result<Response> {
    let mut whole = TokenReader::new(reader.text())?;
    let word = match whole.one_of(GRANT.words) {
        Some(0) => "GRANT",
        Some(1) => "REVOKE",
        _ => "ALTER DEFAULT PRIVILEGES",
    };
    if reader.is_end() {
        return Err(reader.expected("a privilege"));
    }
    reader.take_rest();
    done(word, format!("{word} has no effect: there are no roles, and every user may do everything"))
}

/// Kinds of relations in `ALTER kind name OWNER TO`.
const RELATIONS: &[&[&str]] =
    &[&["TABLE"], &["VIEW"], &["MATERIALIZED", "VIEW"], &["SEQUENCE"], &["FOREIGN", "TABLE"], &["INDEX"]];

/// The other kinds.
const OTHERS: &[&[&str]] = &[&["FUNCTION"], &["AGGREGATE"], &["SCHEMA"], &["TYPE"], &["DOMAIN"]];

/// Returns the statement up to `OWNER TO role` if that is all that it has. An ALTER TABLE can have it among other actions.
fn owner_clause<'a>(reader: &TokenReader<'a>) -> Option<TokenReader<'a>> {
    let mut ahead = reader.clone();
    if !ahead.keyword(&["ALTER"]) {
        return None;
    }
    let statement = ahead.clone();
    ahead.one_of(RELATIONS).or_else(|| ahead.one_of(OTHERS))?;
    ahead.keyword(&["IF", "EXISTS"]);
    ahead.keyword(&["ONLY"]);
    ahead.relation_name().ok()?;
    if *ahead.peek() == Token::LParen {
        ahead.group().ok()?;
    }
    let is_owner =
        ahead.keyword(&["OWNER", "TO"]) && ahead.identifier().is_ok() && ahead.expect_end().is_ok();
    is_owner.then_some(statement)
}

fn owner_to(session: &Session, reader: TokenReader<'_>) -> Result<Response> {
    let mut reader = owner_clause(&reader).ok_or_else(|| reader.expected("ALTER … OWNER TO"))?;
    let catalog = session.catalog();
    let (kind, name) = match reader.one_of(RELATIONS) {
        Some(kind) => {
            let lenient = reader.keyword(&["IF", "EXISTS"]);
            reader.keyword(&["ONLY"]);
            let name = reader.relation_name()?;
            (RELATIONS[kind].join(" "), (!lenient).then_some(name))
        }
        None if reader.keyword(&["SCHEMA"]) => {
            ("SCHEMA".to_string(), Some(schema_key(&reader.identifier()?)))
        }
        None if reader.is_keyword(&["TYPE"]) || reader.is_keyword(&["DOMAIN"]) => {
            let kind = if reader.keyword(&["TYPE"]) { "TYPE" } else { "DOMAIN" };
            reader.keyword(&["DOMAIN"]);
            (kind.to_string(), Some(reader.relation_name()?))
        }
        None => {
            let kind = OTHERS[reader.one_of(OTHERS).unwrap_or_default()].join(" ");
            (kind, Some(routine(session, &mut reader)?))
        }
    };
    // As in PostgreSQL, ALTER TABLE takes sequences, views and indexes, too. `public` is always there.
    let is_always = |name: &str| kind == "SCHEMA" && name == schema_key(millstream_sql::PUBLIC);
    if let Some(name) = name.filter(|name| kind != "INDEX" && !is_always(name)) {
        catalog.get(&name).map_err(|error| error.at(reader.last_position()))?;
    }
    done(&format!("ALTER {kind}"), "OWNER TO has no effect: there are no roles".into())
}

fn refresh(session: &Session, mut reader: TokenReader<'_>) -> Result<Response> {
    reader.keyword(&["CONCURRENTLY"]);
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    if !matches!(object.definition, Definition::MaterializedView { .. }) {
        let error = format!("\"{name}\" is a {}, not a materialized view", object.definition.kind());
        return Err(Error::invalid(error).code(sqlstate::WRONG_OBJECT_TYPE).at(at));
    }
    reader.one_of(&[&["WITH", "DATA"], &["WITH", "NO", "DATA"]]);
    reader.expect_end()?;
    done("REFRESH MATERIALIZED VIEW", format!("materialized view \"{name}\" is always up to date"))
}

fn extension(mut reader: TokenReader<'_>) -> Result<Response> {
    let is_create = TokenReader::new(reader.text())?.is_keyword(&["CREATE"]);
    reader.one_of(&[&["IF", "NOT", "EXISTS"], &["IF", "EXISTS"]]);
    let name = match reader.peek() {
        Token::SingleQuotedString(_) => reader.string()?,
        _ => reader.identifier()?,
    };
    reader.take_rest();
    let word = if is_create { "CREATE EXTENSION" } else { "DROP EXTENSION" };
    done(
        word,
        format!("{word} has no effect: \"{name}\" adds nothing to the functions and types that are there"),
    )
}

fn lock(session: &Session, mut reader: TokenReader<'_>) -> Result<Response> {
    if session.transaction.is_none() {
        return Err(Error::invalid("LOCK can be used in a transaction only")
            .hint("BEGIN one first.")
            .code(sqlstate::NO_ACTIVE_SQL_TRANSACTION));
    }
    reader.keyword(&["TABLE"]);
    let catalog = session.catalog();
    loop {
        reader.keyword(&["ONLY"]);
        let name = reader.relation_name()?;
        catalog.get(&name).map_err(|error| error.at(reader.last_position()))?;
        if !reader.symbol(Token::Comma) {
            break;
        }
    }
    if reader.keyword(&["IN"]) {
        while !reader.is_end() && !reader.keyword(&["MODE"]) {
            reader.identifier()?;
        }
    }
    reader.keyword(&["NOWAIT"]);
    reader.expect_end()?;
    done(
        "LOCK TABLE",
        "LOCK has no effect: of two transactions that change a table, the later COMMIT fails".into(),
    )
}
