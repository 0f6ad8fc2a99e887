//! Writes Nexmark's events as Parquet files, one a table.

use std::fs::File;
use std::path::Path;

use millstream::connect::connectors::Nexmark;
use millstream::connect::{Connector, Health, Limit, More, Options, SourceSpec};
use millstream_benches::Result;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// The tables.
pub const TABLES: [&str; 3] = ["person", "auction", "bid"];

/// Rows of a row group.
const GROUP_ROWS: usize = 100_000;

/// Writes the first `events` events into `folder`, unless their files exist.
pub async fn write(folder: &Path, events: usize) -> Result<()> {
    for table in TABLES {
        let path = folder.join(format!("{table}.parquet"));
        if !path.exists() {
            write_table(&path, table, events).await?;
        }
    }
    Ok(())
}

async fn write_table(path: &Path, table: &str, events: usize) -> Result<()> {
    let options = [("table", table.to_string()), ("events", events.to_string())];
    let mut source = Nexmark.source(&SourceSpec {
        name: table.into(),
        columns: None,
        key: Vec::new(),
        options: Options(options.map(|(name, value)| (name.to_string(), value)).into()),
        max_record_bytes: usize::MAX,
        timestamp_unit: arrow::datatypes::TimeUnit::Microsecond,
        health: Health::default(),
    })?;
    // A half-written file must not be mistaken for a complete one.
    let half = path.with_extension("half");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    let mut writer = ArrowWriter::try_new(File::create(&half)?, source.schema().clone(), Some(properties))?;
    loop {
        let arrival = source.next(Limit { rows: GROUP_ROWS, bytes: usize::MAX }).await?;
        for rows in &arrival.rows {
            writer.write(rows)?;
        }
        if arrival.more == More::Never {
            break;
        }
    }
    writer.close()?;
    std::fs::rename(half, path)?;
    Ok(())
}
