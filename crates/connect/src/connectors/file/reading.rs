//! Reads one file in bounded pieces, from any position that a piece ended at.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::formats::changes::{decoded_schema, tell_origins};
use crate::formats::csv::CsvDecoder;
use crate::formats::decode::{Decode, Decoded, decode_run};
use crate::formats::framing::{BadRecord, Framer, Run};
use crate::formats::json::JsonDecoder;
use crate::formats::parquet::{self, ParquetRows};
use crate::formats::text::{TextDecoder, repeated};
use crate::formats::{Compression, Format};
use crate::{Error, HIDDEN, Limit, Result};

/// Rows in one batch at most.
const BATCH_ROWS: usize = 16 * 1024;

/// From so many bytes on a file is read by a thread of its own, ahead of those who decode it.
const AHEAD_FROM_BYTES: u64 = 4 << 20;

/// What every file of a source is read as.
#[derive(Debug)]
pub(super) struct Layout {
    pub format: Format,
    /// The declared columns.
    pub columns: SchemaRef,
    /// The declared columns, then the hidden ones. A row of changes is of many records, so it has none.
    pub schema: SchemaRef,
    /// The columns of what is decoded.
    decoded: SchemaRef,
    /// The places of the declared key.
    key: Vec<usize>,
    pub record_bytes_max: usize,
    /// Whether a file may grow: then it has no end, and a last line without a line end waits.
    pub grows: bool,
}

impl Layout {
    /// A layout of files with `columns`, of which those at `key` are the key.
    pub fn new(
        format: Format,
        columns: SchemaRef,
        key: Vec<usize>,
        record_bytes_max: usize,
        grows: bool,
    ) -> Layout {
        if format.is_changes() {
            let (schema, decoded) = (columns.clone(), decoded_schema(&columns));
            return Layout { format, columns, schema, decoded, key, record_bytes_max, grows };
        }
        let hidden = |name: &str, data_type| {
            let metadata = [(HIDDEN.to_string(), "true".to_string())].into();
            Arc::new(Field::new(name, data_type, true).with_metadata(metadata))
        };
        let mut fields: Vec<FieldRef> = columns.fields().iter().cloned().collect();
        fields.push(hidden("_file", DataType::Utf8View));
        fields.push(hidden("_offset", DataType::Int64));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        Layout { format, columns, decoded: schema.clone(), schema, key, record_bytes_max, grows }
    }

    /// Whether the positions of a file are its bytes, so that what is appended changes nothing before it.
    pub fn positions_are_bytes(&self, path: &str) -> bool {
        !matches!(self.format, Format::Parquet) && Compression::of(path).is_none()
    }

    /// Whether a file's position at its end is its length, so that a changed length shows even after a restart.
    pub fn ends_at_its_length(&self, path: &str) -> bool {
        self.positions_are_bytes(path) && !matches!(self.format, Format::Csv(_))
    }

    /// Whether a file that was `before` and is `now` still holds what was read of it, up to `through`, as far as
    /// length and time show that.
    pub fn still_holds(&self, path: &str, through: u64, before: Seen, now: Seen) -> bool {
        before == now
            || match self.grows {
                true => now.0 >= through,
                false => self.positions_are_bytes(path) && now.0 > before.0,
            }
    }

    /// The rows of one run of records, which lay in `block`, at `offset` of the file.
    fn lines(&self, decoded: Decoded, (block, offset): (&Buffer, u64), path: &str) -> Result<RecordBatch> {
        let Decoded { mut columns, records, .. } = decoded;
        if self.format.is_changes() {
            tell_origins(&mut columns, &records, (block, offset), path)?;
            return self.under_schema(columns, path, records.len());
        }
        let offsets = records.iter().map(|record| (offset + u64::from(record.start)) as i64).collect();
        self.batch(columns, path, offsets)
    }

    fn batch(&self, mut columns: Vec<ArrayRef>, path: &str, offsets: Vec<i64>) -> Result<RecordBatch> {
        let rows = offsets.len();
        columns.push(Arc::new(repeated(path, rows)));
        columns.push(Arc::new(Int64Array::from(offsets)));
        self.under_schema(columns, path, rows)
    }

    fn under_schema(&self, columns: Vec<ArrayRef>, path: &str, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.decoded.clone(), columns, &options).map_err(|error| {
            Error::Bug(format!("file '{path}' was decoded to other columns than declared: {error}"))
        })
    }
}

/// The length of a file and the time of its last change, by which a change shows.
pub(super) type Seen = (u64, Option<SystemTime>);

/// What `metadata` says of a file.
pub(super) fn seen(metadata: &Metadata) -> Seen {
    (metadata.len(), metadata.modified().ok())
}

