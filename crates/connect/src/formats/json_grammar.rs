//! Checks the grammar of JSON (RFC 8259), which Arrow's reader doesn't enforce. That reader accepts missing
//! and superfluous commas and numbers with leading zeros, and it truncates fractions in columns of whole
//! numbers.
//!
//! Deliberately absent: a check for repeated names in an object, which the RFC allows.

use arrow::datatypes::{DataType, Field, Fields};
use memchr::memchr2;
use millstream_delta::sql_type;

/// Maximum nesting of arrays and objects.
const DEPTH_MAX: usize = 512;

/// From here on, the float of a number with a fraction or an exponent may be another whole number than the
/// text.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A requirement on a value beyond the grammar.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Any,
    /// A whole number of this type, if it is a number.
    Whole(DataType),
    /// An object with these fields.
    Object(Vec<(String, Shape)>),
    /// An array of such values, or an object whose fields all are such values.
    Each(Box<Shape>),
}

impl Shape {
    /// Returns the shape of an object with these fields.
    pub fn of_fields(fields: &Fields) -> Shape {
        let shape = |field: &Field| Some((field.name().clone(), Shape::of(field.data_type())));
        let fields: Vec<(String, Shape)> = fields.iter().filter_map(|field| shape(field)).collect();
        match fields.iter().all(|(_, shape)| *shape == Shape::Any) {
            true => Shape::Any,
            false => Shape::Object(fields.into_iter().filter(|(_, shape)| *shape != Shape::Any).collect()),
        }
    }

    fn of(data_type: &DataType) -> Shape {
        match data_type {
            integer if integer.is_integer() => Shape::Whole(integer.clone()),
            DataType::Struct(fields) => Shape::of_fields(fields),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Shape::of(item.data_type()).each(),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => {
                    fields.get(1).map_or(Shape::Any, |value| Shape::of(value.data_type()).each())
                }
                _ => Shape::Any,
            },
            _ => Shape::Any,
        }
    }

    fn each(self) -> Shape {
        if self == Shape::Any { Shape::Any } else { Shape::Each(Box::new(self)) }
    }

    fn field(&self, name: &[u8]) -> &Shape {
        match self {
            Shape::Each(shape) => shape,
            Shape::Object(fields) if name.contains(&b'\\') => {
                let name = unescaped(name);
                fields.iter().find(|(of, _)| *of == name).map_or(&Shape::Any, |(_, shape)| shape)
            }
            Shape::Object(fields) => {
                fields.iter().find(|(of, _)| of.as_bytes() == name).map_or(&Shape::Any, |(_, shape)| shape)
            }
            Shape::Any | Shape::Whole(_) => &Shape::Any,
        }
    }
}

/// Fails if `record` isn't one JSON value of this shape.
pub(super) fn check(record: &[u8], shape: &Shape) -> Result<(), String> {
    let mut scanner = Scanner { record, at: 0 };
    scanner.value(shape, &[], 0)?;
    scanner.end()
}

/// Returns the fields of an object: their names, and their values as text.
pub(crate) fn fields(object: &[u8]) -> Result<Vec<(String, &[u8])>, String> {
    let mut scanner = Scanner { record: object, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(scanner.expected("an object"));
    }
    let mut fields = Vec::new();
    scanner.each_field(|scanner, name| {
        fields.push((unescaped(name), scanner.text_of_value()?));
        Ok(())
    })?;
    scanner.end()?;
    Ok(fields)
}

/// Returns the items of an array as text.
pub(crate) fn items(array: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut scanner = Scanner { record: array, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'[') {
        return Err(scanner.expected("an array"));
    }
    let mut items = Vec::new();
    scanner.each_item(|scanner| {
        items.push(scanner.text_of_value()?);
        Ok(())
    })?;
    scanner.end()?;
    Ok(items)
}

/// Returns the value of a string as text; `None` if the value is none.
pub(crate) fn string(value: &[u8]) -> Option<String> {
    match value {
        [b'"', inner @ .., b'"'] => Some(unescaped(inner)),
        _ => None,
    }
}

