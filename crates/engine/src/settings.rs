//! The settings of SET and SHOW.

pub(crate) mod foreign;
mod idle;
mod keeping;
mod missed;
mod shutdown;
mod sizes;
mod topics;

use std::num::NonZeroUsize;
use std::time::Duration;

use millstream_flow::Limits;
use millstream_sql::{Error, Result, suggestion};

pub use idle::IdleTimeoutAction;
pub use keeping::{AllowedLateness, Keeping, StateTtl};
pub use missed::MissedBatches;
pub use shutdown::ShutdownSettings;
use sizes::size_or;
pub(crate) use sizes::{bytes_text, size};
pub(crate) use topics::{
    AlertSettings, BatchSettings, DurabilitySettings, MemorySettings, ReaderSettings, SourceSettings,
};

/// The documentation of a setting, for the reference page and SHOW ALL.
#[derive(Clone, Copy, Debug)]
pub struct SettingDoc {
    /// Its name.
    pub name: &'static str,
    /// Its default, as SET accepts it; a phrase if it depends on the machine.
    pub default: &'static str,
    /// Its description in one sentence.
    pub doc: &'static str,
}

/// All settings.
pub const SETTINGS: &[SettingDoc] = &[
    SettingDoc {
        name: "allowed_lateness",
        default: "0",
        doc: "0; or an interval such as '10 seconds': by how much the watermark must have passed the end of a window of \
              event time when it closes. Of the queries created after it, unless their WITH says otherwise",
    },
    SettingDoc {
        name: "batch_interval",
        default: "auto",
        doc: "auto: a batch starts when rows are there and the engine is free; or an interval such as '1 second': at \
              multiples of it",
    },
    SettingDoc {
        name: "checkpoint_interval",
        default: "10 seconds",
        doc: "with a data directory: how long after one checkpoint the next starts, if anything has changed; off: only \
              CHECKPOINT and a stop write one. After a slow checkpoint the next waits ten times as long as that took",
    },
    SettingDoc {
        name: "clock",
        default: "system",
        doc: "system; or manual: time starts at 1970-01-01 00:00:00 UTC and only ADVANCE moves it. To be set before \
              the first epoch",
    },
    SettingDoc {
        name: "event_time_ahead_max",
        default: "1 day",
        doc: "how far the time in the column of a WATERMARK may be ahead of the clock: a later row of a source is a bad \
              row, a later one of a statement is refused; NULL: no limit. Not applied under a manual clock",
    },
    SettingDoc {
        name: "history_buffer_max",
        default: "1 GiB",
        doc: "bytes of changes that history_retention keeps of one relation, about; beyond that its history begins later",
    },
    SettingDoc {
        name: "history_retention",
        default: "none",
        doc: "none; or an interval such as '1 hour': for so long back, by batch time, tables, materialized views and streams \
              whose rows change can be read FOR SYSTEM_TIME AS OF an epoch or a time.",
    },
    SettingDoc {
        name: "journal_interval",
        default: "auto",
        doc: "with a data directory: the least time between two writes of the journal; statements and sinks wait \
              for the next one. auto: 100 milliseconds on an object store, else none",
    },
    SettingDoc {
        name: "log_slow_epochs",
        default: "10 seconds",
        doc: "none; or an interval: an epoch that takes at least so long is logged, with its slowest operator",
    },
    SettingDoc {
        name: "max_batch_bytes",
        default: "64 MiB",
        doc: "bytes that one batch reads of each source, about",
    },
    SettingDoc {
        name: "max_batch_rows",
        default: "adaptive",
        doc: "rows that one batch reads of all sources at most; adaptive: so many that a batch stays short; a number \
              makes bounded runs reproducible",
    },
    SettingDoc {
        name: "max_queued_batches",
        default: "10",
        doc: "under a fixed interval: how many intervals may wait before they are merged",
    },
    SettingDoc {
        name: "max_record_bytes",
        default: "16 MiB",
        doc: "a longer record of a source is a bad row",
    },
    SettingDoc {
        name: "memory_limit",
        default: sizes::MOST_MEMORY,
        doc: "bytes of memory, such as '2 GB', that tables and the operators of queries may take, about: beyond it \
              state goes to files, first rows that were not used recently; none: no limit. No result depends on it",
    },
    SettingDoc {
        name: "missed_batches",
        default: "run",
        doc: "batches that were due while no process had the data directory open, or that the machine's clock was set past, \
              of queries FOR EACH BATCH and over LAST: run: each is run, in order, at its own time, over what was there \
              then; skip: they continue with the next",
    },
    SettingDoc {
        name: "on_error",
        default: "fail",
        doc: "a query whose expressions fail for some rows: fail: reading it fails with the error; keep: reads the rest. \
              The errors are in `millstream.errors`. Of the queries created after it, unless their WITH says otherwise",
    },
    SettingDoc {
        name: "output_rows_max",
        default: "100000000",
        doc: "rows that an operator of a query may emit in one epoch",
    },
    SettingDoc {
        name: "parallelism",
        default: CORES,
        doc: "threads of a SELECT that is not maintained; maintained queries use as many to run in parallel and to process \
              large changes; no result depends on it",
    },
    SettingDoc {
        name: "query_memory_limit",
        default: "auto",
        doc: "bytes of memory, such as '256 MB', that one statement may take for its rows, sorts, joins and groups, for \
              what a new query keeps while it is made, and for the answers that an ALTER compares; auto: half of memory_limit. All statements together may \
              take memory_limit, and 256 MiB where that is less. A statement that needs more puts rows in files where it can, else it fails",
    },
    SettingDoc { name: "recursion_max", default: "10000", doc: "rounds of a recursive query" },
    SettingDoc {
        name: "shutdown_timeout",
        default: "30 seconds",
        doc: "0; or an interval such as '10 seconds': how long running statements and sinks may continue when SIGTERM or SIGHUP \
              asks the program to end. Statements that still run then are cancelled",
    },
    SettingDoc {
        name: "sink_buffer_max",
        default: "1 GiB",
        doc: "bytes of changes that may wait for a sink that can't deliver, about; beyond that INSERT, UPDATE and DELETE \
              of what it delivers fail with an error that names it, and no source that feeds it is read",
    },
    SettingDoc {
        name: "source_idle_timeout",
        default: "30 seconds",
        doc: "a part of a source that had no rows for so long doesn't hold the source's watermark back until it has some \
              again; of sources whose WITH doesn't say another",
    },
    SettingDoc {
        name: "source_idle_timeout_action",
        default: "hold",
        doc: "the watermark of a source that had no rows at all for source_idle_timeout: hold: it stays until rows arrive; \
              advance: it moves at the speed of the clock; of sources whose WITH doesn't say another",
    },
    SettingDoc {
        name: "source_rate_limit",
        default: "none",
        doc: "rows a second that are read of each source, and of each receiver of a source that has several; of sources \
              whose WITH doesn't say another",
    },
    SettingDoc {
        name: "state_ttl",
        default: "off",
        doc: "off; or an interval such as '1 hour': a query drops its state of keys (groups, join keys, partitions) that \
              no row touched for so long, by batch time; its result may then differ from that of a batch query. Of the \
              queries created after it, unless their WITH says otherwise",
    },
    SettingDoc {
        name: "stop_gracefully",
        default: "off",
        doc: "on: SIGTERM and SIGHUP end the program as STOP GRACEFULLY does: rows that sources have received are \
              processed first; off: as STOP does",
    },
    SettingDoc {
        name: "subscription_buffer_max",
        default: "64 MiB",
        doc: "bytes of changes that may wait for one reader of EMIT CHANGES or SUBSCRIBE, about; one that falls further \
              behind is ended with an error",
    },
    SettingDoc {
        name: "warn_stalled_after",
        default: "5 minutes",
        doc: "none; or an interval: a warning says when a source has had no rows for so long, or its watermark stands \
              although rows arrive. Of sources without an end",
    },
    SettingDoc {
        name: "warn_state_above",
        default: "1 GiB",
        doc: "none; or bytes: a warning says when the state of a query takes more memory than this",
    },
    SettingDoc {
        name: "whole_rows_max",
        default: "1000000",
        doc: "rows of input that an operator Whole may keep",
    },
];

