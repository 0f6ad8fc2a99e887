//! The entries of a journal: everything that determines an engine's behaviour.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use millstream_connect::{Arrival, BadRow, More};
use millstream_delta::{Cut, Delta, Digest, Epoch, Timestamp};
use serde_json::{Value, json};

use crate::cuts::{self, list};
use crate::{Error, Result, rows};

/// The point between two epochs at which something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last epoch.
    pub epoch: Epoch,
    /// The batch time.
    pub now: Timestamp,
    /// True if queries created at this point may backfill while epochs continue. A later entry says when each
    /// became current.
    pub begins_apart: bool,
}

/// The rows that an epoch took from a source that cannot be replayed.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The source.
    pub source: Arc<str>,
    /// The arrivals, unchanged.
    pub arrivals: Vec<Arrival>,
}

/// The position of a sink, as far as the journal recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The sink.
    pub sink: Arc<str>,
    /// The epoch up to which everything is published.
    pub through: Epoch,
    /// Digests of the rows handed to the sink since the previous record; empty if its rows have no digest.
    pub digests: Vec<Digested>,
}

/// The digest of the rows that a sink was handed in a range of epochs. A start replays all of the range or
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digested {
    /// The epoch before the range.
    pub after: Epoch,
    /// The last epoch of the range.
    pub through: Epoch,
    /// The digest of the sum of their changes.
    pub digest: Digest,
}

/// Everything that determined one epoch.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The cut.
    pub cut: Cut,
    /// The changes of tables, and the rows put into sources, by name.
    pub changes: Vec<(Arc<str>, Delta)>,
    /// The rows taken from sources that cannot be replayed.
    pub brought: Vec<Brought>,
    /// The names of the script statements that took effect in this epoch.
    pub done: Vec<String>,
    /// The positions of sinks that moved since the previous entry that records them.
    pub delivered: Vec<Delivered>,
}

/// The stored plan of an object's query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The object.
    pub object: String,
    /// The version of the program that planned it.
    pub version: String,
    /// The plan, or the part of the query that cannot be stored, so that a start plans it again.
    pub plan: Result<Vec<u8>, String>,
}

/// The state of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceValue {
    /// Its name.
    pub sequence: String,
    /// Its last number, or the first one.
    pub last: i64,
    /// False if `last` is the next number.
    pub is_called: bool,
}

/// One event in the life of an engine.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The engine was opened.
    Opened {
        /// The version of the program.
        version: String,
        /// The time.
        at: Timestamp,
    },
    /// A process took over an object store prefix; the previous owner writes no more.
    Claimed {
        /// The unique name of the process.
        by: String,
    },
    /// Statements that took effect together created, changed or dropped objects.
    Changed {
        /// The statements.
        statements: Vec<String>,
        /// The settings of the session that apply to them.
        variables: Vec<(String, String)>,
        /// The names of the script statements among them.
        done: Vec<String>,
        /// The plans of the queries they created. Older versions stored none.
        plans: Vec<Plan>,
        /// The point of the change.
        standing: Standing,
    },
    /// A program created a table and gave its columns.
    TableMade {
        /// Its name.
        name: String,
        /// Its columns.
        schema: SchemaRef,
        /// The indices of its primary key's columns.
        key: Vec<usize>,
        /// The point of the change.
        standing: Standing,
    },
    /// A setting changed.
    Set {
        /// Its name.
        name: String,
        /// The value, as SET takes it.
        value: String,
    },
    /// An object was paused or resumed; without a name, all that can be paused.
    Paused {
        /// Its name.
        name: Option<String>,
        /// True if it was paused, false if it was resumed.
        pause: bool,
        /// True if the rows that sinks brought into tables meanwhile were part of a later epoch. In older versions they
        /// were part of none.
        stages: bool,
        /// The point of the change.
        standing: Standing,
    },
    /// An epoch was decided.
    Epoch(Box<Recorded>),
    /// A query became current after its backfill.
    Arrived {
        /// The query.
        query: String,
        /// The point of the change.
        standing: Standing,
    },
    /// The position of a durable subscription moved: its reader confirmed everything up to an epoch.
    Advanced {
        /// The subscription.
        subscription: String,
        /// The epoch.
        through: Epoch,
    },
    /// A sequence moved on, or was set.
    Sequence(SequenceValue),
    /// Batches due up to a time were skipped.
    Skipped {
        /// The time.
        to: Timestamp,
    },
    /// The engine was closed.
    Closed {
        /// The positions of sinks that moved since the previous entry that records them.
        delivered: Vec<Delivered>,
    },
}

