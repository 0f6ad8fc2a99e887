//! Functions of TSVECTOR.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::DataType;

use super::rank::{Normalization, WEIGHTS, Weights};
use super::vector::{Lexeme, Vector, weight_of};
use super::{QUERY, VECTOR, cover, query_at, rank, vector_at};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Int, Keys, Reals, Text};
    let mut vector = |name, params, kernel| {
        add(MarkedFunction::new(name, params, Returns::Marked(Mark::Tsvector), Kernel::Text(kernel)));
    };
    vector("strip", &[VECTOR], |all, row| {
        change(all, row, |mut vector| {
            vector.lexemes.iter_mut().for_each(|lexeme| lexeme.positions.clear());
            Ok(vector)
        })
    });
    vector("ts_delete", &[VECTOR, Keys], delete);
    vector("ts_filter", &[VECTOR, Keys], filter);
    vector("array_to_tsvector", &[Keys], of_array);
    vector("tsvector_concat", &[VECTOR, VECTOR], |all, row| {
        let Some(other) = vector_at(all, 1, row)? else { return Ok(None) };
        change(all, row, |vector| vector.followed_by(other))
    });
    let weights = &[VECTOR, Text, Keys];
    let kernel = Kernel::Text(set_weight);
    add(MarkedFunction::new("setweight", weights, Returns::Marked(Mark::Tsvector), kernel).optional(1));
    let returns = Returns::Type(DataType::Int32);
    let length = Kernel::Int(|all, row| {
        let vector = vector_at(all, 0, row)?;
        Ok(vector.map(|vector| i32::try_from(vector.lexemes.len()).unwrap_or(i32::MAX)))
    });
    add(MarkedFunction::new("tsvector_length", &[VECTOR], returns, length));
    let texts = Returns::Type(DataType::new_list(DataType::Utf8View, true));
    add(MarkedFunction::new("tsvector_to_array", &[VECTOR], texts, Kernel::Column(to_array)));
    let mut ranks = |name, kernel| {
        let returns = Returns::Type(DataType::Float32);
        let function = MarkedFunction::new(name, &[VECTOR, QUERY, Int], returns, Kernel::Real(kernel));
        add(function.optional(1).or(&[&[Reals, VECTOR, QUERY], &[Reals, VECTOR, QUERY, Int]]));
    };
    ranks("ts_rank", |all, row| rank_of(all, row, rank::rank));
    ranks("ts_rank_cd", |all, row| rank_of(all, row, cover::rank));
}

fn change(
    all: &Arguments,
    row: usize,
    change: impl FnOnce(Vector) -> Result<Vector>,
) -> Result<Option<String>> {
    let Some(vector) = vector_at(all, 0, row)? else { return Ok(None) };
    Ok(Some(change(vector)?.to_string()))
}

fn invalid(message: String) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_PARAMETER_VALUE)
}

/// Reads a weight: A, B, C or D.
fn weight(text: &str) -> Result<u8> {
    let mut letters = text.chars();
    let found = letters.next().and_then(weight_of).filter(|_| letters.next().is_none());
    found
        .ok_or_else(|| invalid(format!("unrecognized weight: \"{text}\"")).hint("Weights are A, B, C and D."))
}

/// Returns the lexemes of an array, or one that is given as text.
fn lexemes(all: &Arguments, at: usize, row: usize) -> Result<Vec<String>> {
    let is_array = all.columns.get(at).is_some_and(|column| matches!(column.data_type(), DataType::List(_)));
    match is_array {
        false => Ok(all.text(at, row).map(str::to_string).into_iter().collect()),
        true => {
            let all = all.keys(at, row)?.unwrap_or_default();
            all.into_iter().map(|lexeme| lexeme.ok_or_else(null_lexeme)).collect()
        }
    }
}

fn null_lexeme() -> Error {
    Error::invalid("lexeme array may not contain nulls").code(sqlstate::NULL_VALUE_NOT_ALLOWED)
}

fn delete(all: &Arguments, row: usize) -> Result<Option<String>> {
    let deleted = lexemes(all, 1, row)?;
    change(all, row, |mut vector| {
        vector.lexemes.retain(|lexeme| !deleted.contains(&lexeme.text));
        Ok(vector)
    })
}

