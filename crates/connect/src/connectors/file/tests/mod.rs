//! Tests of the file connector: shared helpers.

mod changes;
mod cuts;
mod following;
mod formats;
mod fuzz;
mod sinks;
mod tailing;
mod unfinished;

use std::fs;
use std::io::Write;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_delta::{Position, Span};

use super::*;
use crate::{Arrival, BadRow, Limit, More, Options};

pub(super) const WIDE: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

pub(super) struct Dir(pub(super) tempfile::TempDir);

impl Dir {
    pub(super) fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn append(&self, name: &str, content: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path().join(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    pub(super) fn open_as(
        &self,
        path: &str,
        columns: Option<&[(&str, DataType)]>,
        more: &[(&str, &str)],
    ) -> Result<Box<dyn Source>> {
        let mut options = Options::default();
        options.0.insert("path".into(), self.path().join(path).to_str().unwrap().to_string());
        options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        options.check(Files.source_options())?;
        let columns = columns.map(|columns| {
            let fields: Vec<Field> =
                columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
            Arc::new(Schema::new(fields))
        });
        let spec = SourceSpec {
            name: "s".into(),
            columns,
            key: vec![],
            options,
            max_record_bytes: 1000,
            timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
            health: crate::Health::default(),
        };
        Files.check_source(&spec)?;
        Files.source(&spec)
    }

    pub(super) fn open(
        &self,
        columns: Option<&[(&str, DataType)]>,
        more: &[(&str, &str)],
    ) -> Box<dyn Source> {
        self.open_as("", columns, more).unwrap()
    }

    /// Removes the directory, which differs from run to run.
    pub(super) fn short(&self, name: &str) -> String {
        name.replace(&format!("{}/", self.path().display()), "")
    }
}

/// Everything that a source returned, in order.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) rows: Vec<RecordBatch>,
    pub(super) spans: Vec<Span>,
    pub(super) bad: Vec<BadRow>,
}

impl Taken {
    pub(super) fn add(&mut self, arrival: Arrival) {
        self.rows.extend(arrival.rows);
        self.spans.extend(arrival.spans);
        self.bad.extend(arrival.bad_rows);
    }

    /// Returns the rows as `column|column@file:offset`.
    pub(super) fn lines(&self, dir: &Dir) -> Vec<String> {
        let mut lines = Vec::new();
        for batch in &self.rows {
            let shown: Vec<_> = (0..batch.num_columns())
                .map(|at| arrow::compute::cast(batch.column(at), &DataType::Utf8View).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let value = |at: usize| {
                    if shown[at].is_null(row) { "NULL" } else { shown[at].as_string_view().value(row) }
                };
                let n = shown.len() - 2;
                let columns: Vec<&str> = (0..n).map(value).collect();
                lines.push(format!("{}@{}:{}", columns.join("|"), dir.short(value(n)), value(n + 1)));
            }
        }
        lines
    }

    pub(super) fn bad(&self, dir: &Dir) -> Vec<String> {
        let show = |bad: &BadRow| {
            format!(
                "{}:{} {} [{}]",
                dir.short(&bad.split),
                bad.offset,
                bad.reason,
                String::from_utf8_lossy(&bad.bytes)
            )
        };
        self.bad.iter().map(show).collect()
    }

    pub(super) fn position(&self) -> Position {
        let mut position = Position::default();
        self.spans.iter().for_each(|span| position.advance(span));
        position
    }
}

/// Reads until the source has nothing more for the moment.
pub(super) async fn take(source: &mut dyn Source, limit: Limit) -> (Taken, More) {
    let mut taken = Taken::default();
    loop {
        let arrival = source.next(limit).await.unwrap();
        let more = arrival.more;
        let rows: usize = arrival.rows.iter().map(RecordBatch::num_rows).sum();
        assert!(rows + arrival.bad_rows.len() <= limit.rows);
        taken.add(arrival);
        if more != More::Now {
            return (taken, more);
        }
    }
}

/// Reads until `rows` rows have arrived.
pub(super) async fn follow(source: &mut dyn Source, rows: usize) -> Taken {
    let mut taken = Taken::default();
    while taken.rows.iter().map(RecordBatch::num_rows).sum::<usize>() + taken.bad.len() < rows {
        source.ready().await.unwrap();
        taken.add(source.next(WIDE).await.unwrap());
    }
    taken
}
