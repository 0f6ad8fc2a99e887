//! COPY in the shell: reads rows from the script or from standard input, and writes rows to the output.

use std::io::Read;

use futures::StreamExt;
use millstream::{CopyIn, CopyOut, Error};
use millstream_server::{CopyReader, CopyWriter};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::stop::Stop;
use crate::text::Rows;

/// Bytes of one read of standard input, and maximum number of such reads that wait.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 4;

impl Client {
    /// Reads rows to their end. The inner error is that of the statement.
    pub(crate) async fn copy_in(
        &mut self,
        mut copy: CopyIn,
        rows: Rows<'_>,
    ) -> Result<Result<(), Error>, Stop> {
        let mut reader = CopyReader::new(&copy);
        let read = match rows {
            Rows::Here(text) => reader.feed(text.as_bytes(), &mut copy),
            Rows::Input => self.read_input(&mut reader, &mut copy).await?,
            Rows::Nowhere => Err(Error::invalid("COPY … FROM STDIN is not followed by rows")
                .hint("End the statement with ; at the end of its line. Its rows are the lines after it, up to one that is \\.")),
        };
        if let Err(error) = read.and_then(|()| reader.finish(&mut copy)) {
            return Ok(Err(error));
        }
        let finish = self.watch.during(&self.engine, copy.finish(&mut self.session));
        match self.signals.unless(finish).await? {
            Ok(tag) => self.output.tag(&tag).await.map(Ok).map_err(Stop::from),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Reads standard input to its end. A thread reads it, because a blocked read can't be cancelled.
    async fn read_input(
        &mut self,
        reader: &mut CopyReader,
        copy: &mut CopyIn,
    ) -> Result<Result<(), Error>, Stop> {
        let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = input.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    piece
                });
                let ends = read.as_ref().map_or(true, Vec::is_empty);
                if sender.blocking_send(read).is_err() || ends {
                    break;
                }
            }
        });
        loop {
            let piece = match self.signals.unless(copy.within_its_time(pieces.recv())).await? {
                Ok(piece) => piece.transpose(),
                Err(error) => return Ok(Err(error)),
            };
            let piece = piece
                .map_err(|error| Stop::external(format_args!("standard input can't be read: {error}")))?
                .unwrap_or_default();
            if piece.is_empty() {
                return Ok(Ok(()));
            }
            if let Err(error) = reader.feed(&piece, copy) {
                return Ok(Err(error));
            }
        }
    }

    /// Writes rows to the output, to their end or until a signal. The inner error is that of the query.
    pub(crate) async fn copy_out(&mut self, mut copy: CopyOut) -> Result<Result<(), Error>, Stop> {
        let mut writer = CopyWriter::new(&copy);
        let mut bytes = writer.header();
        let mut count = 0;
        loop {
            if !self.output.bytes(bytes).await? {
                return Ok(Ok(()));
            }
            let next = copy.rows.next();
            let next = match copy.is_endless {
                true => self.signals.unless_ending(next).await,
                false => self.signals.unless(next).await,
            };
            let next = match next {
                Err(Stop::Interrupted) if copy.is_endless => return Err(Stop::Ended),
                next => next?,
            };
            let Some(batch) = next else { break };
            let written = batch.map_err(Error::from).and_then(|batch| {
                count += batch.num_rows();
                writer.rows(&batch).map_err(|error| Error::invalid(error.to_string()))
            });
            bytes = match written {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
        }
        self.output.bytes(writer.end()).await?;
        self.output.copied(&format!("COPY {count}")).await?;
        Ok(Ok(()))
    }
}
