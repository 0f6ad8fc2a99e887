//! Checks of the repository itself: dependencies, sizes, names, links, and that every feature has its `.slt`
//! file, and every statement its page.
//!
//! The checks parse the files themselves, so they run in any copy of the tree, with or without git. Only the
//! statements come from the engine.
//! Deliberately absent: anything that rustfmt and clippy check.

mod circles;
mod fields;
mod links;
mod methods;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of ours that each crate may name under `[dependencies]`. Dependencies point down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("delta", &[]),
    ("state", &["delta"]),
    ("connect", &["delta"]),
    ("durable", &["connect", "state", "delta"]),
    ("flow", &["delta", "state"]),
    ("sql", &["delta"]),
    ("engine", &["sql", "flow", "durable", "state", "connect", "delta"]),
    ("millstream", &["engine", "connect", "delta"]),
    ("server", &["engine"]),
    ("web", &["server", "engine", "delta"]),
    ("registry", &["connect"]),
    ("kafka", &["connect", "delta", "registry"]),
    ("postgres", &["connect", "delta"]),
    ("s3", &[]),
    ("seeds", &[]),
    ("batch", &[]),
    ("cli", &["millstream", "engine", "connect", "server", "web", "kafka", "postgres", "s3"]),
    (
        "testkit",
        &[
            "millstream",
            "engine",
            "connect",
            "durable",
            "delta",
            "cli",
            "server",
            "web",
            "kafka",
            "postgres",
            "registry",
            "seeds",
            "batch",
        ],
    ),
    ("benches", &["millstream", "engine", "connect", "delta", "server", "web", "kafka", "testkit", "batch"]),
];

/// The crates that authors of connectors compile: Arrow only.
const WITHOUT_DATAFUSION: &[&str] =
    &["delta", "state", "connect", "durable", "registry", "kafka", "postgres", "s3", "seeds"];

/// Crates of the DataFusion project outside its umbrella crate, and the one crate that may name each.
const BESIDE_THE_UMBRELLA: &[(&str, &str)] = &[
    ("flow", "datafusion-proto"),
    ("sql", "datafusion-functions-json"),
    ("testkit", "datafusion-sqllogictest"),
];

/// Crates whose types are in our interfaces: two versions of one would not be compatible.
const SINGLE: &[&str] = &["arrow", "parquet", "datafusion", "object_store", "tokio", "sqlparser"];

/// Names that don't describe any content.
const EMPTY_NAMES: &[&str] = &["common", "core", "util", "utils", "helper", "helpers", "types", "misc"];

/// The maximum number of lines of a file, including its tests.
const FILE_LINES_MAX: usize = 600;
/// The maximum number of lines of a function outside tests.
const FUNCTION_LINES_MAX: usize = 70;

/// The folders of implementations, one file or folder each, and the folders of their `.slt` files.
const PROVEN: &[(&str, &str)] = &[
    ("crates/connect/src/connectors", "sql-tests/connector"),
    ("crates/engine/src/statements", "sql-tests/statement"),
    ("crates/flow/src/operators", "sql-tests/operator"),
];

/// A check of the tree at a root. The error has one line per violation.
pub type Check = fn(&Path) -> Result<(), String>;

/// Returns all checks by name, for a test runner that counts them one by one.
pub fn checks() -> Vec<(&'static str, Check)> {
    vec![
        ("crate_arrows", |root| outcome(crate_arrows(root))),
        ("one_version", |root| outcome(one_version(root))),
        ("file_sizes", |root| outcome(file_sizes(root))),
        ("function_sizes", |root| outcome(function_sizes(root))),
        ("module_docs", |root| outcome(module_docs(root))),
        ("names", |root| outcome(names(root))),
        ("proofs", |root| outcome(proofs(root))),
        ("links", |root| outcome(links::links(root))),
        ("book", |root| outcome(links::book(root))),
        ("circles", |root| outcome(circles::circles(root))),
        ("methods", |root| outcome(methods::methods(root))),
        ("fields", |root| outcome(fields::fields(root))),
        ("statement_pages", |root| outcome(statements::pages(root))),
    ]
}

/// Runs every check over the tree at `root` and returns the violations.
pub fn check(root: &Path) -> Vec<String> {
    checks()
        .into_iter()
        .filter_map(|(name, check)| Some(format!("{name}:\n{}", check(root).err()?)))
        .collect()
}

