//! Runs files of `sql-tests/` through the server: the database of a file is a PostgreSQL client.
//!
//! A client reads PostgreSQL's text format, and the files expect the engine's own. So values are converted by
//! the types of their columns, which the server reports.

pub mod fuzz;

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::{Engine, Error, Script};
use millstream_server::Server;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, MakeConnection};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::drive;

/// Files that a client can't run unchanged: a part of the name, and the reason.
const NOT_OVER_THE_WIRE: &[(&str, &str)] = &[
    ("types/bytea.slt", "bytes within lists are hexadecimal to clients"),
    ("types/float.slt", "half floats are real to clients"),
    ("types/interval.slt", "intervals within lists are PostgreSQL's, and end at the microsecond"),
    ("types/json.slt", "JSON can't be told from structs, whose spelling the files expect"),
    ("query/jsonb.slt", "JSON can't be told from structs, whose spelling the files expect"),
    ("query/jsonb_sets.slt", "JSON can't be told from structs, whose spelling the files expect"),
    ("query/variants.slt", "JSON can't be told from structs, whose spelling the files expect"),
    ("types/time.slt", "times end at the microsecond"),
    ("types/timestamptz.slt", "times end at the microsecond"),
];

/// Returns the reason why a file is skipped, if it is.
pub fn left_out(name: &str) -> Option<&'static str> {
    NOT_OVER_THE_WIRE.iter().find(|(part, _)| name.contains(part)).map(|(_, why)| *why)
}

/// A server on a free port, with an engine of its own.
pub struct Served {
    /// Its port.
    pub port: u16,
    engine: Engine,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<usize>,
}

impl Served {
    /// Starts the server.
    pub async fn start() -> drive::Result<Served> {
        let engine = millstream_cli::builder().start().map_err(text)?;
        let server = Server::bind("127.0.0.1:0", engine.clone()).await.map_err(text)?;
        let port = server.address().port();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Ok(Served { port, engine, stop, serving })
    }

    /// Stops the server, then the engine; returns the number of connections that a defect ended.
    pub async fn end(self) -> drive::Result<usize> {
        drop(self.stop);
        let panicked = self.serving.await.map_err(text)?;
        self.engine.stop().await.map_err(text)?;
        Ok(panicked)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs one file against a server of its own.
pub async fn run(path: &Path) -> drive::Result<()> {
    let served = Served::start().await?;
    let report = millstream_cli::slt::run_file_on(path, connections(served.port)).await;
    served.end().await?;
    if report.failures.is_empty() { Ok(()) } else { Err(report.failures.join("\n")) }
}

fn connections(port: u16) -> impl MakeConnection<Conn = WireDb> {
    move || WireDb::connect(port)
}

/// A client of the server.
pub struct WireDb {
    client: Client,
}

impl WireDb {
    async fn connect(port: u16) -> Result<WireDb, Error> {
        let config = format!("host=127.0.0.1 port={port} user=millstream dbname=millstream");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(WireDb { client })
    }

    /// Returns the types of the columns, if a text is a single query.
    async fn types(&self, sql: &str) -> Option<Vec<Type>> {
        if Script::parse(sql).ok()?.remaining() != 1 {
            return None;
        }
        let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next()?;
        let reads =
            ["SELECT", "WITH", "VALUES", "TABLE", "SUBSCRIBE", "VERIFY", "DESCRIBE", "DESC", "SHOW", ""];
        if !reads.iter().any(|first| first.eq_ignore_ascii_case(word)) {
            return None;
        }
        let prepared = self.client.prepare(sql).await.ok()?;
        Some(prepared.columns().iter().map(|column| column.type_().clone()).collect())
    }
}

#[async_trait]
impl AsyncDB for WireDb {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let messages = self.client.simple_query(sql).await.map_err(failed)?;
        // Done last, since a statement that can't be prepared would make its transaction fail.
        let types = self.types(sql).await;
        let mut last = DBOutput::StatementComplete(0);
        let mut rows: Option<(usize, Vec<Vec<String>>)> = None;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => rows = Some((columns.len(), Vec::new())),
                SimpleQueryMessage::Row(row) => {
                    let value = |at: usize| {
                        let data_type = types.as_ref().and_then(|types| types.get(at));
                        respelled(row.get(at), data_type)
                    };
                    let values = (0..row.len()).map(value).collect();
                    if let Some((_, rows)) = &mut rows {
                        rows.push(values);
                    }
                }
                SimpleQueryMessage::CommandComplete(count) => {
                    last = match rows.take() {
                        None => DBOutput::StatementComplete(count),
                        Some((width, rows)) => {
                            DBOutput::Rows { types: letters(types.as_deref(), width), rows }
                        }
                    };
                }
                _ => {}
            }
        }
        Ok(last)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "millstream"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Converts a client's error to the engine's own.
fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(error) => Error::invalid(error.message()).maybe_hint(error.hint().map(str::to_string)),
        None => Error::external(error.to_string()),
    }
}

