//! The items of a column list, read one by one.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{default_of, identity_of};

use super::Columns;
use crate::checks::{self, WrittenCheck, constraint_names};
use crate::defaults::expression;
use crate::error::{Error, Result};
use crate::generated_columns::WrittenColumn;
use crate::identity;
use crate::indexes::WrittenIndex;
use crate::planner::Planner;
use crate::reader::TokenReader;
use crate::suggestion;
use crate::user_types::Domain;
use crate::watermark::Written;

/// Words that end the expression of a generated column without parentheses.
const AFTER_EXPRESSION: [&str; 8] =
    ["STORED", "VIRTUAL", "PERSISTED", "PRIMARY", "COMMENT", "CONSTRAINT", "CHECK", "REFERENCES"];

/// Words that end a column's type and begin the next clause.
pub(super) const AFTER_TYPE: [&str; 13] = [
    "NOT",
    "NULL",
    "PRIMARY",
    "DEFAULT",
    "GENERATED",
    "CHECK",
    "REFERENCES",
    "UNIQUE",
    "CONSTRAINT",
    "COLLATE",
    "AS",
    "COMMENT",
    "OPTIONS",
];

/// A domain and its position in the text.
type PlacedDomain = (Range<usize>, Domain);

/// A name and its position in the text.
pub(super) type Named = (String, Range<usize>);

/// Collects the columns, the key and the watermark of a column list, each at most once.
#[derive(Default)]
pub(super) struct ColumnList {
    pub(super) fields: Vec<Field>,
    /// The generated columns by their numbers; their expressions may name columns that come after them.
    pub(super) generated: Vec<(usize, WrittenColumn)>,
    pub(super) checks: Vec<WrittenCheck>,
    pub(super) indexes: Vec<WrittenIndex>,
    pub(super) notices: Vec<String>,
    /// The types that are domains, and what they stand for.
    pub(super) domains: Vec<(Range<usize>, String)>,
    /// The position of the last default.
    pub(super) default: Option<Range<usize>>,
    /// The names in PRIMARY KEY, each with its position.
    pub(super) key: Option<Vec<Named>>,
    /// The watermark with its position; its column may come after it.
    pub(super) watermark: Option<(Written, Range<usize>)>,
}

impl ColumnList {
    /// Reads a column, a key or a watermark.
    pub(super) fn item(&mut self, planner: &Planner, reader: &mut TokenReader) -> Result<()> {
        let start = reader.position();
        if reader.keyword(&["WATERMARK", "FOR"]) {
            let written = planner.watermark(reader)?;
            return match self.watermark.replace((written, start.clone())) {
                None => Ok(()),
                Some(_) => Err(Error::invalid("there is more than one watermark").at(start)),
            };
        }
        let name = constraint_name(reader)?;
        if reader.is_keyword(&["CHECK"]) && *reader.peek_at(1) == Token::LParen {
            return self.check(reader, name, None);
        }
        if reader.keyword(&["FOREIGN", "KEY"]) {
            reader.group()?;
            reader.expect_keyword(&["REFERENCES"])?;
            return self.reference(reader);
        }
        if reader.is_keyword(&["UNIQUE"]) && opens_unique(reader) {
            self.indexes.push(WrittenIndex::unique(reader, name, None)?);
            return Ok(());
        }
        for word in ["EXCLUDE", "LIKE"] {
            let next_opens = *reader.peek_at(1) == Token::LParen || word == "LIKE";
            let a_type_follows = word == "LIKE" && reader.peek_at(2) != &Token::RParen;
            if reader.is_keyword(&[word]) && next_opens && !a_type_follows {
                return Err(Error::unsupported(word).at(start));
            }
        }
        match reader.keyword(&["PRIMARY", "KEY"]) {
            true => self.key(reader, start),
            false => self.column(planner, reader),
        }
    }

