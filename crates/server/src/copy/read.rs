//! Splits the data of a COPY into fields and rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::{CopyFormat, CopyHeader, CopyIn, CopyOptions, Error, sqlstate};

use super::columns::{Gathered, WrongAt};
use crate::message::{Format, MESSAGE_BYTES_MAX};

/// Maximum rows of a batch.
const ROWS_MAX: usize = 16 << 10;

/// Approximate maximum bytes of a batch's column.
const BYTES_MAX: usize = 4 << 20;

/// The first bytes of binary data.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Splits bytes into rows and passes them on in batches.
pub struct CopyReader {
    options: CopyOptions,
    schema: SchemaRef,
    columns: Vec<Gathered>,
    /// The bytes of an incomplete row.
    rest: Vec<u8>,
    /// Number of rows gathered, and number of rows before those.
    gathered: usize,
    before: u64,
    header: bool,
    begun: bool,
    ended: bool,
    /// Number of bytes of the incomplete row already scanned (CSV); true if the scan ended within quotes.
    looked_at: usize,
    within: bool,
}

impl CopyReader {
    /// Creates a reader of the rows for a COPY.
    pub fn new(copy: &CopyIn) -> CopyReader {
        let (schema, options) = (copy.columns(), copy.options());
        CopyReader {
            columns: schema.fields().iter().map(Gathered::new).collect(),
            schema: schema.clone(),
            rest: Vec::new(),
            gathered: 0,
            before: 0,
            header: options.header != CopyHeader::No,
            begun: false,
            ended: false,
            looked_at: 0,
            within: false,
            options: options.clone(),
        }
    }

    /// Reads the next bytes of the data, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8], copy: &mut CopyIn) -> Result<(), Error> {
        if self.rest.is_empty() {
            let used = self.cut(bytes, copy)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        if self.rest.len() > MESSAGE_BYTES_MAX {
            return Err(self.broken(&format!("it has more than {MESSAGE_BYTES_MAX} bytes")));
        }
        let mut data = std::mem::take(&mut self.rest);
        data.extend_from_slice(bytes);
        // Scan an incomplete line only once its end has arrived.
        if self.options.format == CopyFormat::Binary || bytes.contains(&b'\n') {
            let used = self.cut(&data, copy)?;
            data.drain(..used);
        }
        self.rest = data;
        Ok(())
    }

    /// Reads the rest, which has no line break at its end.
    pub fn finish(&mut self, copy: &mut CopyIn) -> Result<(), Error> {
        if !self.rest.is_empty() && !self.ended {
            if self.options.format == CopyFormat::Binary {
                return Err(self.broken("the data ends within a row"));
            }
            let mut last = std::mem::take(&mut self.rest);
            last.push(b'\n');
            let used = self.cut(&last, copy)?;
            if used < last.len() {
                return Err(self.broken("the data ends within quotes"));
            }
        }
        self.hand_on(copy)
    }

    /// Reads all complete rows. Returns the number of bytes used.
    fn cut(&mut self, data: &[u8], copy: &mut CopyIn) -> Result<usize, Error> {
        let mut used = 0;
        while used < data.len() && !self.ended {
            let rest = &data[used..];
            let length = match self.options.format {
                CopyFormat::Text => self.text_row(rest)?,
                CopyFormat::Csv => self.csv_row(rest)?,
                CopyFormat::Binary => self.binary_row(rest)?,
            };
            let Some(length) = length else { break };
            used += length;
            if self.gathered >= ROWS_MAX || self.columns.iter().any(|column| column.bytes() > BYTES_MAX) {
                self.hand_on(copy)?;
            }
        }
        // Data after the end is ignored.
        Ok(if self.ended { data.len() } else { used })
    }

