//! Configurations and dictionaries: which lexemes the words of a text become.
//!
//! | configuration | words | other tokens |
//! | --- | --- | --- |
//! | `simple` | in lower case | in lower case |
//! | `english` and other languages | in lower case without stop words, then stemmed | in lower case |
//!
//! The stop words are those of PostgreSQL 15, by the Snowball project (BSD licence).

use std::collections::HashSet;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};

use super::characters::lower;
use super::token::Kind;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most bytes of a word that is stemmed.
const STEMMED_MAX: usize = 1000;

/// A language: its name, that of its dictionary, its algorithm and its stop words.
struct Language {
    name: &'static str,
    dictionary: &'static str,
    stemmer: Stemmer,
    stop_words: HashSet<&'static str>,
    /// True if words of ASCII letters are English.
    is_ascii_english: bool,
}

/// The languages whose stemmer gives PostgreSQL's results; English is the first one. The lists of stop words are those of
/// PostgreSQL, which has them from the Snowball project (BSD licence).
static LANGUAGES: LazyLock<Vec<Language>> = LazyLock::new(|| {
    let language = |name, dictionary, algorithm, stop_words: &'static str| Language {
        name,
        dictionary,
        stemmer: Stemmer::create(algorithm),
        stop_words: stop_words.split_whitespace().collect(),
        is_ascii_english: name == "russian",
    };
    macro_rules! with_stop_words {
        ($name:literal, $algorithm:ident) => {
            language(
                $name,
                concat!($name, "_stem"),
                Algorithm::$algorithm,
                include_str!(concat!("stop_words/", $name, ".stop")),
            )
        };
    }
    vec![
        with_stop_words!("english", English),
        with_stop_words!("dutch", Dutch),
        with_stop_words!("german", German),
        with_stop_words!("hungarian", Hungarian),
        with_stop_words!("italian", Italian),
        with_stop_words!("norwegian", Norwegian),
        with_stop_words!("portuguese", Portuguese),
        language("romanian", "romanian_stem", Algorithm::Romanian, ""),
        with_stop_words!("russian", Russian),
        with_stop_words!("spanish", Spanish),
        with_stop_words!("swedish", Swedish),
        with_stop_words!("turkish", Turkish),
    ]
});

/// A dictionary.
#[derive(Clone, Copy)]
pub(super) enum Dictionary {
    Simple,
    Stem(usize),
}

/// A configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Config {
    Simple,
    /// A language by its place.
    Language(usize),
}

impl Default for Config {
    fn default() -> Config {
        Config::Language(0)
    }
}

/// Returns a name without the schema of built-in objects.
fn base_name(name: &str) -> &str {
    name.trim().strip_prefix("pg_catalog.").unwrap_or(name.trim())
}

impl Config {
    /// Returns the configuration of this name.
    pub(super) fn named(name: &str) -> Result<Config> {
        let base = base_name(name).to_ascii_lowercase();
        if base == "simple" {
            return Ok(Config::Simple);
        }
        if let Some(at) = LANGUAGES.iter().position(|language| language.name == base) {
            return Ok(Config::Language(at));
        }
        Err(Error::invalid(format!("text search configuration \"{name}\" does not exist"))
            .hint(format!("There are: {}.", Config::names().join(", ")))
            .code(sqlstate::UNDEFINED_OBJECT))
    }

    /// Returns the name of the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Config::Simple => "simple",
            Config::Language(at) => LANGUAGES.get(at).map_or("simple", |language| language.name),
        }
    }

    /// Returns the names of all configurations.
    pub(super) fn names() -> Vec<&'static str> {
        LANGUAGES.iter().map(|language| language.name).chain(["simple"]).collect()
    }

    /// Returns the dictionary that reads tokens of a type; none if they aren't searched.
    pub(super) fn dictionary(self, kind: Kind) -> Option<Dictionary> {
        if kind.is_ignored() {
            return None;
        }
        Some(match self {
            Config::Language(at) if kind.is_word() => {
                let is_other = kind.is_ascii_word()
                    && LANGUAGES.get(at).is_some_and(|language| language.is_ascii_english);
                Dictionary::Stem(if is_other { 0 } else { at })
            }
            _ => Dictionary::Simple,
        })
    }
}

impl Dictionary {
    /// Returns the dictionary of this name.
    pub(super) fn named(name: &str) -> Result<Dictionary> {
        let base = base_name(name).to_ascii_lowercase();
        if base == "simple" {
            return Ok(Dictionary::Simple);
        }
        if let Some(at) = LANGUAGES.iter().position(|language| language.dictionary == base) {
            return Ok(Dictionary::Stem(at));
        }
        let names: Vec<&str> =
            LANGUAGES.iter().map(|language| language.dictionary).chain(["simple"]).collect();
        Err(Error::invalid(format!("text search dictionary \"{name}\" does not exist"))
            .hint(format!("There are: {}.", names.join(", ")))
            .code(sqlstate::UNDEFINED_OBJECT))
    }

    /// Returns the name of the dictionary.
    pub(super) fn name(self) -> &'static str {
        match self {
            Dictionary::Simple => "simple",
            Dictionary::Stem(at) => LANGUAGES.get(at).map_or("simple", |language| language.dictionary),
        }
    }

    /// Returns the lexeme of a word; none for a stop word.
    pub(super) fn lexeme(self, word: &str) -> Option<String> {
        let lower = lower(word);
        let language = match self {
            Dictionary::Simple => None,
            Dictionary::Stem(at) => LANGUAGES.get(at),
        };
        let Some(language) = language.filter(|_| lower.len() <= STEMMED_MAX) else { return Some(lower) };
        if lower.is_empty() || language.stop_words.contains(lower.as_str()) {
            return None;
        }
        Some(language.stemmer.stem(&lower).into_owned())
    }
}
