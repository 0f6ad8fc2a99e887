//! A session's own settings: those of PostgreSQL that clients set when they connect.
//!
//! A setting accepts only values that describe the engine's behaviour. Others are refused, since they would
//! have no effect.

mod lasting;
mod session;
pub(crate) mod time_zone;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use millstream_sql::{Error, PUBLIC, Result, SYSTEM_SCHEMAS, TokenReader};

use crate::catalog::Catalog;
use crate::files::Files;
use crate::pg::{Facts, OneShot};
use crate::session::Session;
use crate::settings::Settings;
pub(crate) use lasting::{Lasts, Point};
use lasting::{Values, Within};
pub(crate) use session::SessionVariables;

/// The read-only modes of future transactions and of the current one.
const DEFAULT_READ_ONLY: &str = "default_transaction_read_only";
const READ_ONLY: &str = "transaction_read_only";

/// The meaning of the operator `^`.
const CARET: &str = "caret";

/// The maximum run time of a statement.
const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// The version of PostgreSQL that is reported. Clients adapt to it.
pub const SERVER_VERSION: &str = concat!("15.0 (Millstream ", env!("CARGO_PKG_VERSION"), ")");

/// A setting of PostgreSQL's in a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    /// Its name, as PostgreSQL spells it.
    pub(crate) name: &'static str,
    /// Its default value.
    pub(crate) default: &'static str,
    accepts: Accepts,
    /// Its description.
    pub(crate) doc: &'static str,
}

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug)]
enum Accepts {
    /// None: the setting is read-only.
    Nothing,
    /// Any text.
    Anything,
    /// One of these words; `true`, `yes` and `1` mean `on`, and `false`, `no` and `0` mean `off`.
    Words(&'static [&'static str]),
    /// A duration; 0 means none.
    Time,
    /// A date format.
    Dates,
    /// A time zone: a name, or an offset from UTC.
    Zone,
    /// A list of schemas.
    Schemas,
    /// A number of float digits.
    Digits,
}

const fn fixed(name: &'static str, default: &'static str, doc: &'static str) -> Variable {
    Variable { name, default, accepts: Accepts::Nothing, doc }
}

const fn words(
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    doc: &'static str,
) -> Variable {
    Variable { name, default, accepts: Accepts::Words(words), doc }
}

const fn of(name: &'static str, default: &'static str, accepts: Accepts, doc: &'static str) -> Variable {
    Variable { name, default, accepts, doc }
}

const ON_OFF: &[&str] = &["on", "off"];
const LEVELS: &[&str] = &["read uncommitted", "read committed", "repeatable read"];
const MESSAGES: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "info", "notice", "warning", "error"];

static SINCE_US: LazyLock<i64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
});

