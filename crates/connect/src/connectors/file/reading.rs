//! Reads one file in bounded pieces, from the end of any earlier piece.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::formats::changes::{decoded_schema, positions_in_stream, tell_origins};
use crate::formats::csv::CsvDecoder;
use crate::formats::decode::{Decode, Decoded, decode_run};
use crate::formats::framing::{BadRecord, Framer, Run};
use crate::formats::json::JsonDecoder;
use crate::formats::parquet::{self, ParquetRows};
use crate::formats::text::{TextDecoder, repeated};
use crate::formats::{Compression, Format};
use crate::{Error, HIDDEN, Limit, Result};

/// Maximum rows in one batch.
const BATCH_ROWS: usize = 16 * 1024;

/// Minimum size of a file that a thread of its own reads ahead of the decoders.
const AHEAD_FROM_BYTES: u64 = 4 << 20;

/// The format and columns of all files of a source.
#[derive(Debug)]
pub(super) struct Layout {
    pub format: Format,
    /// The declared columns.
    pub columns: SchemaRef,
    /// The declared columns, then the hidden ones. A row of a change feed has none: it may be of many
    /// records.
    pub schema: SchemaRef,
    /// The columns of the decoded rows.
    decoded: SchemaRef,
    /// The column numbers of the declared key.
    key: Vec<usize>,
    pub record_bytes_max: usize,
    /// True if files may grow. Then a file has no end, and a last line without a line end waits.
    pub grows: bool,
}

impl Layout {
    /// Creates the layout of files with `columns`, whose key is the columns `key`.
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

    /// Returns true if positions in a file are bytes, so that appended data changes no earlier position.
    pub fn positions_are_bytes(&self, path: &str) -> bool {
        !matches!(self.format, Format::Parquet) && Compression::of(path).is_none()
    }

    /// Returns true if a file's final position is its length, so that a changed length is noticed even
    /// after a restart.
    pub fn ends_at_its_length(&self, path: &str) -> bool {
        self.positions_are_bytes(path) && !matches!(self.format, Format::Csv(_))
    }

    /// Returns true if a file still holds what was read of it up to `through`, judging by its length and
    /// time `before` and `now`.
    pub fn still_holds(&self, path: &str, through: u64, before: Seen, now: Seen) -> bool {
        before == now
            || match self.grows {
                true => now.0 >= through,
                false => self.positions_are_bytes(path) && now.0 > before.0,
            }
    }

    /// Returns the rows of one run of records, which are in `block`, at `offset` of the file.
    fn lines(&self, decoded: Decoded, (block, offset): (&Buffer, u64), path: &str) -> Result<RecordBatch> {
        let Decoded { mut columns, records, .. } = decoded;
        if self.format.is_changes() {
            let positions = positions_in_stream(&records, offset);
            tell_origins(&mut columns, &records, (block, &positions), path)?;
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

/// The length of a file and the time of its last change, used to detect changes.
pub(super) type Seen = (u64, Option<SystemTime>);

/// Returns the length and the time in `metadata`.
pub(super) fn seen(metadata: &Metadata) -> Seen {
    (metadata.len(), metadata.modified().ok())
}

/// The result of one pull of a file.
pub(super) struct Piece {
    pub batch: Option<RecordBatch>,
    pub bad: Vec<BadRecord>,
    pub from: u64,
    pub to: u64,
    /// True if the file is read to its end.
    pub done: bool,
    /// Approximate number of bytes decoded.
    pub bytes: usize,
}

/// The next part of a file, before it is decoded.
pub(super) struct Framed {
    /// The part without the rows and the bad records that decoding yields.
    piece: Piece,
    undecoded: Option<Undecoded>,
}

/// Records and their decoder.
struct Undecoded {
    run: Run,
    decoder: Arc<dyn Decode>,
    layout: Arc<Layout>,
    path: Arc<str>,
}

impl Framed {
    /// Returns the number of rows and bad records in this part.
    pub fn rows(&self) -> usize {
        let decoded = self.piece.batch.as_ref().map_or(0, RecordBatch::num_rows) + self.piece.bad.len();
        decoded + self.undecoded.as_ref().map_or(0, |Undecoded { run, .. }| run.records.len() + run.bad.len())
    }

    /// Returns the span of this part in the file.
    pub fn piece(&self) -> &Piece {
        &self.piece
    }

    /// Decodes the records. Depends on no other state, so that several parts may be decoded in parallel.
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
    /// Length and time of the file when it was opened.
    seen: Seen,
    /// End of the part that was returned.
    through: u64,
    /// True if the file won't change any more: a last line without a line end is a line. Otherwise that
    /// line waits.
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
    /// One bad record: the whole file, or the rest of it.
    Refused(BadRecord),
    /// An empty file, or one that is still empty.
    Empty,
    /// A file that isn't written to its end yet.
    Unfinished,
}

impl FileReader {
    /// Opens the file at `from`, to be read up to `to` at most. Skips the columns that are false in
    /// `wanted`. A file younger than `tail_timeout` may still be written to.
    pub fn open(
        layout: &Arc<Layout>,
        wanted: Option<&[bool]>,
        path: &Arc<str>,
        (from, to): (u64, Option<u64>),
        tail_timeout: Duration,
    ) -> io::Result<FileReader> {
        let mut file = File::open(path.as_ref())?;
        let seen = seen(&file.metadata()?);
        // An earlier reading up to `to` ended with a whole record. Of a compressed file nobody can tell if
        // it is complete.
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

    /// Returns the file's length and time when it was opened.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Returns the next rows of the file, within `limit`.
    pub fn next(&mut self, limit: Limit) -> Result<Piece> {
        self.frame(limit)?.decode()
    }

    /// Reads the next records. Leaves their decoding to the caller, if the format decodes records apart
    /// from reading.
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
                // The file's end is not known. One unit stands for all of it, so that the span isn't empty.
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
                // One byte past the data that could be decompressed, so that a replay reaches the broken
                // place.
                piece.to = framer.position() + framer.unread().len() as u64 + 1;
                piece.done = true;
                return Ok(None);
            }
            Err(error) => return Err(unreadable(&self.path, &error)),
        };
        piece.to = framer.position();
        let nothing = run.records.is_empty() && run.bad.is_empty();
        // A record with a line end is complete, even if more may be appended later.
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

/// Returns the error of a file that could not be read.
pub(super) fn unreadable(path: &str, error: &io::Error) -> Error {
    Error::External(format!("file '{path}' could not be read: {error}; it is retried"))
}

/// Returns true if the bytes are at fault, not the system that they come from.
fn is_about_data(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// Returns true if a file changed less than `time` ago. A time in the future doesn't count.
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
        // The whole header is read even if only a part of the file is: it determines the columns.
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
            // Both framers share one file position; the first one is no longer used.
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

/// Returns true if a file is so large that reading it on a thread of its own pays.
fn is_large(compressed: bool, length: u64, from: u64, to: Option<u64>) -> bool {
    match compressed {
        // `from` and `to` count decompressed bytes, so they don't help here.
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

/// Reads the first records of a file to infer its columns.
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

/// Returns the metadata of a file.
pub(super) fn stat(path: &str) -> io::Result<Metadata> {
    std::fs::metadata(Path::new(path))
}

/// Reads a decompressor in pieces of a fixed size, however large the reader's buffer is. So the data before
/// a broken place is the same each time.
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
