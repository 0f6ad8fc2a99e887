//! The startup of a connection: the client's requests before it is admitted, and the server's first
//! answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use millstream_engine::SERVER_VERSION;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::answer::{Answers, Report};
use crate::interrupt::{Connections, Entry};
use crate::message::{Garbage, Opening, opening};
use crate::report;

/// Maximum time until a client logs in.
const STARTUP_MAX: Duration = Duration::from_secs(60);

/// Maximum time until a client logs in while the engine starts.
const EARLY_MAX: Duration = Duration::from_secs(5);

/// An admitted client.
pub(crate) struct Admitted {
    pub(crate) entry: Entry,
    pub(crate) input: BytesMut,
    pub(crate) answers: Answers,
    /// The name of the user, and that of the requested database.
    pub(crate) who: (String, String),
    /// The client's initial settings, by name.
    pub(crate) settings: Vec<(String, String)>,
}

/// Admits a client. Returns `None` if it only cancels a statement, leaves, or is rejected.
pub(crate) async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    connections: &Arc<Connections>,
    connections_max: usize,
) -> Option<Admitted> {
    let mut input = BytesMut::new();
    let opened = tokio::time::timeout(STARTUP_MAX, open(socket, &mut input)).await.ok()?;
    let (major, minor, parameters) = match opened {
        Ok(Some(Opening::Startup { major, minor, parameters })) => (major, minor, parameters),
        Ok(Some(Opening::Cancel { process, secret })) => {
            connections.cancel(process, &secret);
            return None;
        }
        Ok(_) => return None,
        Err(garbage) => {
            let message = format!("{garbage}: was a PostgreSQL client at the other end?");
            refuse(socket, &report::fatal("08P01", message)).await;
            return None;
        }
    };
    let mut answers = Answers::default();
    let said = |name: &str| parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let user = said("user").unwrap_or_default();
    let who = (user.clone(), said("database").filter(|name| !name.is_empty()).unwrap_or(user));
    match begin(major, minor, parameters, &mut answers) {
        Ok(settings) => {
            let Some(entry) = connections.enter(connections_max) else {
                let message = format!("{connections_max} clients are connected, which is the maximum");
                refuse(socket, &report::fatal("53300", message)).await;
                return None;
            };
            answers.backend_key(entry.process, &entry.secret);
            Some(Admitted { entry, input, answers, who, settings })
        }
        Err(report) => {
            refuse(socket, &report).await;
            None
        }
    }
}

/// Tells a client that the engine has not started yet.
pub(crate) async fn refuse_early<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) {
    let mut input = BytesMut::new();
    let opened = tokio::time::timeout(EARLY_MAX, open(socket, &mut input)).await;
    if let Ok(Ok(Some(Opening::Startup { .. }))) = opened {
        refuse(socket, &report::fatal("57P03", "the database system is starting up")).await;
    }
}

/// Reads the first message with a request. Declines encryption.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    input: &mut BytesMut,
) -> Result<Option<Opening>, Garbage> {
    loop {
        match opening(input)? {
            Some(Opening::Ssl | Opening::Gss) => {
                // A client must not send more before it is answered: a third party could have inserted
                // those bytes.
                if !input.is_empty() || socket.write_all(b"N").await.is_err() {
                    return Ok(None);
                }
            }
            Some(other) => return Ok(Some(other)),
            None => match socket.read_buf(input).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            },
        }
    }
}

/// Tells a client that it must make room for others.
pub(crate) async fn oust<S: AsyncWrite + Unpin>(socket: &mut S, newcomers_max: usize) {
    let message = format!(
        "{newcomers_max} connections have not logged in, which is the maximum, and this one has waited longest"
    );
    refuse(socket, &report::fatal("53300", message)).await;
}

/// Tells a client that it isn't admitted.
async fn refuse<S: AsyncWrite + Unpin>(socket: &mut S, report: &Report) {
    let mut answers = Answers::default();
    answers.error(report);
    // The client may be gone already.
    let _ = socket.write_all(&answers.bytes).await;
}

/// Checks a client's startup message and answers it.
fn begin(
    major: u16,
    minor: u16,
    parameters: Vec<(String, String)>,
    answers: &mut Answers,
) -> Result<Vec<(String, String)>, Report> {
    if major != 3 {
        let message = format!("protocol {major}.{minor} was requested, but only 3.0 is supported");
        return Err(report::fatal("0A000", message));
    }
    let get = |name: &str| parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
    let Some(user) = get("user") else {
        return Err(report::fatal("28000", "the startup message has no user name"));
    };
    if get("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value)) {
        let mut report = report::fatal("0A000", "replication connections are not supported");
        report.hint = Some("Changes are read with SUBSCRIBE or SELECT … EMIT CHANGES.".into());
        return Err(report);
    }
    let encoding = get("client_encoding").unwrap_or("UTF8");
    if !is_utf8(encoding) {
        let message = format!("client_encoding is \"{encoding}\", but only UTF8 is supported");
        return Err(report::fatal("22023", message));
    }
    let unknown: Vec<&str> =
        parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        answers.negotiate(&unknown);
    }
    answers.authentication_ok();
    for (name, value) in [
        ("server_version", SERVER_VERSION),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", get("application_name").unwrap_or("")),
        ("session_authorization", user),
        ("is_superuser", "on"),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        answers.parameter_status(name, value);
    }
    let own = ["user", "database", "client_encoding", "replication", "options"];
    let is_setting = |name: &str| !own.contains(&name) && !name.starts_with("_pq_.");
    Ok(parameters.into_iter().filter(|(name, _)| is_setting(name)).collect())
}

fn is_utf8(encoding: &str) -> bool {
    let plain = encoding.trim_matches('\'').replace(['-', '_'], "");
    ["utf8", "unicode", "auto"].iter().any(|name| plain.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(minor: u16, parameters: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        begin(3, minor, parameters, &mut Answers::default()).map_err(|report| report.message)
    }

    #[test]
    fn clients_are_let_in_or_told_why_not() {
        let user = ("user", "me");
        assert_eq!(
            begun(0, &[user, ("application_name", "psql"), ("database", "x")]),
            Ok(vec![("application_name".into(), "psql".into())])
        );
        assert_eq!(begun(2, &[user, ("_pq_.x", "1"), ("client_encoding", "'utf-8'")]), Ok(vec![]));
        assert!(begun(0, &[]).is_err());
        assert!(begun(0, &[user, ("client_encoding", "LATIN1")]).unwrap_err().contains("LATIN1"));
        assert!(begun(0, &[user, ("replication", "database")]).unwrap_err().contains("replication"));
    }
}