/// Returns the letters for types in a test file.
fn letters(types: Option<&[Type]>, width: usize) -> Vec<DefaultColumnType> {
    let Some(types) = types else { return vec![DefaultColumnType::Any; width] };
    let letter = |data_type: &Type| match *data_type {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => DefaultColumnType::Integer,
        Type::FLOAT4 | Type::FLOAT8 => DefaultColumnType::FloatingPoint,
        // Wide integers are decimals to clients.
        Type::NUMERIC => DefaultColumnType::Any,
        _ => DefaultColumnType::Text,
    };
    types.iter().map(letter).collect()
}

/// Converts a value to the engine's own spelling.
fn respelled(value: Option<&str>, data_type: Option<&Type>) -> String {
    let Some(value) = value else { return "NULL".into() };
    if value.is_empty() {
        return "(empty)".into();
    }
    let spelled = match data_type {
        Some(data_type) => own(value, data_type),
        None => value.to_string(),
    };
    spelled.replace('\r', "\\r").replace('\n', "\\n")
}

fn own(value: &str, data_type: &Type) -> String {
    if let Kind::Array(item) = data_type.kind() {
        return list(value, item);
    }
    match *data_type {
        Type::BOOL => if value == "t" { "true" } else { "false" }.into(),
        Type::FLOAT4 => {
            value.parse::<f32>().map_or_else(|_| value.into(), |float| finite(format!("{float:?}")))
        }
        Type::FLOAT8 => {
            value.parse::<f64>().map_or_else(|_| value.into(), |float| finite(format!("{float:?}")))
        }
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => thousandths(value),
        Type::JSON => json(value),
        _ => value.into(),
    }
}

fn finite(text: String) -> String {
    match text.as_str() {
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        _ => text,
    }
}

/// Pads fractional seconds to three, six or nine digits.
fn thousandths(value: &str) -> String {
    let Some((before, after)) = value.split_once('.') else { return value.into() };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = after.split_at(digits);
    let width = digits.div_ceil(3) * 3;
    format!("{before}.{fraction:0<width$}{zone}")
}

/// Converts `{1,NULL,"a b"}` to `[1, NULL, a b]`, and arrays of arrays.
fn list(value: &str, item: &Type) -> String {
    let mut rest = value.chars().peekable();
    rest.next();
    items(&mut rest, item)
}

/// Converts the items up to the closing brace, which are behind the opening one.
fn items(rest: &mut Peekable<Chars<'_>>, item: &Type) -> String {
    let mut items = Vec::new();
    while let Some(first) = rest.next_if(|next| *next != '}') {
        match first {
            '{' => items.push(self::items(rest, item)),
            ',' => {}
            first => items.push(element(first, rest, item)),
        }
    }
    rest.next();
    format!("[{}]", items.join(", "))
}

/// Converts an item with this first character.
fn element(first: char, rest: &mut Peekable<Chars<'_>>, item: &Type) -> String {
    let quoted = first == '"';
    let mut element = String::new();
    if !quoted {
        element.push(first);
    }
    while let Some(next) = rest.next_if(|next| quoted || !",}".contains(*next)) {
        match next {
            '"' if quoted => break,
            '\\' if quoted => element.extend(rest.next()),
            next => element.push(next),
        }
    }
    match *item {
        _ if !quoted && element == "NULL" => element,
        // Within lists the infinities have a short form.
        Type::FLOAT4 | Type::FLOAT8 => own(&element, item).replace("Infinity", "inf"),
        _ => own(&element, item),
    }
}

/// Converts JSON to Arrow's spelling of structs and lists: without quotes, and with a space after each comma
/// and colon.
fn json(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' => {
                while let Some(next) = rest.next_if(|next| *next != '"') {
                    match next {
                        '\\' => out.extend(rest.next()),
                        next => out.push(next),
                    }
                }
                rest.next();
            }
            ',' | ':' => {
                out.push(next);
                out.push(' ');
            }
            'n' if rest.clone().take(3).eq("ull".chars()) => {
                rest.nth(2);
                out.push_str("NULL");
            }
            next => out.push(next),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_respelled() {
        let check = |value: &str, data_type: &Type, expected: &str| {
            assert_eq!(respelled(Some(value), Some(data_type)), expected);
        };
        check("t", &Type::BOOL, "true");
        check("1", &Type::FLOAT8, "1.0");
        check("1e+300", &Type::FLOAT8, "1e300");
        check("2024-01-01 00:00:00.5+00", &Type::TIMESTAMPTZ, "2024-01-01 00:00:00.500+00");
        check("{1,NULL,3}", &Type::INT4_ARRAY, "[1, NULL, 3]");
        check("{\"a b\",\"NULL\"}", &Type::TEXT_ARRAY, "[a b, NULL]");
        check("{{1,2},NULL,{},{NULL}}", &Type::INT4_ARRAY, "[[1, 2], NULL, [], [NULL]]");
        check("{\"a\":1,\"b\":[null,\"x\"]}", &Type::JSON, "{a: 1, b: [NULL, x]}");
    }
}