/// All settings, by name.
pub(crate) const VARIABLES: &[Variable] = &[
    of("application_name", "", Accepts::Anything, "what a client calls itself"),
    words("array_nulls", "on", &["on"], "NULL in the text of an array is NULL"),
    words("bytea_output", "hex", &["hex"], "how bytes are written"),
    words(
        CARET,
        "power",
        &["power", "xor"],
        "the operator `^`: power, or the XOR of bits as in Spark and MySQL",
    ),
    words("check_function_bodies", "on", ON_OFF, "accepted; a function's body is always checked"),
    words("client_encoding", "UTF8", &["UTF8", "UTF-8", "UNICODE"], "the encoding of a client's text"),
    words("client_min_messages", "notice", MESSAGES, "the least of messages that a client is sent"),
    of("DateStyle", "ISO, MDY", Accepts::Dates, "how dates are written"),
    words("default_table_access_method", "heap", &["heap"], "how tables are kept"),
    of("default_tablespace", "", Accepts::Words(&["", "pg_default"]), "where tables are kept"),
    words(
        "default_text_search_config",
        "pg_catalog.english",
        &["pg_catalog.english", "english"],
        "the configuration of full text search; others are named in calls",
    ),
    words("default_transaction_deferrable", "off", ON_OFF, "accepted; nothing has to be deferred"),
    words("default_transaction_isolation", "repeatable read", LEVELS, "what transactions see of each other"),
    words(
        "default_transaction_read_only",
        "off",
        ON_OFF,
        "whether statements that change anything are refused",
    ),
    words("escape_string_warning", "on", ON_OFF, "accepted; a backslash in a string stands for itself"),
    of("extra_float_digits", "1", Accepts::Digits, "floats are written with the digits that tell them apart"),
    of(
        "idle_in_transaction_session_timeout",
        "0",
        Accepts::Words(&["0"]),
        "how long a transaction may be idle",
    ),
    of("idle_session_timeout", "0", Accepts::Words(&["0"]), "how long a session may be idle"),
    fixed("in_hot_standby", "off", "there are no standbys"),
    fixed("integer_datetimes", "on", "times are whole numbers"),
    words("IntervalStyle", "postgres", &["postgres"], "how intervals are written"),
    fixed("is_superuser", "on", "there are no other users yet"),
    words("jit", "off", ON_OFF, "accepted; nothing is compiled"),
    fixed("lc_collate", "C", "text is ordered by its code points"),
    fixed("lc_ctype", "C.UTF-8", "what letters are"),
    words("lc_messages", "C", &["C", "POSIX", "en_US.UTF-8", ""], "the language of messages"),
    words("lc_monetary", "C", &["C", "POSIX", ""], "how money is written"),
    words("lc_numeric", "C", &["C", "POSIX", ""], "how numbers are written"),
    words("lc_time", "C", &["C", "POSIX", ""], "how times are written"),
    of("lock_timeout", "0", Accepts::Time, "accepted; there are no locks to wait for"),
    fixed("max_identifier_length", "63", "bytes of a name, as clients count; longer ones are kept whole"),
    fixed("max_index_keys", "32", "columns of a key, as clients count"),
    words("quote_all_identifiers", "off", &["off"], "whether names are always quoted"),
    words("row_security", "on", ON_OFF, "accepted; there are no policies"),
    of("search_path", "\"$user\", public", Accepts::Schemas, "the schemas that names are looked up in"),
    fixed("server_encoding", "UTF8", "the encoding of text"),
    fixed("server_version", SERVER_VERSION, "the version of PostgreSQL that clients should assume"),
    fixed("server_version_num", "150000", "the same as a number"),
    fixed("session_authorization", "", "the user who connected"),
    words("standard_conforming_strings", "on", &["on"], "a backslash in a string stands for itself"),
    of("statement_timeout", "0", Accepts::Time, "how long a statement may take; 0 is no end"),
    words(
        "synchronous_commit",
        "on",
        &["on", "off", "local", "remote_write", "remote_apply"],
        "accepted; nothing is on disk yet",
    ),
    of(
        "TimeZone",
        "UTC",
        Accepts::Zone,
        "the zone in which times with a zone are read, shown and taken apart",
    ),
    words("transaction_deferrable", "off", ON_OFF, "accepted; nothing has to be deferred"),
    words("transaction_isolation", "repeatable read", LEVELS, "what this transaction sees of others"),
    words("transaction_read_only", "off", ON_OFF, "whether this transaction changes anything"),
    words("xmloption", "content", &["content", "document"], "accepted; a text is read as content"),
];

/// Returns the setting of this name, ignoring case.
pub(crate) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name.eq_ignore_ascii_case(name))
}

/// The values set by a session, and its user.
#[derive(Clone, Debug)]
pub(crate) struct Variables {
    /// The user who connected.
    pub(crate) user: String,
    /// The database that the client requested. There is only one, and it takes this name.
    pub(crate) database: String,
    /// The number of the session.
    pub(crate) backend: i64,
    /// The addresses of the client and of this server, if they are connected by TCP.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The start of the first session of this process, in microseconds since 1970 UTC.
    pub(crate) since_us: i64,
    /// The values that were set.
    values: Values,
    /// The values that take effect when the open transaction ends.
    within: Option<Within>,
}

impl Default for Variables {
    fn default() -> Variables {
        Variables {
            user: "millstream".into(),
            database: "millstream".into(),
            backend: i64::from(std::process::id()),
            addresses: None,
            since_us: *SINCE_US,
            values: Values::default(),
            within: None,
        }
    }
}

