//! The simple protocol, and the sending of results in both protocols.

use std::task::Poll;

use arrow::array::RecordBatch;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use millstream_engine::{Error, Response, RowsTag, Script, TransactionStatus, open_statement_set, rows_tag};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::extended::{deallocate, pointed};
use crate::message::Format;
use crate::oid::{Column, columns};
use crate::report;
use crate::rows::{self, Rows};
use crate::wire::{Stop, Wire};

/// Rows that are being sent.
pub(crate) struct Cursor {
    pub(crate) columns: Vec<Column>,
    batches: BoxStream<'static, Result<RecordBatch, Error>>,
    /// The batch being sent, and the number of its rows already sent.
    current: Option<(RecordBatch, usize)>,
    endless: bool,
    tag: RowsTag,
}

/// The progress of a cursor.
pub(crate) enum Sent {
    /// All rows were sent; the command tag.
    All(String),
    /// The requested number of rows was sent.
    Some,
}

impl Cursor {
    /// Returns the command tag of a statement that returned this number of rows.
    pub(crate) fn tag(&self, rows: usize) -> String {
        self.tag.text(rows)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Runs the statements of a Query message.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<(), Stop> {
        self.portals.remove("");
        self.statements.remove("");
        let is_idle = self.session.transaction_status() == TransactionStatus::Idle;
        let opened = is_idle.then(|| open_statement_set(sql)).flatten();
        let sql = opened.as_deref().unwrap_or(sql);
        let failed = |error: Error| Stop::from(report::failed(error, sql));
        let mut script = Script::parse(sql).map_err(failed)?;
        if script.remaining() == 0 {
            self.wire.answers.empty_query();
            return Ok(());
        }
        if script.remaining() == 1
            && self.session.transaction_status() != TransactionStatus::Failed
            && deallocate(&mut self.statements, sql)
        {
            self.wire.answers.command_complete("DEALLOCATE");
            return Ok(());
        }
        while let Some(outcomes) =
            self.wire.unless_stopped(self.session.step(&mut script)).await?.map_err(failed)?
        {
            for outcome in outcomes {
                self.answer(outcome.response, &outcome.sql).await.map_err(|stop| pointed(stop, sql))?;
            }
        }
        Ok(())
    }

    /// Sends the response to a statement of the simple protocol.
    async fn answer(&mut self, response: Response, sql: &str) -> Result<(), Stop> {
        self.notices(&response);
        let Some(rows) = self.complete(response).await? else { return Ok(()) };
        let mut cursor = cursor(rows, &[], sql)?;
        self.wire.answers.row_description(cursor.columns.iter());
        if let Sent::All(tag) = self.wire.send_rows(&mut cursor, 0).await? {
            self.wire.answers.command_complete(&tag);
        }
        Ok(())
    }

    /// Completes a response; returns it if it has rows.
    pub(crate) async fn complete(&mut self, response: Response) -> Result<Option<Response>, Stop> {
        let tag = match response {
            Response::Done(tag) => tag.text,
            Response::CopyIn(copy) => self.copy_in(*copy).await?.text,
            Response::CopyOut(copy) => self.wire.copy_out(*copy).await?,
            rows => return Ok(Some(rows)),
        };
        self.wire.answers.command_complete(&tag);
        Ok(None)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Appends rows of the cursor's batch until the answers are full. Returns the number of rows.
    fn fill(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<usize, Stop> {
        let Some((batch, sent)) = &mut cursor.current else { return Ok(0) };
        let rows = Rows::new(batch, &cursor.columns)?;
        let begin = *sent;
        let end = batch.num_rows().min(begin.saturating_add(rows_max));
        while *sent < end && !self.is_full() {
            rows.data_row(*sent, &mut self.answers.bytes);
            *sent += 1;
        }
        let filled = *sent - begin;
        drop(rows);
        if *sent == batch.num_rows() {
            cursor.current = None;
        }
        Ok(filled)
    }

    /// Returns the next item of a stream. Before waiting for an item of an endless stream, sends the
    /// pending answers.
    pub(crate) async fn next<T: Stream + Unpin>(
        &mut self,
        stream: &mut T,
        endless: bool,
    ) -> Result<Option<T::Item>, Stop> {
        let next = stream.next();
        tokio::pin!(next);
        if let Poll::Ready(next) = futures::poll!(&mut next) {
            return Ok(next);
        }
        if endless {
            self.send().await?;
            return self.unless_draining(next).await;
        }
        self.unless_stopped(next).await
    }

    /// Sends all rows, or at most `rows_max` if that isn't zero. Rows of an endless cursor are sent at
    /// once; other rows once there are many.
    pub(crate) async fn send_rows(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<Sent, Stop> {
        let most = if rows_max == 0 { usize::MAX } else { rows_max };
        let mut left = most;
        loop {
            if cursor.current.is_some() {
                left -= self.fill(cursor, left)?;
                self.send_much().await?;
                if left == 0 {
                    return Ok(Sent::Some);
                }
                continue;
            }
            match self.next(&mut cursor.batches, cursor.endless).await? {
                Some(batch) => {
                    let batch = rows::canonical(&batch?, &cursor.columns)?;
                    cursor.current = (batch.num_rows() > 0).then_some((batch, 0));
                }
                None => return Ok(Sent::All(cursor.tag(most - left))),
            }
        }
    }
}

/// Creates a cursor over the rows of a response.
pub(crate) fn cursor(response: Response, formats: &[Format], sql: &str) -> Result<Cursor, Stop> {
    let (endless, tag) = (response.is_endless(), response.tag());
    let Response::Rows(rows) = response else {
        return Err(Error::bug("rows were expected of a statement that gives none").into());
    };
    let columns = columns(&rows.schema(), formats);
    let batches = rows.map(|batch| batch.map_err(Error::from)).boxed();
    let tag = tag.unwrap_or_else(|| rows_tag(sql));
    Ok(Cursor { columns, batches, current: None, endless, tag })
}
