//! The system tables: names and columns. `run/system.rs` fills them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_delta::Epoch;
use millstream_sql::SYSTEM_SCHEMA;

/// A table of the schema `millstream`, as on the reference page.
#[derive(Clone, Copy, Debug)]
pub struct SystemTableDoc {
    /// Its name in the schema.
    pub name: &'static str,
    /// The meaning of a row.
    pub doc: &'static str,
    /// Its columns.
    pub columns: &'static [SystemColumnDoc],
}

/// A column of such a table.
#[derive(Clone, Copy, Debug)]
pub struct SystemColumnDoc {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: SystemColumnKind,
    /// Its description.
    pub doc: &'static str,
}

/// The rows of a system table that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excerpt {
    /// All rows.
    All,
    /// Of tables of epochs, those of one epoch.
    Epoch(Epoch),
    /// Of the history of operators, those of the seconds since the start from one up to another, which is excluded.
    Seconds(u64, u64),
}

impl Excerpt {
    /// Returns true if the rows of an epoch are read.
    pub(crate) fn has_epoch(self, epoch: Epoch) -> bool {
        !matches!(self, Excerpt::Epoch(only) if only != epoch)
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemColumnKind {
    /// Text.
    Text,
    /// Integers.
    Number,
    /// Numbers with a fraction.
    Real,
    /// Points in time, in UTC.
    Time,
    /// Bytes.
    Bytes,
}

impl SystemColumnKind {
    /// Returns its SQL type.
    pub fn sql(self) -> &'static str {
        match self {
            SystemColumnKind::Text => "TEXT",
            SystemColumnKind::Number => "BIGINT",
            SystemColumnKind::Real => "DOUBLE PRECISION",
            SystemColumnKind::Time => "TIMESTAMPTZ",
            SystemColumnKind::Bytes => "BYTEA",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            SystemColumnKind::Text => DataType::Utf8View,
            SystemColumnKind::Number => DataType::Int64,
            SystemColumnKind::Real => DataType::Float64,
            SystemColumnKind::Bytes => DataType::BinaryView,
            SystemColumnKind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        }
    }
}

/// The time zone of times.
pub(crate) const UTC: &str = "+00:00";

/// The name of the table of errors.
pub(crate) const ERRORS: &str = "errors";

const fn text(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, kind: SystemColumnKind::Text, doc }
}

const fn number(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, kind: SystemColumnKind::Number, doc }
}

const fn real(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, kind: SystemColumnKind::Real, doc }
}

const fn time(name: &'static str, doc: &'static str) -> SystemColumnDoc {
    SystemColumnDoc { name, kind: SystemColumnKind::Time, doc }
}

/// The columns about a maintained query.
const QUERY: &[SystemColumnDoc] = &[
    text("name", "its name"),
    text("status", "`running`, `behind`, `paused`, `starting` or `suspended`"),
    text("reason", "why it is suspended, the first of its errors, or how many epochs it is behind"),
    number("rows", "rows of its result, or rows that it keeps"),
    number("epoch", "the last epoch that changed its input"),
    number("state_bytes", "bytes that it keeps, about"),
    number("errors", "rows for which it fails"),
    text("on_error", "what reading it does while it has errors"),
];