impl Session {
    /// Sets the user, the database and the number of the session: the values of `current_user`, `current_database()` and
    /// `pg_backend_pid()`.
    pub fn connected_as(&mut self, user: &str, database: &str, backend: u32) {
        let mut variables = self.variables();
        (variables.user, variables.database) = (user.into(), database.into());
        variables.backend = backend.into();
    }

    /// Sets the addresses of the client and of this server: the values of `inet_client_addr()`, `inet_server_port()` and
    /// the like.
    pub fn connected_between(&mut self, client: SocketAddr, server: SocketAddr) {
        self.variables().addresses = Some((client, server));
    }

    /// Returns one of PostgreSQL's settings in this session.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables().get(name)
    }

    /// Returns the session's settings, with the modes of the open transaction.
    pub(crate) fn variables(&self) -> MutexGuard<'_, Variables> {
        self.variables.lock(self.transaction.as_ref())
    }

    /// Returns the catalog, in which names are looked up on the search path of this session.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.variables.on_path(self.shared.catalog())
    }
}

/// Returns a reader of a statement of a session.
pub(crate) fn reader_of<'a>(session: &Session, text: &'a str) -> Result<TokenReader<'a>> {
    Ok(TokenReader::new(text)?.on_path(session.catalog().search_path()))
}

impl OneShot {
    /// Returns the names that a one-time query may use, with the facts of a session.
    pub(crate) fn of(session: &Session, catalog: Arc<Catalog>, settings: Settings) -> OneShot {
        drop(session.variables());
        let variables = session.variables.values.clone();
        let shared = &session.shared;
        let facts = Facts::new(
            catalog,
            settings,
            variables,
            (shared.statements.jobs.clone(), shared.statements.sequences.clone()),
        );
        OneShot::new(facts, Files::of(&session.shared))
    }
}

impl Variables {
    /// Returns the schemas in which names are looked up; `None` for `public` alone. An empty path, as scripts of pg_dump set
    /// it, counts as that. The engine's own schemas are searched first in any case.
    pub(crate) fn search_path(&self) -> Option<Arc<[String]>> {
        search_path_of(self.values.set.get("search_path")?)
    }

    /// Returns the value of a setting.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let Some(variable) = find(name) else { return self.values.own.get(&name.to_lowercase()).cloned() };
        let set = self.values.set.get(variable.name);
        Some(match (variable.name, set) {
            ("session_authorization", _) => self.user.clone(),
            ("transaction_isolation", None) => self.get("default_transaction_isolation").unwrap_or_default(),
            (_, Some(value)) => value.clone(),
            (_, None) => variable.default.to_string(),
        })
    }
}

impl Variable {
    /// Returns the value in its stored form, or an error if it is not accepted.
    fn read(&self, value: &str) -> Result<String> {
        let refused = |expected: String| {
            Err(Error::invalid(format!("{} is '{value}', but {expected} was expected", self.name)))
        };
        match self.accepts {
            Accepts::Nothing => Err(Error::invalid(format!("{} is read-only and can't be set", self.name))),
            Accepts::Anything => Ok(value.to_string()),
            Accepts::Words(words) => {
                let lower = value.trim().to_lowercase();
                let lower = match lower.as_str() {
                    "true" | "yes" | "1" | "t" | "y" if words.contains(&"on") => "on",
                    "false" | "no" | "0" | "f" | "n" if words.contains(&"off") => "off",
                    other => other,
                };
                match words.iter().find(|word| word.eq_ignore_ascii_case(lower)) {
                    Some(_) if self.name == "client_encoding" => Ok("UTF8".into()),
                    Some(word) => Ok((*word).to_string()),
                    None => {
                        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
                        refused(quoted.join(" or "))
                    }
                }
            }
            Accepts::Time => match milliseconds(value) {
                Some(_) => Ok(value.trim().to_string()),
                None => refused("a length of time such as '5s', or milliseconds,".into()),
            },
            Accepts::Dates => {
                let parts: Vec<String> = value.split(',').map(|part| part.trim().to_lowercase()).collect();
                let known = parts.iter().all(|part| ["iso", "mdy", "us", "ymd"].contains(&part.as_str()));
                if known { Ok("ISO, MDY".into()) } else { refused("'ISO' or 'ISO, MDY'".into()) }
            }
            Accepts::Zone => time_zone::read(value),
            Accepts::Schemas => {
                if path_of(value).iter().all(|part| !part.contains([' ', '.'])) {
                    Ok(value.trim().to_string())
                } else {
                    refused("a list of schemas, such as 'sales, public',".into())
                }
            }
            Accepts::Digits => match value.trim().parse::<i64>() {
                Ok(1..=3) => Ok(value.trim().to_string()),
                _ => refused("1, 2 or 3, at which no digit is lost,".into()),
            },
        }
    }
}

