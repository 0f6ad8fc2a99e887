//! `INSERT`, `UPDATE`, `DELETE`, `MERGE`; an INSERT into a view puts late rows into it.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_sql::{Dml, Error, OnConflict, Operation, Query, Result, TokenReader, sqlstate};

use super::late_insert;
use crate::ddl::{PLANS_MAX, busy};
use crate::evaluate::{change_rows, has_catalog, is_conflict};
use crate::event::Modification;
use crate::files::{Files, WithFiles};
use crate::pg::pg_types::type_of as postgres_type;
use crate::returning::{self, DmlResult};
use crate::sequences;
use crate::session::{Response, Session, Tag};
use crate::statement::{RowsTag, Rules, Run, Statement};

pub(super) static INSERT: Statement = Statement {
    words: &[&["INSERT"]],
    synopsis: concat!(
        "[WITH query, …] INSERT INTO table [AS alias] [(column, …)] [OVERRIDING SYSTEM VALUE] VALUES (…), … | query\n",
        "  [ON CONFLICT [(column, …) | ON CONSTRAINT name] DO NOTHING | DO UPDATE SET column = expression [, …] [WHERE condition]]\n",
        "  [RETURNING expression [AS name], …];\n",
        "INSERT INTO source [(column, …)] VALUES (…), … | query [RETURNING …];\n",
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
    synopsis: "[WITH query, …] UPDATE table [AS alias] SET column = expression [, …] [FROM relation, …] [WHERE condition]\n  [RETURNING expression [AS name], …];",
    purpose: "change rows of a table",
    pages: &["update"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Update)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

pub(super) static DELETE: Statement = Statement {
    words: &[&["DELETE"]],
    synopsis: "[WITH query, …] DELETE FROM table [AS alias] [USING relation, …] [WHERE condition]\n  [RETURNING expression [AS name], …];",
    purpose: "delete rows of a table",
    pages: &["delete"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Delete)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

pub(super) static MERGE: Statement = Statement {
    words: &[&["MERGE"]],
    synopsis: concat!(
        "[WITH query, …] MERGE INTO table [AS alias] USING relation [AS alias] ON condition\n",
        "  WHEN MATCHED [AND condition] THEN UPDATE SET column = expression [, …] | DELETE | DO NOTHING\n",
        "  WHEN NOT MATCHED [AND condition] THEN INSERT [(column, …)] VALUES (expression, …) | DO NOTHING\n",
        "  [WHEN …];",
    ),
    purpose: "insert, change and delete rows of a table by those of a query",
    pages: &["merge"],
    begins: Some(|reader| Operation::of(reader) == Some(Operation::Merge)),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::MODIFY,
};

/// Changes rows. Returns the operation, and the columns of its RETURNING clause.
pub(super) async fn change(session: &mut Session, text: &str) -> Result<(Operation, SchemaRef, DmlResult)> {
    let idempotency_key = if session.transaction.is_none() { session.idempotency.take() } else { None };
    for _ in 0..PLANS_MAX {
        let catalog = session.catalog();
        let (_, now) = session.settings().await?;
        let relations = WithFiles { relations: catalog.as_ref(), files: Files::of(&session.shared) };
        let mut dml = session.planner(now).dml(text, &relations)?;
        bind_sequences(session, &mut dml)?;
        // An INSERT may be planned as a MERGE.
        let operation = Operation::of(&TokenReader::new(text)?).unwrap_or(dml.operation);
        let columns = dml.returning.as_ref().map(|returning| returning.columns());
        let columns = columns.unwrap_or_else(|| Arc::new(Schema::empty()));
        let told = session.parameters.as_ref().and_then(|parameters| parameters.columns());
        if told.is_some_and(|told| !has_types_of(told, &columns)) {
            return Err(Error::invalid("cached plan must not change result type")
                .hint("The table was altered: prepare the statement again.")
                .code(sqlstate::FEATURE_NOT_SUPPORTED));
        }
        if let Some(transaction) = &mut session.transaction {
            let changed = transaction.modify(&session.shared, Modification::Statement(Box::new(dml))).await?;
            return Ok((operation, columns, changed));
        }
        match change_rows(&session.shared, &catalog, dml, idempotency_key.clone()).await {
            Err(error) if is_conflict(&error) && !has_catalog(&session.shared, &catalog) => {}
            done => return Ok((operation, columns, done?)),
        }
    }
    Err(busy())
}

/// Returns true if the columns of two results have the same types for a client.
fn has_types_of(told: &Schema, columns: &Schema) -> bool {
    let type_of = |field: &Arc<Field>| postgres_type(field).0;
    told.fields().iter().map(type_of).eq(columns.fields().iter().map(type_of))
}

/// Gives the functions of sequences the session.
fn bind_sequences(session: &Session, dml: &mut Dml) -> Result<()> {
    let catalog = session.catalog();
    let bind = |query: &mut Query| {
        let plan = std::mem::take(&mut query.plan);
        query.plan = sequences::bind(plan, &catalog, &session.variables.sequences)?;
        Ok::<_, Error>(())
    };
    bind(&mut dml.query)?;
    if let Some(OnConflict::DoUpdate(query)) = &mut dml.on_conflict {
        bind(query)?;
    }
    dml.returning.as_mut().map_or(Ok(()), |returning| bind(&mut returning.query))
}

pub(crate) async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let catalog = session.catalog();
    if let Some(view) = late_insert::target(&reader, &catalog) {
        return late_insert::run(session, view, reader).await;
    }
    let (operation, columns, DmlResult { count, returned }) = change(session, reader.text()).await?;
    if let Some(rows) = returned {
        return returning::response(operation, columns, rows);
    }
    Ok(Response::Done(Tag::new(RowsTag::of(operation).text(count as usize))))
}
