//! COPY over the wire: what a client sends as text, CSV or binary, and what it is sent.

mod columns;
mod read;
mod write;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use millstream_engine::{CopyFormat, CopyIn, CopyOut, Error, Tag};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::message::Message;
use crate::oid::{Column, columns};
use crate::report;
use crate::rows;
use crate::wire::{Stop, Wire};

use read::Reader;
use write::RowWriter;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes in what the client sends, up to its end.
    pub(crate) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<Tag, Stop> {
        let mut reader = Reader::new(copy.columns(), copy.options());
        let binary = copy.options().format == CopyFormat::Binary;
        self.wire.answers.copy(b'G', binary, copy.columns().fields().len());
        self.wire.send().await?;
        loop {
            match self.wire.receive().await? {
                Message::CopyData(bytes) => reader.feed(&bytes, &mut copy)?,
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    let message = format!("the client gave the COPY up: {reason}");
                    return Err(report::error("57014", message).into());
                }
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Stop::Gone),
                _ => {
                    let message = "a message came that is no part of the COPY that is under way";
                    return Err(report::error("08P01", message).into());
                }
            }
        }
        reader.finish(&mut copy)?;
        Ok(self.wire.unless_stopped(copy.finish(&mut self.session)).await??)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Sends rows to the client; gives the command tag.
    pub(crate) async fn copy_out(&mut self, mut copy: CopyOut) -> Result<String, Stop> {
        let schema = copy.rows.schema();
        let columns = shown(&schema, copy.options.format);
        let mut writer = RowWriter::new(copy.options.clone(), &columns);
        self.answers.copy(b'H', copy.options.format == CopyFormat::Binary, columns.len());
        writer.begin(&mut self.answers);
        let mut rows_sent = 0;
        loop {
            let next = copy.rows.next();
            tokio::pin!(next);
            let next = match futures::poll!(&mut next) {
                std::task::Poll::Ready(next) => next,
                std::task::Poll::Pending => {
                    if copy.is_endless {
                        self.send().await?;
                    }
                    self.unless_stopped(next).await?
                }
            };
            let Some(batch) = next else { break };
            let batch = rows::canonical(&batch.map_err(Error::from)?, &columns)?;
            let mut row = 0;
            while row < batch.num_rows() {
                row = writer.rows(&batch, row, self)?;
                self.send_much().await?;
            }
            rows_sent += batch.num_rows();
        }
        writer.end(&mut self.answers);
        self.answers.copy_done();
        Ok(format!("COPY {rows_sent}"))
    }
}

/// The columns of a COPY, all in its format.
fn shown(schema: &SchemaRef, format: CopyFormat) -> Vec<Column> {
    let format = match format {
        CopyFormat::Binary => crate::message::Format::Binary,
        CopyFormat::Text | CopyFormat::Csv => crate::message::Format::Text,
    };
    columns(schema, &[format])
}
