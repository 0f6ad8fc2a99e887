//! The schemas of a source's messages: fetched from a registry once each, or the one of a file.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::schema::AvroSchema;
use crate::{RegisteredSchema, Result, SchemaRegistry};

/// For how long the registry is not asked again for an id that it doesn't have.
const MISSING: Duration = Duration::from_secs(10);

/// Most such ids.
const MISSING_MAX: usize = 10_000;

/// A schema, or why it can't be used.
pub(crate) type Known = std::result::Result<AvroSchema, String>;

/// The schemas of writers.
#[derive(Debug)]
pub(crate) struct Schemas {
    origin: Origin,
    known: RwLock<HashMap<u32, Arc<Known>>>,
    /// Ids that the registry didn't have.
    missing: Mutex<HashMap<u32, Instant>>,
}

#[derive(Debug)]
enum Origin {
    Registry(Arc<dyn SchemaRegistry>),
    File(Arc<Known>),
}

impl Schemas {
    /// Creates the schemas of messages that begin with the id of theirs.
    pub fn of_registry(registry: Arc<dyn SchemaRegistry>) -> Schemas {
        Schemas { origin: Origin::Registry(registry), known: RwLock::default(), missing: Mutex::default() }
    }

    /// Creates the schema of messages that don't name theirs.
    pub fn of_file(schema: AvroSchema) -> Schemas {
        let origin = Origin::File(Arc::new(Ok(schema)));
        Schemas { origin, known: RwLock::default(), missing: Mutex::default() }
    }

    /// Returns true if messages begin with the id of their schema.
    pub fn have_ids(&self) -> bool {
        matches!(self.origin, Origin::Registry(_))
    }

    /// Splits a message into the id of its schema, if messages have one, and its datum.
    pub fn split<'m>(&self, message: &'m [u8]) -> std::result::Result<(Option<u32>, &'m [u8]), String> {
        match &self.origin {
            Origin::File(_) => Ok((None, message)),
            Origin::Registry(_) => split(message).map(|(id, datum)| (Some(id), datum)),
        }
    }

    /// Returns the schema with an id. Those that [`Schemas::fetch`] didn't find are unknown to the registry.
    pub fn get(&self, id: Option<u32>) -> Option<Arc<Known>> {
        match (&self.origin, id) {
            (Origin::File(schema), _) => Some(schema.clone()),
            (Origin::Registry(_), Some(id)) => {
                self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
            }
            (Origin::Registry(_), None) => None,
        }
    }

    /// Fetches the schemas of messages, as far as the registry has them.
    pub async fn fetch(&self, messages: impl Iterator<Item = &[u8]>) -> Result<()> {
        let Origin::Registry(registry) = &self.origin else { return Ok(()) };
        let ids: BTreeSet<u32> = messages.filter_map(|message| Some(split(message).ok()?.0)).collect();
        for id in ids.into_iter().filter(|id| self.is_to_fetch(*id)) {
            match registry.schema(id).await? {
                Some(schema) => {
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    known.insert(id, Arc::new(parsed(&schema)));
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

    fn is_to_fetch(&self, id: u32) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        self.get(Some(id)).is_none() && missing.get(&id).is_none_or(|at| at.elapsed() > MISSING)
    }
}

/// Parses a registered schema.
pub(crate) fn parsed(schema: &RegisteredSchema) -> Known {
    match schema.kind.as_str() {
        "AVRO" => AvroSchema::parse(&schema.text, &schema.references),
        other => Err(format!("it is a schema of {other}, but AVRO was expected")),
    }
}

/// Splits a message of Confluent's wire format.
fn split(message: &[u8]) -> std::result::Result<(u32, &[u8]), String> {
    match message {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] | [] => Err(format!(
            "the message has {} bytes, but a zero byte, the schema's id in four bytes and an Avro value were expected",
            message.len()
        )),
        [other, ..] => Err(format!(
            "the message begins with byte 0x{other:02X}, but 0x00 was expected, followed by the schema's id in four bytes \
             and an Avro value, as the serializers of a schema registry write them"
        )),
    }
}
