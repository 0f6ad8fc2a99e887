//! A client's connection: a session driven by the client's messages.

use std::collections::HashMap;

use millstream_engine::{Announced, Response, Session, TransactionStatus};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::extended::{Portal, Statement};
use crate::message::Message;
use crate::report;
use crate::wire::{Stop, Wire};

/// The connection of an admitted client.
pub(crate) struct Connection<S> {
    pub(crate) wire: Wire<S>,
    pub(crate) session: Session,
    pub(crate) statements: HashMap<String, Statement>,
    pub(crate) portals: HashMap<String, Portal>,
    /// The time zone that the client was told last.
    time_zone: Option<String>,
    /// The warnings of the engine that the client has received.
    pub(crate) warnings: Announced,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(wire: Wire<S>, session: Session) -> Connection<S> {
        Connection {
            wire,
            session,
            statements: HashMap::new(),
            portals: HashMap::new(),
            time_zone: Some("UTC".into()),
            warnings: Announced::default(),
        }
    }

    /// Appends the notices of a response, and new warnings of the engine, to the answers.
    pub(crate) fn notices(&mut self, response: &Response) {
        send_notices(&mut self.wire, &self.session, &mut self.warnings, response);
    }

    /// Sets the client's initial settings, as far as they are known here.
    pub(crate) async fn begin_with(&mut self, settings: &[(String, String)]) {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
        for (name, value) in settings.iter().filter(|(name, _)| is_name(name)) {
            let set = format!("SET {name} = '{}'", value.replace('\'', "''"));
            // An unknown setting is a warning for a user, but no warning at startup, where every client
            // sends some.
            let _ = self.session.execute(&set).await;
        }
    }

    /// Answers messages until the client leaves or the server stops.
    pub(crate) async fn serve(&mut self) {
        // After an error in the extended protocol, all messages up to Sync are skipped.
        let mut skipping = false;
        self.ready();
        loop {
            let received = self.wire.receive().await;
            let simple = self.wire.is_simple && !skipping;
            let done = match received {
                Ok(Message::Terminate) => return,
                Ok(Message::Sync) => {
                    skipping = false;
                    self.wire.in_exchange = false;
                    self.sync();
                    continue;
                }
                Ok(_) if skipping => continue,
                Ok(message) => {
                    self.wire.in_exchange = match &message {
                        Message::Query(_) => false,
                        Message::Parse { .. } | Message::Bind(_) | Message::Execute { .. } => true,
                        _ => self.wire.in_exchange,
                    };
                    self.wire.entry.cancels.mark_unchanged();
                    self.handle(message).await
                }
                Err(stop) => Err(stop),
            };
            if let Err(stop) = done {
                let is_last = match &stop {
                    Stop::Gone => return,
                    Stop::Shutdown => true,
                    Stop::Garbage(garbage) => garbage.is_fatal(),
                    _ => false,
                };
                self.report(stop);
                if is_last {
                    let _ = self.wire.send().await;
                    return;
                }
                skipping |= !simple;
            }
            if simple {
                self.ready();
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Query(sql) => self.query(&sql).await,
            Message::Parse { statement, sql, types } => self.parse(statement, sql, &types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(target, name) => self.describe(target, &name).await,
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Message::Close(target, name) => {
                self.close(target, &name);
                Ok(())
            }
            Message::Flush => self.wire.send().await,
            // Rest of a COPY that ended early, or messages that are not expected now.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) | Message::Password => Ok(()),
            Message::Sync | Message::Terminate => Ok(()),
        }
    }

    /// Appends the error to the answers. Any error fails the transaction.
    fn report(&mut self, stop: Stop) {
        self.session.fail_transaction();
        self.wire.answers.error(&report::stopped(stop));
    }

    /// Ends an exchange of the extended protocol. Outside of a transaction this drops all portals.
    fn sync(&mut self) {
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.ready();
    }

    /// Tells the client that it may send the next statement, and what its settings are then.
    fn ready(&mut self) {
        let time_zone = self.session.variable("TimeZone");
        if time_zone != self.time_zone {
            self.wire.answers.parameter_status("TimeZone", time_zone.as_deref().unwrap_or("UTC"));
            self.time_zone = time_zone;
        }
        self.wire.answers.ready(self.session.transaction_status());
    }
}

/// Appends the notices of a response, and the engine's warnings that are new to the client, to the answers.
pub(crate) fn send_notices<S>(
    wire: &mut Wire<S>,
    session: &Session,
    announced: &mut Announced,
    response: &Response,
) {
    for text in announced.notices(session, response.notices()) {
        wire.answers.notice(&report::notice(text));
    }
}
