//! Schemas of Protobuf: messages and enums, with their names resolved.

use std::collections::HashMap;

use super::descriptor;
use super::parser::{Parsed, parse};
use crate::RegisteredSchema;

/// The place of a message or an enum in its schema.
pub(crate) type TypeId = usize;

/// Types that schemas may use without a definition.
const WELL_KNOWN: &str = r#"syntax = "proto3"; package google.protobuf;
    message Timestamp { int64 seconds = 1; int32 nanos = 2; }
    message Duration { int64 seconds = 1; int32 nanos = 2; }
    message DoubleValue { double value = 1; } message FloatValue { float value = 1; }
    message Int64Value { int64 value = 1; } message UInt64Value { uint64 value = 1; }
    message Int32Value { int32 value = 1; } message UInt32Value { uint32 value = 1; }
    message BoolValue { bool value = 1; } message StringValue { string value = 1; }
    message BytesValue { bytes value = 1; } message Empty {}"#;

/// A schema with all types that it uses.
#[derive(Debug)]
pub(crate) struct ProtoSchema {
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    names: HashMap<String, Named>,
    /// The messages of the schema itself, in their order.
    roots: Vec<TypeId>,
}

/// A message.
#[derive(Debug, Default)]
pub(crate) struct MessageType {
    /// The name with the package's.
    pub name: String,
    pub fields: Vec<FieldType>,
    /// The messages within it, in their order; none stands for the entries of a map.
    pub nested: Vec<Option<TypeId>>,
    /// True if it is the entries of a map: a repeated field of it is that map.
    pub is_map_entry: bool,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct FieldType {
    pub name: String,
    pub number: u32,
    pub of: ValueType,
    pub label: Label,
}

/// How often a field occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// Absent is the zero of its type.
    Implicit,
    /// Absent is NULL.
    Optional,
    Repeated,
    /// Repeated, with keys of this type.
    Map(Scalar),
}

/// The type of a field's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueType {
    Scalar(Scalar),
    Message(TypeId),
    Enum(TypeId),
    /// A name within this scope, until the whole schema is parsed. It stays if the schema has no type of that name, which
    /// is an error only for columns of that type.
    Name(String, String),
}

/// An enum.
#[derive(Debug, Default)]
pub(crate) struct EnumType {
    pub values: Vec<(String, i32)>,
}

/// The type that a name refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {
    Message(TypeId),
    Enum(TypeId),
}

/// The scalar types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    SFixed32,
    SFixed64,
    Bool,
    String,
    Bytes,
}

impl Scalar {
    /// Returns the type with a name.
    pub fn named(name: &str) -> Option<Scalar> {
        Some(match name {
            "double" => Scalar::Double,
            "float" => Scalar::Float,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "uint32" => Scalar::UInt32,
            "uint64" => Scalar::UInt64,
            "sint32" => Scalar::SInt32,
            "sint64" => Scalar::SInt64,
            "fixed32" => Scalar::Fixed32,
            "fixed64" => Scalar::Fixed64,
            "sfixed32" => Scalar::SFixed32,
            "sfixed64" => Scalar::SFixed64,
            "bool" => Scalar::Bool,
            "string" => Scalar::String,
            "bytes" => Scalar::Bytes,
            _ => return None,
        })
    }
}

impl ProtoSchema {
    /// Parses a schema. `references` are the files that it imports.
    pub fn parse(text: &str, references: &[String]) -> Result<ProtoSchema, String> {
        let mut parsed = Parsed::default();
        parse(WELL_KNOWN, &mut parsed)?;
        for reference in references {
            parse(reference, &mut parsed)?;
        }
        parsed.roots.clear();
        parse(text, &mut parsed)?;
        ProtoSchema::resolved(parsed)
    }

    /// Reads the content of a file: the text of a `.proto`, or a descriptor set.
    pub fn of_file(content: &[u8]) -> Result<ProtoSchema, String> {
        // The numbers of fields are control characters of a descriptor set.
        let is_text = !content.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
        match std::str::from_utf8(content) {
            Ok(text) if is_text => ProtoSchema::parse(text, &[]),
            _ => {
                let mut parsed = Parsed::default();
                parse(WELL_KNOWN, &mut parsed)?;
                parsed.roots.clear();
                descriptor::read(content, &mut parsed)?;
                ProtoSchema::resolved(parsed)
            }
        }
    }

