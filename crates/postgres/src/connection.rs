//! A connection to the database, on which nothing takes for ever.

use std::time::Duration;

use millstream_connect::{Error, Result};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::failure;
use crate::options::Settings;

/// How long an answer may take beyond what the server itself allows a statement.
const GRACE: Duration = Duration::from_secs(5);

/// A parameter of a statement with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection. After any failure it is dropped: the server then rolls back what it was at.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    sink: String,
    timeout: Duration,
    /// What begins a transaction.
    begin: String,
}

impl Connection {
    pub(crate) async fn open(settings: &Settings) -> Result<Connection> {
        let doing = format!("connect to {}", settings.server());
        let mut config = settings.config.clone();
        if let Some(file) = &settings.password_file {
            config.password(password(&settings.sink, file).await?);
        }
        // A server may accept a connection and say nothing more.
        let patience = settings.connect_timeout * config.get_hosts().len().max(1) as u32;
        let connected = timeout(patience, config.connect(NoTls)).await.map_err(|_| {
            Error::External(format!(
                "sink '{}' could not {doing}: it did not answer within {patience:?}",
                settings.sink
            ))
        })?;
        let (client, connection) = connected.map_err(|error| failure::of(&settings.sink, &doing, &error))?;
        // It ends when the client is dropped; what ends it otherwise is told to whoever uses the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a sink has ended");
            }
        });
        // Only this transaction is so, in case somebody else uses the server's connection after it (a pooler). A client
        // that has gone without a word keeps its locks no longer than a statement may take.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {statement}; \
             SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {statement}; \
             SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'",
            settings.lock_timeout.as_millis(),
            statement = settings.statement_timeout.as_millis(),
        );
        Ok(Connection {
            client,
            sink: settings.sink.clone(),
            timeout: settings.statement_timeout.saturating_add(GRACE),
            begin,
        })
    }

    /// Whether the server has ended it.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for an answer; `doing` says for messages what for.
    async fn answer<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| failure::of(&self.sink, doing, &error)),
            Err(_) => Err(Error::External(format!(
                "sink '{}' could not {doing}: the database did not answer within {:?}",
                self.sink, self.timeout
            ))),
        }
    }

    pub(crate) async fn begin(&self) -> Result<()> {
        self.answer("begin a transaction", self.client.batch_execute(&self.begin)).await
    }

    pub(crate) async fn commit(&self) -> Result<()> {
        self.answer("commit a transaction", self.client.batch_execute("COMMIT")).await
    }

    /// Runs a statement without parameters.
    pub(crate) async fn run(&self, doing: &str, sql: &str) -> Result<()> {
        self.answer(doing, self.client.batch_execute(sql)).await
    }

    /// Runs a statement in one round trip, without preparing it; how many rows it has changed.
    pub(crate) async fn change(&self, doing: &str, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        self.answer(doing, self.client.execute_typed(sql, parameters)).await
    }

    /// The rows of a query.
    pub(crate) async fn rows(&self, doing: &str, sql: &str, texts: &[&str]) -> Result<Vec<Row>> {
        let texts: Vec<Parameter<'_>> =
            texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.answer(doing, self.client.query_typed(sql, &texts)).await
    }
}

/// A value of a row that this crate has asked for.
pub(crate) fn value<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| {
        Error::Bug(format!("column {column} of an answer of PostgreSQL is not what was asked for: {error}"))
    })
}

async fn password(sink: &str, file: &str) -> Result<String> {
    let path = file.to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let read = read.map_err(|error| Error::Bug(format!("reading a file stopped: {error}")))?;
    let text = read.map_err(|error| {
        Error::External(format!("sink '{sink}' could not read its password from '{file}': {error}"))
    })?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}
