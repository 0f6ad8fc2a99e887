//! Rows as comma-separated values (RFC 4180, with plain line feeds).
//!
//! As in PostgreSQL's COPY, NULL is an empty field and an empty text is a pair of quotes.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::form::{Form, texts};

/// A writer of comma-separated values.
#[derive(Debug)]
pub struct Csv {
    schema: SchemaRef,
    started: bool,
}

impl Csv {
    /// Creates a writer of rows of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        Csv { schema, started: false }
    }

    fn start(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let names = self.schema.fields().iter().map(|field| Some(field.name().as_str()));
        line(names, out)
    }
}

impl Form for Csv {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        self.start(out)?;
        for batch in batches {
            for row in texts(batch)? {
                line(row.iter().map(Option::as_deref), out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.start(out)
    }
}

fn line<'a>(values: impl Iterator<Item = Option<&'a str>>, out: &mut dyn Write) -> io::Result<()> {
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        match value {
            None => {}
            Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Some(text) => out.write_all(text.as_bytes())?,
        }
    }
    out.write_all(b"\n")
}