    /// Passes the gathered rows on as a batch.
    fn hand_on(&mut self, copy: &mut CopyIn) -> Result<(), Error> {
        if self.gathered == 0 {
            return Ok(());
        }
        let format = match self.options.format {
            CopyFormat::Binary => Format::Binary,
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
        };
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let taken = column.take(format);
            arrays.push(taken.map_err(|WrongAt { row, wrong }| {
                let line = self.before + row as u64 + 1;
                Error::invalid(format!("COPY, row {line}, column \"{}\": {wrong}", column.field.name()))
                    .code(sqlstate::INVALID_TEXT_REPRESENTATION)
            })?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.gathered));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options);
        let batch = batch.map_err(|error| self.broken(&error.to_string()))?;
        self.before += self.gathered as u64;
        self.gathered = 0;
        copy.push(batch)
    }

    fn broken(&self, what: &str) -> Error {
        let row = self.before + self.gathered as u64 + 1;
        Error::invalid(format!("COPY, row {row}: {what}")).code(sqlstate::BAD_COPY_FILE_FORMAT)
    }

    fn too_many(&self) -> Error {
        self.broken(&format!("there are more fields than the {} columns", self.columns.len()))
    }

    /// Ends a row with this number of fields. The first row may be the header.
    fn end_row(&mut self, fields: usize) -> Result<(), Error> {
        if fields < self.columns.len() {
            let missing = self.columns[fields].field.name();
            return Err(self.broken(&format!(
                "there are {fields} fields where {} columns were expected: \"{missing}\" has none",
                self.columns.len()
            )));
        }
        if std::mem::take(&mut self.header) {
            return self.check_header();
        }
        self.gathered += 1;
        Ok(())
    }

    /// Checks the gathered row as the header.
    fn check_header(&mut self) -> Result<(), Error> {
        let schema = self.schema.clone();
        for (column, field) in self.columns.iter_mut().zip(schema.fields()) {
            let name = column.take_text();
            if self.options.header == CopyHeader::Match && name.as_deref() != Some(field.name()) {
                let found = name.unwrap_or_default();
                return Err(Error::invalid(format!(
                    "COPY's header names column \"{found}\" where \"{}\" was expected",
                    field.name()
                ))
                .code(sqlstate::BAD_COPY_FILE_FORMAT));
            }
        }
        Ok(())
    }

    /// Reads a row in PostgreSQL's text format. Returns the bytes used; `None` if the row is incomplete.
    fn text_row(&mut self, data: &[u8]) -> Result<Option<usize>, Error> {
        let Some(end) = line_end(data) else { return Ok(None) };
        let line = data[..end].strip_suffix(b"\r").unwrap_or(&data[..end]);
        if line == b"\\." {
            self.ended = true;
            return Ok(Some(end + 1));
        }
        let delimiter = self.options.delimiter;
        let mut rest = Some(line);
        let mut fields = 0;
        while let Some(left) = rest {
            let end = field_end(left, delimiter);
            let field = &left[..end];
            rest = left.get(end + 1..);
            if self.columns.is_empty() && field.is_empty() && rest.is_none() {
                break;
            }
            let Some(column) = self.columns.get_mut(fields) else { return Err(self.too_many()) };
            let is_null = field == self.options.null.as_bytes();
            if !is_null {
                unescape(field, column);
            }
            column.close(!is_null);
            fields += 1;
        }
        self.end_row(fields)?;
        Ok(Some(end + 1))
    }

    /// Reads a CSV row. Returns the bytes used; `None` if the row is incomplete.
    fn csv_row(&mut self, data: &[u8]) -> Result<Option<usize>, Error> {
        let Some(end) = self.csv_end(data) else { return Ok(None) };
        (self.looked_at, self.within) = (0, false);
        let line = data[..end].strip_suffix(b"\r").unwrap_or(&data[..end]);
        if line == b"\\." {
            self.ended = true;
            return Ok(Some(end + 1));
        }
        let CopyOptions { delimiter, quote, escape, .. } = self.options;
        let (mut at, mut fields) = (0, 0);
        loop {
            let Some(column) = self.columns.get_mut(fields) else { return Err(self.too_many()) };
            let (mut quoted, mut within) = (false, false);
            while let Some(&byte) = line.get(at) {
                let next = line.get(at + 1).copied();
                if within && byte == escape && next.is_some_and(|next| next == quote || next == escape) {
                    column.extend(&line[at + 1..at + 2]);
                    at += 2;
                    continue;
                }
                if byte == quote {
                    (quoted, within) = (true, !within);
                } else if byte == delimiter && !within {
                    break;
                } else {
                    column.extend(&line[at..at + 1]);
                }
                at += 1;
            }
            let looks_null = column.open() == self.options.null.as_bytes();
            let flag = |flags: &[bool]| flags.get(fields).copied().unwrap_or(false);
            let is_null = looks_null
                && if quoted { flag(&self.options.force_null) } else { !flag(&self.options.force_not_null) };
            column.close(!is_null);
            fields += 1;
            if at >= line.len() {
                break;
            }
            at += 1;
        }
        self.end_row(fields)?;
        Ok(Some(end + 1))
    }

    /// Returns the line break outside of quotes that ends a row. Resumes where the previous scan ended.
    fn csv_end(&mut self, data: &[u8]) -> Option<usize> {
        let CopyOptions { quote, escape, .. } = self.options;
        let mut at = self.looked_at;
        while let Some(found) = memchr::memchr3(b'\n', quote, escape, &data[at..]) {
            at += found;
            match data[at] {
                b'\n' if !self.within => return Some(at),
                byte if byte == escape && escape != quote && self.within => {
                    if at + 1 == data.len() {
                        self.looked_at = at;
                        return None;
                    }
                    at += 1;
                }
                byte if byte == quote => self.within = !self.within,
                _ => {}
            }
            at += 1;
        }
        self.looked_at = data.len();
        None
    }

    /// Reads a row in PostgreSQL's binary format. Returns the bytes used; `None` if the row is incomplete.
    fn binary_row(&mut self, data: &[u8]) -> Result<Option<usize>, Error> {
        let mut at = 0;
        if !self.begun {
            let head = SIGNATURE.len() + 8;
            if data.len() < head {
                return Ok(None);
            }
            if !data.starts_with(SIGNATURE) {
                return Err(self.broken("the data doesn't begin as binary COPY data does"));
            }
            let extension = integer(&data[head - 4..]).unwrap_or(0).max(0) as usize;
            if data.len() < head + extension {
                return Ok(None);
            }
            self.begun = true;
            return Ok(Some(head + extension));
        }
        let Some(count) = data.first_chunk().map(|bytes| i16::from_be_bytes(*bytes)) else { return Ok(None) };
        at += 2;
        if count == -1 {
            self.ended = true;
            return Ok(Some(at));
        }
        if usize::try_from(count).ok() != Some(self.columns.len()) {
            let message =
                format!("there are {count} fields where {} columns were expected", self.columns.len());
            return Err(self.broken(&message));
        }
        let mut fields = Vec::with_capacity(self.columns.len());
        for _ in 0..count {
            let Some(length) = integer(&data[at..]) else { return Ok(None) };
            at += 4;
            let Ok(length) = usize::try_from(length) else {
                fields.push(None);
                continue;
            };
            let Some(value) = data.get(at..at + length) else { return Ok(None) };
            fields.push(Some(value));
            at += length;
        }
        for (column, field) in self.columns.iter_mut().zip(fields) {
            column.extend(field.unwrap_or_default());
            column.close(field.is_some());
        }
        self.gathered += 1;
        Ok(Some(at))
    }
}

