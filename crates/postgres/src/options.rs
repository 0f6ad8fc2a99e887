//! The options of a sink.

use std::time::Duration;

use millstream_connect::{Error, OptionDoc, Options, Result, SinkSpec};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Default name of the table with the published epochs.
const PROGRESS_TABLE: &str = "millstream_sinks";

/// Interval of keepalive probes to a silent server.
const KEEPALIVE: Duration = Duration::from_secs(10);

pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "url",
        default: None,
        doc: "Where the database is: 'postgres://user@host:5432/database'. A socket's folder is written with %2F, as in \
              'postgres://user@%2Fvar%2Frun%2Fpostgresql/database'. A password in it is not shown anywhere, but is kept in \
              the data directory as the rest of the statement is. Connections are not encrypted.",
    },
    OptionDoc {
        name: "table",
        default: None,
        doc: "The table to deliver to, as 'table' or 'schema.table', written as in SQL.",
    },
    OptionDoc {
        name: "primary_key",
        default: Some("the key of the relation, if known"),
        doc: "The columns, separated by commas, by which rows are upserted and deleted; the table has a \
              unique index on just these. \
              An append-only relation is inserted, without a key, unless this option is given.",
    },
    OptionDoc {
        name: "create",
        default: Some("false"),
        doc: "true: the table is created if it doesn't exist, with a column for each column of the relation \
              and the key as its \
              primary key, or as UNIQUE NULLS NOT DISTINCT where it may be NULL (from PostgreSQL 15 on); it \
              is created before the first rows are delivered.",
    },
    OptionDoc {
        name: "password_file",
        default: Some("none"),
        doc: "A file whose first line is the password; it is read for each connection.",
    },
    OptionDoc {
        name: "password",
        default: Some("that of url"),
        doc: "The password; stored as one in url is.",
    },
    OptionDoc {
        name: "progress_table",
        default: Some(PROGRESS_TABLE),
        doc: "The table, in the same database, that holds which epoch each sink has published there. It is \
              created if it doesn't exist.",
    },
    OptionDoc {
        name: "connect_timeout",
        default: Some("10 seconds"),
        doc: "The timeout of a connection attempt; then it is retried.",
    },
    OptionDoc {
        name: "statement_timeout",
        default: Some("1 minute"),
        doc: "The timeout of a statement in the database; then the transaction is retried.",
    },
    OptionDoc {
        name: "lock_timeout",
        default: Some("10 seconds"),
        doc: "The timeout of a lock in the database; then the transaction is retried.",
    },
];

/// The evaluated options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) sink: String,
    /// The server's address; its password is never shown (`Config`'s own Debug leaves it out).
    pub(crate) config: Config,
    pub(crate) password_file: Option<String>,
    /// The name as it is written in the statement.
    pub(crate) table: String,
    pub(crate) progress_table: String,
    pub(crate) create: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) lock_timeout: Duration,
}

impl Settings {
    pub(crate) fn of(spec: &SinkSpec) -> Result<Settings> {
        let options = &spec.options;
        let connect_timeout = options.duration("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT);
        let statement_timeout = options.duration("statement_timeout")?.unwrap_or(STATEMENT_TIMEOUT);
        let mut config = config(options)?;
        config.connect_timeout(connect_timeout).tcp_user_timeout(statement_timeout);
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(3);
        config.application_name(format!("millstream {}", spec.name));
        let file = options.get("password_file").map(str::to_string);
        if file.is_some() && config.get_password().is_some() {
            return Err(Error::Invalid(
                "a password and option 'password_file' are given: leave one of them out".into(),
            ));
        }
        if spec.columns.fields().is_empty() {
            return Err(Error::Invalid(format!(
                "the rows of sink '{}' have no columns, and a row of connector 'postgres' has at least one: select one",
                spec.name
            )));
        }
        Ok(Settings {
            sink: spec.name.clone(),
            config,
            password_file: file,
            table: options.require("table")?.to_string(),
            progress_table: options.get("progress_table").unwrap_or(PROGRESS_TABLE).to_string(),
            create: options.parse("create", "true or false")?.unwrap_or(false),
            connect_timeout,
            statement_timeout,
            lock_timeout: options.duration("lock_timeout")?.unwrap_or(LOCK_TIMEOUT),
        })
    }

    /// Returns the server for messages, without user and password.
    pub(crate) fn server(&self) -> String {
        use tokio_postgres::config::Host;
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_string(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres");
        format!("database '{database}' at {host}:{port}")
    }
}

fn config(options: &Options) -> Result<Config> {
    let url = options.require("url")?;
    // The message doesn't show the URL, which may contain a password.
    let wrong = || {
        Error::Invalid(
            "option 'url' is no URL of a PostgreSQL database: 'postgres://user@host:5432/database' was expected; in a \
             user's name or a password %40 stands for @, %3A for :, %2F for / and %25 for %"
                .into(),
        )
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    let mut config: Config = url.parse().map_err(|_| wrong())?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(Error::Invalid(
            "option 'url' says sslmode=require, but connector 'postgres' has no TLS: leave it out, and deliver within \
             a network that can be trusted, or through a tunnel"
                .into(),
        ));
    }
    config.ssl_mode(SslMode::Disable);
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        config.host("localhost");
    }
    if let Some(password) = options.get("password") {
        config.password(password);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let options = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Settings::of(&SinkSpec {
            name: "k".into(),
            columns: Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)])),
            append_only: true,
            key: None,
            auto_pace: false,
            options: Options(options),
        })
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        let check = |pairs: &[(&str, &str)], part: &str| {
            let error = settings(pairs).map(drop).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        };
        check(&[("table", "t")], "option 'url' is missing");
        check(&[("url", "postgres://a:s3cret@h/d")], "option 'table' is missing");
        check(&[("url", "host=h password=s3cret"), ("table", "t")], "is no URL of a PostgreSQL database");
        check(&[("url", "postgres://a:s3cret@h:x/d"), ("table", "t")], "is no URL of a PostgreSQL database");
        check(&[("url", "postgres://a:s3cret@h/d?sslmode=require"), ("table", "t")], "has no TLS");
        check(
            &[("url", "postgres://a:s3cret@h/d"), ("table", "t"), ("password_file", "f")],
            "leave one of them out",
        );
        check(&[("url", "postgres://h/d"), ("table", "t"), ("lock_timeout", "soon")], "a length of time");
    }

    #[test]
    fn nothing_that_is_printed_has_the_password() {
        let found = settings(&[("url", "postgres://ann:s3cret@h:5433/shop"), ("table", "t")]).unwrap();
        assert_eq!(found.server(), "database 'shop' at h:5433");
        assert!(!format!("{found:?}").contains("s3cret"));
        let found = settings(&[("url", "postgres://ann@h"), ("password", "s3cret"), ("table", "t")]).unwrap();
        assert_eq!(found.server(), "database 'ann' at h:5432");
        assert_eq!(found.config.get_password(), Some(&b"s3cret"[..]));
    }
}
