//! Indexes of tables: those of UNIQUE constraints, and those of CREATE INDEX.
//!
//! The table's columns keep them ([`millstream_delta::indexes_of`]), each at its first column. The names of constraints that
//! a statement doesn't name follow the table's name, as PostgreSQL's do: `t_a_b_key`, `t_a_idx`.
//!
//! ```
//! use millstream_sql::{Planner, TableIndex, TokenReader};
//! let mut reader = TokenReader::new("(a INT, b INT UNIQUE, UNIQUE (b, a))").unwrap();
//! let columns = Planner::new().columns(&mut reader).unwrap();
//! let names: Vec<String> = TableIndex::all(&columns.schema).iter().map(|index| index.name_in("t")).collect();
//! assert_eq!(names, ["t_b_a_key", "t_b_key"]);
//! ```
//!
//! Deliberately absent: indexes over expressions, and partial ones.

use std::ops::Range;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{indexes_of, sql_type_of, with_index};

use crate::checks::{constraint_name_in, constraint_names};
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::reader::TokenReader;
use crate::sqlstate;
use crate::suggestion;

/// The separator of the parts of a description.
const SEPARATOR: char = '\u{1f}';

/// The role of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// It finds rows.
    Plain,
    /// No two rows have the same values in its columns.
    Unique,
    /// The same, as a constraint of the table.
    Constraint,
}

/// An index of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableIndex {
    /// Its name. If it begins with a dot, the table's name comes before it: see [`TableIndex::name_in`].
    pub name: String,
    /// The numbers of its columns.
    pub columns: Vec<usize>,
    /// Its role.
    pub kind: IndexKind,
    /// True if NULLs are different values.
    pub nulls_distinct: bool,
}

impl TableIndex {
    /// Returns the indexes of a table, by column and name.
    pub fn all(columns: &Schema) -> Vec<TableIndex> {
        let fields = columns.fields().iter();
        let described = fields.flat_map(|field| indexes_of(field));
        described.filter_map(|(name, text)| TableIndex::read(name, text, columns)).collect()
    }

    fn read(name: &str, text: &str, columns: &Schema) -> Option<TableIndex> {
        let mut parts = text.split(SEPARATOR);
        let kind = match parts.next()? {
            "unique" => IndexKind::Unique,
            "constraint" => IndexKind::Constraint,
            _ => IndexKind::Plain,
        };
        let nulls_distinct = parts.next()? != "equal";
        let columns = parts.map(|column| columns.index_of(column).ok()).collect::<Option<Vec<_>>>()?;
        Some(TableIndex { name: name.to_string(), columns, kind, nulls_distinct })
    }

    /// Adds the index to the table's columns.
    pub fn add_to(&self, fields: &mut [Field]) {
        let kind = match self.kind {
            IndexKind::Plain => "plain",
            IndexKind::Unique => "unique",
            IndexKind::Constraint => "constraint",
        };
        let mut parts = vec![kind, if self.nulls_distinct { "distinct" } else { "equal" }];
        parts.extend(self.columns.iter().map(|place| fields[*place].name().as_str()));
        let text = parts.join(&SEPARATOR.to_string());
        if let Some(first) = self.columns.first() {
            fields[*first] = with_index(fields[*first].clone(), &self.name, &text);
        }
    }

    /// Returns true if no two rows may have the same values.
    pub fn is_unique(&self) -> bool {
        self.kind != IndexKind::Plain
    }

    /// Returns the name in a table of this name.
    pub fn name_in(&self, table: &str) -> String {
        constraint_name_in(table, &self.name)
    }
}

/// A name and its position in the statement.
type Named = (String, Range<usize>);

/// An index as it was written, before all columns are known.
#[derive(Debug)]
pub struct WrittenIndex {
    /// Its name and the position of that, if it is written.
    pub(crate) name: Option<Named>,
    /// Its columns with their positions.
    columns: Vec<Named>,
    kind: IndexKind,
    nulls_distinct: bool,
    /// True if it is over an expression, which no index of a table can be.
    pub has_expressions: bool,
    /// Notices for the user.
    pub notices: Vec<String>,
}

