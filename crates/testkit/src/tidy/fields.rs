//! The fields of types: a type that keeps everything has no walls.

use std::collections::BTreeMap;
use std::path::Path;

use super::methods::{compared, first_name};
use super::{crate_folders, name_of, texts};

/// The maximum number of fields of a type.
const FIELDS_MAX: usize = 12;

/// Types with more fields, by crate. A number may only become smaller.
const FIELDS_ALLOWED: &[(&str, &str, usize)] = &[];

pub(super) fn fields(root: &Path) -> Vec<String> {
    let mut types = BTreeMap::new();
    for folder in crate_folders(root) {
        for (_, text) in texts(&folder, &["rs"]) {
            for (name, count) in counted(&text) {
                let most: &mut usize = types.entry((name_of(&folder), name)).or_default();
                *most = count.max(*most);
            }
        }
    }
    compared(["type", "fields"], &types, FIELDS_MAX, FIELDS_ALLOWED)
}

/// Returns the structs of a file with the number of their fields. Relies on rustfmt: fields are indented by four spaces.
fn counted(text: &str) -> Vec<(String, usize)> {
    let mut all: Vec<(String, usize)> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(name) = name_of_struct(line) {
            all.push((name, 0));
            is_inside = line.ends_with('{');
        } else if line == "}" {
            is_inside = false;
        } else if is_inside
            && line.strip_prefix("    ").is_some_and(is_field)
            && let Some((_, count)) = all.last_mut()
        {
            *count += 1;
        }
    }
    all
}

fn name_of_struct(line: &str) -> Option<String> {
    let (before, rest) = line.split_once("struct ")?;
    (before.is_empty() || before.starts_with("pub")).then(|| first_name(rest))
}

fn is_field(text: &str) -> bool {
    let qualifier = |word: &&str| *word == "pub" || word.starts_with("pub(") || word.ends_with(')');
    let name = text.split(' ').find(|word| !qualifier(word)).unwrap_or_default();
    !text.starts_with([' ', '/', '#']) && name.strip_suffix(':').is_some_and(|name| first_name(name) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_structs_are_counted() {
        let text = "pub(super) struct A<'a> {\n    /// One.\n    pub(in crate::run) one: &'a str,\n    two: fn(u8) -> u8,\n    \
                    #[serde(skip)]\n    pub three: BTreeMap<\n        String,\n        u8,\n    >,\n}\n\nstruct B(u8);\n\nfn f() \
                    {\n    let four: u8 = 4;\n}\n";
        assert_eq!(counted(text), [("A".to_string(), 3), ("B".to_string(), 0)]);
    }
}
