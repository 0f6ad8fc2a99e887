//! Rows as JSON objects, in an array or one a line. Numbers, booleans, lists and structs keep their JSON
//! types.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;

use crate::form::Form;

/// A writer of JSON.
#[derive(Debug)]
pub struct Json {
    array: bool,
    rows: usize,
    named: SchemaRef,
}

impl Json {
    /// Creates a writer of an array of objects, one object a line.
    pub fn array(schema: SchemaRef) -> Self {
        Json { array: true, rows: 0, named: schema }
    }

    /// Creates a writer of one object a line.
    pub fn lines(schema: SchemaRef) -> Self {
        Json { array: false, ..Json::array(schema) }
    }

    fn object(&mut self, object: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.rows += 1;
        if !self.array {
            out.write_all(object)?;
            return out.write_all(b"\n");
        }
        out.write_all(if self.rows == 1 { b"[" } else { b",\n" })?;
        out.write_all(object)
    }
}

impl Form for Json {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        for batch in batches {
            if self.named.fields().is_empty() {
                (0..batch.num_rows()).try_for_each(|_| self.object(b"{}", out))?;
                continue;
            }
            let mut lines = Vec::new();
            let builder = WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, LineDelimited>(&mut lines);
            writer.write(batch).and_then(|()| writer.finish()).map_err(io::Error::other)?;
            drop(writer);
            // JSON escapes line feeds within a text as \n, so each line is an object.
            for object in lines.split(|byte| *byte == b'\n').filter(|object| !object.is_empty()) {
                self.object(object, out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match (self.array, self.rows) {
            (false, _) => Ok(()),
            (true, 0) => out.write_all(b"[]\n"),
            (true, _) => out.write_all(b"]\n"),
        }
    }
}
