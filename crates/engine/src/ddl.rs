//! Changes of the catalog: statements are planned against one version of it, and submitted to the loop together.
//!
//! The loop refuses a change if the catalog has another version by then, and the statements are planned again.

use std::sync::Arc;

use millstream_durable::{Entry, Plan, Standing};
use millstream_sql::{Error, Result, TokenReader, quote_ident};

use crate::backfill::prefill;
use crate::catalog::schema_of_key;
use crate::engine::Shared;
use crate::event::{Change, Event};
use crate::plan::Working;
use crate::session::{Response, Session, Tag};
use crate::statements::STATEMENTS;
use crate::temporary::{TempSchema, is_temporary};

/// The maximum number of times a statement is planned because the catalog changes meanwhile.
pub(crate) const PLANS_MAX: usize = 100;

/// Executes CREATE and DROP statements that take effect together. An error has the index of its
/// statement, unless it is about all of them.
pub(crate) async fn change(session: &Session, texts: &[&str]) -> Result<Vec<Tag>, (Option<usize>, Error)> {
    let (mut prefilled, only) = (None, (texts.len() == 1).then_some(0));
    for _ in 0..PLANS_MAX {
        let before = session.shared.catalog();
        let mut working = Working::again(session.variables.on_path(before.clone()), &session.plans);
        working.is_replay = session.is_recovering;
        let base = working.catalog.version;
        let mut tags = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let failed = |error| (Some(place), error);
            let reader = TokenReader::new(text).map_err(failed)?.on_path(working.catalog.search_path());
            tags.push(STATEMENTS.plan(session, &mut working, reader).await.map_err(failed)?);
        }
        let names = std::mem::take(&mut working.existing);
        if !names.is_empty() && !session.is_recovering {
            // Another statement may still be making them, and undo that if it is cancelled.
            let asked = session.shared.ask(|reply| Event::Exists { names, reply }).await;
            if asked.map_err(|error| (only, error))? != base {
                continue;
            }
        }
        if working.changes.is_empty() {
            return Ok(tags);
        }
        let filled = match session.is_recovering {
            true => Ok(None),
            false => prefill(&session.shared, &before, &mut working.changes, prefilled.take()).await,
        };
        prefilled = filled.map_err(|error| (only, error))?;
        let completed =
            |text: &&str| working.completed.get(*text).cloned().unwrap_or_else(|| text.to_string());
        let completed: Vec<String> = texts.iter().map(completed).collect();
        let completed: Vec<&str> = completed.iter().map(String::as_str).collect();
        let entry = entry(session, &completed, working.plans(session));
        if let Some(notices) =
            commit(&session.shared, base, working, entry).await.map_err(|error| (only, error))?
        {
            if let Some(tag) = tags.last_mut() {
                tag.notices.extend(notices);
            }
            return Ok(tags);
        }
    }
    Err((None, busy()))
}

/// Applies the changes that `plan` returns together with the catalog version they are based on, all or nothing. Plans
/// again if the catalog has changed since. Does nothing if there is no change.
pub(crate) async fn alter<C: IntoIterator<Item = Change>>(
    session: &Session,
    statement: &TokenReader<'_>,
    plan: impl Fn(&Session, &mut TokenReader<'_>) -> Result<(u64, C, Tag)>,
) -> Result<Response> {
    for _ in 0..PLANS_MAX {
        let (base, changes, mut tag) = plan(session, &mut statement.clone())?;
        let changes: Vec<Change> = changes.into_iter().collect();
        if changes.is_empty() {
            return Ok(tag.into());
        }
        let entry = Box::new(entry(session, &[statement.text()], Vec::new()));
        let changed = session.shared.ask(|reply| Event::Change { base, changes, entry, reply }).await?;
        if let Some(notices) = changed {
            tag.notices.extend(notices);
            return Ok(tag.into());
        }
    }
    Err(busy())
}

/// Applies a group of changes that was planned against catalog version `base`. Returns `None` if the
/// catalog has changed since.
pub(crate) async fn commit(
    shared: &Shared,
    base: u64,
    working: Working,
    entry: Entry,
) -> Result<Option<Vec<String>>> {
    let (changes, entry): (Vec<Change>, _) = (working.changes, Box::new(entry));
    shared.ask(|reply| Event::Change { base, changes, entry, reply }).await
}

/// Returns the journal entry of statements that change the catalog.
pub(crate) fn entry(session: &Session, texts: &[&str], plans: Vec<Plan>) -> Entry {
    let mut variables = session.variables().set_here();
    if let Some(path) = session.variables.path_with_temporary() {
        // A replay looks names up among the session's temporary objects, too.
        variables.retain(|(name, _)| name != "search_path");
        variables.push(("search_path".into(), path));
    }
    Entry::Changed {
        statements: texts.iter().map(|text| (*text).to_string()).collect(),
        variables,
        done: session.idempotency.keys(),
        plans,
        standing: Standing::default(),
    }
}

pub(crate) fn busy() -> Error {
    Error::external("the catalog keeps changing: try again")
}

/// Returns the name of the schema of a session's temporary objects, which is there afterwards.
pub(crate) async fn temporary_schema(session: &Session) -> Result<String> {
    let weak = Arc::downgrade(&session.shared);
    let end = move |name: String| {
        // An engine that ends leaves it to the next start.
        let Some(shared) = weak.upgrade() else { return };
        let handle = shared.handle.clone();
        handle.spawn(async move { drop_temporary(&shared, &name).await });
    };
    let name = session.variables.temporary.get_or_init(|| TempSchema::new(end)).name();
    if !session.shared.catalog().schemas().has(name) {
        run(session, &format!("CREATE SCHEMA IF NOT EXISTS {name}")).await?;
    }
    Ok(name.to_string())
}

/// Drops the temporary objects of a session.
pub(crate) async fn discard_temporary(session: &Session) -> Result<()> {
    let Some(schema) = session.variables.temporary.get() else { return Ok(()) };
    run(session, &format!("DROP SCHEMA IF EXISTS {} CASCADE", schema.name())).await
}

/// Drops the tables ON COMMIT DROP of a transaction that has ended, and releases its advisory locks.
pub(crate) async fn end_transaction(session: &Session) -> Result<()> {
    if let Some(locks) = session.variables.locks.get() {
        locks.release_all(true);
    }
    let Some(schema) = session.variables.temporary.get() else { return Ok(()) };
    for table in schema.take_drops() {
        let name = format!("{}.{}", schema.name(), quote_ident(&table));
        run(session, &format!("DROP TABLE IF EXISTS {name} CASCADE")).await?;
    }
    Ok(())
}

/// Drops the temporary objects of sessions that a crash ended.
pub(crate) async fn drop_all_temporary(shared: &Arc<Shared>) {
    let catalog = shared.catalog();
    let schemas = catalog.objects().filter_map(|object| schema_of_key(&object.name));
    for schema in schemas.filter(|schema| is_temporary(schema)) {
        drop_temporary(shared, schema).await;
    }
}

async fn drop_temporary(shared: &Arc<Shared>, schema: &str) {
    let dropped =
        run(&Session::new(shared.clone()), &format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await;
    if let Err(reason) = dropped {
        tracing::warn!(schema, %reason, "temporary objects can't be dropped");
    }
}

/// Runs a statement of the engine itself.
async fn run(session: &Session, statement: &str) -> Result<()> {
    change(session, &[statement]).await.map(drop).map_err(|(_, error)| error)
}
