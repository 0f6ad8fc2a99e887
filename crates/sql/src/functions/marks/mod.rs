//! Types whose values are stored as text of one form: JSON, JSONB, XML, UUID, network addresses, ranges, full text search,
//! geometric types, bit strings, and enums.
//!
//! | part | |
//! | --- | --- |
//! | [`Mark`] | the type, as metadata of a field; it only counts while a statement is planned |
//! | [`shape`] | the types within nested values |
//! | [`subtype`] | the types of ranges, and of their bounds |
//! | [`expressions`], [`columns`] | find the type of an expression, and of a plan's column |
//! | [`function`], [`catalog`] | functions over such values, and their list |
//!
//! The rule `rules/marked_types.rs` resolves functions, comparisons, literals and orderings by these types. Plans that run
//! don't depend on them.

pub(crate) mod catalog;
pub(crate) mod columns;
pub(crate) mod enum_type;
pub(crate) mod enums;
pub(crate) mod expressions;
pub(crate) mod function;
pub(crate) mod overloaded;
pub(crate) mod shape;
pub(crate) mod subtype;

use arrow::datatypes::Field;
use millstream_delta::BitType;

use self::enum_type::EnumType;

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
    Xml,
    Uuid,
    Inet,
    Cidr,
    Macaddr,
    Macaddr8,
    Int4range,
    Int8range,
    Numrange,
    Tsrange,
    Tstzrange,
    Daterange,
    Int4multirange,
    Int8multirange,
    Nummultirange,
    Tsmultirange,
    Tstzmultirange,
    Datemultirange,
    Tsvector,
    Tsquery,
    /// The name of a configuration of full text search.
    Regconfig,
    Point,
    Line,
    Lseg,
    Box,
    Path,
    Polygon,
    Circle,
    Bit,
    Varbit,
    Enum(&'static EnumType),
}