/// The default of `parallelism`, a phrase instead of a value.
const CORES: &str = "the number of cores";

/// Returns all settings with their documentation, by name.
pub fn settings() -> &'static [SettingDoc] {
    SETTINGS
}

/// The rule for when batches start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Start when rows have arrived and the engine is idle.
    Auto,
    /// Start at multiples of an interval.
    Fixed(Duration),
}

/// The source of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The machine's clock.
    System,
    /// ADVANCE statements.
    Manual,
}

/// The behaviour of a reader of a query that has no answer for some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Reading fails with the error.
    Fail,
    /// Reading returns the other rows.
    Keep,
}

impl OnError {
    /// Parses the value of a setting or an option.
    pub fn parse(value: &str) -> Result<OnError> {
        match value.to_ascii_lowercase().as_str() {
            "fail" => Ok(OnError::Fail),
            "keep" => Ok(OnError::Keep),
            _ => Err(Error::invalid(format!("on_error is '{value}', but 'fail' or 'keep' was expected"))),
        }
    }

    /// Returns the value as SET accepts it.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Fail => "fail",
            OnError::Keep => "keep",
        }
    }
}

/// The engine's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `batch_interval`
    pub pace: Pace,
    /// `clock`
    pub clock: ClockKind,
    /// `max_batch_rows`, `max_batch_bytes`, `max_queued_batches`, `missed_batches`
    pub batches: BatchSettings,
    /// `checkpoint_interval`, `journal_interval`
    pub durability: DurabilitySettings,
    /// `event_time_ahead_max`, `source_idle_timeout`, `source_idle_timeout_action`, `source_rate_limit`,
    /// `max_record_bytes`
    pub sources: SourceSettings,
    /// `history_buffer_max`, `history_retention`, `sink_buffer_max`, `subscription_buffer_max`
    pub readers: ReaderSettings,
    /// `memory_limit`, `query_memory_limit`
    pub memory: MemorySettings,
    /// `log_slow_epochs`, `warn_stalled_after`, `warn_state_above`
    pub alerts: AlertSettings,
    /// `on_error`
    pub on_error: OnError,
    /// `parallelism`
    pub parallelism: usize,
    /// `shutdown_timeout`, `stop_gracefully`
    pub shutdown: ShutdownSettings,
    /// `allowed_lateness`, `output_rows_max`, `recursion_max`, `state_ttl`, `whole_rows_max`
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            pace: Pace::Auto,
            clock: ClockKind::System,
            batches: BatchSettings::default(),
            durability: DurabilitySettings::default(),
            sources: SourceSettings::default(),
            readers: ReaderSettings::default(),
            memory: MemorySettings::default(),
            alerts: AlertSettings::default(),
            on_error: OnError::Fail,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            shutdown: ShutdownSettings::default(),
            limits: Limits::default(),
        }
    }
}

