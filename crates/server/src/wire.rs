//! A connection's two directions: messages in and answers out, and the events that end a statement from
//! outside.

use std::future::Future;
use std::io;
use std::time::Duration;

use arrow::error::ArrowError;
use bytes::{Buf, BytesMut};
use millstream_engine::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::answer::{Answers, Report};
use crate::interrupt::{Ending, Entry, Phase};
use crate::message::{self, Frame, Garbage, Message};
use crate::report;

/// Length from which answers are sent, even if a statement isn't done.
const ANSWERS_BYTES: usize = 64 << 10;

/// Bytes that a client may send while its statement runs, before the server stops reading.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Time that any message may take; longer ones get a second more for each `BYTES_PER_SECOND_MIN`.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// Minimum rate of a message. A slower one ends its connection: it holds memory that others may need.
const BYTES_PER_SECOND_MIN: usize = 64 << 10;

/// A client's socket, the bytes received, and the answers to send.
pub(crate) struct Wire<S> {
    socket: S,
    input: BytesMut,
    pub(crate) answers: Answers,
    pub(crate) entry: Entry,
    ending: Ending,
    /// The message being skipped.
    passing: Option<Passing>,
    /// The start of an incomplete message, and its announced length.
    begun: Option<(Instant, usize)>,
    /// True if the last message was one of the simple protocol, each of which has its own answer.
    pub(crate) is_simple: bool,
    /// True within an exchange of the extended protocol, before its Sync.
    pub(crate) in_exchange: bool,
}

/// A message that is skipped.
struct Passing {
    bytes: usize,
    /// Number of its bytes still to be received and discarded.
    missing: usize,
    /// The report for its sender afterwards.
    report: fn(usize) -> Report,
}

/// The reason why a statement ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The statement failed.
    Failed(Error),
    /// The client sent an invalid message.
    Garbage(Garbage),
    /// The protocol doesn't allow it.
    Refused(Box<Report>),
    /// A cancel request arrived.
    Cancelled,
    /// The server stops.
    Shutdown,
    /// The client is gone.
    Gone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl From<Report> for Stop {
    fn from(report: Report) -> Stop {
        Stop::Refused(Box::new(report))
    }
}

