//! COPY over the wire: decodes text, CSV or binary from a client, and encodes it for a client.

mod columns;
mod read;
mod write;

use millstream_engine::{CopyFormat, CopyIn, CopyOut, Error, Tag};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::message::Message;
use crate::report;
use crate::rows;
use crate::wire::{Stop, Wire};

pub use read::CopyReader;
pub use write::CopyWriter;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads the client's rows up to their end.
    pub(crate) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<Tag, Stop> {
        let mut reader = CopyReader::new(&copy);
        let binary = copy.options().format == CopyFormat::Binary;
        self.wire.answers.copy(b'G', binary, copy.columns().fields().len());
        self.wire.send().await?;
        loop {
            match copy.within_its_time(self.wire.receive_unless_cancelled()).await?? {
                Message::CopyData(bytes) => reader.feed(&bytes, &mut copy)?,
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    let message = format!("the client aborted the COPY: {reason}");
                    return Err(report::error("57014", message).into());
                }
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Stop::Gone),
                _ => {
                    let message = "an unexpected message arrived during COPY";
                    return Err(report::error("08P01", message).into());
                }
            }
        }
        reader.finish(&mut copy)?;
        Ok(self.wire.unless_stopped(copy.finish(&mut self.session)).await??)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Sends rows to the client; returns the command tag.
    pub(crate) async fn copy_out(&mut self, mut copy: CopyOut) -> Result<String, Stop> {
        let mut writer = CopyWriter::new(&copy);
        let is_binary = copy.options.format == CopyFormat::Binary;
        self.answers.copy(b'H', is_binary, writer.columns.len());
        if writer.has_header() {
            self.answers.copy_data(|out| writer.put_header(out));
        }
        let mut rows_sent = 0;
        loop {
            let Some(batch) = self.next(&mut copy.rows, copy.is_endless).await? else { break };
            let batch = rows::canonical(&batch.map_err(Error::from)?, &writer.columns)?;
            let mut row = 0;
            while row < batch.num_rows() {
                row = writer.send(&batch, row, self)?;
                self.send_much().await?;
            }
            rows_sent += batch.num_rows();
        }
        if is_binary {
            self.answers.copy_data(|out| writer.put_end(out));
        }
        self.answers.copy_done();
        Ok(format!("COPY {rows_sent}"))
    }
}
