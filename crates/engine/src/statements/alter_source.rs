//! `ALTER SOURCE name REPLAY 'glob' | SEEK 'place'`: a source reads some of its rows again, or continues elsewhere.

use millstream_connect::Jump;
use millstream_sql::{Error, Result, TokenReader};

use crate::catalog::Definition;
use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ALTER_SOURCE: Statement = Statement {
    words: &[&["ALTER", "SOURCE"]],
    synopsis: "ALTER SOURCE name REPLAY 'glob';\nALTER SOURCE name SEEK 'place';",
    purpose: "read files of a source again, or continue at another place",
    pages: &["alter-source"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// Runs ALTER SOURCE.
pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let seeks = reader.keyword(&["SEEK"]);
    if !seeks && !reader.keyword(&["REPLAY"]) {
        let what = reader.peek().to_string().to_uppercase();
        return Err(Error::unsupported(format!("ALTER SOURCE … {what}")).at(reader.position()));
    }
    let place_at = reader.position();
    let place = reader.string()?;
    reader.expect_end()?;
    let catalog = session.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Definition::Source { spec, .. } = &object.definition else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{name}\" is a {kind}, not a source")).at(at));
    };
    if !spec.key.is_empty() && !seeks {
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
    let to = if seeks { Jump::To(place) } else { Jump::Again(place) };
    let asked = session.shared.ask(|reply| Event::Jump { source, to, reply }).await;
    let count = asked.map_err(|error| error.at(place_at))?;
    let s = if count == 1 { "" } else { "s" };
    let notice = match seeks {
        true => format!("{count} partition{s} will continue there"),
        false => format!("{count} file{s} will be read again"),
    };
    Ok(Tag { text: "ALTER SOURCE".into(), notices: vec![notice] }.into())
}