/// A scanner over one record.
struct Scanner<'a> {
    record: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.record.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Consumes a byte if it comes next, and returns true if so.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Fails if something follows.
    fn end(&mut self) -> Result<(), String> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the record")),
        }
    }

    /// Scans a value and returns its text.
    fn text_of_value(&mut self) -> Result<&'a [u8], String> {
        self.skip_space();
        let begin = self.at;
        self.value(&Shape::Any, &[], 1)?;
        Ok(&self.record[begin..self.at])
    }

    fn expected(&self, expected: &str) -> String {
        let found = match self.record.get(self.at..).and_then(|rest| rest.utf8_chunks().next()) {
            None => "the record ends".to_string(),
            Some(chunk) => match chunk.valid().chars().next() {
                Some(found) if found.is_control() => format!("'{}' was found", found.escape_debug()),
                Some(found) => format!("'{found}' was found"),
                None => "a byte that is no text was found".to_string(),
            },
        };
        format!("no JSON at byte {}: {found}, but {expected} was expected", self.at)
    }

    /// Scans a value; `name` is the name of its field.
    fn value(&mut self, shape: &Shape, name: &[u8], depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("arrays and objects are nested deeper than {DEPTH_MAX} at byte {}", self.at));
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(shape, depth),
            Some(b'[') => self.array(shape, name, depth),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(shape, name),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), String> {
        if self.record[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected("a value"))
    }

    fn object(&mut self, shape: &Shape, depth: usize) -> Result<(), String> {
        self.each_field(|scanner, name| scanner.value(shape.field(name), name, depth + 1))
    }

    /// Scans an object; `value` scans the value of the field with a name.
    fn each_field(
        &mut self,
        mut value: impl FnMut(&mut Self, &'a [u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("the name of a field, in double quotes,"));
            }
            let name = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.expected("':'"));
            }
            value(self, name)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn array(&mut self, shape: &Shape, name: &[u8], depth: usize) -> Result<(), String> {
        let item = if let Shape::Each(item) = shape { item } else { &Shape::Any };
        self.each_item(|scanner| scanner.value(item, name, depth + 1))
    }

    /// Scans an array; `value` scans an item.
    fn each_item(&mut self, mut value: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            value(self)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    /// Scans a string and returns the raw text between its quotes.
    fn string(&mut self) -> Result<&'a [u8], String> {
        self.at += 1;
        let begin = self.at;
        loop {
            let rest = &self.record[self.at..];
            let Some(length) = memchr2(b'"', b'\\', rest) else {
                self.at = self.record.len();
                return Err(self.expected("'\"'"));
            };
            if let Some(control) = rest[..length].iter().position(|byte| *byte < 0x20) {
                self.at += control;
                return Err(self.expected("an escape such as \\t in a string"));
            }
            self.at += length;
            if self.take(b'"') {
                return Ok(&self.record[begin..self.at - 1]);
            }
            self.escape()?;
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.expected("a hexadecimal digit"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("an escape such as \\\\, \\\" or \\u0041")),
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), String> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == begin { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self, shape: &Shape, name: &[u8]) -> Result<(), String> {
        let begin = self.at;
        self.take(b'-');
        if self.take(b'0') {
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.expected("no digit after a leading 0"));
            }
        } else {
            self.digits()?;
        }
        let whole = self.at;
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        match shape {
            Shape::Whole(of) if self.at > whole => is_whole(&self.record[begin..self.at], name, of),
            _ => Ok(()),
        }
    }
}

/// Fails if a number with a fraction or an exponent is no whole number.
fn is_whole(number: &[u8], name: &[u8], of: &DataType) -> Result<(), String> {
    let number = String::from_utf8_lossy(number);
    match number.parse::<f64>() {
        Ok(value) if value.fract() == 0.0 && value.abs() < EXACT_MAX => Ok(()),
        _ => Err(format!(
            "field '{}' is {number}, but {} was expected: a whole number",
            String::from_utf8_lossy(name),
            sql_type(of)
        )),
    }
}

