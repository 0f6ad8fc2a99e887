//! `CREATE TYPE name AS ENUM ('label', …)`, `CREATE TYPE name AS (field type, …)`, `CREATE DOMAIN name AS type …`

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use millstream_sql::{Domain, Error, Result, TokenReader, UserType, relation_ident, split_schema, sqlstate};

use super::{existed, new_name};
use crate::catalog::{Definition, Object};
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_TYPE: Statement = Statement {
    words: &[&["CREATE", "TYPE"]],
    synopsis: "CREATE TYPE [IF NOT EXISTS] name AS {ENUM ('label', …) | (field type, …)};",
    purpose: "define an enum type or a composite type",
    pages: &["create-type"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { create_type(session, working, reader) })),
    rules: Rules::CATALOG,
};

pub(super) static CREATE_DOMAIN: Statement = Statement {
    words: &[&["CREATE", "DOMAIN"]],
    synopsis: concat!(
        "CREATE DOMAIN [IF NOT EXISTS] name [AS] type\n",
        "  [DEFAULT value] [NOT NULL | NULL] [[CONSTRAINT name] CHECK (condition)] …;",
    ),
    purpose: "define a type with constraints",
    pages: &["create-domain"],
    begins: None,
    run: Run::Plan(|session, working, reader| {
        Box::pin(async move { create_domain(session, working, reader) })
    }),
    rules: Rules::CATALOG,
};

/// The most bytes of a label: as in PostgreSQL.
const LABEL_MAX: usize = 63;

/// The most labels of an enum.
const LABELS_MAX: usize = 10_000;

fn create_type(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("TYPE", &name));
    }
    let at = reader.position();
    reader.expect_keyword(&["AS"])?;
    let found = match *reader.peek() == Token::LParen {
        true => composite(session, &mut reader)?,
        false => {
            if !reader.keyword(&["ENUM"]) {
                return Err(reader.expected("ENUM or (name type, …)").at(at));
            }
            UserType::Enum(labels(&mut reader)?)
        }
    };
    reader.expect_end()?;
    create(session, working, name, reader.text(), found)?;
    Ok(Tag::new("CREATE TYPE"))
}

/// Reads `(name type, …)`.
fn composite(session: &Session, reader: &mut TokenReader<'_>) -> Result<UserType> {
    let at = reader.position();
    let fields = reader.group()?;
    let planner = &session.shared.planner;
    let found = planner.types().composite(&reader.text()[fields]).map_err(|error| error.at(at.clone()))?;
    if let UserType::Composite(spelled) = &found {
        // A column must be able to have the type.
        let column = format!("(value {spelled})");
        planner
            .columns(&mut TokenReader::new(&column)?)
            .map_err(|error| Error { span: None, ..error }.at(at))?;
    }
    Ok(found)
}

/// Reads `('label', …)`.
fn labels(reader: &mut TokenReader<'_>) -> Result<Vec<String>> {
    let mut labels: Vec<String> = Vec::new();
    reader.expect_symbol(Token::LParen)?;
    if reader.symbol(Token::RParen) {
        return Ok(labels);
    }
    loop {
        let at = reader.position();
        let label = reader.string()?;
        let error = if label.len() > LABEL_MAX || label.is_empty() {
            format!("invalid enum label \"{label}\": labels have from 1 to {LABEL_MAX} bytes")
        } else if label.contains(char::is_control) {
            format!("invalid enum label \"{}\": it has a control character", label.escape_debug())
        } else if labels.contains(&label) {
            format!("enum label \"{label}\" is given twice")
        } else if labels.len() == LABELS_MAX {
            format!("an enum has at most {LABELS_MAX} labels")
        } else {
            labels.push(label);
            match reader.symbol(Token::Comma) {
                true => continue,
                false => break,
            }
        };
        return Err(Error::invalid(error).at(at));
    }
    reader.expect_symbol(Token::RParen)?;
    Ok(labels)
}

