//! Files of text, CSV, JSON and Parquet: each is read once, and written an epoch at a time.

mod again;
mod intake;
mod known;
mod listing;
mod on_change;
mod paths;
mod reading;
mod rolling;
mod sink;
mod source;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::by_key::PRIMARY_KEY;
use crate::formats::{Compression, Format, OP_FIELD, check_columns, json, parquet, text_columns};
use crate::{Connector, Error, Findings, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec};
use intake::{Intake, Order, Settings};
use on_change::OnChange;
use paths::Paths;
use reading::Layout;

/// Maximum number of records of the first file used to infer undeclared columns.
const INFERENCE_ROWS: usize = 1000;

/// Interval between two listings of the directories.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Default wait for an incomplete end of a file.
const TAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// The connector `file`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

const DELIMITER: OptionDoc = OptionDoc {
    name: "delimiter",
    default: Some("',', or a tab for .tsv"),
    doc: "csv: the character between two fields; '\\t' is a tab.",
};

const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "path",
        default: None,
        doc: "A file, a directory, or a glob such as 'in/*/*.csv' (`**` stands for any directories). It is \
              evaluated again at each listing. Files whose names begin with '.' or '_' are skipped until \
              they are renamed.",
    },
    OptionDoc {
        name: "format",
        default: Some("by the extension of the path, of match_pattern or of the first file, else text"),
        doc: "text (a line is one TEXT column), csv, json (an object a line), parquet, or the change feeds upsert_json \
              and debezium_json.",
    },
    OP_FIELD,
    OptionDoc {
        name: "match_pattern",
        default: Some("every name"),
        doc: "Reads only files whose name, without directories, matches this glob, such as '*.json'.",
    },
    OptionDoc { name: "recursive", default: Some("false"), doc: "true: subdirectories are read too." },
    OptionDoc {
        name: "order",
        default: Some("name"),
        doc: "The order in which the files of one listing are read: name, or mtime (the time of their last \
              change).",
    },
    OptionDoc {
        name: "start",
        default: Some("all"),
        doc: "all: existing files are read; new: existing files are skipped.",
    },
    OptionDoc {
        name: "bounded",
        default: Some("false"),
        doc: "true: reads what the first listing gives, whatever settle_time says, and ends; false: \
              continues with files that appear later.",
    },
    OptionDoc {
        name: "settle_time",
        default: Some("0"),
        doc: "A file is read once it has not changed for this long, such as '2 seconds'; for writers that \
              don't rename finished files into place.",
    },
    OptionDoc {
        name: "tail_timeout",
        default: Some("10 seconds; with bounded 0"),
        doc: "A last line without its line end waits until it is completed, a Parquet file until it has its footer, or \
              until the file has not changed for this long: then it is read as it is. '0': at once. \
              Compressed files don't wait, since nothing shows whether they are complete.",
    },
    OptionDoc {
        name: "on_change",
        default: Some("ignore"),
        doc: "What to do when a file changes after it was read to its end: ignore (with one warning a file, \
              and counted in \
              millstream.sources), append (reads the rows appended to an uncompressed text, csv or json file), \
              error, or reread (from its beginning, as a split of its own whose name ends with '#2' and so on).",
    },
    OptionDoc {
        name: "tail",
        default: Some("false"),
        doc: "true: a file has no end, and what is appended to it is read; a last line without its line end waits.",
    },
    OptionDoc { name: "poll_interval", default: Some("100 ms"), doc: "How often directories are listed." },
    DELIMITER,
    OptionDoc {
        name: "header",
        default: Some("true"),
        doc: "csv: whether the first record of each file names its columns, which are then matched by name, in any \
              order; a file without one of the declared columns is kept aside whole, as one bad row.",
    },
    OptionDoc {
        name: "null",
        default: Some("'', the empty field"),
        doc: "csv: the text that stands for NULL.",
    },
];

