//! Identity columns: `id BIGINT GENERATED ALWAYS AS IDENTITY`, `id SERIAL`. Each new row gets the next number of the column's
//! sequence.
//!
//! The default of such a column is `nextval('table_column_seq')`; the engine has that function and the sequences.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, SetExpr};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_delta::{default_of, identity_of, with_default, with_identity};

use crate::error::{Error, Result};
use crate::hidden_columns::last_name;
use crate::reader::{TokenReader, is_word};
use crate::sequence::signed;

/// The sequence of an identity column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// True if an INSERT can't give the column a value: GENERATED ALWAYS.
    pub always: bool,
    /// The first number.
    pub start: i64,
    /// The difference of two numbers.
    pub increment: i64,
    /// The name of the sequence, once its table has one.
    pub sequence: String,
}

impl Identity {
    /// Returns the sequence of a column, if it is an identity.
    pub fn of(field: &Field) -> Option<Identity> {
        let mut parts = identity_of(field)?.splitn(4, ' ');
        let always = parts.next()? == "always";
        let (start, increment) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Identity { always, start, increment, sequence: parts.next()?.to_string() })
    }

    /// Makes a field a column of this sequence.
    fn field(&self, field: Field) -> Field {
        let kind = if self.always { "always" } else { "default" };
        let text = format!("{kind} {} {} {}", self.start, self.increment, self.sequence);
        with_identity(field, &text)
    }

    /// Returns the columns with names for new sequences, as PostgreSQL has them: the one of SEQUENCE NAME, or
    /// `table_column_seq`, with a number if that is taken.
    pub fn named(schema: &SchemaRef, table: &str, is_taken: impl Fn(&str) -> bool) -> SchemaRef {
        let mut taken: Vec<String> = Vec::new();
        let mut field = |field: &Arc<Field>| {
            let Some(mut identity) = Identity::of(field).filter(|_| default_of(field).is_none()) else {
                return Arc::clone(field);
            };
            let base = match identity.sequence.is_empty() {
                true => format!("{table}_{}_seq", field.name()),
                false => identity.sequence,
            };
            let numbered = (1_u64..).map(|number| format!("{base}{number}"));
            let mut names = std::iter::once(base.clone()).chain(numbered);
            identity.sequence = names.find(|name| !is_taken(name) && !taken.contains(name)).unwrap_or(base);
            taken.push(identity.sequence.clone());
            let default = format!("nextval('{}')", identity.sequence.replace('\'', "''"));
            Arc::new(with_default(identity.field(field.as_ref().clone()), Some(&default)))
        };
        let fields: Vec<_> = schema.fields().iter().map(&mut field).collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }
}

/// The types that stand for an identity: `SERIAL`.
const SERIALS: &[(&[&str], DataType)] = &[
    (&["SERIAL"], DataType::Int32),
    (&["SERIAL4"], DataType::Int32),
    (&["BIGSERIAL"], DataType::Int64),
    (&["SERIAL8"], DataType::Int64),
    (&["SMALLSERIAL"], DataType::Int16),
    (&["SERIAL2"], DataType::Int16),
];

/// Reads `SERIAL` and returns the column.
pub(crate) fn serial(reader: &mut TokenReader<'_>, name: &str) -> Option<Field> {
    let (_, data_type) = SERIALS.iter().find(|(word, _)| reader.keyword(word))?;
    let identity = Identity { always: false, start: 1, increment: 1, sequence: String::new() };
    Some(identity.field(Field::new(name, data_type.clone(), true)))
}

/// Reads `GENERATED ALWAYS | BY DEFAULT AS IDENTITY [(option …)]`, if it comes next, and returns the column.
pub(crate) fn identity(reader: &mut TokenReader<'_>, field: &Field) -> Result<Option<Field>> {
    let at = reader.position();
    let forms: &[&[&str]] =
        &[&["GENERATED", "ALWAYS", "AS", "IDENTITY"], &["GENERATED", "BY", "DEFAULT", "AS", "IDENTITY"]];
    let Some(form) = reader.one_of(forms) else { return Ok(None) };
    if !matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64) {
        let error = format!("identity column \"{}\" must be of type SMALLINT, INT or BIGINT", field.name());
        return Err(Error::invalid(error).at(at));
    }
    let mut identity = Identity { always: form == 0, start: 1, increment: 1, sequence: String::new() };
    let mut start = None;
    if reader.symbol(Token::LParen) {
        while !reader.symbol(Token::RParen) {
            let at = reader.position();
            if reader.keyword(&["SEQUENCE", "NAME"]) {
                identity.sequence = reader.relation_name()?;
                continue;
            }
            let options: &[&[&str]] = &[
                &["START", "WITH"],
                &["START"],
                &["INCREMENT", "BY"],
                &["INCREMENT"],
                &["CACHE"],
                &["NO", "MINVALUE"],
                &["NO", "MAXVALUE"],
                &["NO", "CYCLE"],
            ];
            match reader.one_of(options) {
                Some(0 | 1) => start = Some(signed(reader)?),
                Some(2 | 3) => identity.increment = signed(reader)?,
                Some(4) => drop(signed(reader)?),
                Some(_) => {}
                None => return Err(reader.expected("START WITH, INCREMENT BY or \")\"")),
            }
            if identity.increment == 0 {
                return Err(Error::invalid("INCREMENT must not be zero").at(at));
            }
        }
    }
    identity.start = start.unwrap_or(if identity.increment < 0 { -1 } else { 1 });
    Ok(Some(identity.field(field.clone())))
}

