//! The tables of `top`: their columns and rows as texts.

use console::measure_text_width;

use crate::top::details::Operator;
use crate::top::figures::{Query, Sink, Source};
use crate::top::numbers::{UNKNOWN, bytes, count, percent, time};

/// A table. Its first column is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The titles of the columns.
    pub header: Vec<&'static str>,
    /// The number of columns that are aligned to the left.
    pub left: usize,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// Returns the table of queries.
    pub fn queries<'a>(queries: impl IntoIterator<Item = &'a Query>) -> Grid {
        let row = |query: &Query| {
            vec![
                query.name.clone(),
                query.status.clone(),
                percent(query.busy),
                count(query.rows),
                bytes(query.state),
                count(query.errors),
                count(query.behind.or(Some(0.0))),
            ]
        };
        let header = vec!["QUERY", "STATUS", "BUSY", "ROWS", "STATE", "ERRORS", "BEHIND"];
        Grid { header, left: 2, rows: queries.into_iter().map(row).collect() }
    }

    /// Returns the table of sources.
    pub fn sources<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Grid {
        let row = |source: &Source| {
            vec![
                source.name.clone(),
                source.status.clone(),
                count(source.rate),
                count(source.lag),
                time(source.watermark_lag),
                count(source.waiting),
                count(source.bad),
            ]
        };
        let header = vec!["SOURCE", "STATUS", "ROWS/S", "LAG", "WATERMARK", "WAITING", "BAD"];
        Grid { header, left: 2, rows: sources.into_iter().map(row).collect() }
    }

    /// Returns the table of sinks.
    pub fn sinks<'a>(sinks: impl IntoIterator<Item = &'a Sink>) -> Grid {
        let row = |sink: &Sink| {
            vec![
                sink.name.clone(),
                sink.status.clone(),
                percent(sink.busy),
                count(sink.rate),
                count(sink.waiting),
                bytes(sink.waiting_bytes),
            ]
        };
        let header = vec!["SINK", "STATUS", "BUSY", "ROWS/S", "EPOCHS WAIT", "BYTES WAIT"];
        Grid { header, left: 2, rows: sinks.into_iter().map(row).collect() }
    }

    /// Returns the table of a query's operators.
    pub fn operators(operators: &[Operator]) -> Grid {
        let row = |operator: &Operator| {
            vec![
                operator.title.clone(),
                operator.node.clone(),
                operator.cost.clone(),
                percent(operator.busy),
                count(operator.rows_in),
                count(operator.rows_out),
                bytes(operator.state),
            ]
        };
        let header = vec!["OPERATOR", "NODE", "COST", "BUSY", "IN/S", "OUT/S", "STATE"];
        Grid { header, left: 1, rows: operators.iter().map(row).collect() }
    }

    /// Returns the table of a source's partitions.
    pub fn partitions(rows: &[crate::top::reading::Row]) -> Grid {
        let columns = ["partition", "position", "end_position", "lag", "watermark", "idle"];
        let cell = |row: &crate::top::reading::Row, column: &str| {
            row.get(column).map_or_else(|| UNKNOWN.to_owned(), Clone::clone)
        };
        let row = |row| columns.iter().map(|column| cell(row, column)).collect();
        let header = vec!["PARTITION", "POSITION", "END", "LAG", "WATERMARK", "IDLE"];
        Grid { header, left: 1, rows: rows.iter().map(row).collect() }
    }

    /// Returns the widths of the columns, as their contents need them.
    pub fn widths(&self) -> Vec<usize> {
        let width = |(at, title): (usize, &&str)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| measure_text_width(cell)).fold(title.len(), usize::max)
        };
        self.header.iter().enumerate().map(width).collect()
    }

    /// Returns the table as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).enumerate().map(|(at, (cell, width))| {
                let space = " ".repeat(width.saturating_sub(measure_text_width(cell)));
                if at < self.left { format!("{cell}{space}") } else { format!("{space}{cell}") }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let header = line(&mut self.header.iter().copied());
        let rows = self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
        std::iter::once(header).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let query = Query {
            name: "per_page 数".into(),
            status: "running".into(),
            busy: Some(0.25),
            rows: Some(1234.0),
            ..Query::default()
        };
        assert_eq!(
            Grid::queries([&query]).lines(),
            [
                "QUERY        STATUS   BUSY  ROWS  STATE  ERRORS  BEHIND",
                "per_page 数  running  25 %  1.2k      -       -       0",
            ]
        );
        assert_eq!(Grid::sinks([]).lines(), ["SINK  STATUS  BUSY  ROWS/S  EPOCHS WAIT  BYTES WAIT"]);
    }
}