/// The JSON of an entry, and its streams of rows.
struct Parts {
    json: Value,
    streams: Vec<Vec<u8>>,
}

impl Parts {
    fn plain(json: Value) -> Parts {
        Parts { json, streams: Vec::new() }
    }
}

impl Entry {
    /// Encodes the entry: the length of the JSON, the JSON, then each stream after its length.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let Parts { json, streams } = self.parts()?;
        let json = json.to_string();
        let mut bytes =
            Vec::with_capacity(json.len() + streams.iter().map(|stream| stream.len() + 4).sum::<usize>() + 4);
        for part in std::iter::once(json.as_bytes()).chain(streams.iter().map(Vec::as_slice)) {
            let length = u32::try_from(part.len()).map_err(|_| too_long(part.len()))?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    fn parts(&self) -> Result<Parts> {
        Ok(match self {
            Entry::Opened { version, at } => {
                Parts::plain(json!({"is": "opened", "version": version, "at": at.0}))
            }
            Entry::Claimed { by } => Parts::plain(json!({"is": "claimed", "by": by})),
            Entry::Changed { statements, variables, done, plans, standing } => Parts {
                json: json!({
                    "is": "changed", "statements": statements, "variables": variables, "done": done,
                    "plans": plans.iter().map(encode_plan).collect::<Vec<_>>(), "at": encode_standing(*standing),
                }),
                streams: plans.iter().filter_map(|plan| plan.plan.as_ref().ok().cloned()).collect(),
            },
            Entry::TableMade { name, schema, key, standing } => Parts {
                json: json!({"is": "table", "name": name, "key": key, "at": encode_standing(*standing)}),
                streams: vec![rows::encode(schema, &[])?],
            },
            Entry::Set { name, value } => Parts::plain(json!({"is": "set", "name": name, "value": value})),
            Entry::Paused { name, pause, stages, standing } => Parts::plain(json!({
                "is": "paused", "name": name, "pause": pause, "stages": stages, "at": encode_standing(*standing),
            })),
            Entry::Epoch(recorded) => recorded.parts()?,
            Entry::Arrived { query, standing } => {
                Parts::plain(json!({"is": "arrived", "query": query, "at": encode_standing(*standing)}))
            }
            Entry::Advanced { subscription, through } => {
                Parts::plain(json!({"is": "advanced", "subscription": subscription, "through": through.0}))
            }
            Entry::Sequence(SequenceValue { sequence, last, is_called }) => Parts::plain(
                json!({"is": "sequence", "sequence": sequence, "last": last, "called": is_called}),
            ),
            Entry::Skipped { to } => Parts::plain(json!({"is": "skipped", "to": to.0})),
            Entry::Closed { delivered } => {
                Parts::plain(json!({"is": "closed", "delivered": encode_delivered(delivered)}))
            }
        })
    }

    /// Decodes the bytes of [`Entry::encode`], or describes what is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, String> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let (part, behind) = behind.split_at_checked(length).ok_or("a part of it is missing")?;
            parts.push(part);
            rest = behind;
        }
        let (json, streams) = parts.split_first().ok_or("it is empty")?;
        let json: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        decode(&json, streams)?.ok_or_else(|| format!("this version can't read an entry such as {json}"))
    }
}