impl WrittenIndex {
    /// Reads the rest of CREATE INDEX, after the name of the table: `(a, b DESC) NULLS NOT DISTINCT`.
    ///
    /// # Errors
    /// Fails for a unique index over an expression, or of some rows only.
    pub fn read(reader: &mut TokenReader<'_>, name: Option<Named>, kind: IndexKind) -> Result<WrittenIndex> {
        let mut notices = Vec::new();
        if reader.keyword(&["USING"]) {
            reader.identifier()?;
        }
        let (mut columns, mut has_expressions) = (Vec::new(), false);
        reader.expect_symbol(Token::LParen)?;
        loop {
            match index_column(reader, kind)? {
                Some(column) => columns.push(column),
                None => has_expressions = true,
            }
            if !reader.symbol(Token::Comma) {
                reader.expect_symbol(Token::RParen)?;
                break;
            }
        }
        if reader.keyword(&["INCLUDE"]) {
            reader.group()?;
        }
        let nulls_distinct = nulls_distinct(reader)?;
        if reader.keyword(&["WITH"]) {
            reader.group()?;
        }
        if reader.keyword(&["TABLESPACE"]) {
            reader.identifier()?;
        }
        let at = reader.position();
        if reader.keyword(&["WHERE"]) {
            if kind != IndexKind::Plain {
                return Err(Error::unsupported("UNIQUE INDEX … WHERE").at(at).hint(
                    "A generated column that is NULL for other rows does it: NULLs are different values.",
                ));
            }
            while !reader.is_end() {
                reader.next();
            }
            notices.push("WHERE has no effect: the index has all rows".into());
        }
        Ok(WrittenIndex { name, columns, kind, nulls_distinct, has_expressions, notices })
    }

    /// Returns the index over the columns of a table.
    ///
    /// # Errors
    /// Fails if the table lacks a column, or if a column's type can't be indexed.
    pub fn over(&self, columns: &Schema) -> Result<TableIndex> {
        let fields: Vec<Field> = columns.fields().iter().map(|field| field.as_ref().clone()).collect();
        let taken = constraint_names(&fields);
        self.of(columns.fields(), &|name| taken.iter().any(|taken| taken == name))
    }

    /// Reads `UNIQUE [NULLS [NOT] DISTINCT]` of the column `column`, or with `(a, b)` without one.
    pub(crate) fn unique(
        reader: &mut TokenReader<'_>,
        name: Option<Named>,
        column: Option<Named>,
    ) -> Result<WrittenIndex> {
        reader.expect_keyword(&["UNIQUE"])?;
        let nulls_distinct = nulls_distinct(reader)?;
        let columns = match column {
            Some(column) => vec![column],
            None => names(reader)?,
        };
        while reader
            .one_of(&[
                &["NOT", "DEFERRABLE"],
                &["DEFERRABLE"],
                &["INITIALLY", "IMMEDIATE"],
                &["INITIALLY", "DEFERRED"],
            ])
            .is_some()
        {}
        let notices = Vec::new();
        let has_expressions = false;
        Ok(WrittenIndex {
            name,
            columns,
            kind: IndexKind::Constraint,
            nulls_distinct,
            has_expressions,
            notices,
        })
    }

    /// Returns the index over these columns. `is_taken` knows the names that it can't have.
    pub(crate) fn of(&self, columns: &Fields, is_taken: &dyn Fn(&str) -> bool) -> Result<TableIndex> {
        let mut places = Vec::with_capacity(self.columns.len());
        for (name, at) in &self.columns {
            let Some((place, field)) = columns.find(name) else {
                let names = columns.iter().map(|field| field.name().as_str());
                return Err(Error::invalid(format!("column \"{name}\" of the index not found"))
                    .maybe_hint(suggestion::hint(name, "columns", names))
                    .at(at.clone()));
            };
            if places.contains(&place) {
                return Err(Error::invalid(format!("column \"{name}\" is in the index twice")).at(at.clone()));
            }
            if let Some(error) = without_order(field) {
                return Err(error.at(at.clone()));
            }
            if !can_be_indexed(field) {
                let (name, found) = (field.name(), sql_type_of(field));
                return Err(Error::unsupported(format!("{found} in an index, as in column \"{name}\","))
                    .at(at.clone()));
            }
            places.push(place);
        }
        let name = match &self.name {
            Some((name, at)) if is_taken(name) => {
                return Err(
                    Error::invalid(format!("there is a constraint \"{name}\" already")).at(at.clone())
                );
            }
            Some((name, _)) => name.clone(),
            None => self.free_name(is_taken)?,
        };
        Ok(TableIndex { name, columns: places, kind: self.kind, nulls_distinct: self.nulls_distinct })
    }

