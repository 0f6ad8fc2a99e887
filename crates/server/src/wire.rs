//! The two ways of a connection: messages in, answers out, and what ends a statement from outside.

use std::future::Future;
use std::io;

use arrow::error::ArrowError;
use bytes::{Buf, BytesMut};
use millstream_engine::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::answer::{Answers, Report};
use crate::interrupt::{Ending, Entry, Phase};
use crate::message::{self, Frame, Garbage, Message};
use crate::report;

/// Answers are sent when they are as long, whether or not a statement is done.
const ANSWERS_BYTES: usize = 64 << 10;

/// What a client may send while a statement of its runs, before it is left waiting.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// A client's socket, what has come of it and what is to be sent.
pub(crate) struct Wire<S> {
    socket: S,
    input: BytesMut,
    pub(crate) answers: Answers,
    pub(crate) entry: Entry,
    ending: Ending,
    /// A message that is too long to be taken: its bytes, and how many of them are still to come and be forgotten.
    passing: Option<(usize, usize)>,
    /// Whether the last message was one of the simple protocol, each of which is answered by itself.
    pub(crate) is_simple: bool,
    /// True within an exchange of the extended protocol, before its Sync.
    pub(crate) in_exchange: bool,
}

/// Why a statement ends before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Error),
    /// The client sent what it must not; whether the next message can be found.
    Garbage(Garbage),
    /// It is refused for a reason of the protocol.
    Refused(Box<Report>),
    /// A cancel request came.
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

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(socket: S, input: BytesMut, answers: Answers, entry: Entry, ending: Ending) -> Wire<S> {
        Wire { socket, input, answers, entry, ending, passing: None, is_simple: false, in_exchange: false }
    }

    /// The next message. Sends the answers first when it has to be waited for.
    pub(crate) async fn receive(&mut self) -> Result<Message, Stop> {
        self.receive_while(false).await
    }

    /// The next message of a statement that runs, and ends at a cancel request. One that is given up loses nothing.
    pub(crate) async fn receive_unless_cancelled(&mut self) -> Result<Message, Stop> {
        self.receive_while(true).await
    }

    async fn receive_while(&mut self, runs: bool) -> Result<Message, Stop> {
        // A server that drains accepts no new statement, but waits for the end of what a client has begun.
        let until = if runs || self.in_exchange { Phase::Stopping } else { Phase::Draining };
        if self.ending.has_reached(until) {
            return Err(Stop::Shutdown);
        }
        loop {
            if let Some((bytes, 0)) = self.passing {
                self.passing = None;
                return Err(report::too_long(bytes).into());
            }
            if let Some((_, missing)) = &mut self.passing {
                let passed = self.input.len().min(*missing);
                self.input.advance(passed);
                *missing -= passed;
                if *missing == 0 {
                    continue;
                }
                self.input.reserve(READ_AHEAD_BYTES);
            } else {
                match message::frame(&mut self.input)? {
                    Frame::Whole(kind, body) => {
                        self.is_simple = kind == b'Q';
                        return Ok(message::decode(kind, body)?);
                    }
                    Frame::TooLong { kind, bytes, missing } => {
                        self.is_simple = kind == b'Q';
                        self.passing = Some((bytes, missing));
                        continue;
                    }
                    Frame::Partial => {}
                }
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
            }
        }
    }

    /// Waits for `work`, unless the client cancels it, goes away, or the server stops.
    pub(crate) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.unless_reached(Phase::Stopping, work).await
    }

    /// The same of `work` that may never end by itself: a server that drains doesn't wait for it.
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

    /// Whether there are so many answers that they are to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.answers.bytes.len() >= ANSWERS_BYTES
    }

    /// Sends all answers while nothing runs that could be cancelled.
    async fn send_idle(&mut self) -> Result<(), Stop> {
        loop {
            match self.send().await {
                Err(Stop::Cancelled) => {}
                other => return other,
            }
        }
    }

    /// Sends all answers. A client that doesn't read is waited for, but for a cancel request.
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
