//! CSV of Spark: `from_csv('1, 0.8', 'a INT, b DOUBLE')`, `to_csv(struct)` and `schema_of_csv(text)`.
//!
//! A value has a line: fields with a separator between them, in double quotes if they contain one, and with a backslash
//! before a quote.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::Registry;
use super::json::typed_schema;
use super::scalar::Scalar;
use super::spark_options::{with_moments, with_texts};
use super::time_text;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let signature = Signature::variadic_any(Volatility::Immutable);
    registry.add(ScalarUDF::from(FromCsv { unit: registry.unit, signature }));
    let written = |types: &[DataType]| match types {
        [DataType::Struct(fields)] | [DataType::Struct(fields), _] => {
            match fields.iter().find(|field| field.data_type().is_nested()) {
                None => Ok(DataType::Utf8View),
                Some(field) => Err(Error::invalid(format!(
                    "to_csv takes a struct of plain values, but \"{}\" is {}",
                    field.name(),
                    sql_type(field.data_type())
                ))
                .into()),
            }
        }
        _ => {
            Err(Error::invalid("to_csv takes a struct, and a separator").hint("to_csv(struct(a, b))").into())
        }
    };
    registry.add(Scalar::any("to_csv", written, to_csv));
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    registry.add(Scalar::exact("schema_of_csv", vec![DataType::Utf8View], text, |columns| {
        let schemas = columns[0].as_string_view().iter().map(|line| Some(schema_of(line?)));
        Ok(Arc::new(schemas.collect::<StringViewArray>()))
    }));
}

/// Returns the fields of a line; none for one that is empty and without quotes.
fn fields(line: &str, separator: char) -> Vec<Option<String>> {
    let mut fields = Vec::new();
    let mut chars = line.trim_end_matches(['\r', '\n']).chars().peekable();
    loop {
        let mut field = String::new();
        let is_quoted = chars.next_if_eq(&'"').is_some();
        let mut open = is_quoted;
        while let Some(c) = chars.next_if(|c| open || *c != separator) {
            match c {
                '\\' if open => field.push(chars.next_if(|c| matches!(c, '"' | '\\')).unwrap_or('\\')),
                '"' if open && chars.next_if_eq(&'"').is_none() => open = false,
                c => field.push(c),
            }
        }
        fields.push((is_quoted || !field.is_empty()).then_some(field));
        if chars.next().is_none() {
            return fields;
        }
    }
}

fn schema_of(line: &str) -> String {
    let of = |field: &Option<String>| match field.as_deref().map(str::trim) {
        None => "STRING",
        Some(text) if text.parse::<i32>().is_ok() => "INT",
        Some(text) if text.parse::<i64>().is_ok() => "BIGINT",
        Some(text)
            if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                && text.parse::<f64>().is_ok() =>
        {
            "DOUBLE"
        }
        Some(text) if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() => "DATE",
        Some(text) if is_timestamp(text) => "TIMESTAMP",
        Some(text) if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => "BOOLEAN",
        Some(_) => "STRING",
    };
    let fields = fields(line, ',');
    let fields: Vec<String> =
        fields.iter().enumerate().map(|(at, field)| format!("_c{at}: {}", of(field))).collect();
    format!("STRUCT<{}>", fields.join(", "))
}

fn is_timestamp(text: &str) -> bool {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .any(|pattern| chrono::NaiveDateTime::parse_from_str(text, pattern).is_ok())
}

/// Returns the separator of an option: one character.
fn separator(text: Option<&str>) -> std::result::Result<char, Error> {
    let mut chars = text.unwrap_or(",").chars();
    match (chars.next(), chars.next()) {
        (Some(separator), None) if !matches!(separator, '"' | '\\') => Ok(separator),
        _ => Err(Error::invalid("the separator of CSV is one character, and no quote")),
    }
}

fn to_csv(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = columns[0].as_struct();
    let separators = columns.get(1).map(|column| cast(column, &DataType::Utf8View)).transpose()?;
    let given = separators.as_ref().and_then(|column| column.as_string_view().iter().next().flatten());
    let separator = separator(given)?;
    let texts = rows.columns().iter().map(|column| {
        let texts = match column.data_type() {
            of if time_text::is_written(of) => time_text::with_texts(column)?,
            _ => cast(column, &DataType::Utf8View)?,
        };
        Ok(texts.as_string_view().clone())
    });
    let texts = texts.collect::<Result<Vec<StringViewArray>>>()?;
    let lines = (0..rows.len()).map(|row| {
        if rows.is_null(row) {
            return None;
        }
        let mut line = String::new();
        for (at, column) in texts.iter().enumerate() {
            if at > 0 {
                line.push(separator);
            }
            if column.is_valid(row) {
                write_field(&mut line, column.value(row), separator);
            }
        }
        Some(line)
    });
    Ok(Arc::new(lines.collect::<StringViewArray>()))
}

fn write_field(line: &mut String, text: &str, separator: char) {
    let is_plain = |c: char| c != separator && !matches!(c, '"' | '\n' | '\r');
    if !text.is_empty() && text.chars().all(is_plain) {
        line.push_str(text);
        return;
    }
    line.push('"');
    line.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
    line.push('"');
}

