//! `INSERT`, `UPDATE`, `DELETE`; an INSERT into a view puts late rows into it.

use millstream_sql::{Operation, Result, TokenReader};

use super::late_insert;
use crate::ddl::{PLANS_MAX, busy};
use crate::evaluate::{change_rows, has_catalog, is_conflict};
use crate::event::Modification;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static INSERT: Statement = Statement {
    words: &[&["INSERT"]],
    synopsis: concat!(
        "[WITH query, …] INSERT INTO table [AS alias] [(column, …)] VALUES (…), … | query\n",
        "  [ON CONFLICT [(key column, …)] DO NOTHING | DO UPDATE SET column = expression [, …] [WHERE condition]];\n",
        "INSERT INTO source [(column, …)] VALUES (…), … | query;\n",
        "INSERT INTO view SELECT * FROM late_rows('view') [WHERE …];",
    ),
    purpose: "insert rows into a table or a source",
    pages: &["insert", "insert-into-view"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Insert)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

pub(super) static UPDATE: Statement = Statement {
    words: &[&["UPDATE"]],
    synopsis: "[WITH query, …] UPDATE table [AS alias] SET column = expression [, …] [FROM relation, …] [WHERE condition];",
    purpose: "change rows of a table",
    pages: &["update"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Update)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

pub(super) static DELETE: Statement = Statement {
    words: &[&["DELETE"]],
    synopsis: "[WITH query, …] DELETE FROM table [AS alias] [USING relation, …] [WHERE condition];",
    purpose: "delete rows of a table",
    pages: &["delete"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Delete)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

/// Changes rows. Returns the operation and the number of rows.
pub(super) async fn change(session: &mut Session, text: &str) -> Result<(Operation, u64)> {
    let idempotency_key = if session.transaction.is_none() { session.idempotency.take() } else { None };
    for _ in 0..PLANS_MAX {
        let catalog = session.shared.catalog();
        let (_, now) = session.settings().await?;
        let dml = session.planner(now).dml(text, catalog.as_ref())?;
        let operation = dml.operation;
        if session.transaction.is_some() {
            let count = session.modify(Modification::Statement(Box::new(dml))).await?;
            return Ok((operation, count));
        }
        match change_rows(&session.shared, dml, idempotency_key.clone()).await {
            Err(error) if is_conflict(&error) && !has_catalog(&session.shared, &catalog) => {}
            done => return Ok((operation, done?)),
        }
    }
    Err(busy())
}

pub(crate) async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let catalog = session.shared.catalog();
    if let Some(view) = late_insert::target(&reader, &catalog) {
        return late_insert::run(session, view, reader).await;
    }
    let (operation, count) = change(session, reader.text()).await?;
    Ok(Response::Done(Tag::new(match operation {
        Operation::Insert => format!("INSERT 0 {count}"),
        Operation::Update => format!("UPDATE {count}"),
        Operation::Delete => format!("DELETE {count}"),
    })))
}
