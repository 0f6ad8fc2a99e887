//! The log as JSON, one object a line: `timestamp`, `level`, `target`, `message`, and the fields of the event.
//!
//! The feature `json` of tracing-subscriber isn't used: it nests the fields, or lets them take the names above.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Debug};
use std::panic::PanicHookInfo;
use std::thread;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The names that each object has. A field of the same name gets a `_` at its end.
const NAMES: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Formats events as objects.
pub struct Objects;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for Objects
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let object = object(*metadata.level(), metadata.target(), &fields.message, fields.others);
        writeln!(writer, "{object}")
    }
}

/// Returns the object of a message.
pub fn message(level: Level, target: &str, message: &str) -> String {
    object(level, target, message, Map::new())
}

/// Returns the object of a panic: its place in the code, its thread, and its backtrace if RUST_BACKTRACE asks for one.
pub fn panicked(panic: &PanicHookInfo<'_>) -> String {
    let mut fields = Map::new();
    if let Some(place) = panic.location() {
        fields.insert("location".into(), place.to_string().into());
    }
    fields.insert("thread".into(), thread::current().name().unwrap_or("unnamed").into());
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        fields.insert("backtrace".into(), backtrace.to_string().into());
    }
    let said = panic.payload_as_str().unwrap_or("it doesn't say why");
    object(Level::ERROR, "panic", &format!("panicked: {said}"), fields)
}

/// Returns a line of JSON.
fn object(level: Level, target: &str, message: &str, fields: Map<String, Value>) -> String {
    let mut timestamp = String::new();
    // A time that can't be told stays empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let named = [timestamp.as_str(), level.as_str(), target, message];
    let mut line = String::from("{");
    for (name, value) in NAMES.into_iter().zip(named) {
        line.push_str(&format!("\"{name}\":{},", Value::from(value)));
    }
    for (name, value) in fields {
        let suffix = if NAMES.contains(&name.as_str()) { "_" } else { "" };
        line.push_str(&format!("{}:{value},", Value::from(name + suffix)));
    }
    line.pop();
    line.push('}');
    line
}

/// The message and the other fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        let text = || Value::from(value.to_string());
        self.add(field, serde_json::Number::from_f64(value).map_or_else(text, Value::Number));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::json;
    use tracing_subscriber::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn parsed(line: &str) -> Value {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let time = value.as_object_mut().unwrap().remove("timestamp").unwrap();
        let time = time.as_str().unwrap();
        assert!(time.len() == "2026-01-02T03:04:05.678901Z".len() && time.ends_with('Z'), "{time}");
        value
    }

    #[test]
    fn an_event_is_a_line_with_its_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer =
            tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(Objects);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let name = "a\"b\nc\u{1b}";
            tracing::warn!(epoch = 7_u64, took = 0.5, slow = true, %name, rate = f64::NAN, level = "x", "slow \"epoch\"\n2");
            tracing::info!(target: "other", delta = -3, r#type = ?Some(1));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let found: Vec<Value> = text.lines().map(parsed).collect();
        assert_eq!(
            found,
            [
                json!({
                    "level": "WARN", "target": module_path!(), "message": "slow \"epoch\"\n2", "epoch": 7, "took": 0.5,
                    "slow": true, "name": "a\"b\nc\u{1b}", "rate": "NaN", "level_": "x"
                }),
                json!({"level": "INFO", "target": "other", "message": "", "delta": -3, "type": "Some(1)"}),
            ]
        );
        assert!(text.starts_with("{\"timestamp\":\""), "{text}");
    }

    #[test]
    fn a_message_is_an_object() {
        let found = parsed(&message(Level::ERROR, "millstream", "two\nlines"));
        assert_eq!(found, json!({"level": "ERROR", "target": "millstream", "message": "two\nlines"}));
    }
}
