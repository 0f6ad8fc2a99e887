//! Arrays as text: `{1,2}`, `{{a,b},{c,NULL}}`, `{"with, comma"}`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringViewArray, StringViewBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

const EXPECTED: &str = "an array in braces, as in {1,2} or {\"a, b\",NULL}";

/// A builder of nested lists of one depth from texts.
pub(crate) struct Arrays {
    /// The end of each list by level, outermost first.
    ends: Vec<Vec<i32>>,
    /// False for each text that is NULL.
    valid: Vec<bool>,
    leaves: StringViewBuilder,
}

/// A parsed element. It is discarded if the text turns out to be wrong.
enum Element {
    List(Vec<Element>),
    Text(Option<String>),
}

impl Arrays {
    /// Creates a builder for arrays with this many dimensions, at least one.
    pub(crate) fn new(depth: usize) -> Arrays {
        Arrays { ends: vec![Vec::new(); depth], valid: Vec::new(), leaves: StringViewBuilder::new() }
    }

    /// Parses and adds an array, or NULL.
    pub(crate) fn push(&mut self, text: Option<&str>) -> Result<(), String> {
        let elements = match text {
            None => Vec::new(),
            Some(text) => read(text, self.ends.len())?,
        };
        self.valid.push(text.is_some());
        self.add(elements, 0);
        Ok(())
    }

    fn add(&mut self, elements: Vec<Element>, level: usize) {
        let before = self.ends[level].last().copied().unwrap_or(0);
        self.ends[level].push(before + elements.len() as i32);
        for element in elements {
            match element {
                Element::List(elements) => self.add(elements, level + 1),
                Element::Text(text) => self.leaves.append_option(text),
            }
        }
    }

    /// Builds the lists.
    pub(crate) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let mut values: ArrayRef = Arc::new(self.leaves.finish());
        for (level, ends) in self.ends.into_iter().enumerate().rev() {
            let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
            let nulls = (level == 0).then(|| NullBuffer::from(std::mem::take(&mut self.valid)));
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            values = Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets.into()), values, nulls)?);
        }
        Ok(values)
    }
}

/// Returns the type of such lists.
pub(crate) fn list_type(depth: usize) -> DataType {
    (0..depth).fold(DataType::Utf8View, |inner, _| DataType::new_list(inner, true))
}

/// Returns the elements of a one-dimensional array as text.
pub(crate) fn elements(text: &str) -> Result<StringViewArray, String> {
    let flat = read(text, 1)?.into_iter().map(|element| match element {
        Element::Text(text) => text,
        Element::List(_) => None,
    });
    Ok(flat.collect())
}

fn read(text: &str, depth: usize) -> Result<Vec<Element>, String> {
    let mut reader = ArrayParser { rest: text.trim() };
    if reader.rest.starts_with('[') {
        return Err("an array without bounds before it".to_string());
    }
    let elements = reader.list(depth)?;
    if reader.rest.is_empty() { Ok(elements) } else { Err(EXPECTED.to_string()) }
}

struct ArrayParser<'a> {
    rest: &'a str,
}

impl ArrayParser<'_> {
    fn takes(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start();
        let Some(after) = rest.strip_prefix(c) else { return false };
        self.rest = after.trim_start();
        true
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Element>, String> {
        if !self.takes('{') {
            return Err(EXPECTED.to_string());
        }
        let mut elements = Vec::new();
        if self.takes('}') {
            return Ok(elements);
        }
        loop {
            let nested = self.rest.starts_with('{');
            if nested != (depth > 1) {
                return Err(format!("{} of braces", if nested { "fewer levels" } else { "more levels" }));
            }
            elements.push(match nested {
                true => Element::List(self.list(depth - 1)?),
                false => Element::Text(self.element()?),
            });
            if self.takes('}') {
                return Ok(elements);
            }
            if !self.takes(',') {
                return Err(EXPECTED.to_string());
            }
        }
    }

    fn element(&mut self) -> Result<Option<String>, String> {
        let quoted = self.rest.starts_with('"');
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(usize::from(quoted));
        loop {
            let Some((at, c)) = chars.next() else { return Err(EXPECTED.to_string()) };
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped)) => text.push(escaped),
                    None => return Err(EXPECTED.to_string()),
                },
                '"' if quoted => {
                    self.rest = self.rest[at + 1..].trim_start();
                    return Ok(Some(text));
                }
                ',' | '}' if !quoted => {
                    self.rest = &self.rest[at..];
                    break;
                }
                '"' | '{' if !quoted => return Err(EXPECTED.to_string()),
                c => text.push(c),
            }
        }
        let text = text.trim_end();
        match text {
            "" => Err(EXPECTED.to_string()),
            text if text.eq_ignore_ascii_case("null") => Ok(None),
            text => Ok(Some(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    fn check(depth: usize, texts: &[Option<&str>], expected: &[&str]) {
        let mut arrays = Arrays::new(depth);
        texts.iter().for_each(|text| arrays.push(*text).unwrap());
        let array = arrays.finish().unwrap();
        assert_eq!(*array.data_type(), list_type(depth));
        let options = FormatOptions::new().with_null("NULL");
        let shown = ArrayFormatter::try_new(&array, &options).unwrap();
        let shown: Vec<String> = (0..array.len()).map(|row| shown.value(row).to_string()).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn arrays_are_read() {
        check(
            1,
            &[Some("{1,2}"), None, Some("{}"), Some(" { a b , null,\"NULL\" } ")],
            &["[1, 2]", "NULL", "[]", "[a b, NULL, NULL]"],
        );
        check(1, &[Some(r#"{"a, \"b\"",c\,d,""}"#)], &[r#"[a, "b", c,d, ]"#]);
        check(2, &[Some("{{1,2},{}}"), Some("{}"), Some("{{3}}")], &["[[1, 2], []]", "[]", "[[3]]"]);
    }

    #[test]
    fn what_is_no_array_fails() {
        for text in ["", "1,2", "{1,2", "{1,}", "{1}x", "{\"a}", "[1:2]={1,2}", "{{1}}", "{a\"b}"] {
            assert!(Arrays::new(1).push(Some(text)).is_err(), "{text}");
        }
        assert_eq!(Arrays::new(2).push(Some("{1}")).unwrap_err(), "more levels of braces");
    }
}