impl Settings {
    /// Returns the number of threads that maintained queries may use.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.parallelism).unwrap_or(NonZeroUsize::MIN)
    }

    /// Returns true if a setting of this name exists.
    pub fn knows(name: &str) -> bool {
        SETTINGS.iter().any(|setting| setting.name == name)
    }

    /// Returns the error for an unknown setting.
    pub fn unknown(name: &str) -> Error {
        let names = SETTINGS.iter().map(|setting| setting.name);
        Error::invalid(format!("there is no setting \"{name}\""))
            .maybe_hint(suggestion::hint(name, "settings", names))
    }

    /// Changes one setting.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "allowed_lateness" => self.limits.allowed_lateness_us = AllowedLateness::parse(value)?.us(),
            "batch_interval" => self.pace = pace(value)?,
            "checkpoint_interval" => {
                let off = value.eq_ignore_ascii_case("off");
                self.durability.checkpoint_interval =
                    if off { None } else { Some(interval(name, value, "off or ")?) };
            }
            "clock" => self.clock = clock(value)?,
            "event_time_ahead_max" => self.sources.event_time_ahead_max = ahead_max(value)?,
            "history_buffer_max" => self.readers.history_buffer_max = size(name, value)?,
            "history_retention" => self.readers.history_retention = interval_or_none(name, value)?,
            "journal_interval" => {
                let auto = value.eq_ignore_ascii_case("auto");
                self.durability.journal_interval =
                    if auto { None } else { Some(interval(name, value, "auto or ")?) };
            }
            "log_slow_epochs" => self.alerts.slow_epochs = interval_or_none(name, value)?,
            "max_batch_bytes" => self.batches.bytes_max = size(name, value)?,
            "max_batch_rows" => {
                let adaptive = value.eq_ignore_ascii_case("adaptive");
                self.batches.rows_max = if adaptive { None } else { Some(count(name, value)?) };
            }
            "max_queued_batches" => self.batches.queued_max = count(name, value)?,
            "max_record_bytes" => self.sources.record_bytes_max = size(name, value)?,
            "memory_limit" => self.memory.limit = size_or("none", name, value)?,
            "missed_batches" => self.batches.missed = MissedBatches::parse(value)?,
            "query_memory_limit" => self.memory.query_limit = size_or("auto", name, value)?,
            "on_error" => self.on_error = OnError::parse(value)?,
            "output_rows_max" => self.limits.output_rows_max = count(name, value)?,
            "parallelism" => self.parallelism = count(name, value)?,
            "recursion_max" => self.limits.recursion_max = count(name, value)?,
            "source_idle_timeout" => self.sources.idle_timeout = interval(name, value, "")?,
            "source_idle_timeout_action" => self.sources.idle_action = IdleTimeoutAction::parse(value)?,
            "source_rate_limit" => {
                let none = value.eq_ignore_ascii_case("none");
                self.sources.rate_limit = if none { None } else { Some(rate(name, value)?) };
            }
            "shutdown_timeout" => self.shutdown.timeout = shutdown::timeout(value)?,
            "sink_buffer_max" => self.readers.sink_buffer_max = size(name, value)?,
            "state_ttl" => self.limits.state_ttl_us = StateTtl::parse(value)?.us(),
            "stop_gracefully" => self.shutdown.gracefully = shutdown::on_or_off(name, value)?,
            "subscription_buffer_max" => self.readers.subscription_buffer_max = size(name, value)?,
            "warn_stalled_after" => self.alerts.stalled_after = interval_or_none(name, value)?,
            "warn_state_above" => self.alerts.state_above = size_or("none", name, value)?,
            "whole_rows_max" => self.limits.whole_rows_max = count(name, value)?,
            _ => return Err(Settings::unknown(name)),
        }
        Ok(())
    }

    /// Returns a setting's value as SHOW displays it.
    pub fn show(&self, name: &str) -> Result<String> {
        Ok(match name {
            "allowed_lateness" => match self.limits.allowed_lateness_us {
                0 => "0".into(),
                us => millstream_sql::length_text(us),
            },
            "batch_interval" => match self.pace {
                Pace::Auto => "auto".into(),
                Pace::Fixed(interval) => interval_text(interval),
            },
            "checkpoint_interval" => self.durability.checkpoint_interval.map_or("off".into(), interval_text),
            "clock" => match self.clock {
                ClockKind::System => "system".into(),
                ClockKind::Manual => "manual".into(),
            },
            "event_time_ahead_max" => self.sources.event_time_ahead_max.map_or("null".into(), interval_text),
            "history_buffer_max" => self.readers.history_buffer_max.to_string(),
            "history_retention" => self.readers.history_retention.map_or("none".into(), interval_text),
            "log_slow_epochs" => self.alerts.slow_epochs.map_or("none".into(), interval_text),
            "warn_stalled_after" => self.alerts.stalled_after.map_or("none".into(), interval_text),
            "warn_state_above" => self.alerts.state_above.map_or("none".into(), |bytes| bytes.to_string()),
            "journal_interval" => self.durability.journal_interval.map_or("auto".into(), interval_text),
            "max_batch_bytes" => self.batches.bytes_max.to_string(),
            "max_batch_rows" => self.batches.rows_max.map_or("adaptive".into(), |rows| rows.to_string()),
            "max_queued_batches" => self.batches.queued_max.to_string(),
            "max_record_bytes" => self.sources.record_bytes_max.to_string(),
            "memory_limit" => self.memory.limit.map_or("none".into(), |bytes| bytes.to_string()),
            "missed_batches" => self.batches.missed.name().into(),
            "query_memory_limit" => self.memory.query_limit.map_or("auto".into(), |bytes| bytes.to_string()),
            "on_error" => self.on_error.name().into(),
            "output_rows_max" => self.limits.output_rows_max.to_string(),
            "parallelism" => self.parallelism.to_string(),
            "recursion_max" => self.limits.recursion_max.to_string(),
            "source_idle_timeout" => interval_text(self.sources.idle_timeout),
            "source_idle_timeout_action" => self.sources.idle_action.name().into(),
            "source_rate_limit" => self.sources.rate_limit.map_or("none".into(), |rate| rate.to_string()),
            "shutdown_timeout" => shutdown::timeout_text(self.shutdown.timeout),
            "sink_buffer_max" => self.readers.sink_buffer_max.to_string(),
            "state_ttl" => self.limits.state_ttl_us.map_or("off".into(), millstream_sql::length_text),
            "stop_gracefully" => shutdown::on_or_off_text(self.shutdown.gracefully).into(),
            "subscription_buffer_max" => self.readers.subscription_buffer_max.to_string(),
            "whole_rows_max" => self.limits.whole_rows_max.to_string(),
            _ => return Err(Settings::unknown(name)),
        })
    }
}

