//! The file source: an intake whose blocking work runs on separate threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span};
use tokio::task::{JoinHandle, spawn_blocking};

use super::intake::{Intake, Settings};
use super::known::Earlier;
use super::reading::{FileReader, Layout, unreadable};
use crate::formats::Format;
use crate::{Arrival, BadRow, Error, Jump, Limit, More, Reading, Result, Source, SourceProperties};

/// Maximum number of files kept open for interrupted replays: backfilling queries take turns.
const REPLAYS_MAX: usize = 8;

/// A source that reads files.
pub(super) struct FileSource {
    layout: Arc<Layout>,
    settings: Arc<Settings>,
    /// The intake; `None` while a pull owns it.
    intake: Option<Box<Intake>>,
    /// The running pull. It stays here if its caller stops waiting, so that none of its rows are lost.
    pull: Option<JoinHandle<(Box<Intake>, Result<Arrival>)>>,
    /// The result of a pull that no caller has taken yet.
    arrived: Option<Result<Arrival>>,
    /// The files of the last interrupted replays, still open, oldest first.
    replayed: VecDeque<Replay>,
}

struct Replay {
    span: Span,
    reader: FileReader,
}

impl FileSource {
    /// Creates a source that reads with `intake`.
    pub fn new(layout: Arc<Layout>, settings: Arc<Settings>, intake: Intake) -> FileSource {
        FileSource {
            layout,
            settings,
            intake: Some(Box::new(intake)),
            pull: None,
            arrived: None,
            replayed: VecDeque::new(),
        }
    }

    /// Waits for the running pull and keeps its result.
    async fn settle(&mut self) -> Result<()> {
        let Some(pull) = &mut self.pull else { return Ok(()) };
        let finished = pull.await;
        self.pull = None;
        let (intake, arrival) =
            finished.map_err(|error| Error::Bug(format!("reading files stopped: {error}")))?;
        self.intake = Some(intake);
        self.arrived = Some(arrival);
        Ok(())
    }

    fn intake(&mut self) -> Result<&mut Intake> {
        self.intake.as_deref_mut().ok_or_else(|| Error::Bug("reading files stopped before".into()))
    }
}

#[async_trait]
impl Source for FileSource {
    fn schema(&self) -> &SchemaRef {
        &self.layout.schema
    }

    /// In the other formats the columns of a record lie side by side.
    /// Files that don't grow are read one after the other. A growing file stays open beside the others.
    fn properties(&self) -> SourceProperties {
        SourceProperties {
            replayable: true,
            brings_changes: self.layout.format.is_changes(),
            prunes_columns: matches!(self.layout.format, Format::Parquet),
            bounded: self.settings.bounded,
            reading: if self.layout.grows { Reading::SideBySide(Vec::new()) } else { Reading::InTurn },
            ..SourceProperties::default()
        }
    }

    async fn want(&mut self, columns: &[bool]) -> Result<()> {
        self.settle().await?;
        self.replayed.clear();
        self.intake()?.want(columns.into());
        Ok(())
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.intake()?.seek(after);
        Ok(())
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        if self.pull.is_none() && self.arrived.is_none() {
            let mut intake =
                self.intake.take().ok_or_else(|| Error::Bug("reading files stopped before".into()))?;
            self.pull = Some(spawn_blocking(move || {
                let arrival = intake.next(limit);
                (intake, arrival)
            }));
        }
        self.settle().await?;
        match self.arrived.take() {
            Some(arrival) => arrival,
            None => Err(Error::Bug("a pull was started but is not there".into())),
        }
    }

    async fn ready(&mut self) -> Result<()> {
        if self.pull.is_none() && self.arrived.is_none() {
            let due = self.intake()?.listing_due();
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(())
    }

    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        if span.to == 0 {
            return Ok(Arrival { spans: vec![span.clone()], ..Arrival::nothing(More::Never) });
        }
        let (path, generation) = self.settings.parse_split(&span.split);
        // A running pull owns the state of the file.
        self.settle().await?;
        let intake = self.intake()?;
        let (earlier, wanted) = (intake.earlier(&path), intake.wanted());
        if earlier.is_some_and(|earlier| earlier.changed || generation < earlier.holds_since) {
            return Err(changed(&path));
        }
        let kept = self.replayed.iter().position(|kept| kept.span == *span);
        let kept = kept.and_then(|at| self.replayed.remove(at));
        let (layout, span) = (self.layout.clone(), span.clone());
        let replayed = spawn_blocking(move || {
            let reader = match kept {
                Some(kept) => kept.reader,
                None => open_again((&layout, wanted.as_deref()), &path, &span, earlier)?,
            };
            replay(reader, &path, span, limit)
        })
        .await;
        let (arrival, kept) =
            replayed.map_err(|error| Error::Bug(format!("replaying a file stopped: {error}")))??;
        self.replayed.extend(kept);
        if self.replayed.len() > REPLAYS_MAX {
            self.replayed.pop_front();
        }
        Ok(arrival)
    }

    async fn jump(&mut self, to: &Jump) -> Result<usize> {
        let Jump::Again(pattern) = to else {
            return Err(Error::Invalid("files have no places at which a source could continue".into()));
        };
        self.settle().await?;
        self.intake()?.read_again(pattern)
    }
}

fn changed(path: &str) -> Error {
    Error::External(format!("file '{path}' changed since it was read, so what was read can't be read again"))
}

/// Opens the file of `span` at its beginning, if the file hasn't changed since.
fn open_again(
    (layout, wanted): (&Arc<Layout>, Option<&[bool]>),
    path: &Arc<str>,
    span: &Span,
    earlier: Option<Earlier>,
) -> Result<FileReader> {
    let reader = FileReader::open(layout, wanted, path, (span.from, Some(span.to)), Duration::ZERO);
    let reader = reader.map_err(|error| unreadable(path, &error))?;
    match earlier.and_then(|earlier| Some((earlier.through, earlier.seen?))) {
        Some((through, before)) if !layout.still_holds(path, through, before, reader.seen()) => {
            Err(changed(path))
        }
        _ => Ok(reader),
    }
}

/// Reads the first part of `span` within `limit`. Returns the open file too if there is more.
fn replay(mut reader: FileReader, path: &str, span: Span, limit: Limit) -> Result<(Arrival, Option<Replay>)> {
    let mut arrival = Arrival::nothing(More::Never);
    let (mut rows, mut bytes, mut at) = (0, 0, span.from);
    while at < span.to && rows < limit.rows && bytes < limit.bytes {
        let piece = reader.next(Limit { rows: limit.rows - rows, bytes: limit.bytes - bytes })?;
        if piece.to == at {
            return Err(Error::External(format!(
                "file '{path}' ends at {at}, but was read up to {} before: restore the file",
                span.to
            )));
        }
        at = piece.to;
        rows += piece.batch.as_ref().map_or(0, |batch| batch.num_rows()) + piece.bad.len();
        bytes += piece.bytes;
        arrival.rows.extend(piece.batch);
        arrival.bad_rows.extend(piece.bad.into_iter().map(|bad| BadRow::of(&span.split, bad)));
    }
    let rest = Span { from: at, ..span.clone() };
    arrival.spans.push(Span { to: at, done: span.done && at >= span.to, ..span });
    if at >= rest.to {
        return Ok((arrival, None));
    }
    arrival.more = More::Now;
    Ok((arrival, Some(Replay { span: rest, reader })))
}