/// Returns the schemas in which a setting of `search_path` has names looked up; `None` for `public` alone.
pub(crate) fn search_path_of(value: &str) -> Option<Arc<[String]>> {
    let is_engines =
        |schema: &str| schema.is_empty() || schema == "$user" || SYSTEM_SCHEMAS.contains(&schema);
    let path: Vec<String> = path_of(value).into_iter().filter(|schema| !is_engines(schema)).collect();
    (!path.is_empty() && path != [PUBLIC]).then(|| path.into())
}

/// Returns the schemas of a search path.
fn path_of(value: &str) -> Vec<String> {
    let part = |part: &str| {
        let part = part.trim();
        match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
            Some(quoted) => quoted.to_string(),
            None => part.trim_matches('\'').to_lowercase(),
        }
    };
    value.split(',').map(part).collect()
}

/// Returns true if the name denotes UTC.
/// Parses PostgreSQL's spelling of a duration: `5s`, `100 ms`, a number of milliseconds.
pub(crate) fn milliseconds(value: &str) -> Option<u64> {
    let text = value.trim().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_so_are_accepted() {
        let mut variables = Variables::default();
        for (name, value, shown) in [
            ("client_encoding", "utf-8", "UTF8"),
            ("datestyle", "ISO", "ISO, MDY"),
            ("extra_float_digits", "3", "3"),
            ("TIMEZONE", "Etc/UTC", "UTC"),
            ("timezone", "+00:00", "UTC"),
            ("timezone", "europe/berlin", "Europe/Berlin"),
            ("timezone", "-7", "-07:00"),
            ("timezone", "+5:30", "+05:30"),
            ("search_path", "", ""),
            ("search_path", "public, pg_catalog", "public, pg_catalog"),
            ("search_path", " Sales, \"S\", public", "Sales, \"S\", public"),
            ("statement_timeout", "30s", "30s"),
            ("row_security", "false", "off"),
            ("application_name", "a b", "a b"),
        ] {
            assert!(variables.set(name, value, Lasts::Session).unwrap(), "{name}");
            assert_eq!(variables.get(name).as_deref(), Some(shown), "{name}");
        }
        assert!(!variables.set("work_mem", "1GB", Lasts::Session).unwrap());
        variables.reset_all();
        assert_eq!(variables.get("search_path").as_deref(), Some("\"$user\", public"));
    }

    #[test]
    fn others_are_refused() {
        for (name, value) in [
            ("client_encoding", "LATIN1"),
            ("datestyle", "German"),
            ("timezone", "Europe/Atlantis"),
            ("timezone", "+25"),
            ("timezone", ""),
            ("search_path", "a b"),
            ("search_path", "a.b"),
            ("standard_conforming_strings", "off"),
            ("server_version", "16"),
            ("extra_float_digits", "0"),
            ("transaction_isolation", "serializable"),
            ("statement_timeout", "soon"),
        ] {
            assert!(Variables::default().set(name, value, Lasts::Session).is_err(), "{name}");
        }
    }

    #[test]
    fn names_are_sorted_and_defaults_are_values() {
        let names: Vec<String> = VARIABLES.iter().map(|variable| variable.name.to_lowercase()).collect();
        assert!(names.is_sorted());
        for variable in VARIABLES.iter().filter(|variable| !matches!(variable.accepts, Accepts::Nothing)) {
            assert_eq!(variable.read(variable.default).unwrap(), variable.default, "{}", variable.name);
        }
    }
}
