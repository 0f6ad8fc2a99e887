//! ALTER SOURCE … REPLAY: a source reads some rows again.

use std::sync::Arc;

use millstream_connect::More;
use millstream_sql::{Error, Result};

use crate::event::{Event, Reply};
use crate::run::current;
use crate::run::durable::Durability;
use crate::run::receive::Command;
use crate::run::sources::Sources;

impl Sources {
    /// Handles a request to read a source again, or its answer.
    pub(in crate::run) fn hear(&mut self, durability: &Durability, event: Event) {
        match event {
            Event::ReadAgain { source, pattern, reply } => {
                self.read_again(durability, &source, pattern, reply);
            }
            Event::ReadsAgain { source, result, reply } => self.reads_again(&source, result, reply),
            _ => {}
        }
    }

    /// Lets a source that had ended continue.
    pub(in crate::run) fn reads_again(
        &mut self,
        name: &Arc<str>,
        result: Result<usize>,
        reply: Reply<usize>,
    ) {
        if let Some(source) = current(self, name)
            && result.is_ok()
        {
            source.more = More::Now;
        }
        reply.send(result.map_err(|error| Error {
            message: format!("source \"{name}\" can't read it again: {}", error.message),
            ..error
        }));
    }

    /// Asks a source's task to read again the rows that match a pattern.
    pub(in crate::run) fn read_again(
        &mut self,
        durability: &Durability,
        name: &Arc<str>,
        pattern: String,
        reply: Reply<usize>,
    ) {
        if durability.is_on() {
            return reply.send(Err(Error::unsupported("ALTER SOURCE … REPLAY with a data directory")
                .hint("INSERT INTO the source adds single rows again.")));
        }
        match current(self, name) {
            Some(source) => {
                let _ = source.commands.send(Command::ReadAgain { pattern, reply });
            }
            None => reply.send(Err(Error::invalid(format!("there is no source \"{name}\"")))),
        }
    }
}
