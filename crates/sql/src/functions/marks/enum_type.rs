//! Enum types: `CREATE TYPE mood AS ENUM ('sad', 'ok')`. A value is stored as its label; labels are ordered as the type lists
//! them.
//!
//! A declared type has the labels, so that a plan doesn't depend on the catalog: see [`EnumType::spelling`].

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, OnceLock, PoisonError};

use millstream_delta::enum_parts;

/// The name of the type that a statement has for an enum once its name is resolved: see [`EnumType::read`], which follows.
pub(crate) const RESOLVED: &str = "enum.declared";

/// An enum type. There is one of each name and labels in the process.
#[derive(Debug)]
pub(crate) struct EnumType {
    name: String,
    labels: Vec<String>,
    places: HashMap<String, i32>,
    spelling: String,
    /// The functions of its order, as [`function`] finds them, and the one that reads a value.
    key: String,
    value: String,
    read: String,
}

impl PartialEq for EnumType {
    fn eq(&self, other: &EnumType) -> bool {
        self.spelling == other.spelling
    }
}

impl Eq for EnumType {}

impl Hash for EnumType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spelling.hash(state);
    }
}

/// The types seen so far, by their number. A type is small, and is never removed.
fn all() -> &'static Mutex<Vec<&'static EnumType>> {
    static ALL: OnceLock<Mutex<Vec<&'static EnumType>>> = OnceLock::new();
    ALL.get_or_init(Mutex::default)
}

impl EnumType {
    /// Returns the type of a spelling: see [`EnumType::spelling`].
    pub(crate) fn spelled(spelling: &str) -> Option<&'static EnumType> {
        let (name, labels) = enum_parts(spelling)?;
        let mut all = all().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.spelling == spelling) {
            return Some(known);
        }
        let number = all.len();
        let labels: Vec<String> = labels.map(str::to_string).collect();
        let places = labels.iter().cloned().zip(0..).collect();
        let found: &EnumType = Box::leak(Box::new(EnumType {
            name: name.to_string(),
            labels,
            places,
            spelling: spelling.to_string(),
            key: format!("enum.key.{number}"),
            value: format!("enum.value.{number}"),
            read: format!("enum.read.{number}"),
        }));
        all.push(found);
        Some(found)
    }

    /// Returns the name of the type.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the labels in their order.
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Returns the number of a label.
    pub(super) fn place(&self, label: &str) -> Option<i32> {
        self.places.get(label).copied()
    }

    /// Returns the declared type of a column: the name and the labels, with a separator between them.
    pub(crate) fn spelling(&self) -> &str {
        &self.spelling
    }

    /// Returns the names of the functions that order values.
    pub(crate) fn order(&self) -> (&str, &str) {
        (&self.key, &self.value)
    }

    /// Returns the name of the function that reads values, in a statement.
    pub(crate) fn read(&self) -> &str {
        &self.read
    }
}

/// Returns the number in the name of a function of a type.
pub(super) fn numbered(name: &str) -> Option<(&str, &'static EnumType)> {
    let (kind, number) = name.strip_prefix("enum.")?.split_once('.')?;
    let all = all().lock().unwrap_or_else(PoisonError::into_inner);
    Some((kind, all.get(number.parse::<usize>().ok()?)?))
}

/// Returns the type whose values a function of this name reads.
pub(crate) fn read_by(name: &str) -> Option<&'static EnumType> {
    numbered(name).filter(|(kind, _)| *kind == "read").map(|(_, found)| found)
}
