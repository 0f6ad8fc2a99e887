//! The schemas of a source's messages: fetched from a registry once each, or the one of a file.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::{RegisteredSchema, Result, SchemaRegistry};

/// For how long the registry is not asked again for an id that it doesn't have.
const MISSING: Duration = Duration::from_secs(10);

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
    /// Ids that the registry didn't have.
    missing: Mutex<HashMap<u32, Instant>>,
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
            format!("the schema registry has no schema with id {id}, which the message names")
        })
    }

    fn known(&self, id: u32) -> Option<Arc<Known<S>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn is_to_fetch(&self, id: u32) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        self.known(id).is_none() && missing.get(&id).is_none_or(|at| at.elapsed() > MISSING)
    }
}

#[async_trait]
impl<S: Send + Sync> Fetch for Schemas<S> {
    async fn fetch(&self, messages: &[&[u8]]) -> Result<()> {
        let Origin::Registry(registry, parse) = &self.origin else { return Ok(()) };
        let ids: BTreeSet<u32> = messages.iter().filter_map(|message| Some(split(message).ok()?.0)).collect();
        for id in ids.into_iter().filter(|id| self.is_to_fetch(*id)) {
            match registry.schema(id).await? {
                Some(schema) => {
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    known.insert(id, Arc::new(parse(&schema)));
                }
                None => {
                    let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
                    if missing.len() >= MISSING_MAX {
                        missing.clear();
                    }
                    missing.insert(id, Instant::now());
                }
            }
        }
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
