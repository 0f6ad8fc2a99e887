//! Cuts as JSON, so that people can read a journal.

use std::sync::Arc;

use millstream_delta::{Closes, Cut, Epoch, Mark, Span, Standing, Timestamp};
use serde_json::{Value, json};

/// Encodes a cut as JSON.
pub(crate) fn encode(cut: &Cut) -> Value {
    let spans = |spans: &[Span]| spans.iter().map(encode_span).collect::<Vec<Value>>();
    let marks = |marks: &[Mark]| marks.iter().map(encode_mark).collect::<Vec<Value>>();
    json!({
        "epoch": cut.epoch.0,
        "now": cut.now.0,
        "started": cut.started.0,
        "closes": closes_name(cut.closes),
        "positions": cut.positions.iter().map(|(name, of)| json!([name.as_ref(), spans(of)])).collect::<Vec<_>>(),
        "watermarks": cut.watermarks.iter().map(|(name, at)| json!([name.as_ref(), at])).collect::<Vec<_>>(),
        "marks": cut.marks.iter().map(|(name, of)| json!([name.as_ref(), marks(of)])).collect::<Vec<_>>(),
        "event_time_max": cut.event_time_max.map(|at| at.0),
    })
}

/// Decodes a cut; `None` if the value is not a cut.
pub(crate) fn decode(value: &Value) -> Option<Cut> {
    Some(Cut {
        epoch: Epoch(value.get("epoch")?.as_u64()?),
        now: Timestamp(value.get("now")?.as_i64()?),
        started: Timestamp(value.get("started")?.as_i64()?),
        closes: closes(value.get("closes")?.as_str()?)?,
        positions: named(value.get("positions")?, |of| list(of, decode_span))?,
        watermarks: named(value.get("watermarks")?, Value::as_i64)?,
        marks: named(value.get("marks")?, |of| list(of, decode_mark))?,
        event_time_max: optional(value.get("event_time_max")?, |at| at.as_i64().map(Timestamp))?,
    })
}

/// Decodes a list of values.
pub(crate) fn list<T>(value: &Value, decode: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(decode).collect()
}

fn named<T>(value: &Value, decode: impl Fn(&Value) -> Option<T>) -> Option<Vec<(Arc<str>, T)>> {
    list(value, |pair| Some((pair.get(0)?.as_str()?.into(), decode(pair.get(1)?)?)))
}

/// Decodes a value that may be null.
pub(crate) fn optional<T>(value: &Value, decode: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { decode(value).map(Some) }
}

/// Encodes a span as JSON.
pub(crate) fn encode_span(span: &Span) -> Value {
    json!([span.split.as_ref(), span.from, span.to, span.done])
}

/// Decodes a span from JSON.
pub(crate) fn decode_span(value: &Value) -> Option<Span> {
    Some(Span {
        split: value.get(0)?.as_str()?.into(),
        from: value.get(1)?.as_u64()?,
        to: value.get(2)?.as_u64()?,
        done: value.get(3)?.as_bool()?,
    })
}

fn encode_mark(mark: &Mark) -> Value {
    let standing = match mark.standing {
        Standing::Active => "active",
        Standing::Idle => "idle",
        Standing::Ended => "ended",
    };
    json!([mark.partition.as_ref(), mark.newest, standing])
}

fn decode_mark(value: &Value) -> Option<Mark> {
    let standing = match value.get(2)?.as_str()? {
        "active" => Standing::Active,
        "idle" => Standing::Idle,
        "ended" => Standing::Ended,
        _ => return None,
    };
    Some(Mark {
        partition: value.get(0)?.as_str()?.into(),
        newest: optional(value.get(1)?, Value::as_i64)?,
        standing,
    })
}

fn closes_name(closes: Closes) -> &'static str {
    match closes {
        Closes::None => "none",
        Closes::Filled => "filled",
        Closes::All => "all",
    }
}

fn closes(name: &str) -> Option<Closes> {
    [Closes::None, Closes::Filled, Closes::All].into_iter().find(|closes| closes_name(*closes) == name)
}
