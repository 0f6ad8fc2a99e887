//! Statements that are planned but not implemented.

use std::ops::Range;

use millstream_sql::{Error, TokenReader};

/// Returns the position of a clause that isn't implemented; `None` if another statement begins here.
type Clause = fn(&TokenReader<'_>) -> Option<Range<usize>>;

/// A statement that is planned but not implemented.
pub(crate) struct NotYet {
    /// Its first words.
    pub(super) words: &'static [&'static str],
    /// The clause that makes it one. `None`: its first words decide.
    pub(super) clause: Option<Clause>,
    name: &'static str,
    hint: Option<&'static str>,
}

const fn not_yet(words: &'static [&'static str], name: &'static str) -> NotYet {
    NotYet { words, clause: None, name, hint: None }
}

/// All of them.
pub(super) static NOT_YET: &[NotYet] = &[
    not_yet(&["CREATE", "SECRET"], "CREATE SECRET"),
    not_yet(&["CREATE", "CONNECTION"], "CREATE CONNECTION"),
    not_yet(&["CREATE", "OR", "REPLACE"], "CREATE OR REPLACE"),
    NotYet {
        words: &["CREATE", "TRIGGER"],
        clause: None,
        name: "CREATE TRIGGER",
        hint: Some("A materialized view, or a sink into a table, computes what a trigger would maintain."),
    },
    NotYet {
        words: &["DO"],
        clause: None,
        name: "DO",
        hint: Some("Run the statements by themselves: most have IF EXISTS or IF NOT EXISTS."),
    },
    not_yet(&["CALL"], "CALL"),
    not_yet(&["CREATE", "PROCEDURE"], "CREATE PROCEDURE"),
    not_yet(&["CREATE", "RULE"], "CREATE RULE"),
    not_yet(&["CREATE", "POLICY"], "CREATE POLICY"),
    not_yet(&["CREATE", "ROLE"], "CREATE ROLE"),
    not_yet(&["CREATE", "USER"], "CREATE USER"),
    not_yet(&["CREATE", "DATABASE"], "CREATE DATABASE"),
    not_yet(&["ALTER"], "ALTER"),
    NotYet { words: &["COMPILE"], clause: None, name: "COMPILE PLAN", hint: Some(PLANS) },
    NotYet {
        words: &["EXPLAIN", "STATEMENT", "SET"],
        clause: None,
        name: "EXPLAIN STATEMENT SET",
        hint: Some("EXPLAIN the query of each INSERT."),
    },
    NotYet {
        words: &["PRINT"],
        clause: None,
        name: "PRINT",
        hint: Some("CREATE SOURCE s over the topic, and SELECT * FROM s EMIT CHANGES."),
    },
    NotYet {
        words: &["SHOW", "TOPICS"],
        clause: None,
        name: "SHOW TOPICS",
        hint: Some("SHOW SOURCES and SHOW SINKS list what is connected; SHOW CREATE name has the topic."),
    },
    NotYet {
        words: &["SHOW", "QUERIES"],
        clause: None,
        name: "SHOW QUERIES",
        hint: Some("A query is an object: SHOW MATERIALIZED VIEWS, SHOW STREAMS, SHOW SINKS."),
    },
    NotYet {
        words: &["TERMINATE"],
        clause: None,
        name: "TERMINATE",
        hint: Some("DROP the stream, materialized view or sink that the query maintains, or PAUSE it."),
    },
    not_yet(&["COMMIT", "PREPARED"], TWO_PHASES),
    not_yet(&["ROLLBACK", "PREPARED"], TWO_PHASES),
    not_yet(&["PREPARE", "TRANSACTION"], TWO_PHASES),
    NotYet {
        words: &["USE"],
        clause: None,
        name: "USE",
        hint: Some("There is one catalog with one database. SET search_path TO schema chooses a schema."),
    },
    NotYet {
        words: &["SHOW", "CATALOGS"],
        clause: None,
        name: "SHOW CATALOGS",
        hint: Some("There is one catalog. SHOW SCHEMAS and SHOW DATABASES list what is in it."),
    },
    NotYet {
        words: &["CACHE"],
        clause: None,
        name: "CACHE TABLE",
        hint: Some("CREATE MATERIALIZED VIEW keeps the result of a query, and up to date."),
    },
    NotYet { words: &["INSTALL"], clause: None, name: "INSTALL", hint: Some(BUILT_IN) },
    NotYet { words: &["LOAD"], clause: None, name: "LOAD", hint: Some(BUILT_IN) },
    not_yet(&["LISTEN"], "LISTEN"),
    not_yet(&["NOTIFY"], "NOTIFY"),
];

/// The hint of Flink's statements for compiled plans.
pub(super) const PLANS: &str = "The data directory keeps the plans of materialized views, streams and sinks: CREATE them, \
                                or run the INSERT statements.";

const BUILT_IN: &str = "Formats, connectors and functions are built in.";

const TWO_PHASES: &str = "a transaction that is committed in two phases";

impl NotYet {
    /// Returns the error of the statement.
    pub(super) fn error(&self, reader: &TokenReader<'_>) -> Error {
        let at = self.clause.and_then(|clause| clause(reader)).unwrap_or_else(|| reader.position());
        let error = Error::unsupported(self.name).at(at);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