/// What one pull gives of a file.
pub(super) struct Piece {
    pub batch: Option<RecordBatch>,
    pub bad: Vec<BadRecord>,
    pub from: u64,
    pub to: u64,
    /// Whether the file has nothing more.
    pub done: bool,
    /// About how many bytes were decoded.
    pub bytes: usize,
}

/// What comes next of a file, before it is decoded.
pub(super) struct Framed {
    /// All but the rows, and the records that can't be decoded.
    piece: Piece,
    undecoded: Option<Undecoded>,
}

/// Records, and how they become rows.
struct Undecoded {
    run: Run,
    decoder: Arc<dyn Decode>,
    layout: Arc<Layout>,
    path: Arc<str>,
}

impl Framed {
    /// How many rows and bad records it comes to.
    pub fn rows(&self) -> usize {
        let decoded = self.piece.batch.as_ref().map_or(0, RecordBatch::num_rows) + self.piece.bad.len();
        decoded + self.undecoded.as_ref().map_or(0, |Undecoded { run, .. }| run.records.len() + run.bad.len())
    }

    /// What of the file it is.
    pub fn piece(&self) -> &Piece {
        &self.piece
    }

    /// Makes rows of it. That depends on nothing else, so that several may be decoded at the same time.
    pub fn decode(self) -> Result<Piece> {
        let Framed { mut piece, undecoded } = self;
        let Some(Undecoded { run, decoder, layout, path }) = undecoded else { return Ok(piece) };
        let (block, offset) = (run.block.clone(), run.offset);
        let mut decoded = decode_run(decoder.as_ref(), run).map_err(|error| {
            Error::Bug(format!("records of file '{path}' decode one by one only: {error}"))
        })?;
        piece.bad = std::mem::take(&mut decoded.bad);
        if !decoded.records.is_empty() {
            piece.batch = Some(layout.lines(decoded, (&block, offset), &path)?);
        }
        Ok(piece)
    }
}

/// One open file.
pub(super) struct FileReader {
    layout: Arc<Layout>,
    path: Arc<str>,
    /// What the file was when it was opened.
    seen: Seen,
    /// The end of what was given.
    through: u64,
    /// Whether the file is as it stays: a last line without its line end is a line. Otherwise that waits.
    complete: bool,
    content: Content,
}

enum Content {
    Lines {
        framer: Framer,
        decoder: Arc<dyn Decode>,
        compressed: bool,
    },
    Parquet(ParquetRows),
    /// The whole file, or all that is left of it, is one bad record.
    Refused(BadRecord),
    /// There is nothing in the file, or not yet.
    Empty,
    /// The file isn't written to its end yet.
    Unfinished,
}

impl FileReader {
    /// Opens the file at `from`, to be read up to `to` at most; of `wanted` columns those that are false aren't looked at.
    /// While it isn't `tail_timeout` old, it may be written to still.
    pub fn open(
        layout: &Arc<Layout>,
        wanted: Option<&[bool]>,
        path: &Arc<str>,
        (from, to): (u64, Option<u64>),
        tail_timeout: Duration,
    ) -> io::Result<FileReader> {
        let mut file = File::open(path.as_ref())?;
        let seen = seen(&file.metadata()?);
        // What was read up to `to` before ended there with a record. Of a compressed file nobody sees whether it is whole.
        let complete = to.is_some()
            || Compression::of(path).is_some()
            || (!layout.grows && !is_younger(seen, tail_timeout));
        let content = match layout.format {
            Format::Parquet if !complete && !parquet::is_finished(&mut file)? => Content::Unfinished,
            Format::Parquet => match ParquetRows::open(file, &layout.columns, wanted, from, to) {
                Ok(rows) => Content::Parquet(rows),
                Err(reason) => Content::Refused(BadRecord::new(from, reason, b"")),
            },
            _ => open_lines(layout, path, file, (from, to), complete)?,
        };
        Ok(FileReader { layout: layout.clone(), path: path.clone(), seen, through: from, complete, content })
    }

    /// What the file was when it was opened.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// The next rows of the file, within `limit`.
    pub fn next(&mut self, limit: Limit) -> Result<Piece> {
        self.frame(limit)?.decode()
    }