/// Keeps positions with some weights, and lexemes that have any of these.
fn filter(all: &Arguments, row: usize) -> Result<Option<String>> {
    let mut kept = Vec::new();
    for letter in all.keys(1, row)?.unwrap_or_default() {
        let null =
            || Error::invalid("weight array may not contain nulls").code(sqlstate::NULL_VALUE_NOT_ALLOWED);
        kept.push(weight(&letter.ok_or_else(null)?)?);
    }
    change(all, row, |mut vector| {
        for lexeme in &mut vector.lexemes {
            lexeme.positions.retain(|position| kept.contains(&position.weight));
        }
        vector.lexemes.retain(|lexeme| !lexeme.positions.is_empty());
        Ok(vector)
    })
}

fn set_weight(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(letter) = all.text(1, row) else { return Ok(None) };
    let weight = weight(letter)?;
    let chosen =
        all.keys(2, row)?.map(|chosen| chosen.into_iter().map(|lexeme| lexeme.ok_or_else(null_lexeme)));
    let chosen = chosen.map(|chosen| chosen.collect::<Result<Vec<String>>>()).transpose()?;
    change(all, row, |mut vector| {
        let is_chosen =
            |lexeme: &&mut Lexeme| chosen.as_ref().is_none_or(|chosen| chosen.contains(&lexeme.text));
        for lexeme in vector.lexemes.iter_mut().filter(is_chosen) {
            lexeme.positions.iter_mut().for_each(|position| position.weight = weight);
        }
        Ok(vector)
    })
}

fn of_array(all: &Arguments, row: usize) -> Result<Option<String>> {
    let Some(found) = all.keys(0, row)? else { return Ok(None) };
    let mut lexemes = Vec::with_capacity(found.len());
    for text in found {
        let text = text.ok_or_else(null_lexeme)?;
        if text.is_empty() {
            return Err(Error::invalid("lexeme array may not contain empty strings")
                .code(sqlstate::ZERO_LENGTH_CHARACTER_STRING));
        }
        lexemes.push(Lexeme { text, positions: Vec::new() });
    }
    lexemes.sort_by(|one, other| one.text.cmp(&other.text));
    lexemes.dedup();
    Ok(Some(Vector { lexemes }.checked()?.to_string()))
}

fn to_array(all: &Arguments) -> Result<ArrayRef> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in 0..all.rows {
        let vector = vector_at(all, 0, row)?;
        let lexemes = vector.iter().flat_map(|vector| &vector.lexemes);
        lexemes.for_each(|lexeme| out.values().append_value(&lexeme.text));
        out.append(vector.is_some());
    }
    Ok(Arc::new(out.finish()))
}

type Rank = fn(&Weights, &Vector, &super::Query, Normalization) -> f32;

/// Computes a rank. The weights may be the first argument, the normalization the last one.
fn rank_of(all: &Arguments, row: usize, rank: Rank) -> Result<Option<f32>> {
    let has_weights = all.columns.get(2).is_some_and(|column| *column.data_type() == DataType::Utf8View);
    let first = usize::from(has_weights);
    let weights = if has_weights { weights(&all.reals(0, row)?.unwrap_or_default())? } else { WEIGHTS };
    let (Some(vector), Some(query)) = (vector_at(all, first, row)?, query_at(all, first + 1, row)?) else {
        return Ok(None);
    };
    let how = Normalization(all.int(first + 2, row).unwrap_or(0));
    Ok(Some(rank(&weights, &vector, &query, how)))
}

/// Returns the weights of D, C, B and A. Negative ones stand for those of calls that name none.
fn weights(given: &[Option<f32>]) -> Result<Weights> {
    if given.len() < WEIGHTS.len() {
        return Err(Error::invalid(format!("array of weight is too short: it has {} elements", given.len()))
            .hint("Give the weights of D, C, B and A, as in '{0.1, 0.2, 0.4, 1.0}'.")
            .code(sqlstate::ARRAY_SUBSCRIPT_ERROR));
    }
    let mut weights = WEIGHTS;
    for (weight, given) in weights.iter_mut().zip(given) {
        let null = || {
            Error::invalid("array of weight must not contain nulls").code(sqlstate::NULL_VALUE_NOT_ALLOWED)
        };
        let given = given.ok_or_else(null)?;
        if given > 1.0 {
            return Err(invalid(format!("weight out of range: {given}")).hint("Weights are at most 1."));
        }
        if given >= 0.0 {
            *weight = given;
        }
    }
    Ok(weights)
}
