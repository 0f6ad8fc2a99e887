//! The ways in which rows are written: as a table for people, or in a format for programs.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use console::measure_text_width;

use crate::cell::Cells;
use crate::forms::{Csv, Expanded, Json, Line, Markdown, Table};

/// Writes one result, batch by batch as it comes, so that it may be of any length.
pub trait Form {
    /// Writes rows. The first call may set widths.
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()>;
    /// Writes the end.
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// The forms there are.
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
    /// A line a value.
    Line,
}

/// Every form with its name.
pub const MODES: &[(&str, Mode)] = &[
    ("table", Mode::Table),
    ("csv", Mode::Csv),
    ("json", Mode::Json),
    ("ndjson", Mode::Ndjson),
    ("markdown", Mode::Markdown),
    ("line", Mode::Line),
];

impl Mode {
    /// What it is called.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("table", |(name, _)| name)
    }

    /// The form of this name.
    pub fn find(name: &str) -> Option<Mode> {
        MODES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, mode)| *mode)
    }
}

/// How tables are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Lines are cut to this many columns; `None` leaves them whole.
    pub width: Option<usize>,
    /// Whether NULL is dimmed, so that it can be told from the text 'NULL'.
    pub color: bool,
    /// Whether a row is a block of lines, one a column.
    pub expanded: bool,
}

/// What writes rows of this schema.
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

/// A value as text in lines, or NULL.
pub type Cell = Option<Vec<String>>;

/// The rows of a batch, cell by cell, with nothing in them that would break a table.
pub fn cells(batch: &RecordBatch) -> io::Result<Vec<Vec<Cell>>> {
    let lines = |text: String| text.split('\n').map(visible).collect();
    let rows = texts(batch)?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(lines)).collect()).collect())
}

/// The rows of a batch as text; `None` is NULL.
pub fn texts(batch: &RecordBatch) -> io::Result<Vec<Vec<Option<String>>>> {
    let columns: Vec<Cells<'_>> =
        batch.columns().iter().map(Cells::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.get(row)).collect()).collect())
}

/// How wide a cell is.
pub fn cell_width(cell: &Cell) -> usize {
    match cell {
        None => "NULL".len(),
        Some(lines) => lines.iter().map(|line| measure_text_width(line)).fold(0, usize::max),
    }
}

/// The text with control characters spelled out: they would break the table, or the terminal.
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

/// `(1 row)`, `(2 rows)`.
pub fn row_count(rows: usize) -> String {
    format!("({rows} {})", if rows == 1 { "row" } else { "rows" })
}