fn ahead_max(value: &str) -> Result<Option<Duration>> {
    if ["null", "none", "off"].iter().any(|word| value.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    interval("event_time_ahead_max", value, "NULL or ").map(Some)
}

fn pace(value: &str) -> Result<Pace> {
    if value.eq_ignore_ascii_case("auto") {
        return Ok(Pace::Auto);
    }
    Ok(Pace::Fixed(interval("batch_interval", value, "auto or ")?))
}

fn clock(value: &str) -> Result<ClockKind> {
    match value.to_ascii_lowercase().as_str() {
        "system" => Ok(ClockKind::System),
        "manual" => Ok(ClockKind::Manual),
        _ => Err(Error::invalid(format!("clock is '{value}', but 'system' or 'manual' was expected"))),
    }
}

/// Parses an integer above zero.
pub(crate) fn count(name: &str, value: &str) -> Result<usize> {
    value.replace('_', "").parse().ok().filter(|count| *count > 0).ok_or_else(|| {
        Error::invalid(format!("{name} is '{value}', but a whole number above zero was expected"))
    })
}

/// Parses a number of rows a second.
pub(crate) fn rate(name: &str, value: &str) -> Result<f64> {
    let rate = value.replace('_', "").parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| {
        Error::invalid(format!("{name} is '{value}', but a number of rows a second above zero was expected"))
    })
}

