//! The extended protocol: statements are prepared, bound and run in steps.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, SchemaRef};
use bytes::Bytes;
use millstream_engine::{Error, Prepared, Response, TransactionStatus, ZoneOffsets, in_utc, is_of_catalog};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::Report;
use crate::connection::{Connection, send_notices};
use crate::decode;
use crate::message::{Bind, Format, Target, format_at};
use crate::oid::{Column, Kind, columns};
use crate::query::{Cursor, Sent, cursor};
use crate::report;
use crate::wire::{Stop, Wire};

/// A statement prepared by a client.
pub(crate) struct Statement {
    sql: Arc<str>,
    /// `None` for a text without a statement.
    prepared: Option<Arc<Prepared>>,
    parameters: Vec<Kind>,
    /// The OIDs of the parameters' types, as the client declared them if it did.
    oids: Vec<u32>,
}

/// A statement with values for its parameters.
pub(crate) struct Portal {
    sql: Arc<str>,
    prepared: Option<Arc<Prepared>>,
    values: Vec<ArrayRef>,
    formats: Vec<Format>,
    state: State,
}

/// The state of a portal.
enum State {
    Bound,
    /// Run to describe its columns, or some of its rows were sent.
    Rows(Box<Cursor>),
    /// At its end: it returns no more rows, and has this command tag.
    Ended(String),
    /// Run, and not runnable again.
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) async fn parse(&mut self, name: String, sql: String, types: &[u32]) -> Result<(), Stop> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(
                report::error("42P05", format!("prepared statement \"{name}\" already exists")).into()
            );
        }
        let mut declared = Vec::with_capacity(types.len());
        for (place, oid) in types.iter().enumerate() {
            declared.push(match oid {
                0 => None,
                oid => Some(Kind::from_oid(*oid).ok_or_else(|| unknown_type(place, *oid))?),
            });
        }
        let arrow: Vec<_> = declared.iter().map(|kind| kind.as_ref().map(Kind::arrow)).collect();
        let prepare = self.session.prepare(&sql, &arrow);
        let prepared = self.wire.unless_stopped(prepare).await?;
        let prepared = prepared.map_err(|error| Stop::from(report::failed(error, &sql)))?;
        let found = prepared.as_ref().map_or(&[][..], |prepared| prepared.parameters());
        let schema = prepared.as_ref().and_then(|prepared| prepared.schema());
        let of_catalog = schema.is_some_and(|schema| is_of_catalog(schema));
        // A declared type keeps its own name: the client may have declared text as JSON.
        let kind = |(place, found): (usize, &Field)| match declared.get(place) {
            Some(Some(declared)) => Kind::clone(declared),
            _ if of_catalog => Kind::of_catalog(found.data_type()),
            _ => Kind::of(found),
        };
        let parameters: Vec<Kind> = found.iter().enumerate().map(kind).collect();
        let declared = |place: usize| types.get(place).copied().filter(|oid| *oid != 0);
        let oid = |(place, kind): (usize, &Kind)| declared(place).unwrap_or_else(|| kind.oid());
        let oids = parameters.iter().enumerate().map(oid).collect();
        let statement = Statement { sql: sql.into(), prepared: prepared.map(Arc::new), parameters, oids };
        self.statements.insert(name, statement);
        self.wire.answers.parse_complete();
        Ok(())
    }

    pub(crate) fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let statement = self.statements.get(&bind.statement).ok_or_else(|| no_statement(&bind.statement))?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(report::error("42P03", format!("portal \"{}\" already exists", bind.portal)).into());
        }
        let (given, wanted) = (bind.values.len(), statement.parameters.len());
        if given != wanted {
            let message = format!("{given} values were bound to a statement that has {wanted} parameters");
            return Err(report::error("08P01", message).into());
        }
        let mut values = Vec::with_capacity(given);
        let zone = self.session.variable("TimeZone").and_then(|zone| ZoneOffsets::new(&zone).ok());
        let zone = zone.unwrap_or_default();
        for (place, (kind, bytes)) in statement.parameters.iter().zip(bind.values).enumerate() {
            let format = format_at(&bind.formats, place);
            let bytes = match (kind, format) {
                (Kind::Timestamptz, Format::Text) => bytes.map(|bytes| read_in_zone(bytes, &zone)),
                _ => bytes,
            };
            let value = decode::value(kind, format, bytes);
            values.push(value.map_err(|wrong| {
                report::error(code_of(kind, format), format!("parameter ${}: {wrong}", place + 1))
            })?);
        }
        let portal = Portal {
            sql: statement.sql.clone(),
            prepared: statement.prepared.clone(),
            values,
            formats: bind.results,
            state: State::Bound,
        };
        self.portals.insert(bind.portal, portal);
        self.wire.answers.bind_complete();
        Ok(())
    }

    pub(crate) async fn describe(&mut self, target: Target, name: &str) -> Result<(), Stop> {
        match target {
            Target::Statement => self.describe_statement(name).await,
            Target::Portal => self.describe_portal(name).await,
        }
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Stop> {
        let statement = self.statements.get(name).ok_or_else(|| no_statement(name))?;
        self.wire.answers.parameter_description(&statement.oids);
        let Some(prepared) = statement.prepared.clone() else {
            self.wire.answers.no_data();
            return Ok(());
        };
        if !prepared.gives_rows() {
            self.wire.answers.no_data();
        } else if let Some(schema) = prepared.schema() {
            self.wire.answers.row_description(columns(schema, &[]).iter());
        } else {
            // Only running it determines the columns. Such statements only read.
            let sql = statement.sql.clone();
            let values: Vec<ArrayRef> = statement
                .parameters
                .iter()
                .map(|kind| arrow::array::new_null_array(&kind.arrow(), 1))
                .collect();
            let response =
                self.wire.unless_stopped(self.session.execute_prepared(&prepared, &values)).await?;
            let response = response.map_err(|error| Stop::from(report::failed(error, &sql)))?;
            self.wire.answers.row_description(cursor(response, &[], &sql)?.columns.iter());
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Stop> {
        // A cursor is a portal, too.
        if !self.portals.contains_key(name)
            && let Some(schema) = self.session.cursor_schema(name)
        {
            self.wire.answers.row_description(columns(&schema, &[]).iter());
            return Ok(());
        }
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(prepared) = portal.prepared.clone() else {
            self.wire.answers.no_data();
            return Ok(());
        };
        if let State::Rows(cursor) = &portal.state {
            self.wire.answers.row_description(cursor.columns.iter());
        } else if !prepared.gives_rows() {
            self.wire.answers.no_data();
        } else if let Some(schema) = prepared.schema() {
            self.wire.answers.row_description(columns(schema, &portal.formats).iter());
        } else {
            let run = self.session.execute_prepared(&prepared, &portal.values);
            let response = start(&mut self.wire, run, &portal.sql).await?;
            send_notices(&mut self.wire, &self.session, &mut self.warnings, &response);
            let cursor = cursor(response, &portal.formats, &portal.sql)?;
            self.wire.answers.row_description(cursor.columns.iter());
            portal.state = State::Rows(Box::new(cursor));
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, name: &str, rows_max: usize) -> Result<(), Stop> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(prepared) = portal.prepared.clone() else {
            self.wire.answers.empty_query();
            return Ok(());
        };
        let (sql, formats) = (portal.sql.clone(), portal.formats.clone());
        let mut cursor = match std::mem::replace(&mut portal.state, State::Done) {
            State::Rows(cursor) => {
                self.session.time_anew();
                cursor
            }
            State::Ended(tag) => {
                self.wire.answers.command_complete(&tag);
                portal.state = State::Ended(tag);
                return Ok(());
            }
            State::Done => {
                return Err(report::error("55000", format!("portal \"{name}\" has been run")).into());
            }
            State::Bound => {
                if self.session.transaction_status() != TransactionStatus::Failed
                    && deallocate(&mut self.statements, &sql)
                {
                    self.wire.answers.command_complete("DEALLOCATE");
                    return Ok(());
                }
                let run = self.session.execute_prepared(&prepared, &portal.values);
                let response = start(&mut self.wire, run, &sql).await?;
                self.notices(&response);
                let completed = self.complete(response).await.map_err(|stop| pointed(stop, &sql))?;
                let Some(rows) = completed else { return Ok(()) };
                let cursor = cursor(rows, &formats, &sql)?;
                if prepared.schema().is_some_and(|told| is_changed(told, &cursor.columns)) {
                    return Err(changed().into());
                }
                Box::new(cursor)
            }
        };
        let sent = self.wire.send_rows(&mut cursor, rows_max).await;
        match sent.map_err(|stop| pointed(stop, &sql))? {
            Sent::All(tag) => {
                self.wire.answers.command_complete(&tag);
                self.enter_state(name, State::Ended(cursor.tag(0)));
            }
            Sent::Some => {
                self.wire.answers.portal_suspended();
                self.enter_state(name, State::Rows(cursor));
            }
        }
        Ok(())
    }

    fn enter_state(&mut self, name: &str, state: State) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.state = state;
        }
    }

    /// Drops a statement with its portals, or a portal. A missing one is no error.
    pub(crate) fn close(&mut self, target: Target, name: &str) {
        match target {
            Target::Statement => {
                self.statements.remove(name);
            }
            Target::Portal => {
                self.portals.remove(name);
            }
        }
        self.wire.answers.close_complete();
    }
}

