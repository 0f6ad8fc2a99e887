//! Writes rows for COPY … TO STDOUT.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};
use millstream_engine::{CopyFormat, CopyHeader, CopyOptions, CopyOut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::message::Format;
use crate::oid::{Column, columns};
use crate::rows::{Rows, canonical};
use crate::wire::Wire;

/// Writes rows in one format.
pub struct CopyWriter {
    options: CopyOptions,
    pub(super) columns: Vec<Column>,
    /// Bytes before the first row, sent in one message with it as PostgreSQL does; some clients expect
    /// that.
    head: BytesMut,
}

impl CopyWriter {
    /// Creates a writer of the rows of a COPY.
    pub fn new(copy: &CopyOut) -> CopyWriter {
        let mut head = BytesMut::new();
        let format = match copy.options.format {
            CopyFormat::Binary => {
                head.put_slice(b"PGCOPY\n\xff\r\n\0");
                head.put_u64(0);
                Format::Binary
            }
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
        };
        let columns = columns(&copy.rows.schema(), &[format]);
        CopyWriter { options: copy.options.clone(), columns, head }
    }

    /// Returns true if a line with the column names precedes the rows.
    pub(super) fn has_header(&self) -> bool {
        self.options.format != CopyFormat::Binary && self.options.header != CopyHeader::No
    }

    /// Returns the line with the column names; empty if there is none.
    pub fn header(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.put_header(&mut out);
        out.into()
    }

    pub(super) fn put_header(&self, out: &mut BytesMut) {
        if !self.has_header() {
            return;
        }
        for (place, column) in self.columns.iter().enumerate() {
            self.delimit(place, out);
            self.value(column.name.as_bytes(), false, out);
        }
        out.put_u8(b'\n');
    }

    /// Returns all rows of a batch.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let mut out = BytesMut::new();
        let batch = canonical(batch, &self.columns)?;
        let rows = Rows::new(&batch, &self.columns)?;
        let mut value = BytesMut::new();
        let mut head = self.head.split();
        (0..batch.num_rows()).for_each(|row| self.row(&rows, row, &mut head, &mut value, &mut out));
        self.head = head;
        Ok(out.into())
    }

    /// Appends rows from `row` on as messages until the answers are full. Returns the next row.
    pub(super) fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        batch: &RecordBatch,
        mut row: usize,
        wire: &mut Wire<S>,
    ) -> Result<usize, ArrowError> {
        let rows = Rows::new(batch, &self.columns)?;
        let mut value = BytesMut::new();
        let mut head = self.head.split();
        while row < batch.num_rows() && !wire.is_full() {
            wire.answers.copy_data(|out| self.row(&rows, row, &mut head, &mut value, out));
            row += 1;
        }
        self.head = head;
        Ok(row)
    }

    /// Returns the bytes after the rows.
    pub fn end(&mut self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.put_end(&mut out);
        out.into()
    }

    pub(super) fn put_end(&mut self, out: &mut BytesMut) {
        if self.options.format == CopyFormat::Binary {
            out.put_slice(&self.head.split());
            out.put_i16(-1);
        }
    }

    fn row(
        &self,
        rows: &Rows<'_>,
        row: usize,
        head: &mut BytesMut,
        value: &mut BytesMut,
        out: &mut BytesMut,
    ) {
        match self.options.format {
            CopyFormat::Binary => {
                out.put_slice(&head.split());
                rows.fields(row, out);
            }
            CopyFormat::Text | CopyFormat::Csv => self.line(rows, row, value, out),
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

    /// Writes a value in PostgreSQL's text format, with a backslash before characters that have a special
    /// meaning.
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
        // A value that equals the NULL text or the end of the data is quoted.
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