fn outcome(wrong: Vec<String>) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn crate_arrows(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for folder in crate_folders(root) {
        let krate = name_of(&folder);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == krate) else {
            wrong.push(format!(
                "{}: not in tidy's table of arrows: say what it may depend on",
                shown(root, &folder)
            ));
            continue;
        };
        for dependency in dependencies(&read(&folder.join("Cargo.toml"))) {
            if let Some(reason) = forbidden(&krate, allowed, &dependency) {
                wrong.push(format!("{} depends on {dependency}: {reason}", shown(root, &folder)));
            }
        }
    }
    wrong
}

/// Returns the reason why `krate` may not depend on `dependency`, if there is one.
fn forbidden(krate: &str, allowed: &[&str], dependency: &str) -> Option<String> {
    if dependency == "millstream" || dependency.starts_with("millstream-") {
        let short = dependency.strip_prefix("millstream-").unwrap_or(dependency);
        return (!allowed.contains(&short)).then(|| format!("it may depend on {allowed:?} of ours"));
    }
    if !dependency.starts_with("datafusion") {
        return None;
    }
    if WITHOUT_DATAFUSION.contains(&krate) {
        return Some("this crate compiles without DataFusion".to_string());
    }
    let allowed = dependency == "datafusion" || BESIDE_THE_UMBRELLA.contains(&(krate, dependency));
    (!allowed).then(|| "name the umbrella crate `datafusion` instead".to_string())
}

/// Returns the names under `[dependencies]` (also `[dependencies.x]` and those of one target), without
/// dev-dependencies.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = section == "dependencies" || section.ends_with(".dependencies");
            let single = section.split_once("dependencies.").filter(|(before, _)| !before.ends_with('-'));
            found.extend(single.map(|(_, name)| name.to_string()));
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() && line.contains('=') {
                found.insert(name.trim_matches('"').to_string());
            }
        }
    }
    found
}

fn one_version(root: &Path) -> Vec<String> {
    let lock = read(&root.join("Cargo.lock"));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(found) = quoted(line, "name") {
            name = found;
        } else if let Some(version) = quoted(line, "version") {
            versions.entry(name).or_default().push(version);
        }
    }
    let several = |name: &&&str| versions.get(**name).is_some_and(|found| found.len() > 1);
    SINGLE
        .iter()
        .filter(several)
        .map(|name| format!("Cargo.lock has {name} in versions {}: keep one", versions[*name].join(" and ")))
        .collect()
}

/// Returns the value of a line `key = "value"`.
fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

fn file_sizes(root: &Path) -> Vec<String> {
    let long = |(path, lines): (PathBuf, usize)| {
        (lines > FILE_LINES_MAX)
            .then(|| format!("{}: {lines} lines, at most {FILE_LINES_MAX}: split it", shown(root, &path)))
    };
    sources(root).into_iter().map(|(path, text)| (path, text.lines().count())).filter_map(long).collect()
}

fn function_sizes(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources(root) {
        let lines: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
        for (first, line) in lines.iter().enumerate() {
            let Some(indent) = function_indent(line) else { continue };
            let closing = format!("{}}}", " ".repeat(indent));
            let length = lines[first..].iter().position(|line| *line == closing).map_or(1, |last| last + 1);
            if length > FUNCTION_LINES_MAX {
                let place = format!("{}:{}", shown(root, &path), first + 1);
                wrong.push(format!("{place}: {length} lines, at most {FUNCTION_LINES_MAX}: {}", line.trim()));
            }
        }
    }
    wrong
}

/// Returns the indentation of a line that begins a function with a body. Relies on rustfmt: the closing brace
/// is alone on its line, with the same indentation.
fn function_indent(line: &str) -> Option<usize> {
    let text = line.trim_start();
    let mut words = text.split(' ');
    let qualifier = |word: &&str| {
        matches!(*word, "async" | "const" | "unsafe" | "extern" | "pub") || word.starts_with("pub(")
    };
    let first = words.by_ref().find(|word| !qualifier(word));
    let whole = text.ends_with(';') || text.ends_with('}');
    (first == Some("fn") && !whole).then_some(line.len() - text.len())
}

fn module_docs(root: &Path) -> Vec<String> {
    sources(root)
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{}: say in its first line, `//! …`, what it is for", shown(root, &path)))
        .collect()
}

