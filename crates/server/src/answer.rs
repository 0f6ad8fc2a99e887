//! Encodes the answers to clients.
//!
//! The messages of PostgreSQL's protocol 3.0 that a server sends.

use bytes::{BufMut, BytesMut};
use millstream_engine::TransactionStatus;

use crate::oid::{Column, VARCHAR};

/// Answers that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) bytes: BytesMut,
}

/// The content of an error or a notice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// `ERROR`, `FATAL`, `WARNING` or `NOTICE`.
    pub(crate) severity: &'static str,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The character of the statement that is at fault, counted from 1.
    pub(crate) position: Option<usize>,
}

impl Answers {
    /// Appends a message of this kind, and fills in its length after its content.
    fn message(&mut self, kind: u8, content: impl FnOnce(&mut BytesMut)) {
        self.bytes.put_u8(kind);
        let start = self.bytes.len();
        self.bytes.put_u32(0);
        content(&mut self.bytes);
        close(&mut self.bytes, start);
    }

    pub(crate) fn authentication_ok(&mut self) {
        self.message(b'R', |bytes| bytes.put_u32(0));
    }

    pub(crate) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |bytes| {
            text(bytes, name);
            text(bytes, value);
        });
    }

    pub(crate) fn backend_key(&mut self, process: u32, secret: &[u8]) {
        self.message(b'K', |bytes| {
            bytes.put_u32(process);
            bytes.put_slice(secret);
        });
    }

    /// Appends a NegotiateProtocolVersion message: the server speaks 3.0 and doesn't know these options.
    pub(crate) fn negotiate(&mut self, options: &[&str]) {
        self.message(b'v', |bytes| {
            bytes.put_u32(0x0003_0000);
            bytes.put_u32(options.len() as u32);
            options.iter().for_each(|option| text(bytes, option));
        });
    }

    pub(crate) fn ready(&mut self, status: TransactionStatus) {
        self.message(b'Z', |bytes| {
            bytes.put_u8(match status {
                TransactionStatus::Idle => b'I',
                TransactionStatus::InTransaction => b'T',
                TransactionStatus::Failed => b'E',
            });
        });
    }

    pub(crate) fn parse_complete(&mut self) {
        self.message(b'1', |_| {});
    }

    pub(crate) fn bind_complete(&mut self) {
        self.message(b'2', |_| {});
    }

    pub(crate) fn close_complete(&mut self) {
        self.message(b'3', |_| {});
    }

    pub(crate) fn no_data(&mut self) {
        self.message(b'n', |_| {});
    }

    pub(crate) fn portal_suspended(&mut self) {
        self.message(b's', |_| {});
    }

    pub(crate) fn empty_query(&mut self) {
        self.message(b'I', |_| {});
    }

    pub(crate) fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |bytes| text(bytes, tag));
    }

    pub(crate) fn parameter_description(&mut self, oids: &[u32]) {
        self.message(b't', |bytes| {
            bytes.put_u16(oids.len() as u16);
            oids.iter().for_each(|oid| bytes.put_u32(*oid));
        });
    }

    pub(crate) fn row_description<'a>(&mut self, columns: impl ExactSizeIterator<Item = &'a Column>) {
        self.message(b'T', |bytes| {
            bytes.put_u16(columns.len() as u16);
            for column in columns {
                text(bytes, &column.name);
                // No table, and no column number in it.
                bytes.put_u32(0);
                bytes.put_u16(0);
                let (oid, modifier) = match column.length_max {
                    Some(length) => (VARCHAR, length.saturating_add(4)),
                    None => (column.kind.oid(), column.kind.modifier()),
                };
                bytes.put_u32(oid);
                bytes.put_i16(column.kind.size());
                bytes.put_i32(modifier);
                bytes.put_u16(column.format as u16);
            }
        });
    }

    /// Appends the start of a COPY: data is expected (`G`) or follows (`H`), in this format, with `columns`
    /// columns.
    pub(crate) fn copy(&mut self, kind: u8, binary: bool, columns: usize) {
        self.message(kind, |bytes| {
            bytes.put_u8(binary.into());
            bytes.put_u16(columns as u16);
            (0..columns).for_each(|_| bytes.put_u16(binary.into()));
        });
    }

    pub(crate) fn copy_data(&mut self, content: impl FnOnce(&mut BytesMut)) {
        self.message(b'd', content);
    }

    pub(crate) fn copy_done(&mut self) {
        self.message(b'c', |_| {});
    }

    pub(crate) fn error(&mut self, report: &Report) {
        self.report(b'E', report);
    }

    pub(crate) fn notice(&mut self, report: &Report) {
        self.report(b'N', report);
    }

    fn report(&mut self, kind: u8, report: &Report) {
        self.message(kind, |bytes| {
            let mut field = |code: u8, value: &str| {
                bytes.put_u8(code);
                text(bytes, value);
            };
            field(b'S', report.severity);
            field(b'V', report.severity);
            field(b'C', &report.code);
            field(b'M', &report.message);
            if let Some(hint) = &report.hint {
                field(b'H', hint);
            }
            if let Some(position) = report.position {
                field(b'P', &position.to_string());
            }
            bytes.put_u8(0);
        });
    }
}

/// Appends text up to a zero byte. A client would read the rest after a zero byte as the next field.
fn text(bytes: &mut BytesMut, text: &str) {
    bytes.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    bytes.put_u8(0);
}

/// Fills in the length since `start`, for which four bytes were reserved.
pub(crate) fn close(bytes: &mut BytesMut, start: usize) {
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
