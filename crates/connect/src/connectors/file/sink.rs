//! The file sink: one file an epoch, which appears atomically and never overwrites another.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_delta::{Cut, Delta, Epoch};
use tokio::task::spawn_blocking;

use super::paths;
use crate::formats::encode::{check_columns, encode};
use crate::formats::feed::Feed;
use crate::formats::{Compression, Format};
use crate::{Delivery, Error, Result, Sink, SinkSpec};

const BATCH_TIME: &str = "{batch_time_ms}";
const EPOCH: &str = "{epoch}";

/// Minimum digits of an epoch in the names of a feed's files, so that the names sort in order.
const FEED_EPOCH_DIGITS: usize = 12;

/// Writes each epoch's rows to a file of its own.
pub(super) struct FileSink {
    target: Arc<Target>,
    /// Files that are written but not yet safely in place.
    staged: Vec<Staged>,
    /// The newest epoch that this sink has put into place.
    placed: Option<Epoch>,
}

/// The directory, names and format of the files.
pub(super) struct Target {
    pub sink: String,
    directory: PathBuf,
    filename: String,
    /// `filename` with the epoch in it, a different name for each epoch.
    unique: String,
    format: Format,
    /// The columns of the files.
    columns: SchemaRef,
    changelog: bool,
    /// The encoder of the records, if the format describes changes.
    feed: Option<Feed>,
}

#[derive(Clone)]
pub(super) struct Staged {
    epoch: Epoch,
    hidden: PathBuf,
    place: PathBuf,
    /// The name to use if there is a file at `place` already.
    otherwise: PathBuf,
}

impl FileSink {
    /// Creates a sink that has written nothing yet.
    pub fn new(target: Target) -> FileSink {
        FileSink { target: Arc::new(target), staged: Vec::new(), placed: None }
    }
}

impl Target {
    /// Evaluates the options of a sink and creates its directory.
    pub fn open(spec: &SinkSpec) -> Result<Target> {
        let options = &spec.options;
        let path = options.require("path")?;
        paths::refuse_url(path)?;
        let directory = PathBuf::from(path);
        let changelog = options.parse("changelog", "true or false")?.unwrap_or(false);
        let format = Format::from_options(options, options.get("filename").unwrap_or(""))?;
        let feed = match &format {
            Format::Changes(changes) => {
                let who = format!("format '{}'", changes.name());
                let otherwise = "; or set format = 'json' with changelog = 'true', which needs none";
                Some(Feed::new(changes, spec, &who, otherwise)?)
            }
            _ => None,
        };
        check_changes(spec, &format, changelog)?;
        let filename = match options.get("filename") {
            Some(filename) => filename.to_string(),
            None if feed.is_some() => format!("changes-{EPOCH}.{}", format.extension()),
            None => format!("part-{BATCH_TIME}-{EPOCH}.{}", format.extension()),
        };
        check_filename(&filename, &format)?;
        let mut columns: Vec<FieldRef> = spec.columns.fields().iter().cloned().collect();
        if changelog {
            columns.insert(0, Arc::new(Field::new("_op", DataType::Utf8View, false)));
        }
        let columns = Arc::new(Schema::new(columns));
        check_columns(&format, &columns)?;
        fs::create_dir_all(&directory).map_err(|error| {
            Error::Invalid(format!(
                "directory '{}' (option 'path') can't be created: {error}",
                directory.display()
            ))
        })?;
        let (sink, unique) = (spec.name.clone(), with_epoch(&filename));
        Ok(Target { sink, directory, filename, unique, format, columns, changelog, feed })
    }
}

/// Fails if the files can't express the changes of the relation.
fn check_changes(spec: &SinkSpec, format: &Format, changelog: bool) -> Result<()> {
    if format.is_changes() {
        return match changelog {
            false => Ok(()),
            true => Err(Error::Invalid(format!(
                "option 'changelog' is for formats whose records are rows, but format '{}' encodes changes \
                 itself: leave it out",
                format.name()
            ))),
        };
    }
    if spec.options.get("primary_key").is_some() {
        return Err(Error::Invalid(format!(
            "option 'primary_key' is for formats 'upsert_json' and 'debezium_json' only, but the format is '{}': leave it \
             out",
            format.name()
        )));
    }
    if spec.append_only || changelog {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the rows that sink '{}' delivers are updated or deleted, which plain files can't express: add \
         changelog = 'true', which writes \
         a first column _op with 'insert' or 'delete'; or set format = 'upsert_json' or 'debezium_json', \
         which change rows by their key; or deliver a query FOR EACH BATCH, which is append-only",
        spec.name
    )))
}

