//! `ADVANCE BATCH [n]`, `ADVANCE TIME TO 'timestamp'`: move a manual clock. `ADVANCE SUBSCRIPTION name [TO
//! epoch]`: confirms that the reader has everything up to an epoch.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use millstream_delta::{Epoch, Timestamp};
use millstream_sql::{Error, Result, TokenReader};

use crate::catalog::Definition;
use crate::event::{Advance, Event};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ADVANCE: Statement = Statement {
    words: &[&["ADVANCE"]],
    synopsis: concat!("ADVANCE BATCH [n];\n", "ADVANCE TIME TO 'timestamp';",),
    purpose: "move a manual clock",
    pages: &["advance"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::refused("COMMIT first: a transaction sees one epoch, and this makes others."),
};

pub(super) static ADVANCE_SUBSCRIPTION: Statement = Statement {
    words: &[&["ADVANCE", "SUBSCRIPTION"]],
    synopsis: "ADVANCE SUBSCRIPTION name [TO epoch];",
    purpose: "acknowledge the changes of a subscription",
    pages: &["advance-subscription"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { subscription(session, &mut reader).await })),
    rules: Rules::refused("COMMIT first: the position of a subscription moves at once, and stays moved."),
};

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (advance, tag) = if reader.keyword(&["BATCH"]) {
        let count = if reader.is_end() { 1 } else { reader.number()? };
        (Advance::Batches(count), "ADVANCE BATCH")
    } else if reader.keyword(&["TIME", "TO"]) {
        reader.keyword(&["TIMESTAMP"]);
        let at = reader.position();
        let text = reader.string()?;
        let nanos = string_to_timestamp_nanos(&text).map_err(|_| {
            Error::invalid(format!("'{text}' is no timestamp"))
                .hint("Write it as '1970-01-01 00:00:05', in UTC.")
                .at(at)
        })?;
        (Advance::To(Timestamp(nanos.div_euclid(1000))), "ADVANCE TIME")
    } else {
        return Err(reader.expected("BATCH, TIME TO or SUBSCRIPTION"));
    };
    reader.expect_end()?;
    session.shared.ask(|reply| Event::Advance { advance, reply }).await?;
    Ok(Tag::new(tag).into())
}

/// Runs `name [TO epoch]`. Without an epoch, confirms those whose rows this session's cursors have all
/// returned.
async fn subscription(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (name, at) = (reader.relation_name()?, reader.last_position());
    let said = if reader.keyword(&["TO"]) { Some(Epoch(reader.number()?)) } else { None };
    reader.expect_end()?;
    let object = session.catalog().get(&name).map(Clone::clone);
    let object = object.map_err(|error| error.at(at.clone()))?;
    let Definition::Subscription { .. } = &object.definition else {
        let kind = object.definition.kind();
        return Err(Error::invalid(format!("\"{name}\" is a {kind}, not a subscription")).at(at));
    };
    let taken = || session.cursors.values().filter_map(|cursor| cursor.taken_of(&name)).max().map(Epoch);
    let through = said.or_else(taken).ok_or_else(|| {
        Error::invalid(format!("no cursor of this session has returned all rows of an epoch of \"{name}\""))
            .hint(format!(
                "Give the last epoch that you have received completely: ADVANCE SUBSCRIPTION {name} TO 17."
            ))
    })?;
    let name = object.name.clone();
    session.shared.ask(|reply| Event::AdvanceSubscription { name, through, reply }).await?;
    Ok(Tag::new("ADVANCE SUBSCRIPTION").into())
}
