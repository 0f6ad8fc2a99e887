//! `xpath(xml, path)` and its kin: `xpath_string`, `xpath_boolean`, `xpath_int`, `xpath_double` and others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, StringViewArray,
    StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::eval::{Value, evaluate};
use super::parser::{Expression, parse};
use super::tree::Document;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::{Kernel, Scalar};

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let two = || vec![DataType::Utf8View; 2];
    let texts = |_: &[DataType]| Ok(DataType::new_list(DataType::Utf8View, true));
    registry.add(Scalar::exact("xpath", two(), texts, xpath));
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    registry.add(Scalar::exact("xpath_string", two(), text, |columns| {
        let texts = each("xpath_string", columns, |document, value| Ok(value.text(document)))?;
        Ok(Arc::new(texts.into_iter().collect::<StringViewArray>()))
    }));
    let flag = |_: &[DataType]| Ok(DataType::Boolean);
    registry.add(Scalar::exact("xpath_boolean", two(), flag, |columns| {
        let flags = each("xpath_boolean", columns, |_, value| Ok(value.flag()))?;
        Ok(Arc::new(flags.into_iter().collect::<BooleanArray>()))
    }));
    let double = |_: &[DataType]| Ok(DataType::Float64);
    let floats: [(&'static str, Kernel); 2] = [
        ("xpath_double", |columns| numbers("xpath_double", columns)),
        ("xpath_number", |columns| numbers("xpath_number", columns)),
    ];
    for (name, kernel) in floats {
        registry.add(Scalar::exact(name, two(), double, kernel));
    }
    registry.add(Scalar::exact(
        "xpath_float",
        two(),
        |_| Ok(DataType::Float32),
        |columns| Ok(cast(&numbers("xpath_float", columns)?, &DataType::Float32)?),
    ));
    registry.add(Scalar::exact(
        "xpath_long",
        two(),
        |_| Ok(DataType::Int64),
        |columns| wholes("xpath_long", columns, i64::MIN, i64::MAX),
    ));
    registry.add(Scalar::exact(
        "xpath_int",
        two(),
        |_| Ok(DataType::Int32),
        |columns| {
            let wholes = wholes("xpath_int", columns, i32::MIN.into(), i32::MAX.into())?;
            Ok(cast(&wholes, &DataType::Int32)?)
        },
    ));
    registry.add(Scalar::exact(
        "xpath_short",
        two(),
        |_| Ok(DataType::Int16),
        |columns| {
            let wholes = wholes("xpath_short", columns, i16::MIN.into(), i16::MAX.into())?;
            Ok(cast(&wholes, &DataType::Int16)?)
        },
    ));
}

/// Computes each row. NULL, and an empty text, give NULL.
fn each<T>(
    name: &str,
    columns: &[ArrayRef],
    of: impl Fn(&Document, Value) -> Result<T>,
) -> Result<Vec<Option<T>>> {
    let mut known: HashMap<&str, Expression> = HashMap::new();
    let (texts, paths) = (columns[0].as_string_view(), columns[1].as_string_view());
    let mut found = Vec::with_capacity(texts.len());
    for (text, path) in texts.iter().zip(paths) {
        let (Some(text), Some(path)) = (text.filter(|text| !text.is_empty()), path) else {
            found.push(None);
            continue;
        };
        let expression = match known.entry(path) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(parse(path)?),
        };
        let document = Document::read(text)
            .map_err(|error| error.hint(format!("{name} takes a document with one element at the top.")))?;
        let value = evaluate(&document, expression)?;
        found.push(Some(of(&document, value)?));
    }
    Ok(found)
}

/// Returns the characters of the texts and attributes that a path finds; NULL for an element.
fn xpath(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = each("xpath", columns, |document, value| match value {
        Value::Nodes(nodes) => {
            let of = |(node, attribute): (usize, usize)| {
                let is_element = attribute == 0 && document.nodes[node].text.is_none();
                (!is_element).then(|| document.string_of((node, attribute)))
            };
            Ok(nodes.into_iter().map(of).collect::<Vec<_>>())
        }
        _ => Err(Error::invalid("xpath takes a path of nodes")
            .hint("xpath_string, xpath_double and xpath_boolean return a value.")
            .into()),
    })?;
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in rows {
        let present = row.is_some();
        row.into_iter().flatten().for_each(|text| out.values().append_option(text));
        out.append(present);
    }
    Ok(Arc::new(out.finish()))
}

fn numbers(name: &str, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let numbers = each(name, columns, |document, value| Ok(value.number(document)))?;
    Ok(Arc::new(numbers.into_iter().collect::<Float64Array>()))
}

/// Returns whole numbers. As in Java, NaN is 0 and numbers out of range are the least or the greatest one.
fn wholes(name: &str, columns: &[ArrayRef], least: i64, most: i64) -> Result<ArrayRef> {
    let numbers =
        each(name, columns, |document, value| Ok((value.number(document) as i64).clamp(least, most)))?;
    Ok(Arc::new(numbers.into_iter().collect::<Int64Array>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(xml: &str, path: &str, expected: &str) {
        let document = Document::read(xml).unwrap();
        let value = evaluate(&document, &parse(path).unwrap()).unwrap();
        let shown = match &value {
            Value::Nodes(nodes) => {
                nodes.iter().map(|node| document.string_of(*node)).collect::<Vec<_>>().join("|")
            }
            other => other.text(&document),
        };
        assert_eq!(shown, expected, "{path}");
    }

    /// The results are those of libxml2's xmllint.
    #[test]
    fn paths_follow_xpath_1() {
        let xml = "<a x='1'><b>b1</b><b y='2'>b2<c>3</c></b><d>&lt;&#65;<![CDATA[&]]></d> </a>";
        for (path, expected) in [
            ("/a/b", "b1|b23"),
            ("a/b[2]/c", "3"),
            ("//c/..", "b23"),
            ("a/b[@y='2']/text()", "b2"),
            ("a/@x | //@y", "1|2"),
            ("count(//b)", "2"),
            ("sum(//@*)", "3"),
            ("a/b[last()]/@y + 1", "3"),
            ("a/d", "<A&"),
            ("a/b[c > 2 and not(@z)]/c", "3"),
            ("//b[1]/following-sibling::b", "b23"),
            ("//c/ancestor::*[name() = 'a']/@x", "1"),
            ("string-length(a/b)", "2"),
            ("concat(a/b, '-', translate('abc', 'ac', 'x'))", "b1-xb"),
            ("substring('12345', 2, 3)", "234"),
            ("normalize-space('  a  b ')", "a b"),
            ("a/x", ""),
            ("7 div 2 - -1", "4.5"),
            ("a/b = 'b1'", "true"),
            ("(//b)[2]/c", "3"),
            ("a/child::*[position() = 1]", "b1"),
        ] {
            check(xml, path, expected);
        }
    }

    #[test]
    fn what_is_no_xml_or_path_is_refused() {
        for text in ["", "a", "<a>", "<a></b>", "<a/><b/>", "<a>&x;</a>", "<!DOCTYPE a><a/>"] {
            assert!(Document::read(text).is_err(), "{text}");
        }
        for path in ["", "a/", "a[", "f(", "a b", "a/foo::b", "'x", "1 +"] {
            assert!(parse(path).is_err(), "{path}");
        }
        let deep = "(".repeat(10_000) + "1" + &")".repeat(10_000);
        assert!(parse(&deep).is_err());
        assert!(parse(&"1 + ".repeat(100_000)).is_err());
    }
}
