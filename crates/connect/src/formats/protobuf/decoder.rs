//! The decoder of messages of Protobuf.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{Fields, SchemaRef};

use super::plan::{MessagePlan, resolve};
use super::read::read_message;
use super::schema::ProtoSchema;
use crate::formats::decode::Decode;
use crate::formats::framing::Record;
use crate::formats::schemas::Schemas;
use crate::formats::target::StructTarget;
use crate::{Error, Result};

/// Most levels of the path to a message's type.
const PATH_MAX: u64 = 64;

/// A schema, and the place of a message in it; none is the message of the option.
type Place = (Option<u32>, Option<Vec<usize>>);

/// Decodes messages of several writers into the same columns.
pub(crate) struct ProtobufDecoder {
    columns: Fields,
    schemas: Arc<Schemas<ProtoSchema>>,
    /// The name of the message, if an option gives it.
    message: Option<String>,
    plans: Mutex<HashMap<Place, Arc<std::result::Result<MessagePlan, String>>>>,
}

impl ProtobufDecoder {
    /// Creates a decoder into columns. Fails for types that messages can't become.
    pub fn new(
        columns: &SchemaRef,
        schemas: &Arc<Schemas<ProtoSchema>>,
        message: Option<&str>,
    ) -> Result<ProtobufDecoder> {
        StructTarget::new(columns.fields()).map_err(Error::Invalid)?;
        Ok(ProtobufDecoder {
            columns: columns.fields().clone(),
            schemas: schemas.clone(),
            message: message.map(str::to_string),
            plans: Mutex::default(),
        })
    }

    fn plan(
        &self,
        place: &Place,
    ) -> std::result::Result<Arc<std::result::Result<MessagePlan, String>>, String> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plans.get(place) {
            return Ok(known.clone());
        }
        let schema = self.schemas.get(place.0)?;
        let plan = match (schema.as_ref(), &place.1) {
            (Err(error), _) => Err(error.clone()),
            (Ok(schema), Some(path)) => schema.at(path).and_then(|id| resolve(schema, id, &self.columns)),
            (Ok(schema), None) => {
                schema.root(self.message.as_deref()).and_then(|id| resolve(schema, id, &self.columns))
            }
        };
        let plan = Arc::new(plan);
        // A wrong path is no reason to keep it: there are many.
        if plan.is_ok() || place.1.is_none() {
            plans.insert(place.clone(), plan.clone());
        }
        Ok(plan)
    }
}

impl Decode for ProtobufDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> std::result::Result<Vec<ArrayRef>, String> {
        let mut to = StructTarget::new(&self.columns)?;
        let mut latest: Option<(Place, Arc<std::result::Result<MessagePlan, String>>)> = None;
        for record in records {
            let bytes = &block[record.start as usize..record.end as usize];
            let (id, rest) = self.schemas.split(bytes)?;
            let (path, body) = match id {
                Some(_) => path(rest).map(|(path, body)| (Some(path), body))?,
                None => (None, rest),
            };
            let place = (id, path);
            let plan = match &latest {
                Some((known, plan)) if *known == place => plan.clone(),
                _ => self.plan(&place)?,
            };
            let with_id = |error: String| match id {
                Some(id) => format!("{error} (schema id {id})"),
                None => error,
            };
            let resolved = plan.as_ref().as_ref().map_err(|error| with_id(error.clone()))?;
            read_message(resolved, body, &mut to).map_err(|wrong| with_id(wrong.to_string()))?;
            latest = Some((place, plan));
        }
        to.columns()
    }

    fn explain(&self, _record: &[u8], error: String) -> String {
        error
    }

    fn is_text(&self) -> bool {
        false
    }
}

/// Splits the path of a message's type from its bytes: the number of places, then the places, as zigzag varints.
fn path(bytes: &[u8]) -> std::result::Result<(Vec<usize>, &[u8]), String> {
    let mut rest = bytes;
    let mut next = || {
        let (mut value, mut shift) = (0_u64, 0);
        while let [byte, behind @ ..] = rest {
            rest = behind;
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value >> 1);
            }
            if shift > 28 {
                return None;
            }
        }
        None
    };
    let wrong = || "the message has no path to its type behind the schema's id".to_string();
    let count = next().filter(|count| *count <= PATH_MAX).ok_or_else(wrong)?;
    let path: Option<Vec<usize>> = match count {
        0 => Some(vec![0]),
        count => (0..count).map(|_| next().and_then(|place| usize::try_from(place).ok())).collect(),
    };
    Ok((path.ok_or_else(wrong)?, rest))
}
