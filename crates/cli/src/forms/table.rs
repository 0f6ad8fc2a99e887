//! Rows as an aligned table, written batch by batch as they arrive.
//!
//! The first rows determine the column widths; a longer value in a later row shifts its own line only. No
//! rows are kept, so the length of a result isn't limited.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use console::{measure_text_width, style, truncate_str};

use crate::cell;
use crate::form::{Cell, Form, Look, cell_width, cells, row_count, visible};

/// A writer of a table.
#[derive(Debug)]
pub struct Table {
    look: Look,
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    started: bool,
}

#[derive(Debug)]
struct Column {
    width: usize,
    right: bool,
}

impl Table {
    /// Creates a writer of rows of this schema.
    pub fn new(schema: SchemaRef, look: Look) -> Self {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            width: measure_text_width(&visible(field.name())),
            right: cell::is_number(field.data_type()),
        };
        let columns = schema.fields().iter().map(column).collect();
        Table { look, schema, columns, rows: 0, started: false }
    }

    fn widen(&mut self, rows: &[Vec<Cell>]) {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let widths = rows.iter().map(|row| cell_width(&row[index]));
            column.width = widths.fold(column.width, usize::max);
        }
    }

    fn header(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.started = true;
        if self.columns.is_empty() {
            return Ok(());
        }
        let schema: &Schema = &self.schema;
        let names: Vec<Cell> =
            schema.fields().iter().map(|field| Some(vec![visible(field.name())])).collect();
        self.line(&names, 0, out)?;
        let rules: Vec<String> = self.columns.iter().map(|column| "-".repeat(column.width + 2)).collect();
        self.cut(&rules.join("+"), out)
    }

    /// Writes a row, on as many lines as its highest cell.
    fn row(&self, row: &[Cell], out: &mut dyn Write) -> io::Result<()> {
        let height = row.iter().flatten().map(Vec::len).fold(1, usize::max);
        (0..height).try_for_each(|line| self.line(row, line, out))
    }

    fn line(&self, row: &[Cell], line: usize, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        for (index, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
            text.push_str(if index == 0 { " " } else { "|" });
            let (shown, more) = match cell {
                None if line == 0 && self.look.color => {
                    (style("NULL").dim().force_styling(true).to_string(), false)
                }
                None if line == 0 => ("NULL".to_owned(), false),
                None => (String::new(), false),
                Some(lines) => (lines.get(line).cloned().unwrap_or_default(), line + 1 < lines.len()),
            };
            let padding = " ".repeat(column.width.saturating_sub(measure_text_width(&shown)));
            let (before, after) =
                if column.right { (padding, String::new()) } else { (String::new(), padding) };
            if index > 0 {
                text.push(' ');
            }
            text.extend([before.as_str(), &shown, &after]);
            // As in psql, a plus marks a value that continues on the next line.
            text.push(if more { '+' } else { ' ' });
        }
        self.cut(text.trim_end(), out)
    }

    fn cut(&self, line: &str, out: &mut dyn Write) -> io::Result<()> {
        match self.look.width {
            Some(width) => writeln!(out, "{}", truncate_str(line, width, "…")),
            None => writeln!(out, "{line}"),
        }
    }
}

impl Form for Table {
    fn write(&mut self, batches: &[RecordBatch], out: &mut dyn Write) -> io::Result<()> {
        let rows = batches.iter().map(cells).collect::<io::Result<Vec<_>>>()?.concat();
        if !self.started {
            self.widen(&rows);
            self.header(out)?;
        }
        self.rows += rows.len();
        rows.iter().try_for_each(|row| self.row(row, out))
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.started {
            self.header(out)?;
        }
        writeln!(out, "{}", row_count(self.rows))
    }
}

/// Returns the width of a table of these rows, in columns of the terminal.
pub fn width(schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<usize> {
    let mut table = Table::new(schema.clone(), Look::default());
    let rows = batches.iter().map(cells).collect::<io::Result<Vec<_>>>()?.concat();
    table.widen(&rows);
    // Each column has a space before, a space or a plus after, and a separator.
    Ok(table.columns.iter().map(|column| column.width + 3).sum::<usize>().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn batch(words: Vec<Option<&str>>, counts: Vec<Option<i64>>) -> RecordBatch {
        let words: ArrayRef = Arc::new(StringArray::from(words));
        let counts: ArrayRef = Arc::new(Int64Array::from(counts));
        RecordBatch::try_from_iter_with_nullable([("word", words, true), ("count", counts, true)]).unwrap()
    }

    fn render(batches: &[RecordBatch], look: Look) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(batches[0].schema(), look);
        for batch in batches {
            table.write(std::slice::from_ref(batch), &mut out).unwrap();
        }
        table.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        let first = batch(vec![Some("a"), None, Some("größe")], vec![Some(1), Some(1234567), None]);
        let second = batch(vec![Some("a longer one")], vec![Some(2)]);
        let expect = "\x20word  |   count
-------+---------
 a     |       1
 NULL  | 1234567
 größe |    NULL
 a longer one |       2
(4 rows)
";
        assert_eq!(render(&[first, second], Look::default()), expect);
    }

    #[test]
    fn one_row_and_none() {
        assert!(render(&[batch(vec![None], vec![None])], Look::default()).ends_with("(1 row)\n"));
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
        let mut out = Vec::new();
        Table::new(schema, Look::default()).finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), " x\n---\n(0 rows)\n");
        let mut out = Vec::new();
        Table::new(Arc::new(Schema::empty()), Look::default()).finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "(0 rows)\n");
    }

    #[test]
    fn lines_within_a_value_go_on_below() {
        let text = render(
            &[batch(vec![Some("a\nbc"), Some("d\te\u{1b}[1m")], vec![Some(1), Some(2)])],
            Look::default(),
        );
        let expect = "\x20word          | count
---------------+-------
 a            +|     1
 bc            |
 d\\te\\u{1b}[1m |     2
(2 rows)
";
        assert_eq!(text, expect);
    }

    #[test]
    fn terminals_cut_lines_and_dim_nulls() {
        let rows = batch(vec![Some("日本語日本語"), None], vec![Some(1), Some(2)]);
        let text = render(std::slice::from_ref(&rows), Look { width: Some(10), ..Look::default() });
        for line in text.lines() {
            assert!(measure_text_width(line) <= 10, "{line}");
        }
        assert!(text.contains('…'));
        assert!(render(&[rows], Look { color: true, ..Look::default() }).contains("\u{1b}[2mNULL\u{1b}[0m"));
    }

    #[test]
    fn numbers_stand_right_whatever_their_type() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 10.0]));
        let rows = RecordBatch::try_from_iter([("f", floats)]).unwrap();
        assert_eq!(render(&[rows], Look::default()), "    f\n------\n  1.5\n 10.0\n(2 rows)\n");
    }
}
