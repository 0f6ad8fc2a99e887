//! Descriptor sets: `.proto` files that `protoc --include_imports --descriptor_set_out` has compiled. They are messages of
//! [descriptor.proto](https://protobuf.com/docs/descriptors).

use std::collections::BTreeSet;

use super::parser::{DEPTH_MAX, Parsed, within};
use super::read::{Raw, Wire};
use super::schema::{EnumType, FieldType, Label, MessageType, Named, Scalar, TypeId, ValueType};
use crate::formats::target::Wrong;

/// Why bytes are no descriptor set that can be used.
const NEITHER: &str = "it is neither the text of a .proto file nor a descriptor set that protoc --include_imports \
                       --descriptor_set_out has written";

/// The labels and types of fields that are more than a scalar.
const REPEATED: u64 = 3;
const GROUP: u64 = 10;
const MESSAGE: u64 = 11;
const ENUM: u64 = 14;

/// The fields of options that hold features of editions: of a file, of a message, of a field.
const FEATURES: [u32; 3] = [50, 12, 21];

/// Reads a set. The messages of the last file that has some are the roots: imports come before the files that import them.
pub(super) fn read(bytes: &[u8], to: &mut Parsed) -> Result<(), String> {
    let neither = |wrong: Wrong| format!("{NEITHER}: {wrong}");
    let (mut names, mut imports) = (BTreeSet::new(), Vec::new());
    for (number, file) in Fields::of(bytes).map_err(neither)?.0 {
        let Raw::Bytes(file) = file else { return Err(NEITHER.to_string()) };
        if number != 1 {
            return Err(NEITHER.to_string());
        }
        let file = Fields::of(file).map_err(neither)?;
        let name = file.text(1).map_err(neither)?.ok_or(NEITHER)?;
        for import in file.texts(3).map_err(neither)? {
            imports.push((name, import));
        }
        names.insert(name);
        Reader { presence: Presence::of_file(&file).map_err(neither)?, to }.file(&file)?;
    }
    // Options of google/protobuf/descriptor.proto and the like change no encoding.
    let is_missing = |import: &str| !names.contains(import) && !import.starts_with("google/protobuf/");
    match imports.iter().find(|(_, import)| is_missing(import)) {
        Some((file, import)) => Err(format!(
            "the descriptor set lacks '{import}', which '{file}' imports: write it with protoc --include_imports"
        )),
        None => Ok(()),
    }
}

/// The fields of a message of descriptor.proto.
struct Fields<'a>(Vec<(u32, Raw<'a>)>);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Result<Fields<'a>, Wrong> {
        let (mut wire, mut fields) = (Wire { rest: bytes }, Vec::new());
        while let Some(field) = wire.field()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }

    fn all(&self, number: u32) -> impl Iterator<Item = Raw<'a>> {
        self.0.iter().filter(move |(other, _)| *other == number).map(|(_, raw)| *raw)
    }

    fn messages(&self, number: u32) -> Result<Vec<Fields<'a>>, Wrong> {
        self.all(number).map(|raw| Fields::of(bytes(number, raw)?)).collect()
    }

    fn texts(&self, number: u32) -> Result<Vec<&'a str>, Wrong> {
        let text = |raw| {
            std::str::from_utf8(bytes(number, raw)?)
                .map_err(|error| Wrong::new(format!("has field {number}, which is no UTF-8: {error}")))
        };
        self.all(number).map(text).collect()
    }

    fn text(&self, number: u32) -> Result<Option<&'a str>, Wrong> {
        Ok(self.texts(number)?.last().copied())
    }

    fn number(&self, number: u32) -> Option<u64> {
        self.all(number).last().and_then(|raw| match raw {
            Raw::Varint(value) => Some(value),
            _ => None,
        })
    }
}

fn bytes(number: u32, raw: Raw<'_>) -> Result<&[u8], Wrong> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(Wrong::new(format!("has field {number} with another wire type than descriptors have"))),
    }
}

/// How a file, a message or a field marks values that are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// An absent value is the zero of its type.
    Implicit,
    Explicit,
}

impl Presence {
    /// Returns that of a file: of proto3 it is implicit, of proto2 and of editions explicit unless a feature says otherwise.
    fn of_file(file: &Fields<'_>) -> Result<Presence, Wrong> {
        let presence = match file.text(12)? {
            Some("proto3") => Presence::Implicit,
            _ => Presence::Explicit,
        };
        presence.with(file, 8)
    }

    /// Returns that of a part with options in this field.
    fn with(self, part: &Fields<'_>, options: u32) -> Result<Presence, Wrong> {
        Ok(match feature(part, options, 1)? {
            Some(2) => Presence::Implicit,
            Some(_) => Presence::Explicit,
            None => self,
        })
    }
}

/// Returns the value of a feature of editions, if a part sets it.
fn feature(part: &Fields<'_>, options: u32, feature: u32) -> Result<Option<u64>, Wrong> {
    let mut found = None;
    for options in part.messages(options)? {
        for number in FEATURES {
            // Other options may have the same number, as extensions have.
            for features in options.all(number) {
                let Raw::Bytes(features) = features else { continue };
                found = Fields::of(features)?.number(feature).or(found);
            }
        }
    }
    Ok(found)
}

