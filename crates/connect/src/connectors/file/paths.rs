//! Lists the files that a path stands for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use glob::{MatchOptions, Pattern};

use crate::{Error, Options, Result};

/// Age from which a directory's time is reliable: a later change would show as another time.
const DIRECTORY_TIME_SETTLES_AFTER: Duration = Duration::from_secs(2);

/// Number of listings after which all directories are read, in case a file system doesn't keep their times.
const LISTINGS_BETWEEN_FULL_ONES: u32 = 50;

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// A path as the user gave it, evaluated at each listing.
#[derive(Debug)]
pub(super) struct Paths {
    kind: Kind,
    /// The pattern that file names must match.
    names: Option<Pattern>,
    /// Directories that were read, by path.
    directories: HashMap<String, Directory>,
    listings: u32,
}

#[derive(Debug)]
enum Kind {
    File(String),
    Directory {
        path: String,
        recursive: bool,
    },
    /// A file or a directory that isn't there yet, or no longer.
    Missing {
        path: String,
        recursive: bool,
    },
    Glob {
        base: String,
        whole: Pattern,
        parts: Vec<String>,
    },
}

#[derive(Debug)]
struct Directory {
    modified: SystemTime,
    inner: Vec<String>,
}

/// Refuses a URL, such as `s3://bucket/prefix`: it would name a local directory `s3:`.
pub(super) fn refuse_url(path: &str) -> Result<()> {
    let Some((scheme, rest)) = path.split_once("://") else { return Ok(()) };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return Ok(());
    }
    let instead = match scheme.eq_ignore_ascii_case("file") {
        true => format!("write path = '{rest}'"),
        false => format!("files on {scheme}:// are not supported yet, neither as a source nor as a sink"),
    };
    Err(Error::Invalid(format!(
        "option 'path' is '{path}': the connector file takes no URLs, only paths on the engine's machine, such as \
         '/data/out'; {instead}"
    )))
}

impl Kind {
    /// Returns the kind of a path without a pattern.
    fn of(path: &str, recursive: bool) -> io::Result<Kind> {
        Ok(match fs::metadata(path)?.is_dir() {
            true => Kind::Directory { path: directory_prefix(path), recursive },
            false => Kind::File(path.to_string()),
        })
    }
}

impl Paths {
    /// Evaluates the options `path`, `match_pattern` and `recursive`.
    pub fn from_options(options: &Options) -> Result<Paths> {
        let path = options.require("path")?;
        refuse_url(path)?;
        let recursive = options.parse("recursive", "true or false")?.unwrap_or(false);
        let names = match options.get("match_pattern") {
            None => None,
            Some(text) => Some(pattern("match_pattern", text)?),
        };
        let kind = if path.contains(['*', '?', '[']) && !Path::new(path).exists() {
            parse_glob(path)?
        } else {
            Kind::of(path, recursive).unwrap_or_else(|_| Kind::Missing { path: path.into(), recursive })
        };
        Ok(Paths { kind, names, directories: HashMap::new(), listings: 0 })
    }

