//! Avro schemas, parsed from their JSON.

use std::collections::HashMap;

use arrow::datatypes::TimeUnit;
use serde_json::{Map, Value};

use crate::RegisteredSchema;

/// The place of a type in its schema.
pub(crate) type TypeId = usize;

/// A schema: its types refer to each other by place, since a type may contain itself.
#[derive(Debug)]
pub(crate) struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
}

/// A type of a schema.
#[derive(Debug)]
pub(crate) struct AvroType {
    pub kind: Kind,
    pub logical: Option<Logical>,
}

/// The kinds of types.
#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Record { name: String, fields: Vec<(String, TypeId)> },
    Union(Vec<TypeId>),
}

/// The logical types that columns distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logical {
    Date,
    Time(TimeUnit),
    /// An instant.
    Timestamp(TimeUnit),
    /// A date with a time of day.
    LocalTimestamp(TimeUnit),
    Decimal {
        precision: usize,
        scale: usize,
    },
    Uuid,
    Duration,
}

impl AvroSchema {
    /// Parses a schema. `references` are the schemas whose named types it uses, each after those that it uses itself.
    pub fn parse(text: &str, references: &[String]) -> Result<AvroSchema, String> {
        let mut parser = Parser { types: Vec::new(), names: HashMap::new() };
        for reference in references {
            parser.text(reference)?;
        }
        let root = parser.text(text)?;
        Ok(AvroSchema { types: parser.types, root })
    }

    /// Reads the content of a file.
    pub fn of_file(content: &[u8]) -> Result<AvroSchema, String> {
        let text = std::str::from_utf8(content).map_err(|error| format!("it is no text: {error}"))?;
        AvroSchema::parse(text, &[])
    }

    /// Parses a registered schema.
    pub fn registered(schema: &RegisteredSchema) -> Result<AvroSchema, String> {
        match schema.kind.as_str() {
            "AVRO" => AvroSchema::parse(&schema.text, &schema.references),
            other => Err(format!("it is a schema of {other}, but AVRO was expected")),
        }
    }

    /// Returns the type of a datum.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// Returns a type.
    pub fn get(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }

    /// Returns the name of a type, for messages.
    pub fn name(&self, id: TypeId) -> String {
        let found = self.get(id);
        let kind = match &found.kind {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes => "bytes",
            Kind::String => "string",
            Kind::Fixed(_) => "fixed",
            Kind::Enum(_) => "enum",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
            Kind::Record { .. } => "record",
            Kind::Union(_) => "union",
        };
        match found.logical {
            None => kind.to_string(),
            Some(Logical::Decimal { precision, scale }) => format!("decimal({precision}, {scale})"),
            Some(logical) => format!("{kind} ({})", logical.name()),
        }
    }
}

impl Logical {
    fn name(self) -> &'static str {
        let of = |unit: TimeUnit, names: [&'static str; 3]| match unit {
            TimeUnit::Second | TimeUnit::Millisecond => names[0],
            TimeUnit::Microsecond => names[1],
            TimeUnit::Nanosecond => names[2],
        };
        match self {
            Logical::Date => "date",
            Logical::Time(unit) => of(unit, ["time-millis", "time-micros", "time-nanos"]),
            Logical::Timestamp(unit) => of(unit, ["timestamp-millis", "timestamp-micros", "timestamp-nanos"]),
            Logical::LocalTimestamp(unit) => {
                of(unit, ["local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"])
            }
            Logical::Decimal { .. } => "decimal",
            Logical::Uuid => "uuid",
            Logical::Duration => "duration",
        }
    }
}

struct Parser {
    types: Vec<AvroType>,
    names: HashMap<String, TypeId>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<TypeId, String> {
        // The parser of JSON limits the depth.
        let json: Value =
            serde_json::from_str(text).map_err(|error| format!("the schema is no JSON: {error}"))?;
        self.schema(&json, "")
    }

    fn push(&mut self, kind: Kind, logical: Option<Logical>) -> TypeId {
        self.types.push(AvroType { kind, logical });
        self.types.len() - 1
    }