fn create_domain(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("DOMAIN", &name));
    }
    reader.keyword(&["AS"]);
    let start = reader.position().start;
    let planner = &session.shared.planner;
    planner.type_until(&mut reader, &["DEFAULT", "NOT", "NULL", "CHECK", "CONSTRAINT", "COLLATE"])?;
    let mut domain =
        Domain { base: reader.text()[start..reader.last_position().end].to_string(), ..Domain::default() };
    let at = start..reader.last_position().end;
    while !reader.is_end() {
        clause(&mut reader, &mut domain)?;
    }
    // The constraints are those of a column: they must be computable for one.
    let columns = format!("(value {})", domain.column("value", false)?);
    planner
        .columns(&mut TokenReader::new(&columns)?)
        .map_err(|error| Error { span: None, ..error }.at(at))?;
    create(session, working, name, reader.text(), UserType::Domain(domain))?;
    Ok(Tag::new("CREATE DOMAIN"))
}

/// Reads `DEFAULT value`, `NOT NULL`, `NULL` or `[CONSTRAINT name] CHECK (condition)`.
fn clause(reader: &mut TokenReader<'_>, domain: &mut Domain) -> Result<()> {
    let at = reader.position();
    let constraint = match reader.keyword(&["CONSTRAINT"]) {
        true => Some(reader.identifier()?),
        false => None,
    };
    if reader.keyword(&["CHECK"]) {
        let condition = reader.group()?;
        domain.checks.push((constraint, reader.text()[condition].to_string()));
        return Ok(());
    }
    if reader.keyword(&["NOT", "NULL"]) {
        domain.not_null = true;
        return Ok(());
    }
    if reader.keyword(&["NULL"]) {
        return Ok(());
    }
    if constraint.is_none() && reader.keyword(&["DEFAULT"]) {
        if domain.default.is_some() {
            return Err(Error::invalid("there is more than one default").at(at));
        }
        let start = reader.position().start;
        let ends: &[&[&str]] = &[&["NOT", "NULL"], &["NULL"], &["CHECK"], &["CONSTRAINT"]];
        // The value itself may be NULL.
        reader.next();
        while !reader.is_end() && !ends.iter().any(|words| reader.is_keyword(words)) {
            if *reader.peek() == Token::LParen {
                reader.group()?;
            } else {
                reader.next();
            }
        }
        domain.default = Some(reader.text()[start..reader.last_position().end].to_string());
        return Ok(());
    }
    Err(reader.expected("DEFAULT, NOT NULL, NULL or CHECK"))
}

fn create(
    session: &Session,
    working: &mut Working,
    name: Arc<str>,
    ddl: &str,
    found: UserType,
) -> Result<()> {
    // A script ends a group of statements with this one. Statements of the journal may name it in the same group.
    if session.is_recovering {
        session.shared.planner.types().define(&name, found.clone());
    }
    let definition = Definition::Type(found);
    working.create(Object { name, ddl: ddl.to_string(), reads: Vec::new(), definition }, None)
}

/// Fails if another object names a type: its statement is read again at a start.
pub(super) fn refuse_named(working: &Working, dropped: &[Arc<str>]) -> Result<()> {
    for name in dropped {
        let object = working.catalog.find(name);
        if !object.is_some_and(|object| matches!(object.definition, Definition::Type(_))) {
            continue;
        }
        let word = split_schema(name).map_or(name.as_ref(), |(_, name)| name);
        let names = |object: &&Arc<Object>| {
            !dropped.contains(&object.name)
                && millstream_sql::tokenise(&object.ddl).is_ok_and(|tokens| {
                    tokens.iter().any(
                        |lexeme| matches!(&lexeme.token.token, Token::Word(found) if is_word(found, word)),
                    )
                })
        };
        if let Some(other) = working.catalog.objects().find(names) {
            let kind = object.map_or("type", |object| object.definition.kind());
            return Err(Error::invalid(format!(
                "{kind} {} can't be dropped: {} \"{}\" names it",
                relation_ident(name),
                other.definition.kind(),
                other.name
            ))
            .hint("Drop that first.")
            .code(sqlstate::DEPENDENT_OBJECTS_STILL_EXIST));
        }
    }
    Ok(())
}

fn is_word(found: &Word, name: &str) -> bool {
    match found.quote_style {
        Some(_) => found.value == name,
        None => found.value.to_lowercase() == name,
    }
}