fn check_filename(filename: &str, format: &Format) -> Result<()> {
    let wrong =
        |expected: &str| Err(Error::Invalid(format!("option 'filename' is '{filename}', but {expected}")));
    if !filename.contains(BATCH_TIME) && !filename.contains(EPOCH) {
        return wrong("{batch_time_ms} or {epoch} must be in it, so that each epoch has its own file");
    }
    if filename.contains('/') || filename.starts_with('.') {
        return wrong("it must be a name without directories that doesn't begin with '.'");
    }
    let rest = filename.replace(BATCH_TIME, "").replace(EPOCH, "");
    if rest.contains(['{', '}']) {
        return wrong("{batch_time_ms} and {epoch} are the only placeholders");
    }
    if matches!(format, Format::Parquet) && Compression::of(filename).is_some() {
        return wrong("Parquet files are compressed inside: leave the extension out");
    }
    Ok(())
}

/// Returns the pattern `filename` with `{epoch}` in it, inserted before the extension if it has none.
fn with_epoch(filename: &str) -> String {
    if filename.contains(EPOCH) {
        return filename.to_string();
    }
    let pattern_end = filename.rfind('}').unwrap_or(0);
    let extension = filename[pattern_end..].find('.').map_or(filename.len(), |at| pattern_end + at);
    format!("{}-{EPOCH}{}", &filename[..extension], &filename[extension..])
}

impl Target {
    /// Writes the file of one epoch, or of several that end with `cut`, under a hidden name and syncs it.
    pub fn stage(&self, cut: &Cut, batches: &[RecordBatch]) -> Result<Staged> {
        let named = |pattern: &str| {
            let name = pattern.replace(BATCH_TIME, &cut.now.millis().to_string());
            // Readers read the files of a feed in the order of their names.
            let width = if self.feed.is_some() { FEED_EPOCH_DIGITS } else { 0 };
            name.replace(EPOCH, &format!("{:0width$}", cut.epoch.0))
        };
        let unique = named(&self.unique);
        let hidden = self.directory.join(format!(".{unique}.tmp"));
        if let Err(error) = self.write_file(&hidden, batches) {
            // The partial file is useless, and its space may be what is missing.
            let _ = fs::remove_file(&hidden);
            return Err(Error::External(format!(
                "sink '{}' could not write '{}': {error}; the file of epoch {} is written again once that is \
                 fixed",
                self.sink,
                hidden.display(),
                cut.epoch
            )));
        }
        let place = self.directory.join(named(&self.filename));
        Ok(Staged { epoch: cut.epoch, hidden, place, otherwise: self.directory.join(unique) })
    }

    fn write_file(&self, path: &Path, batches: &[RecordBatch]) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let file = BufWriter::new(File::create(path).map_err(text)?);
        let file = match Compression::of(&self.filename).map(|(compression, _)| compression) {
            None => {
                let mut file = file;
                encode(&self.format, &self.columns, batches, &mut file)?;
                file
            }
            Some(Compression::Gzip) => {
                let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                encode(&self.format, &self.columns, batches, &mut out)?;
                out.finish().map_err(text)?
            }
            Some(Compression::Zstd) => {
                let mut out = zstd::Encoder::new(file, 0).map_err(text)?;
                encode(&self.format, &self.columns, batches, &mut out)?;
                out.finish().map_err(text)?
            }
        };
        let file = file.into_inner().map_err(|error| error.to_string())?;
        file.sync_all().map_err(text)
    }

    /// Returns the rows of the file for an epoch's changes.
    pub fn batches(&self, delta: &Delta) -> Result<Vec<RecordBatch>> {
        let wrong = |error: arrow::error::ArrowError| {
            Error::Bug(format!("sink '{}' got rows of another schema: {error}", self.sink))
        };
        if let Some(feed) = &self.feed {
            return feed.records(delta);
        }
        if !self.changelog {
            return delta.chunks.iter().map(|chunk| chunk.expand().map_err(wrong)).collect();
        }
        let (inserts, deletes) = delta.split_by_sign().map_err(wrong)?;
        let mut batches = Vec::new();
        // Deletes come first: a reader that applies the file in order never holds two rows of one key.
        for (op, delta) in [("delete", deletes), ("insert", inserts)] {
            for chunk in &delta.chunks {
                let rows = chunk.expand().map_err(wrong)?;
                let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
                let ops = StringViewArray::from_iter_values(std::iter::repeat_n(op, rows.num_rows()));
                columns.insert(0, Arc::new(ops));
                batches.push(RecordBatch::try_new(self.columns.clone(), columns).map_err(wrong)?);
            }
        }
        Ok(batches)
    }

    /// Moves a staged file into place without overwriting. Two epochs may have the same batch time, and so
    /// the same name.
    pub fn place(&self, staged: &Staged) -> Result<()> {
        let failed = |error| self.not_placed(&staged.place, &error);
        let is_taken = |place: &Path| place.try_exists().map_err(failed);
        let (place_taken, otherwise_taken) = (is_taken(&staged.place)?, is_taken(&staged.otherwise)?);
        if (place_taken || otherwise_taken) && !is_taken(&staged.hidden)? {
            // An earlier call, which was cancelled, has moved it.
            return Ok(());
        }
        let free = if place_taken { &staged.otherwise } else { &staged.place };
        if place_taken && otherwise_taken {
            // A process that lost its data directory to this one may have published an epoch that both
            // know.
            if self.tells_epochs() && is_same(&staged.hidden, free).map_err(failed)? {
                return fs::remove_file(&staged.hidden).map_err(failed);
            }
            return Err(Error::Invalid(format!(
                "sink '{}' can't publish '{}': the file is there already, from an earlier run: move it away or \
                 choose another path or filename",
                self.sink,
                free.display()
            )));
        }
        fs::rename(&staged.hidden, free).map_err(failed)
    }

    /// Syncs the directory, so that moved files survive a crash.
    pub fn sync(&self) -> Result<()> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.not_placed(&self.directory, &error))
    }

    fn not_placed(&self, path: &Path, error: &io::Error) -> Error {
        Error::External(format!("sink '{}' could not publish '{}': {error}", self.sink, path.display()))
    }

    /// Returns true if the names of the files contain their epoch.
    pub fn tells_epochs(&self) -> bool {
        self.filename.contains(EPOCH)
    }

    /// Returns the newest epoch that has a file. Removes files that were staged and never published.
    pub fn recover(&self) -> Result<Epoch> {
        let failed = |error: io::Error| {
            Error::External(format!(
                "sink '{}' could not read its directory '{}': {error}",
                self.sink,
                self.directory.display()
            ))
        };
        let mut newest = 0;
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let staged = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            if staged.is_some_and(|name| epoch_of(&self.unique, name).is_some()) {
                fs::remove_file(entry.path()).map_err(failed)?;
            } else if let Some(Some(epoch)) = epoch_of(&self.filename, name) {
                newest = newest.max(epoch);
            }
        }
        Ok(Epoch(newest))
    }
}