    /// Resolves the names of types.
    fn resolved(parsed: Parsed) -> Result<ProtoSchema, String> {
        let Parsed { mut messages, enums, names, roots } = parsed;
        if roots.is_empty() {
            return Err("the schema has no message".to_string());
        }
        for message in &mut messages {
            for field in &mut message.fields {
                if let ValueType::Name(name, scope) = &field.of {
                    field.of = match lookup(&names, name, scope) {
                        Some(Named::Message(id)) => ValueType::Message(id),
                        Some(Named::Enum(id)) => ValueType::Enum(id),
                        None => ValueType::Name(name.clone(), scope.clone()),
                    };
                }
                // A message is absent or there.
                let is_message = matches!(field.of, ValueType::Message(_) | ValueType::Name(..));
                if is_message && field.label == Label::Implicit {
                    field.label = Label::Optional;
                }
            }
        }
        fold_maps(&mut messages);
        Ok(ProtoSchema { messages, enums, names, roots })
    }

    /// Parses a registered schema.
    pub fn registered(schema: &RegisteredSchema) -> Result<ProtoSchema, String> {
        match schema.kind.as_str() {
            "PROTOBUF" => ProtoSchema::parse(&schema.text, &schema.references),
            other => Err(format!("it is a schema of {other}, but PROTOBUF was expected")),
        }
    }

    /// Returns the message with a name, or the first one.
    pub fn root(&self, name: Option<&str>) -> Result<TypeId, String> {
        match name {
            None => self.at(&[0]),
            Some(name) => match self.names.get(name.trim_start_matches('.')) {
                Some(Named::Message(id)) => Ok(*id),
                _ => Err(format!("the schema has no message '{name}'")),
            },
        }
    }

    /// Returns the message at a path: its place among the schema's messages, then among those within.
    pub fn at(&self, path: &[usize]) -> Result<TypeId, String> {
        let mut found = None;
        for place in path {
            let next = match found {
                None => self.roots.get(*place).copied(),
                Some(id) => self.message(id).nested.get(*place).copied().flatten(),
            };
            found = Some(next.ok_or_else(|| format!("the schema has no message at place {path:?}"))?);
        }
        found.ok_or_else(|| "the message names no type".to_string())
    }

    /// Returns a message.
    pub fn message(&self, id: TypeId) -> &MessageType {
        &self.messages[id]
    }

    /// Returns an enum.
    pub fn enumeration(&self, id: TypeId) -> &EnumType {
        &self.enums[id]
    }
}

/// Makes a map of each repeated field whose type is the entries of a map.
fn fold_maps(messages: &mut [MessageType]) {
    let entry = |message: &MessageType| {
        let field = |number: u32| message.fields.iter().find(|field| field.number == number);
        match (message.is_map_entry, &field(1)?.of, &field(2)?.of) {
            (true, ValueType::Scalar(key), value) => Some((*key, value.clone())),
            _ => None,
        }
    };
    let entries: Vec<Option<(Scalar, ValueType)>> = messages.iter().map(entry).collect();
    for field in messages.iter_mut().flat_map(|message| &mut message.fields) {
        if let (Label::Repeated, ValueType::Message(id)) = (&field.label, &field.of)
            && let Some((key, value)) = entries.get(*id).cloned().flatten()
        {
            (field.label, field.of) = (Label::Map(key), value);
        }
    }
}

/// Finds a name from the innermost scope outwards.
fn lookup(names: &HashMap<String, Named>, name: &str, scope: &str) -> Option<Named> {
    if let Some(full) = name.strip_prefix('.') {
        return names.get(full).copied();
    }
    let mut scope = scope;
    loop {
        let full = if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") };
        if let Some(found) = names.get(&full) {
            return Some(*found);
        }
        if scope.is_empty() {
            return None;
        }
        scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
    }
}
