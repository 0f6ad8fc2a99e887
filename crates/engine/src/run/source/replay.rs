//! ALTER SOURCE … REPLAY and SEEK: a source continues at another place.

use std::sync::Arc;

use millstream_connect::{Jump, More};
use millstream_sql::{Error, Result};

use crate::event::Reply;
use crate::run::current;
use crate::run::durable::Durability;
use crate::run::receive::Command;
use crate::run::sources::Sources;

impl Sources {
    /// Lets a source that had ended or failed continue.
    pub(in crate::run) fn jumped(&mut self, name: &Arc<str>, result: Result<usize>, reply: Reply<usize>) {
        if let Some(source) = current(self, name)
            && result.is_ok()
        {
            source.pulls.set_more(More::Now);
            source.health.reset();
        }
        reply.send(result.map_err(|error| Error {
            message: format!("source \"{name}\" can't be moved: {}", error.message),
            ..error
        }));
    }

    /// Asks a source's task to continue at another place.
    pub(in crate::run) fn jump(
        &mut self,
        durability: &Durability,
        name: &Arc<str>,
        to: Jump,
        reply: Reply<usize>,
    ) {
        if durability.is_on() && matches!(to, Jump::Again(_)) {
            return reply.send(Err(Error::unsupported("ALTER SOURCE … REPLAY with a data directory")
                .hint("INSERT INTO the source adds single rows again.")));
        }
        match current(self, name) {
            Some(source) if !source.used && matches!(to, Jump::To(_)) => reply.send(Err(Error::invalid(
                format!("nothing reads source \"{name}\", so it has no place yet"),
            )
            .hint("CREATE the views and sinks that read it first."))),
            Some(source) => source.pulls.send(Command::Jump { to, reply }),
            None => reply.send(Err(Error::invalid(format!("there is no source \"{name}\"")))),
        }
    }
}
