//! `INSERT`, `UPDATE`, `DELETE`; an INSERT into a view puts late rows into it.

use millstream_sql::{Operation, Result, TokenReader};

use super::put_late;
use crate::evaluate::is_conflict;
use crate::event::Modification;
use crate::session::{PLANS_MAX, Response, Session, Tag, busy};

/// Changes rows. Returns the operation and the number of rows.
async fn change(session: &mut Session, text: &str) -> Result<(Operation, u64)> {
    let once = if session.transaction.is_none() { session.once.take() } else { None };
    for _ in 0..PLANS_MAX {
        let catalog = session.shared.catalog();
        let (_, now) = session.settings().await?;
        let dml = session.planner(now).dml(text, catalog.as_ref())?;
        let operation = dml.operation;
        if session.transaction.is_some() {
            let count = session.modify(Modification::Statement(Box::new(dml))).await?;
            return Ok((operation, count));
        }
        match session.change_rows(dml, once.clone()).await {
            Err(error) if is_conflict(&error) && !session.has_catalog(&catalog) => {}
            done => return Ok((operation, done?)),
        }
    }
    Err(busy())
}

pub(crate) async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let catalog = session.shared.catalog();
    if let Some(view) = put_late::target(&reader, &catalog) {
        return put_late::run(session, view, reader).await;
    }
    let (operation, count) = change(session, reader.text()).await?;
    Ok(Response::Done(Tag::new(match operation {
        Operation::Insert => format!("INSERT 0 {count}"),
        Operation::Update => format!("UPDATE {count}"),
        Operation::Delete => format!("DELETE {count}"),
    })))
}