/// Removes `OVERRIDING SYSTEM VALUE` from an INSERT. Returns true if it was there.
pub(crate) fn take_overriding(tokens: &mut Vec<TokenWithSpan>) -> bool {
    let words = ["OVERRIDING", "SYSTEM", "VALUE"];
    let is_there =
        |at: &[TokenWithSpan]| at.iter().zip(words).all(|(token, word)| is_word(&token.token, word));
    let Some(at) = tokens.windows(words.len()).position(is_there) else { return false };
    tokens.drain(at..at + words.len());
    true
}

/// Fails if an INSERT gives a column that is GENERATED ALWAYS a value other than DEFAULT.
pub(crate) fn refuse_values(
    source: &Query,
    named: &[ObjectName],
    columns: &Schema,
    is_default: fn(&datafusion::sql::sqlparser::ast::Expr) -> bool,
) -> Result<()> {
    let is_always = |name: &str| {
        let field = columns.field_with_name(name).ok();
        field.and_then(Identity::of).is_some_and(|identity| identity.always)
    };
    let names: Vec<String> = match named.is_empty() {
        true => columns.fields().iter().map(|field| field.name().clone()).collect(),
        false => named.iter().filter_map(last_name).collect(),
    };
    for (place, name) in names.iter().enumerate().filter(|(_, name)| is_always(name)) {
        let is_given = match source.body.as_ref() {
            SetExpr::Values(values) => {
                values.rows.iter().any(|row| row.content.get(place).is_some_and(|value| !is_default(value)))
            }
            _ => true,
        };
        if is_given {
            return Err(given(name));
        }
    }
    Ok(())
}

/// The error of a statement that gives an identity column a value.
pub(crate) fn given(column: &str) -> Error {
    Error::invalid(format!(
        "column \"{column}\" is GENERATED ALWAYS AS IDENTITY, so it can't be given a value other than DEFAULT"
    ))
    .hint("Leave it out, or write OVERRIDING SYSTEM VALUE after the INSERT's columns.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::Planner;

    fn columns(sql: &str) -> Result<SchemaRef> {
        Planner::new().columns(&mut TokenReader::new(sql)?).map(|columns| columns.schema)
    }

    #[test]
    fn columns_get_sequences_with_free_names() {
        let schema = columns(
            "(id SERIAL PRIMARY KEY, n BIGINT GENERATED ALWAYS AS IDENTITY (START WITH 5 INCREMENT BY -2 NO CYCLE))",
        );
        let schema = Identity::named(&schema.unwrap(), "t", |name| name == "t_id_seq");
        let found: Vec<Identity> = schema.fields().iter().filter_map(|field| Identity::of(field)).collect();
        let identity = |always, start, increment, sequence: &str| Identity {
            always,
            start,
            increment,
            sequence: sequence.into(),
        };
        assert_eq!(found, [identity(false, 1, 1, "t_id_seq1"), identity(true, 5, -2, "t_n_seq")]);
        assert_eq!(millstream_delta::default_of(schema.field(0)), Some("nextval('t_id_seq1')"));
        assert!(!schema.field(1).is_nullable());
    }

    #[test]
    fn wrong_identities_are_refused() {
        let message = |sql: &str| columns(sql).unwrap_err().message;
        assert!(
            message("(a TEXT GENERATED ALWAYS AS IDENTITY)")
                .contains("must be of type SMALLINT, INT or BIGINT")
        );
        assert_eq!(
            message("(a INT GENERATED ALWAYS AS IDENTITY (INCREMENT 0))"),
            "INCREMENT must not be zero"
        );
        assert!(message("(a SERIAL DEFAULT 1)").contains("more than one default"));
    }
}
