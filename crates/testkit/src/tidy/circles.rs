//! Import cycles: files of a crate that need each other, directly or indirectly, so that none of them can be
//! read or changed alone.
//!
//! A file imports the file of each module that a `use` or a path names, to the depth of the path. For names
//! that the crate's root re-exports, the original file counts. Tests, and imports by tests only, don't count.
//!
//! The cycles are the strongly connected components of that graph, by Tarjan's algorithm (1972).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::texts;

/// The maximum number of files in the largest cycle of each crate.
const CIRCLE_FILES_MAX: &[(&str, usize)] =
    &[("flow", 10), ("sql", 20), ("engine", 50), ("connect", 5), ("cli", 5)];

/// A module as its path from the crate's root.
type Module = Vec<String>;

pub(super) fn circles(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (krate, files_max) in CIRCLE_FILES_MAX {
        let folder = root.join("crates").join(krate).join("src");
        let files: BTreeMap<Module, String> = texts(&folder, &["rs"])
            .into_iter()
            .filter_map(|(path, text)| Some((module_of(&folder, &path)?, text)))
            .collect();
        let largest = components(&imports(&files)).into_iter().max_by_key(Vec::len).unwrap_or_default();
        if largest.len() > *files_max {
            let names: Vec<String> = largest.iter().map(|module| module.join("::")).collect();
            wrong.push(format!(
                "crates/{krate}: {} files import each other in a circle, {files_max} are allowed: {}",
                largest.len(),
                names.join(", ")
            ));
        }
    }
    wrong
}

/// Returns the module of a file; `None` for files of tests.
fn module_of(folder: &Path, file: &Path) -> Option<Module> {
    let path = file.strip_prefix(folder).ok()?.with_extension("");
    let mut names: Module = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        names.pop();
    }
    (!names.iter().any(|name| name == "tests")).then_some(names)
}

/// Returns the text of a file up to its tests.
fn without_tests(text: &str) -> &str {
    let is_end = |at: &usize| {
        let declared = text[*at..].lines().nth(1).unwrap_or_default();
        declared.ends_with("mod tests {")
    };
    let end = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_end);
    &text[..end.unwrap_or(text.len())]
}

/// Returns the modules that each module imports.
fn imports(files: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let texts: BTreeMap<&Module, &str> =
        files.iter().map(|(module, text)| (module, without_tests(text))).collect();
    // The original modules of names that the root re-exports.
    let root = Module::new();
    let given: BTreeMap<String, Module> = named(texts.get(&root).copied().unwrap_or_default())
        .into_iter()
        .filter_map(|path| {
            let path = [vec!["self".to_string()], path].concat();
            Some((path.last()?.clone(), resolve(files, &root, &path)?))
        })
        .filter(|(_, module)| !module.is_empty())
        .collect();
    let of = |module: &Module, text: &str| {
        let mut all = BTreeSet::new();
        for path in uses(text) {
            let Some(mut found) = resolve(files, module, &path) else { continue };
            if found.is_empty() {
                let name = absolute(module, &path).and_then(|path| path.first().cloned());
                found = name.and_then(|name| given.get(&name).cloned()).unwrap_or_default();
            }
            if found != *module && !found.is_empty() {
                all.insert(found);
            }
        }
        all
    };
    texts.iter().map(|(module, text)| ((*module).clone(), of(module, text))).collect()
}

/// Returns the paths within its own crate that a file names.
fn uses(text: &str) -> Vec<Vec<String>> {
    let mut all = named(text);
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let free = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let path: String = text[at..].chars().take_while(|c| is_word(*c)).collect();
        if free && !path.ends_with("::") {
            all.push(path.split("::").map(String::from).collect());
        }
    }
    all.retain(|path| path.first().is_some_and(|first| ["crate", "super", "self"].contains(&first.as_str())));
    all
}

