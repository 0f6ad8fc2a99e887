//! Recovery: replays a data directory's journal in order when an engine starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_delta::{Epoch, STACK_BYTES};
use millstream_durable::{
    Checkpoint, Checkpoints, DataDirectory, Entries, Entry, Inspection, Journal, Notes, OomKills, Sequence,
    StorePrefix, Torn,
};
use millstream_sql::{Error, Result, TokenReader};

use crate::ddl;
use crate::engine::Shared;
use crate::error;
use crate::event::{Event, Live, Recovery};
use crate::secrets::without_secrets;
use crate::session::Session;
use crate::statements::create_table_as::drop_unfinished;
use crate::statements::{STATEMENTS, replace};
use crate::variables::{Lasts, reader_of};

/// The result of recovery.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The path of the data directory.
    pub path: PathBuf,
    /// The number of entries that its journal has had.
    pub entries: u64,
    /// The entry of the loaded checkpoint; 0: there was none.
    pub checkpoint: u64,
    /// The number of replayed journal entries.
    pub replayed: u64,
    /// The newest epoch.
    pub epoch: Epoch,
    /// The journal's torn end, which was never acknowledged; and damaged checkpoints that were passed over
    /// for an older one. Also durable entries that are gone.
    pub torn: Vec<String>,
}

impl Recovered {
    /// Returns true if the data directory was empty.
    pub fn is_new(&self) -> bool {
        self.checkpoint == 0 && self.replayed == 0
    }
}

/// Inspects a data directory and verifies all its checksums. No engine may have it open meanwhile.
pub fn inspect(path: &Path) -> Result<Inspection> {
    millstream_durable::inspect(path).map_err(error::durable)
}

/// Inspects a data directory on an object store. An engine that owns it may keep running.
pub fn inspect_store(prefix: &StorePrefix) -> Result<Inspection> {
    millstream_durable::inspect_store(prefix).map_err(error::durable)
}