/// Parses a duration: `1 second`, `500 ms`, `1.5 s`, `2 min`.
pub(crate) fn interval(name: &str, value: &str, or: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid(format!("{name} is '{value}', but {or}an interval such as '1 second' was expected"))
    };
    let text = value.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim().trim_end_matches('s') {
        "u" | "us" | "microsecond" => 1,
        "m" if text.ends_with("ms") => 1_000,
        "millisecond" | "msec" => 1_000,
        "" if text.ends_with('s') => 1_000_000,
        "sec" | "second" => 1_000_000,
        "m" | "min" | "minute" => 60_000_000,
        "h" | "hour" => 3_600_000_000,
        "d" | "day" => 86_400_000_000_u64,
        _ => return Err(wrong()),
    };
    let micros = (number * unit as f64).round();
    if (1.0..=1e15).contains(&micros) { Ok(Duration::from_micros(micros as u64)) } else { Err(wrong()) }
}

fn interval_or_none(name: &str, value: &str) -> Result<Option<Duration>> {
    if value.eq_ignore_ascii_case("none") { Ok(None) } else { interval(name, value, "none or ").map(Some) }
}

/// Returns a duration in the syntax of SET: `1 second`.
pub(crate) fn interval_text(interval: Duration) -> String {
    millstream_sql::length_text(i64::try_from(interval.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_are_understood() {
        let check = |name: &str, value: &str, shown: &str| {
            let mut settings = Settings::default();
            settings.set(name, value).unwrap();
            assert_eq!(settings.show(name).unwrap(), shown);
        };
        check("batch_interval", "1 second", "1 second");
        check("batch_interval", "1500 ms", "1500 milliseconds");
        check("batch_interval", "2s", "2 seconds");
        check("batch_interval", "120s", "2 minutes");
        check("batch_interval", "AUTO", "auto");
        check("max_record_bytes", "16 MiB", "16777216");
        check("max_batch_rows", "1_000", "1000");
        check("memory_limit", "2 GB", "2147483648");
        check("memory_limit", "None", "none");
        check("query_memory_limit", "64 MB", "67108864");
        check("query_memory_limit", "AUTO", "auto");
        check("log_slow_epochs", "1 min", "1 minute");
        check("warn_stalled_after", "NONE", "none");
        check("warn_state_above", "200 MB", "209715200");
        check("warn_state_above", "NONE", "none");
        check("checkpoint_interval", "OFF", "off");
        check("checkpoint_interval", "1 min", "1 minute");
        check("journal_interval", "50 ms", "50 milliseconds");
        check("journal_interval", "AUTO", "auto");
        check("clock", "Manual", "manual");
        check("state_ttl", "90 min", "90 minutes");
        check("state_ttl", "OFF", "off");
        check("allowed_lateness", "90 sec", "90 seconds");
        check("allowed_lateness", "0", "0");
        check("event_time_ahead_max", "NULL", "null");
        check("event_time_ahead_max", "90 min", "90 minutes");
        check("source_idle_timeout", "500 ms", "500 milliseconds");
        check("source_idle_timeout_action", "Advance", "advance");
        check("shutdown_timeout", "0", "0");
        check("shutdown_timeout", "1 min", "1 minute");
        check("stop_gracefully", "ON", "on");
        check("stop_gracefully", "false", "off");
    }

    #[test]
    fn documented_defaults_are_the_defaults() {
        for doc in SETTINGS.iter().filter(|doc| ![CORES, sizes::MOST_MEMORY].contains(&doc.default)) {
            let mut settings = Settings::default();
            settings.set(doc.name, doc.default).unwrap();
            let default = Settings::default().show(doc.name).unwrap();
            assert_eq!(settings.show(doc.name).unwrap(), default, "{}", doc.name);
        }
    }

    #[test]
    fn wrong_values_say_what_was_expected() {
        let check = |name: &str, value: &str, part: &str| {
            let error = Settings::default().set(name, value).unwrap_err();
            assert!(error.render("").contains(part), "{error}");
        };
        check("batch_interval", "soon", "an interval such as '1 second'");
        check("batch_interval", "0 s", "an interval such as");
        check("max_batch_rows", "0", "above zero");
        check("max_record_bytes", "9 parsecs", "bytes were expected");
        check("clock", "sundial", "'system' or 'manual'");
        check("source_idle_timeout_action", "jump", "'hold' or 'advance'");
        check("stop_gracefully", "perhaps", "on or off was expected");
        check("batch_intervall", "1 s", "batch_interval");
    }
}