    /// Returns PostgreSQL's name for an index without one, after that of the table: `.a_b_key`, `.a_b_key1`.
    fn free_name(&self, is_taken: &dyn Fn(&str) -> bool) -> Result<String> {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let suffix = if self.kind == IndexKind::Constraint { "key" } else { "idx" };
        let base = format!(".{}_{suffix}", names.join("_"));
        let numbered = (1..).map(|number| format!("{base}{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| !is_taken(name)).ok_or_else(|| Error::bug("names are never used up"))
    }
}

/// Returns the error of a column in a key or an index if its type has neither an equality nor an order.
pub fn without_order(field: &Field) -> Option<Error> {
    let mark = Mark::spelled(millstream_delta::declared_type(field)?).filter(|mark| mark.is_unordered())?;
    let message =
        format!("data type {} has no default operator class for access method \"btree\"", mark.name());
    Some(
        Error::invalid(message)
            .hint(format!("Use another column than \"{}\", or store its text.", field.name()))
            .code(sqlstate::UNDEFINED_OBJECT),
    )
}

/// Returns true if values of a column are equal exactly if their stored forms are.
fn can_be_indexed(field: &Field) -> bool {
    !has_intervals(field.data_type()) && sql_type_of(field) != "JSON"
}

fn has_intervals(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => !can_be_indexed(field),
        DataType::Struct(fields) => !fields.iter().all(|field| can_be_indexed(field)),
        _ => false,
    }
}

/// Reads `NULLS [NOT] DISTINCT`, if it comes next. Returns true if NULLs are different values.
fn nulls_distinct(reader: &mut TokenReader<'_>) -> Result<bool> {
    if reader.keyword(&["NULLS", "NOT", "DISTINCT"]) {
        return Ok(false);
    }
    reader.keyword(&["NULLS", "DISTINCT"]);
    Ok(true)
}

/// Reads `(a, b)`.
fn names(reader: &mut TokenReader<'_>) -> Result<Vec<Named>> {
    let mut names = Vec::new();
    reader.expect_symbol(Token::LParen)?;
    loop {
        let at = reader.position();
        names.push((reader.identifier()?, at));
        if !reader.symbol(Token::Comma) {
            reader.expect_symbol(Token::RParen)?;
            return Ok(names);
        }
    }
}

/// Reads a column of an index: `a`, `a text_pattern_ops DESC NULLS LAST`. The order of the values is not used. Returns
/// `None` for an expression: `lower(a)`, `(a + b)`.
fn index_column(reader: &mut TokenReader<'_>, kind: IndexKind) -> Result<Option<Named>> {
    let at = reader.position();
    let is_call = *reader.peek_at(1) == Token::LParen;
    let is_expression = is_call || *reader.peek() == Token::LParen;
    if is_expression && kind != IndexKind::Plain {
        return Err(Error::unsupported("a unique index over an expression").at(at).hint(
            "A generated column has its values: c TEXT GENERATED ALWAYS AS (lower(name)) STORED; index that.",
        ));
    }
    let column = match is_expression {
        true => None,
        false => Some((reader.identifier()?, at)),
    };
    if is_call {
        reader.next();
    }
    if is_expression {
        reader.group()?;
    }
    if reader.keyword(&["COLLATE"]) {
        reader.relation_name()?;
    }
    let ends: &[&[&str]] = &[&["ASC"], &["DESC"], &["NULLS"]];
    if matches!(reader.peek(), Token::Word(_)) && !ends.iter().any(|words| reader.is_keyword(words)) {
        reader.identifier()?;
    }
    reader.one_of(&[&["ASC"], &["DESC"]]);
    reader.one_of(&[&["NULLS", "FIRST"], &["NULLS", "LAST"]]);
    Ok(column)
}
