//! The marks of fields whose text is JSON or JSONB.
//!
//! A mark is metadata of a field, and only counts while a statement is planned: see `shapes.rs`.

use arrow::datatypes::Field;

/// The key in a field's metadata that holds the name of an extension type.
const EXTENSION: &str = "ARROW:extension:name";

/// The name of the extension type of JSONB. Text of it is canonical: see [`super::value`].
const JSONB: &str = "millstream.jsonb";

/// The type of a text that is JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    Json,
    Jsonb,
}

impl Mark {
    /// Returns the mark of a field.
    pub(crate) fn of(field: &Field) -> Option<Mark> {
        match field.extension_type_name()? {
            "arrow.json" => Some(Mark::Json),
            JSONB => Some(Mark::Jsonb),
            _ => None,
        }
    }

    /// Marks a field.
    pub(crate) fn put(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        match self {
            Mark::Json => metadata.extend(datafusion_functions_json::json_field_metadata()),
            Mark::Jsonb => {
                metadata.insert(EXTENSION.into(), JSONB.into());
            }
        }
        field.with_metadata(metadata)
    }

    /// Returns the name of the type in SQL.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Mark::Json => "JSON",
            Mark::Jsonb => "JSONB",
        }
    }
}