    /// Fails for a path that doesn't exist, and suggests similar ones.
    pub fn check_exists(&self) -> Result<()> {
        match &self.kind {
            Kind::Missing { path, recursive } => {
                Kind::of(path, *recursive).map(drop).map_err(|error| missing(path, &error))
            }
            Kind::Glob { base, .. } if !base.is_empty() => {
                fs::metadata(base).map(drop).map_err(|error| missing(base, &error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the name whose extension may determine the format; `None` if only the files can.
    pub fn typical_name(&self) -> Option<&str> {
        match (&self.kind, &self.names) {
            (Kind::File(path) | Kind::Missing { path, .. }, _) if self.names.is_none() => Some(path),
            (Kind::File(path), _) => Some(path),
            (_, Some(names)) if names.as_str().contains('.') => Some(names.as_str()),
            (Kind::Glob { whole, .. }, _)
                if whole.as_str().rsplit('/').next().is_some_and(|name| name.contains('.')) =>
            {
                Some(whole.as_str())
            }
            _ => None,
        }
    }

    /// Returns true if the path can match many files.
    pub fn is_glob(&self) -> bool {
        matches!(self.kind, Kind::Glob { .. })
    }

    /// Calls `visit` with each file, in no order. Skips directories that haven't changed since they were
    /// last read, so their files aren't visited again. After an error the next call visits all files.
    pub fn list(&mut self, visit: &mut dyn FnMut(Arc<str>)) -> io::Result<()> {
        let listed = self.list_all(visit);
        if listed.is_err() {
            // Callers drop the files visited before an error, so the next listing must visit them again.
            self.directories.clear();
        }
        listed
    }

    fn list_all(&mut self, visit: &mut dyn FnMut(Arc<str>)) -> io::Result<()> {
        if self.listings.is_multiple_of(LISTINGS_BETWEEN_FULL_ONES) {
            self.directories.clear();
        }
        self.listings += 1;
        if let Kind::Missing { path, recursive } = &self.kind {
            let found = Kind::of(path, *recursive);
            self.kind = found.map_err(|error| io::Error::new(error.kind(), format!("'{path}': {error}")))?;
        }
        let mut open = match &self.kind {
            Kind::Missing { .. } => return Ok(()),
            Kind::File(path) => {
                visit(path.as_str().into());
                return Ok(());
            }
            Kind::Directory { path, .. } => vec![(path.clone(), 0)],
            Kind::Glob { base, .. } => vec![(base.clone(), 0)],
        };
        let root = open[0].0.clone();
        while let Some((directory, depth)) = open.pop() {
            match self.list_directory(&root, &directory, depth, visit) {
                Ok(inner) => open.extend(inner.into_iter().map(|inner| (inner, depth + 1))),
                // A subdirectory may vanish while it is listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory != root => {}
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("directory '{directory}': {error}")));
                }
            }
        }
        Ok(())
    }

    fn list_directory(
        &mut self,
        root: &str,
        directory: &str,
        depth: usize,
        visit: &mut dyn FnMut(Arc<str>),
    ) -> io::Result<Vec<String>> {
        let here = or_current(directory);
        let modified = fs::metadata(here)?.modified()?;
        if let Some(known) = self.directories.get(directory)
            && known.modified == modified
        {
            return Ok(known.inner.clone());
        }
        let mut inner = Vec::new();
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                tracing::warn!(directory, name = ?name, "a file is left out because its name is not UTF-8");
                continue;
            };
            if self.is_hidden(name, depth) {
                continue;
            }
            let path = format!("{directory}{name}");
            let kind = entry.file_type()?;
            let (is_dir, is_file) = match kind.is_symlink() {
                true => fs::metadata(&path).map_or((false, false), |found| (found.is_dir(), found.is_file())),
                false => (kind.is_dir(), kind.is_file()),
            };
            if is_dir && self.descends(name, depth) {
                if kind.is_symlink() && leads_back(root, directory, &path) {
                    tracing::warn!(
                        directory,
                        name,
                        "a link is left out because it leads back to a directory above it"
                    );
                    continue;
                }
                inner.push(path + "/");
            } else if is_file && self.matches(&path, name) {
                visit(path.into());
            }
        }
        if modified.elapsed().is_ok_and(|age| age > DIRECTORY_TIME_SETTLES_AFTER) {
            self.directories.insert(directory.to_string(), Directory { modified, inner: inner.clone() });
        }
        Ok(inner)
    }

    /// Returns true if a name is hidden by its first character, unless the pattern starts with that
    /// character.
    fn is_hidden(&self, name: &str, depth: usize) -> bool {
        let asked = match &self.kind {
            Kind::Glob { parts, .. } => parts.get(depth).and_then(|part| part.chars().next()),
            _ => None,
        };
        name.starts_with(['.', '_']) && !asked.is_some_and(|first| name.starts_with(first))
    }

    fn descends(&self, name: &str, depth: usize) -> bool {
        match &self.kind {
            Kind::File(_) | Kind::Missing { .. } => false,
            Kind::Directory { recursive, .. } => *recursive,
            Kind::Glob { parts, .. } => {
                let free = parts.iter().take(depth + 1).any(|part| part == "**");
                let matching =
                    || Pattern::new(&parts[depth]).is_ok_and(|part| part.matches_with(name, MATCH));
                free || (depth + 1 < parts.len() && matching())
            }
        }
    }