fn decode(json: &Value, streams: &[&[u8]]) -> Result<Option<Entry>, String> {
    let text = |name: &str| json.get(name)?.as_str().map(str::to_string);
    let standing = || decode_standing(json.get("at")?);
    let arrow = |error: arrow::error::ArrowError| error.to_string();
    let entry = match json.get("is").and_then(Value::as_str) {
        Some("epoch") => {
            return Ok(Recorded::decode(json, streams)?.map(|recorded| Entry::Epoch(Box::new(recorded))));
        }
        Some("table") => {
            let Some(stream) = streams.first() else { return Ok(None) };
            let schema = rows::decode(stream).map_err(arrow)?.0;
            let key = || list(json.get("key")?, |place| usize::try_from(place.as_u64()?).ok());
            (|| Some(Entry::TableMade { name: text("name")?, schema, key: key()?, standing: standing()? }))()
        }
        Some("changed") => {
            let plans = decode_plans(json.get("plans"), streams)?;
            let string = |value: &Value| value.as_str().map(str::to_string);
            let pair = |pair: &Value| Some((string(pair.get(0)?)?, string(pair.get(1)?)?));
            (|| {
                Some(Entry::Changed {
                    statements: list(json.get("statements")?, string)?,
                    variables: list(json.get("variables")?, pair)?,
                    done: list(json.get("done")?, string)?,
                    plans: plans?,
                    standing: standing()?,
                })
            })()
        }
        Some(is) => decode_plain(is, json, &text, &standing),
        None => None,
    };
    Ok(entry)
}

/// Decodes the entries without rows.
fn decode_plain(
    is: &str,
    json: &Value,
    text: &dyn Fn(&str) -> Option<String>,
    standing: &dyn Fn() -> Option<Standing>,
) -> Option<Entry> {
    let string = |value: &Value| value.as_str().map(str::to_string);
    Some(match is {
        "opened" => Entry::Opened { version: text("version")?, at: Timestamp(json.get("at")?.as_i64()?) },
        "claimed" => Entry::Claimed { by: text("by")? },
        "set" => Entry::Set { name: text("name")?, value: text("value")? },
        "paused" => Entry::Paused {
            name: cuts::optional(json.get("name")?, string)?,
            pause: json.get("pause")?.as_bool()?,
            stages: json.get("stages").and_then(Value::as_bool).unwrap_or(false),
            standing: standing()?,
        },
        "arrived" => Entry::Arrived { query: text("query")?, standing: standing()? },
        "advanced" => Entry::Advanced {
            subscription: text("subscription")?,
            through: Epoch(json.get("through")?.as_u64()?),
        },
        "sequence" => Entry::Sequence(SequenceValue {
            sequence: text("sequence")?,
            last: json.get("last")?.as_i64()?,
            is_called: json.get("called")?.as_bool()?,
        }),
        "skipped" => Entry::Skipped { to: Timestamp(json.get("to")?.as_i64()?) },
        "closed" => Entry::Closed { delivered: decode_delivered(json.get("delivered")?)? },
        _ => return None,
    })
}

impl Recorded {
    /// `changes` and `brought` give the number of streams that each of their elements takes, in order.
    fn parts(&self) -> Result<Parts> {
        let mut streams = Vec::new();
        let mut changes = Vec::with_capacity(self.changes.len());
        for (name, delta) in &self.changes {
            let of = rows::encode_delta(delta)?;
            changes.push(json!([name.as_ref(), of.len()]));
            streams.extend(of);
        }
        let mut brought = Vec::with_capacity(self.brought.len());
        for Brought { source, arrivals } in &self.brought {
            let arrivals = arrivals.iter().map(|arrival| encode_arrival(arrival, &mut streams));
            brought.push(json!([source.as_ref(), arrivals.collect::<Result<Vec<_>>>()?]));
        }
        let json = json!({
            "is": "epoch", "cut": cuts::encode(&self.cut), "changes": changes, "brought": brought, "done": self.done,
            "delivered": encode_delivered(&self.delivered),
        });
        Ok(Parts { json, streams })
    }

