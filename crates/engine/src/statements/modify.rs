//! `INSERT`, `UPDATE`, `DELETE`; what an INSERT puts into a view are its late rows.

use millstream_sql::{Operation, Result, TokenReader};

use super::put_late;
use crate::event::Modification;
use crate::session::{Response, Session, Tag};

pub(crate) async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let catalog = session.shared.catalog();
    if let Some(view) = put_late::target(&reader, &catalog) {
        return put_late::run(session, view, reader).await;
    }
    let (_, now) = session.settings().await?;
    let dml = session.planner(now).dml(reader.text(), catalog.as_ref())?;
    let operation = dml.operation;
    let count = session.modify(Modification::Statement(Box::new(dml))).await?;
    Ok(Response::Done(Tag::new(match operation {
        Operation::Insert => format!("INSERT 0 {count}"),
        Operation::Update => format!("UPDATE {count}"),
        Operation::Delete => format!("DELETE {count}"),
    })))
}