fn names(root: &Path) -> Vec<String> {
    let mut wrong: Vec<String> = crate_folders(root)
        .into_iter()
        .filter(|folder| EMPTY_NAMES.contains(&name_of(folder).as_str()))
        .map(|folder| format!("{}: name the crate after what it does", shown(root, &folder)))
        .collect();
    for (path, text) in sources(root) {
        let declared = text.lines().filter_map(module_name);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        if declared.chain(stem.as_deref()).any(|name| EMPTY_NAMES.contains(&name)) {
            wrong.push(format!("{}: name the module after what it does", shown(root, &path)));
        }
    }
    wrong
}

/// Returns the module that a line declares.
fn module_name(line: &str) -> Option<&str> {
    let words = line.trim_start();
    let words = words.strip_prefix("pub(crate) ").or(words.strip_prefix("pub ")).unwrap_or(words);
    Some(words.strip_prefix("mod ")?.trim_end_matches([';', '{', ' ']))
}

fn proofs(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (folder, proof) in PROVEN {
        for path in entries(&root.join(folder)) {
            let name = name_of(&path);
            let is_feature = path.is_dir() || (name.ends_with(".rs") && name != "mod.rs");
            let file = format!("{proof}/{}.slt", name.trim_end_matches(".rs"));
            if is_feature && !root.join(&file).is_file() {
                wrong.push(format!("{}: is proved nowhere: write {file}", shown(root, &path)));
            }
        }
    }
    wrong
}

/// Returns all Rust sources of the crates, in order.
fn sources(root: &Path) -> Vec<(PathBuf, String)> {
    crate_folders(root).iter().flat_map(|folder| texts(folder, &["rs"])).collect()
}

/// Returns the folders of all crates.
fn crate_folders(root: &Path) -> Vec<PathBuf> {
    entries(&root.join("crates")).into_iter().chain([root.join("benches")]).collect()
}

/// Returns all text files below `folder` whose names end in (or are) one of `kinds`, in order.
fn texts(folder: &Path, kinds: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in entries(folder) {
        if path.is_dir() {
            found.extend(texts(&path, kinds));
            continue;
        }
        let name = name_of(&path);
        let kind = name.rsplit('.').next().unwrap_or_default();
        if kinds.contains(&kind)
            && let Ok(text) = fs::read_to_string(&path)
        {
            found.push((path, text));
        }
    }
    found
}

/// Returns the entries of `folder`, sorted by name, without build output and git's files.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| !matches!(name_of(path).as_str(), ".git" | "target" | "node_modules"));
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns a path relative to the root of the repository.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_any_spelling() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\narrow.workspace = true\n# a = 1\nb = { path = \"b\" }\n\
                        [dependencies.c]\nversion = \"1\"\n[dev-dependencies]\nd = \"1\"\n[dev-dependencies.e]\n";
        let found: Vec<String> = dependencies(manifest).into_iter().collect();
        assert_eq!(found, ["arrow", "b", "c"]);
    }

    #[test]
    fn arrows_point_down_only() {
        let check = |krate: &str, dependency: &str| {
            let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == krate).unwrap();
            forbidden(krate, allowed, dependency).is_none()
        };
        assert!(check("engine", "millstream-flow"));
        assert!(check("engine", "datafusion"));
        assert!(check("flow", "datafusion-proto"));
        assert!(!check("flow", "millstream-engine"));
        assert!(!check("sql", "millstream-flow"));
        assert!(!check("sql", "datafusion-proto"));
        assert!(!check("state", "datafusion"));
        assert!(check("state", "arrow"));
    }

    #[test]
    fn functions_are_found_by_their_first_line() {
        assert_eq!(function_indent("    pub(crate) async fn a("), Some(4));
        assert_eq!(function_indent("fn b() -> u64 {"), Some(0));
        assert_eq!(function_indent("    fn c(&self);"), None);
        assert_eq!(function_indent("    fn d(&self) {}"), None);
        assert_eq!(function_indent("    let f = fn_pointer {"), None);
    }

    #[test]
    fn a_module_is_named_where_it_is_declared() {
        assert_eq!(module_name("pub(crate) mod types;"), Some("types"));
        assert_eq!(module_name("    mod tests {"), Some("tests"));
        assert_eq!(module_name("model();"), None);
    }
}