/// Returns true if a client that was told the columns of `told` would read rows of these columns wrongly. No statement
/// alters PostgreSQL's catalog; a query over it that turns out to have no rows may be planned without reading it.
fn is_changed(told: &SchemaRef, found: &[Column]) -> bool {
    if is_of_catalog(told) {
        return told.fields().len() != found.len();
    }
    let told = columns(told, &[]);
    !told.iter().map(|column| column.kind.oid()).eq(found.iter().map(|column| column.kind.oid()))
}

/// The error of a statement whose result columns changed since the client was told, because a relation was
/// altered. The client would assign values to the wrong columns. Clients recognize this error by its text
/// and prepare again.
fn changed() -> Report {
    let error = report::error("0A000", "cached plan must not change result type");
    Report { hint: Some("What the statement reads was altered: prepare it again.".into()), ..error }
}

/// Drops the statement that DEALLOCATE names if it was prepared by this protocol; PostgreSQL keeps those
/// and the statements of PREPARE together. Returns true if nothing else is left to do.
pub(crate) fn deallocate(statements: &mut HashMap<String, Statement>, sql: &str) -> bool {
    let mut words = sql.trim().trim_end_matches(';').split_whitespace();
    if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("DEALLOCATE")) {
        return false;
    }
    let mut name = words.next();
    if name.is_some_and(|word| word.eq_ignore_ascii_case("PREPARE")) {
        name = words.next().or(name);
    }
    match (name, words.next()) {
        (Some(all), None) if all.eq_ignore_ascii_case("ALL") => {
            // The session drops its own statements too.
            statements.clear();
            false
        }
        (Some(name), None) => {
            let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            let name = unquoted.map_or_else(|| name.to_lowercase(), str::to_string);
            statements.remove(&name).is_some()
        }
        _ => false,
    }
}

