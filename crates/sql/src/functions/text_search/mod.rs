//! Full text search, stored as text: TSVECTOR, TSQUERY and REGCONFIG, with PostgreSQL's functions and operators.
//!
//! | part | |
//! | --- | --- |
//! | [`lexer`], [`grammar`], [`token`], [`characters`] | split a document into tokens |
//! | [`dictionary`] | configurations: which lexeme a token becomes |
//! | [`vector`], [`query`], [`value_reader`], [`query_reader`] | the values and their texts |
//! | [`matching`], [`rank`], [`cover`], [`headline`], [`headline_options`], [`rewrite`] | search, ranks, headlines, rewriting |
//! | [`binary`] | the forms of the protocol |
//! | [`vectors`], [`queries`], [`documents`], [`sets`], [`operators`] | functions and operators of SQL |
//!
//! The text of each value is canonical: the one that PostgreSQL writes. Values are ordered by these texts.
//!
//! Deliberately absent: other parsers and dictionaries, and `ts_stat`, which runs a query that is given as text.

mod binary;
mod characters;
mod cover;
mod dictionary;
mod documents;
mod grammar;
mod headline;
mod headline_options;
mod lexer;
mod matching;
pub(crate) mod operators;
mod queries;
mod query;
mod query_reader;
mod rank;
mod rewrite;
mod sets;
mod token;
mod value_reader;
mod vector;
mod vectors;

use arrow::datatypes::DataType;

pub use self::binary::{tsquery_of_binary, tsquery_to_binary, tsvector_of_binary, tsvector_to_binary};

use self::dictionary::Config;
use self::query::Query;
use self::vector::Vector;
use super::marks::Mark;
use super::marks::function::{Arguments, MarkedFunction, Param, Returns};
use crate::error::Result;

const VECTOR: Param = Param::Value(Mark::Tsvector);
const QUERY: Param = Param::Value(Mark::Tsquery);

/// Returns the canonical text of a value of one of these types.
pub(super) fn canonical(mark: Mark, text: &str) -> Result<String> {
    match mark {
        Mark::Tsvector => Ok(Vector::read(text)?.to_string()),
        Mark::Tsquery => Ok(query_reader::read(text, None)?.to_string()),
        _ => Ok(Config::named(text)?.name().to_string()),
    }
}

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    vectors::list(add);
    queries::list(add);
    documents::list(add);
    sets::list(add);
}

/// Returns the function that a call means if its arguments have these types: some names have several.
pub(crate) fn overload(name: &str, marks: &[Option<Mark>]) -> Option<&'static str> {
    let mark = |at: usize| marks.get(at).copied().flatten();
    let json = |at: usize| mark(at).filter(|mark| mark.is_json());
    let is_query = |at: usize| mark(at) == Some(Mark::Tsquery);
    Some(match name {
        "character_length" if mark(0) == Some(Mark::Tsvector) => "tsvector_length",
        "to_tsvector" if json(0).or(json(1)).is_some() => "to_tsvector_json",
        "ts_headline" if json(0) == Some(Mark::Json) => "ts_headline_json",
        "ts_headline" if json(0) == Some(Mark::Jsonb) => "ts_headline_jsonb",
        "ts_headline" if json(1) == Some(Mark::Json) => "ts_headline_json_of",
        "ts_headline" if json(1) == Some(Mark::Jsonb) => "ts_headline_jsonb_of",
        "ts_headline" if is_query(1) => "ts_headline_default",
        "ts_match" if mark(0) == Some(Mark::Tsvector) => "ts_match_vq",
        "ts_match" if is_query(0) => "ts_match_qv",
        "ts_match" if is_query(1) => "ts_match_tq",
        "ts_match" if json(0).is_some() => "jsonb_path_match_opr",
        _ => return None,
    })
}

fn text() -> Returns {
    Returns::Type(DataType::Utf8View)
}

fn vector_at(all: &Arguments, at: usize, row: usize) -> Result<Option<Vector>> {
    all.text(at, row).map(Vector::read).transpose()
}

fn query_at(all: &Arguments, at: usize, row: usize) -> Result<Option<Query>> {
    all.text(at, row).map(|text| query_reader::read(text, None)).transpose()
}

/// Returns the configuration that comes before a call's other arguments, and the place of the first one of these.
fn config(all: &Arguments, row: usize, others: usize) -> Result<(Config, usize)> {
    match all.text(0, row).filter(|_| all.columns.len() > others) {
        Some(name) => Ok((Config::named(name)?, 1)),
        None => Ok((Config::default(), 0)),
    }
}
