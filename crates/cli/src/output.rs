//! What the user sees of a script: tables and tags on standard output, notices on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use arrow::array::RecordBatch;
use console::Term;
use futures::StreamExt;
use millstream::datafusion::error::DataFusionError;
use millstream::datafusion::execution::SendableRecordBatchStream;
use millstream::{Error, Tag};
use tokio::time::{Instant, timeout_at};

use crate::stop::Stop;
use crate::table::{Look, Table};

/// So many rows decide the widths of a table's columns, if they come without much delay: a result may arrive
/// in batches as small as the statements that inserted its rows.
const FIRST_ROWS: usize = 1_000;
const FIRST_ROWS_WAIT: Duration = Duration::from_millis(20);

/// Writes the results of statements. They are gathered and written in pieces of whole lines, since sinks may
/// print at the same time.
pub struct Output {
    text: Vec<u8>,
    terminal: bool,
    color: bool,
    quiet: bool,
}

/// Why a result isn't shown to its end.
#[derive(Debug)]
pub enum Broken {
    /// The query failed.
    Query(Error),
    /// The output failed.
    Output(io::Error),
}

impl Output {
    /// Standard output. Tags and notices are left out when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Output { text: Vec::new(), terminal, color: console::colors_enabled(), quiet }
    }

    /// Says that a statement is done. A program that reads the output gets rows only.
    pub fn tag(&mut self, tag: &Tag) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.terminal {
            writeln!(self.text, "{}", tag.text)?;
            self.flush()?;
        }
        tag.notices.iter().for_each(|notice| self.notice(notice));
        Ok(())
    }

    /// Says something that is no failure.
    pub fn notice(&self, notice: &str) {
        if !self.quiet {
            eprintln!("NOTICE: {notice}");
        }
    }

    /// Prints rows as they come.
    pub async fn rows(&mut self, mut rows: SendableRecordBatchStream) -> Result<(), Broken> {
        let size = if self.terminal { Term::stdout().size_checked() } else { None };
        let look = Look { width: size.map(|(_, columns)| columns.into()), color: self.color };
        let mut table = Table::new(rows.schema(), look);
        let First { batches, mut more } = first(&mut rows).await?;
        table.write(&batches, &mut self.text)?;
        drop(batches);
        while more {
            self.flush()?;
            match rows.next().await {
                Some(batch) => table.write(&[batch?], &mut self.text)?,
                None => more = false,
            }
        }
        table.finish(&mut self.text)?;
        Ok(self.flush()?)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.text).and_then(|()| out.flush());
        self.text.clear();
        written
    }
}

struct First {
    batches: Vec<RecordBatch>,
    more: bool,
}

/// The rows that decide the widths.
async fn first(rows: &mut SendableRecordBatchStream) -> Result<First, Broken> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut count = 0;
    let mut end = None;
    while count < FIRST_ROWS {
        let next = match end {
            None => rows.next().await,
            Some(end) => match timeout_at(end, rows.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some(batch) = next else { return Ok(First { batches, more: false }) };
        let batch = batch?;
        if batch.num_rows() > 0 {
            count += batch.num_rows();
            batches.push(batch);
            end.get_or_insert_with(|| Instant::now() + FIRST_ROWS_WAIT);
        }
    }
    Ok(First { batches, more: true })
}

impl From<DataFusionError> for Broken {
    fn from(error: DataFusionError) -> Self {
        Broken::Query(error.into())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Output(error)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Query(error) => Stop::engine(&error),
            Broken::Output(error) => error.into(),
        }
    }
}
