//! Rows as blocks of lines, a column a line: for rows wider than the screen.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use console::{measure_text_width, style, truncate_str};

use crate::form::{Cell, Form, Look, cell_width, cells, row_count, visible};

/// A writer of blocks.
#[derive(Debug)]
pub struct Expanded {
    look: Look,
    names: Vec<String>,
    name_width: usize,
    value_width: usize,
    rows: usize,
    started: bool,
}

impl Expanded {
    /// Creates a writer of rows of this schema.
    pub fn new(schema: SchemaRef, look: Look) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| visible(field.name())).collect();
        let name_width = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0);
        Expanded { look, names, name_width, value_width: 0, rows: 0, started: false }
    }

    fn record(&mut self, row: &[Cell], out: &mut dyn Write) -> io::Result<()> {
        self.rows += 1;
        let mut rule = format!("-[ RECORD {} ]", self.rows);
        let width = self.name_width + 3 + self.value_width;
        let dashes = width.min(self.look.width.unwrap_or(width)).saturating_sub(rule.len());
        rule.push_str(&"-".repeat(dashes.max(1)));
        match self.look.width {
            Some(width) => writeln!(out, "{}", truncate_str(&rule, width, "…"))?,
            None => writeln!(out, "{rule}")?,
        }
        for (name, cell) in self.names.iter().zip(row) {
            let null = || vec![if self.look.color { dimmed("NULL") } else { "NULL".to_owned() }];
            let lines = cell.clone().unwrap_or_else(null);
            for (place, value) in lines.iter().enumerate() {
                let name = if place == 0 { name } else { "" };
                let padding = " ".repeat(self.name_width - measure_text_width(name));
                // A long value is not cut; it may take several lines of the screen.
                writeln!(out, "{}", format!("{name}{padding} | {value}").trim_end())?;
            }
        }
        Ok(())
    }
}

fn dimmed(text: &str) -> String {
    style(text).dim().force_styling(true).to_string()
}

impl Form for Expanded {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        let rows = batches.iter().map(cells).collect::<io::Result<Vec<_>>>()?.concat();
        if !std::mem::replace(&mut self.started, true) {
            self.value_width = rows.iter().flatten().map(cell_width).max().unwrap_or(0);
        }
        rows.iter().try_for_each(|row| self.record(row, out))
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", row_count(self.rows))
    }
}
