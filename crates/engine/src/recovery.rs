//! Starting with what a data directory holds: each entry of its journal is done again, in their order.

use std::path::PathBuf;
use std::sync::Arc;

use millstream_delta::Epoch;
use millstream_durable::{DataDirectory, Entries, Entry, Journal, Sequence, Torn};
use millstream_sql::{Error, Result};

use crate::engine::Shared;
use crate::error;
use crate::event::{Event, Recovery};
use crate::session::Session;
use crate::variables::Lasts;

/// What was found in a data directory.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Where it is.
    pub path: PathBuf,
    /// How many entries its journal had.
    pub entries: u64,
    /// The newest epoch.
    pub epoch: Epoch,
    /// What was being written when a crash came, and is not whole: nobody was told that it would stay.
    pub torn: Vec<String>,
}

impl Recovered {
    /// Whether there was nothing yet.
    pub fn is_new(&self) -> bool {
        self.entries == 0
    }
}

/// Does again what the journal holds, then lets the engine go on.
pub(crate) fn run(shared: &Arc<Shared>, directory: DataDirectory) -> Result<Recovered> {
    let session = Session::new(shared.clone());
    let handle = shared.handle.clone();
    // A thread of its own, since the caller may be within a runtime, where nothing can be waited for.
    let thread = std::thread::Builder::new().name("millstream-recovery".into());
    let thread = thread.spawn(move || handle.block_on(recover(session, directory)));
    let thread =
        thread.map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(Error::bug("doing again what the journal holds ended in a panic")))
}

async fn recover(mut session: Session, directory: DataDirectory) -> Result<Recovered> {
    let path = directory.path().to_path_buf();
    let failed = |error: millstream_durable::Error| {
        let error = error::durable(error);
        Error { message: format!("data directory '{}': {}", path.display(), error.message), ..error }
    };
    let mut entries = Entries::open(&directory, Sequence::default()).map_err(failed)?;
    let mut epoch = Epoch::default();
    for next in entries.by_ref() {
        let (sequence, entry) = next.map_err(failed)?;
        if let Entry::Epoch(recorded) = &entry {
            epoch = recorded.cut.epoch;
        }
        again(&mut session, entry).await.map_err(|error| Error {
            message: format!(
                "entry {sequence} of the journal in '{}' can't be done again: {}",
                path.display(),
                error.message
            ),
            span: None,
            ..error
        })?;
    }
    let torn: Vec<String> = entries.torn().iter().map(torn_text).collect();
    torn.iter().for_each(|torn| tracing::warn!("{torn}"));
    let events = session.shared.events.clone();
    let journal = Journal::start(directory, entries.through(), move |report| {
        let _ = events.send(Event::Journal(report));
    });
    let journal = journal.map_err(failed)?;
    let recovered = Recovered { path, entries: entries.through().0, epoch, torn };
    step(&session, Recovery::Live(Box::new(journal))).await?;
    Ok(recovered)
}

fn torn_text(torn: &Torn) -> String {
    let Torn { name, offset, bytes } = torn;
    format!(
        "the last {bytes} bytes of journal '{name}', from {offset} on, are a write that a crash cut short: they are left out"
    )
}

async fn step(session: &Session, step: Recovery) -> Result<()> {
    session.shared.ask(|reply| Event::Recover { step, reply }).await
}

/// Does one entry again.
async fn again(session: &mut Session, entry: Entry) -> Result<()> {
    match entry {
        Entry::Opened { at, .. } => step(session, Recovery::Opened(at)).await,
        Entry::Changed { statements, variables, done, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            step(session, Recovery::Done(done)).await?;
            session.reset_variables();
            for (name, value) in variables {
                session.set_variable(&name, &value, Lasts::Session)?;
            }
            session.change_again(&statements).await
        }
        Entry::TableMade { name, schema, key, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            session.create_table(&name, schema, &key).await.map(drop)
        }
        Entry::Set { name, value } => session.shared.ask(|reply| Event::Set { name, value, reply }).await,
        Entry::Paused { name, pause, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            session.shared.ask(|reply| Event::Pause { name, pause, reply }).await.map(drop)
        }
        Entry::Epoch(recorded) => step(session, Recovery::Epoch(recorded)).await,
        Entry::Arrived { query, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            step(session, Recovery::Arrived(query)).await
        }
        Entry::Closed { delivered } => step(session, Recovery::Delivered(delivered)).await,
    }
}

impl Session {
    /// Runs statements again that have changed the catalog together.
    async fn change_again(&mut self, statements: &[String]) -> Result<()> {
        let texts: Vec<&str> = statements.iter().map(String::as_str).collect();
        if let [text] = texts[..]
            && !crate::statements::is_ddl(text)?
        {
            return self.execute(text).await.map(drop);
        }
        let changed = self.change(&texts).await;
        changed.map(drop).map_err(|(place, error)| Error {
            message: format!("{}: {}", texts.get(place).unwrap_or(&"a statement"), error.message),
            ..error
        })
    }
}