/// Returns true if two files have the same bytes.
fn is_same(left: &Path, right: &Path) -> io::Result<bool> {
    let (left, right) = (File::open(left)?, File::open(right)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (BufReader::new(left), BufReader::new(right));
    loop {
        let (ours, theirs) = (left.fill_buf()?, right.fill_buf()?);
        let length = ours.len().min(theirs.len());
        if length == 0 {
            return Ok(ours.len() == theirs.len());
        }
        if ours[..length] != theirs[..length] {
            return Ok(false);
        }
        left.consume(length);
        right.consume(length);
    }
}

/// Returns the epoch in `name` (`None` inside if the pattern has none), or `None` if it doesn't match
/// `pattern`.
fn epoch_of(pattern: &str, name: &str) -> Option<Option<u64>> {
    let number = |place: &str| {
        pattern.strip_prefix(place).map(|pattern| {
            let sign = usize::from(place == BATCH_TIME && name.starts_with('-'));
            let digits = name[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len() - sign);
            (digits > 0)
                .then(|| (pattern, &name[sign + digits..], name[sign..sign + digits].parse::<u64>().ok()))
        })
    };
    if let Some(found) = number(BATCH_TIME) {
        let (pattern, name, _) = found?;
        return epoch_of(pattern, name);
    }
    if let Some(found) = number(EPOCH) {
        let (pattern, name, epoch) = found?;
        return epoch_of(pattern, name).map(|_| epoch);
    }
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => Some(None),
        (Some(a), Some(b)) if a == b => epoch_of(&pattern[a.len_utf8()..], &name[b.len_utf8()..]),
        _ => None,
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, cut: &Cut, delta: &Delta) -> Result<()> {
        if Some(cut.epoch) <= self.placed {
            // The epoch is sent again; its file is there already.
            return Ok(());
        }
        let (target, cut, delta) = (self.target.clone(), cut.clone(), delta.clone());
        let staged = spawn_blocking(move || target.stage(&cut, &target.batches(&delta)?)).await;
        let staged = staged.map_err(|error| Error::Bug(format!("writing a file stopped: {error}")))??;
        self.staged.retain(|other| other.epoch != staged.epoch);
        self.staged.push(staged);
        Ok(())
    }

    async fn commit(&mut self, through: Epoch) -> Result<Epoch> {
        while let Some(at) = self.staged.iter().position(|staged| staged.epoch <= through) {
            let stopped = |error| Error::Bug(format!("publishing a file stopped: {error}"));
            let (target, staged) = (self.target.clone(), self.staged[at].clone());
            if Some(staged.epoch) > self.placed {
                let epoch = staged.epoch;
                spawn_blocking(move || target.place(&staged)).await.map_err(stopped)??;
                self.placed = Some(epoch);
            }
            let target = self.target.clone();
            spawn_blocking(move || target.sync()).await.map_err(stopped)??;
            self.staged.remove(at);
        }
        Ok(through)
    }

    fn delivery(&self) -> Delivery {
        if self.target.tells_epochs() { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce }
    }

    async fn recover(&mut self) -> Result<Epoch> {
        let target = self.target.clone();
        self.staged.clear();
        let recovered = spawn_blocking(move || target.recover()).await;
        recovered.map_err(|error| Error::Bug(format!("looking at a directory stopped: {error}")))?
    }
}