    fn matches(&self, path: &str, name: &str) -> bool {
        let in_place = match &self.kind {
            Kind::Glob { whole, .. } => whole.matches_with(path, MATCH),
            _ => true,
        };
        in_place && self.names.as_ref().is_none_or(|names| names.matches_with(name, MATCH))
    }
}

/// Returns the directory as the system accepts it.
fn or_current(directory: &str) -> &str {
    if directory.is_empty() { "." } else { directory }
}

/// Returns true if the link at `path` in `directory` leads to a directory above it, between `root` and the
/// link or in the file system. Its files are listed anyway, and following the link would never end.
fn leads_back(root: &str, directory: &str, path: &str) -> bool {
    let Ok(target) = fs::canonicalize(path) else { return true };
    let below = directory.get(root.len()..).unwrap_or_default();
    let ends = std::iter::once(0).chain(below.match_indices('/').map(|(at, _)| at + 1));
    ends.map(|end| &directory[..root.len() + end])
        .any(|above| fs::canonicalize(or_current(above)).is_ok_and(|above| above.starts_with(&target)))
}

fn pattern(option: &str, text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|error| {
        Error::Invalid(format!(
            "option '{option}' is '{text}', which is not a valid file name pattern: {error}"
        ))
    })
}

fn directory_prefix(path: &str) -> String {
    if path.is_empty() || path.ends_with('/') { path.to_string() } else { format!("{path}/") }
}

/// Splits a glob at its first part with a wildcard. The part before it must exist.
fn parse_glob(path: &str) -> Result<Kind> {
    let parts: Vec<&str> = path.split('/').collect();
    let first = parts.iter().position(|part| part.contains(['*', '?', '['])).unwrap_or(parts.len());
    let base = parts[..first].iter().map(|part| format!("{part}/")).collect::<String>();
    let whole = pattern("path", path)?;
    Ok(Kind::Glob { base, whole, parts: parts[first..].iter().map(|part| part.to_string()).collect() })
}