    fn decode(json: &Value, streams: &[&[u8]]) -> Result<Option<Recorded>, String> {
        let mut streams = streams;
        let mut take = |count: usize| {
            let (taken, rest) = streams.split_at_checked(count).ok_or("rows of it are missing")?;
            streams = rest;
            Ok::<_, String>(taken)
        };
        let Some(cut) = json.get("cut").and_then(cuts::decode) else { return Ok(None) };
        let string = |value: &Value| value.as_str().map(str::to_string);
        let done = json.get("done").and_then(|done| list(done, string));
        let delivered = json.get("delivered").and_then(decode_delivered);
        let (Some(done), Some(delivered)) = (done, delivered) else { return Ok(None) };
        let mut changes = Vec::new();
        for change in json.get("changes").and_then(Value::as_array).into_iter().flatten() {
            let Some((name, count)) = name_and_count(change) else { return Ok(None) };
            let delta =
                rows::decode_delta(take(count)?.iter().copied()).map_err(|error| error.to_string())?;
            changes.push((name, delta));
        }
        let mut brought = Vec::new();
        for of in json.get("brought").and_then(Value::as_array).into_iter().flatten() {
            let Some(source) = of.get(0).and_then(Value::as_str) else { return Ok(None) };
            let mut arrivals = Vec::new();
            for arrival in of.get(1).and_then(Value::as_array).into_iter().flatten() {
                let Some(arrival) = decode_arrival(arrival, &mut take)? else { return Ok(None) };
                arrivals.push(arrival);
            }
            brought.push(Brought { source: source.into(), arrivals });
        }
        Ok(Some(Recorded { cut, changes, brought, done, delivered }))
    }
}

fn name_and_count(value: &Value) -> Option<(Arc<str>, usize)> {
    Some((value.get(0)?.as_str()?.into(), usize::try_from(value.get(1)?.as_u64()?).ok()?))
}

/// Adds one stream for the rows and one for the bad rows, if there are any.
fn encode_arrival(arrival: &Arrival, streams: &mut Vec<Vec<u8>>) -> Result<Value> {
    if let Some(first) = arrival.rows.first() {
        streams.push(rows::encode(&first.schema(), &arrival.rows)?);
    }
    if !arrival.bad_rows.is_empty() {
        let batch = encode_bad_rows(&arrival.bad_rows)?;
        streams.push(rows::encode(&batch.schema(), std::slice::from_ref(&batch))?);
    }
    let splits: Vec<&str> = arrival.splits.iter().map(AsRef::as_ref).collect();
    Ok(json!({
        "spans": arrival.spans.iter().map(cuts::encode_span).collect::<Vec<_>>(),
        "splits": splits,
        "rows": !arrival.rows.is_empty(),
        "bad_rows": !arrival.bad_rows.is_empty(),
    }))
}

fn decode_arrival<'a>(
    json: &Value,
    take: &mut impl FnMut(usize) -> Result<&'a [&'a [u8]], String>,
) -> Result<Option<Arrival>, String> {
    let has = |name: &str| json.get(name).and_then(Value::as_bool);
    let spans = json.get("spans").and_then(|spans| list(spans, cuts::decode_span));
    let splits = json.get("splits").and_then(|splits| list(splits, |split| split.as_str().map(Arc::from)));
    let (Some(spans), Some(splits), Some(has_rows), Some(has_bad)) =
        (spans, splits, has("rows"), has("bad_rows"))
    else {
        return Ok(None);
    };
    let mut arrival = Arrival { spans, splits, ..Arrival::nothing(More::Later) };
    for stream in take(usize::from(has_rows))? {
        arrival.rows = rows::decode(stream).map_err(|error| error.to_string())?.1;
    }
    for stream in take(usize::from(has_bad))? {
        for batch in rows::decode(stream).map_err(|error| error.to_string())?.1 {
            arrival.bad_rows.extend(decode_bad_rows(&batch).ok_or("its bad rows have other columns")?);
        }
    }
    Ok(Some(arrival))
}