/// All system tables. Their positions determine their OIDs in PostgreSQL's catalog, so new tables go last.
pub(crate) const TABLES: &[SystemTableDoc] = &[
    SystemTableDoc {
        name: "checkpoints",
        doc: "one of the last 100 checkpoints since the engine was started, failed ones included",
        columns: &[
            number("entry", "the last entry of the journal that it includes: a start replays those after it"),
            number("epoch", "the newest epoch when it was complete"),
            time("at", "when it was complete"),
            number("stopped_us", "how long no epoch could run for it, in microseconds"),
            number("duration_us", "how long it took until it was on the disk, in microseconds"),
            number("bytes", "what was written of it; NULL where it couldn't be written"),
            number("named_bytes", "its whole size, including files of earlier checkpoints"),
            text("reason", "why it couldn't be written"),
        ],
    },
    SystemTableDoc {
        name: "epochs",
        doc: "one of the last 1,000 epochs; `SUBSCRIBE millstream.epochs` follows them",
        columns: &[
            number("epoch", "its number"),
            time("batch_time", "its batch time"),
            number("input_rows", "rows of the changes of sources and tables that it read"),
            number(
                "output_rows",
                "rows by which the results of queries changed, including those of queries that are behind",
            ),
            number("processing_us", "how long it ran, in microseconds"),
            number(
                "scheduling_delay_us",
                "how long it had to wait: since it was due under a fixed interval, else since its first row was there",
            ),
            number("total_delay_us", "both together"),
            number(
                "merged_intervals",
                "intervals that were due before it and were merged into it, as max_queued_batches says",
            ),
            text("inputs", "the rows of `input_rows` by source and table, as a JSON object"),
        ],
    },
    SystemTableDoc {
        name: ERRORS,
        doc: "what a query fails for: a row, a key or, if it is suspended, everything",
        columns: &[
            text("query", "the materialized view or sink"),
            text(
                "operator",
                "which of its operators fails; NULL where the query is suspended, or was rebuilt after a panic",
            ),
            text("message", "why"),
            text("row", "the row or key that it fails for, as text; NULL where there is none"),
            number("count", "how many such rows there are"),
            text(
                "backtrace",
                "where in the code the query panicked, at most 16 KiB of it, once the names are looked up; else NULL",
            ),
        ],
    },
    SystemTableDoc {
        name: "history",
        doc: "a relation whose history is kept: `FOR SYSTEM_TIME AS OF`",
        columns: &[
            text("relation", "its name"),
            number("since", "the oldest epoch as of which it can be read"),
            time("since_time", "the batch time of that"),
            number("epochs", "epochs after it that have changed the relation"),
            number("bytes", "bytes that these take, about; history_buffer_max is the most"),
        ],
    },
    SystemTableDoc { name: "materialized_views", doc: "a materialized view", columns: QUERY },
    SystemTableDoc {
        name: "memory",
        doc: "the memory of tables and of the operators of queries, one row",
        columns: &[
            number("limit_bytes", "`memory_limit`; NULL where there is none"),
            number("state_bytes", "bytes of memory that they take, about"),
            number("spilled_bytes", "bytes of state that are in files instead"),
            text("reason", "why the limit is exceeded; NULL if it isn't"),
        ],
    },
    SystemTableDoc {
        name: "operators",
        doc: "an operator of a query, with what it has done since the query was made",
        columns: &[
            text("query", "the materialized view or sink"),
            number("node", "its number: its inputs have lower ones"),
            text("operator", "its name, as in EXPLAIN"),
            text("detail", "its expressions, or the relation that is its input; NULL where it has none"),
            text("inputs", "the nodes that it reads; NULL for an input"),
            text("cost", "what an epoch costs: `delta`, `touched keys` or `whole`; NULL for an input"),
            number(
                "epochs",
                "how often it was stepped: when it was made, and in each epoch that changed its input",
            ),
            number("rows_in", "rows of the changes that it received"),
            number(
                "rows_out",
                "rows of the changes that it emitted; changes without a reader may be left out",
            ),
            number("errors", "rows for which it currently fails"),
            number("time_us", "how long it took, in microseconds"),
            number("state_rows", "rows that it keeps"),
            number("state_bytes", "bytes that it keeps, about"),
            number("spilled_bytes", "bytes of its state that are in files instead"),
            text("state_key", "the columns by which it keeps them; NULL where it has no key"),
            text("key", "the columns that no two rows of its output share; NULL where none are known"),
            number("forgotten_keys", "keys that `state_ttl` made it forget; NULL where it forgets none"),
            number("forgotten_deletes", "deletes of rows that it had forgotten, which change nothing"),
            number(
                "late_rows",
                "rows that arrived for windows that had closed; NULL where its windows don't close",
            ),
            text(
                "shared_by",
                "the queries that share its state, of which the first counts it in its `state_bytes`; NULL where \
                 it shares none",
            ),
        ],
    },
    SystemTableDoc {
        name: "settings",
        doc: "a setting, as SHOW ALL shows it",
        columns: &[text("name", "its name"), text("value", "its value"), text("description", "what it does")],
    },
    SystemTableDoc {
        name: "sinks",
        doc: "a sink",
        columns: &[
            text("name", "its name"),
            text("target", "its connector, or the table that it goes into"),
            text("status", "`running`, `paused`, `retrying`, `failed`, `starting` or `suspended`"),
            text("reason", "why it can't deliver, and which sources it holds back"),
            number("rows", "rows that it has delivered"),
            number("epoch", "the last epoch that it has delivered"),
            number("waiting_epochs", "epochs that wait for it"),
            number("waiting_bytes", "bytes that wait for it, about"),
            text(
                "delivery",
                "`exactly_once`, or `at_least_once` where rows may be delivered again after a failure",
            ),
        ],
    },
    SystemTableDoc {
        name: "source_partitions",
        doc: "how far a part of a source was read: a file, a partition",
        columns: &[
            text("source", "the source"),
            text("partition", "the part"),
            number("position", "where reading continues, in the units of the source: bytes, rows, offsets"),
            number(
                "end_position",
                "where it ended a few seconds ago, in the same units; NULL where the source doesn't know",
            ),
            number("lag", "how much is left to read up to `end_position`: of Kafka, offsets"),
            time(
                "last_record_time",
                "the time of the last record that was read; NULL where records have none",
            ),
            text("done", "`true` where it was read to its end"),
            time(
                "watermark",
                "how far event time has advanced in it; of parts that are read one after the other, in all of them; NULL where \
                 the source has no watermark, or it had no row yet",
            ),
            text(
                "idle",
                "`true` where it had no row for so long that it doesn't hold the watermark of the source back",
            ),
        ],
    },
    SystemTableDoc {
        name: "sources",
        doc: "a source, with what was read of it",
        columns: &[
            text("name", "its name"),
            text("connector", "what `connector` says"),
            text("status", "as in SHOW SOURCES"),
            text("reason", "why it failed, is restarting, or is not read; NULL where nothing is wrong"),
            number("rows", "rows read"),
            number("bad_rows", "records that could not be decoded"),
            number("rows_per_second", "rows and bad rows that were recently read a second"),
            number("waiting_rows", "rows that were read and wait for an epoch"),
            number("waiting_bytes", "how many bytes these are, about"),
            number("restarts", "how often it, or a receiver of it, was started again after a failure"),
            number("changes", "how often a file of it changed after its end was read"),
            number("duplicates", "rows that a reliable source delivered again, which were skipped"),
            text(
                "rate_limit",
                "rows a second that may be read of it, of all its receivers together; NULL without `source_rate_limit`",
            ),
        ],
    },
    SystemTableDoc { name: "streams", doc: "a stream", columns: QUERY },
    SystemTableDoc {
        name: "subscriptions",
        doc: "a reader who follows a relation or a query: SUBSCRIBE, EMIT CHANGES; or a durable subscription: CREATE \
              SUBSCRIPTION",
        columns: &[
            number("subscription", "its number; NULL for a durable subscription"),
            text("relation", "the relation that it follows; NULL for a query of its own"),
            number(
                "epoch",
                "the newest epoch that it received; of a durable subscription the last before its position",
            ),
            number("waiting_epochs", "epochs that wait for it"),
            number(
                "waiting_bytes",
                "bytes that wait for it, about; subscription_buffer_max is the most, or its own buffer_max",
            ),
            text(
                "name",
                "the name that CREATE SUBSCRIPTION gave it; of a reader, the subscription that it reads; else NULL",
            ),
            text(
                "status",
                "`reading` for a reader; else `kept`, `full` (when_full is `wait`) or `lost` (changes were discarded that \
                 the reader doesn't have)",
            ),
            text("reason", "why it is full, or what was lost"),
        ],
    },
    SystemTableDoc {
        name: "tables",
        doc: "a table",
        columns: &[
            text("name", "its name"),
            number("rows", "its rows"),
            text("primary_key", "the columns of its primary key; NULL without one"),
            text("append_only", "`true` if it is APPEND ONLY"),
        ],
    },
    SystemTableDoc {
        name: "jobs",
        doc: "a statement that runs, or whose rows are still being read",
        columns: &[
            number("job", "its number"),
            number("session", "the session that runs it, as `pg_backend_pid()` returns it"),
            text("user", "the user of the session"),
            text("statement", "its first 1,000 characters, without secrets"),
            time("began", "when it began"),
            number("rows_done", "rows that it has returned, or that a new query has read"),
            number("rows_total", "rows that a new query has to read; NULL of other statements"),
            number("memory_bytes", "bytes of memory that it has taken"),
            text("cancel", "the statement that cancels it"),
        ],
    },
    SystemTableDoc {
        name: "bad_rows",
        doc: "a record that a source could not decode, as `bad_rows('source')` shows it; queries that are maintained can \
              read it, too",
        columns: &[
            text("source", "the source"),
            text("split", "the file, the connection, the run of the program"),
            number("position", "where in it the record begins"),
            text("reason", "why it could not be decoded"),
            SystemColumnDoc {
                name: "bytes",
                kind: SystemColumnKind::Bytes,
                doc: "the record, 64 KiB of it at most",
            },
        ],
    },
    SystemTableDoc {
        name: "late_rows",
        doc: "a row that was late for a query, as `late_rows('query')` shows it; queries that are maintained can read it, \
              too",
        columns: &[
            text("query", "the materialized view, stream or sink"),
            number("epoch", "the epoch in which it arrived"),
            text("operator", "the operator for which it was late"),
            text("closed_window", "the window, by the column of which it closes"),
            text("watermark", "the watermark by which the window had closed"),
            number("weight", "how many copies were inserted; negative if they were deleted"),
            text("relation", "the relation whose row it was; NULL where an operator made it"),
            text("event_time", "the row's event time in the relation"),
            text("row", "the relation's row as JSON, all columns; where an operator made it, that row"),
        ],
    },
    SystemTableDoc {
        name: "metrics",
        doc: "a value of a metric now, as `/metrics` of the web page shows it",
        columns: &[
            text("name", "the name of the sample"),
            text("labels", "its labels and their values, as a JSON object"),
            real("value", "its value"),
        ],
    },
    SystemTableDoc {
        name: "metrics_history",
        doc: "a value of a metric at an earlier time: every 10 seconds, for an hour, at most 512 values",
        columns: &[
            time("at", "the time"),
            text("name", "the name of the sample"),
            text("labels", "its labels and their values, as a JSON object"),
            real("value", "its value"),
        ],
    },
    SystemTableDoc {
        name: "epoch_operators",
        doc: "an operator in one of the last 1,000 epochs: the 64 slowest of each",
        columns: &[
            number("epoch", "the epoch"),
            text("query", "the materialized view, stream or sink"),
            number("node", "the number of the operator, as in `millstream.operators`"),
            text("operator", "its name; NULL if the query was dropped"),
            number(
                "time_us",
                "how long it took, in microseconds; of a query that is behind, in all steps since the epoch before",
            ),
            number("rows_in", "rows of the changes that it received"),
            number("rows_out", "rows of the changes that it emitted"),
        ],
    },
    SystemTableDoc {
        name: "operator_history",
        doc: "the time that a query or an operator took within a second: the 16 slowest queries and operators of each \
              second, for an hour",
        columns: &[
            time("at", "the beginning of the second"),
            text("query", "the materialized view, stream or sink"),
            number("node", "the number of the operator, as in `millstream.operators`; NULL of a whole query"),
            text("operator", "its name; NULL of a whole query, or if the query was dropped"),
            number("time_us", "how long it took, in microseconds"),
        ],
    },
    SystemTableDoc {
        name: "dependencies",
        doc: "an object, with one that its rows come from; an object may have several of these rows",
        columns: &[
            text("name", "its name"),
            text(
                "kind",
                "`source`, `table`, `view`, `materialized view`, `stream` or `sink`; a table with a connector is a source",
            ),
            text(
                "depends_on",
                "a relation that it reads, or a sink that goes into it; NULL where there is none",
            ),
        ],
    },
    SystemTableDoc {
        name: "problems",
        doc: "a problem of an object or of the engine, the worst first",
        columns: &[
            text(
                "level",
                "`error`: it doesn't run; `warning`: it is late, or fails in part; `note`: it waits for the user",
            ),
            text(
                "kind",
                "`source`, `materialized view`, `stream`, `sink`, `subscription`, or `query` for the state of one; of the \
                 engine `epochs`, `memory`, `checkpoint` or `journal`",
            ),
            text("object", "the name of the object; NULL for the engine"),
            time("since", "when it was first seen, at most 10 seconds after its begin"),
            text(
                "message",
                "the predicate of a sentence about the object; a sentence where `object` is NULL",
            ),
            text("statement", "the statement that explains or mends it"),
        ],
    },
];

/// Returns all tables of the schema `millstream` with their documentation.
pub fn system_tables() -> &'static [SystemTableDoc] {
    TABLES
}

/// Returns true if a relation's name is in the engine's own schema.
pub(crate) fn is_name(relation: &str) -> bool {
    table_name(relation).is_some()
}

/// Returns the name of a system table in its schema.
pub(crate) fn table_name(relation: &str) -> Option<&str> {
    relation.strip_prefix(SYSTEM_SCHEMA)?.strip_prefix('.')
}

/// Returns the table of this name.
pub(crate) fn find(name: &str) -> Option<&'static SystemTableDoc> {
    TABLES.iter().find(|table| table.name == name)
}

impl SystemTableDoc {
    /// Returns its columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        let field = |column: &SystemColumnDoc| Field::new(column.name, column.kind.data_type(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}
