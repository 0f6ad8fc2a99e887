//! Rows as lines `name = value`, with an empty line between rows.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use console::measure_text_width;

use crate::form::{Form, cells, visible};

/// A writer of lines.
#[derive(Debug)]
pub struct Line {
    names: Vec<String>,
    rows: usize,
}

impl Line {
    /// Creates a writer of rows of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| visible(field.name())).collect();
        let width = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0);
        let padded = |name: String| format!("{}{name}", " ".repeat(width - measure_text_width(&name)));
        Line { names: names.into_iter().map(padded).collect(), rows: 0 }
    }
}

impl Form for Line {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        for batch in batches {
            for row in cells(batch)? {
                if self.rows > 0 {
                    writeln!(out)?;
                }
                self.rows += 1;
                for (name, cell) in self.names.iter().zip(row) {
                    let below = format!("\n{}   ", " ".repeat(measure_text_width(name)));
                    let value = cell.map_or_else(|| "NULL".to_owned(), |lines| lines.join(&below));
                    writeln!(out, "{name} = {value}")?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
