//! The schemas of a source's messages: fetched from a registry once each, or the one of a file.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::{Error, RegisteredSchema, Result, SchemaRegistry};

/// The pauses before the registry is asked again for an id that it doesn't have: a schema that was just registered may be
/// known to another of its servers only.
const PATIENCE: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1000)];

/// For how long the registry is not asked again for an id that it didn't have after all pauses.
const MISSING: Duration = Duration::from_secs(1);

/// Most such ids.
const MISSING_MAX: usize = 10_000;

/// A schema, or why it can't be used.
pub(crate) type Known<S> = std::result::Result<S, String>;

/// A parser of registered schemas.
pub(crate) type Parse<S> = fn(&RegisteredSchema) -> Known<S>;

/// The schemas of writers, in one language.
#[derive(Debug)]
pub(crate) struct Schemas<S> {
    origin: Origin<S>,
    known: RwLock<HashMap<u32, Arc<Known<S>>>>,
    /// Ids that the registry didn't have, or whose schema can't be used for now.
    missing: Mutex<HashMap<u32, Missing>>,
}

/// A schema that can't be had.
#[derive(Debug)]
struct Missing {
    asked: Instant,
    reason: String,
}

#[derive(Debug)]
enum Origin<S> {
    Registry(Arc<dyn SchemaRegistry>, Parse<S>),
    File(Arc<Known<S>>),
}

/// Fetching, whatever the language.
#[async_trait]
pub(crate) trait Fetch: Send + Sync {
    /// Fetches the schemas of messages, as far as the registry has them.
    async fn fetch(&self, messages: &[&[u8]]) -> Result<()>;
}

impl<S> Schemas<S> {
    /// Creates the schemas of messages that begin with the id of theirs.
    pub fn of_registry(registry: Arc<dyn SchemaRegistry>, parse: Parse<S>) -> Schemas<S> {
        let origin = Origin::Registry(registry, parse);
        Schemas { origin, known: RwLock::default(), missing: Mutex::default() }
    }

    /// Creates the schema of messages that don't name theirs.
    pub fn of_file(schema: S) -> Schemas<S> {
        let origin = Origin::File(Arc::new(Ok(schema)));
        Schemas { origin, known: RwLock::default(), missing: Mutex::default() }
    }

    /// Returns true if messages begin with the id of their schema.
    pub fn have_ids(&self) -> bool {
        matches!(self.origin, Origin::Registry(..))
    }

    /// Splits a message into the id of its schema, if messages have one, and the rest.
    pub fn split<'m>(&self, message: &'m [u8]) -> std::result::Result<(Option<u32>, &'m [u8]), String> {
        match &self.origin {
            Origin::File(_) => Ok((None, message)),
            Origin::Registry(..) => split(message).map(|(id, datum)| (Some(id), datum)),
        }
    }

    /// Returns the schema with an id. Those that [`Fetch::fetch`] didn't find are unknown to the registry, which is the
    /// error.
    pub fn get(&self, id: Option<u32>) -> std::result::Result<Arc<Known<S>>, String> {
        let found = match (&self.origin, id) {
            (Origin::File(schema), _) => Some(schema.clone()),
            (Origin::Registry(..), Some(id)) => self.known(id),
            (Origin::Registry(..), None) => None,
        };
        found.ok_or_else(|| {
            let id = id.unwrap_or_default();
            let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.get(&id).map_or_else(|| unknown(id), |missing| missing.reason.clone())
        })
    }

    fn known(&self, id: u32) -> Option<Arc<Known<S>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn is_to_fetch(&self, id: u32) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        self.known(id).is_none() && missing.get(&id).is_none_or(|missing| missing.asked.elapsed() > MISSING)
    }

    fn is_missing(&self, id: u32) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    fn note_missing(&self, id: u32, reason: String) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() >= MISSING_MAX {
            missing.clear();
        }
        missing.insert(id, Missing { asked: Instant::now(), reason });
    }
}

fn unknown(id: u32) -> String {
    format!("the schema registry has no schema with id {id}, which the message names")
}

impl<S: Send + Sync> Schemas<S> {
    /// Asks for a schema. Returns why it can't be had, unless it can.
    async fn ask(
        &self,
        registry: &Arc<dyn SchemaRegistry>,
        parse: Parse<S>,
        id: u32,
    ) -> Result<Option<String>> {
        match registry.schema(id).await {
            Ok(Some(schema)) => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(id, Arc::new(parse(&schema)));
                self.missing.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                Ok(None)
            }
            Ok(None) => Ok(Some(unknown(id))),
            // The registry works, but the schema lacks something.
            Err(Error::Invalid(reason)) => Ok(Some(reason)),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl<S: Send + Sync> Fetch for Schemas<S> {
    async fn fetch(&self, messages: &[&[u8]]) -> Result<()> {
        let Origin::Registry(registry, parse) = &self.origin else { return Ok(()) };
        let ids: BTreeSet<u32> = messages.iter().filter_map(|message| Some(split(message).ok()?.0)).collect();
        // Ids that have been missing for longer are asked for once.
        let (former, new): (Vec<u32>, Vec<u32>) =
            ids.into_iter().filter(|id| self.is_to_fetch(*id)).partition(|id| self.is_missing(*id));
        for id in former {
            if let Some(reason) = self.ask(registry, *parse, id).await? {
                self.note_missing(id, reason);
            }
        }
        let mut open: Vec<(u32, String)> = Vec::new();
        for id in new {
            open.extend(self.ask(registry, *parse, id).await?.map(|reason| (id, reason)));
        }
        for pause in PATIENCE {
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            let mut still_open = Vec::new();
            for (id, _) in open {
                still_open.extend(self.ask(registry, *parse, id).await?.map(|reason| (id, reason)));
            }
            open = still_open;
        }
        open.into_iter().for_each(|(id, reason)| self.note_missing(id, reason));
        Ok(())
    }
}

/// Splits a message of Confluent's wire format.
fn split(message: &[u8]) -> std::result::Result<(u32, &[u8]), String> {
    match message {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] | [] => Err(format!(
            "the message has {} bytes, but a zero byte, the schema's id in four bytes and a value were expected",
            message.len()
        )),
        [other, ..] => Err(format!(
            "the message begins with byte 0x{other:02X}, but 0x00 was expected, followed by the schema's id in four bytes \
             and a value, as the serializers of a schema registry write them"
        )),
    }
}