    /// The same before it is decoded, where it is decoded apart from being read.
    pub fn frame(&mut self, limit: Limit) -> Result<Framed> {
        let limit = Limit { rows: limit.rows.clamp(1, BATCH_ROWS), bytes: limit.bytes.max(1) };
        let from = self.through;
        let mut piece = Piece { batch: None, bad: Vec::new(), from, to: from, done: false, bytes: 0 };
        let mut undecoded = None;
        match &mut self.content {
            Content::Empty => piece.done = self.complete,
            Content::Unfinished => {}
            Content::Refused(bad) => {
                piece.bad.push(bad.clone());
                // The file's end is not known; one unit stands for all of it, so that the span isn't empty.
                piece.to = bad.offset.max(from) + 1;
                piece.done = true;
            }
            Content::Lines { .. } => undecoded = self.next_lines(limit, &mut piece)?,
            Content::Parquet(_) => self.next_rows(limit, &mut piece)?,
        }
        self.through = piece.to;
        Ok(Framed { piece, undecoded })
    }

    fn next_lines(&mut self, limit: Limit, piece: &mut Piece) -> Result<Option<Undecoded>> {
        let Content::Lines { framer, decoder, compressed } = &mut self.content else { return Ok(None) };
        let run = match framer.next_run(limit.rows, limit.bytes) {
            Ok(run) => run,
            Err(error) if *compressed && is_about_data(&error) => {
                let reason = format!("the rest of the file can't be decompressed and is kept aside: {error}");
                piece.bad.push(BadRecord::new(framer.position(), reason, framer.unread()));
                // One byte further than what could be decompressed, so that a replay comes to the broken place.
                piece.to = framer.position() + framer.unread().len() as u64 + 1;
                piece.done = true;
                return Ok(None);
            }
            Err(error) => return Err(unreadable(&self.path, &error)),
        };
        piece.to = framer.position();
        let nothing = run.records.is_empty() && run.bad.is_empty();
        // What ends with a line end is whole, also where more may be appended later.
        let ends = if self.complete { nothing || framer.is_exhausted() } else { framer.is_exhausted() };
        piece.done = !self.layout.grows && ends && (self.complete || framer.position() > 0);
        piece.bytes = (framer.position() - piece.from) as usize;
        let (decoder, layout, path) = (decoder.clone(), self.layout.clone(), self.path.clone());
        Ok(Some(Undecoded { run, decoder, layout, path }))
    }

    fn next_rows(&mut self, limit: Limit, piece: &mut Piece) -> Result<()> {
        let Content::Parquet(rows) = &mut self.content else { return Ok(()) };
        let at = rows.position();
        match rows.next(limit) {
            Ok(None) => piece.done = true,
            Ok(Some(found)) => {
                piece.to = rows.position();
                piece.done = rows.is_exhausted();
                piece.bytes = found.bytes;
                piece.bad = found.bad;
                if !found.rows.is_empty() {
                    piece.batch = Some(self.layout.batch(found.columns, &self.path, found.rows)?);
                }
            }
            Err(reason) => {
                let reason = format!("the rest of the file can't be read and is kept aside: {reason}");
                piece.bad.push(BadRecord::new(at, reason, b""));
                piece.to = at + 1;
                piece.done = true;
            }
        }
        Ok(())
    }
}

/// The error of a file that could not be read.
pub(super) fn unreadable(path: &str, error: &io::Error) -> Error {
    Error::External(format!("file '{path}' could not be read: {error}; it is tried again"))
}