fn integer(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Returns the line break that ends a line.
fn line_end(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + memchr::memchr(b'\n', &data[from..])?;
        // A line break after a backslash belongs to the value, unless that backslash is itself escaped.
        let backslashes = data[from..end].iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(end);
        }
        from = end + 1;
    }
}

/// Returns the end of a field: the first delimiter without a backslash before it, or the end of the line.
fn field_end(line: &[u8], delimiter: u8) -> usize {
    let mut from = 0;
    while let Some(found) = memchr::memchr2(delimiter, b'\\', &line[from..]) {
        let at = from + found;
        if line[at] == delimiter {
            return at;
        }
        from = (at + 2).min(line.len());
    }
    line.len()
}

/// Appends a field in PostgreSQL's text format with its escapes resolved.
fn unescape(field: &[u8], column: &mut Gathered) {
    let mut rest = field;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        column.extend(&rest[..at]);
        let Some((&next, after)) = rest[at + 1..].split_first() else {
            return column.extend(b"\\");
        };
        rest = after;
        let plain = match next {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => {
                let digits = rest.iter().take(2).take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
                let octal = rest[..digits]
                    .iter()
                    .fold(next - b'0', |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0'));
                rest = &rest[digits..];
                octal
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let digits = rest.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                let value = rest[..digits].iter().fold(0, |value: u8, digit| {
                    let digit = char::from(*digit).to_digit(16).unwrap_or(0) as u8;
                    value.wrapping_mul(16).wrapping_add(digit)
                });
                rest = &rest[digits..];
                value
            }
            other => other,
        };
        column.extend(&[plain]);
    }
    column.extend(rest);
}