/// Replays the journal, then lets the engine run normally.
pub(crate) fn run(shared: &Arc<Shared>, directory: DataDirectory) -> Result<Recovered> {
    let mut session = Session::new(shared.clone());
    session.is_recovering = true;
    let handle = shared.handle.clone();
    // The caller may be inside a runtime, where blocking is not allowed, so this uses its own thread.
    let thread = std::thread::Builder::new().name("millstream-recovery".into()).stack_size(STACK_BYTES);
    let shared = shared.clone();
    let thread = thread.spawn(move || {
        handle.block_on(async {
            let recovered = recover(session, directory).await?;
            drop_unfinished(&shared).await;
            ddl::drop_all_temporary(&shared).await;
            Ok(recovered)
        })
    });
    let thread =
        thread.map_err(|error| Error::external(format!("the engine's threads can't be started: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(Error::bug("replaying the journal panicked")))
}

/// Fails if no checkpoint is intact and the journal lacks its first entries: earlier data is lost.
fn begins(directory: &DataDirectory, damaged: &[String]) -> Result<(), millstream_durable::Error> {
    let first = Entries::open(directory, Sequence::default())?.next();
    if let Some(Ok(_)) = first {
        return Ok(());
    }
    let reason = format!(
        "no checkpoint can be read, and the journal begins after them; restore the damaged files from a backup: {}",
        damaged.join("; ")
    );
    Err(millstream_durable::Error::Corrupt { name: "checkpoints".into(), offset: 0, reason })
}

async fn recover(mut session: Session, directory: DataDirectory) -> Result<Recovered> {
    let path = directory.path().to_path_buf();
    let told = |error: millstream_durable::Error| {
        let error = error::durable(error);
        Error { message: format!("data directory '{}': {}", path.display(), error.message), ..error }
    };
    let failed = |error| told(directory.explain(error));
    let checkpoints = Checkpoints::of(&directory);
    checkpoints.clear().map_err(failed)?;
    let found = checkpoints.newest().map_err(failed)?;
    let mut passed_over = found.damaged;
    if found.checkpoint.is_none() && !passed_over.is_empty() {
        begins(&directory, &passed_over).map_err(failed)?;
    }
    let (mut epoch, mut last) = (Epoch::default(), Sequence::default());
    if let Some(checkpoint) = found.checkpoint {
        (epoch, last) = (checkpoint.cut.epoch, checkpoint.through);
        load(&mut session, checkpoint).await.map_err(|error| Error {
            message: format!("checkpoint {last} in '{}' can't be used: {}", path.display(), error.message),
            span: None,
            ..error
        })?;
    }
    let notes = Notes::open(&directory, last, OomKills::now()).map_err(failed)?;
    let durable = notes.before().durable;
    step(&session, Recovery::Notes { notes: Box::new(notes), checkpoint: last }).await?;
    let mut entries = Entries::open(&directory, last).map_err(failed)?;
    let mut replayed = 0;
    let mut rest = entries.by_ref().peekable();
    while let Some(next) = rest.next() {
        let (sequence, entry) = next.map_err(failed)?;
        step(&session, Recovery::Entry { entry: sequence, last: rest.peek().is_none() }).await?;
        if let Entry::Epoch(recorded) = &entry {
            epoch = recorded.cut.epoch;
        }
        // A claim of an object store's prefix is not an action of the engine, so it doesn't count.
        replayed += u64::from(!matches!(entry, Entry::Claimed { .. }));
        again(&mut session, entry).await.map_err(|error| Error {
            message: format!(
                "entry {sequence} of the journal in '{}' can't be replayed: {}",
                path.display(),
                error.message
            ),
            span: None,
            ..error
        })?;
    }
    passed_over.extend(entries.torn().iter().map(torn_text));
    passed_over.extend(lost_text(entries.through(), durable));
    passed_over.iter().for_each(|text| tracing::warn!("{text}"));
    let events = session.shared.events.clone();
    let journal = Journal::start(directory, entries.through(), move |report| {
        let _ = events.send(Event::Journal(report));
    });
    let journal = journal.map_err(told)?;
    let recovered = Recovered {
        path,
        entries: entries.through().0,
        checkpoint: last.0,
        replayed,
        epoch,
        torn: passed_over,
    };
    step(&session, Recovery::Live(Box::new(Live { journal, checkpoints, last }))).await?;
    Ok(recovered)
}

/// Creates the objects of a checkpoint without rows, then restores their state.
async fn load(session: &mut Session, checkpoint: Checkpoint) -> Result<()> {
    for entry in checkpoint.catalog.clone() {
        again(session, entry).await?;
    }
    step(session, Recovery::Done(checkpoint.done.clone())).await?;
    step(session, Recovery::Load(Box::new(checkpoint))).await
}

/// Describes entries missing at the journal's end, if the previous process had noted them as durable.
fn lost_text(through: Sequence, durable: Sequence) -> Option<String> {
    (durable > through).then(|| {
        format!(
            "entries {} to {durable} of the journal were durable and are gone: what was acknowledged in them is lost; was a \
             file removed from the data directory, or an older copy of it restored?",
            through.next()
        )
    })
}

fn torn_text(torn: &Torn) -> String {
    let Torn { name, offset, bytes } = torn;
    format!(
        "the last {bytes} bytes of journal '{name}', from {offset} on, are a write that a crash cut short: they are ignored"
    )
}

async fn step(session: &Session, step: Recovery) -> Result<()> {
    session.shared.ask(|reply| Event::Recover { step, reply }).await
}

/// Replays one entry.
async fn again(session: &mut Session, entry: Entry) -> Result<()> {
    match entry {
        Entry::Claimed { .. } => Ok(()),
        Entry::Opened { at, .. } => step(session, Recovery::Opened(at)).await,
        Entry::Changed { statements, variables, done, plans, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            step(session, Recovery::Done(done)).await?;
            session.variables.reset_all(session.transaction.as_ref());
            for (name, value) in variables {
                session.variables.set(&name, &value, Lasts::Session, session.transaction.as_mut())?;
            }
            session.plans = plans;
            let changed = change_again(session, &statements).await;
            session.plans.clear();
            changed
        }
        Entry::TableMade { name, schema, key, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            session.create_table(&name, schema, &key).await.map(drop)
        }
        Entry::Set { name, value } => session.shared.ask(|reply| Event::Set { name, value, reply }).await,
        Entry::Paused { name, pause, stages, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            let of = name.clone();
            let replayed = Some(stages);
            let paused = session.shared.ask(|reply| Event::Pause { name, pause, replayed, reply }).await;
            // A query may be suspended now that wasn't then. That must not prevent a start.
            if let Err(reason) = paused {
                tracing::warn!(query = ?of, pause, %reason, "a query can't be paused or resumed as before the restart");
            }
            Ok(())
        }
        Entry::Epoch(recorded) => step(session, Recovery::Epoch(recorded)).await,
        Entry::Arrived { query, standing } => {
            step(session, Recovery::Standing(standing)).await?;
            step(session, Recovery::Arrived(query)).await
        }
        Entry::Advanced { subscription, through } => {
            step(session, Recovery::Advanced(subscription, through)).await
        }
        Entry::Sequence(value) => step(session, Recovery::Sequence(value)).await,
        Entry::Skipped { to } => step(session, Recovery::Skipped(to)).await,
        Entry::Closed { delivered } => step(session, Recovery::Delivered(delivered)).await,
    }
}

/// Executes statements again that changed the catalog together.
async fn change_again(session: &mut Session, statements: &[String]) -> Result<()> {
    let texts: Vec<&str> = statements.iter().map(String::as_str).collect();
    if let [text] = texts[..] {
        let mut reader = reader_of(session, text)?;
        // This may read much data again, so it has no timeout.
        if replace::begins(&reader) {
            return replace::run(session, &mut reader).await.map(drop);
        }
        if !STATEMENTS.is_ddl(&TokenReader::new(text)?) {
            return session.execute(text).await.map(drop);
        }
    }
    let changed = ddl::change(session, &texts).await;
    changed.map(drop).map_err(|(place, error)| Error {
        message: format!(
            "{}: {}",
            without_secrets(place.and_then(|place| texts.get(place)).unwrap_or(&"a statement")),
            error.message
        ),
        ..error
    })
}
