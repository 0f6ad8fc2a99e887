//! `ALTER SOURCE name REPLAY 'glob'`: reads again what the source has read, such as files.

use millstream_sql::{Error, Result, TokenReader};

use crate::catalog::Definition;
use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ALTER_SOURCE: Statement = Statement {
    words: &[&["ALTER", "SOURCE"]],
    synopsis: "ALTER SOURCE name REPLAY 'glob';",
    purpose: "read files of a source again",
    pages: &["alter-source"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// Runs ALTER SOURCE.
pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let name = reader.relation_name()?;
    let at = reader.last_position();
    if !reader.keyword(&["REPLAY"]) {
        let what = reader.peek().to_string().to_uppercase();
        return Err(Error::unsupported(format!("ALTER SOURCE … {what}")).at(reader.position()));
    }
    let pattern_at = reader.position();
    let pattern = reader.string()?;
    reader.expect_end()?;
    let catalog = session.shared.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Definition::Source { spec, .. } = &object.definition else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{name}\" is a {kind}, not a source")).at(at));
    };
    if !spec.key.is_empty() {
        let what = match object.definition.kind() {
            "table" => "keeps one row of each key",
            _ => "is a change feed",
        };
        return Err(Error::invalid(format!(
            "\"{name}\" {what}: its earlier changes would undo the later ones"
        ))
        .hint("DROP the source with what reads it, and create them again: it reads all from the beginning.")
        .at(at));
    }
    let source = object.name.clone();
    let asked = session.shared.ask(|reply| Event::ReadAgain { source, pattern, reply }).await;
    let count = asked.map_err(|error| error.at(pattern_at))?;
    let notice = format!("{count} {} will be read again", if count == 1 { "file" } else { "files" });
    Ok(Tag { text: "ALTER SOURCE".into(), notices: vec![notice] }.into())
}
