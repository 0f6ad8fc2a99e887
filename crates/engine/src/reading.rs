//! Queries of a program: their rows as batches, their changes as a stream.

use arrow::array::RecordBatch;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::{FutureExt, TryStreamExt};
use millstream_sql::{Error, Result, TokenReader};

use crate::changes::{Changes, Following};
use crate::session::{Response, Session};
use crate::statements;

impl Session {
    /// The rows of a statement that has some, such as a SELECT, as they come. Of one that has none: an error.
    pub async fn stream(&mut self, sql: &str) -> Result<SendableRecordBatchStream> {
        match self.execute(sql).await? {
            Response::Rows(rows) => Ok(rows),
            Response::Done(tag) => Err(no_rows(&tag.text)),
            Response::CopyIn(_) | Response::CopyOut(_) => Err(no_rows("COPY")),
        }
    }

    /// The rows of a statement that has some and ends, such as a SELECT: all of them.
    pub async fn collect(&mut self, sql: &str) -> Result<Vec<RecordBatch>> {
        let rows = self.execute(sql).await?;
        if rows.is_endless() {
            return Err(Error::invalid("the rows of this statement come without end")
                .hint("Session::stream gives them as they come, Session::changes as changes."));
        }
        match rows {
            Response::Rows(rows) => Ok(rows.try_collect().await?),
            Response::Done(_) => Ok(Vec::new()),
            Response::CopyIn(_) | Response::CopyOut(_) => Err(no_rows("COPY")),
        }
    }

    /// Follows a query or a relation: first what it holds now, then what each epoch changes. `followed` is a query
    /// (`SELECT …`, also with FOR EACH BATCH), or the name of a table, a stream, a materialized view, a view, a
    /// source, or a durable subscription, which goes on at its position.
    ///
    /// A query that is followed is a continuous query of the reader's own, which ends with the stream. Each item is the
    /// whole change of one epoch: adding them up gives, after each, what the query would answer then.
    pub async fn changes(&mut self, followed: &str) -> Result<Changes> {
        self.changes_with(followed, Following::default()).await
    }

    /// The same, with or without what there is at the beginning, and told of epochs that change nothing or not.
    pub async fn changes_with(&mut self, followed: &str, following: Following) -> Result<Changes> {
        let text = followed.to_string();
        self.apart(followed, move |session| async move { session.follow(&text, following).await }.boxed())
            .await
    }

    async fn follow(&mut self, followed: &str, following: Following) -> Result<Changes> {
        let mut reader = TokenReader::new(followed)?;
        let is_query = statements::begins_query(&reader);
        let opened = if is_query {
            statements::follow_query(self, reader, following).await?
        } else {
            let name = reader.relation_name()?;
            reader.expect_end()?;
            statements::follow_named(self, &name, following).await?
        };
        Ok(Changes::new(opened))
    }
}

fn no_rows(statement: &str) -> Error {
    Error::invalid(format!("{statement} gives no rows")).hint("Session::execute runs any statement.")
}