impl From<Garbage> for Stop {
    fn from(garbage: Garbage) -> Stop {
        Stop::Garbage(garbage)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Stop {
        Stop::Gone
    }
}

impl From<ArrowError> for Stop {
    fn from(error: ArrowError) -> Stop {
        Stop::Failed(Error::invalid(format!("a value can't be sent: {error}")))
    }
}

/// Waits until a begun message has taken too long.
async fn late(begun: Option<(Instant, usize)>) -> Garbage {
    let Some((since, bytes)) = begun else { return std::future::pending().await };
    let within = time_for(bytes);
    tokio::time::sleep_until(since + within).await;
    Garbage::Slow { bytes, seconds: within.as_secs() }
}

/// Returns the maximum time of a message of this length, from its first byte to its last.
fn time_for(bytes: usize) -> Duration {
    MESSAGE_TIME + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(socket: S, input: BytesMut, answers: Answers, entry: Entry, ending: Ending) -> Wire<S> {
        Wire {
            socket,
            input,
            answers,
            entry,
            ending,
            passing: None,
            begun: None,
            is_simple: false,
            in_exchange: false,
        }
    }

    /// Receives the next message. Sends the answers before waiting for it.
    pub(crate) async fn receive(&mut self) -> Result<Message, Stop> {
        self.receive_while(false).await
    }

    /// Receives the next message of a running statement; fails on a cancel request. Cancel-safe.
    pub(crate) async fn receive_unless_cancelled(&mut self) -> Result<Message, Stop> {
        self.receive_while(true).await
    }

    async fn receive_while(&mut self, runs: bool) -> Result<Message, Stop> {
        // A draining server accepts no new statement, but waits for the end of one that a client has begun.
        let until = if runs || self.in_exchange { Phase::Stopping } else { Phase::Draining };
        if self.ending.has_reached(until) {
            return Err(Stop::Shutdown);
        }
        loop {
            if let Some(Passing { bytes, report, .. }) = self.passing.take_if(|passing| passing.missing == 0)
            {
                return Err(report(bytes).into());
            }
            if let Some(passing) = &mut self.passing {
                let passed = self.input.len().min(passing.missing);
                self.input.advance(passed);
                passing.missing -= passed;
                if passing.missing == 0 {
                    continue;
                }
                self.input.reserve(READ_AHEAD_BYTES);
            } else if let Some(message) = self.whole()? {
                return Ok(message);
            } else if self.passing.is_some() {
                continue;
            }
            self.send_idle().await?;
            tokio::select! {
                biased;
                _ = self.entry.cancels.changed(), if runs => return Err(Stop::Cancelled),
                read = self.socket.read_buf(&mut self.input) => {
                    if read? == 0 {
                        return Err(Stop::Gone);
                    }
                }
                () = self.ending.reached(until) => return Err(Stop::Shutdown),
                garbage = late(self.begun) => return Err(garbage.into()),
            }
        }
    }

    /// Returns the next message, if it is complete. Starts skipping a message that is too large.
    fn whole(&mut self) -> Result<Option<Message>, Stop> {
        match message::frame(&mut self.input)? {
            Frame::Whole(kind, body) => {
                self.is_simple = kind == b'Q';
                self.begun = None;
                // The message is in memory already, and counts until the next one.
                let _ = self.entry.try_charge(body.len());
                if body.len() > READ_AHEAD_BYTES {
                    // Free the buffer of a long message.
                    self.input = BytesMut::from(&self.input[..]);
                }
                return Ok(Some(message::decode(kind, body)?));
            }
            Frame::TooLong { kind, bytes, missing } => {
                self.is_simple = kind == b'Q';
                self.begun = None;
                self.passing = Some(Passing { bytes, missing, report: report::too_long });
            }
            Frame::Partial { bytes } => {
                let fits = self.entry.try_charge(self.input.len());
                if let Some(&kind) = self.input.first() {
                    let since = self.begun.map_or_else(Instant::now, |(since, _)| since);
                    self.begun = Some((since, bytes));
                    if !fits {
                        let missing = bytes + 1 - self.input.len();
                        self.is_simple = kind == b'Q';
                        self.begun = None;
                        self.input = BytesMut::new();
                        self.passing = Some(Passing { bytes, missing, report: report::no_room });
                        let _ = self.entry.try_charge(0);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Waits for `work`, unless the client cancels it or leaves, or the server stops.
    pub(crate) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.unless_reached(Phase::Stopping, work).await
    }

    /// Like [`Wire::unless_stopped`], for `work` that may never end by itself: a draining server doesn't
    /// wait for it.
    pub(crate) async fn unless_draining<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.unless_reached(Phase::Draining, work).await
    }

    async fn unless_reached<T>(&mut self, until: Phase, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            let room = self.input.len() < READ_AHEAD_BYTES;
            tokio::select! {
                biased;
                _ = self.entry.cancels.changed() => return Err(Stop::Cancelled),
                () = self.ending.reached(until) => return Err(Stop::Shutdown),
                done = &mut work => return Ok(done),
                read = self.socket.read_buf(&mut self.input), if room => {
                    if read? == 0 {
                        return Err(Stop::Gone);
                    }
                }
            }
        }
    }

    /// Sends the answers if there are many.
    pub(crate) async fn send_much(&mut self) -> Result<(), Stop> {
        if self.is_full() { self.send().await } else { Ok(()) }
    }

    /// Returns true if there are so many answers that they must be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.answers.bytes.len() >= ANSWERS_BYTES
    }

    /// Sends all answers while no cancellable statement runs.
    async fn send_idle(&mut self) -> Result<(), Stop> {
        loop {
            match self.send().await {
                Err(Stop::Cancelled) => {}
                other => return other,
            }
        }
    }

    /// Sends all answers. Waits for a slow client, unless a cancel request arrives.
    pub(crate) async fn send(&mut self) -> Result<(), Stop> {
        while self.answers.bytes.has_remaining() {
            tokio::select! {
                biased;
                _ = self.entry.cancels.changed() => return Err(Stop::Cancelled),
                written = self.socket.write_buf(&mut self.answers.bytes) => {
                    if written? == 0 {
                        return Err(Stop::Gone);
                    }
                }
                () = self.ending.reached(Phase::Stopping) => return Err(Stop::Gone),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::DuplexStream;
    use tokio::sync::watch;

    use super::*;
    use crate::interrupt::{Connections, MESSAGES_BYTES_MAX};

    /// Creates a wire whose other end the test holds, with the sender of its server's phase.
    fn wire(connections: &Arc<Connections>) -> (Wire<DuplexStream>, DuplexStream, watch::Sender<Phase>) {
        let (socket, other) = tokio::io::duplex(1 << 20);
        let (sender, phase) = watch::channel(Phase::Serving);
        let entry = connections.enter(10).unwrap();
        let wire = Wire::new(socket, BytesMut::new(), Answers::default(), entry, Ending::of(phase));
        (wire, other, sender)
    }

    fn query(length: usize) -> Vec<u8> {
        let mut bytes = b"Q".to_vec();
        bytes.extend_from_slice(&(length as i32 + 5).to_be_bytes());
        bytes.resize(bytes.len() + length, b'x');
        bytes.push(0);
        bytes
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_message_without_room_is_passed_over() {
        block_on(async {
            let connections = Arc::new(Connections::default());
            let (mut wire, mut other, _server) = wire(&connections);
            let mut hog = connections.enter(10).unwrap();
            assert!(hog.try_charge(MESSAGES_BYTES_MAX + (64 << 10)));
            let sending = tokio::spawn(async move {
                other.write_all(&query(300_000)).await.unwrap();
                other.write_all(&query(3)).await.unwrap();
                other
            });
            match wire.receive().await {
                Err(Stop::Refused(report)) => assert_eq!(report.code, "53200"),
                other => panic!("{other:?}"),
            }
            assert!(matches!(wire.receive().await, Ok(Message::Query(sql)) if sql == "xxx"));
            let mut other = sending.await.unwrap();
            drop(hog);
            other.write_all(&query(300_000)).await.unwrap();
            assert!(matches!(wire.receive().await, Ok(Message::Query(sql)) if sql.len() == 300_000));
            // The buffer of the long message is not kept.
            assert!(wire.input.capacity() < 300_000);
        });
    }

    #[test]
    fn a_server_that_drains_takes_no_new_statement() {
        block_on(async {
            let connections = Arc::new(Connections::default());
            let (mut wire, mut other, server) = wire(&connections);
            other.write_all(&query(3)).await.unwrap();
            server.send(Phase::Draining).unwrap();
            assert!(matches!(wire.receive().await, Err(Stop::Shutdown)));
            // A begun statement may finish.
            assert!(matches!(wire.receive_unless_cancelled().await, Ok(Message::Query(_))));
            assert!(matches!(wire.unless_stopped(async { 1 }).await, Ok(1)));
            assert!(matches!(wire.unless_draining(std::future::pending::<()>()).await, Err(Stop::Shutdown)));
            server.send(Phase::Stopping).unwrap();
            assert!(matches!(wire.receive_unless_cancelled().await, Err(Stop::Shutdown)));
        });
    }

    #[test]
    fn a_long_message_may_take_longer() {
        assert_eq!(time_for(0), MESSAGE_TIME);
        assert_eq!(time_for(64 << 20), MESSAGE_TIME + Duration::from_secs(1024));
    }
}
