//! `SET [SESSION | LOCAL] name = value | DEFAULT`, `SET name TO value`, `SET TIME ZONE value`, `SET NAMES
//! value`, `SET ROLE NONE`

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader};

use super::reset;
use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::settings::Settings;
use crate::settings::foreign::{self, Foreign};
use crate::statement::{Rules, Run, Statement};
use crate::variables::{self, Lasts};

pub(super) static SET: Statement = Statement {
    words: &[&["SET"]],
    synopsis: concat!(
        "SET [SESSION | LOCAL] name = value | DEFAULT;      -- or SET name TO value\n",
        "SET TIME ZONE 'Europe/Berlin';\n",
        "SET NAMES 'UTF8';\n",
        "SET ROLE NONE;",
    ),
    purpose: "change a setting",
    pages: &["set"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::DEFAULT,
};

pub(crate) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let of_session = reader.keyword(&["SESSION"]);
    if of_session && reader.keyword(&["AUTHORIZATION"]) || reader.keyword(&["ROLE"]) {
        return role(session, reader);
    }
    let local = !of_session && reader.keyword(&["LOCAL"]);
    let lasts = if local { Lasts::Transaction } else { Lasts::Session };
    let at = reader.position();
    let name = name(reader)?;
    let written = reader.text()[at.start..reader.last_position().end].to_string();
    let value_at = reader.position();
    let value = value(reader)?;
    if local && Settings::knows(&name) {
        return Err(Error::unsupported(format!("SET LOCAL {name}"))
            .hint(format!("It is a setting of the engine, which all sessions share: SET {name} changes it."))
            .at(at));
    }
    if local && session.transaction.is_none() {
        let notice = "no transaction is in progress: SET LOCAL has no effect".into();
        return Ok(Tag { text: "SET".into(), notices: vec![notice] }.into());
    }
    let Some(value) = value else {
        return reset::one(session, &name, lasts).await.map_err(|error| error.at(at)).map(Response::from);
    };
    reader.expect_end()?;
    let mut tag = Tag::new("SET");
    if Settings::knows(&name) {
        let set = session.shared.ask(|reply| Event::Set { name, value, reply }).await;
        set.map_err(|error| error.at(value_at))?;
    } else if variables::find(&name).is_some() {
        session
            .variables
            .set(&name, &value, lasts, session.transaction.as_mut())
            .map_err(|error| error.at(value_at))?;
    } else if let Some(foreign) = foreign::find(&name) {
        tag.notices.push(match foreign {
            Foreign::Spark(hint) => format!("{written} is a setting of Spark and has no effect here. {hint}"),
            Foreign::RisingWave(hint) => format!("{written} is accepted and has no effect. {hint}"),
        });
    } else if name.contains('.') {
        session.variables().set_own(&name, &value, lasts);
    } else {
        // Clients of other systems set unknown settings: a notice suffices, since this does no harm.
        let unknown = Settings::unknown(&name).at(at);
        let hint = unknown.hint.map_or_else(String::new, |hint| format!(". {hint}"));
        tag.notices.push(format!("{}: it was ignored{hint}", unknown.message));
    }
    Ok(tag.into())
}

/// Reads the name of a setting. PostgreSQL has special syntax for two.
pub(super) fn name(reader: &mut TokenReader<'_>) -> Result<String> {
    if reader.keyword(&["TIME", "ZONE"]) {
        return Ok("timezone".into());
    }
    if reader.is_keyword(&["NAMES"]) && !matches!(reader.peek_at(1), Token::Eq) {
        reader.next();
        return Ok("client_encoding".into());
    }
    // Flink's names are in quotes: SET 'table.local-time-zone' = 'UTC'.
    if matches!(reader.peek(), Token::SingleQuotedString(_)) {
        let name = reader.string()?;
        return Ok(foreign::own_name(&name).map_or(name, str::to_string));
    }
    let mut name = reader.identifier()?;
    loop {
        // Flink's names have hyphens: SET execution.runtime-mode = streaming.
        let joint = match reader.peek() {
            Token::Period => '.',
            Token::Minus if name.contains('.') => '-',
            _ => break,
        };
        reader.next();
        name = format!("{name}{joint}{}", reader.identifier()?);
    }
    if let Some(own) = foreign::own_name(&name) {
        return Ok(own.into());
    }
    Ok(name)
}

/// Reads one or several values. Returns `None` for DEFAULT.
fn value(reader: &mut TokenReader<'_>) -> Result<Option<String>> {
    // TIME ZONE and NAMES have no `=` or TO.
    let signed = reader.symbol(Token::Eq) || reader.keyword(&["TO"]);
    let before = reader.last_position();
    let named = ["ZONE", "NAMES"].iter().any(|word| reader.text()[before.clone()].eq_ignore_ascii_case(word));
    if !signed && !named {
        return Err(reader.expected("TO"));
    }
    if reader.keyword(&["DEFAULT"]) || named && reader.keyword(&["LOCAL"]) {
        reader.expect_end()?;
        return Ok(None);
    }
    let start = reader.position().start;
    let mut value = reader.value()?;
    if named && reader.keyword(&["HOUR", "TO", "MINUTE"]) {
        return Ok(Some(value));
    }
    let mut several = false;
    while reader.symbol(Token::Comma) {
        reader.value()?;
        several = true;
    }
    if several {
        value = reader.text()[start..reader.last_position().end].to_string();
    }
    Ok(Some(value))
}

/// Accepts only the single role that exists.
fn role(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let at = reader.position();
    let role = reader.value()?;
    reader.expect_end()?;
    let user = session.variables().user.clone();
    if role == user || ["NONE", "DEFAULT"].iter().any(|word| role.eq_ignore_ascii_case(word)) {
        return Ok(Tag::new("SET").into());
    }
    Err(Error::unsupported(format!("the role \"{role}\"")).hint(format!("There is only \"{user}\".")).at(at))
}
