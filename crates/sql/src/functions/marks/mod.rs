//! Types whose values are stored as text of one form: JSON, JSONB, UUID, network addresses, and full
//! text search.
//!
//! | part | |
//! | --- | --- |
//! | [`Mark`] | the type, as metadata of a field; it only counts while a statement is planned |
//! | [`shape`] | the types within nested values |
//! | [`expressions`], [`columns`] | find the type of an expression, and of a plan's column |
//! | [`function`], [`catalog`] | functions over such values, and their list |
//!
//! The rule `rules/marked_types.rs` resolves functions, comparisons, literals and orderings by these types. Plans that run
//! don't depend on them.

pub(crate) mod catalog;
pub(crate) mod columns;
pub(crate) mod expressions;
pub(crate) mod function;
pub(crate) mod overloaded;
pub(crate) mod shape;

use arrow::datatypes::Field;

/// The key in a field's metadata that holds the name of an extension type.
const EXTENSION: &str = "ARROW:extension:name";

/// The beginning of the names of extension types, but for that of JSON.
const PREFIX: &str = "millstream.";

/// A type whose values are stored as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    Json,
    /// JSON whose text is canonical: see [`super::json::value`].
    Jsonb,
    Uuid,
    Inet,
    Cidr,
    Macaddr,
    Macaddr8,
    Tsvector,
    Tsquery,
    /// The name of a configuration of full text search.
    Regconfig,
}

/// All types, with their names.
const ALL: [(Mark, &str, &str); 10] = [
    (Mark::Json, "json", "JSON"),
    (Mark::Jsonb, "jsonb", "JSONB"),
    (Mark::Uuid, "uuid", "UUID"),
    (Mark::Inet, "inet", "INET"),
    (Mark::Cidr, "cidr", "CIDR"),
    (Mark::Macaddr, "macaddr", "MACADDR"),
    (Mark::Macaddr8, "macaddr8", "MACADDR8"),
    (Mark::Tsvector, "tsvector", "TSVECTOR"),
    (Mark::Tsquery, "tsquery", "TSQUERY"),
    (Mark::Regconfig, "regconfig", "REGCONFIG"),
];

/// The order of a type's values: PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of their texts.
    Text,
    /// That of the texts which the function `key` returns; `value` returns the value of such a text.
    Key { key: &'static str, value: &'static str },
    /// That of a function which returns a number below, equal to or above zero. ORDER BY has the order of texts.
    Compared { by: &'static str, greatest: &'static str, least: &'static str },
}

impl Mark {
    /// Returns all types.
    pub(crate) fn all() -> impl Iterator<Item = Mark> {
        ALL.into_iter().map(|(mark, ..)| mark)
    }

    /// Returns the type of this name, in lower case.
    pub(crate) fn named(name: &str) -> Option<Mark> {
        ALL.iter().find(|(_, known, _)| *known == name).map(|(mark, ..)| *mark)
    }

    /// Returns the type that is spelled in this way in CREATE TABLE.
    pub(crate) fn spelled(spelling: &str) -> Option<Mark> {
        ALL.iter().find(|(.., known)| *known == spelling).map(|(mark, ..)| *mark)
    }

    /// Returns the mark of a field.
    pub(crate) fn of(field: &Field) -> Option<Mark> {
        match field.extension_type_name()? {
            "arrow.json" => Some(Mark::Json),
            name => Mark::named(name.strip_prefix(PREFIX)?),
        }
    }

    /// Marks a field.
    pub(crate) fn put(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        match self {
            Mark::Json => metadata.extend(datafusion_functions_json::json_field_metadata()),
            other => {
                metadata.insert(EXTENSION.into(), format!("{PREFIX}{}", other.name()));
            }
        }
        field.with_metadata(metadata)
    }

    /// True for JSON and JSONB.
    pub(crate) fn is_json(self) -> bool {
        matches!(self, Mark::Json | Mark::Jsonb)
    }

    /// True for network addresses.
    pub(crate) fn is_network(self) -> bool {
        matches!(self, Mark::Inet | Mark::Cidr | Mark::Macaddr | Mark::Macaddr8)
    }

    fn entry(self) -> (&'static str, &'static str) {
        let found = ALL.iter().find(|(mark, ..)| *mark == self);
        found.map_or(("text", "TEXT"), |(_, name, spelling)| (name, spelling))
    }

    /// Returns the name of the type in PostgreSQL.
    pub(crate) fn name(self) -> &'static str {
        self.entry().0
    }

    /// Returns the name of the type in CREATE TABLE.
    pub(crate) fn type_name(self) -> &'static str {
        self.entry().1
    }

    /// Returns the order of its values; none for JSON, which has no comparisons.
    pub(crate) fn order(self) -> Option<Order> {
        Some(match self {
            Mark::Json => return None,
            Mark::Jsonb => {
                Order::Compared { by: "jsonb_cmp", greatest: "jsonb_greatest", least: "jsonb_least" }
            }
            Mark::Uuid | Mark::Macaddr | Mark::Macaddr8 => Order::Text,
            // PostgreSQL has another order of these.
            Mark::Tsvector | Mark::Tsquery | Mark::Regconfig => Order::Text,
            Mark::Inet => Order::Key { key: "inet_key", value: "inet_of_key" },
            Mark::Cidr => Order::Key { key: "inet_key", value: "cidr_of_key" },
        })
    }

    /// Returns the type in which values of two types are compared.
    pub(crate) fn common(self, other: Mark) -> Option<Mark> {
        match (self, other) {
            (one, other) if one == other => Some(one),
            (Mark::Json, Mark::Jsonb) | (Mark::Jsonb, Mark::Json) => Some(Mark::Json),
            (Mark::Inet, Mark::Cidr) | (Mark::Cidr, Mark::Inet) => Some(Mark::Inet),
            (Mark::Macaddr, Mark::Macaddr8) | (Mark::Macaddr8, Mark::Macaddr) => Some(Mark::Macaddr8),
            _ => None,
        }
    }
}