/// Returns the error of a path that can't be opened, with the most similar names beside it.
fn missing(path: &str, error: &io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound {
        return Error::Invalid(format!("option 'path' is '{path}', which can't be opened: {error}"));
    }
    // Suggest names for the first missing part of the path.
    let mut at = Path::new(path);
    while let Some(parent) = at.parent() {
        if parent.as_os_str().is_empty() || parent.exists() {
            break;
        }
        at = parent;
    }
    let wanted = at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = at.parent().map_or_else(String::new, |parent| parent.display().to_string());
    let here = if parent.is_empty() { "." } else { &parent };
    let mut names: Vec<String> = fs::read_dir(here)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.retain(|name| strsim::damerau_levenshtein(name, &wanted) <= 3.min(wanted.len() / 2).max(1));
    names.sort_by_cached_key(|name| (strsim::damerau_levenshtein(name, &wanted), name.clone()));
    let near: Vec<String> =
        names.iter().take(3).map(|name| format!("'{}'", at.with_file_name(name).display())).collect();
    let near = if near.is_empty() { String::new() } else { format!(" Did you mean {}?", near.join(" or ")) };
    Error::Invalid(format!(
        "there is no file or directory '{path}' ('{}' is missing in '{here}').{near}",
        wanted
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        dir
    }

    fn check(dir: &tempfile::TempDir, path: &str, more: &[(&str, &str)], expect: &[&str]) {
        let root = dir.path().to_str().unwrap();
        let mut options = Options::default();
        options.0.insert("path".into(), format!("{root}/{path}"));
        options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let mut found = Vec::new();
        let mut paths = Paths::from_options(&options).unwrap();
        paths.list(&mut |path| found.push(path[root.len() + 1..].to_string())).unwrap();
        found.sort();
        assert_eq!(found, expect, "{path} {more:?}");
    }

    #[test]
    fn paths_are_files_directories_or_globs() {
        let dir = tree(&[
            "a.csv",
            "b.json",
            ".hidden.csv",
            "_temporary/x.csv",
            "sub/c.csv",
            "sub/deep/d.csv",
            "sub2/e.csv",
        ]);
        check(&dir, "a.csv", &[], &["a.csv"]);
        check(&dir, "", &[], &["a.csv", "b.json"]);
        check(&dir, "", &[("match_pattern", "*.json")], &["b.json"]);
        check(
            &dir,
            "",
            &[("recursive", "true")],
            &["a.csv", "b.json", "sub/c.csv", "sub/deep/d.csv", "sub2/e.csv"],
        );
        check(&dir, "*.csv", &[], &["a.csv"]);
        check(&dir, ".h*", &[], &[".hidden.csv"]);
        check(&dir, "*/*.csv", &[], &["sub/c.csv", "sub2/e.csv"]);
        check(&dir, "sub*/**/*.csv", &[], &["sub/c.csv", "sub/deep/d.csv", "sub2/e.csv"]);
        check(&dir, "sub/deep/?.csv", &[], &["sub/deep/d.csv"]);
    }

    fn paths_of(dir: &tempfile::TempDir, more: &[(&str, &str)]) -> Paths {
        let mut options = Options::default();
        options.0.insert("path".into(), dir.path().to_str().unwrap().into());
        options.0.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        Paths::from_options(&options).unwrap()
    }

    #[test]
    fn after_a_listing_that_failed_all_files_are_visited() {
        let names: Vec<String> = (0..10).map(|n| format!("{n}/old")).collect();
        let dir = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let old = SystemTime::now() - Duration::from_secs(1000);
        let age = |path: &Path, seconds: u64| {
            fs::File::open(path).unwrap().set_modified(old + Duration::from_secs(seconds)).unwrap();
        };
        (0..10).for_each(|n| age(&dir.path().join(n.to_string()), 0));
        age(dir.path(), 0);
        let mut paths = paths_of(&dir, &[("recursive", "true")]);
        let mut found = 0;
        paths.list(&mut |_| found += 1).unwrap();
        assert_eq!(found, 10);
        paths.list(&mut |path| panic!("{path} was visited before")).unwrap();
        // A file replaces one directory, which then can't be listed. The other directories get a new file
        // each.
        for n in 0..10 {
            fs::write(dir.path().join(format!("{n}/new")), "x").unwrap();
            age(&dir.path().join(n.to_string()), 10);
        }
        fs::rename(dir.path().join("5"), dir.path().join("kept")).unwrap();
        fs::write(dir.path().join("5"), "x").unwrap();
        age(dir.path(), 0);
        assert!(paths.list(&mut |_| ()).is_err());
        fs::remove_file(dir.path().join("5")).unwrap();
        fs::rename(dir.path().join("kept"), dir.path().join("5")).unwrap();
        age(dir.path(), 0);
        let mut new = 0;
        paths.list(&mut |path| new += usize::from(path.ends_with("/new"))).unwrap();
        assert_eq!(new, 10);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_back_are_not_followed() {
        use std::os::unix::fs::symlink;

        let dir = tree(&["in/a", "in/sub/b", "out/c", "out/deep/d"]);
        let at = |path: &str| dir.path().join(path);
        symlink(at("in"), at("in/sub/up")).unwrap();
        symlink("..", at("in/above")).unwrap();
        symlink(".", at("in/self")).unwrap();
        symlink(at("out"), at("in/other")).unwrap();
        // Each link leads into the other directory.
        symlink(at("in/sub"), at("out/deep/back")).unwrap();
        symlink(at("out/deep"), at("in/sub/forth")).unwrap();
        let recursive = [("recursive", "true")];
        let aliases = ["in/other/c", "in/other/deep/back/b", "in/other/deep/d", "in/sub/b", "in/sub/forth/d"];
        check(&dir, "in", &recursive, &[&["in/a"], &aliases[..]].concat());
        check(&dir, "in/**/b", &[], &["in/other/deep/back/b", "in/sub/b"]);
    }

    #[test]
    fn a_missing_path_is_named_with_near_ones() {
        let dir = tree(&["orders/2024.csv", "customers/x"]);
        let root = dir.path().to_str().unwrap();
        let fails = |path: &str| {
            let options = Options([("path".to_string(), format!("{root}/{path}"))].into());
            Paths::from_options(&options).and_then(|paths| paths.check_exists()).unwrap_err().to_string()
        };
        let error = fails("oders/2024.csv");
        assert!(error.contains(&format!("Did you mean '{root}/orders'?")), "{error}");
        assert!(fails("orders/2025.csv").contains("orders/2024.csv"));
        assert!(fails("oders/*.csv").contains(&format!("Did you mean '{root}/orders'?")));
    }
}