    fn schema(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.named_or_primitive(name, namespace, None),
            Value::Array(branches) => {
                let branches: Result<Vec<TypeId>, String> =
                    branches.iter().map(|branch| self.schema(branch, namespace)).collect();
                Ok(self.push(Kind::Union(branches?), None))
            }
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("the schema has {other} where a type was expected")),
        }
    }

    fn named_or_primitive(
        &mut self,
        name: &str,
        namespace: &str,
        object: Option<&Map<String, Value>>,
    ) -> Result<TypeId, String> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            _ => {
                let qualified = qualified(name, namespace);
                let found = self.names.get(&qualified).or_else(|| self.names.get(name));
                return found
                    .copied()
                    .ok_or_else(|| format!("the schema uses type '{name}', but has none of that name"));
            }
        };
        let logical = object.and_then(|object| logical(object, &kind));
        Ok(self.push(kind, logical))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let name = match object.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(nested) => return self.schema(nested, namespace),
            None => return Err("the schema has an object without \"type\"".to_string()),
        };
        match name {
            "array" => self.container(object, "items", namespace, Kind::Array),
            "map" => self.container(object, "values", namespace, Kind::Map),
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols = object.get("symbols").and_then(Value::as_array);
                let symbols = symbols.ok_or("the schema has an enum without \"symbols\"")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().unwrap_or_default().to_string());
                let kind = Kind::Enum(symbols.collect());
                self.define(object, namespace, kind).map(|(id, _)| id)
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let kind = Kind::Fixed(size.ok_or("the schema has a fixed without \"size\"")?);
                self.define(object, namespace, kind).map(|(id, _)| id)
            }
            name => self.named_or_primitive(name, namespace, Some(object)),
        }
    }

    fn container(
        &mut self,
        object: &Map<String, Value>,
        of: &str,
        namespace: &str,
        kind: fn(TypeId) -> Kind,
    ) -> Result<TypeId, String> {
        let inner = object.get(of).ok_or_else(|| format!("the schema has a type without \"{of}\""))?;
        let inner = self.schema(inner, namespace)?;
        Ok(self.push(kind(inner), None))
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let fields = object.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or("the schema has a record without \"fields\"")?;
        let empty = Kind::Record { name: String::new(), fields: Vec::new() };
        let (id, full) = self.define(object, namespace, empty)?;
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let mut read = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field.get("name").and_then(Value::as_str);
            let name =
                name.ok_or_else(|| format!("record '{full}' of the schema has a field without \"name\""))?;
            let of = field.get("type");
            let of = of.ok_or_else(|| format!("field '{name}' of record '{full}' has no \"type\""))?;
            read.push((name.to_string(), self.schema(of, namespace)?));
        }
        if let Kind::Record { name, fields } = &mut self.types[id].kind {
            (*name, *fields) = (full.clone(), read);
        }
        Ok(id)
    }

    /// Adds a named type. Returns its place and its full name.
    fn define(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        kind: Kind,
    ) -> Result<(TypeId, String), String> {
        let name = object.get("name").and_then(Value::as_str);
        let name = name.ok_or("the schema has a record, an enum or a fixed without \"name\"")?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = qualified(name, namespace);
        let logical = logical(object, &kind);
        let id = self.push(kind, logical);
        self.names.insert(full.clone(), id);
        Ok((id, full))
    }
}

fn qualified(name: &str, namespace: &str) -> String {
    match namespace.is_empty() || name.contains('.') {
        true => name.to_string(),
        false => format!("{namespace}.{name}"),
    }
}

/// Returns the logical type of an object. One that doesn't fit its type is ignored, as Avro's specification says.
fn logical(object: &Map<String, Value>, kind: &Kind) -> Option<Logical> {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond};
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let number =
        |name: &str| object.get(name).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
    let named = text("logicalType").or_else(|| text("connect.name"))?;
    match (kind, named) {
        (Kind::Int, "date" | "io.debezium.time.Date") => Some(Logical::Date),
        (Kind::Int, "time-millis" | "io.debezium.time.Time") => Some(Logical::Time(Millisecond)),
        (Kind::Long, "time-micros" | "io.debezium.time.MicroTime") => Some(Logical::Time(Microsecond)),
        (Kind::Long, "io.debezium.time.NanoTime") => Some(Logical::Time(Nanosecond)),
        (Kind::Long, "timestamp-millis") => Some(Logical::Timestamp(Millisecond)),
        (Kind::Long, "timestamp-micros") => Some(Logical::Timestamp(Microsecond)),
        (Kind::Long, "timestamp-nanos") => Some(Logical::Timestamp(Nanosecond)),
        (Kind::Long, "local-timestamp-millis" | "io.debezium.time.Timestamp") => {
            Some(Logical::LocalTimestamp(Millisecond))
        }
        (Kind::Long, "local-timestamp-micros" | "io.debezium.time.MicroTimestamp") => {
            Some(Logical::LocalTimestamp(Microsecond))
        }
        (Kind::Long, "local-timestamp-nanos" | "io.debezium.time.NanoTimestamp") => {
            Some(Logical::LocalTimestamp(Nanosecond))
        }
        (Kind::Bytes | Kind::Fixed(_), "decimal") => {
            let (precision, scale) = (number("precision")?, number("scale").unwrap_or(0));
            (precision >= 1 && scale <= precision).then_some(Logical::Decimal { precision, scale })
        }
        (Kind::String, "io.debezium.time.ZonedTimestamp") => Some(Logical::Timestamp(Microsecond)),
        (Kind::String, "uuid") | (Kind::Fixed(16), "uuid") => Some(Logical::Uuid),
        (Kind::Fixed(12), "duration") => Some(Logical::Duration),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_in_their_namespace_and_through_references() {
        let referred = r#"{"type": "enum", "name": "x.Colour", "symbols": ["red"]}"#.to_string();
        let text = r#"{"type": "record", "name": "Node", "namespace": "a.b", "fields": [
            {"name": "next", "type": ["null", "Node"]},
            {"name": "of", "type": {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}},
            {"name": "again", "type": "a.b.Id"},
            {"name": "colour", "type": "x.Colour"},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}},
            {"name": "odd", "type": {"type": "string", "logicalType": "date"}}]}"#;
        let schema = AvroSchema::parse(text, &[referred]).unwrap();
        let Kind::Record { name, fields } = &schema.get(schema.root()).kind else { unreachable!() };
        assert_eq!(name, "a.b.Node");
        let names: Vec<String> = fields.iter().map(|(_, id)| schema.name(*id)).collect();
        assert_eq!(names, ["union", "fixed (uuid)", "fixed (uuid)", "enum", "decimal(5, 2)", "string"]);
    }

    #[test]
    fn wrong_schemas_are_refused() {
        let deep = "[".repeat(10_000);
        for (text, reason) in [
            ("{", "no JSON"),
            (deep.as_str(), "no JSON"),
            ("\"nothing\"", "uses type 'nothing'"),
            ("{\"type\": \"record\", \"name\": \"r\"}", "without \"fields\""),
            ("{\"type\": \"array\"}", "without \"items\""),
            ("{\"type\": \"fixed\", \"name\": \"f\", \"size\": -1}", "without \"size\""),
            ("7", "where a type was expected"),
        ] {
            let error = AvroSchema::parse(text, &[]).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