/// Returns a name with its escapes resolved. A name without escapes stays the same.
fn unescaped(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut units: Vec<u16> = Vec::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(char) = rest.next() {
        let plain = match (char, if char == '\\' { rest.next() } else { None }) {
            ('\\', Some('u')) => {
                let digits: String = rest.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).unwrap_or_default());
                continue;
            }
            ('\\', Some('b')) => '\u{8}',
            ('\\', Some('f')) => '\u{c}',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('t')) => '\t',
            ('\\', Some(other)) => other,
            (char, _) => char,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    fn shape() -> Shape {
        let inner = DataType::Struct(vec![Field::new("n", DataType::Int32, true)].into());
        let list = DataType::List(Field::new("item", DataType::Int64, true).into());
        let fields = [("id", DataType::Int64), ("x", DataType::Float64), ("of", inner), ("all", list)];
        let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
        Shape::of_fields(Schema::new(fields.to_vec()).fields())
    }

    #[test]
    fn json_is_taken() {
        for record in [
            "{}",
            " { \"id\" : -0 , \"x\":1.5e-3}\r",
            "[1, [2], {\"a\": [] }]",
            "\"\\u00e4\\n\\\"é\"",
            "{\"id\": 3.0, \"x\": 0.25, \"of\": {\"n\": 2e3}, \"all\": [1, null, 2E+0], \"more\": 1.5}",
            "{\"id\": true, \"all\": \"1.5\"}",
            "null",
        ] {
            assert_eq!(check(record.as_bytes(), &shape()), Ok(()), "{record}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        let check = |record: &str, expected: &str| {
            let error = check(record.as_bytes(), &shape()).unwrap_err();
            assert!(error.contains(expected), "{record}: {error}");
        };
        check(r#"{"id": 3 "k": 4}"#, "no JSON at byte 9: '\"' was found, but ',' or '}' was expected");
        check(r#"{"id": 2,}"#, "at byte 9: '}' was found, but the name of a field");
        check(r#"{,"id": 9}"#, "at byte 1: ',' was found");
        check(r#"{"id": 020}"#, "at byte 8: '2' was found, but no digit after a leading 0");
        check(r#"{"id": .5}"#, "a value was expected");
        check(r#"{"id": 1.}"#, "a digit was expected");
        check(r#"{"id": +1}"#, "a value was expected");
        check(r#"{"id": 1e}"#, "a digit was expected");
        check(r#"{"id": NaN}"#, "a value was expected");
        check(r#"{"id" 1}"#, "':' was expected");
        check(r#"{id: 1}"#, "in double quotes");
        check(r#"[1 2]"#, "',' or ']' was expected");
        check(r#"[1,]"#, "a value was expected");
        check(r#"{"x": "a\x"}"#, "an escape such as");
        check("{\"x\": \"a\tb\"}", "an escape such as \\t");
        check(r#"{"x": "\u12g4"}"#, "a hexadecimal digit");
        check(r#"{"x": "#, "the record ends, but a value was expected");
        check(r#"{} {}"#, "the end of the record was expected");
        check(&"[".repeat(100_000), "nested deeper than 512");
    }

    #[test]
    fn a_fraction_is_no_whole_number() {
        let check = |record: &str| check(record.as_bytes(), &shape()).unwrap_err();
        assert_eq!(check(r#"{"id": 1.5}"#), "field 'id' is 1.5, but BIGINT was expected: a whole number");
        assert_eq!(
            check(r#"{"\u0069d": 1e-1}"#),
            r"field '\u0069d' is 1e-1, but BIGINT was expected: a whole number"
        );
        assert!(check(r#"{"of": {"n": 2.5}}"#).contains("field 'n' is 2.5, but INT was expected"));
        assert!(check(r#"{"all": [1, 2.25]}"#).contains("field 'all' is 2.25"));
        assert!(check(r#"{"id": 9007199254740993.0}"#).contains("was expected"));
    }
}