struct Reader<'t> {
    presence: Presence,
    to: &'t mut Parsed,
}

impl Reader<'_> {
    fn file(&mut self, file: &Fields<'_>) -> Result<(), String> {
        let wrong = |wrong: Wrong| format!("{NEITHER}: {wrong}");
        let package = file.text(2).map_err(wrong)?.unwrap_or_default();
        let mut roots = Vec::new();
        for message in file.messages(4).map_err(wrong)? {
            roots.push(self.message(&message, package, self.presence, 0)?);
        }
        for found in file.messages(5).map_err(wrong)? {
            self.enumeration(&found, package)?;
        }
        if !roots.is_empty() {
            self.to.roots = roots;
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &Fields<'_>,
        scope: &str,
        presence: Presence,
        depth: usize,
    ) -> Result<TypeId, String> {
        let wrong = |wrong: Wrong| format!("{NEITHER}: {wrong}");
        if depth > DEPTH_MAX {
            return Err(format!("the schema has more than {DEPTH_MAX} levels of messages within messages"));
        }
        let name = within(scope, message.text(1).map_err(wrong)?.unwrap_or_default());
        self.to.messages.push(MessageType { name: name.clone(), ..MessageType::default() });
        let id = self.to.messages.len() - 1;
        self.to.names.insert(name.clone(), Named::Message(id));
        let presence = presence.with(message, 7).map_err(wrong)?;
        let mut nested = Vec::new();
        for inner in message.messages(3).map_err(wrong)? {
            nested.push(Some(self.message(&inner, &name, presence, depth + 1)?));
        }
        for found in message.messages(4).map_err(wrong)? {
            self.enumeration(&found, &name)?;
        }
        let fields = message.messages(2).map_err(wrong)?;
        let fields: Result<Vec<FieldType>, String> =
            fields.iter().map(|described| field(described, &name, presence)).collect();
        let options = message.messages(7).map_err(wrong)?;
        let to = &mut self.to.messages[id];
        (to.fields, to.nested) = (fields?, nested);
        to.is_map_entry = options.iter().any(|options| options.number(7) == Some(1));
        Ok(id)
    }

    fn enumeration(&mut self, found: &Fields<'_>, scope: &str) -> Result<(), String> {
        let wrong = |wrong: Wrong| format!("{NEITHER}: {wrong}");
        let name = within(scope, found.text(1).map_err(wrong)?.unwrap_or_default());
        let mut values = Vec::new();
        for value in found.messages(2).map_err(wrong)? {
            let name = value.text(1).map_err(wrong)?.unwrap_or_default().to_string();
            values.push((name, value.number(2).unwrap_or_default() as i32));
        }
        self.to.enums.push(EnumType { values });
        self.to.names.insert(name, Named::Enum(self.to.enums.len() - 1));
        Ok(())
    }
}

/// Returns a field of a message.
fn field(described: &Fields<'_>, message: &str, presence: Presence) -> Result<FieldType, String> {
    let wrong = |wrong: Wrong| format!("{NEITHER}: {wrong}");
    let name = described.text(1).map_err(wrong)?.unwrap_or_default().to_string();
    let number = described.number(3).and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| *number > 0);
    let number = number.ok_or_else(|| format!("field '{name}' of message '{message}' has no number"))?;
    let of = described.number(5).unwrap_or_default();
    let is_delimited = feature(described, 8, 5).map_err(wrong)? == Some(2);
    let of = match (of, described.text(6).map_err(wrong)?) {
        (GROUP, _) => {
            return Err(format!("field '{name}' of message '{message}' is a group, which is not supported"));
        }
        (MESSAGE, _) if is_delimited => {
            return Err(format!(
                "field '{name}' of message '{message}' has message_encoding = DELIMITED, which is not supported"
            ));
        }
        (MESSAGE | ENUM, Some(of)) => ValueType::Name(of.to_string(), String::new()),
        (number, _) => ValueType::Scalar(scalar(number).ok_or_else(|| {
            format!("field '{name}' of message '{message}' has type {number}, which is unknown")
        })?),
    };
    let is_in_oneof = described.number(9).is_some();
    let presence = presence.with(described, 8).map_err(wrong)?;
    let label = match described.number(4) {
        Some(REPEATED) => Label::Repeated,
        _ if is_in_oneof || presence == Presence::Explicit => Label::Optional,
        _ => Label::Implicit,
    };
    Ok(FieldType { name, number, of, label })
}

/// Returns the scalar type with a number.
fn scalar(number: u64) -> Option<Scalar> {
    Some(match number {
        1 => Scalar::Double,
        2 => Scalar::Float,
        3 => Scalar::Int64,
        4 => Scalar::UInt64,
        5 => Scalar::Int32,
        6 => Scalar::Fixed64,
        7 => Scalar::Fixed32,
        8 => Scalar::Bool,
        9 => Scalar::String,
        12 => Scalar::Bytes,
        13 => Scalar::UInt32,
        15 => Scalar::SFixed32,
        16 => Scalar::SFixed64,
        17 => Scalar::SInt32,
        18 => Scalar::SInt64,
        _ => return None,
    })
}