/// Runs a statement, and returns its response.
async fn start<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    run: impl Future<Output = Result<Response, Error>>,
    sql: &str,
) -> Result<Response, Stop> {
    Ok(wire.unless_stopped(run).await?.map_err(|error| report::failed(error, sql))?)
}

/// Adds the position of an error in the client's text.
pub(crate) fn pointed(stop: Stop, sql: &str) -> Stop {
    match stop {
        Stop::Failed(error) => report::failed(error, sql).into(),
        other => other,
    }
}

fn no_statement(name: &str) -> Stop {
    let message = match name {
        "" => "there is no unnamed prepared statement".to_string(),
        name => format!("prepared statement \"{name}\" does not exist"),
    };
    report::error("26000", message).into()
}

fn no_portal(name: &str) -> Stop {
    report::error("34000", format!("portal \"{name}\" does not exist")).into()
}

fn unknown_type(place: usize, oid: u32) -> Stop {
    let mut report =
        report::error("42704", format!("parameter ${} has type number {oid}, which is unknown", place + 1));
    report.hint = Some("Send it as text and cast it in the statement.".into());
    report.into()
}

/// Returns the SQLSTATE of a value that is invalid for its type.
fn code_of(kind: &Kind, format: Format) -> &'static str {
    match (format, kind) {
        (Format::Binary, _) => "22P03",
        (_, Kind::Date | Kind::Time | Kind::Timestamp | Kind::Timestamptz | Kind::Interval) => "22007",
        _ => "22P02",
    }
}

/// Reads the text of a TIMESTAMPTZ as a time of the session's zone.
fn read_in_zone(text: Bytes, zone: &ZoneOffsets) -> Bytes {
    match std::str::from_utf8(&text) {
        Ok(read) => Bytes::from(in_utc(read, zone).into_owned()),
        Err(_) => text,
    }
}
