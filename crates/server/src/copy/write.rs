//! Rows as COPY … TO STDOUT sends them.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};
use millstream_engine::{CopyFormat, CopyHeader, CopyOptions};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::Answers;
use crate::oid::Column;
use crate::rows::Rows;
use crate::wire::Wire;

/// Writes rows in one format.
pub(super) struct RowWriter<'a> {
    options: CopyOptions,
    columns: &'a [Column],
    /// What goes before the first row, in one message with it, as PostgreSQL sends it and some clients expect.
    head: BytesMut,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(options: CopyOptions, columns: &'a [Column]) -> RowWriter<'a> {
        RowWriter { options, columns, head: BytesMut::new() }
    }

    /// What stands before the rows.
    pub(super) fn begin(&mut self, answers: &mut Answers) {
        match self.options.format {
            CopyFormat::Binary => {
                self.head.put_slice(b"PGCOPY\n\xff\r\n\0");
                self.head.put_u64(0);
            }
            _ if self.options.header != CopyHeader::No => answers.copy_data(|out| {
                for (place, column) in self.columns.iter().enumerate() {
                    self.delimit(place, out);
                    self.value(column.name.as_bytes(), false, out);
                }
                out.put_u8(b'\n');
            }),
            _ => {}
        }
    }

    /// Writes rows from one on, until there are many answers; the row after those.
    pub(super) fn rows<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        batch: &RecordBatch,
        mut row: usize,
        wire: &mut Wire<S>,
    ) -> Result<usize, ArrowError> {
        let rows = Rows::new(batch, self.columns)?;
        let mut value = BytesMut::new();
        while row < batch.num_rows() && !wire.is_full() {
            let head = self.head.split();
            wire.answers.copy_data(|out| match self.options.format {
                CopyFormat::Binary => {
                    out.put_slice(&head);
                    rows.fields(row, out);
                }
                CopyFormat::Text | CopyFormat::Csv => self.line(&rows, row, &mut value, out),
            });
            row += 1;
        }
        Ok(row)
    }

    /// What stands after the rows.
    pub(super) fn end(&mut self, answers: &mut Answers) {
        if self.options.format == CopyFormat::Binary {
            let head = self.head.split();
            answers.copy_data(|out| {
                out.put_slice(&head);
                out.put_i16(-1);
            });
        }
    }

    fn line(&self, rows: &Rows<'_>, row: usize, value: &mut BytesMut, out: &mut BytesMut) {
        for place in 0..self.columns.len() {
            self.delimit(place, out);
            value.clear();
            match rows.value(place, row, value) {
                false => out.put_slice(self.options.null.as_bytes()),
                true => {
                    let force = self.options.force_quote.get(place).copied().unwrap_or(false);
                    self.value(value, force, out);
                }
            }
        }
        out.put_u8(b'\n');
    }

    fn delimit(&self, place: usize, out: &mut BytesMut) {
        if place > 0 {
            out.put_u8(self.options.delimiter);
        }
    }

    fn value(&self, value: &[u8], force_quote: bool, out: &mut BytesMut) {
        match self.options.format {
            CopyFormat::Csv => self.csv(value, force_quote, out),
            _ => self.escaped(value, out),
        }
    }

    /// A value of PostgreSQL's text, with a backslash before what would be read as something else.
    fn escaped(&self, value: &[u8], out: &mut BytesMut) {
        let delimiter = self.options.delimiter;
        for byte in value {
            let letter = match byte {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                other if *other == delimiter => delimiter,
                other => {
                    out.put_u8(*other);
                    continue;
                }
            };
            out.put_slice(&[b'\\', letter]);
        }
    }

    fn csv(&self, value: &[u8], force_quote: bool, out: &mut BytesMut) {
        let CopyOptions { delimiter, quote, escape, .. } = self.options;
        let special = |byte: &u8| [delimiter, quote, b'\n', b'\r'].contains(byte);
        // What would be read as NULL or as the end of the data stands in quotes.
        let ambiguous = value == self.options.null.as_bytes() || value == b"\\.";
        if !force_quote && !ambiguous && !value.iter().any(special) {
            return out.put_slice(value);
        }
        out.put_u8(quote);
        for byte in value {
            if *byte == quote || *byte == escape {
                out.put_u8(escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(quote);
    }
}