/// Whether the bytes are at fault, not the system they come from.
fn is_about_data(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// Whether a file was changed no longer ago than this. One of the future was not.
pub(super) fn is_younger((_, modified): Seen, time: Duration) -> bool {
    modified.is_some_and(|modified| modified.elapsed().is_ok_and(|age| age < time))
}

fn open_lines(
    layout: &Layout,
    path: &str,
    file: File,
    (from, to): (u64, Option<u64>),
    complete: bool,
) -> io::Result<Content> {
    let compressed = Compression::of(path).is_some();
    let is_large = is_large(compressed, file.metadata()?.len(), from, to);
    let mut decoder: Option<Arc<dyn Decode>> = match &layout.format {
        Format::Csv(csv) if csv.header => None,
        Format::Csv(csv) => match CsvDecoder::new(csv, &layout.columns, None) {
            Ok(decoder) => Some(Arc::new(decoder)),
            Err(reason) => return Ok(Content::Refused(BadRecord::new(from, reason, b""))),
        },
        Format::Json => match JsonDecoder::new(&layout.columns) {
            Ok(decoder) => Some(Arc::new(decoder)),
            Err(error) => return Ok(Content::Refused(BadRecord::new(from, error.to_string(), b""))),
        },
        Format::Changes(changes) => match changes.decoder(&layout.columns, &layout.key) {
            Ok(decoder) => Some(decoder.into()),
            Err(error) => return Ok(Content::Refused(BadRecord::new(from, error.to_string(), b""))),
        },
        _ => Some(Arc::new(TextDecoder)),
    };
    let mut framer = None;
    if let (Format::Csv(csv), None) = (&layout.format, &decoder) {
        // The header is read whole even where only a part of what follows is: it decides about the file.
        let mut head = open_framer(layout, path, file.try_clone()?, (0, None), complete)?;
        let run = match head.next_run(1, usize::MAX) {
            Ok(run) => run,
            Err(error) if compressed && is_about_data(&error) => {
                let reason = format!("the file can't be decompressed and is kept aside whole: {error}");
                return Ok(Content::Refused(BadRecord::new(0, reason, head.unread())));
            }
            Err(error) => return Err(error),
        };
        let Some(record) = run.records.first() else {
            return Ok(run.bad.into_iter().next().map_or(Content::Empty, Content::Refused));
        };
        let header = &run.block[record.start as usize..record.end as usize];
        let names = csv.fields(header).ok_or_else(|| "the header can't be split into names".to_string());
        match names.and_then(|names| CsvDecoder::new(csv, &layout.columns, Some(&names))) {
            Ok(with_header) => decoder = Some(Arc::new(with_header)),
            Err(reason) => {
                return Ok(Content::Refused(BadRecord::new(
                    run.offset + u64::from(record.start),
                    reason,
                    header,
                )));
            }
        }
        framer = match to {
            None if from <= head.position() => Some(head),
            // Both read through one place in the file; the head has done its part.
            _ => {
                let from = from.max(head.position());
                Some(open_framer(layout, path, file.try_clone()?, (from, to), complete)?)
            }
        };
    }
    let framer = match framer {
        Some(framer) => framer,
        None => open_framer(layout, path, file, (from, to), complete)?,
    };
    let framer = if is_large { framer.reading_ahead()? } else { framer };
    Ok(decoder.map_or(Content::Empty, |decoder| Content::Lines { framer, decoder, compressed }))
}

/// Whether so much is to be read of a file that a thread for that pays.
fn is_large(compressed: bool, length: u64, from: u64, to: Option<u64>) -> bool {
    match compressed {
        // Where it is to be read from and to counts what comes out.
        true => length >= AHEAD_FROM_BYTES / 4,
        false => to.map_or(length, |to| to.min(length)).saturating_sub(from) >= AHEAD_FROM_BYTES,
    }
}

fn open_framer(
    layout: &Layout,
    path: &str,
    mut file: File,
    (from, to): (u64, Option<u64>),
    complete: bool,
) -> io::Result<Framer> {
    let length = file.metadata()?.len();
    let mut expected = u64::MAX;
    let mut input: Box<dyn Read + Send> = match Compression::of(path) {
        None => {
            if length < from {
                let message = format!("it has {length} bytes now, but was read up to byte {from} before");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            expected = length - from;
            file.seek(SeekFrom::Start(from))?;
            Box::new(file)
        }
        Some((compression, _)) => {
            file.seek(SeekFrom::Start(0))?;
            let mut input = Pieces::new(match compression {
                Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
                Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
            });
            io::copy(&mut (&mut input).take(from), &mut io::sink())?;
            Box::new(input)
        }
    };
    if let Some(to) = to {
        expected = expected.min(to.saturating_sub(from));
        input = Box::new(input.take(to.saturating_sub(from)));
    }
    Ok(Framer::new(input, from, layout.format.framing(), layout.record_bytes_max)
        .passing_over(layout.format.passes_over())
        .end_completes(complete)
        .expect_bytes(expected))
}

/// The first records of a file, for finding its columns.
pub(super) fn sample(
    format: &Format,
    path: &str,
    record_bytes_max: usize,
    rows: usize,
) -> io::Result<Vec<u8>> {
    let layout = Layout::new(format.clone(), Arc::new(Schema::empty()), vec![], record_bytes_max, false);
    let mut framer = open_framer(&layout, path, File::open(path)?, (0, None), true)?;
    let run = framer.next_run(rows, usize::MAX)?;
    let mut bytes = Vec::new();
    for record in &run.records {
        bytes.extend_from_slice(&run.block[record.start as usize..record.end as usize]);
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The size and time of a file, to notice that it changed.
pub(super) fn stat(path: &str) -> io::Result<Metadata> {
    std::fs::metadata(Path::new(path))
}

/// Reads a decompressor in pieces of one size, however it is read itself: so data before a broken place comes
/// through the same way each time.
struct Pieces {
    input: Box<dyn Read + Send>,
    piece: Vec<u8>,
    at: usize,
    filled: usize,
}

impl Pieces {
    fn new(input: Box<dyn Read + Send>) -> Pieces {
        Pieces { input, piece: vec![0; 64 * 1024], at: 0, filled: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.filled {
            self.filled = self.input.read(&mut self.piece)?;
            self.at = 0;
        }
        let n = out.len().min(self.filled - self.at);
        out[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