/// The function `from_csv(text, type [, pattern [, separator]])`.
#[derive(Debug)]
struct FromCsv {
    /// The unit of times.
    unit: TimeUnit,
    signature: Signature,
}

impl PartialEq for FromCsv {
    fn eq(&self, _: &FromCsv) -> bool {
        true
    }
}

impl Eq for FromCsv {}

impl Hash for FromCsv {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "from_csv".hash(state);
    }
}

impl ScalarUDFImpl for FromCsv {
    fn name(&self) -> &'static str {
        "from_csv"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(Error::invalid("from_csv takes a type that is a literal").into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let first = arguments.arg_fields.first().map(|field| field.data_type());
        if let Some(of) = first.filter(|of| !of.is_string() && !of.is_null()) {
            return Err(Error::invalid(format!("from_csv takes a text first, not {}", sql_type(of))).into());
        }
        let literal = |at: usize| {
            arguments.scalar_arguments.get(at).copied().flatten().and_then(|value| value.try_as_str())
        };
        let Some(Some(text)) = literal(1) else {
            return Err(Error::invalid("from_csv takes a type that is a literal")
                .hint("from_csv(text, 'a INT, b DOUBLE')")
                .into());
        };
        let is_null = |at: usize| {
            arguments.scalar_arguments.get(at).copied().flatten().is_some_and(|value| value.is_null())
        };
        if (2..arguments.arg_fields.len()).any(|at| literal(at).is_none() && !is_null(at)) {
            return Err(Error::invalid("from_csv takes options that are literals").into());
        }
        separator(literal(3).flatten())?;
        match typed_schema::parse(text, self.unit)? {
            DataType::Struct(fields) if fields.iter().all(|field| !field.data_type().is_nested()) => {
                Ok(Arc::new(Field::new("from_csv", DataType::Struct(fields), true)))
            }
            other => Err(Error::invalid(format!(
                "from_csv makes a struct of plain values, not {}",
                sql_type(&other)
            ))
            .into()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let option = |at: usize| match arguments.args.get(at) {
            Some(ColumnarValue::Scalar(value)) => value.try_as_str().flatten(),
            _ => None,
        };
        let (pattern, separator) = (option(2), separator(option(3))?);
        let Some(lines) = arguments.args.first() else {
            return Err(Error::bug("from_csv takes a text").into());
        };
        let lines = cast(&lines.to_array(arguments.number_rows)?, &DataType::Utf8View)?;
        let lines = lines.as_string_view();
        let rows: Vec<Vec<Option<String>>> =
            lines.iter().map(|line| line.map_or(Vec::new(), |line| fields(line, separator))).collect();
        let DataType::Struct(promised) = arguments.return_field.data_type() else {
            return Err(Error::bug("from_csv makes a struct").into());
        };
        let columns = promised.iter().enumerate().map(|(at, field)| {
            let texts: StringViewArray = rows.iter().map(|row| row.get(at).cloned().flatten()).collect();
            read(&(Arc::new(texts) as ArrayRef), field.data_type(), pattern)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let nulls = NullBuffer::from_iter(lines.iter().map(|line| line.is_some()));
        let read = match columns.is_empty() {
            true => StructArray::new_empty_fields(lines.len(), Some(nulls)),
            false => StructArray::try_new(promised.clone(), columns, Some(nulls))?,
        };
        Ok(ColumnarValue::Array(Arc::new(read)))
    }
}

/// Reads texts as a type. One that the type can't hold is NULL.
pub(super) fn read(texts: &ArrayRef, of: &DataType, pattern: Option<&str>) -> Result<ArrayRef> {
    if of.is_string() {
        return Ok(cast(texts, of)?);
    }
    let trimmed =
        texts.as_string_view().iter().map(|text| text.map(str::trim).filter(|text| !text.is_empty()));
    let trimmed: ArrayRef = Arc::new(trimmed.collect::<StringViewArray>());
    match pattern {
        Some(pattern) if matches!(of, DataType::Timestamp(..)) => {
            with_moments(&cast(&trimmed, &with_texts(of))?, of, pattern)
        }
        _ => Ok(cast(&cast(&trimmed, &DataType::Utf8)?, of)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_have_quotes() {
        let read = |line: &str| {
            let fields = fields(line, ',');
            fields.into_iter().map(|field| field.unwrap_or("NULL".into())).collect::<Vec<_>>().join("|")
        };
        assert_eq!(read("1, 0.8,"), "1| 0.8|NULL");
        assert_eq!(read(r#""a,b","say \"x\"","y""z","""#), "a,b|say \"x\"|y\"z|");
        assert_eq!(read(""), "NULL");
        let mut line = String::new();
        for field in ["plain", "a,b", "q\"q", ""] {
            write_field(&mut line, field, ',');
            line.push(',');
        }
        assert_eq!(line, r#"plain,"a,b","q\"q","","#);
        assert_eq!(
            schema_of("1,abc,5000000000,1.5,true,2024-01-02"),
            "STRUCT<_c0: INT, _c1: STRING, _c2: BIGINT, _c3: DOUBLE, _c4: BOOLEAN, _c5: DATE>"
        );
    }
}