    pub(super) fn column(&mut self, planner: &Planner, reader: &mut TokenReader) -> Result<()> {
        let start = reader.position();
        let name = reader.identifier().map_err(|_| reader.expected("the name of a column"))?;
        if self.fields.iter().any(|field| *field.name() == name) {
            return Err(Error::invalid(format!("column \"{name}\" is declared twice")).at(start));
        }
        let has_type = !reader.is_keyword(&["AS"]) && !reader.is_keyword(&["GENERATED"]);
        let (mut field, domain) = match identity::serial(reader, &name) {
            Some(serial) => (serial, None),
            None if has_type => typed(planner, reader, &name)?,
            None => (Field::new(&name, DataType::Null, true), None),
        };
        let (mut nullable, mut expression) = (true, None);
        loop {
            let place = reader.position();
            let constraint = constraint_name(reader)?;
            if reader.is_keyword(&["CHECK"]) {
                self.check(reader, constraint, Some(self.fields.len()))?;
            } else if reader.is_keyword(&["UNIQUE"]) {
                let column = (name.clone(), start.clone());
                self.indexes.push(WrittenIndex::unique(reader, constraint, Some(column))?);
            } else if reader.keyword(&["REFERENCES"]) {
                self.reference(reader)?;
            } else if reader.keyword(&["NOT", "NULL"]) {
                nullable = false;
            } else if reader.keyword(&["NULL"]) {
            } else if reader.keyword(&["DEFAULT"]) {
                refuse_second_default(&field, place)?;
                let from = reader.position().start;
                field = planner.default(reader, field, &AFTER_TYPE)?;
                self.default = Some(from..reader.last_position().end);
            } else if reader.keyword(&["PRIMARY", "KEY"]) {
                self.set_key(vec![(name.clone(), start.clone())], place)?;
            } else if let Some(identity) = identity::identity(reader, &field)? {
                refuse_second_default(&field, place)?;
                field = identity;
            } else if reader.is_keyword(&["AS"]) || reader.is_keyword(&["GENERATED"]) {
                if expression.replace(generation(reader)?).is_some() {
                    let error = format!("column \"{name}\" has more than one expression");
                    return Err(Error::invalid(error).at(place));
                }
            } else if matches!(reader.peek(), Token::Comma | Token::RParen) || reader.is_end() {
                break;
            } else if let Some(word) = AFTER_TYPE.iter().find(|word| reader.is_keyword(&[word])) {
                return Err(Error::unsupported(format!("{word} for column \"{name}\"")).at(place));
            } else {
                return Err(reader.expected("\",\", \")\", NOT NULL or PRIMARY KEY"));
            }
        }
        if let Some((place, domain)) = domain {
            let has_default = default_of(&field).is_some() || expression.is_some();
            self.domains.push((place, domain.column(&name, has_default)?));
        }
        field.set_nullable(nullable && identity_of(&field).is_none());
        if let Some(place) = expression {
            if default_of(&field).is_some() || identity_of(&field).is_some() {
                let error = format!("column \"{name}\" is generated, so it has no default");
                return Err(Error::invalid(error).at(start));
            }
            let written = WrittenColumn { field: field.clone(), has_type, place };
            self.generated.push((self.fields.len(), written));
        }
        self.fields.push(field);
        Ok(())
    }

    /// Reads `CHECK (condition)`.
    pub(super) fn check(
        &mut self,
        reader: &mut TokenReader,
        name: Option<Named>,
        place: Option<usize>,
    ) -> Result<()> {
        reader.expect_keyword(&["CHECK"])?;
        let condition = reader.group()?;
        reader.keyword(&["NO", "INHERIT"]);
        self.checks.push(WrittenCheck { name, place, condition });
        Ok(())
    }

    /// Reads the rest of `REFERENCES table (column, …) …`, which isn't enforced.
    pub(super) fn reference(&mut self, reader: &mut TokenReader) -> Result<()> {
        let table = reader.relation_name()?;
        if *reader.peek() == Token::LParen {
            reader.group()?;
        }
        let actions: &[&[&str]] =
            &[&["NO", "ACTION"], &["RESTRICT"], &["CASCADE"], &["SET", "NULL"], &["SET", "DEFAULT"]];
        let rest: &[&[&str]] = &[
            &["ON", "DELETE"],
            &["ON", "UPDATE"],
            &["MATCH", "FULL"],
            &["MATCH", "PARTIAL"],
            &["MATCH", "SIMPLE"],
            &["NOT", "DEFERRABLE"],
            &["DEFERRABLE"],
            &["INITIALLY", "DEFERRED"],
            &["INITIALLY", "IMMEDIATE"],
        ];
        while let Some(clause) = reader.one_of(rest) {
            if clause < 2 && reader.one_of(actions).is_none() {
                return Err(reader.expected("NO ACTION, RESTRICT, CASCADE, SET NULL or SET DEFAULT"));
            }
        }
        let notice = format!(
            "REFERENCES \"{table}\" is not enforced: rows are accepted without a matching row there, and stay if it is deleted"
        );
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
        Ok(())
    }

    /// Plans the expressions of the generated columns.
    pub(super) fn generate(&mut self, planner: &Planner, statement: &str, others: &[FieldRef]) -> Result<()> {
        if self.generated.is_empty() {
            return Ok(());
        }
        let is_generated = |place: &usize| self.generated.iter().any(|(generated, _)| generated == place);
        let plain = (0..self.fields.len()).filter(|place| !is_generated(place));
        let mut inputs: Vec<FieldRef> = plain.map(|place| Arc::new(self.fields[place].clone())).collect();
        let declared = |other: &&FieldRef| self.fields.iter().any(|field| field.name() == other.name());
        inputs.extend(others.iter().filter(|other| !declared(other)).cloned());
        let inputs = Schema::new(inputs);
        let names: Vec<String> =
            self.generated.iter().map(|(_, written)| written.field.name().clone()).collect();
        for (place, written) in &self.generated {
            self.fields[*place] = written.field(planner, statement, &inputs, &names)?;
        }
        Ok(())
    }