/// Returns the paths of the `use` declarations of a file, with braces expanded.
fn named(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for statement in text.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].trim_end();
        let begins = before.is_empty()
            || before.ends_with(['}', '\n'])
            || before.ends_with("pub")
            || before.ends_with(')')
            || statement[..at].ends_with('\n');
        if begins {
            expand(&mut Vec::new(), statement[at + 4..].trim(), &mut all);
        }
    }
    all
}

/// Adds the paths of a tree of imports after the prefix `before`.
fn expand(before: &mut Vec<String>, tree: &str, all: &mut Vec<Vec<String>>) {
    let (path, rest) = tree.split_once('{').map_or((tree, None), |(path, rest)| (path, Some(rest)));
    let named = path.split(" as ").next().unwrap_or_default();
    let names: Vec<String> =
        named.split("::").map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect();
    let length = before.len();
    before.extend(names);
    match rest.and_then(|rest| rest.trim_end().strip_suffix('}')) {
        Some(inside) => parts(inside).into_iter().for_each(|part| expand(before, part, all)),
        None => all.push(before.clone()),
    }
    before.truncate(length);
}

/// Splits a list at its commas, except those within braces.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(list[begin..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns a path as seen from the crate's root; `None` if it leaves the crate.
fn absolute(module: &Module, path: &[String]) -> Option<Module> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&module[..0], &path[1..]),
        "self" => (&module[..], &path[1..]),
        _ => (module.get(..module.len().checked_sub(ups)?)?, &path[ups..]),
    };
    Some(base.iter().chain(rest).cloned().collect())
}

/// Returns the file that contains the target of a path.
fn resolve(files: &BTreeMap<Module, String>, module: &Module, path: &[String]) -> Option<Module> {
    let path = absolute(module, path)?;
    (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|module| files.contains_key(module))
}

/// Returns the strongly connected components of a graph.
fn components(graph: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let mut search = Search::default();
    for module in graph.keys() {
        if !search.number.contains_key(module) {
            search.visit(graph, module);
        }
    }
    search.components
}

#[derive(Default)]
struct Search<'a> {
    number: BTreeMap<&'a Module, usize>,
    least: BTreeMap<&'a Module, usize>,
    stack: Vec<&'a Module>,
    components: Vec<Vec<Module>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, graph: &'a BTreeMap<Module, BTreeSet<Module>>, module: &'a Module) {
        let number = self.number.len();
        self.number.insert(module, number);
        self.stack.push(module);
        let mut least = number;
        for next in graph.get(module).into_iter().flatten() {
            match self.number.get(next).copied() {
                None => {
                    self.visit(graph, next);
                    least = least.min(self.least[next]);
                }
                Some(number) if self.stack.contains(&next) => least = least.min(number),
                Some(_) => {}
            }
        }
        self.least.insert(module, least);
        if least == number {
            let begin = self.stack.iter().position(|open| *open == module).unwrap_or_default();
            self.components.push(self.stack.split_off(begin).into_iter().cloned().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(files: &[(&str, &str)]) -> Vec<String> {
        let module =
            |name: &str| name.split("::").filter(|name| !name.is_empty()).map(String::from).collect();
        let files = files.iter().map(|(name, text)| (module(name), (*text).to_string())).collect();
        let found = components(&imports(&files)).into_iter().max_by_key(Vec::len).unwrap_or_default();
        found.iter().map(|module| module.join("::")).collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let root = ("", "mod a;\nmod b;\npub use b::Given;\n");
        let through_braces = [
            root,
            ("a", "use crate::b::{\n    c::{self, D},\n};\n"),
            ("b", ""),
            ("b::c", "use super::super::a::A;\n"),
        ];
        assert_eq!(largest(&through_braces), ["a", "b::c"]);
        let through_the_root = [root, ("a", "use crate::Given;\n"), ("b", "fn f() { crate::a::g(); }\n")];
        assert_eq!(largest(&through_the_root), ["a", "b"]);
        let in_tests = [
            root,
            ("a", "use crate::b::B;\n"),
            ("b", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ];
        assert_eq!(largest(&in_tests).len(), 1);
    }
}