const SINK_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "path",
        default: None,
        doc: "The output directory; it is created if it doesn't exist.",
    },
    OptionDoc {
        name: "format",
        default: Some("by the extension of filename, else text"),
        doc: "text (one column, a value a line, NULL is an empty line), csv, json (an object a line), parquet, or the \
              change feeds upsert_json and debezium_json, for relations whose rows change by a key.",
    },
    PRIMARY_KEY,
    OP_FIELD,
    OptionDoc {
        name: "filename",
        default: Some(
            "part-{batch_time_ms}-{epoch}.ext, with .txt, .csv, .json or .parquet by the format; of a change feed \
                       changes-{epoch}.json",
        ),
        doc: "The name of each epoch's file. {batch_time_ms} is the batch time in milliseconds since 1970, {epoch} \
              the epoch's number (of a change feed with 12 digits, so that names sort); one of them must be in it. With .gz or .zst at its end the file is compressed. \
              No file is replaced: without {epoch} in it, where two epochs have one batch time, the later file's \
              name gets '-' and the epoch before its extension; a file of an earlier run that has the same name \
              stops the sink.",
    },
    OptionDoc {
        name: "changelog",
        default: Some("false"),
        doc: "true: writes changes, with a first column _op that is 'insert' or 'delete'; needed for a \
              relation whose rows are updated or deleted, unless the format is a change feed.",
    },
    OptionDoc {
        name: "roll_interval",
        default: Some("10 seconds at auto pace; else, and FOR EACH BATCH, 0"),
        doc: "Epochs are buffered in memory, and a file holds the epochs of this period, such as '1 \
              minute', counted from the batch time of its first epoch; it is named after its last epoch. It \
              is written before an epoch after that time, \
              after that time if no epoch arrives, on FLUSH, and when the sink or the engine ends. '0': each \
              epoch has a file of its own, as it has by default where the name lacks {epoch}.",
    },
    OptionDoc {
        name: "roll_size",
        default: Some("with roll_interval 64 MiB"),
        doc: "Epochs are buffered in memory up to about this many bytes, such as '16 MiB', or the rows \
              that the engine keeps for the sink take 256 MiB.",
    },
    DELIMITER,
    OptionDoc {
        name: "header",
        default: Some("true"),
        doc: "csv: whether the first line of each file names its columns.",
    },
    OptionDoc { name: "null", default: Some("'', the empty field"), doc: "csv: the text written for NULL." },
];

impl Connector for Files {
    fn name(&self) -> &'static str {
        "file"
    }

    fn summary(&self) -> &'static str {
        "Reads files, each once and in order, follows directories, and writes one file an epoch."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        SOURCE_OPTIONS
    }

    fn sink_options(&self) -> &'static [OptionDoc] {
        SINK_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let settings = Arc::new(settings(spec)?);
        let grows = spec.options.parse("tail", "true or false")?.unwrap_or(false);
        if grows && settings.bounded {
            return Err(Error::Invalid(
                "with tail = 'true' a file has no end, so bounded = 'true' can't hold: leave one of them out"
                    .into(),
            ));
        }
        let paths = Paths::from_options(&spec.options)?;
        // A start again doesn't need the first file: its statement has the columns and the format.
        let first = if needs_file(&paths, spec) { first_file(&spec.options)? } else { None };
        let name = paths.typical_name().or(first.as_deref()).unwrap_or_default();
        let format = Format::from_options(&spec.options, name)?;
        if grows && (matches!(format, Format::Parquet) || Compression::of(name).is_some()) {
            return Err(Error::Invalid(
                "tail = 'true' follows text, csv and json files that are not compressed: leave it out".into(),
            ));
        }
        let columns = match &spec.columns {
            Some(columns) => columns.clone(),
            None if matches!(format, Format::Text) => text_columns(),
            None => infer(&format, first_file(&spec.options)?.as_deref(), spec)?,
        };
        check_columns(&format, &columns, spec)?;
        let key = spec.key.clone();
        let layout = Arc::new(Layout::new(format, columns, key, spec.max_record_bytes, grows));
        let intake = Intake::new(settings.clone(), layout.clone(), paths);
        Ok(Box::new(source::FileSource::new(layout, settings, intake)))
    }

    fn findings(&self, spec: &SourceSpec) -> Result<Findings> {
        let paths = Paths::from_options(&spec.options)?;
        let needs_file = needs_file(&paths, spec);
        let is_text = spec.options.get("format").is_some_and(|format| format.eq_ignore_ascii_case("text"));
        if !needs_file && (spec.columns.is_some() || is_text) {
            return Ok(Findings::default());
        }
        let first = first_file(&spec.options)?;
        let name = paths.typical_name().or(first.as_deref()).unwrap_or_default();
        let format = Format::from_options(&spec.options, name)?;
        let mut findings = Findings::default();
        if needs_file && first.is_some() {
            findings.options.push(("format".into(), format.name().into()));
            // A file's name may say it.
            let delimiter = match &format {
                Format::Csv(csv) if csv.delimiter == b'\t' => spec.options.get("delimiter").xor(Some("\\t")),
                _ => None,
            };
            findings.options.extend(delimiter.map(|delimiter| ("delimiter".into(), delimiter.into())));
        }
        if spec.columns.is_none() && matches!(format, Format::Csv(_) | Format::Json | Format::Parquet) {
            let columns = infer(&format, first.as_deref(), spec)?;
            // Parquet's nested types have names of their own, which a declaration loses.
            let is_declarable = !matches!(format, Format::Parquet)
                || columns.fields().iter().all(|field| !field.data_type().is_nested());
            findings.columns = is_declarable.then_some(columns);
        }
        Ok(findings)
    }

    fn check_source(&self, spec: &SourceSpec) -> Result<()> {
        let paths = Paths::from_options(&spec.options)?;
        paths.check_exists()?;
        if settings(spec)?.bounded && paths.is_glob() && first_file(&spec.options)?.is_none() {
            let path = spec.options.get("path").unwrap_or_default();
            return Err(Error::Invalid(format!(
                "no file matches '{path}', and with bounded = 'true' none can appear later: check the pattern"
            )));
        }
        Ok(())
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        let target = sink::Target::open(spec)?;
        // Files without epochs in their names can't show which of several epochs they hold.
        let gathers = spec.auto_pace && target.tells_epochs();
        match rolling::Rolling::from_options(&spec.options, gathers)? {
            Some(rolling) => Ok(Box::new(rolling::RollingSink::new(target, rolling))),
            None => Ok(Box::new(sink::FileSink::new(target))),
        }
    }
}