fn encode_bad_rows(bad: &[BadRow]) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("split", DataType::Utf8, false),
        Field::new("offset", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("bytes", DataType::Binary, false),
    ]);
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(StringArray::from_iter_values(bad.iter().map(|row| row.split.as_ref()))),
        Arc::new(UInt64Array::from_iter_values(bad.iter().map(|row| row.offset))),
        Arc::new(StringArray::from_iter_values(bad.iter().map(|row| &row.reason))),
        Arc::new(BinaryArray::from_iter_values(bad.iter().map(|row| &row.bytes))),
    ];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn decode_bad_rows(batch: &RecordBatch) -> Option<Vec<BadRow>> {
    let [splits, offsets, reasons, bytes] = batch.columns() else { return None };
    let (splits, reasons) = (splits.as_string_opt::<i32>()?, reasons.as_string_opt::<i32>()?);
    let (offsets, bytes) = (offsets.as_primitive_opt::<UInt64Type>()?, bytes.as_binary_opt::<i32>()?);
    let row = |at: usize| BadRow {
        split: splits.value(at).into(),
        offset: offsets.value(at),
        reason: reasons.value(at).to_string(),
        bytes: bytes.value(at).to_vec(),
    };
    Some((0..batch.num_rows()).map(row).collect())
}

fn encode_delivered(delivered: &[Delivered]) -> Vec<Value> {
    let digest = |of: &Digested| json!([of.after.0, of.through.0, of.digest.to_string()]);
    let encode = |of: &Delivered| {
        json!([of.sink.as_ref(), of.through.0, of.digests.iter().map(digest).collect::<Vec<_>>()])
    };
    delivered.iter().map(encode).collect()
}

/// Older versions wrote no digests, and later ones may compute them differently; digests that don't decode
/// are skipped.
fn decode_delivered(value: &Value) -> Option<Vec<Delivered>> {
    let digest = |of: &Value| {
        let digest = of.get(2)?.as_str()?.parse().ok()?;
        Some(Digested { after: Epoch(of.get(0)?.as_u64()?), through: Epoch(of.get(1)?.as_u64()?), digest })
    };
    list(value, |of| {
        let digests = of.get(2).and_then(Value::as_array);
        Some(Delivered {
            sink: of.get(0)?.as_str()?.into(),
            through: Epoch(of.get(1)?.as_u64()?),
            digests: digests.into_iter().flatten().filter_map(digest).collect(),
        })
    })
}

/// Returns the object, the version that planned it, and the reason if there is no plan. A plan itself is a
/// stream.
fn encode_plan(plan: &Plan) -> Value {
    json!([plan.object, plan.version, plan.plan.as_ref().err()])
}

/// Returns `None` if the plans have an unknown form.
fn decode_plans(written: Option<&Value>, streams: &[&[u8]]) -> Result<Option<Vec<Plan>>, String> {
    let Some(written) = written else { return Ok(Some(Vec::new())) };
    let Some(written) = written.as_array() else { return Ok(None) };
    let mut streams = streams.iter();
    let mut plans = Vec::new();
    for plan in written {
        let text = |place: usize| plan.get(place).and_then(Value::as_str).map(str::to_string);
        let (Some(object), Some(version)) = (text(0), text(1)) else { return Ok(None) };
        let plan = match plan.get(2).and_then(Value::as_str) {
            Some(reason) => Err(reason.to_string()),
            None => Ok(streams.next().ok_or("a plan of it is missing")?.to_vec()),
        };
        plans.push(Plan { object, version, plan });
    }
    Ok(Some(plans))
}

fn encode_standing(standing: Standing) -> Value {
    match standing.begins_apart {
        true => json!([standing.epoch.0, standing.now.0, true]),
        false => json!([standing.epoch.0, standing.now.0]),
    }
}

fn decode_standing(value: &Value) -> Option<Standing> {
    Some(Standing {
        epoch: Epoch(value.get(0)?.as_u64()?),
        now: Timestamp(value.get(1)?.as_i64()?),
        begins_apart: value.get(2).and_then(Value::as_bool).unwrap_or(false),
    })
}

fn too_long(length: usize) -> Error {
    Error::Arrow(arrow::error::ArrowError::IpcError(format!(
        "{length} bytes are more than a part of an entry can have"
    )))
}
