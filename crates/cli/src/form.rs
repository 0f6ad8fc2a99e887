//! The output formats of rows: tables for people, and formats for programs.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use console::measure_text_width;

use crate::cell::Cells;
use crate::forms::{Csv, Expanded, Json, Line, Markdown, Table};

/// Writes one result, batch by batch as it arrives, so that its length isn't limited.
pub trait Form {
    /// Writes rows. The first call may set widths.
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()>;
    /// Writes the end.
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// The output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// An aligned table.
    #[default]
    Table,
    /// Comma-separated values with a line of names.
    Csv,
    /// One JSON array of objects.
    Json,
    /// A JSON object a line.
    Ndjson,
    /// A table of Markdown.
    Markdown,
    /// One value a line.
    Line,
}

/// Every format with its name.
pub const MODES: &[(&str, Mode)] = &[
    ("table", Mode::Table),
    ("csv", Mode::Csv),
    ("json", Mode::Json),
    ("ndjson", Mode::Ndjson),
    ("markdown", Mode::Markdown),
    ("line", Mode::Line),
];

impl Mode {
    /// Returns the format's name.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("table", |(name, _)| name)
    }

    /// Returns the format with this name.
    pub fn find(name: &str) -> Option<Mode> {
        MODES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, mode)| *mode)
    }
}

/// The display options of tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Maximum width of lines in columns; `None` doesn't cut them.
    pub width: Option<usize>,
    /// True if NULL is dimmed, to distinguish it from the text 'NULL'.
    pub color: bool,
    /// True if a row is a block of lines, one a column.
    pub expanded: bool,
}

/// Creates a writer for rows of this schema.
pub fn form(mode: Mode, schema: SchemaRef, look: Look) -> Box<dyn Form + Send> {
    match mode {
        Mode::Table if look.expanded => Box::new(Expanded::new(schema, look)),
        Mode::Table => Box::new(Table::new(schema, look)),
        Mode::Csv => Box::new(Csv::new(schema)),
        Mode::Json => Box::new(Json::array(schema)),
        Mode::Ndjson => Box::new(Json::lines(schema)),
        Mode::Markdown => Box::new(Markdown::new(schema)),
        Mode::Line => Box::new(Line::new(schema)),
    }
}

/// The lines of a value, or `None` for NULL.
pub type Cell = Option<Vec<String>>;

/// Returns the rows of a batch, cell by cell, without characters that would break a table.
pub fn cells(batch: &RecordBatch) -> io::Result<Vec<Vec<Cell>>> {
    let lines = |text: String| text.split('\n').map(visible).collect();
    let rows = texts(batch)?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(lines)).collect()).collect())
}

/// Returns the rows of a batch as text; `None` is NULL.
pub fn texts(batch: &RecordBatch) -> io::Result<Vec<Vec<Option<String>>>> {
    let columns: Vec<Cells<'_>> =
        batch.columns().iter().map(Cells::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.get(row)).collect()).collect())
}

/// Returns the width of a cell.
pub fn cell_width(cell: &Cell) -> usize {
    match cell {
        None => "NULL".len(),
        Some(lines) => lines.iter().map(|line| measure_text_width(line)).fold(0, usize::max),
    }
}

/// Returns the text with control characters spelled out: they would break the table or the terminal.
pub fn visible(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            result.extend(letter.escape_default());
        } else {
            result.push(letter);
        }
    }
    result
}

/// Returns `(1 row)`, `(2 rows)`.
pub fn row_count(rows: usize) -> String {
    format!("({rows} {})", if rows == 1 { "row" } else { "rows" })
}