/// All types, with their names, but for enums.
const ALL: [(Mark, &str, &str); 32] = [
    (Mark::Json, "json", "JSON"),
    (Mark::Jsonb, "jsonb", "JSONB"),
    (Mark::Xml, "xml", "XML"),
    (Mark::Uuid, "uuid", "UUID"),
    (Mark::Inet, "inet", "INET"),
    (Mark::Cidr, "cidr", "CIDR"),
    (Mark::Macaddr, "macaddr", "MACADDR"),
    (Mark::Macaddr8, "macaddr8", "MACADDR8"),
    (Mark::Int4range, "int4range", "INT4RANGE"),
    (Mark::Int8range, "int8range", "INT8RANGE"),
    (Mark::Numrange, "numrange", "NUMRANGE"),
    (Mark::Tsrange, "tsrange", "TSRANGE"),
    (Mark::Tstzrange, "tstzrange", "TSTZRANGE"),
    (Mark::Daterange, "daterange", "DATERANGE"),
    (Mark::Int4multirange, "int4multirange", "INT4MULTIRANGE"),
    (Mark::Int8multirange, "int8multirange", "INT8MULTIRANGE"),
    (Mark::Nummultirange, "nummultirange", "NUMMULTIRANGE"),
    (Mark::Tsmultirange, "tsmultirange", "TSMULTIRANGE"),
    (Mark::Tstzmultirange, "tstzmultirange", "TSTZMULTIRANGE"),
    (Mark::Datemultirange, "datemultirange", "DATEMULTIRANGE"),
    (Mark::Tsvector, "tsvector", "TSVECTOR"),
    (Mark::Tsquery, "tsquery", "TSQUERY"),
    (Mark::Regconfig, "regconfig", "REGCONFIG"),
    (Mark::Point, "point", "POINT"),
    (Mark::Line, "line", "LINE"),
    (Mark::Lseg, "lseg", "LSEG"),
    (Mark::Box, "box", "BOX"),
    (Mark::Path, "path", "PATH"),
    (Mark::Polygon, "polygon", "POLYGON"),
    (Mark::Circle, "circle", "CIRCLE"),
    // BIT alone means BIT(1).
    (Mark::Bit, "bit", "\"bit\""),
    (Mark::Varbit, "varbit", "BIT VARYING"),
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
    /// Returns all types, but for enums.
    pub(crate) fn all() -> impl Iterator<Item = Mark> {
        ALL.into_iter().map(|(mark, ..)| mark)
    }

    /// Returns the type of this name, in lower case.
    pub(crate) fn named(name: &str) -> Option<Mark> {
        ALL.iter().find(|(_, known, _)| *known == name).map(|(mark, ..)| *mark)
    }

    /// Returns the type that is spelled in this way in CREATE TABLE.
    pub(crate) fn spelled(spelling: &str) -> Option<Mark> {
        let found = ALL.iter().find(|(.., known)| *known == spelling).map(|(mark, ..)| *mark);
        let bits = || BitType::spelled(spelling).map(Mark::of_bits);
        found.or_else(bits).or_else(|| EnumType::spelled(spelling).map(Mark::Enum))
    }

    /// Returns the type of bit strings without their length.
    pub(crate) fn of_bits(of: BitType) -> Mark {
        if of.is_varying { Mark::Varbit } else { Mark::Bit }
    }

    /// Returns the mark of a field.
    pub(crate) fn of(field: &Field) -> Option<Mark> {
        match field.extension_type_name()? {
            "arrow.json" => Some(Mark::Json),
            name => {
                let name = name.strip_prefix(PREFIX)?;
                Mark::named(name).or_else(|| EnumType::spelled(name).map(Mark::Enum))
            }
        }
    }

    /// Marks a field.
    pub(crate) fn put(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        match self {
            Mark::Json => metadata.extend(datafusion_functions_json::json_field_metadata()),
            other => {
                let name = match other {
                    Mark::Enum(of) => of.spelling(),
                    _ => other.name(),
                };
                metadata.insert(EXTENSION.into(), format!("{PREFIX}{name}"));
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

    /// True for geometric types. Their values have no order, and two texts can mean equal values.
    pub(crate) fn is_geometric(self) -> bool {
        use Mark::{Box, Circle, Line, Lseg, Path, Point, Polygon};
        matches!(self, Point | Line | Lseg | Box | Path | Polygon | Circle)
    }

    /// True for bit strings. Their texts have their order.
    pub(crate) fn is_bits(self) -> bool {
        matches!(self, Mark::Bit | Mark::Varbit)
    }

    /// True for types without an equality of values: geometric types, which compare areas, and XML.
    pub(crate) fn is_unordered(self) -> bool {
        self == Mark::Xml || self.is_geometric()
    }

    fn entry(self) -> (&'static str, &'static str) {
        if let Mark::Enum(of) = self {
            return (of.name(), of.spelling());
        }
        let found = ALL.iter().find(|(mark, ..)| *mark == self);
        found.map_or(("text", "TEXT"), |(_, name, spelling)| (name, spelling))
    }

    /// Returns the name of the type in PostgreSQL.
    pub(crate) fn name(self) -> &'static str {
        self.entry().0
    }

    /// Returns the name of the type as PostgreSQL shows it.
    pub(crate) fn shown(self) -> &'static str {
        if self == Mark::Varbit { "bit varying" } else { self.name() }
    }

    /// Returns the declared type of a column: the name in CREATE TABLE, and the labels of an enum.
    pub(crate) fn type_name(self) -> &'static str {
        self.entry().1
    }

    /// Returns the order of its values; none for JSON and XML, which have no comparisons, and for geometric types.
    pub(crate) fn order(self) -> Option<Order> {
        Some(match self {
            Mark::Json => return None,
            other if other.is_unordered() => return None,
            Mark::Jsonb => {
                Order::Compared { by: "jsonb_cmp", greatest: "jsonb_greatest", least: "jsonb_least" }
            }
            Mark::Uuid | Mark::Macaddr | Mark::Macaddr8 | Mark::Bit | Mark::Varbit => Order::Text,
            shape if shape.is_geometric() => Order::Text,
            Mark::Enum(of) => {
                let (key, value) = of.order();
                Order::Key { key, value }
            }
            // PostgreSQL has another order of these.
            Mark::Tsvector | Mark::Tsquery | Mark::Regconfig => Order::Text,
            Mark::Inet => Order::Key { key: "inet_key", value: "inet_of_key" },
            Mark::Cidr => Order::Key { key: "inet_key", value: "cidr_of_key" },
            range => Order::Key { key: "range_key", value: subtype::of_key(range)? },
        })
    }

    /// Returns the type in which values of two types are compared.
    pub(crate) fn common(self, other: Mark) -> Option<Mark> {
        match (self, other) {
            (one, other) if one == other => Some(one),
            (Mark::Json, Mark::Jsonb) | (Mark::Jsonb, Mark::Json) => Some(Mark::Json),
            (Mark::Inet, Mark::Cidr) | (Mark::Cidr, Mark::Inet) => Some(Mark::Inet),
            // As in PostgreSQL, each has a cast to the other, so that the first one stays.
            (Mark::Bit, Mark::Varbit) | (Mark::Varbit, Mark::Bit) => Some(self),
            (Mark::Macaddr, Mark::Macaddr8) | (Mark::Macaddr8, Mark::Macaddr) => Some(Mark::Macaddr8),
            _ => None,
        }
    }
}