    /// Adds the constraints that were read to the columns.
    pub(super) fn constrain(&mut self, planner: &Planner, statement: &str) -> Result<()> {
        checks::add(planner, statement, &self.checks, &mut self.fields)?;
        for written in &self.indexes {
            let columns = Fields::from(self.fields.clone());
            let taken = constraint_names(&self.fields);
            let index = written.of(&columns, &|name| taken.iter().any(|taken| taken == name))?;
            index.add_to(&mut self.fields);
        }
        Ok(())
    }

    pub(super) fn key(&mut self, reader: &mut TokenReader, start: Range<usize>) -> Result<()> {
        reader.expect_symbol(Token::LParen)?;
        let mut names: Vec<Named> = Vec::new();
        loop {
            let place = reader.position();
            let name = reader.identifier()?;
            if names.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("column \"{name}\" is in the key twice")).at(place));
            }
            names.push((name, place));
            if reader.symbol(Token::RParen) {
                return self.set_key(names, start);
            }
            if !reader.symbol(Token::Comma) {
                return Err(reader.expected("\",\" or \")\""));
            }
        }
    }

    pub(super) fn set_key(&mut self, names: Vec<Named>, place: Range<usize>) -> Result<()> {
        match self.key.replace(names) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("there is more than one primary key")
                .hint("Name all its columns in one PRIMARY KEY (a, b).")
                .at(place)),
        }
    }

    /// Makes the columns of the primary key NOT NULL, and returns their numbers.
    pub(super) fn set_key_columns(&mut self) -> Result<Vec<usize>> {
        let mut primary_key = Vec::new();
        for (name, place) in self.key.take().into_iter().flatten() {
            let names = || self.fields.iter().map(|field| field.name().as_str());
            let index = names().position(|other| other == name).ok_or_else(|| {
                Error::invalid(format!("column \"{name}\" of the primary key not found"))
                    .maybe_hint(suggestion::hint(&name, "columns", names()))
                    .at(place)
            })?;
            primary_key.push(index);
        }
        for index in &primary_key {
            self.fields[*index].set_nullable(false);
        }
        Ok(primary_key)
    }

    pub(super) fn finish(
        mut self,
        planner: &Planner,
        start: Range<usize>,
        others: &[FieldRef],
    ) -> Result<Columns> {
        if self.fields.is_empty() {
            return Err(Error::invalid("a column list needs at least one column").at(start));
        }
        let primary_key = self.set_key_columns()?;
        let schema: SchemaRef = Arc::new(Schema::new(self.fields));
        let others = others.iter().filter(|other| schema.field_with_name(other.name()).is_err());
        let all = Schema::new(schema.fields().iter().chain(others).cloned().collect::<Vec<_>>());
        let watermark = self.watermark.take().map(|(written, place)| {
            written
                .of(planner, &all)
                .map_err(|error| if error.span.is_none() { error.at(place) } else { error })
        });
        let (notices, domains) = (std::mem::take(&mut self.notices), std::mem::take(&mut self.domains));
        Ok(Columns { schema, primary_key, watermark: watermark.transpose()?, notices, domains })
    }
}

/// Reads the type of a column. Returns the column, and the domain that the type is, with its position.
fn typed(
    planner: &Planner,
    reader: &mut TokenReader<'_>,
    name: &str,
) -> Result<(Field, Option<PlacedDomain>)> {
    let from = reader.position().start;
    let field = planner.type_until(reader, &AFTER_TYPE)?.as_ref().clone().with_name(name);
    let place = from..reader.last_position().end;
    let domain = planner.types.domain(&reader.text()[place.clone()]);
    Ok((field, domain.map(|domain| (place, domain))))
}

/// Fails if a column has a default already. `place` is the position of another one.
fn refuse_second_default(field: &Field, place: Range<usize>) -> Result<()> {
    if default_of(field).is_none() && identity_of(field).is_none() {
        return Ok(());
    }
    Err(Error::invalid(format!("column \"{}\" has more than one default", field.name())).at(place))
}

/// Reads `[GENERATED ALWAYS] AS expression [STORED | VIRTUAL]`, and returns the expression's position.
fn generation(reader: &mut TokenReader<'_>) -> Result<Range<usize>> {
    if reader.keyword(&["GENERATED"]) {
        reader.expect_keyword(&["ALWAYS"])?;
    }
    reader.expect_keyword(&["AS"])?;
    let place = expression(reader, &AFTER_EXPRESSION)?;
    reader.one_of(&[&["STORED"], &["VIRTUAL"], &["PERSISTED"]]);
    Ok(place)
}

/// Returns true if `UNIQUE` is a constraint of the table, not a column of this name.
pub(super) fn opens_unique(reader: &TokenReader) -> bool {
    let mut ahead = reader.clone();
    ahead.keyword(&["UNIQUE"]) && (*ahead.peek() == Token::LParen || ahead.is_keyword(&["NULLS"]))
}

/// Reads `CONSTRAINT name`, if it comes next.
pub(super) fn constraint_name(reader: &mut TokenReader) -> Result<Option<Named>> {
    if !reader.keyword(&["CONSTRAINT"]) {
        return Ok(None);
    }
    let name = reader.identifier()?;
    Ok(Some((name, reader.last_position())))
}
