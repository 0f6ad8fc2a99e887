//! The lists behind functions that return rows: `ts_parse`, `ts_debug`, `ts_token_type`, and `unnest` of a TSVECTOR.
//! `ast_rewrite/json.rs` puts them into UNNEST.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int16Builder, Int32Array, ListArray, ListBuilder, StringViewArray, StringViewBuilder,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};

use super::lexer::Lexer;
use super::token::KINDS;
use super::vector::{Vector, letter};
use super::{VECTOR, config};
use crate::error::{Error, Result};
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};
use crate::sqlstate;

/// The number of the default parser.
const PARSER: i64 = 3722;

/// Lists the functions.
pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    use Param::{Int, Text};
    let rows = |fields: Fields| Returns::Type(DataType::new_list(DataType::Struct(fields), true));
    let mut function = |name, params, others, fields, kernel| {
        add(MarkedFunction::new(name, params, rows(fields), Kernel::Column(kernel)).or(others));
    };
    function("ts_parse_rows", &[Text, Text], &[&[Int, Text]], parse_fields(), parse);
    function("ts_token_type_rows", &[Text], &[&[Int]], type_fields(), types);
    function("ts_debug_rows", &[Text], &[&[Text, Text]], debug_fields(), debug);
    function("tsvector_rows", &[VECTOR], &[], vector_fields(), vector);
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn texts() -> DataType {
    DataType::new_list(DataType::Utf8View, true)
}

fn parse_fields() -> Fields {
    vec![field("tokid", DataType::Int32), field("token", DataType::Utf8View)].into()
}

fn type_fields() -> Fields {
    let text = |name| field(name, DataType::Utf8View);
    vec![field("tokid", DataType::Int32), text("alias"), text("description")].into()
}

fn debug_fields() -> Fields {
    let text = |name| field(name, DataType::Utf8View);
    let lists = |name| field(name, texts());
    vec![
        text("alias"),
        text("description"),
        text("token"),
        lists("dictionaries"),
        text("dictionary"),
        lists("lexemes"),
    ]
    .into()
}

fn vector_fields() -> Fields {
    let positions = field("positions", DataType::new_list(DataType::Int16, true));
    vec![field("lexeme", DataType::Utf8View), positions, field("weights", texts())].into()
}

/// Builds a list of records for each row; `lengths` has none for NULL.
fn lists(fields: Fields, columns: Vec<ArrayRef>, lengths: &[Option<usize>]) -> Result<ArrayRef> {
    let bug = |error: arrow::error::ArrowError| Error::bug(error.to_string());
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
    let rows = StructArray::try_new(fields, columns, None).map_err(bug)?;
    let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0)));
    let nulls = NullBuffer::from_iter(lengths.iter().map(Option::is_some));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(rows), Some(nulls)).map_err(bug)?))
}

/// Fails unless the argument names the default parser. Returns none if it is NULL.
fn parser(all: &Arguments, row: usize) -> Result<Option<()>> {
    let unknown = |name: String| {
        Err(Error::invalid(format!("text search parser {name} does not exist"))
            .hint(format!("There is the parser 'default', whose number is {PARSER}."))
            .code(sqlstate::UNDEFINED_OBJECT))
    };
    match (all.text(0, row), all.int(0, row)) {
        (Some("default" | "pg_catalog.default"), _) | (_, Some(PARSER)) => Ok(Some(())),
        (Some(name), _) => unknown(format!("\"{name}\"")),
        (_, Some(number)) => unknown(format!("with OID {number}")),
        (None, None) => Ok(None),
    }
}

fn parse(all: &Arguments) -> Result<ArrayRef> {
    let (mut numbers, mut tokens, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(all.rows));
    for row in 0..all.rows {
        let before = numbers.len();
        let document = parser(all, row)?.and_then(|()| all.text(1, row));
        for token in document.into_iter().flat_map(Lexer::new) {
            numbers.push(token.kind.number());
            tokens.push(token.text);
        }
        lengths.push(document.map(|_| numbers.len() - before));
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(numbers)), Arc::new(StringViewArray::from_iter_values(tokens))];
    lists(parse_fields(), columns, &lengths)
}

fn types(all: &Arguments) -> Result<ArrayRef> {
    let (mut numbers, mut lengths) = (Vec::new(), Vec::with_capacity(all.rows));
    let (mut aliases, mut descriptions) = (Vec::new(), Vec::new());
    for row in 0..all.rows {
        let found = parser(all, row)?;
        for (kind, alias, description) in KINDS.iter().filter(|_| found.is_some()) {
            numbers.push(kind.number());
            aliases.push(*alias);
            descriptions.push(*description);
        }
        lengths.push(found.map(|()| KINDS.len()));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(numbers)),
        Arc::new(StringViewArray::from_iter_values(aliases)),
        Arc::new(StringViewArray::from_iter_values(descriptions)),
    ];
    lists(type_fields(), columns, &lengths)
}

fn debug(all: &Arguments) -> Result<ArrayRef> {
    let (mut aliases, mut descriptions, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    let mut dictionaries = ListBuilder::new(StringViewBuilder::new());
    let mut names = StringViewBuilder::new();
    let mut lexemes = ListBuilder::new(StringViewBuilder::new());
    let mut lengths = Vec::with_capacity(all.rows);
    for row in 0..all.rows {
        let before = tokens.len();
        let (config, at) = config(all, row, 1)?;
        let is_null = at == 0 && all.columns.len() > 1;
        let document = all.text(at, row).filter(|_| !is_null);
        for token in document.into_iter().flat_map(Lexer::new) {
            let (alias, description) = token.kind.names();
            aliases.push(alias);
            descriptions.push(description);
            tokens.push(token.text);
            let dictionary = config.dictionary(token.kind);
            names.append_option(dictionary.map(|dictionary| dictionary.name()));
            if let Some(dictionary) = dictionary {
                dictionaries.values().append_value(dictionary.name());
                if let Some(lexeme) = dictionary.lexeme(token.text) {
                    lexemes.values().append_value(lexeme);
                }
            }
            dictionaries.append(true);
            lexemes.append(dictionary.is_some());
        }
        lengths.push(document.map(|_| tokens.len() - before));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(aliases)),
        Arc::new(StringViewArray::from_iter_values(descriptions)),
        Arc::new(StringViewArray::from_iter_values(tokens)),
        Arc::new(dictionaries.finish()),
        Arc::new(names.finish()),
        Arc::new(lexemes.finish()),
    ];
    lists(debug_fields(), columns, &lengths)
}

fn vector(all: &Arguments) -> Result<ArrayRef> {
    let mut names = StringViewBuilder::new();
    let mut positions = ListBuilder::new(Int16Builder::new());
    let mut weights = ListBuilder::new(StringViewBuilder::new());
    let mut lengths = Vec::with_capacity(all.rows);
    for row in 0..all.rows {
        let vector = all.text(0, row).map(Vector::read).transpose()?;
        for lexeme in vector.iter().flat_map(|vector| &vector.lexemes) {
            names.append_value(&lexeme.text);
            for position in &lexeme.positions {
                positions.values().append_value(i16::try_from(position.at).unwrap_or(i16::MAX));
                weights.values().append_value(letter(position.weight).to_string());
            }
            positions.append(!lexeme.positions.is_empty());
            weights.append(!lexeme.positions.is_empty());
        }
        lengths.push(vector.map(|vector| vector.lexemes.len()));
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(names.finish()), Arc::new(positions.finish()), Arc::new(weights.finish())];
    lists(vector_fields(), columns, &lengths)
}
