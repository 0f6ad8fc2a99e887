//! `SET [SESSION] name = value`, `SET name TO value`

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Result, TokenReader};

use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::settings::Settings;
use crate::settings::foreign::{self, Foreign};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if !reader.keyword(&["SESSION"]) {
        reader.keyword(&["LOCAL"]);
    }
    let at = reader.position();
    let mut name = reader.identifier()?;
    while reader.symbol(Token::Period) {
        name = format!("{name}.{}", reader.identifier()?);
    }
    let written = reader.text()[at.start..reader.last_position().end].to_string();
    if !reader.symbol(Token::Eq) {
        reader.expect_keyword(&["TO"])?;
    }
    let value_at = reader.position();
    let value = reader.value()?;
    reader.expect_end()?;
    let mut tag = Tag::new("SET");
    if Settings::knows(&name) {
        let set = session.shared.ask(|reply| Event::Set { name, value, reply }).await;
        set.map_err(|error| error.at(value_at))?;
    } else if let Some(foreign) = foreign::find(&name) {
        tag.notices.push(match foreign {
            Foreign::Spark(hint) => format!("{written} is a setting of Spark and has no effect here. {hint}"),
            Foreign::RisingWave(hint) => format!("{written} is accepted and has no effect. {hint}"),
        });
    } else {
        // Clients of other systems set what only these have: it is said, and does no harm.
        let unknown = Settings::unknown(&name).at(at);
        let hint = unknown.hint.map_or_else(String::new, |hint| format!(". {hint}"));
        tag.notices.push(format!("{}: it was ignored{hint}", unknown.message));
    }
    Ok(tag.into())
}
