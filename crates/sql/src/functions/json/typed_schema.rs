//! Types that `from_json` and `from_csv` of Spark take: `a INT, b ARRAY<STRING>`, `STRUCT<a: INT>`, `MAP<STRING, INT>`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::error::{Error, Result};
use crate::functions::maps::map_type;

/// The most levels of a type.
const DEPTH_MAX: usize = 100;

/// Reads a type, whose times have this unit. A list of fields without STRUCT is a struct, too.
pub(in crate::functions) fn parse(text: &str, unit: TimeUnit) -> Result<DataType> {
    let mut reader = Reader { text, at: 0, depth: 0, unit };
    let of = match reader.is_type_alone() {
        true => reader.data_type()?,
        false => DataType::Struct(reader.fields(None)?),
    };
    reader.skip();
    if reader.at < text.len() {
        return Err(reader.expected("the end of the type"));
    }
    Ok(of)
}

/// Reads a type from a text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    unit: TimeUnit,
}

impl Reader<'_> {
    fn expected(&self, what: &str) -> Error {
        let rest: String = self.text.get(self.at..).unwrap_or_default().chars().take(20).collect();
        let found = if rest.is_empty() { "its end".to_string() } else { format!("\"{rest}\"") };
        Error::invalid(format!("the type '{}' has {found} where {what} was expected", self.text))
            .hint("A type is written as 'a INT, b ARRAY<STRING>, c STRUCT<d: DOUBLE>'.")
    }

    fn skip(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn takes(&mut self, token: char) -> bool {
        self.skip();
        let found = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(token));
        self.at += if found { token.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, token: char) -> Result<()> {
        if self.takes(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    /// Reads a word, or a name in backticks.
    fn word(&mut self) -> Result<String> {
        if self.takes('`') {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(end) = rest.find('`') else { return Err(self.expected("a name and '`'")) };
            self.at += end + 1;
            return Ok(rest[..end].to_string());
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected("a name"));
        }
        self.at += end;
        Ok(rest[..end].to_string())
    }

    /// True if the text is a type rather than a list of fields.
    fn is_type_alone(&mut self) -> bool {
        let word = self.word().unwrap_or_default().to_lowercase();
        self.skip();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let alone = rest.is_empty() || rest.starts_with('<') || rest.starts_with('(');
        self.at = 0;
        alone && !word.is_empty()
    }

    /// Reads fields up to a closing bracket, or to the end of the text.
    fn fields(&mut self, close: Option<char>) -> Result<Fields> {
        let mut fields = Vec::new();
        if close.is_some_and(|close| self.takes(close)) {
            return Ok(Fields::empty());
        }
        loop {
            let name = self.word()?;
            self.takes(':');
            let of = self.data_type()?;
            self.skip();
            for word in ["NOT", "NULL"] {
                let rest = self.text.get(self.at..).unwrap_or_default();
                if rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)) {
                    self.at += word.len();
                    self.skip();
                }
            }
            fields.push(Field::new(name, of, true));
            if !self.takes(',') {
                break;
            }
        }
        if let Some(close) = close {
            self.expect(close)?;
        }
        Ok(Fields::from(fields))
    }

    fn data_type(&mut self) -> Result<DataType> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::invalid(format!("the type has more than {DEPTH_MAX} levels")));
        }
        self.skip();
        let start = self.at;
        let word = self.word()?.to_lowercase();
        let of = match word.as_str() {
            "struct" => {
                self.expect('<')?;
                DataType::Struct(self.fields(Some('>'))?)
            }
            "array" => {
                self.expect('<')?;
                let element = self.data_type()?;
                self.expect('>')?;
                DataType::new_list(element, true)
            }
            "map" => {
                self.expect('<')?;
                let key = self.data_type()?;
                self.expect(',')?;
                let value = self.data_type()?;
                self.expect('>')?;
                if !key.is_string() {
                    return Err(Error::invalid("a map that is read from JSON has keys of the type STRING"));
                }
                map_type(&key, &value)
            }
            "decimal" | "dec" | "numeric" => self.decimal()?,
            "varchar" | "char" => {
                self.expect('(')?;
                self.word()?;
                self.expect(')')?;
                DataType::Utf8View
            }
            name => match simple(name, self.unit) {
                Some(of) => of,
                None => {
                    self.at = start;
                    return Err(self.expected("a type"));
                }
            },
        };
        self.depth -= 1;
        Ok(of)
    }

    fn decimal(&mut self) -> Result<DataType> {
        let (mut precision, mut scale) = (10, 0);
        if self.takes('(') {
            precision = self.number()?;
            if self.takes(',') {
                scale = self.number()?;
            }
            self.expect(')')?;
        }
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision.cast_signed() => {
                Ok(DataType::Decimal128(precision, scale))
            }
            _ => {
                Err(Error::invalid(format!("DECIMAL({precision}, {scale}) has no such precision and scale"))
                    .hint("The precision is from 1 to 38, the scale from 0 to the precision."))
            }
        }
    }

    fn number(&mut self) -> Result<u32> {
        self.word()?.parse().map_err(|_| self.expected("a number"))
    }
}

fn simple(name: &str, unit: TimeUnit) -> Option<DataType> {
    Some(match name {
        "boolean" => DataType::Boolean,
        "tinyint" | "byte" => DataType::Int8,
        "smallint" | "short" => DataType::Int16,
        "int" | "integer" => DataType::Int32,
        "bigint" | "long" => DataType::Int64,
        "float" | "real" => DataType::Float32,
        "double" => DataType::Float64,
        "string" | "text" => DataType::Utf8View,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" | "timestamp_ltz" => DataType::Timestamp(unit, Some(Arc::from("+00:00"))),
        "timestamp_ntz" => DataType::Timestamp(unit, None),
        _ => return None,
    })
}