fn settings(spec: &SourceSpec) -> Result<Settings> {
    let options = &spec.options;
    Ok(Settings {
        source: spec.name.clone(),
        order: match options.choice("order", &["name", "mtime"])? {
            "mtime" => Order::Modified,
            _ => Order::Name,
        },
        only_new: options.choice("start", &["all", "new"])? == "new",
        bounded: options.parse("bounded", "true or false")?.unwrap_or(false),
        settle_time: options.duration("settle_time")?.unwrap_or_default(),
        tail_timeout: options.duration("tail_timeout")?.unwrap_or(TAIL_TIMEOUT),
        on_change: match options.choice("on_change", &["ignore", "append", "error", "reread"])? {
            "append" => OnChange::Append,
            "error" => OnChange::Error,
            "reread" => OnChange::Reread,
            _ => OnChange::Ignore,
        },
        poll_interval: options.duration("poll_interval")?.unwrap_or(POLL_INTERVAL),
        health: spec.health.clone(),
    })
}

/// Returns true if the name of the first file says the format.
fn needs_file(paths: &Paths, spec: &SourceSpec) -> bool {
    paths.typical_name().is_none() && spec.options.get("format").is_none()
}

/// Returns the first file by name.
fn first_file(options: &crate::Options) -> Result<Option<Arc<str>>> {
    let mut first: Option<Arc<str>> = None;
    let mut visit = |path: Arc<str>| {
        if first.as_ref().is_none_or(|first| path < *first) {
            first = Some(path);
        }
    };
    let listed = Paths::from_options(options)?.list(&mut visit);
    listed.map_err(|error| Error::External(format!("the files could not be listed: {error}")))?;
    Ok(first)
}

/// Returns the columns of a source whose statement declares none.
fn infer(format: &Format, first: Option<&str>, spec: &SourceSpec) -> Result<SchemaRef> {
    let Some(path) = first else {
        return Err(Error::Invalid(format!(
            "source '{}' declares no columns, and there is no file yet to find them in: declare its columns",
            spec.name
        )));
    };
    let wrong = |error: String| {
        Error::Invalid(format!(
            "the columns of source '{}' can't be found in '{path}': {error}. Declare its columns",
            spec.name
        ))
    };
    let unreadable = |error: io::Error| wrong(error.to_string());
    let sample = || reading::sample(format, path, spec.max_record_bytes, INFERENCE_ROWS).map_err(unreadable);
    let columns = match format {
        Format::Csv(csv) => csv.infer(&sample()?).map_err(wrong)?,
        Format::Json => json::infer(&sample()?).map_err(wrong)?,
        // A feed's key must be declared, and so must all other columns.
        Format::Changes(changes) => {
            changes.check(spec)?;
            return Ok(text_columns());
        }
        _ => parquet::infer(std::fs::File::open(path).map_err(unreadable)?).map_err(wrong)?,
    };
    if columns.fields().is_empty() {
        return Err(wrong("it is empty".into()));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
