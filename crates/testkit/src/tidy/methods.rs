//! The methods of types and traits: a type that does everything has no walls.

use std::collections::BTreeMap;
use std::path::Path;

use super::{crate_folders, name_of, texts};

/// The maximum number of methods of a type, without those of traits.
const METHODS_MAX: usize = 40;

/// Types with more methods, by crate. A number may only become smaller.
const METHODS_ALLOWED: &[(&str, &str, usize)] = &[];

/// The maximum number of methods of a trait. Notifications don't count: methods that do nothing by default and return
/// nothing, which an implementor may ignore one by one.
const TRAIT_METHODS_MAX: usize = 10;

/// Traits with more methods, by crate. A number may only become smaller.
const TRAIT_METHODS_ALLOWED: &[(&str, &str, usize)] = &[];

/// A crate with a type or trait.
type Owner = (String, String);

pub(super) fn methods(root: &Path) -> Vec<String> {
    let (mut types, mut traits) = (BTreeMap::new(), BTreeMap::new());
    for folder in crate_folders(root) {
        for (_, text) in texts(&folder, &["rs"]) {
            count(&name_of(&folder), &text, &mut types, &mut traits);
        }
    }
    let mut wrong = compared(["type", "methods"], &types, METHODS_MAX, METHODS_ALLOWED);
    wrong.extend(compared(["trait", "methods"], &traits, TRAIT_METHODS_MAX, TRAIT_METHODS_ALLOWED));
    wrong
}

/// Compares numbers of members with their bounds. A bound that is larger than needed is wrong, too.
pub(super) fn compared(
    [what, members]: [&str; 2],
    counted: &BTreeMap<Owner, usize>,
    most: usize,
    allowed: &[(&str, &str, usize)],
) -> Vec<String> {
    let exception = |(krate, name): &Owner| {
        let found = allowed.iter().find(|(of, owner, _)| of == krate && owner == name);
        found.map(|(_, _, bound)| *bound)
    };
    let over = counted.iter().filter_map(|(owner, count)| {
        let bound = exception(owner).unwrap_or(most);
        let (krate, name) = owner;
        (*count > bound)
            .then(|| format!("{krate}: {what} {name} has {count} {members}, at most {bound}: split it"))
    });
    let loose = allowed.iter().filter_map(|(krate, name, bound)| {
        let count = counted.get(&(krate.to_string(), name.to_string())).copied().unwrap_or_default();
        (count < *bound).then(|| {
            format!("{krate}: {what} {name} has {count} {members} now: lower its bound in tidy from {bound}")
        })
    });
    over.chain(loose).collect()
}

/// Counts the methods in a file. Relies on rustfmt: a block at the left margin ends with a brace there, and its methods
/// are indented by four spaces.
fn count(krate: &str, text: &str, types: &mut BTreeMap<Owner, usize>, traits: &mut BTreeMap<Owner, usize>) {
    let mut owner: Option<(bool, String)> = None;
    for line in text.lines() {
        match line {
            "}" => owner = None,
            _ if !line.is_empty() && !line.starts_with([' ', '/', '#', '}']) => {
                owner = type_of_impl(line).map(|name| (false, name));
                owner = owner.or_else(|| name_of_trait(line).map(|name| (true, name)));
            }
            _ => {
                let is_method = line.strip_prefix("    ").is_some_and(begins_method);
                let is_notification = line.ends_with(") {}");
                let counts = |(is_trait, _): &&(bool, String)| is_method && !(*is_trait && is_notification);
                if let Some((is_trait, name)) = owner.as_ref().filter(counts) {
                    let all = if *is_trait { &mut *traits } else { &mut *types };
                    *all.entry((krate.to_string(), name.clone())).or_default() += 1;
                }
            }
        }
    }
}

fn begins_method(text: &str) -> bool {
    let qualifier =
        |word: &&str| matches!(*word, "async" | "const" | "unsafe" | "pub") || word.starts_with("pub(");
    // `pub(in crate::run)` is two words.
    let mut words = text.split(' ').filter(|word| !word.ends_with(')')).skip_while(qualifier);
    !text.starts_with(' ') && words.next() == Some("fn")
}

/// Returns the type whose own methods a block holds.
fn type_of_impl(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let rest = if rest.starts_with('<') { after_generics(rest)? } else { rest };
    (!line.contains(" for ")).then(|| first_name(rest))
}

fn name_of_trait(line: &str) -> Option<String> {
    let rest =
        line.split_once("trait ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"))?.1;
    Some(first_name(rest))
}

/// Returns the text after the closing bracket of generic parameters.
fn after_generics(text: &str) -> Option<&str> {
    let mut depth = 0;
    let end = text.char_indices().find_map(|(at, char)| {
        depth += match char {
            '<' => 1,
            '>' if !text[..at].ends_with('-') => -1,
            _ => 0,
        };
        (depth == 0).then_some(at + 1)
    })?;
    text.get(end..)
}

pub(super) fn first_name(text: &str) -> String {
    let text = text.trim_start();
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_counted_by_type_and_trait() {
        let text = "
impl Loop {
    pub(in crate::run) fn one(&self) {
        fn inner() {}
    }

    const fn two() {}
    async fn three() {}
    const FOUR: u8 = 4;
}

impl<F: Fn() -> u8> Queue<F> {
    fn one() {}
}

impl Clone for Loop {
    fn clone(&self) -> Loop {}
}

pub(crate) trait Source: Send {
    fn next(&self);
    fn size(&self) -> usize {
        0
    }
    fn closed(&mut self, _at: u8) {}
}
";
        let (mut types, mut traits) = (BTreeMap::new(), BTreeMap::new());
        count("engine", text, &mut types, &mut traits);
        let counted =
            |of: &BTreeMap<Owner, usize>, name: &str| of.get(&("engine".into(), name.into())).copied();
        assert_eq!((counted(&types, "Loop"), counted(&types, "Queue")), (Some(3), Some(1)));
        assert_eq!((types.len(), counted(&traits, "Source"), traits.len()), (2, Some(2), 1));
    }

    #[test]
    fn a_bound_is_neither_exceeded_nor_loose() {
        let counted = BTreeMap::from([(("engine".to_string(), "Loop".to_string()), 5)]);
        let allowed = |bound| [("engine", "Loop", bound)];
        assert!(compared(["type", "methods"], &counted, 4, &allowed(5)).is_empty());
        assert_eq!(compared(["type", "methods"], &counted, 4, &allowed(6)).len(), 1);
        assert_eq!(compared(["type", "methods"], &counted, 4, &[]).len(), 1);
    }
}
