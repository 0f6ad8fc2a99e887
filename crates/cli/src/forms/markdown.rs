//! Rows as a table of Markdown, to paste into a page.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::cell;
use crate::form::{Form, cells, visible};

/// A writer of Markdown tables.
#[derive(Debug)]
pub struct Markdown {
    schema: SchemaRef,
    started: bool,
}

impl Markdown {
    /// Creates a writer of rows of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        Markdown { schema, started: false }
    }

    fn start(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let fields = self.schema.fields();
        line(fields.iter().map(|field| escaped(&visible(field.name()))), out)?;
        let rule = |number| if number { "---:" } else { "---" };
        line(fields.iter().map(|field| rule(cell::is_number(field.data_type())).to_owned()), out)
    }
}

impl Form for Markdown {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        self.start(out)?;
        for batch in batches {
            for row in cells(batch)? {
                let value = |cell: Option<Vec<String>>| match cell {
                    None => "NULL".to_owned(),
                    Some(lines) => lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>"),
                };
                line(row.into_iter().map(value), out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.start(out)
    }
}

fn line(values: impl Iterator<Item = String>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "| {} |", values.collect::<Vec<_>>().join(" | "))
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
