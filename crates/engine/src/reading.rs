//! Queries by a program: rows as batches, changes as a stream.

use arrow::array::RecordBatch;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::{FutureExt, TryStreamExt};
use millstream_sql::{Error, Result};

use crate::changes::{Changes, Following};
use crate::session::{Response, Session};
use crate::statements;
use crate::variables::reader_of;

impl Session {
    /// Returns the rows of a statement, such as a SELECT, as they arrive. Fails if the statement returns no
    /// rows.
    pub async fn stream(&mut self, sql: &str) -> Result<SendableRecordBatchStream> {
        match self.execute(sql).await? {
            Response::Rows(rows) => Ok(rows),
            Response::Done(tag) => Err(no_rows(&tag.text)),
            Response::CopyIn(_) | Response::CopyOut(_) => Err(no_rows("COPY")),
        }
    }

    /// Returns all rows of a statement. Fails if the rows never end.
    pub async fn collect(&mut self, sql: &str) -> Result<Vec<RecordBatch>> {
        let rows = self.execute(sql).await?;
        if rows.is_endless() {
            return Err(Error::invalid("this statement returns rows without end")
                .hint("Session::stream returns them as they arrive, Session::changes as changes."));
        }
        match rows {
            Response::Rows(rows) => Ok(rows.try_collect().await?),
            Response::Done(_) => Ok(Vec::new()),
            Response::CopyIn(_) | Response::CopyOut(_) => Err(no_rows("COPY")),
        }
    }

    /// Subscribes to a query or a relation: first its current content, then the changes of each epoch.
    /// `followed` is one of:
    ///
    /// - a query: `SELECT …`, also with FOR EACH BATCH
    /// - the name of a table, a stream, a materialized view, a view or a source
    /// - the name of a durable subscription, which continues at its position
    ///
    /// A query becomes a continuous query of the reader, which ends with the stream. Each item is the whole
    /// change of one epoch. The sum of the items so far equals the query's answer as of that epoch.
    pub async fn changes(&mut self, followed: &str) -> Result<Changes> {
        self.changes_with(followed, Following::default()).await
    }

    /// Subscribes with options: with or without the initial content and items for epochs without changes.
    pub async fn changes_with(&mut self, followed: &str, following: Following) -> Result<Changes> {
        let text = followed.to_string();
        self.apart(followed, move |session| async move { follow(session, &text, following).await }.boxed())
            .await
    }
}

async fn follow(session: &mut Session, followed: &str, following: Following) -> Result<Changes> {
    let mut reader = reader_of(session, followed)?;
    let is_query = statements::begins_query(&reader);
    let opened = if is_query {
        statements::follow_query(session, reader, following).await?
    } else {
        let name = reader.relation_name()?;
        reader.expect_end()?;
        statements::follow_named(session, &name, following).await?
    };
    Ok(Changes::new(opened))
}

fn no_rows(statement: &str) -> Error {
    Error::invalid(format!("{statement} returns no rows")).hint("Session::execute runs any statement.")
}
